# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Smooth light from the normal equations, extended beyond the data."""

from __future__ import annotations

__all__ = ("SmoothLight",)

import torch

from ._kernels import fwhm_to_sigma
from ._latent_space import LatentSpace

_FWHM = 8.0
"""FWHM in pixels of the neighbourhood of a fit: wide enough for planes that
hardly know noise, and narrow enough for the halo of a galaxy."""

_FAR_WIDTH = 4.0
"""Width of a second neighbourhood, over that of the first."""

_FAR_WEIGHT = 0.01
"""Its weight, with which it decides only where the first has no data."""

_RIDGE = 0.1
"""What is added to the variance of positions, in units of the width of the
neighbourhood: far from the data planes turn into constants."""

_LEAST_WEIGHT = 1e-5
"""Weight of the data in a neighbourhood, relative to that of full depth, below
which it knows no light."""


class SmoothLight:
    """Fits of a plane to the light around each pixel.

    The right-hand side of the normal equations is A'W y, that of light of 1
    everywhere a = A'W A 1.  A plane c_0 + c_1 dy + c_2 dx is fitted to their
    ratio around each pixel, weighted by a and the distance (normalised
    convolution of first order, Knutsson & Westin 1993, CVPR).  It is linear
    in the data, conserves what is constant up to the edge of the data and
    beyond, and continues gradients for a few pixels.

    Parameters
    ----------
    space
        The grid of the latent image.
    response
        Shape latent_shape, A'W A 1.
    full_weight
        Its value at full depth.
    """

    def __init__(self, space: LatentSpace, response: torch.Tensor, full_weight: float) -> None:
        self._space = space
        sigma = fwhm_to_sigma(_FWHM)
        radius = min((min(space.latent_shape) - 1) // 2, round(2.5 * _FAR_WIDTH * sigma))
        y = torch.arange(-radius, radius + 1, dtype=torch.float64, device=response.device)[:, None] / sigma
        x = y.T
        square = y**2 + x**2
        near = torch.exp(-0.5 * square) + _FAR_WEIGHT * torch.exp(-0.5 * square / _FAR_WIDTH**2)
        near = near / near.sum()
        one = torch.ones_like(square)
        # What a correlation with the kernel sums over neighbours.
        kernels = torch.stack([near * f for f in (one, y * one, x * one, y * y * one, y * x, x * x * one)])
        self._transfer = space.transfer(kernels).conj().to(torch.complex64)
        m = self._moments(response[None] / full_weight, 6)[0]
        total = m[0].clamp(min=_LEAST_WEIGHT)
        self._known = m[0] > _LEAST_WEIGHT
        self._scale = 1.0 / (total * full_weight)
        self._y, self._x = m[1] / total, m[2] / total
        self._yy = m[3] / total - self._y**2 + _RIDGE
        self._yx = m[4] / total - self._y * self._x
        self._xx = m[5] / total - self._x**2 + _RIDGE

    def _moments(self, images: torch.Tensor, number: int) -> torch.Tensor:
        """Return weighted sums over neighbours, (b, number, *latent_shape)."""
        transform = self._space.transform(images)
        return self._space.inverse_transform(transform[:, None] * self._transfer[:number])

    def fit(self, right: torch.Tensor) -> torch.Tensor:
        """Return the smooth light.

        Parameters
        ----------
        right
            Shape ``(b, *latent_shape)``, right-hand sides A'W y.

        Returns
        -------
        light : `torch.Tensor`
            Shape ``(b, *latent_shape)``; 0 far from all data.
        """
        level, dy, dx = (self._moments(right, 3) * self._scale).unbind(dim=1)
        dy = dy - self._y * level
        dx = dx - self._x * level
        determinant = self._yy * self._xx - self._yx**2
        slope_y = (self._xx * dy - self._yx * dx) / determinant
        slope_x = (self._yy * dx - self._yx * dy) / determinant
        return torch.where(self._known, level - slope_y * self._y - slope_x * self._x, 0.0)
