# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The exposures of a patch, as the tasks that work on them read them."""

from __future__ import annotations

__all__ = ("BandInputs", "PatchExposures", "PatchExposuresTask")

import dataclasses
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lsst.pipe.base import NoWorkFound, PipelineTask, UpstreamFailureNoWorkFound

from ..adapters import PatchGeometry, PatchSource, Scratch, VisitImageSource, pad_to_common_size
from ..core import select_device, suggest_target_fwhm
from ._errors import translate_errors
from ._patch_exposures_config import PatchExposuresConfig
from ._quantum_inputs import VisitSummarySource, apply_visit_summaries
from .prepare_exposures import PrepareExposuresTask, SkyCorrectionSource
from .select_exposures import SelectExposuresTask, VisitSelections

_GIB = 2.0**30

_RESIDENT_SHARE = 0.25
"""Share of the memory of the process that exposures may take as a whole."""


@dataclasses.dataclass(frozen=True)
class BandInputs:
    """The datasets of one band of a patch.

    Attributes
    ----------
    visit_images
        Visit images that may overlap the patch, or deferred handles of them.
    selections
        Visits selected elsewhere, by instrument; by default all.
    sky_corrections
        What to subtract from visit images, by instrument, visit and detector.
    visit_summaries
        Calibrations by instrument and visit.
    restoration_model
        What `~lsst.astroclearnet.adapters.model_to_dict` makes of a trained
        network, for ``restoration.model.source="dataset"``.
    """

    visit_images: Sequence[VisitImageSource]
    selections: VisitSelections | None = None
    sky_corrections: Mapping[tuple[str, int, int], SkyCorrectionSource] | None = None
    visit_summaries: Mapping[tuple[str, int], VisitSummarySource] | None = None
    restoration_model: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class PatchExposures:
    """The exposures of a patch, and those that were left out.

    Attributes
    ----------
    source
        The exposures.
    dropped
        The reason for each exposure that could not be used, by its name.
    not_selected
        The reason for each exposure that was not selected, by its name.
    """

    source: PatchSource
    dropped: dict[str, str]
    not_selected: dict[str, str]

    def require_any(self, name: str) -> None:
        """End the quantum if no exposure is usable.

        Parameters
        ----------
        name
            Name of the patch.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no exposure has a usable pixel on the patch.
        """
        if self.source.num_exposures:
            return
        left_out = self.not_selected | self.dropped
        bad = {key: reason for key, reason in left_out.items() if not reason.startswith("no_overlap")}
        if not bad:
            raise NoWorkFound(f"No visit image has a pixel on {name}.")
        reasons = "\n".join(f"  - {key}: {reason}" for key, reason in bad.items())
        raise UpstreamFailureNoWorkFound(f"No visit image of {name} is usable:\n{reasons}")


class PatchExposuresTask(PipelineTask):
    """Base of tasks that read the exposures of patches.

    Parameters
    ----------
    **kwargs
        Arguments of `lsst.pipe.base.PipelineTask`.
    """

    ConfigClass = PatchExposuresConfig
    config: PatchExposuresConfig

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

    def select_device(self) -> torch.device:
        """Return the device, ready to have its memory watched."""
        with translate_errors():
            device = select_device(self.config.device)
        if device.type == "cuda":
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(device)
        return device

    def make_seed(self, name: str) -> int:
        """Return a seed, below 2**56.

        Parameters
        ----------
        name
            What it is for, in words that follow from data IDs.
        """
        digest = hashlib.blake2b(f"{name}, {self.config.seed_offset}".encode(), digest_size=7).digest()
        return int.from_bytes(digest)

    def read_exposures(
        self, inputs: BandInputs, *, geometry: PatchGeometry, band: str, num_bands: int = 1
    ) -> PatchExposures:
        """Read the exposures of a patch, with the configured calibration.

        Parameters
        ----------
        inputs
            Datasets of the band.
        geometry
            Geometry of the patch.
        band
            Name of the band.
        num_bands
            Number of bands whose exposures are in memory at a time.

        Returns
        -------
        exposures : `PatchExposures`
            Those that are usable; there may be none.
        """
        sources, uncalibrated = self._recalibrate(inputs.visit_images, inputs.visit_summaries)
        chosen = self.selection.run(visit_images=sources, geometry=geometry, selections=inputs.selections)
        memory = _RESIDENT_SHARE * self.config.restoration.tiling.max_host_memory * _GIB / num_bands
        prepared = self.preparation.run(
            visit_images=chosen.selected,
            geometry=geometry,
            band=band,
            sky_corrections=inputs.sky_corrections,
            scratch=Scratch(memory, self.config.scratch_folder),
        )
        return PatchExposures(prepared.source, uncalibrated | prepared.dropped, chosen.rejected)

    def suggest_target_fwhm(self, source: PatchSource) -> float:
        """Return the sharpest target PSF that keeps the noise below max_noise.

        Parameters
        ----------
        source
            The exposures, at least one.

        Returns
        -------
        target_fwhm : `float`
            FWHM in pixels.
        """
        return suggest_target_fwhm(
            pad_to_common_size([cutout.mean_psf for cutout in source.cutouts]),
            np.array([cutout.level for cutout in source.cutouts]),
            max_noise=self.config.max_noise,
            pixel_side=float(np.median([cutout.to_patch.pixel_side for cutout in source.cutouts])),
        )

    def _recalibrate(
        self,
        visit_images: Sequence[VisitImageSource],
        visit_summaries: Mapping[tuple[str, int], VisitSummarySource] | None,
    ) -> tuple[Sequence[VisitImageSource], dict[str, str]]:
        """Replace calibrations, and name the exposures that have none."""
        if not self.config.uses_visit_summary:
            return visit_images, {}
        sources, refused = apply_visit_summaries(
            visit_images,
            visit_summaries or {},
            psf=self.config.use_visit_summary_psf,
            wcs=self.config.use_visit_summary_wcs,
            photo_calib=self.config.use_visit_summary_photo_calib,
        )
        for name, reason in refused.items():
            self.log.warning("Dropped %s (%s)", name, reason)
        return sources, refused
