# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Shares of exposures in the information about point sources."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.astroclearnet.adapters import PatchSource, PatchSummary, VisitCutout
from lsst.astroclearnet.core import Tile, gaussian_kernel, information_shares, point_source_information
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image

SHAPE = (160, 120)
CELL = (40, 30)


def constant_psfs(fwhm: float, cells: tuple[int, int] = (2, 3)) -> np.ndarray:
    kernel = gaussian_kernel(fwhm, 41)
    return np.broadcast_to(kernel, (*cells, *kernel.shape))


def test_shares_of_gaussians() -> None:
    """If it fails, the weight in the provenance is not the information."""
    psfs = np.stack([constant_psfs(3.0), constant_psfs(6.0)])
    information = point_source_information(np.ones((2, *SHAPE)), psfs, CELL)
    shares = information_shares(information)
    assert shares.shape == (2, 4, 4)
    np.testing.assert_allclose(shares[0], 0.8, rtol=1e-4)
    np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    # sum f^2 = 2 ln 2 / (pi FWHM^2), for each of the pixels of a cell.
    np.testing.assert_allclose(information[0], 1200 * 2.0 * np.log(2.0) / (np.pi * 9.0), rtol=1e-3)


def test_shares_follow_weights_and_masks() -> None:
    """If it fails, rejected pixels count or cells are swapped."""
    weights = np.ones((2, *SHAPE))
    weights[1] = 0.25
    weights[0, :40, 60:75] = 0.0
    weights[:, 80:120, :30] = 0.0
    psfs = np.stack([constant_psfs(4.0)] * 2)
    expected = np.full((4, 4), 0.8)
    expected[0, 2] = 0.5 / 0.75
    expected[2, 0] = 0.0
    shares = information_shares(point_source_information(weights, psfs, CELL))
    np.testing.assert_allclose(shares[0], expected, rtol=1e-12)
    assert shares[1, 2, 0] == 0.0


def test_psf_of_the_place_counts() -> None:
    """If it fails, a PSF that varies has one weight all over the patch."""
    # Squared norms that are linear in the position are interpolated exactly.
    border = (20, 40)
    full = (SHAPE[0] + 2 * border[0], SHAPE[1] + 2 * border[1])
    cells = (4, 5)
    y, x = ((np.arange(n) + 0.5) * size / n for n, size in zip(cells, full, strict=True))
    psfs = np.sqrt(1.0 + 0.01 * y[:, None] + 0.002 * x)[..., None, None]
    weights = np.full(SHAPE, 2.0)
    information = point_source_information(weights, psfs, (80, 60), offset=border, full_shape=full)
    middle_y, middle_x = 20.0 + np.array([40.0, 120.0]), 40.0 + np.array([30.0, 90.0])
    expected = 1.0 + 0.01 * middle_y[:, None] + 0.002 * middle_x
    inside = expected * 2.0 * 80 * 60
    # Beyond the outermost nodes, 5 pixels of this patch, the norm is theirs.
    np.testing.assert_allclose(information, inside, rtol=2e-3)


def test_cells_without_psf() -> None:
    """If it fails, detectors' edges turn the provenance into NaN."""
    psfs = constant_psfs(4.0, (2, 3)).copy()
    whole = point_source_information(np.ones(SHAPE), psfs, CELL)
    psfs[0, 1] = psfs[:, 2] = np.nan
    np.testing.assert_allclose(point_source_information(np.ones(SHAPE), psfs, CELL), whole)
    psfs[:] = np.nan
    assert not point_source_information(np.ones(SHAPE), psfs, CELL).any()


def test_weights_must_be_whole_cells() -> None:
    """If it fails, a wrong grid of cells is an obscure error of numpy."""
    with pytest.raises(ValueError, match="160x120 pixels are not a whole number of cells of 40x32"):
        point_source_information(np.ones(SHAPE), constant_psfs(4.0), (40, 32))


def test_provenance_of_a_coadd() -> None:
    """If it fails, the contributions that are written have other weights."""
    geometry = make_patch_geometry().patch(3, 0)
    shape = (300, 340)
    bbox = geometry.bbox.padded(16)
    cutouts = []
    for visit, fwhm in ((1, 3.5), (2, 7.0)):
        projection = make_projection(shape, visit=visit)
        image = make_visit_image(np.zeros(shape), projection, fwhm=fwhm, variance=2.0)
        cutouts.append(VisitCutout.take(image, geometry, bbox=bbox))
    grid = geometry.definition.cells
    weights = np.full((2, *geometry.bbox.shape), 0.5)
    weights[0, : grid.cell_shape.y, : grid.cell_shape.x] = 0.0
    summary = PatchSummary(PatchSource(cutouts, geometry, bbox))
    rows, columns = (slice(16, 16 + size) for size in geometry.bbox.shape)
    tile = Tile(slice(0, bbox.shape[0]), slice(0, bbox.shape[1]), rows, columns)
    summary.add(tile, np.arange(2), weights, np.zeros(weights.shape, dtype=bool))
    table = summary.make_provenance().contributions
    sharp = {(row["cell_i"], row["cell_j"]): row["weight"] for row in table if row["visit"] == 1}
    assert sharp.pop((0, 0)) == 0.0
    assert len(sharp) == grid.grid_size.i * grid.grid_size.j - 1
    # The stamps of 25 pixels cut off a part of the wider PSF.
    np.testing.assert_allclose(list(sharp.values()), 0.8, atol=0.01)
