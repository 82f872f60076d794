# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Additions to a scene whose noise stays as it is: sources and exposures."""

from __future__ import annotations

__all__ = ("add_exposure", "draw_sources", "inject")

import dataclasses
import math
from collections.abc import Sequence

import galsim
import numpy as np
import numpy.typing as npt

from ._exposures import SceneConditions, add_stamps, draw_conditions, draw_source, expose_source, gaussian
from ._recording import record
from ._scene import Scene
from ._sources import SceneSource

type Array = npt.NDArray[np.float64]

_SOURCES, _EXPOSURE = 1, 2
"""Streams of random numbers."""


def inject(scene: Scene, sources: Sequence[SceneSource], seed: int) -> tuple[Scene, list[SceneSource]]:
    """Add sources to the exposures of a scene, at the noise that they have.

    The electrons of the sources are drawn on their own and added to those of
    the scene.  A sum of Poisson variates is one, so that the exposures are
    what a detector would have recorded, and differ from those without the
    sources by the light of the sources and its own photon noise alone.

    Parameters
    ----------
    scene
        The scene; nothing of what is true of it, as its catalogue, changes.
    sources
        The sources.  Where a signal-to-noise ratio is given, the flux is that
        of which it is the ratio to the Cramer-Rao bound, with all the light
        of the scene there and its masks.
    seed
        Seed of the photon noise.

    Returns
    -------
    scene : `Scene`
        The scene with new images and variances.
    sources : `list` [`SceneSource`]
        The sources with their fluxes.

    Raises
    ------
    ValueError
        If no exposure constrains a source.
    """
    rng = np.random.default_rng([seed, _SOURCES])
    shape, half = scene.options.shape, scene.options.stamp_size // 2
    stamps = [[expose_source(source, c, half) for c in scene.conditions] for source in sources]
    flux = np.array([_resolve_flux(s, drawn, scene) for s, drawn in zip(sources, stamps, strict=True)])
    images, variances = scene.images.copy(), scene.variances.copy()
    true_variances = scene.true_variances.copy()
    for t, c in enumerate(scene.conditions):
        expected = add_stamps(shape, [drawn[t] for drawn in stamps], flux).clip(0.0) * c.per_njy
        electrons = rng.poisson(expected) if scene.options.artefacts.noise else expected
        images[t] += (electrons / c.per_njy).astype(np.float32)
        variances[t] += (electrons / c.per_njy**2).astype(np.float32)
        true_variances[t] += expected / c.per_njy**2
    injected = [dataclasses.replace(source, flux=f) for source, f in zip(sources, flux.tolist(), strict=True)]
    with_sources = dataclasses.replace(
        scene, images=images, variances=variances, true_variances=true_variances
    )
    return with_sources, injected


def _resolve_flux(source: SceneSource, stamps: Sequence[galsim.Image], scene: Scene) -> float:
    """Return the flux in nJy that gives a source its ratio where it is."""
    if not math.isnan(source.flux):
        return source.flux
    height, width = scene.options.shape
    box = galsim.BoundsI(0, width - 1, 0, height - 1)
    cuts = []
    for stamp, c, good, variance in zip(
        stamps, scene.conditions, scene.good, scene.true_variances, strict=True
    ):
        overlap = stamp.bounds & box
        if overlap.isDefined():
            window = (slice(overlap.ymin, overlap.ymax + 1), slice(overlap.xmin, overlap.xmax + 1))
            cuts.append((stamp[overlap].array.clip(0.0), good[window], variance[window], c))
    if not any(np.any(light * good) for light, good, _, _ in cuts):
        raise ValueError(f"No exposure constrains the {source.kind} at x={source.x:.1f}, y={source.y:.1f}.")
    flux = 0.0
    # A fixed point: the map is a contraction by at least one half.
    for _ in range(40):
        information = sum(
            float(np.sum(light**2 * good / (variance + flux * light / c.per_njy)))
            for light, good, variance, c in cuts
        )
        flux = source.signal_to_noise / math.sqrt(information)
    return flux


def draw_sources(sources: Sequence[SceneSource], shape: tuple[int, int], fwhm: float) -> Array:
    """Draw sources of known flux without noise at a circular Gaussian PSF.

    Parameters
    ----------
    sources
        The sources.
    shape
        Height and width of the image.
    fwhm
        FWHM of the Gaussian in pixels.

    Returns
    -------
    image : `numpy.ndarray`
        Shape ``shape``, in nJy.
    """
    # As in `Scene.truth`.
    half = math.ceil(2.6 * fwhm)
    stamps = [draw_source(s, gaussian(fwhm), half + math.ceil(s.extent)) for s in sources]
    return add_stamps(shape, stamps, [source.flux for source in sources])


def add_exposure(scene: Scene, seeing_arcsec: float) -> Scene:
    """Add an exposure of another seeing to a scene.

    Parameters
    ----------
    scene
        The scene.
    seeing_arcsec
        FWHM of the PSF of the exposure, pixel included.

    Returns
    -------
    scene : `Scene`
        The scene with one exposure more, which comes last and is on the grid
        of the scene; the others, and all that is true of the scene without
        it, are as they were.
    """
    options, half = scene.options, scene.options.stamp_size // 2
    rng = np.random.default_rng([options.seed, _EXPOSURE, round(1000.0 * seeing_arcsec)])
    conditions = draw_conditions((seeing_arcsec, seeing_arcsec), options.stamp_size, rng)
    light = _steady_light(scene, conditions, half)
    recorded = record(
        light, conditions, np.zeros(options.shape, dtype=bool), options.artefacts, rng, has_trail=False
    )
    good = recorded.good & scene.good.any(axis=0)
    psf = draw_source(SceneSource("star", 0.0, 0.0), conditions.psf, half).array
    rays = recorded.cosmic_rays * good

    def append[T: np.generic](stack: npt.NDArray[T], plane: npt.ArrayLike) -> npt.NDArray[T]:
        return np.concatenate([stack, np.asarray(plane, dtype=stack.dtype)[np.newaxis]])

    return dataclasses.replace(
        scene,
        options=dataclasses.replace(options, num_exposures=options.num_exposures + 1),
        images=append(scene.images, recorded.image),
        variances=append(scene.variances, recorded.variance),
        good=append(scene.good, good),
        psfs=append(scene.psfs, psf / psf.sum()),
        true_variances=append(scene.true_variances, recorded.true_variance),
        artefacts=append(scene.artefacts, rays),
        trail=append(scene.trail, np.zeros(options.shape)),
        transients=append(scene.transients, np.zeros(options.shape)),
        conditions=(*scene.conditions, conditions),
    )


def _steady_light(scene: Scene, conditions: SceneConditions, half: int) -> Array:
    """Return the light of the steady sources under other conditions."""
    steady = np.flatnonzero(scene.catalogue["is_steady"])
    sources = [scene.sources[index] for index in steady]
    stamps = [expose_source(s, conditions, half) for s in sources]
    return add_stamps(scene.options.shape, stamps, np.asarray(scene.catalogue["flux"][steady]))
