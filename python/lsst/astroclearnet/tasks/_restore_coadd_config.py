# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Configuration of the restoration of a coadd."""

from __future__ import annotations

__all__ = ("RestoreCoaddConfig",)

import re
from typing import Any

from lsst.pex.config import (
    ChoiceField,
    ConfigField,
    ConfigurableField,
    Field,
    FieldValidationError,
    RangeField,
)
from lsst.pipe.base import PipelineTaskConfig

from ._options_config import RestorationConfig
from ._restore_coadd_connections import RestoreCoaddConnections
from .prepare_exposures import PrepareExposuresTask
from .select_exposures import SelectExposuresTask


class RestoreCoaddConfig(PipelineTaskConfig, pipelineConnections=RestoreCoaddConnections):
    """Configuration of `RestoreCoaddTask`."""

    input_type = ChoiceField[str](
        doc="From what to restore.",
        allowed={
            "visit_image": "Visit images on the pixels of their detectors.",
            "direct_warp": "Direct warps, which hold a visit resampled to the patch. Resampling has "
            "smoothed them and correlated their noise, which is taken to be white all the same, so that "
            "the declared errors are too small; and pixels that were bad in the detector are no longer "
            "told from their neighbours. Only where no visit images are left.",
        },
        default="visit_image",
        optional=False,
    )
    use_visit_summary_psf = Field[bool](
        doc="Take the PSF from the visit summary? Otherwise it is that of the visit image.", default=False
    )
    use_visit_summary_wcs = Field[bool](
        doc="Take the projection from the visit summary? Otherwise it is that of the visit image.",
        default=False,
    )
    use_visit_summary_photo_calib = Field[bool](
        doc="Take the photometric calibration from the visit summary? Only of images whose pixels are not "
        "calibrated, such as calexp and preliminary_visit_image; an exposure in nJy is left out as "
        "already_calibrated.",
        default=False,
    )
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
        doc="Side (pixels) of the cells of a patch without cells, or the nearest size that divides it.",
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
    restoration: Any = ConfigField(doc="Settings of the restoration.", dtype=RestorationConfig)
    max_failed_fraction = RangeField(
        dtype=float,
        doc="Largest share of the patch in tiles that could not be restored with which it is still written, "
        "with these tiles flagged; the quantum then ends with partial outputs. With 0 one failed tile fails "
        "the patch.",
        default=0.5,
        min=0.0,
        max=1.0,
        inclusiveMax=True,
    )
    scratch_folder = Field[str](
        doc="Directory for the temporary files of exposures that do not fit into the memory; by default that "
        "of the system (TMPDIR).",
        default=None,
        optional=True,
    )
    do_linear = Field[bool](
        doc="Write the linear coadd, which keeps the noise of the exposures and is the one to measure on, "
        "and the correlation of its noise?",
        default=True,
    )
    do_plot = Field[bool](doc="Write a figure of the restoration?  It needs matplotlib.", default=True)

    @property
    def uses_visit_summary(self) -> bool:
        """Whether anything is taken from visit summaries (`bool`)."""
        return self.use_visit_summary_psf or self.use_visit_summary_wcs or self.use_visit_summary_photo_calib

    def validate(self) -> None:
        super().validate()
        if self.input_type != "direct_warp":
            return
        for config, name in (
            (self, "use_visit_summary_psf"),
            (self, "use_visit_summary_wcs"),
            (self, "use_visit_summary_photo_calib"),
            (self.preparation, "do_restore_background"),
            (self.preparation, "do_apply_sky_correction"),
        ):
            if getattr(config, name):
                raise FieldValidationError(
                    type(self).input_type,
                    self,
                    f"{name} is for visit images; direct warps have the calibration and the background that "
                    f"they were made with. Set input_type='visit_image' or {name}=False.",
                )
