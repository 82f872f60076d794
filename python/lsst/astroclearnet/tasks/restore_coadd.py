# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restore the coadd of a patch from visit images."""

from __future__ import annotations

__all__ = ("RestoreCoaddTask",)

import dataclasses
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lsst.pipe.base import (
    AnnotatedPartialOutputsError,
    InputQuantizedConnection,
    InvalidQuantumError,
    OutputQuantizedConnection,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from ..adapters import (
    PatchGeometry,
    PatchSource,
    PatchSummary,
    VisitImageSource,
    model_from_dict,
    predict_disk_bytes,
)
from ..core import MemoryPlan, RestorationResult, RestoreOptions, plan_memory, restore_exposures
from ._errors import RestorationAlgorithmError, translate_errors
from ._metrics import make_metrics
from ._patch_exposures import PatchExposuresTask
from ._products import (
    RestorationInputs,
    make_coadd,
    make_demand_map,
    make_linear_coadd,
    make_noise_table,
)
from ._progress import report_progress
from ._quantum_inputs import GEOMETRY_CONNECTIONS, VisitSummarySource, gather_inputs, read_geometry
from ._restoration_figure import make_figure
from ._used_network import describe_network
from ._warnings import list_warnings
from .prepare_exposures import SkyCorrectionSource
from .restore_coadd_config import RestoreCoaddConfig
from .select_exposures import VisitSelections

_GIB = 2.0**30


class RestoreCoaddTask(PatchExposuresTask):
    """Restore the coadd of a patch from its exposures with a network.

    Each visit image stays on its own pixels, with its variance and mask; the
    network of `lsst.astroclearnet.core.restore`, trained once or fitted to
    the patch, gives the sky on the patch at one declared PSF.
    """

    ConfigClass = RestoreCoaddConfig
    _DefaultName = "restoreCoadd"
    config: RestoreCoaddConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        data_id = butlerQC.quantum.dataId
        if data_id is None:
            raise InvalidQuantumError("A quantum of restoreCoadd needs a data ID.")
        # The executor leaves one thread to a process; it may have been given
        # more cores than that.
        torch.set_num_threads(max(1, butlerQC.resources.num_cores))
        source = self.config.geometry_source
        outputs = self.run(
            geometry=read_geometry(
                source,
                butlerQC.get(getattr(inputRefs, GEOMETRY_CONNECTIONS[source])),
                data_id.required,
                cell_size=self.config.cell_size,
            ),
            band=str(data_id["band"]),
            **gather_inputs(butlerQC, inputRefs),
        )
        butlerQC.put(outputs, outputRefs)
        if outputs.partial is not None:
            # Without the coadds themselves: what is annotated of a failure
            # cannot be written with them.
            raise AnnotatedPartialOutputsError.annotate(
                outputs.partial, self, log=self.log
            ) from outputs.partial

    @timeMethod
    def run(
        self,
        *,
        visit_images: Sequence[VisitImageSource],
        geometry: PatchGeometry,
        band: str,
        selections: VisitSelections | None = None,
        sky_corrections: Mapping[tuple[str, int, int], SkyCorrectionSource] | None = None,
        visit_summaries: Mapping[tuple[str, int], VisitSummarySource] | None = None,
        restoration_model: Mapping[str, Any] | None = None,
    ) -> Struct:
        """Restore one patch in one band.

        Parameters
        ----------
        visit_images
            Visit images (`lsst.images.VisitImage`) or deferred handles of
            them, in any order.  Direct warps come as
            `~lsst.astroclearnet.adapters.DirectWarpSource`.
        geometry
            Geometry of the patch.
        band
            Name of the band.
        selections
            Visits selected elsewhere, by instrument; by default all.
        sky_corrections
            What to subtract from visit images, by instrument, visit and
            detector, for ``do_apply_sky_correction``.
        visit_summaries
            Calibrations by instrument and visit, for
            ``use_visit_summary_psf``, ``..._wcs`` and ``..._photo_calib``: a
            ``lsst.afw.table.ExposureCatalog``, a deferred handle of one, or
            `~lsst.astroclearnet.adapters.VisitCalibration` objects by
            detector.

        restoration_model
            What `~lsst.astroclearnet.adapters.model_to_dict` makes of a
            trained network, for ``restoration.model.source="dataset"``.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_coadd`` (`lsst.images.cells.CellCoadd`),
            ``restored_coadd_demand`` (`lsst.images.MaskedImage`),
            ``restored_coadd_metrics`` (`dict`), ``partial``, which says what
            is missing (`RestorationAlgorithmError`) or is `None`, and, if
            configured,
            ``restored_coadd_linear`` (`lsst.images.cells.CellCoadd`),
            ``restored_coadd_linear_noise`` (`astropy.table.Table`) and
            ``restored_coadd_plot`` (`matplotlib.figure.Figure`).

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no exposure has a usable pixel on the patch.
        RestorationAlgorithmError
            If the restoration cannot succeed.
        """
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}, {band}"
        # Before anything is read.
        device = self.select_device()
        model = None
        if restoration_model is not None:
            with translate_errors():
                model = model_from_dict(restoration_model, "restoration model")
        options: RestoreOptions = self.config.restoration.make_options()
        exposures = self.read_exposures(
            visit_images=visit_images,
            geometry=geometry,
            band=band,
            selections=selections,
            sky_corrections=sky_corrections,
            visit_summaries=visit_summaries,
        )
        exposures.require_any(name)
        inputs = RestorationInputs(
            source=exposures.source,
            summary=PatchSummary(exposures.source),
            dropped=exposures.dropped,
            not_selected=exposures.not_selected,
            mask_table=self.preparation.mask_table,
            min_exposures=self.config.min_exposures,
            geometry=geometry,
            band=band,
            patch_name=name,
            seed=self.make_seed(name),
            model=model,
            model_source=options.model.source,
        )
        with translate_errors():
            plan = self._plan_memory(inputs, options, device)
            result = self._restore(inputs, options, device, plan)
        partial = self._check_failed_tiles(result, inputs)
        inputs = self._add_outlier_exposures(result, inputs)
        metrics = make_metrics(result, inputs)
        metrics["warnings"] = list_warnings(metrics, options.debiasing.max_psf_residual)
        self._record(metrics, device)
        outputs = Struct(
            restored_coadd=make_coadd(result, inputs),
            restored_coadd_demand=make_demand_map(result, inputs),
            restored_coadd_metrics=metrics,
            partial=partial,
        )
        if self.config.do_linear:
            outputs.restored_coadd_linear = make_linear_coadd(result, inputs)
            outputs.restored_coadd_linear_noise = make_noise_table(result, inputs)
        if self.config.do_plot:
            outputs.restored_coadd_plot = make_figure(result, inputs, metrics["exposures"])
        return outputs

    def _plan_memory(
        self, inputs: RestorationInputs, options: RestoreOptions, device: torch.device
    ) -> MemoryPlan:
        """Choose tiles that fit into the memory, and record the plan."""
        source = inputs.source
        plan = plan_memory(source, options, device=device.type, layout=source.layout)
        disk = predict_disk_bytes(inputs.geometry, options.noise.num_realizations, self.config.do_linear)
        self.log.info(
            "Memory plan: %s, %.2f GiB of temporary files, %.2f GiB of coadds on disk.",
            plan,
            source.file_bytes / _GIB,
            disk / _GIB,
        )
        self.metadata["plan_num_tiles"] = len(plan.grid.tiles)
        self.metadata["plan_host_memory"] = plan.host_memory
        self.metadata["plan_device_memory"] = plan.device_memory
        self.metadata["plan_disk"] = disk
        return plan

    @timeMethod
    def _restore(
        self, inputs: RestorationInputs, options: RestoreOptions, device: torch.device, plan: MemoryPlan
    ) -> RestorationResult:
        """Choose the network and restore the patch, tile by tile."""
        source, name = inputs.source, inputs.patch_name
        target_fwhm = self._target_fwhm(source)
        self.log.info(
            "Restoring %s from %d exposures to a PSF of %.3f arcsec.",
            name,
            source.num_exposures,
            target_fwhm * inputs.geometry.pixel_scale,
        )
        with report_progress(self.log, name, options.fit.max_epochs) as callbacks:
            result = restore_exposures(
                source,
                target_fwhm=target_fwhm,
                options=options,
                model=inputs.model,
                device=device,
                seed=inputs.seed,
                layout=source.layout,
                plan=plan,
                maps=inputs.summary,
                callback=callbacks.epoch,
                tile_callback=callbacks.tile,
            )
        self.log.info(
            "Restored %s on %s with %s.", name, result.device, describe_network(result, inputs.model_source)
        )
        return result

    def _target_fwhm(self, source: PatchSource) -> float:
        """Return the FWHM of the target PSF in pixels."""
        if self.config.target_fwhm is not None:
            return float(self.config.target_fwhm) / source.geometry.pixel_scale
        return self.suggest_target_fwhm(source)

    def _check_failed_tiles(
        self, result: RestorationResult, inputs: RestorationInputs
    ) -> RestorationAlgorithmError | None:
        """Return the error of failed tiles, or raise it if they are many."""
        if not result.failed_tiles:
            return None
        lost = sum(
            (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)
            for tile in result.failed_tiles
        )
        fraction = lost / float(np.prod(inputs.source.shape))
        error = RestorationAlgorithmError(
            f"{len(result.failed_tiles)} tile(s), {100.0 * fraction:.1f} % of {inputs.patch_name}, could not "
            f"be restored: {result.failed_tiles[0].reason}",
            {"num_failed_tiles": len(result.failed_tiles), "failed_fraction": fraction},
        )
        if fraction > self.config.max_failed_fraction:
            raise error
        return error

    def _add_outlier_exposures(
        self, result: RestorationResult, inputs: RestorationInputs
    ) -> RestorationInputs:
        """Add the outlier exposures to the dropped ones."""
        outliers = {str(inputs.source.cutouts[n].identity): reason for n, reason in result.dropped.items()}
        for name, reason in outliers.items():
            self.log.warning("Dropped %s (%s)", name, reason)
        return dataclasses.replace(inputs, dropped=inputs.dropped | outliers)

    def _record(self, metrics: Mapping[str, Any], device: torch.device) -> None:
        """Put metrics, memory and versions into the metadata of the task."""
        for group in ("patch", "network", "image"):
            for key, value in metrics[group].items():
                self.metadata[f"{group}_{key}"] = value
        for kind, status in metrics["solves"].items():
            for key, value in status.items():
                self.metadata[f"{kind}_{key}"] = value
        for n, (exposure, reason) in enumerate(metrics["dropped"].items()):
            self.metadata[f"dropped_{n}"] = f"{exposure}: {reason}"
        self.metadata["peak_host_memory"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if device.type == "cuda":
            self.metadata["peak_device_memory"] = int(torch.cuda.max_memory_allocated(device))
        self.metadata["torch_version"] = str(torch.__version__)
        for warning in metrics["warnings"]:
            self.log.warning("%s", warning)
