# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether declared errors and chi-square know the errors of PSFs."""

from __future__ import annotations

__all__ = ("measure_declared",)

from collections.abc import Iterator
from unittest import mock

import numpy as np
import numpy.typing as npt
from scipy.ndimage import shift

from lsst.astroclearnet.core import StackResult, restore
from lsst.astroclearnet.core.outliers import PsfErrors

from ..quality.psf_error import dilate
from ..record import Table
from ..scenes import Scene, SceneOptions, simulate_scene

type Array = npt.NDArray[np.float64]

_TARGET = 3.0
_ERRORS = {"exact": (0.0, 0.0), "1 %, .02 pixels": (0.01, 0.02)}
"""Standard deviations of widths, and of positions along an axis."""

_BINS = {"sky": (-np.inf, 2.0), "2-30": (2.0, 30.0), "30-300": (30.0, 300.0), "> 300": (300.0, np.inf)}
"""Truth over the sky noise of the coadd, of pixels."""

_LEGEND = (
    "Isolated stars of scenes that are otherwise as in quality.md, 12 exposures, PSFs given exactly or with "
    "independent random errors of their widths and positions.  Pulls: rms error over declared error of "
    "pixels of clean stars by their truth over the sky noise of the coadd, rms over scenes.  Noise alone: "
    "without the estimate of errors of PSFs.  The last columns have the mean reduced chi-square of the "
    "exposures, its lowest and its highest."
)


def measure_declared(seeds: range, *, quick: bool = False) -> Table:
    """Measure pulls of stars with exact and with wrong PSFs.

    Parameters
    ----------
    seeds
        Seeds of the scenes.
    quick
        Whether to take tiny scenes.
    """
    shape = (100, 100) if quick else (256, 256)
    rows: dict[tuple[str, str, str], list[list[float]]] = {}
    chi_squares: dict[tuple[str, str], list[Array]] = {}
    for seed in seeds:
        scene = simulate_scene(SceneOptions(seed=seed, kind="stars", shape=shape))
        for psfs, (width, position) in _ERRORS.items():
            given = _wrong_psfs(scene, width, position, seed)
            for declared, result in _restore(scene, given):
                chi_squares.setdefault((psfs, declared), []).append(result.chi_square)
                for image, values, variance in (
                    ("restored", result.image, result.variance),
                    ("linear", result.linear_image, result.linear_variance),
                ):
                    rows.setdefault((psfs, declared, image), []).append(_pulls(scene, values, variance))
    table = []
    for (psfs, declared, image), squares in rows.items():
        pulls = np.sqrt(np.nanmean(squares, axis=0))
        chi = np.concatenate(chi_squares[psfs, declared])
        table.append(
            {"PSFs": psfs, "declared": declared, "image": image}
            | {name: f"{pull:.2f}" for name, pull in zip(_BINS, pulls, strict=True)}
            | {"chi-square": f"{chi.mean():.2f}", "range": f"{chi.min():.2f} to {chi.max():.2f}"}
        )
    return Table(f"Declared errors, {len(seeds)} scenes", _LEGEND, table)


def _wrong_psfs(scene: Scene, width: float, position: float, seed: int) -> Array:
    """Return PSFs with random errors."""
    rng = np.random.default_rng((seed, 15))
    given = []
    for psf in scene.psfs.astype(float):
        wider = dilate(psf, 1.0 + rng.normal(0.0, width))
        moved = shift(wider, rng.normal(0.0, position, 2), order=5)
        given.append(moved / moved.sum())
    return np.stack(given)


def _restore(scene: Scene, psfs: Array) -> Iterator[tuple[str, StackResult]]:
    """Restore as it is done, and without the errors of PSFs."""
    data = scene.images, scene.variances, scene.good, psfs
    yield "with PSF errors", restore(*data, target_fwhm=_TARGET)
    with mock.patch.object(PsfErrors, "solve", lambda fits, number, *_: PsfErrors.unknown(number)):
        yield "noise alone", restore(*data, target_fwhm=_TARGET)


def _pulls(scene: Scene, image: npt.NDArray[np.float32], variance: npt.NDArray[np.float32]) -> list[float]:
    """Return mean squares of pulls in bins of brightness."""
    truth = scene.truth(_TARGET)
    squares = (image - truth) ** 2 / variance
    brightness = truth / scene.sky_sigma
    found = []
    for low, high in _BINS.values():
        use = scene.clean & (brightness >= low) & (brightness < high) & np.isfinite(squares)
        found.append(float(squares[use].mean()) if use.any() else np.nan)
    return found
