# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bright sources with a close companion, and some without."""

from __future__ import annotations

__all__ = ("BLEND_KINDS", "BlendField", "simulate_blends")

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from astropy.table import Table

from lsst.astroclearnet.simulation import PIXEL_SCALE, ArtefactOptions

from ._exposures import SceneConditions, add_stamps, draw_conditions, draw_source, expose_source
from ._galaxies import draw_galaxy, flux_of
from ._recording import record
from ._sources import SceneSource
from ._structure import structured_galaxy

type Array = npt.NDArray[np.float64]

BLEND_KINDS = ("two stars", "star beside galaxy", "two galaxies", "structured galaxy", "alone")
"""Kinds of blends, in turn; the last one has no companion."""

_SPACING, _PER_SIDE = 40.0, 5
"""Distance in pixels of neighbouring blends, and their number along a side."""

_JITTER = 1.0
_SEPARATIONS = (0.3, 2.0)
"""Of the two sources, in arcsec."""

_RATIOS = (1.0, 10.0)
_MAGNITUDES = (20.0, 23.5)
_HOST_MAGNITUDES = (19.5, 22.5)
_EXTENT = 14.0
"""Radius in pixels at which galaxies end at the latest."""

_STAMP_SIZE = 41


@dataclasses.dataclass(frozen=True)
class BlendField:
    """Co-registered exposures of blends, without defects.

    Attributes
    ----------
    images, variances
        Exposures and their variance planes, shape (n, H, W), float32, in nJy
        and nJy^2.
    psfs
        PSFs with unit sum, shape (n, P, P), float32.
    catalogue
        One row per source: ``x``, ``y`` (pixels), ``flux`` (nJy), ``blend``
        (number), ``kind`` (one of `BLEND_KINDS`) and ``separation`` (arcsec;
        NaN for a source without companion).  The brighter source of a blend
        is first.
    """

    images: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]
    psfs: npt.NDArray[np.float32]
    catalogue: Table


def simulate_blends(
    seed: int, num_exposures: int = 8, seeing_arcsec: tuple[float, float] = (0.6, 1.0)
) -> BlendField:
    """Simulate 25 bright sources, of which 20 have a companion.

    Parameters
    ----------
    seed
        Seed of everything random.
    num_exposures
        Number of exposures of 200 s in i.
    seeing_arcsec
        Smallest and largest FWHM of the PSFs, pixel included.

    Returns
    -------
    field : `BlendField`
        The exposures and the truth.

    Notes
    -----
    Separations are uniform, ratios of fluxes log-uniform.  Half of the
    companions of galaxies with structure are stars.
    """
    rng = np.random.default_rng([seed, len(BLEND_KINDS)])
    size = int(_PER_SIDE * _SPACING)
    conditions = [draw_conditions(seeing_arcsec, _STAMP_SIZE, rng) for _ in range(num_exposures)]
    sources: list[SceneSource] = []
    kinds: list[str] = []
    turn = int(rng.integers(len(BLEND_KINDS)))
    for blend, (row, column) in enumerate(np.ndindex(_PER_SIDE, _PER_SIDE)):
        y, x = (np.array([row, column]) + 0.5) * _SPACING - 0.5 + rng.uniform(-_JITTER, _JITTER, 2)
        kind = BLEND_KINDS[(turn + blend) % len(BLEND_KINDS)]
        drawn = _draw_blend(kind, blend, float(x), float(y), rng)
        sources += drawn
        kinds += [kind] * len(drawn)
    flux = np.array([source.flux for source in sources])
    images, variances = [], []
    options = dataclasses.replace(ArtefactOptions.none(), noise=True)
    for c in conditions:
        stamps = [expose_source(source, c, _STAMP_SIZE // 2) for source in sources]
        light = add_stamps((size, size), stamps, flux)
        exposure = record(light, c, np.zeros(light.shape, dtype=bool), options, rng, has_trail=False)
        images.append(exposure.image)
        variances.append(exposure.variance)
    catalogue = Table(
        {
            "x": [source.x for source in sources],
            "y": [source.y for source in sources],
            "flux": flux,
            "blend": [source.pair for source in sources],
            "kind": kinds,
            "separation": [source.separation * PIXEL_SCALE for source in sources],
        }
    )
    return BlendField(
        images=np.stack(images).astype(np.float32),
        variances=np.stack(variances).astype(np.float32),
        psfs=_draw_psfs(conditions),
        catalogue=catalogue,
    )


def _draw_blend(kind: str, blend: int, x: float, y: float, rng: np.random.Generator) -> list[SceneSource]:
    """Draw the sources of a blend, the brighter one first."""
    is_host = kind == "structured galaxy" or (kind == "alone" and rng.random() < 0.5)
    magnitude = float(rng.uniform(*(_HOST_MAGNITUDES if is_host else _MAGNITUDES)))
    fainter = magnitude + 2.5 * math.log10(math.exp(rng.uniform(*np.log(_RATIOS))))
    separation, angle = float(rng.uniform(*_SEPARATIONS)) / PIXEL_SCALE, rng.uniform(0.0, 2.0 * math.pi)
    offset = separation * math.cos(angle), separation * math.sin(angle)
    if kind == "alone":
        shape = "structured" if is_host else str(rng.choice(["star", "galaxy"]))
        return [_draw_source(shape, magnitude, x, y, blend, math.nan, rng)]
    shapes = {
        "two stars": ["star", "star"],
        "star beside galaxy": list(rng.permutation(["star", "galaxy"])),
        "two galaxies": ["galaxy", "galaxy"],
        "structured galaxy": ["structured", str(rng.choice(["star", "galaxy"]))],
    }[kind]
    return [
        _draw_source(shapes[0], magnitude, x, y, blend, separation, rng),
        _draw_source(shapes[1], fainter, x + offset[0], y + offset[1], blend, separation, rng),
    ]


def _draw_source(
    shape: str, magnitude: float, x: float, y: float, blend: int, separation: float, rng: np.random.Generator
) -> SceneSource:
    """Draw a star, a smooth galaxy or one with structure."""
    point = SceneSource("star", x, y, flux=flux_of(magnitude), pair=blend, separation=separation)
    if shape == "star":
        return point
    profile, extent, radius = structured_galaxy(rng) if shape == "structured" else draw_galaxy(rng, magnitude)
    return dataclasses.replace(
        point, kind="galaxy", profile=profile, extent=min(extent, _EXTENT), half_light_radius=radius
    )


def _draw_psfs(conditions: list[SceneConditions]) -> npt.NDArray[np.float32]:
    """Return the PSFs of exposures, of unit sum."""
    point = SceneSource("star", 0.0, 0.0)
    psfs = np.stack([draw_source(point, c.psf, _STAMP_SIZE // 2).array for c in conditions])
    return np.asarray((psfs / psfs.sum(axis=(1, 2), keepdims=True)).astype(np.float32))
