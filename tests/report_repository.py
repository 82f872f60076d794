# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Repository of which the tests of reports make one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from lsst.astroclearnet.adapters import make_demand_image
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tests import make_coadd, make_patch_geometry
from lsst.daf.butler import Butler, DatasetType
from lsst.images import MaskedImage
from lsst.images.cells import CellCoadd

COLLECTION = "u/test/restored"
CONCERN = "Stars <differ> & more."
PATCH_DIMENSIONS = ("skymap", "tract", "patch", "band")
EXPOSURE = {
    "instrument": "TestCam",
    "visit": 42,
    "detector": 3,
    "psf_fwhm": 0.7123,
    "weight_share": 0.5,
    "chi_square": 1.25,
    "used_fraction": 0.9,
    "rejected_fraction": 0.0125,
    "flux_error": 0.011,
    "flux_sigma": 0.001,
    "shift": 0.02,
    "shift_sigma": 0.01,
    "psf_width_error": math.nan,
    "psf_width_sigma": math.inf,
    "background": [0.5, 0.0, 0.0],
}
UNLIKE = {**EXPOSURE, "visit": 43, "chi_square": 5.27}


def make_quality(patch: int, band: str) -> dict[str, Any]:
    """Return the quality of a patch; that of patch 1 in r is bad."""
    is_bad = (patch, band) == (1, "r")
    return {
        "patch": {
            "skymap": "test_map",
            "tract": 3,
            "patch": patch,
            "band": band,
            "inner_x": [100 * patch, 100 * patch + 100],
            "inner_y": [0, 100],
        },
        "network": {"source": "fit" if band == "r" else "packaged", "identity": "0a1b"},
        "verdict": "bad" if is_bad else "good",
        "warnings": [CONCERN] if is_bad else [],
        "details": [],
        "metrics": {
            "fwhm_in": 0.7123,
            "fwhm_out": 0.54,
            "depth_linear": math.nan,
            "flux_offset_measured": 0.0123,
            "flux_offset_error": 0.004,
        },
        "checks": [
            {
                "name": "flux_offset",
                "value": 0.05,
                "limits": [0.01, 0.03],
                "verdict": "bad" if is_bad else "good",
                "words": CONCERN if is_bad else "",
            },
            {
                "name": "chi_square_weight",
                "value": 0.02 if band == "i" else 0.6,
                "limits": [0.1, 0.5],
                "verdict": "good" if band == "i" else "bad",
                "words": "",
            },
        ],
        "exposures": [EXPOSURE, UNLIKE],
    }


def make_repository(root: str) -> None:
    """Make a repository of two patches in two bands, with figures."""
    create_repository(root)
    butler = Butler.from_config(root, writeable=True)
    register_sky_map(butler, make_patch_geometry(), run="maps")
    writer = Butler.from_config(root, run=COLLECTION, writeable=True)
    universe = writer.dimensions
    types = {
        name: DatasetType(f"restored_coadd_{name}", dimensions, storage, universe=universe)
        for name, dimensions, storage in (
            ("quality", PATCH_DIMENSIONS, "StructuredDataDict"),
            ("plot", PATCH_DIMENSIONS, "Plot"),
            ("color_plot", PATCH_DIMENSIONS[:3], "Plot"),
            ("tract_color_plot", PATCH_DIMENSIONS[:2], "Plot"),
            ("demand", PATCH_DIMENSIONS, "MaskedImageV2"),
            ("injections", PATCH_DIMENSIONS, "ArrowAstropy"),
            ("injection_plot", PATCH_DIMENSIONS, "Plot"),
        )
    }
    types["coadd"] = DatasetType("restored_coadd", PATCH_DIMENSIONS, "CellCoadd", universe=universe)
    for dataset_type in types.values():
        writer.registry.registerDatasetType(dataset_type)
    figure = Figure(figsize=(2.0, 1.0))
    writer.registry.insertDimensionData("instrument", {"name": "TestCam"})
    for band in "ri":
        writer.registry.insertDimensionData(
            "physical_filter", {"instrument": "TestCam", "name": f"{band}_test", "band": band}
        )
        tract = {"skymap": "test_map", "tract": 3, "band": band}
        for patch in (0, 1):
            writer.put(make_quality(patch, band), types["quality"], tract, patch=patch)
            if patch == 0:
                writer.put(figure, types["plot"], tract, patch=patch)
    writer.put(figure, types["color_plot"], skymap="test_map", tract=3, patch=1)
    writer.put(figure, types["tract_color_plot"], skymap="test_map", tract=3)
    for patch in (0, 1):
        data_id = {"skymap": "test_map", "tract": 3, "patch": patch, "band": "i"}
        writer.put(make_injections(patch), types["injections"], data_id)
        if patch == 0:
            coadd, demand = make_images()
            writer.put(coadd, types["coadd"], data_id)
            writer.put(demand, types["demand"], data_id)
            writer.put(figure, types["injection_plot"], data_id)


def make_injections(patch: int) -> Table:
    """Return two stars of each magnitude in a patch, of which those of 25 are
    not detected in patch 1, and one galaxy.
    """
    magnitudes = [23.5, 23.6, 25.5, 25.6, 24.2]
    found = [True, True, patch == 0, patch == 0, True]
    return Table(
        {
            "mag": magnitudes,
            "surface_brightness": [math.nan] * 4 + [25.0],
            "is_on_source": [False] * 5,
            "restored_is_detected": found,
            "restored_flux_ratio": [1.0, 1.0, 0.75, 0.75, 0.9],
            "linear_is_detected": [True] * 5,
            "linear_flux_ratio": [1.0] * 5,
        }
    )


def make_images() -> tuple[CellCoadd, MaskedImage]:
    """Return a coadd of patch 0 and the map of its demanded light."""
    geometry = make_patch_geometry().patch(3, 0)
    shape = geometry.bbox.shape
    supplied = np.zeros(shape, dtype=bool)
    supplied[4:7, 9:12] = True
    demand = make_demand_image(
        geometry=geometry,
        share=np.where(supplied, 0.1, 1.0),
        sigma=np.full(shape, 0.1),
        mask_planes={"SUPPLIED": supplied, "WITHHELD": np.zeros(shape, dtype=bool)},
    )
    return make_coadd(geometry, np.random.default_rng(1).normal(size=shape)), demand
