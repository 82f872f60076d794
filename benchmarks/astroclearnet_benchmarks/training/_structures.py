# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Structures of the sky: spiral arms, clumps, tails, arcs, nebulae."""

from __future__ import annotations

__all__ = ()

import dataclasses
import math

import galsim
import numpy as np
import numpy.typing as npt
from scipy import fft

from ..scenes._sources import SceneSource
from ._recipe import log_uniform
from ._sky_grid import SkyGrid

type Array = npt.NDArray[np.float64]
type Random = np.random.Generator


def texture(shape: tuple[int, int], slope: float, rng: Random) -> Array:
    """Return a Gaussian random field of unit variance.

    Parameters
    ----------
    shape
        Height and width in pixels.
    slope
        Power of the wave number that its power falls with.
    rng
        Random numbers.

    Returns
    -------
    field : `numpy.ndarray`
        The field.
    """
    k = np.hypot(fft.fftfreq(shape[0])[:, None] * shape[0], fft.rfftfreq(shape[1])[None, :] * shape[1])
    k[0, 0] = np.inf
    field = fft.irfft2(fft.rfft2(rng.normal(size=shape)) * k ** (-0.5 * slope), s=shape)
    return np.asarray(field / field.std())


@dataclasses.dataclass(frozen=True)
class SkyPainter:
    """Adds structures to a sky at random places.

    Attributes
    ----------
    sky
        The sky.
    sigma
        Brightness of which structures are multiples: the noise of a pixel.
    rng
        Random numbers.
    """

    sky: SkyGrid
    sigma: float
    rng: Random

    def add_spiral(self, scale: float) -> None:
        """Add a disc with arms, and perhaps a bar, dust, texture and clumps.

        Parameters
        ----------
        scale
            Scale length of the disc in pixels.
        """
        sky, rng = self.sky, self.rng
        x, y = self._place()
        window = sky.window(x, y, 6.0 * scale)
        u, v = _turned(sky.x[:, window[1]] - x, sky.y[window[0]] - y, rng.uniform(0.0, 2.0 * math.pi))
        v = v / rng.uniform(0.35, 1.0)
        r, phi = np.hypot(u, v) / scale, np.arctan2(v, u)
        winding = np.log(r + 0.1) / math.tan(math.radians(rng.uniform(10.0, 35.0)))
        number = int(rng.choice((1, 2, 3, 4), p=(0.1, 0.55, 0.2, 0.15)))
        phase = rng.uniform(0.0, 2.0 * math.pi)
        sharpness = rng.uniform(1.0, 5.0)
        arms = (0.5 + 0.5 * np.cos(number * (phi - winding) + phase)) ** sharpness * r / (r + 0.6)
        disc = np.exp(-r) * np.clip(6.0 - r, 0.0, 1.0)
        light = disc * (1.0 + rng.uniform(0.5, 4.0) * arms)
        if rng.random() < 0.5:
            lanes = (0.5 + 0.5 * np.cos(number * (phi - winding) + phase + 0.9)) ** (2.0 * sharpness)
            light *= 1.0 - rng.uniform(0.1, 0.7) * lanes
        if rng.random() < 0.4:
            light *= np.exp(rng.uniform(0.1, 0.7) * texture(light.shape, 1.5, rng))
        if rng.random() < 0.4:
            length = rng.uniform(0.5, 1.4)
            bar = (r * np.cos(phi) / length) ** 2 + (r * np.sin(phi) / (0.3 * length)) ** 2
            light += rng.uniform(0.3, 2.0) * np.exp(-(bar**1.3))
        if rng.random() < 0.8:
            light += rng.uniform(0.5, 20.0) * np.exp(-3.67 * np.sqrt(r / rng.uniform(0.1, 0.4)))
        flux = self._mean_flux(scale)
        light *= flux / (light.sum() * _cell_area(sky))
        sky.add_light(light, window)
        if rng.random() < 0.6:
            share = (disc * arms**2).ravel()
            places = rng.choice(share.size, int(rng.integers(3, 40)), p=share / share.sum())
            rows, columns = np.unravel_index(places, light.shape)
            parts = rng.lognormal(0.0, 1.0, len(places))
            sky.add_points(
                sky.x[0, window[1]][columns] + rng.uniform(-0.25, 0.25, len(places)),
                sky.y[window[0], 0][rows] + rng.uniform(-0.25, 0.25, len(places)),
                rng.uniform(0.02, 0.3) * flux * parts / parts.sum(),
                rng.uniform(0.0, 0.15, len(places)) * scale * (rng.random(len(places)) < 0.6),
            )

    def add_edge_on(self, scale: float) -> None:
        """Add a disc seen from its side, most with a dust lane and a bulge.

        Parameters
        ----------
        scale
            Scale length of the disc in pixels.
        """
        sky, rng = self.sky, self.rng
        x, y = self._place()
        window = sky.window(x, y, 6.0 * scale)
        u, v = _turned(sky.x[:, window[1]] - x, sky.y[window[0]] - y, rng.uniform(0.0, math.pi))
        height = rng.uniform(0.06, 0.22) * scale
        v = v + rng.normal(0.0, 0.08) * height * (u / scale) * np.abs(u / scale)
        light = np.exp(-np.abs(u) / scale) / np.cosh(np.clip(v / height, -30.0, 30.0)) ** 2
        if rng.random() < 0.6:
            light += rng.uniform(0.2, 3.0) * np.exp(-3.67 * np.sqrt(np.hypot(u, 1.3 * v) / (0.3 * scale)))
        if rng.random() < 0.7:
            thickness = rng.uniform(0.25, 0.6) * height
            lane = np.exp(-0.5 * ((v - rng.normal(0.0, 0.3) * height) / thickness) ** 2 - np.abs(u) / scale)
            light *= np.exp(-rng.uniform(0.3, 3.0) * lane)
        sky.add_light(
            light * (self._mean_flux(0.6 * scale) / (light.sum() * _cell_area(sky))),
            window,
        )

    def add_clumpy(self, scale: float) -> None:
        """Add an irregular galaxy of clumps, some of them on a faint disc.

        Parameters
        ----------
        scale
            Standard deviation of the places of clumps in pixels.
        """
        sky, rng = self.sky, self.rng
        x, y = self._place()
        number = int(rng.integers(3, 30))
        u = rng.normal(0.0, scale, number)
        v = rng.normal(0.0, rng.uniform(0.2, 1.0) * scale, number)
        u, v = _turned(u, v, rng.uniform(0.0, math.pi))
        flux = self._mean_flux(scale)
        parts = rng.lognormal(0.0, 1.0, number)
        share = rng.uniform(0.3, 1.0)
        sizes = np.exp(rng.uniform(math.log(0.05), math.log(0.6), number)) * scale
        sky.add_points(x + u, y + v, share * flux * parts / parts.sum(), sizes)
        sky.add_source(self._sersic(x, y, (1.0 - share) * flux, float(rng.choice((0.5, 1.0))), 1.2 * scale))

    def add_merger(self, scale: float) -> None:
        """Add two galaxies close together with tails, bridges and clumps.

        Parameters
        ----------
        scale
            Largest half-light radius in pixels.
        """
        sky, rng = self.sky, self.rng
        x, y = self._place()
        flux = self._mean_flux(scale)
        direction, distance = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.5, 3.0) * scale
        for side, part in ((0.0, 1.0), (1.0, rng.uniform(0.1, 1.0))):
            center = x + side * distance * math.cos(direction), y + side * distance * math.sin(direction)
            index = float(rng.choice((1.0, 2.0, 4.0)))
            sky.add_source(self._sersic(*center, 0.5 * part * flux, index, rng.uniform(0.5, 1.0) * scale))
            if rng.random() < 0.75:
                # A piece of a logarithmic spiral.
                phi = np.linspace(0.0, rng.choice((-1.0, 1.0)) * rng.uniform(1.0, 4.5), 200)
                r = rng.uniform(1.0, 2.0) * scale * np.exp(rng.uniform(0.05, 0.5) * np.abs(phi))
                start = rng.uniform(0.0, 2.0 * math.pi)
                width = rng.uniform(0.1, 0.5) * scale
                tail = center[0] + r * np.cos(phi + start), center[1] + r * np.sin(phi + start)
                self._add_curve(*tail, width, log_uniform(rng, 0.03, 0.5) * flux)
        number = int(rng.integers(0, 12))
        spots = rng.normal(0.0, scale, (2, number))
        sky.add_points(x + spots[0], y + spots[1], 0.02 * flux * rng.lognormal(0.0, 1.0, number))

    def add_arcs(self, scale: float) -> None:
        """Add arcs or a ring around a bright elliptical galaxy.

        Parameters
        ----------
        scale
            Smallest radius of arcs in pixels.
        """
        sky, rng = self.sky, self.rng
        x, y = self._place()
        size = 0.4 * scale
        sky.add_source(self._sersic(x, y, 2.0 * self._mean_flux(size), 4.0, size))
        for _ in range(int(rng.integers(1, 5))):
            span = 2.0 * math.pi if rng.random() < 0.1 else math.radians(rng.uniform(15.0, 160.0))
            phi = rng.uniform(0.0, 2.0 * math.pi) + np.linspace(0.0, span, 300)
            radius = rng.uniform(1.0, 2.5) * scale
            across, turn = radius * rng.uniform(0.75, 1.0), rng.uniform(0.0, math.pi)
            u, v = _turned(radius * np.cos(phi), across * np.sin(phi), turn)
            width = log_uniform(rng, 0.2, 2.0)
            # Light per pixel within the width that pixels and seeing give it.
            flux = log_uniform(rng, 0.7, 40.0) * self.sigma * radius * span * 2.5 * math.hypot(width, 1.5)
            self._add_curve(x + u, y + v, width, flux)
            number = int(rng.integers(0, 4))
            spots = rng.integers(0, 300, number)
            sky.add_points(x + u[spots], y + v[spots], 0.15 * flux * rng.random(number))

    def add_nebula(self, level: float) -> None:
        """Add filaments, sheets or clouds of a nebula, over all or a part.

        Parameters
        ----------
        level
            Brightness in ``sigma`` that one pixel in twenty exceeds.
        """
        sky, rng = self.sky, self.rng
        shape = (sky.y.size, sky.x.size)
        slope = rng.uniform(2.4, 3.8)
        field = texture(shape, slope, rng)
        if rng.random() < 0.5:
            light = np.exp(-np.abs(field) / rng.uniform(0.05, 0.4))
            light *= np.exp(rng.uniform(0.3, 1.0) * texture(shape, slope, rng))
        else:
            light = np.exp(rng.uniform(0.5, 1.8) * field)
        if rng.random() < 0.5:
            cover = texture(shape, 4.0, rng) - rng.uniform(-1.0, 1.0)
            light *= 1.0 / (1.0 + np.exp(-np.clip(cover / rng.uniform(0.05, 0.4), -30.0, 30.0)))
        sky.add_light(light * (level * self.sigma / np.quantile(light, 0.95)))

    def add_intracluster_light(self) -> None:
        """Add wide faint light around a group of elliptical galaxies."""
        sky, rng = self.sky, self.rng
        x, y = self._place()
        for _ in range(int(rng.integers(1, 4))):
            u, v = _turned(sky.x - x, sky.y - y, rng.uniform(0.0, math.pi))
            radius = log_uniform(rng, 25.0, 120.0)
            r = np.hypot(u, v / rng.uniform(0.4, 1.0)) / radius
            light = np.exp(-r) if rng.random() < 0.5 else np.exp(-0.5 * r**2)
            sky.add_light(log_uniform(rng, 0.3, 12.0) * self.sigma * light)
        for _ in range(int(rng.integers(3, 16))):
            column, row = rng.normal((x, y), 40.0)
            size = log_uniform(rng, 1.0, 8.0)
            index = float(rng.choice((2.0, 3.0, 4.0)))
            sky.add_source(self._sersic(column, row, 2.0 * self._mean_flux(size), index, size))

    def add_gradient(self, level: float) -> None:
        """Add light that rises smoothly across the patch.

        Parameters
        ----------
        level
            Highest brightness in ``sigma``.
        """
        sky, rng = self.sky, self.rng
        u, _ = _turned(sky.x, sky.y, rng.uniform(0.0, 2.0 * math.pi))
        t = (u - u.min()) / np.ptp(u)
        sky.add_light(level * self.sigma * t ** rng.uniform(0.7, 3.0))

    def add_cluster(self, number: int) -> None:
        """Add a globular cluster of stars with a power law of fluxes.

        Parameters
        ----------
        number
            Number of stars.
        """
        sky, rng = self.sky, self.rng
        x, y = self._place(border=30.0)
        core = rng.uniform(5.0, 40.0)
        # The surface density of King (1962) without its edge: 1 / (1 + r^2).
        limit = math.log1p((110.0 / core) ** 2)
        r = core * np.sqrt(np.expm1(limit * rng.random(number)))
        phi = rng.uniform(0.0, 2.0 * math.pi, number)
        flux = np.minimum(
            log_uniform(rng, 3.0, 30.0) * self.sigma * (1.0 + rng.pareto(1.1, number)),
            2e4 * self.sigma,
        )
        sky.add_points(x + r * np.cos(phi), y + r * np.sin(phi), flux)

    def add_stars(self, number: int, fwhm: float) -> None:
        """Add stars of a signal-to-noise ratio of 3 to 300.

        Parameters
        ----------
        number
            Number of stars.
        fwhm
            FWHM of the target PSF in pixels.
        """
        sky, rng = self.sky, self.rng
        for _ in range(number):
            # The noise of an optimal flux is 1.5 sigma times the FWHM.
            sky.add_points(*self._place(), log_uniform(rng, 3.0, 300.0) * self.sigma * 1.5 * fwhm)

    def add_pairs(self, number: int, fwhm: float) -> None:
        """Add close pairs of stars, or of a star and a small galaxy.

        Parameters
        ----------
        number
            Number of pairs.
        fwhm
            FWHM of the target PSF in pixels.
        """
        sky, rng = self.sky, self.rng
        for _ in range(number):
            x, y = self._place()
            angle, distance = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.25, 1.6) * fwhm
            # A signal-to-noise ratio of 8 to 2000.
            flux = log_uniform(rng, 8.0, 2000.0) * self.sigma * 1.5 * fwhm
            sky.add_points(x, y, flux)
            size = rng.uniform(0.3, 1.5) if rng.random() < 0.4 else 0.0
            second = log_uniform(rng, 0.1, 1.0) * flux
            sky.add_points(x + distance * math.cos(angle), y + distance * math.sin(angle), second, size)

    def _place(self, border: float = 0.0) -> tuple[float, float]:
        """Draw x and y on the patch."""
        height, width = self.sky.shape
        return float(self.rng.uniform(border, width - border)), float(
            self.rng.uniform(border, height - border)
        )

    def _mean_flux(self, radius: float) -> float:
        """Draw a flux that gives 1 to 150 sigma per pixel within a radius."""
        return log_uniform(self.rng, 1.0, 150.0) * self.sigma * 2.0 * math.pi * radius**2

    def _sersic(self, x: float, y: float, flux: float, index: float, radius: float) -> SceneSource:
        """Return an elliptical Sersic profile, cut at 5 half-light radii."""
        unit = galsim.Sersic(index, half_light_radius=1.0, trunc=5.0, flux_untruncated=False)
        shear = float(np.clip(self.rng.rayleigh(0.2), 0.0, 0.6))
        profile = unit.dilate(radius).shear(g=shear, beta=self.rng.uniform(0.0, 180.0) * galsim.degrees)
        extent = 5.0 * radius * math.sqrt((1.0 + shear) / (1.0 - shear))
        return SceneSource("galaxy", x, y, flux=flux, profile=profile, extent=extent)

    def _add_curve(self, x: Array, y: Array, width: float, flux: float) -> None:
        """Add an uneven, tapered band of light along a sampled curve."""
        steps = np.hypot(np.diff(x), np.diff(y))
        length = float(steps.sum())
        number = max(8, math.ceil(2.5 * length / max(width, 0.8)))
        along = np.concatenate([[0.0], np.cumsum(steps)]) / length
        t = (np.arange(number) + 0.5) / number
        light = np.sqrt(np.sin(math.pi * t))
        for order in range(1, 5):
            light *= np.exp(
                self.rng.normal(0.0, 0.35) * np.cos(order * math.pi * t + self.rng.uniform(0.0, 6.3))
            )
        sizes = width * (0.6 + 0.8 * t) if self.rng.random() < 0.5 else np.full(number, width)
        self.sky.add_points(np.interp(t, along, x), np.interp(t, along, y), flux * light / light.sum(), sizes)


def _turned(dx: Array, dy: Array, angle: float) -> tuple[Array, Array]:
    """Return coordinates along and across a direction."""
    c, s = math.cos(angle), math.sin(angle)
    return c * dx + s * dy, c * dy - s * dx


def _cell_area(sky: SkyGrid) -> float:
    """Return the area of a cell of the grid in pixels."""
    return float((sky.x[0, 1] - sky.x[0, 0]) * (sky.y[1, 0] - sky.y[0, 0]))
