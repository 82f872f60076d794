# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the tasks that restore the coadds of a patch have in common."""

from __future__ import annotations

__all__ = ("RestorePatchTask",)

import dataclasses
import resource
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from lsst.daf.butler import DataCoordinate
from lsst.pipe.base import (
    InputQuantizedConnection,
    InvalidQuantumError,
    QuantumContext,
    Struct,
)

from ..adapters import PatchGeometry, PatchSummary, model_from_dict
from ..core import MemoryPlan, RestorationModel, RestorationResult, RestoreOptions
from ._errors import RestorationAlgorithmError, translate_errors
from ._metrics import make_metrics
from ._patch_exposures import BandInputs, PatchExposuresTask
from ._products import (
    RestorationInputs,
    make_coadd,
    make_demand_map,
    make_linear_coadd,
    make_noise_table,
)
from ._quantum_inputs import GEOMETRY_CONNECTIONS, read_geometry
from ._restoration_figure import make_figure
from ._warnings import list_warnings
from .restore_coadd_config import RestoreCoaddConfig

_GIB = 2.0**30


class RestorePatchTask(PatchExposuresTask):
    """Base of tasks that restore the coadds of a patch."""

    ConfigClass = RestoreCoaddConfig
    config: RestoreCoaddConfig

    def begin_quantum(
        self, butlerQC: QuantumContext, inputRefs: InputQuantizedConnection
    ) -> tuple[PatchGeometry, DataCoordinate]:
        """Take the cores of a quantum, and read where its patch is.

        Parameters
        ----------
        butlerQC
            Butler of the quantum.
        inputRefs
            Its inputs.

        Returns
        -------
        geometry : `lsst.astroclearnet.adapters.PatchGeometry`
            Geometry of the patch.
        data_id : `lsst.daf.butler.DataCoordinate`
            Data ID of the quantum.
        """
        data_id = butlerQC.quantum.dataId
        if data_id is None:
            raise InvalidQuantumError(f"A quantum of {self.getName()} needs a data ID.")
        # The executor leaves one thread to a process; it may have been given
        # more cores than that.
        torch.set_num_threads(max(1, butlerQC.resources.num_cores))
        source = self.config.geometry_source
        refs = getattr(inputRefs, GEOMETRY_CONNECTIONS[source])
        # The coadds of all bands have the same grid.
        dataset = butlerQC.get(refs[0] if isinstance(refs, list | tuple) else refs)
        geometry = read_geometry(source, dataset, data_id.required, cell_size=self.config.cell_size)
        return geometry, data_id

    def read_model(self, content: Mapping[str, Any] | None) -> RestorationModel | None:
        """Read a trained network.

        Parameters
        ----------
        content
            What `~lsst.astroclearnet.adapters.model_to_dict` made of it, or
            `None`.

        Returns
        -------
        model : `~lsst.astroclearnet.core.RestorationModel` or `None`
            The network, if there is one.
        """
        if content is None:
            return None
        with translate_errors():
            return model_from_dict(content, "restoration model")

    def collect_inputs(
        self,
        inputs: BandInputs,
        *,
        geometry: PatchGeometry,
        band: str,
        model: RestorationModel | None,
        options: RestoreOptions,
        num_bands: int = 1,
    ) -> RestorationInputs:
        """Read the exposures of a patch in one band.

        Parameters
        ----------
        inputs
            Datasets of the band.
        geometry
            Geometry of the patch.
        band
            Name of the band.
        model
            Trained network, if one was given.
        options
            Settings of the restoration.
        num_bands
            Number of bands whose exposures are in memory at a time.

        Returns
        -------
        collected : `RestorationInputs`
            What the patch is restored from.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no exposure has a usable pixel on the patch.
        """
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}, {band}"
        exposures = self.read_exposures(inputs, geometry=geometry, band=band, num_bands=num_bands)
        exposures.require_any(name)
        return RestorationInputs(
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

    def choose_target_fwhm(self, collected: Collection[RestorationInputs]) -> float:
        """Return the FWHM of the target PSF in pixels.

        Parameters
        ----------
        collected
            What the patch is restored from, by band.

        Returns
        -------
        target_fwhm : `float`
            The configured one, or the sharpest that all bands can have.
        """
        if self.config.target_fwhm is not None:
            (scale,) = {inputs.geometry.pixel_scale for inputs in collected}
            return float(self.config.target_fwhm) / scale
        return max(self.suggest_target_fwhm(inputs.source) for inputs in collected)

    def record_plan(self, plan: MemoryPlan, collected: Collection[RestorationInputs], disk: float) -> None:
        """Put the memory plan into the log and the metadata.

        Parameters
        ----------
        plan
            The plan.
        collected
            What the patch is restored from, by band.
        disk
            Bytes that the outputs take on disk.
        """
        self.log.info(
            "Memory plan: %s, %.2f GiB of temporary files, %.2f GiB of coadds on disk.",
            plan,
            sum(inputs.source.file_bytes for inputs in collected) / _GIB,
            disk / _GIB,
        )
        self.metadata["plan_num_tiles"] = len(plan.grid.tiles)
        self.metadata["plan_host_memory"] = plan.host_memory
        self.metadata["plan_device_memory"] = plan.device_memory
        self.metadata["plan_disk"] = disk

    def check_failed_tiles(
        self, result: RestorationResult, inputs: RestorationInputs
    ) -> RestorationAlgorithmError | None:
        """Return the error of failed tiles, or raise it if they are many.

        Parameters
        ----------
        result
            The restoration.
        inputs
            What it was made from.

        Returns
        -------
        error : `RestorationAlgorithmError` or `None`
            What failed, if anything.

        Raises
        ------
        RestorationAlgorithmError
            If more than ``max_failed_fraction`` of the patch failed.
        """
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

    def make_outputs(self, result: RestorationResult, inputs: RestorationInputs, group: str = "") -> Struct:
        """Make the datasets of one band of a patch, and record its metrics.

        Parameters
        ----------
        result
            The restoration.
        inputs
            What it was made from.
        group
            Name of the group of its metadata; at the top without one.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            The outputs of `RestoreCoaddTask.run` but for ``partial``.
        """
        inputs = self._add_outlier_exposures(result, inputs)
        metrics = make_metrics(result, inputs)
        limit = self.config.restoration.debiasing.max_psf_residual
        metrics["warnings"] = list_warnings(metrics, limit)
        self._record(metrics, group)
        outputs = Struct(
            restored_coadd=make_coadd(result, inputs),
            restored_coadd_demand=make_demand_map(result, inputs),
            restored_coadd_metrics=metrics,
        )
        if self.config.do_linear:
            outputs.restored_coadd_linear = make_linear_coadd(result, inputs)
            outputs.restored_coadd_linear_noise = make_noise_table(result, inputs)
        if self.config.do_plot:
            outputs.restored_coadd_plot = make_figure(result, inputs, metrics["exposures"])
        return outputs

    def record_usage(self, device: torch.device) -> None:
        """Put memory and versions into the metadata of the task.

        Parameters
        ----------
        device
            Device that was used.
        """
        self.metadata["peak_host_memory"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if device.type == "cuda":
            self.metadata["peak_device_memory"] = int(torch.cuda.max_memory_allocated(device))
        self.metadata["torch_version"] = str(torch.__version__)

    def _add_outlier_exposures(
        self, result: RestorationResult, inputs: RestorationInputs
    ) -> RestorationInputs:
        """Add the outlier exposures to the dropped ones."""
        outliers = {str(inputs.source.cutouts[n].identity): reason for n, reason in result.dropped.items()}
        for name, reason in outliers.items():
            self.log.warning("Dropped %s (%s)", name, reason)
        return dataclasses.replace(inputs, dropped=inputs.dropped | outliers)

    def _record(self, metrics: Mapping[str, Any], group: str) -> None:
        """Put metrics into a group of the metadata of the task, and warnings
        into its log.
        """
        prefix = f"{group}." if group else ""
        for part in ("patch", "network", "image"):
            for key, value in metrics[part].items():
                self.metadata[f"{prefix}{part}_{key}"] = value
        for kind, status in metrics["solves"].items():
            for key, value in status.items():
                self.metadata[f"{prefix}{kind}_{key}"] = value
        for n, (exposure, reason) in enumerate(metrics["dropped"].items()):
            self.metadata[f"{prefix}dropped_{n}"] = f"{exposure}: {reason}"
        for warning in metrics["warnings"]:
            self.log.warning("%s%s", f"Band {group}: " if group else "", warning)
