# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The image that Rubin's deblender gets in place of its own deconvolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lsst.astroclearnet.adapters import make_cell_coadd
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tasks import MakeDeblenderCoaddConfig, MakeDeblenderCoaddTask
from lsst.astroclearnet.tests import make_patch_geometry
from lsst.daf.butler import DataCoordinate, DatasetType
from lsst.images import Box
from lsst.images.cells import CellCoadd, CoaddProvenance
from lsst.pipe.base import NoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections, makeQuantum, runTestQuantum

GEOMETRY = make_patch_geometry(cells=(4, 5)).patch(3, 0)
HEIGHT, WIDTH = GEOMETRY.bbox.shape
CELL = GEOMETRY.definition.cells.cell_shape
KERNEL = gaussian_kernel(3.0, 21)


def make_coadd(no_data: NDArray[np.bool_]) -> CellCoadd:
    """Return a coadd of noise and a gradient, NaN without data."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    cells = np.argwhere(~no_data[CELL.y // 2 :: CELL.y, CELL.x // 2 :: CELL.x])
    contributions = CoaddProvenance.make_empty_contribution_table(len(cells))
    contributions["cell_i"], contributions["cell_j"] = cells.T
    contributions["instrument"], contributions["visit"], contributions["detector"] = "TestCam", 1, 0
    inputs = CoaddProvenance.make_empty_input_table(1)
    inputs["instrument"], inputs["visit"], inputs["detector"] = "TestCam", 1, 0
    inputs["physical_filter"], inputs["day_obs"] = "i_test", 20260101
    inputs["polygon"][0] = GEOMETRY.bbox.to_polygon()
    coadd = make_cell_coadd(
        geometry=GEOMETRY,
        band="i",
        image=np.where(no_data, np.nan, 3.0 + columns),
        variance=np.where(no_data, np.nan, 1.0 + rows),
        mask_planes={"NO_DATA": no_data},
        psf=KERNEL,
        provenance=CoaddProvenance(inputs=inputs, contributions=contributions),
        noise_realizations=np.zeros((2, HEIGHT, WIDTH)),
    )
    coadd.metadata["target_fwhm_arcsec"] = 0.5
    return coadd


@pytest.fixture(scope="module")
def no_data() -> NDArray[np.bool_]:
    """A cell without data, and a hole in another one."""
    plane = np.zeros((HEIGHT, WIDTH), dtype=bool)
    plane[: CELL.y, : CELL.x] = True
    plane[CELL.y + 5 : CELL.y + 9, 2 * CELL.x - 3 : 2 * CELL.x + 4] = True
    return plane


def run(coadd: CellCoadd, bbox: Box) -> CellCoadd:
    """Return what the task makes of a coadd."""
    task = MakeDeblenderCoaddTask(config=MakeDeblenderCoaddConfig())
    outputs = task.run(restored=coadd, bbox=bbox)
    assertValidOutput(task, outputs)
    made: CellCoadd = outputs.deblender_coadd
    return made


def test_every_pixel_is_finite(no_data: NDArray[np.bool_]) -> None:
    """If it fails, the deblender models sources with NaN, or other light."""
    coadd = make_coadd(no_data)
    made = run(coadd, GEOMETRY.bbox)
    assert np.isfinite(made.image.array).all()
    assert np.isfinite(made.variance.array).all()
    np.testing.assert_array_equal(made.image.array, np.where(no_data, 0.0, coadd.image.array))
    np.testing.assert_array_equal(made.variance.array[~no_data], coadd.variance.array[~no_data])
    np.testing.assert_array_equal(made.mask.get("NO_DATA"), no_data)
    # What the deblender divides by is that of the pixels with data.
    assert np.median(np.sqrt(made.variance.array)) == pytest.approx(
        float(np.nanmedian(np.sqrt(coadd.variance.array))), rel=1e-3
    )
    assert np.isnan(coadd.image.array[no_data]).all()


def test_box_is_that_of_the_other_coadd(no_data: NDArray[np.bool_]) -> None:
    """If it fails, the deblender adds up pixels of different places."""
    coadd = make_coadd(no_data)
    whole = GEOMETRY.bbox
    box = Box.factory[whole.y.start + CELL.y : whole.y.stop, whole.x.start + CELL.x : whole.x.stop]
    made = run(coadd, box)
    assert made.bbox == box
    inside = coadd.image.array[CELL.y :, CELL.x :]
    np.testing.assert_array_equal(made.image.array, np.nan_to_num(inside))
    x, y = box.x.start + 2.0, box.y.start + 3.0
    np.testing.assert_allclose(made.psf.compute_kernel_image(x=x, y=y).array, KERNEL)
    sky, expected = (c.sky_projection.pixel_to_sky(x=x, y=y) for c in (made, coadd))
    assert sky.separation(expected).deg < 1e-9
    assert made.metadata["target_fwhm_arcsec"] == 0.5
    assert not made.noise_realizations


def test_box_must_be_covered(no_data: NDArray[np.bool_]) -> None:
    """If it fails, pixels that nobody restored are taken for dark sky."""
    whole = GEOMETRY.bbox
    box = Box.factory[whole.y.start - 1 : whole.y.stop, whole.x.start : whole.x.stop]
    with pytest.raises(ValueError, match="in i covers .* connections.reference_name must name"):
        run(make_coadd(no_data), box)


def test_band_without_data_is_left_out() -> None:
    """If it fails, the deblender divides by the noise of nothing."""
    with pytest.raises(NoWorkFound, match="in i has no data"):
        run(make_coadd(np.ones((HEIGHT, WIDTH), dtype=bool)), GEOMETRY.bbox)


def test_quantum(no_data: NDArray[np.bool_], tmp_path: Path) -> None:
    """If it fails, a pipeline cannot read the box or write the dataset."""
    connections: Any = MakeDeblenderCoaddConfig.ConnectionsClass
    lintConnections(connections)
    butler = create_repository(str(tmp_path / "repo"))
    insert = butler.registry.insertDimensionData
    insert("instrument", {"name": "TestCam", "visit_max": 9, "exposure_max": 9, "detector_max": 9})
    insert("physical_filter", {"instrument": "TestCam", "name": "i_test", "band": "i"})
    register_sky_map(butler, make_patch_geometry(cells=(4, 5)), "run")
    butler = butler.clone(run="run", collections="run")
    coadd = make_coadd(no_data)
    data_id = DataCoordinate.standardize(
        skymap="test_map", tract=3, patch=0, band="i", universe=butler.dimensions
    )
    dimensions = butler.dimensions.conform(["skymap", "tract", "patch", "band"])
    for name in ("restored_coadd", "deep_coadd", "restored_coadd_for_deblender"):
        butler.registry.registerDatasetType(DatasetType(name, dimensions, "CellCoadd"))
    whole = GEOMETRY.bbox
    box = Box.factory[whole.y.start : whole.y.stop, whole.x.start + CELL.x : whole.x.stop]
    butler.put(coadd, "restored_coadd", data_id)
    butler.put(coadd[box], "deep_coadd", data_id)
    config = MakeDeblenderCoaddConfig()
    config.direct_storage_class = "CellCoadd"
    task = MakeDeblenderCoaddTask(config=config)
    names = ("restored_coadd", "direct_coadd", "deblender_coadd")
    runTestQuantum(
        task, butler, makeQuantum(task, butler, data_id, dict.fromkeys(names, data_id)), mockRun=False
    )
    made = butler.get("restored_coadd_for_deblender", data_id)
    assert made.bbox == box
    assert np.isfinite(made.image.array).all()
