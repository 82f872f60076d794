# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The quality metrics with their units, and as metrics of analysis_tools."""

from __future__ import annotations

__all__ = ("QUALITY_UNITS", "configure_quality_metrics")

from types import MappingProxyType
from typing import Any

_FLUX_COMPARISON = ("offset", "offset_measured", "offset_error", "scatter", "num_stars")

QUALITY_UNITS = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "num_exposures",
                "depth_in_exposures",
                "dropped_fraction",
                "missing_exposures",
                "chi_square",
                "held_out_chi_square",
                "chi_square_weight",
                "variance_error_weight",
                "psf_error_weight",
                "calibration_error_weight",
                "suspect_exposures",
                "exposure_chi_square",
                "background_offset",
                "rejected_fraction",
                "failed_fraction",
                "network_doubt",
                "unconverged",
                "unconverged_solves",
                "no_data_fraction",
                "clipped_fraction",
                "demanded_fraction",
                "supplied_fraction",
                "withheld_fraction",
                "linear_psf_residual",
                "psf_shared_width",
                "psf_flux_error",
                "psf_flux_systematic",
                "num_sources",
                "star_width_error",
                "noise_correlation",
                "noise_correlation_direct",
                *(f"flux_{name}" for name in _FLUX_COMPARISON),
                *(f"denoised_flux_{name}" for name in _FLUX_COMPARISON),
            ),
            "",
        ),
        **dict.fromkeys(("fwhm_in", "fwhm_in_best", "fwhm_out", "star_fwhm", "star_fwhm_direct"), "arcsec"),
        **dict.fromkeys(("depth_direct", "depth_linear", "depth_restored"), "mag(AB)"),
        "faintest_flux": "nJy",
    }
)
"""Units of all metrics of ``restored_coadd_quality`` by name, as astropy
writes them."""


def configure_quality_metrics(config: Any) -> None:
    """Add the quality metrics to the configuration of a task of
    ``analysis_tools``, which must be installed.

    For pipelines: the metrics are read from the metadata of
    `MeasureRestorationTask`.

    Parameters
    ----------
    config
        That of ``lsst.analysis.tools.tasks.TaskMetadataAnalysisTask``.

    Raises
    ------
    ImportError
        If ``analysis_tools`` is not installed.
    """
    from lsst.analysis.tools.atools import TaskMetadataMetricTool

    config.atools.restorationQuality = TaskMetadataMetricTool
    tool = config.atools.restorationQuality
    tool.taskName = "measureRestoration"
    # Measurements have no logarithmic units.
    units = {name: unit.replace("mag(AB)", "mag") for name, unit in QUALITY_UNITS.items()}
    tool.metrics = {"verdict_level": "", **units}
