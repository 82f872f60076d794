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

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lsst.pipe.base import (
    AnnotatedPartialOutputsError,
    InputQuantizedConnection,
    OutputQuantizedConnection,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from ..adapters import PatchGeometry, VisitImageSource, predict_disk_bytes
from ..core import MemoryPlan, RestorationResult, RestoreOptions, plan_memory, restore_exposures
from ._errors import translate_errors
from ._patch_exposures import BandInputs
from ._products import RestorationInputs
from ._progress import report_progress
from ._quantum_inputs import VisitSummarySource, gather_inputs
from ._restore_patch import RestorePatchTask
from ._used_network import describe_network
from .prepare_exposures import SkyCorrectionSource
from .restore_coadd_config import RestoreCoaddConfig
from .select_exposures import VisitSelections


class RestoreCoaddTask(RestorePatchTask):
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
        geometry, data_id = self.begin_quantum(butlerQC, inputRefs)
        outputs = self.run(geometry=geometry, band=str(data_id["band"]), **gather_inputs(butlerQC, inputRefs))
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
        # Before anything is read.
        device = self.select_device()
        model = self.read_model(restoration_model)
        options: RestoreOptions = self.config.restoration.make_options()
        inputs = self.collect_inputs(
            BandInputs(
                visit_images=visit_images,
                selections=selections,
                sky_corrections=sky_corrections,
                visit_summaries=visit_summaries,
            ),
            geometry=geometry,
            band=band,
            model=model,
            options=options,
        )
        with translate_errors():
            plan = self._plan_memory(inputs, options, device)
            result = self._restore(inputs, options, device, plan)
        partial = self.check_failed_tiles(result, inputs)
        outputs = self.make_outputs(result, inputs)
        outputs.partial = partial
        self.record_usage(device)
        return outputs

    def _plan_memory(
        self, inputs: RestorationInputs, options: RestoreOptions, device: torch.device
    ) -> MemoryPlan:
        """Choose tiles that fit into the memory, and record the plan."""
        source = inputs.source
        plan = plan_memory(source, options, device=device.type, layout=source.layout)
        disk = predict_disk_bytes(
            inputs.geometry.definition,
            num_realizations=options.noise.num_realizations,
            do_linear=self.config.do_linear,
        )
        self.record_plan(plan, [inputs], disk)
        return plan

    @timeMethod
    def _restore(
        self, inputs: RestorationInputs, options: RestoreOptions, device: torch.device, plan: MemoryPlan
    ) -> RestorationResult:
        """Choose the network and restore the patch, tile by tile."""
        source, name = inputs.source, inputs.patch_name
        target_fwhm = self.choose_target_fwhm([inputs])
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
