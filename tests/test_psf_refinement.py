# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs that are refined against those of the other exposures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import CalibrationOptions, ExposureStack, RestoreOptions, kernel_fwhm
from lsst.astroclearnet.core.calibration import ExposureCalibration, calibrate_exposures
from lsst.astroclearnet.core.calibration._psf_refinement import PsfRefinement
from lsst.astroclearnet.core.calibration._psf_residuals import PsfResiduals
from lsst.astroclearnet.core.calibration._psf_response import PsfResponse
from lsst.astroclearnet.core.calibration._psf_shapes import psf_derivatives, reshape_psfs
from lsst.astroclearnet.core.calibration._star_widths import StarWidth
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.forward import TileReader
from lsst.astroclearnet.tests import ExposureArrays, make_exposure_arrays

SHAPE = (112, 112)
FWHMS = (3.3, 3.6, 3.9, 4.2, 3.5, 4.0, 3.8, 4.4)
WRONG = 2
"""The exposure whose PSF is given with an error."""


def make_arrays(change: tuple[float, ...] = (0.0,) * 4, *, everywhere: bool = False) -> ExposureArrays:
    """Return exposures of which one, or all, differ from their PSFs."""
    rng = np.random.default_rng(7)
    places = np.array([(y, x) for y in range(12, 110, 18) for x in range(12, 110, 18)], dtype=float)
    places += rng.uniform(-2.0, 2.0, places.shape)
    fluxes = np.exp(rng.uniform(math.log(400.0), math.log(6000.0), len(places)))
    stars = [(float(y), float(x), float(flux)) for (y, x), flux in zip(places, fluxes, strict=True)]
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=3)
    wrong = range(len(FWHMS)) if everywhere else [WRONG]
    for t in wrong:
        given = reshape_psfs(torch.from_numpy(arrays.psfs[t]), -torch.tensor(change, dtype=torch.float64))
        arrays.psfs[t] = given.numpy()
    return arrays


def calibrate(
    arrays: ExposureArrays, mode: str = "report", unit: float = 1.0
) -> tuple[ExposureCalibration, TileReader]:
    """Calibrate exposures, in a unit of flux."""
    stack = ExposureStack.from_arrays(
        arrays.images * unit, arrays.variances * unit**2, arrays.good, arrays.psfs, in_noise_units=True
    )
    tiles = TileGrid.cover(stack.shape, 1024).tiles
    reader = TileReader(StackSource(stack), tiles, 3.3, torch.device("cpu"))
    options = RestoreOptions(calibration=CalibrationOptions(psf_refinement=mode))
    with torch.no_grad():
        return calibrate_exposures(reader, options), reader


@pytest.fixture(scope="module")
def exact() -> PsfRefinement:
    """What is found where all PSFs are right."""
    return calibrate(make_arrays())[0].refinement


def test_exact_psfs_are_left_alone(exact: PsfRefinement) -> None:
    """If it fails, good PSFs are made worse, and by more than is said."""
    assert float((exact.changes / exact.sigmas).abs().max()) < 3.0
    assert float(exact.changes[:, :3].abs().max()) < 6e-3
    assert abs(exact.shared.value) < 4.0 * exact.shared.sigma
    assert abs(exact.flux_error) < 5e-3
    assert 0.0 < exact.flux_systematic < 4e-3


@pytest.mark.parametrize(
    "change",
    [(0.03, 0.0, 0.0, 0.0), (-0.05, 0.0, 0.0, 0.0), (0.0, 0.03, 0.0, 0.0), (0.0, 0.0, -0.03, 0.0)],
    ids=["wider", "narrower", "along", "diagonal"],
)
def test_wrong_psf_is_found_and_no_other(exact: PsfRefinement, change: tuple[float, ...]) -> None:
    """If it fails, less than four fifths of the error of a PSF is removed, or
    the others are changed for it.
    """
    calibration, _ = calibrate(make_arrays(change), "apply")
    found, size = calibration.refinement.changes, torch.tensor(change, dtype=torch.float64)
    # The noise is the same.
    rest = found - exact.changes
    rest[WRONG] -= size
    assert float(rest[WRONG].norm()) < 0.2 * float(size.norm())
    assert float(rest[:, :3].abs().max()) < 0.2 * float(size.norm())
    assert float((found[WRONG] / calibration.refinement.sigmas[WRONG]).abs().max()) > 5.0


@pytest.mark.slow
def test_correction_makes_the_psf_that_of_the_sky() -> None:
    """If it fails, what is found is applied the wrong way, or not at all."""
    arrays, true = make_arrays((0.04, 0.0, 0.0, 0.0)), make_arrays()
    for mode, removed in (("off", 0.0), ("report", 0.0), ("apply", 1.0)):
        calibration, reader = calibrate(arrays, mode)
        stack = calibration.clean(next(iter(reader))).tile_data.stack
        given, right, used = (
            kernel_fwhm(psf)
            for psf in (arrays.psfs[WRONG], true.psfs[WRONG], stack.psfs[WRONG, 0, 0].numpy())
        )
        assert (used - given) / (right - given) == pytest.approx(removed, abs=0.2)
        assert calibration.refinement.is_applied == (mode == "apply")
        known = calibration.refinement.sigmas.isfinite()
        assert bool((known if mode != "off" else ~known).all())


@pytest.mark.slow
def test_what_all_share_is_reported_and_left_to_stars() -> None:
    """If it fails, an error of all PSFs is silent, or is corrected without a
    star to prove it.
    """
    arrays = make_arrays((0.03, 0.0, 0.0, 0.0), everywhere=True)
    refinement = calibrate(arrays, "apply")[0].refinement
    assert abs(float(refinement.changes[:, 0].mean())) < 4e-3
    assert refinement.shared.value == pytest.approx(0.03, abs=5e-3)
    # Narrow PSFs make fluxes too small: by 1.5 times as much, or more.
    assert -0.06 < refinement.flux_error < -0.035
    corrected = calibrate(arrays, "stars")[0].refinement
    assert float(corrected.changes[:, 0].mean()) == pytest.approx(0.03, abs=6e-3)
    assert abs(corrected.flux_error) < 0.01
    assert corrected.flux_systematic < refinement.flux_systematic


@pytest.mark.slow
def test_neither_unit_nor_order_matters() -> None:
    """If it fails, the same pixels give other PSFs."""
    arrays = make_arrays((0.03, 0.02, 0.0, 0.0))
    found = calibrate(arrays)[0].refinement
    scaled = calibrate(arrays, unit=2.0**10)[0].refinement
    torch.testing.assert_close(scaled.changes, found.changes, rtol=0.0, atol=1e-5)
    assert scaled.flux_systematic == pytest.approx(found.flux_systematic, rel=1e-3)
    reverse = calibrate(ExposureArrays(*(values[::-1].copy() for values in arrays)))[0].refinement
    torch.testing.assert_close(reverse.changes.flip(0), found.changes, rtol=0.0, atol=3e-4)


@pytest.mark.slow
def test_psfs_may_vary() -> None:
    """If it fails, cells of a PSF are confused, or its mean is corrected."""
    arrays = make_arrays((0.03, 0.0, 0.0, 0.0))
    cells = arrays.psfs[:, None, None].repeat(2, axis=1).repeat(2, axis=2)
    calibration, reader = calibrate(arrays._replace(psfs=cells), "apply")
    uniform, _ = calibrate(arrays, "apply")
    torch.testing.assert_close(
        calibration.refinement.changes, uniform.refinement.changes, rtol=0.0, atol=1e-4
    )
    psfs = torch.from_numpy(cells)
    psfs[WRONG, 0] = reshape_psfs(psfs[WRONG, 0], torch.tensor([0.01, 0.0, 0.0, 0.0], dtype=torch.float64))
    corrected = calibration.refinement.correct(psfs, torch.arange(len(psfs)))
    assert corrected.shape == psfs.shape
    for before, after in zip(psfs[WRONG].flatten(0, 1), corrected[WRONG].flatten(0, 1), strict=True):
        assert kernel_fwhm(after.numpy()) / kernel_fwhm(before.numpy()) == pytest.approx(1.03, abs=6e-3)
    assert reader.read(reader.tiles[0]) is not None


@pytest.mark.parametrize("number", [0, 4, 8])
def test_one_very_bright_star_does_not_move_all(number: int) -> None:
    """If it fails, a star whose core is masked in some exposures makes PSFs
    that are right wrong by 10 %.
    """
    place = (55.3, 57.8)
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=[(*place, 1e6)], seed=3)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    arrays.good[:number, np.hypot(rows - place[0], columns - place[1]) < 6.0] = False
    refinement = calibrate(arrays)[0].refinement
    assert float((refinement.changes / refinement.sigmas).abs().max()) < 3.0
    assert abs(refinement.flux_error) < 0.005
    assert 0.003 < refinement.flux_systematic < 0.01


def test_data_in_a_part_of_the_patch(exact: PsfRefinement) -> None:
    """If it fails, stars at the edge of a survey have no errors."""
    arrays = make_arrays()
    beyond = {"images": 0.0, "variances": 1.0, "good": False}
    padded = {
        name: np.pad(getattr(arrays, name), ((0, 0), (0, 160), (0, 0)), constant_values=value)
        for name, value in beyond.items()
    }
    calibration, _ = calibrate(arrays._replace(**padded))
    found = calibration.refinement.shared
    assert found.sigma == pytest.approx(exact.shared.sigma, rel=0.15)
    assert found.value == pytest.approx(exact.shared.value, abs=0.3 * found.sigma)


def test_two_exposures_are_not_compared(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, one is changed though nobody knows which is wrong."""
    arrays = make_arrays((0.05, 0.0, 0.0, 0.0))
    two = ExposureArrays(*(values[WRONG : WRONG + 2] for values in arrays))
    refinement = calibrate(two, "apply")[0].refinement
    assert not refinement.is_applied
    assert not bool(refinement.changes.any())
    assert "PSFs are not refined" in caplog.text


def test_without_sources_the_assumed_error_is_declared() -> None:
    """If it fails, nothing known is taken for nothing wrong."""
    number, psfs = 6, torch.from_numpy(make_arrays().psfs[:6])
    nothing = PsfResiduals(
        exposures=torch.arange(number),
        normal=torch.zeros(number, 1, 4, 4, dtype=torch.float64),
        right=torch.zeros(number, 1, 4, dtype=torch.float64),
        response=PsfResponse.build(
            psfs,
            psf_derivatives(psfs),
            torch.ones(number),
            torch.ones(number, number),
            target_fwhm=3.3,
            max_residual=4e-3,
        ),
        stars=torch.zeros(2, 0, dtype=torch.float64),
    )
    refinement = PsfRefinement.solve([nothing], number, 0.01, "apply")
    assert not bool(refinement.changes.any())
    # The root of the variance of a t-distribution of four degrees of freedom.
    assert refinement.sigmas[:, 0].numpy() == pytest.approx(0.01 * math.sqrt(2.0), rel=0.1)
    assert math.isinf(refinement.shared.sigma)
    expected = float((nothing.response.fluxes * refinement.sigmas).square().sum().sqrt())
    assert refinement.flux_systematic == pytest.approx(expected, rel=0.01)
    assert expected > 0.005


def test_fluxes_respond_as_first_order_says() -> None:
    """If it fails, the declared error of fluxes is that of something else.

    For one Gaussian PSF of variance s and a target of variance t without a
    penalty, a PSF given wider by d makes the linear image of a star
    exp(d s k^2) times the target, and the fit of the target weights that with
    its square: d s / t.
    """
    psfs = torch.from_numpy(make_arrays().psfs[:1]).expand(3, -1, -1)
    response = PsfResponse.build(
        psfs, psf_derivatives(psfs), torch.ones(3), torch.ones(3, 3), target_fwhm=3.9, max_residual=1e-6
    )
    assert float(response.fluxes[:, 0].sum()) == pytest.approx((FWHMS[0] / 3.9) ** 2, rel=0.03)
    assert float(response.fluxes[:, 1:3].abs().max()) < 1e-6
    # Three alike predict each other by half.
    assert response.shared[0, 0, :, 0].numpy() == pytest.approx([0.0, 0.5, 0.5], abs=0.01)
    assert response.star_shares.numpy() == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-6)


def test_shapes_change_as_they_say() -> None:
    psf = torch.from_numpy(make_arrays().psfs[WRONG])
    r = torch.arange(-12, 13, dtype=torch.float64)

    def moments(stamp: torch.Tensor) -> tuple[float, float, float]:
        rows, columns = float((stamp.sum(dim=1) * r**2).sum()), float((stamp.sum(dim=0) * r**2).sum())
        return rows, columns, float((stamp * r[:, None] * r).sum())

    before = moments(psf)[0]
    assert torch.equal(reshape_psfs(psf, torch.zeros(4, dtype=torch.float64)), psf)
    for change, expected in (
        ([0.05, 0.0, 0.0, 0.0], (math.exp(0.1), math.exp(0.1), 0.0)),
        ([0.0, 0.04, 0.0, 0.0], (math.exp(0.08), math.exp(-0.08), 0.0)),
        ([0.0, 0.0, 0.04, 0.0], (math.cosh(0.08), math.cosh(0.08), math.sinh(0.08))),
        ([0.0, 0.0, 0.0, 0.02], (0.98 + 0.02 * 4.0, 0.98 + 0.02 * 4.0, 0.0)),
    ):
        changed = reshape_psfs(psf, torch.tensor(change, dtype=torch.float64))
        assert float(changed.sum()) == pytest.approx(1.0)
        assert [m / before for m in moments(changed)] == pytest.approx(expected, abs=5e-3)
    derivatives = psf_derivatives(psf[None])[0]
    assert float(derivatives.sum(dim=(1, 2)).abs().max()) < 1e-12


def test_galaxies_are_no_stars() -> None:
    """If it fails, a field without stars shows an error of all PSFs."""
    rng = np.random.default_rng(5)

    def found(widths: np.ndarray) -> StarWidth:
        return StarWidth.of_sources(torch.from_numpy(np.stack([widths, np.full(len(widths), 2e-3)])))

    galaxies = rng.uniform(0.0, 0.5, 40)
    assert math.isinf(found(galaxies).sigma)
    assert found(galaxies).value == 0.0
    stars = found(np.concatenate([galaxies[galaxies > 0.05], rng.normal(-0.02, 2e-3, 15)]))
    assert stars.value == pytest.approx(-0.02, abs=4.0 * stars.sigma)
    assert stars.sigma < 2e-3
    assert math.isinf(found(np.array([0.01, 0.012, 0.011])).sigma)
