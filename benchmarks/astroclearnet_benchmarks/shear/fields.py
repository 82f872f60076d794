# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fields of galaxies at opposite shears, restored."""

from __future__ import annotations

__all__ = (
    "FLUXES",
    "IMAGES",
    "NUM_EXPOSURES",
    "SHEAR",
    "SPACING",
    "TARGET_FWHM",
    "TRUTH",
    "RestoredField",
    "restore_field",
    "window",
)

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import galsim
import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core import RestoreOptions, restore
from lsst.astroclearnet.simulation import ArtefactOptions

from ..scenes import Scene, SceneOptions, SceneSource, draw_sources, inject, simulate_scene

IMAGES = ("linear_image", "image")

TRUTH = "truth"

SHEAR = 0.02

NUM_EXPOSURES = 8

TARGET_FWHM = 3.2

FLUXES = {"bright": (4000.0, 16000.0), "faint": (1000.0, 4000.0)}
"""Fluxes of galaxies in nJy: of magnitudes 20.9 to 22.4, and 22.4 to 23.9."""

SPACING = 40
"""Distance of galaxies in pixels.  What is left of the light of a neighbour is
in the truth too."""

_RADII, _SERSIC = (2.0, 4.0), (1.0, 1.5, 2.0)
"""Half-light radii in pixels, and Sersic indices."""

_ELLIPTICITY, _MAX_ELLIPTICITY = 0.2, 0.4
"""Standard deviation and limit of each component of the reduced shear that
makes an unsheared galaxy of a round one."""

_HALF = 16
"""Half-size in pixels of windows."""


class RestoredField(NamedTuple):
    """A field of galaxies at either shear and in two orientations.

    The shears are + and -; the orientations are as drawn, and turned by 90
    degrees before the shear, with the noise negated.
    """

    component: int
    """The component of the shear, 0 or 1."""

    galaxies: list[SceneSource]
    """Galaxies before they are turned and sheared."""

    images: dict[str, npt.NDArray[np.float64]]
    """The truth at the target PSF and the restored images, shape
    (2, 2, H, W): shear, orientation and pixels."""

    noise: dict[str, npt.NDArray[np.float64]]
    """A noise realisation of each of the restored images, negated too for
    turned galaxies, of the same shape."""

    signal_to_noise: npt.NDArray[np.float64]
    """Of each galaxy in all exposures, for the noise of the sky, shape
    (n,)."""


def restore_field(
    seed: int, size: int, component: int, fluxes: tuple[float, float], options: RestoreOptions | None = None
) -> RestoredField:
    """Restore a field of galaxies at opposite shears.

    The field is exposed four times: at either shear, with the galaxies as
    they are and turned by 90 degrees.  Noise is the same at either shear and
    has the opposite sign for turned galaxies, so that it cancels in the
    differences of moments, and in their sums over orientations, as far as the
    image is linear.  Variances are the true ones of the sky: planes made of
    noisy pixels would be those of one sign of the noise.

    Parameters
    ----------
    seed
        Seed of galaxies, conditions and noise.
    size
        Side of the field in pixels.
    component
        The component of the shear, 0 or 1.
    fluxes
        Smallest and largest flux of galaxies in nJy.
    options
        Options of the restoration.

    Returns
    -------
    field : `RestoredField`
        The field.
    """
    artefacts = ArtefactOptions(saturation=False, cosmic_rays=0.0, bad_columns=0, satellite_trails=False)
    blank = simulate_scene(
        SceneOptions(
            seed=seed,
            kind="blank",
            shape=(size, size),
            num_exposures=NUM_EXPOSURES,
            hole_size=0,
            artefacts=artefacts,
        )
    )
    galaxies = list(_draw_galaxies(size, fluxes, np.random.default_rng((seed, 90))))
    shape = (2, 2, size, size)
    images = {name: np.zeros(shape) for name in (TRUTH, *IMAGES)}
    realizations = {name: np.zeros(shape) for name in IMAGES}
    for k, sign in enumerate((1.0, -1.0)):
        shear = galsim.Shear(**{f"g{component + 1}": sign * SHEAR})
        for j, (angle, noise_sign) in enumerate(((0.0, 1.0), (90.0, -1.0))):
            sources = [_turn_and_shear(galaxy, angle, shear) for galaxy in galaxies]
            images[TRUTH][k, j] = draw_sources(sources, (size, size), TARGET_FWHM)
            result = restore(
                noise_sign * blank.images + _expose(blank, sources),
                blank.true_variances,
                blank.good,
                blank.psfs,
                target_fwhm=TARGET_FWHM,
                options=options,
                device="cpu",
            )
            for name, noise in zip(
                IMAGES, (result.linear_noise_realizations, result.noise_realizations), strict=True
            ):
                images[name][k, j] = getattr(result, name)
                realizations[name][k, j] = noise_sign * noise[0]
    return RestoredField(component, galaxies, images, realizations, _signal_to_noise(blank, galaxies))


def _draw_galaxies(size: int, fluxes: tuple[float, float], rng: np.random.Generator) -> Iterator[SceneSource]:
    """Draw galaxies on a grid, with centres anywhere in a pixel."""
    places = np.arange(SPACING, size - SPACING + 1, SPACING)
    for row in places:
        for column in places:
            radius = rng.uniform(*_RADII)
            profile = galsim.Sersic(n=rng.choice(_SERSIC), half_light_radius=radius, trunc=4.0 * radius)
            g1, g2 = np.clip(rng.normal(0.0, _ELLIPTICITY, 2), -_MAX_ELLIPTICITY, _MAX_ELLIPTICITY)
            yield SceneSource(
                kind="galaxy",
                x=column + rng.uniform(-0.5, 0.5),
                y=row + rng.uniform(-0.5, 0.5),
                flux=float(np.exp(rng.uniform(*np.log(fluxes)))),
                profile=profile.shear(g1=g1, g2=g2),
                # The widest shear stretches by 2.
                extent=8.0 * radius,
                half_light_radius=radius,
            )


def _turn_and_shear(source: SceneSource, angle: float, shear: galsim.Shear) -> SceneSource:
    """Turn a galaxy by an angle in degrees, then shear it."""
    assert source.profile is not None
    turned = source.profile.rotate(angle * galsim.degrees).shear(shear)
    return dataclasses.replace(source, profile=turned)


def _expose(blank: Scene, sources: list[SceneSource]) -> npt.NDArray[np.float32]:
    """Return the light of exposures, without its photon noise."""
    options = dataclasses.replace(blank.options, artefacts=ArtefactOptions.none())
    empty = dataclasses.replace(blank, options=options, images=np.zeros_like(blank.images))
    return inject(empty, sources, 0)[0].images


def _signal_to_noise(blank: Scene, sources: list[SceneSource]) -> npt.NDArray[np.float64]:
    """Return the ratio of each source in all exposures, from its window."""
    squares = (_expose(blank, sources) ** 2 * blank.good / blank.true_variances).sum(axis=0)
    return np.array([np.sqrt(squares[window(source)].sum()) for source in sources])


def window(source: SceneSource) -> tuple[slice, slice]:
    """Return the pixels around a source.

    Parameters
    ----------
    source
        The source.

    Returns
    -------
    rows, columns : `slice`
        The pixels in which it is measured.
    """
    row, column = round(source.y), round(source.x)
    return slice(row - _HALF, row + _HALF + 1), slice(column - _HALF, column + _HALF + 1)
