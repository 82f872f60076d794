# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restore the coadd of a patch from visit images."""

from __future__ import annotations

__all__ = ("RestoreCoaddConfig", "RestoreCoaddConnections", "RestoreCoaddTask")

import dataclasses
import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import lsst.pipe.base.connectionTypes as cT
from lsst.pex.config import ChoiceField, ConfigField, ConfigurableField, Field, RangeField
from lsst.pipe.base import (
    InputQuantizedConnection,
    InvalidQuantumError,
    NoWorkFound,
    OutputQuantizedConnection,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantumContext,
    Struct,
    UpstreamFailureNoWorkFound,
)
from lsst.utils.timer import timeMethod

from ..adapters import PatchArrays, PatchExposure, PatchGeometry, stack_patch_exposures
from ..core import (
    RestorationError,
    RestorationResult,
    masked_medians,
    restore,
    select_device,
    suggest_target_fwhm,
)
from ._errors import RestorationAlgorithmError
from ._metrics import list_concerns, make_metrics
from ._options_config import RestorationConfig
from ._patch_source import GEOMETRY_CONNECTIONS, read_geometry
from ._products import RestorationInputs, make_coadd, make_figure, make_linear_coadd, make_noise_table
from ._progress import report_progress
from ._reading import VisitImageSource
from ._visit_selection import VisitSelections, parse_visit_selections
from .prepare_exposures import PrepareExposuresTask, SkyCorrectionSource
from .select_exposures import SelectExposuresTask


class RestoreCoaddConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch", "band"),
    defaultTemplates={
        "visit_image_name": "visit_image",
        "reference_name": "deep_coadd",
        "selection_name": "goodSeeingVisits",
        "output_name": "restored_coadd",
    },
):
    """Inputs and outputs of `RestoreCoaddTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    visit_images = cT.Input(
        doc="Calibrated, background-subtracted visit images that overlap the patch.",
        name="{visit_image_name}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    skymap = cT.Input(
        doc="Sky map of the full stack, for geometry_source='skymap'.",
        name="skyMap",
        storageClass="SkyMap",
        dimensions=("skymap",),
    )
    reference_coadd = cT.Input(
        doc="Existing coadd whose grid is taken over, for geometry_source='coadd'.",
        name="{reference_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        deferLoad=True,
    )
    skymap_geometry = cT.Input(
        doc="Self-describing geometry of a sky map, for geometry_source='dict'.",
        name="skymap_geometry",
        storageClass="StructuredDataDict",
        dimensions=("skymap",),
    )
    visit_selections = cT.Input(
        doc="Visits selected for the patch, for do_use_visit_selection.",
        name="{selection_name}",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "skymap", "tract", "patch", "band"),
        multiple=True,
    )
    sky_corrections = cT.Input(
        doc="Sky corrections of the visit images, for do_apply_sky_correction.",
        name="skyCorr",
        storageClass="Background",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    restored_coadd = cT.Output(
        doc="Restored coadd at the target PSF, in nJy: to look, detect and classify.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_linear = cT.Output(
        doc="The same at the same PSF with the noise of the exposures kept, in nJy: to measure.",
        name="{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_linear_noise = cT.Output(
        doc="Correlation of the noise of neighbouring pixels of the linear coadd, by cell.",
        name="{output_name}_linear_noise",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_metrics = cT.Output(
        doc="Figures about the restoration and each of its exposures.",
        name="{output_name}_metrics",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_plot = cT.Output(
        doc="Coadd beside restored coadd, residual, PSF and convergence.",
        name="{output_name}_plot",
        storageClass="Plot",
        dimensions=("skymap", "tract", "patch", "band"),
    )

    def __init__(self, *, config: RestoreCoaddConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        for source, connection in GEOMETRY_CONNECTIONS.items():
            if source != config.geometry_source:
                delattr(self, connection)
        if not config.do_use_visit_selection:
            del self.visit_selections
        if not config.preparation.do_apply_sky_correction:
            del self.sky_corrections
        if not config.do_linear:
            del self.restored_coadd_linear
            del self.restored_coadd_linear_noise
        if not config.do_plot:
            del self.restored_coadd_plot


class RestoreCoaddConfig(PipelineTaskConfig, pipelineConnections=RestoreCoaddConnections):
    """Configuration of `RestoreCoaddTask`."""

    geometry_source = ChoiceField[str](
        doc="Where the geometry of the patch comes from.",
        allowed={
            "skymap": "The sky map of a full-stack repository.",
            "coadd": "An existing coadd of the same patch.",
            "dict": "The self-describing dataset 'skymap_geometry'.",
        },
        default="skymap",
        optional=False,
    )
    cell_size = RangeField(
        dtype=int,
        doc="Side (pixels) of the cells of a patch whose sky map has no cells.",
        default=100,
        min=10,
    )
    target_fwhm = RangeField(
        dtype=float,
        doc="FWHM (arcsec) of the PSF of the restored coadd.  Fix it for a campaign, so that the PSF does "
        "not change from patch to patch; without a value it is the sharpest that keeps the noise of an "
        "unbiased linear restoration below max_noise.",
        default=None,
        optional=True,
        min=0.0,
        inclusiveMin=False,
    )
    max_noise = RangeField(
        dtype=float,
        doc="Largest blank-sky rms of an unbiased linear restoration, over that of the inverse-variance "
        "coadd, that a target PSF chosen from the exposures may cost.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )
    device = Field[str](
        doc="Device to compute on: 'auto' for a GPU when there is one, 'cpu', 'cuda' or 'cuda:N'.",
        default="auto",
        check=lambda device: re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is not None,
    )
    seed_offset = Field[int](doc="Number mixed into the seed, which follows from the data ID.", default=0)
    do_use_visit_selection = Field[bool](
        doc="Leave out visits that the visit_selections of the patch do not have?", default=False
    )
    selection: Any = ConfigurableField(
        doc="Subtask that chooses among the visit images.", target=SelectExposuresTask
    )
    preparation: Any = ConfigurableField(
        doc="Subtask that reads visit images where they overlap the patch.", target=PrepareExposuresTask
    )
    min_exposures = RangeField(
        dtype=int,
        doc="Number of exposures with a usable pixel below which FEW_EXPOSURES is set.",
        default=3,
        min=1,
    )
    restoration = ConfigField[RestorationConfig](doc="Settings of the restoration.")
    do_linear = Field[bool](
        doc="Write the linear coadd, which keeps the noise of the exposures and is the one to measure on, "
        "and the correlation of its noise?",
        default=True,
    )
    do_plot = Field[bool](doc="Write a figure of the restoration?  It needs matplotlib.", default=True)


class RestoreCoaddTask(PipelineTask):
    """Restore the coadd of a patch with a network fitted to its exposures.

    Each visit image stays on its own pixels, with its variance and mask; the
    network of `lsst.astroclearnet.core.restore` is fitted to them and gives
    the sky on the patch at one declared PSF.

    Parameters
    ----------
    **kwargs
        Arguments of `lsst.pipe.base.PipelineTask`.
    """

    ConfigClass = RestoreCoaddConfig
    _DefaultName = "restoreCoadd"
    config: RestoreCoaddConfig

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.config.do_plot and importlib.util.find_spec("matplotlib") is None:
            raise RuntimeError(
                "do_plot=True needs matplotlib: install lsst-astroclearnet[plots], or set do_plot=False."
            )
        self.makeSubtask("selection")
        self.selection: SelectExposuresTask
        self.makeSubtask("preparation")
        self.preparation: PrepareExposuresTask

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        data_id = butlerQC.quantum.dataId
        if data_id is None:
            raise InvalidQuantumError("A quantum of restoreCoadd needs a data ID.")
        connection = GEOMETRY_CONNECTIONS[self.config.geometry_source]
        handles = butlerQC.get(inputRefs.visit_images)
        geometry = read_geometry(
            self.config.geometry_source,
            butlerQC.get(getattr(inputRefs, connection)),
            data_id.required,
            cell_size=self.config.cell_size,
        )
        # The executor leaves one thread to a process; it may have been given
        # more cores than that.
        torch.set_num_threads(max(1, butlerQC.resources.num_cores))
        outputs = self.run(
            visit_images=handles,
            geometry=geometry,
            band=str(data_id["band"]),
            selections=self._read_selections(butlerQC, inputRefs),
            sky_corrections=self._read_sky_corrections(butlerQC, inputRefs),
        )
        butlerQC.put(outputs, outputRefs)

    @timeMethod
    def run(
        self,
        *,
        visit_images: Sequence[VisitImageSource],
        geometry: PatchGeometry,
        band: str,
        selections: VisitSelections | None = None,
        sky_corrections: Mapping[tuple[int, int], SkyCorrectionSource] | None = None,
    ) -> Struct:
        """Restore one patch in one band.

        Parameters
        ----------
        visit_images
            Visit images (`lsst.images.VisitImage`) or deferred handles of
            them, in any order.
        geometry
            Geometry of the patch.
        band
            Name of the band.
        selections
            Visits selected elsewhere, by instrument; by default all.
        sky_corrections
            What to subtract from visit images, by visit and detector, for
            ``do_apply_sky_correction``.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_coadd`` (`lsst.images.cells.CellCoadd`),
            ``restored_coadd_metrics`` (`dict`) and, if configured,
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
        self._check_device()
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}, {band}"
        seed = self._seed(name)
        chosen = self.selection.run(visit_images=visit_images, geometry=geometry, selections=selections)
        prepared = self.preparation.run(
            visit_images=chosen.selected, geometry=geometry, sky_corrections=sky_corrections
        )
        self._require_exposures(prepared.exposures, {**chosen.rejected, **prepared.dropped}, name)
        inputs = RestorationInputs(
            exposures=prepared.exposures,
            dropped=prepared.dropped,
            not_selected=chosen.rejected,
            mask_table=self.preparation.mask_table,
            min_exposures=self.config.min_exposures,
            geometry=geometry,
            band=band,
            data_id=name,
            seed=seed,
        )
        result = self._restore(stack_patch_exposures(prepared.exposures), inputs)
        inputs = self._record_contradictions(result, inputs)
        metrics = make_metrics(result, inputs)
        self._record(metrics)
        outputs = Struct(restored_coadd=make_coadd(result, inputs), restored_coadd_metrics=metrics)
        if self.config.do_linear:
            outputs.restored_coadd_linear = make_linear_coadd(result, inputs)
            outputs.restored_coadd_linear_noise = make_noise_table(result, inputs)
        if self.config.do_plot:
            outputs.restored_coadd_plot = make_figure(result, inputs)
        return outputs

    @timeMethod
    def _restore(self, arrays: PatchArrays, inputs: RestorationInputs) -> RestorationResult:
        options = self.config.restoration.make_options()
        target_fwhm = self._target_fwhm(arrays, inputs.geometry)
        self.log.info(
            "Restoring %s from %d exposures to a PSF of %.3f arcsec.",
            inputs.data_id,
            len(inputs.exposures),
            target_fwhm * inputs.geometry.pixel_scale,
        )
        try:
            with report_progress(self.log, inputs.data_id, options.fit.max_epochs) as callback:
                result = restore(
                    arrays.images,
                    arrays.variances,
                    arrays.good,
                    arrays.psfs,
                    target_fwhm=target_fwhm,
                    options=options,
                    device=self.config.device,
                    seed=inputs.seed,
                    positions=arrays.positions,
                    callback=callback,
                )
        except RestorationError as exc:
            raise RestorationAlgorithmError.from_core(exc) from exc
        self.log.info(
            "Fit of %s on %s ended after %d epochs (%s).",
            inputs.data_id,
            result.device,
            len(result.history.loss),
            result.history.stop_reason,
        )
        return result

    def _read_selections(
        self, butlerQC: QuantumContext, inputRefs: InputQuantizedConnection
    ) -> VisitSelections | None:
        if not self.config.do_use_visit_selection:
            return None
        refs = inputRefs.visit_selections
        instruments = (str(ref.dataId["instrument"]) for ref in refs)
        return parse_visit_selections(zip(instruments, butlerQC.get(refs), strict=True))

    def _read_sky_corrections(
        self, butlerQC: QuantumContext, inputRefs: InputQuantizedConnection
    ) -> dict[tuple[int, int], SkyCorrectionSource] | None:
        if not self.config.preparation.do_apply_sky_correction:
            return None
        handles = butlerQC.get(inputRefs.sky_corrections)
        return {(int(h.dataId["visit"]), int(h.dataId["detector"])): h for h in handles}

    def _target_fwhm(self, arrays: PatchArrays, geometry: PatchGeometry) -> float:
        """Return the FWHM of the target PSF in pixels."""
        if self.config.target_fwhm is not None:
            return float(self.config.target_fwhm) / geometry.pixel_scale
        # The noise of the light in a pixel of the patch.
        variances = torch.as_tensor(arrays.variances) / arrays.positions.area.clamp(min=1e-6)
        levels = masked_medians(variances, torch.as_tensor(arrays.good), np.inf)
        return suggest_target_fwhm(
            np.nanmean(arrays.psfs, axis=(1, 2)), levels.numpy(), max_noise=self.config.max_noise
        )

    def _check_device(self) -> None:
        """Fail before anything is read if the device does not exist."""
        try:
            device = select_device(self.config.device)
        except RestorationError as exc:
            raise RestorationAlgorithmError.from_core(exc) from exc
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def _seed(self, name: str) -> int:
        digest = hashlib.blake2b(f"{name}, {self.config.seed_offset}".encode(), digest_size=7).digest()
        return int.from_bytes(digest)

    def _require_exposures(
        self, exposures: Sequence[PatchExposure], dropped: Mapping[str, str], name: str
    ) -> None:
        if exposures:
            return
        bad = {key: reason for key, reason in dropped.items() if not reason.startswith("no_overlap")}
        if not bad:
            raise NoWorkFound(f"No visit image has a pixel on {name}.")
        reasons = "\n".join(f"  - {key}: {reason}" for key, reason in bad.items())
        raise UpstreamFailureNoWorkFound(f"No visit image of {name} is usable:\n{reasons}")

    def _record_contradictions(
        self, result: RestorationResult, inputs: RestorationInputs
    ) -> RestorationInputs:
        """Add the exposures that contradict the others to the dropped ones."""
        dropped = dict(inputs.dropped)
        for n, reason in result.dropped.items():
            name = str(inputs.exposures[n].identity)
            dropped[name] = reason
            self.log.warning("Dropped %s (%s)", name, reason)
        return dataclasses.replace(inputs, dropped=dropped)

    def _record(self, metrics: Mapping[str, Any]) -> None:
        for group in ("patch", "fit", "image"):
            for key, value in metrics[group].items():
                self.metadata[f"{group}_{key}"] = value
        for n, (exposure, reason) in enumerate(metrics["dropped"].items()):
            self.metadata[f"dropped_{n}"] = f"{exposure}: {reason}"
        if torch.cuda.is_available():
            self.metadata["peak_device_memory"] = int(torch.cuda.max_memory_allocated())
        self.metadata["torch_version"] = str(torch.__version__)
        for concern in list_concerns(metrics, self.config.restoration.closure.linear_departure):
            self.log.warning("%s", concern)
