# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The task that makes a catalogue of restored coadds."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from lsst.astroclearnet.adapters import make_cell_coadd
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.measurement import object_columns
from lsst.astroclearnet.metrics import point_source_image
from lsst.astroclearnet.tasks import MeasureObjectsConfig, MeasureObjectsTask
from lsst.astroclearnet.tests import make_patch_geometry
from lsst.images import Box
from lsst.images.cells import CellCoadd, CoaddProvenance
from lsst.pipe.base import NoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

PATCH = 1
GEOMETRY = make_patch_geometry(cells=(4, 5)).patch(3, PATCH)
SHAPE = GEOMETRY.bbox.shape
SIGMA = 2.0
X, Y = np.array([15.2, 40.7, 60.3, 78.4]), np.array([20.4, 50.2, 80.9, 30.6])
"""Positions in the box of the patch, the second in the inner region."""

FLUX = {"g": np.array([900.0, 500.0, 700.0, 400.0]), "i": np.array([600.0, 900.0, 300.0, 1500.0])}


def make_provenance() -> CoaddProvenance:
    """Return the provenance of one exposure."""
    inputs = CoaddProvenance.make_empty_input_table(1)
    inputs["instrument"], inputs["visit"], inputs["detector"] = "TestCam", 1, 0
    inputs["physical_filter"], inputs["day_obs"] = "i_test", 20260101
    inputs["polygon"][0] = GEOMETRY.bbox.to_polygon()
    size = GEOMETRY.definition.cells.grid_size
    contributions = CoaddProvenance.make_empty_contribution_table(size.i * size.j)
    contributions["cell_i"], contributions["cell_j"] = (axis.ravel() for axis in np.indices((size.i, size.j)))
    contributions["instrument"], contributions["visit"], contributions["detector"] = "TestCam", 1, 0
    return CoaddProvenance(inputs=inputs, contributions=contributions)


def make_coadd(band: str, sigma: float, seed: int, planes: dict[str, NDArray[np.bool_]]) -> CellCoadd:
    """Return a coadd of four stars with white noise."""
    psf = gaussian_kernel(3.2, 17)
    image = point_source_image(SHAPE, psf, X, Y, FLUX[band])
    image += np.random.default_rng(seed).normal(0.0, sigma, SHAPE)
    no_data = planes.get("NO_DATA", np.zeros(SHAPE, dtype=bool))
    return make_cell_coadd(
        geometry=GEOMETRY,
        band=band,
        image=np.where(no_data, np.nan, image),
        variance=np.where(no_data, np.nan, sigma**2),
        mask_planes={**planes, "NO_DATA": no_data},
        psf=psf,
        provenance=make_provenance(),
        noise_realizations=np.zeros((0, *SHAPE)),
    )


def make_noise_table() -> Table:
    """Return the correlation of white noise in all cells."""
    size = GEOMETRY.definition.cells.grid_size
    stamp = np.zeros((31, 31), dtype=np.float32)
    stamp[15, 15] = 1.0
    i, j = (axis.ravel() for axis in np.indices((size.i, size.j)))
    return Table({"cell_i": i, "cell_j": j, "correlation": np.array([stamp] * i.size)})


@pytest.fixture(scope="module")
def inputs() -> dict[str, dict[str, Any]]:
    """Inputs in g and i; in g a corner has no data."""
    corner, supplied = np.zeros((2, *SHAPE), dtype=bool)
    corner[70:, 50:] = True
    supplied[20, 16] = True
    planes = {"g": {"NO_DATA": corner}, "i": {"SUPPLIED": supplied}}
    return {
        "restored": {band: make_coadd(band, 0.3, 5 + len(band), planes[band]) for band in "gi"},
        "linear": {band: make_coadd(band, SIGMA, ord(band), planes[band]) for band in "gi"},
        "noise": {band: make_noise_table() for band in "gi"},
    }


def test_sources_are_placed_on_the_sky(
    inputs: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails, catalogues have wrong positions, numbers or fluxes, or a
    missing band costs the patch.
    """
    task = MeasureObjectsTask(config=MeasureObjectsConfig())
    with caplog.at_level(logging.INFO):
        outputs = task.run(**inputs)
    assertValidOutput(task, outputs)
    objects = outputs.restored_object_patch
    assert objects.colnames == [column.name for column in object_columns()]
    assert "Columns of z are empty: there is no dataset restored, linear, noise." in caplog.text
    assert np.isnan(objects["z_acn_psfFlux"]).all()
    assert objects["z_acn_pixelFlags_noData"].all()
    box = GEOMETRY.bbox
    assert len(objects) == X.size
    order = [
        int(np.hypot(objects["acn_x"] - x - box.x.start, objects["acn_y"] - y - box.y.start).argmin())
        for x, y in zip(X, Y, strict=True)
    ]
    found = objects[order]
    expected = GEOMETRY.projection.pixel_to_sky(x=X + box.x.start, y=Y + box.y.start)
    distance = SkyCoord(found["coord_ra"], found["coord_dec"]).separation(expected)
    assert distance.arcsec.max() < 0.2 * GEOMETRY.pixel_scale
    for band, flux in FLUX.items():
        pull = (found[f"{band}_acn_psfFlux"] - flux) / found[f"{band}_acn_psfFluxErr"]
        known = [0, 1, 3] if band == "g" else [0, 1, 2, 3]
        assert np.abs(pull[known]).max() < 4.0
    assert np.isnan(found["g_acn_psfFlux"][2])
    assert (
        list(found["g_acn_psfFlux_flag"])
        == list(found["g_acn_pixelFlags_noData"])
        == [False] * 2
        + [
            True,
            False,
        ]
    )
    assert list(found["i_acn_pixelFlags_supplied"]) == [True, False, False, False]
    inner = GEOMETRY.definition.inner_bbox
    assert list(found["acn_isPatchInner"]) == [
        inner.contains(x=round(x + box.x.start), y=round(y + box.y.start)) for x, y in zip(X, Y, strict=True)
    ]
    assert set(found["acn_isPatchInner"]) == {True, False}
    assert set(objects["tract"]) == {3}
    assert set(objects["patch"]) == {PATCH}
    assert list(objects["acn_objectId"]) == [(3 << 40) + (PATCH << 24) + n for n in (1, 2, 3, 4)]


def test_configured_bands_and_apertures_are_the_columns(
    inputs: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails, bands of other cameras have no columns."""
    config = MeasureObjectsConfig(bands=["i", "N921"], aperture_radii=[4], min_signal_to_noise=50.0)
    with caplog.at_level(logging.INFO):
        objects = MeasureObjectsTask(config=config).run(**inputs).restored_object_patch
    assert objects.colnames == [column.name for column in object_columns(("i", "N921"), (4,))]
    assert "The coadd in g is not used: g is not in bands." in caplog.text
    assert 0 < len(objects) < X.size
    assert (objects["acn_signalToNoise"] > 50.0).all()


def test_patches_without_data_have_no_work(inputs: dict[str, dict[str, Any]]) -> None:
    """If this fails, a patch that cannot be measured ends in an error."""
    task = MeasureObjectsTask(config=MeasureObjectsConfig())
    with pytest.raises(NoWorkFound, match="No coadd in u, g, r, i, z, y has data to measure"):
        task.run(restored=inputs["restored"], linear={}, noise={})
    nothing = make_coadd("i", SIGMA, 1, {"NO_DATA": np.ones(SHAPE, dtype=bool)})
    with pytest.raises(NoWorkFound, match="has data to measure"):
        task.run(restored={"i": nothing}, linear={"i": nothing}, noise={"i": make_noise_table()})


def test_coadds_of_other_boxes_are_refused(inputs: dict[str, dict[str, Any]]) -> None:
    """If this fails, bands are measured at different places."""
    box = GEOMETRY.bbox
    part = Box.factory[box.y.start : box.y.stop - 24, box.x.start : box.x.stop]
    linear = {**inputs["linear"], "i": inputs["linear"]["i"][part]}
    with pytest.raises(ValueError, match=r"The coadd in i covers .*, that in g .*restore all bands"):
        MeasureObjectsTask(config=MeasureObjectsConfig()).run(**{**inputs, "linear": linear})


def test_connections_are_sound() -> None:
    """If this fails, graphs do not build."""
    connections: Any = MeasureObjectsConfig.ConnectionsClass
    lintConnections(connections)
