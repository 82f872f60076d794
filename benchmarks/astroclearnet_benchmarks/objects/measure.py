# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes of isolated and of blended stars, and what catalogues say of them."""

from __future__ import annotations

__all__ = ("METHODS", "SEPARATIONS", "THRESHOLDS", "measure_scene")

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from lsst.astroclearnet.core import gaussian_kernel, restore
from lsst.astroclearnet.measurement import BandImages, measure_objects
from lsst.astroclearnet.simulation import PIXEL_SCALE, ArtefactOptions

from ..baselines import coadd_psf, inverse_variance_coadd
from ..scenes import Scene, SceneOptions, SceneSource, inject, simulate_scene

type Array = npt.NDArray[np.float64]

METHODS = ("restored", "direct", "direct, not filtered")
"""Images that sources are detected on."""

THRESHOLDS = (3.0, 5.0, 8.0)
"""Thresholds of detection."""

SEPARATIONS = (0.4, 1.5)
"""Smallest and largest separation of blended stars in arcsec."""

_SHAPE = (224, 224)
_TARGET = 3.0
_SPACING, _BORDER, _JITTER = 34.0, 14.0, 1.0
_RATIOS = (30.0, 200.0)
"""Signal-to-noise ratios of the brighter of two stars."""

_MAX_FLUX_RATIO = 5.0
_MATCH_RADIUS = 2.0
"""Distance in pixels of a detection from the star that it is."""

_RESTORED_STAMP = 17
_STAMP = 31
"""Side in pixels of the PSF of the direct coadd: less than half a percent of
the light is outside."""

_NO_ARTEFACTS = ArtefactOptions(cosmic_rays=0.0, bad_columns=0, satellite_trails=False)
"""A direct coadd rejects nothing."""


def measure_scene(kind: str, seed: int) -> dict[str, Any]:
    """Simulate a scene, restore it and make catalogues.

    Parameters
    ----------
    kind
        ``stars``, isolated, or ``blends`` of two.
    seed
        Seed of the scene.

    Returns
    -------
    record : `dict`
        ``stars``: rows of flux, Cramer-Rao bound of the flux (nJy), whether
        it is the brighter of two, and their separation (arcsec; NaN for
        isolated ones).  By method and threshold, ``number`` of detections and
        ``found``: flux and error of each star, NaN if it is not found.
    """
    options = SceneOptions(
        seed=seed,
        kind="stars" if kind == "stars" else "blank",
        shape=_SHAPE,
        hole_size=0,
        artefacts=_NO_ARTEFACTS,
    )
    scene = simulate_scene(options)
    if kind == "stars":
        clean = scene.catalogue[~np.asarray(scene.catalogue["is_saturated"])]
        stars = Table({name: clean[name] for name in ("x", "y", "flux", "signal_to_noise")})
        stars["is_brighter"], stars["separation"] = True, math.nan
    else:
        scene, stars = _add_pairs(scene, seed)
    stars.sort("flux", reverse=True)
    images = _make_images(scene)
    record: dict[str, Any] = {
        "stars": [
            [
                float(s["flux"]),
                float(s["flux"] / s["signal_to_noise"]),
                bool(s["is_brighter"]),
                float(s["separation"]),
            ]
            for s in stars
        ]
    }
    for method in METHODS:
        record[method] = {
            f"{threshold:g}": _measure(images[method], stars, threshold) for threshold in THRESHOLDS
        }
    return record


def _add_pairs(scene: Scene, seed: int) -> tuple[Scene, Table]:
    """Add close pairs of stars to a blank sky."""
    rng = np.random.default_rng([seed, 7])
    sources, rows = [], []
    for y, x in (
        np.stack(
            np.meshgrid(
                *(np.arange(_BORDER, length - _BORDER, _SPACING) for length in _SHAPE), indexing="ij"
            ),
            axis=-1,
        ).reshape(-1, 2)
        + 0.0
    ):
        ratio = math.exp(rng.uniform(*np.log(_RATIOS)))
        fainter = ratio / math.exp(rng.uniform(0.0, math.log(_MAX_FLUX_RATIO)))
        separation, angle = rng.uniform(*SEPARATIONS), rng.uniform(0.0, 2.0 * math.pi)
        dx, dy = rng.uniform(-_JITTER, _JITTER, 2)
        for sign, each in ((-0.5, ratio), (0.5, fainter)):
            length = sign * separation / PIXEL_SCALE
            place = (x + dx + length * math.cos(angle), y + dy + length * math.sin(angle))
            sources.append(SceneSource("star", *place, signal_to_noise=each))
            rows.append((*place, each, sign < 0.0, separation))
    scene, injected = inject(scene, sources, seed)
    stars = Table(rows=rows, names=("x", "y", "signal_to_noise", "is_brighter", "separation"))
    stars["flux"] = [source.flux for source in injected]
    return scene, stars


def _make_images(scene: Scene) -> Mapping[str, BandImages]:
    """Restore and add up the exposures of a scene."""
    result = restore(
        scene.images, scene.variances, scene.good, scene.psfs, target_fwhm=_TARGET, seed=scene.options.seed
    )
    layout = result.linear_noise.layout
    restored = BandImages(
        detection=result.image,
        detection_variance=result.variance,
        image=result.linear_image,
        variance=result.linear_variance,
        psf=gaussian_kernel(_TARGET, _RESTORED_STAMP),
        correlation=result.linear_noise.stamps,
        cell_shape=layout.cell_shape,
    )
    coadd = inverse_variance_coadd(scene.images, scene.variances, scene.good)
    whole = coadd_psf(scene.psfs, coadd.weights).astype(float)
    margin = (whole.shape[0] - _STAMP) // 2
    psf = whole[margin:-margin, margin:-margin]
    # The noise of the sky alone is independent of the noise of the pixels.
    variance = np.full(coadd.image.shape, float(np.median(coadd.variance)))
    white = np.zeros((1, 1, 3, 3))
    white[..., 1, 1] = 1.0
    image = coadd.image.astype(float)
    filtered = fftconvolve(image, psf[::-1, ::-1], mode="same")
    planes = {
        "direct": (filtered, variance * np.sum(psf**2)),
        "direct, not filtered": (image, variance),
    }
    direct = {
        name: BandImages(*detection, image, coadd.variance, psf, white, _SHAPE)
        for name, detection in planes.items()
    }
    return {"restored": restored, **direct}


def _measure(images: BandImages, stars: Table, threshold: float) -> dict[str, Any]:
    """Make a catalogue, and find the stars in it."""
    objects = measure_objects({"i": images}, threshold=threshold, radii=())
    flux, error = (np.asarray(objects[f"i_acn_{name}"], dtype=float) for name in ("psfFlux", "psfFluxErr"))
    found: list[list[float]] = [[math.nan, math.nan] for _ in stars]
    places = np.column_stack([objects["acn_x"], objects["acn_y"]])
    distance = np.full((len(stars), len(objects)), np.inf)
    if len(objects):
        tree = cKDTree(places)
        for row, star in zip(distance, stars, strict=True):
            near = tree.query_ball_point([star["x"], star["y"]], _MATCH_RADIUS)
            row[near] = np.hypot(*(places[near] - [star["x"], star["y"]]).T)
    # The brightest star takes its nearest detection first.
    for index, row in enumerate(distance):
        if np.isfinite(row).any():
            best = int(np.argmin(row))
            found[index] = [float(flux[best]), float(error[best])]
            distance[:, best] = np.inf
    return {"number": len(objects), "found": found}
