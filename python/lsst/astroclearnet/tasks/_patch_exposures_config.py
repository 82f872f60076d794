# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets and configuration of tasks that read the exposures of patches."""

from __future__ import annotations

__all__ = ("PatchExposuresConfig", "PatchExposuresConnections")

import re
from collections.abc import Callable, Collection
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate
from lsst.pex.config import (
    ChoiceField,
    ConfigField,
    ConfigurableField,
    Field,
    FieldValidationError,
    RangeField,
)
from lsst.pipe.base import PipelineTaskConfig, PipelineTaskConnections

from ..adapters import SUBTRACTED_BACKGROUND
from ._options_config import RestorationConfig
from ._quantum_inputs import GEOMETRY_CONNECTIONS
from .prepare_exposures import PrepareExposuresTask
from .select_exposures import SelectExposuresTask


class PatchExposuresConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch", "band"),
    defaultTemplates={
        "visit_image_name": "visit_image",
        "warp_name": "direct_warp",
        "visit_summary_name": "visit_summary",
        "reference_name": "deep_coadd",
        "selection_name": "goodSeeingVisits",
    },
):
    """Inputs of `PatchExposuresTask`.

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
    direct_warps = cT.Input(
        doc="Visits resampled to the patch, for input_type='direct_warp'.",
        name="{warp_name}",
        storageClass="ExposureF",
        dimensions=("skymap", "tract", "patch", "instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    visit_summaries = cT.Input(
        doc="Calibrations of the detectors of each visit, for use_visit_summary_psf, ..._wcs and "
        "..._photo_calib.",
        name="{visit_summary_name}",
        storageClass="ExposureCatalog",
        dimensions=("instrument", "visit"),
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
        doc="Existing coadd that defines the grid, for geometry_source='coadd'.",
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

    def __init__(self, *, config: PatchExposuresConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        for source, connection in GEOMETRY_CONNECTIONS.items():
            if source != config.geometry_source:
                delattr(self, connection)
        if config.input_type == "direct_warp":
            del self.visit_images
        else:
            del self.direct_warps
        if not config.uses_visit_summary:
            del self.visit_summaries
        if not config.do_use_visit_selection:
            del self.visit_selections
        if not config.preparation.do_apply_sky_correction:
            del self.sky_corrections

    @staticmethod
    def keep_wanted(
        is_wanted: Callable[[DataCoordinate], bool], *groups: dict[str, tuple[Any, Collection[Any]]]
    ) -> list[dict[str, tuple[Any, Collection[Any]]]]:
        """Leave datasets of a quantum out.

        Parameters
        ----------
        is_wanted
            Tells of a data ID whether its dataset is kept.
        *groups
            Connections and references by the names of the connections, which
            are changed.

        Returns
        -------
        adjusted : `list` [`dict`]
            What was changed in each group.
        """
        adjusted: list[dict[str, tuple[Any, Collection[Any]]]] = []
        for connections in groups:
            changed: dict[str, tuple[Any, Collection[Any]]] = {}
            for name, (connection, refs) in connections.items():
                kept = [ref for ref in refs if is_wanted(ref.dataId)]
                if len(kept) < len(refs):
                    changed[name] = (connection, kept)
            connections.update(changed)
            adjusted.append(changed)
        return adjusted


class PatchExposuresConfig(PipelineTaskConfig, pipelineConnections=PatchExposuresConnections):
    """Configuration of `PatchExposuresTask`."""

    input_type = ChoiceField[str](
        doc="Input datasets.",
        allowed={
            "visit_image": "Visit images on the pixels of their detectors.",
            "direct_warp": "Direct warps, visits resampled to the patch. Their noise is correlated, but "
            "treated as white, so that the errors are underestimated; and bad pixels of the detector have "
            "spread into their neighbours. Only where no visit images are left.",
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
        "calibrated, such as calexp and preliminary_visit_image; an exposure in nJy is dropped as "
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
        doc="Exclude visits that are not in the visit_selections of the patch?", default=False
    )
    selection: Any = ConfigurableField(
        doc="Subtask that chooses among the visit images.", target=SelectExposuresTask
    )
    preparation: Any = ConfigurableField(
        doc="Subtask that reads visit images where they overlap the patch.", target=PrepareExposuresTask
    )
    restoration: Any = ConfigField(doc="Settings of the restoration.", dtype=RestorationConfig)
    scratch_folder = Field[str](
        doc="Directory for temporary files of exposures that do not fit into memory; by default that of the "
        "system (TMPDIR).",
        default=None,
        optional=True,
    )
    do_plot = Field[bool](doc="Write a figure?  It needs matplotlib.", default=True)

    @property
    def uses_visit_summary(self) -> bool:
        """Whether visit summaries are inputs (`bool`)."""
        return self.use_visit_summary_psf or self.use_visit_summary_wcs or self.use_visit_summary_photo_calib

    def validate(self) -> None:
        super().validate()
        if self.input_type != "direct_warp":
            return
        for config, name, default in (
            (self, "use_visit_summary_psf", False),
            (self, "use_visit_summary_wcs", False),
            (self, "use_visit_summary_photo_calib", False),
            (self.preparation, "background", SUBTRACTED_BACKGROUND),
            (self.preparation, "do_apply_sky_correction", False),
        ):
            if getattr(config, name) != default:
                raise FieldValidationError(
                    type(self).input_type,
                    self,
                    f"{name} is for visit images; direct warps have the calibration and the background that "
                    f"they were made with. Set input_type='visit_image' or {name}={default!r}.",
                )
