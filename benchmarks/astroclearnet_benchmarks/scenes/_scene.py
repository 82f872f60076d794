# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Co-registered exposures on one pixel grid, with all that is true of them."""

from __future__ import annotations

__all__ = ("Scene", "SceneOptions", "simulate_scene")

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.ndimage import maximum_filter

from lsst.astroclearnet.core import PixelPositions
from lsst.astroclearnet.simulation import ArtefactOptions

from ._exposures import (
    SceneConditions,
    add_stamps,
    draw_conditions,
    draw_source,
    expose_source,
    gaussian,
    resolve_flux,
    saturates,
    signal_to_noise,
)
from ._recording import missing_pixels, record
from ._sources import SCENE_KINDS, SceneSource, scene_sources

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_BLANK_FWHM = 4.0
_BLANK_LEVEL = 0.3
_CLEAN_RADIUS = 10
_CLEAN_LIGHT = 0.1
_CLEAN_DEPTH = 0.5


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """Everything that defines a scene.

    Attributes
    ----------
    seed
        Seed of every random number.
    kind
        ``field`` (galaxies to i = 27.2 and stars), ``stars``, ``galaxies`` or
        ``pairs`` (isolated ones on a jittered grid), ``blank``, ``crowded``,
        ``transients`` (a field with a supernova in a quarter of the exposures
        and an asteroid in one), ``hosts`` (isolated bright galaxies with
        arms, bars and clumps), ``cluster`` (a field with a central galaxy in
        intracluster light), ``nebula`` (a field behind one that fills it) or
        ``companions`` (isolated galaxies, each with a fainter one).
    shape
        Height and width in pixels of 0.168 arcsec.
    num_exposures
        Number of exposures of 200 s in i.
    seeing_arcsec
        Smallest and largest FWHM of the PSFs, pixel included.
    stamp_size
        Side of the PSF stamps in pixels, odd.  The PSFs end within it.
    hole_size
        Side in pixels of a square that is masked in every exposure.
    artefacts
        Noise and defects, those of the detectors of a survey.
    max_dither
        Largest offset in pixels, along either axis, of the grid of an
        exposure from that of the scene: 0 for co-registered exposures, else
        at most half a pixel, so that masks hardly move.

    Raises
    ------
    ValueError
        If the kind is unknown, there is no exposure, the stamp is not odd or
        too small, or grids are too far from each other.
    """

    seed: int
    kind: str = "field"
    shape: tuple[int, int] = (256, 256)
    num_exposures: int = 12
    seeing_arcsec: tuple[float, float] = (0.5, 0.95)
    stamp_size: int = 41
    hole_size: int = 9
    artefacts: ArtefactOptions = ArtefactOptions()
    max_dither: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in SCENE_KINDS:
            raise ValueError(f"SceneOptions.kind={self.kind!r} must be one of {tuple(SCENE_KINDS)}.")
        if self.num_exposures < 1:
            raise ValueError(f"SceneOptions.num_exposures={self.num_exposures} must be at least 1.")
        if self.stamp_size % 2 == 0 or self.stamp_size < 21:
            raise ValueError(f"SceneOptions.stamp_size={self.stamp_size} must be odd and at least 21.")
        if not 0.0 <= self.max_dither <= 0.5:
            raise ValueError(f"SceneOptions.max_dither={self.max_dither} must be between 0 and 0.5.")


@dataclasses.dataclass(frozen=True)
class Scene:
    """Exposures of a simulated sky on one grid, and the sky itself.

    Attributes
    ----------
    options
        What defines the scene.
    images
        Sky-subtracted exposures in nJy, shape (n, H, W), float32.
    variances
        Variance planes made of the noisy exposures as pipelines do, in
        nJy^2, shape (n, H, W), float32.
    good
        Pixels that are not flagged, shape (n, H, W).
    psfs
        PSFs with unit sum, shape (n, P, P), float32.
    true_variances
        Variances of the noise that the exposures have, shape (n, H, W), in
        nJy^2.
    catalogue
        One row per source: ``x``, ``y`` (pixels), ``flux`` (nJy), ``kind``,
        ``signal_to_noise`` (flux over the Cramer-Rao bound of all exposures
        with their masks and true variances), ``pair`` (-1 for none),
        ``separation`` (pixels), ``half_light_radius`` (pixels, before any
        PSF; NaN for points), ``is_steady`` (shines in all exposures),
        ``is_saturated`` (by its own light, in any exposure) and ``is_clean``
        (within 10 pixels no border, no unflagged artefact above a tenth of
        the sky noise and no place with less than half of the exposures).
    artefacts
        Light of unflagged cosmic rays and of the trail, in nJy, shape
        (n, H, W), float32.
    trail
        The part of it that is the trail, which crosses one exposure, shape
        (n, H, W).
    transients
        Light of sources that are not steady, in nJy, shape (n, H, W),
        float32.
    sky_sigma
        Noise of the sky in the inverse-variance coadd at full depth, in nJy.
    depth
        Share of the inverse variance that masks leave, shape (H, W).
    blank
        Pixels without a source, shape (H, W): below 0.3 ``sky_sigma`` in the
        truth at 4 pixels FWHM.
    clean
        Pixels where a source is clean, shape (H, W): see ``is_clean``.
    conditions
        SceneConditions of the exposures.
    sources
        The sources, in the order of the catalogue, which has their fluxes.
    """

    options: SceneOptions
    images: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]
    good: Mask
    psfs: npt.NDArray[np.float32]
    true_variances: Array
    catalogue: Table
    artefacts: npt.NDArray[np.float32]
    trail: npt.NDArray[np.float32]
    transients: npt.NDArray[np.float32]
    sky_sigma: float
    depth: Array
    blank: Mask
    clean: Mask
    conditions: tuple[SceneConditions, ...]
    sources: tuple[SceneSource, ...]

    @property
    def best_sigma(self) -> Array:
        """Noise of the mean with true weights (`numpy.ndarray`).

        Shape (H, W), in nJy; infinite where there is no exposure.
        """
        total = (self.good / self.true_variances).sum(axis=0)
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / np.sqrt(total))

    @property
    def positions(self) -> PixelPositions | None:
        """Positions of the pixels of exposures on their own grids.

        For `lsst.astroclearnet.core.restore`; `None` for co-registered ones.
        """
        if self.options.max_dither == 0.0:
            return None
        rows, columns = np.indices(self.options.shape, dtype=float)
        offsets = np.array([c.offset for c in self.conditions])[:, :, np.newaxis, np.newaxis]
        y, x = rows + offsets[:, 0], columns + offsets[:, 1]
        return PixelPositions.from_arrays(self.options.shape, y, x, np.ones_like(y))

    def truth(self, fwhm: float) -> Array:
        """Draw the steady sources without noise at a circular Gaussian PSF.

        The Gaussian is the whole PSF: pixels are samples of the smoothed sky
        times the area of a pixel.

        Parameters
        ----------
        fwhm
            FWHM of the Gaussian in pixels.

        Returns
        -------
        image : `numpy.ndarray`
            Shape (H, W), in nJy.
        """
        steady = np.flatnonzero(self.catalogue["is_steady"])
        return self._draw(steady, fwhm)

    def source_image(self, index: int, fwhm: float) -> Array:
        """Draw one source without noise at a circular Gaussian PSF.

        Parameters
        ----------
        index
            Row of the source in the catalogue.
        fwhm
            FWHM of the Gaussian in pixels.

        Returns
        -------
        image : `numpy.ndarray`
            Shape (H, W), in nJy.
        """
        return self._draw(np.array([index]), fwhm)

    def _draw(self, indices: npt.NDArray[np.int64], fwhm: float) -> Array:
        # Six sigma leave less than 2e-8 of a star outside.
        half = math.ceil(2.6 * fwhm)
        sources = [self.sources[index] for index in indices]
        stamps = [draw_source(s, gaussian(fwhm), half + math.ceil(s.extent)) for s in sources]
        return add_stamps(self.options.shape, stamps, self.catalogue["flux"][indices])


def simulate_scene(options: SceneOptions) -> Scene:
    """Simulate exposures of a sky on one grid.

    Parameters
    ----------
    options
        What to simulate; the same options give the same scene.

    Returns
    -------
    scene : `Scene`
        The exposures and the truth.

    Notes
    -----
    The PSFs are Moffat profiles of small ellipticity, integrated over the
    pixel and cut where the stamp ends, so that the stamps given to a method
    are the whole PSF.  Seeing is uniform between its limits.
    """
    rng = np.random.default_rng([options.seed, list(SCENE_KINDS).index(options.kind)])
    number, half = options.num_exposures, options.stamp_size // 2
    conditions = [draw_conditions(options.seeing_arcsec, options.stamp_size, rng) for _ in range(number)]
    if options.max_dither > 0.0:
        offsets = rng.uniform(-options.max_dither, options.max_dither, size=(number, 2))
        conditions = [
            dataclasses.replace(c, offset=(float(dy), float(dx)))
            for c, (dy, dx) in zip(conditions, offsets, strict=True)
        ]
    sources = scene_sources(options.kind, options.shape, number, rng)
    stamps = [[expose_source(s, c, half) for c in conditions] for s in sources]
    flux = np.array([resolve_flux(s, drawn, conditions) for s, drawn in zip(sources, stamps, strict=True)])
    shines = np.ones((len(sources), number), dtype=bool)
    for source, row in zip(sources, shines, strict=True):
        row[:] = source.exposures is None or np.isin(np.arange(number), source.exposures)
    steady = shines.all(axis=1)
    light, transients = (
        [
            add_stamps(options.shape, [drawn[t] for drawn in stamps], flux * shines[:, t] * chosen)
            for t in range(number)
        ]
        for chosen in (steady, ~steady)
    )
    trail = int(rng.integers(number)) if options.artefacts.satellite_trails else -1
    missing = missing_pixels(options.shape, number, rng)
    recorded = [
        record(light[t] + transients[t], c, missing[t], options.artefacts, rng, has_trail=t == trail)
        for t, c in enumerate(conditions)
    ]
    good = np.stack([exposure.good for exposure in recorded])
    good[:, *_hole(options, rng)] = False
    point = SceneSource("star", 0.0, 0.0)
    psfs = np.stack([draw_source(point, c.psf, half).array for c in conditions])
    true_variances = np.stack([exposure.true_variance for exposure in recorded])
    snr = [
        signal_to_noise(f, drawn, good / true_variances * row[:, np.newaxis, np.newaxis])
        for f, drawn, row in zip(flux, stamps, shines, strict=True)
    ]
    sky_weights = np.array([1.0 / c.sky_variance for c in conditions])
    trails = np.stack([exposure.trail for exposure in recorded]) * good
    artefacts = np.stack([exposure.cosmic_rays for exposure in recorded]) * good + trails
    depth = np.tensordot(sky_weights, good, axes=1) / sky_weights.sum()
    sky_sigma = float(sky_weights.sum() ** -0.5)
    disturbed = np.tensordot(sky_weights, artefacts, axes=1) / sky_weights.sum() > _CLEAN_LIGHT * sky_sigma
    clean = _clean(disturbed | (depth < _CLEAN_DEPTH))
    catalogue = _catalogue(sources, flux, snr, steady, clean)
    full = [saturates(f, drawn, conditions) for f, drawn in zip(flux, stamps, strict=True)]
    catalogue["is_saturated"] = np.array(full, dtype=bool) & options.artefacts.saturation
    scene = Scene(
        options=options,
        images=np.stack([exposure.image for exposure in recorded]).astype(np.float32),
        variances=np.stack([exposure.variance for exposure in recorded]).astype(np.float32),
        good=good,
        psfs=(psfs / psfs.sum(axis=(1, 2), keepdims=True)).astype(np.float32),
        true_variances=true_variances,
        catalogue=catalogue,
        artefacts=artefacts.astype(np.float32),
        trail=trails.astype(np.float32),
        transients=np.stack(transients).astype(np.float32),
        sky_sigma=sky_sigma,
        depth=depth,
        blank=np.ones(options.shape, dtype=bool),
        clean=clean,
        conditions=tuple(conditions),
        sources=tuple(sources),
    )
    return dataclasses.replace(scene, blank=scene.truth(_BLANK_FWHM) < _BLANK_LEVEL * sky_sigma)


def _hole(options: SceneOptions, rng: np.random.Generator) -> tuple[slice, slice]:
    """Draw the square that is masked in every exposure."""
    y, x = (int(rng.integers(size // 4, 3 * size // 4)) for size in options.shape)
    return slice(y, y + options.hole_size), slice(x, x + options.hole_size)


def _clean(disturbed: Mask) -> Mask:
    """Return the pixels that are far from disturbances and the border."""
    grown = maximum_filter(disturbed, size=2 * _CLEAN_RADIUS + 1)
    inside = np.zeros_like(grown)
    inside[_CLEAN_RADIUS:-_CLEAN_RADIUS, _CLEAN_RADIUS:-_CLEAN_RADIUS] = True
    return np.asarray(inside & ~grown)


def _catalogue(sources: list[SceneSource], flux: Array, snr: list[float], steady: Mask, clean: Mask) -> Table:
    """Make the catalogue of a scene."""
    x = np.array([source.x for source in sources])
    y = np.array([source.y for source in sources])
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (row >= 0) & (row < clean.shape[0]) & (column >= 0) & (column < clean.shape[1])
    is_clean = np.zeros(len(sources), dtype=bool)
    is_clean[inside] = clean[row[inside], column[inside]]
    return Table(
        {
            "x": x,
            "y": y,
            "flux": flux,
            "kind": np.array([source.kind for source in sources], dtype="U9"),
            "signal_to_noise": np.array(snr, dtype=float),
            "pair": np.array([source.pair for source in sources], dtype=int),
            "separation": np.array([source.separation for source in sources]),
            "half_light_radius": np.array([source.half_light_radius for source in sources]),
            "is_steady": steady,
            "is_clean": is_clean,
        }
    )
