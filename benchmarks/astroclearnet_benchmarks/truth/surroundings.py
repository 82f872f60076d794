# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Detection of isolated sources, beside bright galaxies, and false ones."""

from __future__ import annotations

__all__ = ("DETECTION_CLASSES", "detection_figures", "measure_surroundings")

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, PIXEL_SCALE

from ..quality.detection import search
from ..quality.product import Product
from ..scenes import Scene
from .halos import bright_galaxies

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

DETECTION_CLASSES = ("isolated, i = 26", "isolated, i = 26.5", "companions")
"""Classes of sources."""

_NEAR = 2.0 / PIXEL_SCALE
_BLEND = 1.0 / PIXEL_SCALE
"""Distances in pixels: 2 and 1 arcsec."""

_NUM_RADII = 3.0
_STAR_MAGNITUDE = 21.0
_STAR_RADIUS = 30.0
_PURITY = 0.95


def measure_surroundings(product: Product, scene: Scene, *, compensated: bool = False) -> dict[str, Any]:
    """Count detections by what stands beside them.

    A source is isolated if none brighter is within 2 arcsec; one of i = 24 to
    26.5 is a companion if a galaxy brighter than magnitude 23 is within 2
    arcsec or any brighter source within 1.  A false detection belongs to a
    bright galaxy within 3 half-light radii and 2 arcsec, or else to a star
    brighter than magnitude 21 within 30 pixels, or to the sky; those on
    artefacts that are not flagged are left out.

    Parameters
    ----------
    product
        What a method made of the scene.
    scene
        The scene.
    compensated
        Whether to search with a filter that does not see the light of others,
        see `~astroclearnet_benchmarks.quality.detection.search`.

    Returns
    -------
    record : `dict`
        ``thresholds``: rows of threshold, number of detections that are not
        on artefacts, of true ones, of false ones on the sky, at galaxies and
        at stars, and of the sources found of each of `DETECTION_CLASSES`;
        ``sources``: how many there are of each; ``galaxies`` and ``stars``:
        number of bright ones.
    """
    galaxies, stars = _galaxy_surroundings(scene), _star_surroundings(scene)
    rows = []
    sources = [0] * len(DETECTION_CLASSES)
    for each in search(product, scene, compensated=compensated):
        classes = _classify(scene, each.sources)
        column, row = (
            np.rint(c[~each.on_artefact]).astype(int).clip(0, size - 1)
            for c, size in zip((each.false_x, each.false_y), scene.options.shape[::-1], strict=True)
        )
        at_galaxy = galaxies[row, column]
        at_star = stars[row, column] & ~at_galaxy
        rows.append(
            [
                each.threshold,
                each.number - int(np.count_nonzero(each.on_artefact)),
                each.num_true,
                *(int(np.count_nonzero(chosen)) for chosen in (~at_galaxy & ~at_star, at_galaxy, at_star)),
                *(int(np.count_nonzero(inside & each.is_found)) for inside in classes),
            ]
        )
        sources = [int(np.count_nonzero(inside)) for inside in classes]
    return {
        "thresholds": rows,
        "sources": sources,
        "galaxies": len(bright_galaxies(scene)),
        "stars": len(_bright_stars(scene)),
    }


def _classify(scene: Scene, indices: npt.NDArray[np.int64]) -> list[Mask]:
    """Tell for each of `DETECTION_CLASSES` which sources are in it."""
    catalogue = scene.catalogue[scene.catalogue["is_steady"] & (scene.catalogue["kind"] != "diffuse")]
    x, y, flux = (np.asarray(catalogue[name], dtype=float) for name in ("x", "y", "flux"))
    sources = scene.catalogue[indices]
    own = np.asarray(sources["flux"], dtype=float)[:, np.newaxis]
    distance = np.hypot(
        np.asarray(sources["x"])[:, np.newaxis] - x, np.asarray(sources["y"])[:, np.newaxis] - y
    )
    brighter = flux > own
    is_galaxy = (np.asarray(catalogue["kind"]) == "galaxy") & (_magnitude(flux) < 23.0)
    isolated = ~(brighter & (distance < _NEAR)).any(axis=1)
    near = (brighter & ((distance < _BLEND) | (is_galaxy & (distance < _NEAR)))).any(axis=1)
    magnitude = _magnitude(own[:, 0])
    bins = [isolated & (np.abs(magnitude - middle) < 0.25) for middle in (26.0, 26.5)]
    return [*bins, near & (magnitude > 24.0) & (magnitude < 26.5)]


def _magnitude(flux: Array) -> Array:
    return np.asarray(AB_ZERO_POINT_NJY - 2.5 * np.log10(flux))


def _bright_stars(scene: Scene) -> npt.NDArray[np.int64]:
    """Return the rows of bright stars on the image."""
    catalogue = scene.catalogue
    height, width = scene.options.shape
    chosen = (catalogue["kind"] == "star") & (
        _magnitude(np.asarray(catalogue["flux"], dtype=float)) < _STAR_MAGNITUDE
    )
    chosen &= (catalogue["x"] > 0) & (catalogue["x"] < width - 1)
    chosen &= (catalogue["y"] > 0) & (catalogue["y"] < height - 1)
    return np.flatnonzero(chosen)


def _galaxy_surroundings(scene: Scene) -> Mask:
    """Return the pixels that belong to bright galaxies."""
    chosen = bright_galaxies(scene)
    radii = _NUM_RADII * np.asarray(scene.catalogue["half_light_radius"])[chosen] + _NEAR
    return _discs(scene, chosen, radii)


def _star_surroundings(scene: Scene) -> Mask:
    """Return the pixels that belong to bright stars."""
    chosen = _bright_stars(scene)
    return _discs(scene, chosen, np.full(len(chosen), _STAR_RADIUS))


def _discs(scene: Scene, indices: Sequence[int] | npt.NDArray[np.int64], radii: npt.NDArray[Any]) -> Mask:
    rows, columns = np.indices(scene.options.shape)
    inside = np.zeros(scene.options.shape, dtype=bool)
    for index, radius in zip(indices, radii, strict=True):
        source = scene.catalogue[index]
        inside |= np.hypot(columns - float(source["x"]), rows - float(source["y"])) <= radius
    return inside


def detection_figures(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return completeness and false detections of all scenes together.

    Completeness is at the threshold of at least 95 percent purity that finds
    most sources.  False detections are counted where each method would search
    if there were neither galaxies nor stars: at the threshold that finds most
    with at most one false detection on the sky in 20.

    Parameters
    ----------
    records
        Records of `measure_surroundings`.

    Returns
    -------
    figures : `dict` [`str`, `float`]
        Completeness of each of `DETECTION_CLASSES`, 0 if no threshold is as
        pure; ``false per galaxy`` and ``false per star``.  NaN where there are
        no such objects.
    """
    tables = [np.array(record["thresholds"], dtype=float) for record in records]
    # A record ends where hardly anything is true, which is not of interest.
    depth = min(len(table) for table in tables)
    total = np.sum([table[:depth, 1:] for table in tables], axis=0)
    number, true, false_sky = total[:, 0], total[:, 1], total[:, 2]
    figures = dict.fromkeys([*DETECTION_CLASSES, "false per galaxy", "false per star"], math.nan)
    pure = np.flatnonzero((true > 0) & (true >= _PURITY * number))
    found = total[pure[np.argmax(true[pure])], 5:] if pure.size else np.zeros(len(DETECTION_CLASSES))
    counts = np.sum([record["sources"] for record in records], axis=0)
    for name, known, there in zip(DETECTION_CLASSES, found, counts, strict=True):
        figures[name] = float(known / there) if there else math.nan
    quiet = np.flatnonzero((true > 0) & (true >= _PURITY * (true + false_sky)))
    if quiet.size:
        best = quiet[np.argmax(true[quiet])]
        for name, column, objects in (("galaxy", 3, "galaxies"), ("star", 4, "stars")):
            there = sum(record[objects] for record in records)
            figures[f"false per {name}"] = float(total[best, column] / there) if there else math.nan
    return figures
