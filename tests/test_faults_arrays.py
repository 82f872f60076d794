# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arrays that would spoil a restoration in silence."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lsst.astroclearnet.core import (
    CalibrationOptions,
    InputError,
    MaskBit,
    NoUsableDataError,
    PixelPositions,
    RestorationError,
    RestorationResult,
    fwhm_to_sigma,
    gaussian_kernel,
    restore,
)
from lsst.astroclearnet.tests import (
    FWHMS,
    QUICK,
    SHAPE,
    SIGMAS,
    STARS,
    TARGET,
    ExposureArrays,
    make_exposure_arrays,
    make_scene,
    restore_on_cpu,
)

PIXEL = (2, 40, 20)
TINY = make_exposure_arrays((24, 30), FWHMS[:2], psf_size=9)
PLANES = ("image", "variance", "linear_image", "linear_variance")


@pytest.fixture(scope="module")
def whole() -> RestorationResult:
    """A restoration of good arrays."""
    return restore_on_cpu(make_scene(), QUICK)


@pytest.fixture(scope="module")
def masked() -> RestorationResult:
    """The same without one pixel."""
    arrays = make_scene()
    arrays.good[PIXEL] = False
    return restore_on_cpu(arrays, QUICK)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("images", value) for value in (1e10, -1e300)),
        *(("variances", value) for value in (1e-12, 1e38, -1.0)),
    ],
)
def test_pixel_beyond_single_precision_is_not_used(
    masked: RestorationResult, name: str, value: float
) -> None:
    """If it fails, one absurd number makes the whole patch NaN, or wrong."""
    arrays = make_scene()
    getattr(arrays, name)[PIXEL] = value
    result = restore_on_cpu(arrays, QUICK)
    assert result.weights[PIXEL] == 0
    for plane in PLANES:
        np.testing.assert_array_equal(getattr(result, plane), getattr(masked, plane))


@pytest.fixture(scope="module")
def others() -> RestorationResult:
    """The same without one exposure."""
    return restore_on_cpu(ExposureArrays(*(array[[0, 2, 3]] for array in make_scene())), QUICK)


@pytest.mark.parametrize(("name", "factor"), [("variances", 1e-20), ("variances", 1e20), ("images", 1e18)])
def test_exposure_beyond_single_precision_is_dropped(
    others: RestorationResult, name: str, factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, an exposure in another unit takes over the coadd."""
    arrays = make_scene()
    getattr(arrays, name)[1] *= factor
    with caplog.at_level(logging.WARNING):
        result = restore_on_cpu(arrays, QUICK)
    assert not result.weights[1].any()
    assert result.dropped[1].startswith("no_usable_pixels: ")
    assert len(result.dropped) == 1
    assert f"{SHAPE[0] * SHAPE[1]} pixels are not used" in caplog.text
    # The order of random numbers is another one.
    assert np.abs(result.linear_image - others.linear_image).max() < 0.5 * min(SIGMAS)


@pytest.mark.parametrize("exponent", [-48, 48])
def test_unit_may_be_extreme(whole: RestorationResult, exponent: int) -> None:
    """If it fails, fluxes in W/m^2 give no coadd, or an empty one."""
    unit = 2.0**exponent
    arrays = make_scene()
    result = restore_on_cpu(
        arrays._replace(images=arrays.images * unit, variances=arrays.variances * unit**2), QUICK
    )
    assert not result.mask.any()
    for name, power in (
        ("image", 1),
        ("linear_image", 1),
        ("coadd", 1),
        ("noise_realizations", 1),
        ("linear_noise_realizations", 1),
        ("background", 1),
        ("background_sigma", 1),
        ("sky_level", 1),
        ("faintest_flux", 1),
        ("variance", 2),
        ("linear_variance", 2),
        ("weights", -2),
        ("chi_square", 0),
        ("residual", 0),
    ):
        expected = np.asarray(getattr(whole, name), dtype=float) * unit**power
        np.testing.assert_array_equal(np.asarray(getattr(result, name), dtype=float), expected, err_msg=name)


def test_given_noise_may_have_an_extreme_unit() -> None:
    """If it fails, noise that is given is taken in another unit."""
    rng = np.random.default_rng(4)
    arrays, unit = make_scene(), 2.0**40
    noise = rng.normal(size=(2, *arrays.images.shape)) * np.sqrt(arrays.variances)
    plain = restore_on_cpu(arrays, QUICK, noise=noise)
    scaled = restore_on_cpu(
        arrays._replace(images=arrays.images * unit, variances=arrays.variances * unit**2),
        QUICK,
        noise=noise * unit,
    )
    np.testing.assert_array_equal(scaled.noise_realizations / unit, plain.noise_realizations)


def test_exposure_without_a_usable_pixel_is_named() -> None:
    """If it fails, an exposure is left out in silence."""
    arrays = make_scene()
    arrays.good[2] = False
    arrays.images[0] = np.nan
    result = restore_on_cpu(arrays, QUICK)
    assert set(result.dropped) == {0, 2}
    assert np.isfinite(result.image).all()


def scattered(value: float) -> np.ndarray:
    """Return PSFs one of which has scattered negative pixels."""
    psfs = np.array(make_scene().psfs)
    psfs[1, ::2, ::2] = value
    return psfs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"psfs": scattered(-0.004)}, "PSF of exposure 1 has too much light in negative pixels"),
        ({"psfs": make_scene().psfs - make_scene().psfs.mean()}, "PSF of exposure 0"),
        ({"psfs": np.full((4, 25, 25), 1e308)}, "PSF of exposure 0"),
        ({"good": np.ma.masked_array(make_scene().good)}, "good is a masked array"),
        ({"images": [[[1.0, 2.0], [3.0]]]}, "images of type list cannot be read as numbers"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    """If it fails, they fail later in obscure words, or do not fail."""
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(InputError, match=message):
        restore_on_cpu(make_scene()._replace(**changes), QUICK)


def test_target_may_be_wider_than_all_psfs() -> None:
    """If it fails, frequencies that such a target does not have make the
    estimate NaN, or take over.
    """
    target_fwhm = 7.0
    result = restore_on_cpu(make_scene(), QUICK, target_fwhm=target_fwhm)
    peak = STARS[0][2] / (1.133 * target_fwhm**2)
    for image in (result.image, result.linear_image):
        assert image.max() == pytest.approx(peak, rel=0.1)
        assert image.min() > -0.1 * peak
    # Single precision ends close to the tolerance.
    assert result.solves["linear_estimate"].max_residual < 2.0


def test_target_much_wider_than_all_psfs_is_refused() -> None:
    """If it fails, fluxes of the linear image are wrong without a word."""
    with pytest.raises(InputError, match="times the FWHM of the sharpest exposure"):
        restore_on_cpu(TINY, QUICK, target_fwhm=9.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_much_too_wide_target_is_refused_at_once(seed: int) -> None:
    """If it fails, estimates that grow without bound end in an obscure error
    of linear algebra.
    """
    shape = (16, 19)
    arrays = make_exposure_arrays(shape, FWHMS[:3], seed=seed)._replace(psfs=np.ones((3, 1, 1)))
    corner = np.random.default_rng(seed).uniform(-5.0, 5.0, (2, 3, 1, 1))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    positions = PixelPositions.from_arrays(
        (21, 24), rows + corner[0], columns + corner[1], np.ones((3, *shape))
    )
    with pytest.raises(InputError, match="times the FWHM of the sharpest exposure, 0.66"):
        restore_on_cpu(arrays, QUICK, target_fwhm=2.5, positions=positions)


def test_target_too_wide_is_refused() -> None:
    """If it fails, a target in another unit takes all memory."""
    with pytest.raises(InputError, match="at most 100"):
        restore_on_cpu(make_scene(), QUICK, target_fwhm=1e6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": 1e-6}, "differs from one by more than a factor"),
        ({"area": 1e6}, "differs from one by more than a factor"),
        ({"area": 0.0}, "no positive area"),
        ({"y": np.ma.masked_array(np.zeros((1, 4, 5)))}, "y is a masked array"),
        ({"x": np.full((1, 4, 5), 1j)}, "x must be real numbers"),
        ({"x": [[[1.0], [2.0, 3.0]]]}, "x cannot be read as an array"),
    ],
)
def test_senseless_positions_are_refused(changes: dict[str, Any], message: str) -> None:
    """If it fails, pixels are put anywhere, with any weight."""
    grid = np.broadcast_to(np.arange(5.0), (1, 4, 5))
    good: dict[str, Any] = {"y": grid, "x": grid, "area": np.ones((1, 4, 5))}
    changed = {name: np.full((1, 4, 5), v) if isinstance(v, float) else v for name, v in changes.items()}
    with pytest.raises(InputError, match=message):
        PixelPositions.from_arrays((9, 9), **{**good, **changed})


def test_pixels_that_cover_nothing() -> None:
    """If it fails, four tiny pixels end in an error of linear algebra."""
    corner = np.array([[[4.0, 4.0], [4.3, 4.3]]])
    positions = PixelPositions.from_arrays(
        (9, 13), y=corner, x=corner.transpose(0, 2, 1), area=np.full((1, 2, 2), 0.09)
    )
    ones = np.ones((1, 2, 2))
    with pytest.raises(NoUsableDataError, match="No pixel of the patch is covered"):
        restore(
            *(ones, ones, ones > 0, gaussian_kernel(3.0, 9)[None]),
            target_fwhm=TARGET,
            positions=positions,
            options=QUICK,
            device="cpu",
        )


class VanishingDevice(TorchDispatchMode):
    """A device that fails after some operations.

    Parameters
    ----------
    lifetime
        Number of operations before that.
    error
        What is raised then.
    """

    def __init__(self, lifetime: float, error: Exception | None = None) -> None:
        super().__init__()
        self.number, self._lifetime, self._error = 0, lifetime, error

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        if self._error is not None and self.number > self._lifetime:
            raise self._error
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def num_operations() -> int:
    """Number of operations of a small restoration."""
    with VanishingDevice(np.inf) as device:
        restore_on_cpu(TINY, QUICK)
    assert device.number > 1000
    return device.number


@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
def test_device_that_vanishes_is_no_result(kind: type[Exception], num_operations: int) -> None:
    """If it fails, a lost GPU passes for bad data, which nobody tries again,
    or for a result.
    """
    for share in (0.02, 0.5, 0.98):
        error = kind("CUDA error: unspecified launch failure")
        with (
            pytest.raises(kind, match="CUDA error") as caught,
            VanishingDevice(share * num_operations, error),
        ):
            restore_on_cpu(TINY, QUICK)
        assert not isinstance(caught.value, RestorationError)


def restore_tiny_exposures(number: int) -> dict[str, float]:
    """Restore a star from exposures of 12x12 pixels all over a patch.

    Returns
    -------
    figures : `dict`
        ``flux`` of the star, and its standard deviation ``sigma`` if a tenth
        of the exposures had it; ``num_unknown``, pixels without data;
        ``num_dropped``, exposures; and ``growth`` of the peak memory in
        bytes.
    """
    shape, size, fwhm, noise, flux = (30, 34), 12, 3.5, 10.0, 400.0
    rng = np.random.default_rng(0)
    corners = (rng.uniform(-4.0, side - 8.0, (number, 1, 1)) for side in shape)
    grid = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    y, x = (corner + side for corner, side in zip(corners, grid, strict=True))
    psf = gaussian_kernel(fwhm, 13)
    before = peak_memory()
    result = restore(
        flux * gaussian_at(y, x, fwhm) + rng.normal(0.0, noise, y.shape),
        np.full(y.shape, noise**2),
        np.ones(y.shape, dtype=bool),
        np.broadcast_to(psf, (number, *psf.shape)),
        target_fwhm=TARGET,
        positions=PixelPositions.from_arrays(shape, y, x, np.ones(y.shape)),
        options=dataclasses.replace(QUICK, calibration=CalibrationOptions(background="constant")),
        device="cpu",
    )
    after = peak_memory()
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    star = gaussian_at(rows, columns, TARGET)
    return {
        "flux": float((result.linear_image * star).sum() / (star**2).sum()) / flux,
        "sigma": noise / float(np.sqrt(0.1 * number * (psf**2).sum())) / flux,
        "num_unknown": float((result.mask & MaskBit.NO_DATA).sum()),
        "num_dropped": float(len(result.dropped)),
        "growth": after - before,
    }


def peak_memory() -> float:
    """Return the largest memory of this process so far in bytes."""
    # A new process inherits the peak that `resource` tells.
    status = Path("/proc/self/status")
    if not status.exists():
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
    return 1024.0 * float(peak)


def gaussian_at(y: np.ndarray, x: np.ndarray, fwhm: float) -> np.ndarray:
    """Return the light of a star of flux 1 at given positions."""
    variance = fwhm_to_sigma(fwhm) ** 2
    radius = (y - 14.3) ** 2 + (x - 18.2) ** 2
    return np.asarray(np.exp(-0.5 * radius / variance) / (2.0 * np.pi * variance))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_tiny_exposures() -> None:
    """If it fails, light is lost in large numbers of exposures, or images go
    with the square of their number.
    """
    # In a process of its own, whose memory is that of nothing else.
    command = [sys.executable, __file__, "1000"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads(output)
    assert figures["num_unknown"] == figures["num_dropped"] == 0
    assert figures["flux"] == pytest.approx(1.0, abs=5.0 * figures["sigma"])
    # 1.2e9 were measured: matrices of the errors of all PSFs are 1.3e8 each,
    # and an image for each pair of exposures would be 1e10.
    assert figures["growth"] < 1.45e9


if __name__ == "__main__":
    sys.stdout.write(json.dumps(restore_tiny_exposures(int(sys.argv[1]))))
