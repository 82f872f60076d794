# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What metadetection needs of a cell coadd, and the linear coadd has.

By reading ``MetadetectionShearTask`` of drp_tasks dc28b94 (June 2026): it cuts
each cell that is not at the edge of its patch out with a border from its
neighbours, and takes the image, its variance, the first noise realisation and
the only plane of mask fractions; shears are those of galaxies under one PSF.
"""

from __future__ import annotations

import numpy as np
import pytest

from lsst.astroclearnet.core import fwhm_to_sigma
from lsst.astroclearnet.tasks import RestoreCoaddConfig, RestoreCoaddTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import VisitImage
from lsst.images.cells import CellCoadd

SHAPE = (158, 172)
SIGMA = 2.0
WIDTHS = (3.2, 3.9, 4.6, 5.2)
ANGLES = (0.0, 31.0, 180.0, 5.0)
OFFSETS = ((3.3, 28.2), (-4.1, 32.9), (0.4, -39.6), (6.2, 35.7))
BORDER = 24
"""As that of 50 pixels around cells of 150: not wider than a cell."""


@pytest.fixture(scope="module")
def field() -> StarField:
    """Two stars on patch 0, which is 120 pixels wide, and much blank sky."""
    geometry = make_patch_geometry(cell_shape=(30, 24)).patch(3, 0)
    return StarField(
        geometry=geometry, x=np.array([30.3, 81.6]), y=np.array([85.2, 40.4]), flux=np.array([3e3, 5e3])
    )


def observe(field: StarField, number: int) -> VisitImage:
    """Return a noisy visit image; the first one has a cosmic ray."""
    projection = make_projection(
        SHAPE, offset=OFFSETS[number], rotation=ANGLES[number], visit=number, detector=0
    )
    noise = np.random.default_rng(40 + number).normal(0.0, SIGMA, SHAPE)
    ray = np.zeros(SHAPE, dtype=bool)
    if number == 0:
        ray[70:74, 90:94] = True
    return make_visit_image(
        field.render(projection, SHAPE, WIDTHS[number]) + noise,
        projection,
        variance=SIGMA**2,
        fwhm=WIDTHS[number],
        planes={"COSMIC_RAY": ray},
    )


@pytest.fixture(scope="module")
def coadd(field: StarField) -> CellCoadd:
    """The linear coadd that the task makes of four visits."""
    config = RestoreCoaddConfig(geometry_source="dict", target_fwhm=0.55, device="cpu", do_plot=False)
    config.restoration.noise.num_draws = 2
    visits = [observe(field, n) for n in range(4)]
    outputs = RestoreCoaddTask(config=config).run(visit_images=visits, geometry=field.geometry, band="i")
    return outputs.restored_coadd_linear


@pytest.fixture(scope="module")
def blank(field: StarField, coadd: CellCoadd) -> np.ndarray:
    """Pixels without starlight."""
    rows, columns = np.indices(coadd.image.array.shape)
    y, x = rows + coadd.bbox.y.start, columns + coadd.bbox.x.start
    far = [np.hypot(y - b, x - a) > 12.0 for a, b in zip(field.x, field.y, strict=True)]
    return np.all(far, axis=0)


def correlation(values: np.ndarray, use: np.ndarray, dy: int, dx: int) -> float:
    """Return the correlation of neighbours among the pixels to use."""
    height, width = values.shape
    one, two = (slice(dy, None), slice(dx, None)), (slice(height - dy), slice(width - dx))
    both = use[one] & use[two]
    return float(np.mean((values[one] * values[two])[both]) / np.mean(values[use] ** 2))


def test_noise_realisations_are_like_the_noise(coadd: CellCoadd, blank: np.ndarray) -> None:
    """If it fails, the noise that metacalibration adds does not cancel the
    correlations that its shears make.
    """
    assert len(coadd.noise_realizations) >= 1
    sigma = np.sqrt(coadd.variance.array)
    sky = coadd.image.array / sigma
    assert np.std(sky[blank]) == pytest.approx(1.0, abs=0.1)
    for realisation in coadd.noise_realizations:
        assert realisation.bbox == coadd.bbox
        noise = realisation.array / sigma
        assert np.isfinite(noise).all()
        assert np.mean(noise[blank]) == pytest.approx(0.0, abs=0.1)
        assert np.std(noise[blank]) == pytest.approx(1.0, abs=0.1)
        assert abs(np.corrcoef(noise[blank], sky[blank])[0, 1]) < 0.1
        for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
            expected = correlation(sky, blank, dy, dx)
            assert correlation(noise, blank, dy, dx) == pytest.approx(expected, abs=0.1)


def test_mask_fractions_are_one_plane(coadd: CellCoadd) -> None:
    # A legacy cell has room for one plane.
    (fractions,) = coadd.mask_fractions.values()
    assert fractions.bbox == coadd.bbox
    assert fractions.array.min() == 0.0
    assert fractions.array.max() == pytest.approx(0.25)
    # A cosmic ray of 16 pixels, with what resampling adds.
    assert 9 <= np.count_nonzero(fractions.array) <= 400


def test_cells_have_borders_with_data(coadd: CellCoadd) -> None:
    """If it fails, cells are lost, or galaxies on their edges."""
    assert not coadd.bounds.missing
    size = coadd.grid.grid_size
    inner = [
        cell for cell in coadd.bounds.cell_indices() if 0 < cell.i < size.i - 1 and 0 < cell.j < size.j - 1
    ]
    assert len(inner) == 6
    for cell in inner:
        box = coadd.grid.bbox_of(cell).dilated_by(BORDER)
        assert coadd.bbox.contains(box)
        cut = coadd[box]
        assert cut.bbox == cut.noise_realizations[0].bbox == cut.mask_fractions["rejected"].bbox == box
        assert np.isfinite(cut.image.array).all()
        assert np.isfinite(cut.variance.array).all()
        assert (cut.variance.array > 0.0).all()


def test_psf_of_cells_is_the_declared_one(field: StarField, coadd: CellCoadd) -> None:
    kernels = np.array([coadd.psf[cell].array for cell in coadd.bounds.cell_indices()])
    assert (kernels == kernels[0]).all()
    assert kernels[0].sum() == pytest.approx(1.0)
    half = kernels.shape[1] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    declared = coadd.metadata["target_fwhm_arcsec"]
    assert isinstance(declared, float)
    fwhm = declared / field.geometry.pixel_scale
    expected = np.exp(-0.5 * (x**2 + y**2) / fwhm_to_sigma(fwhm) ** 2)
    np.testing.assert_allclose(kernels[0], expected / expected.sum(), rtol=1e-4, atol=1e-6)
