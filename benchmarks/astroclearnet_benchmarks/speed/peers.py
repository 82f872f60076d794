# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Time and error beside those of other iterative methods."""

from __future__ import annotations

__all__ = ("measure_peers",)

import time

import numpy as np

from lsst.astroclearnet.core import restore

from ..baselines import ImageMM, Restorer, RichardsonLucy
from ..record import Table, format_value
from ..scenes import Scene, SceneOptions, simulate_scene

_TARGET = 3.0
_BORDER = 16

_ERROR = 0.51
"""Error that ImageMM reaches early, in sky sigma."""


def measure_peers(number: int, *, quick: bool) -> Table:
    """Compare with the time that others take to their best error.

    Parameters
    ----------
    number
        Number of exposures.
    quick
        Whether a tiny scene will do.
    """
    size = 64 if quick else 256
    stops = (5, 10, 20) if quick else (10, 20, 40, 60, 100, 150, 200, 300, 400, 600)
    scene = simulate_scene(SceneOptions(seed=31, kind="field", shape=(size, size), num_exposures=number))
    arrays = scene.images, scene.variances, scene.good, scene.psfs
    # What a first run loads is not counted, for all methods.
    small = (array[:, :48, :48] for array in arrays[:3])
    restore(*small, psfs=scene.psfs, target_fwhm=_TARGET, device="cpu", seed=1)  # type: ignore[misc]
    start = time.process_time()
    result = restore(*arrays, target_fwhm=_TARGET, device="cpu", seed=1)
    ours = time.process_time() - start
    rows = [
        _row(name, ours, ours, _error(image, scene, _TARGET), np.nan, "")
        for name, image in (("restored_coadd", result.image), ("restored_coadd_linear", result.linear_image))
    ]
    for peer in (ImageMM, RichardsonLucy):
        _run(peer(stops=stops[:1]), scene, ours)
        rows.append(_run(peer(stops=stops), scene, ours))
    legend = (
        f"A field of {number} exposures of {size}x{size} pixels. The error is the rms against the sky at the "
        "PSF of the image, in sky sigma of the coadd. Iterative methods are stopped where their error is "
        f"smallest, which takes the truth; the time is that until then, and until {_ERROR} sigma. Ours has "
        "no such choice; both images, their variances and the realisations of the noise are of the same time."
    )
    return Table(f"Others, {number} exposures", legend, rows)


def _run(peer: Restorer, scene: Scene, ours: float) -> dict[str, str]:
    best, at, seconds, early = np.inf, 0, 0.0, np.nan
    arrays = scene.images, scene.variances, scene.good, scene.psfs
    elapsed, start = 0.0, time.process_time()
    for stop in peer.restore(*arrays, target_fwhm=_TARGET, seed=1):
        elapsed += time.process_time() - start
        error = _error(stop.image, scene, stop.fwhm)
        if error <= _ERROR and np.isnan(early):
            early = elapsed
        if error < best:
            best, at, seconds = error, stop.iteration or 0, elapsed
        # The comparison with the truth is not the method's time.
        start = time.process_time()
    return _row(peer.name, seconds, ours, best, early, str(at))


def _row(name: str, seconds: float, ours: float, error: float, early: float, at: str) -> dict[str, str]:
    return {
        "method": name,
        "time (s)": f"{seconds:.1f}",
        "over ours": f"{seconds / ours:.2f}",
        "error (sky sigma)": f"{error:.2f}",
        f"time to {_ERROR} (s)": "-" if np.isnan(early) else format_value(early),
        "iteration": at,
    }


def _error(image: np.ndarray, scene: Scene, fwhm: float) -> float:
    inside = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
    difference = (image - scene.truth(fwhm))[inside] / scene.sky_sigma
    return float(np.sqrt(np.nanmean(difference**2)))
