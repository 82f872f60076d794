# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Inputs and outputs of the restoration of a coadd."""

from __future__ import annotations

__all__ = ("RestoreCoaddConnections",)

from typing import TYPE_CHECKING

import lsst.pipe.base.connectionTypes as cT
from lsst.pipe.base import PipelineTaskConnections

from ._patch_source import GEOMETRY_CONNECTIONS

if TYPE_CHECKING:
    from ._restore_coadd_config import RestoreCoaddConfig


class RestoreCoaddConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch", "band"),
    defaultTemplates={
        "visit_image_name": "visit_image",
        "warp_name": "direct_warp",
        "visit_summary_name": "visit_summary",
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
        if not config.do_linear:
            del self.restored_coadd_linear
            del self.restored_coadd_linear_noise
        if not config.do_plot:
            del self.restored_coadd_plot
