# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Smooth light from the normal equations, extended beyond the data."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exposures import fwhm_to_sigma
from ..forward import LatentSpace

_FWHM = 12.0
"""FWHM in pixels of the neighbourhood in which a plane is fitted: wide enough
to leave the noise of smooth estimates as it is."""

_EDGE_FWHM = 4.0
"""The same at the edge of the data, for the residuals of the first fit: what
bends over fewer pixels is not continued by a plane."""

_FAR_WIDTH = 2.5
"""Width of a second neighbourhood, over that of the first, for pixels with few
data in the first.  Elsewhere it would take the light of stars to edges far
away."""

_RIDGE = 0.1
"""Added to the variance of positions, in units of the width of the
neighbourhood: far from the data planes turn into constants."""

_LEAST_WEIGHT = 1e-3
"""Relative weight of the data in a neighbourhood below which its light is
unknown."""


class SmoothLight:
    """Smooth light of the data, continued beyond them.

    The right-hand side of the normal equations is A'W y, that of light of 1
    everywhere a = A'W A 1.  A plane is fitted to their ratio around each
    pixel, weighted by |a| and the distance (normalised convolution of first
    order, Knutsson & Westin 1993, CVPR 515), and at the edge of the data
    another to the residuals, in a smaller neighbourhood.  This is linear in
    the data, and exact for light that is constant up to the edge.

    For a target PSF wider than those of the exposures A'W A sharpens, and a
    is negative on some pixels at edges.  The second fit is left out where it
    would amplify the residuals of the first, and where PSFs vary, so that
    this is not known.

    Parameters
    ----------
    space
        The grid of the latent image.
    power
        Shape (Hl, Wl // 2 + 1), power of A for weights of sum 1; `None` if it
        varies.
    normal
        Multiplies images, shape ``(b, *latent_shape)``, with A'W A.
    full_weight
        Sum of the weights at full weight.
    device
        Where the data are.
    """

    def __init__(
        self,
        space: LatentSpace,
        power: torch.Tensor | None,
        normal: Callable[[torch.Tensor], torch.Tensor],
        full_weight: float,
        device: torch.device,
    ) -> None:
        response = normal(torch.ones(1, *space.latent_shape, device=device)) / full_weight
        self._normal = normal
        self._full_weight = full_weight
        self._fit, edge_fit = (_PlaneFit(space, response, fwhm) for fwhm in (_FWHM, _EDGE_FWHM))
        # Up to a gain of 2 residuals do not grow; target PSFs too wide for
        # the first fit are refused.
        safe = power is not None and float((edge_fit.gain * power).max()) <= 2.0
        self._edge_fit = edge_fit if safe else None
        # 1 at the edge of the data and beyond, 0 where they surround a pixel.
        self._edge = (2.0 * (1.0 - self._fit.total)).clamp(0.0, 1.0)

    @property
    def gain(self) -> torch.Tensor:
        """Transfer function among data of full weight, shape
        (Hl, Wl // 2 + 1), real.
        """
        return self._fit.gain

    def fit(self, right: torch.Tensor) -> torch.Tensor:
        """Return the smooth light, 0 far from all data.

        Parameters
        ----------
        right
            Shape ``(b, *latent_shape)``, A'W y.
        """
        light = self._fit(right / self._full_weight)
        if self._edge_fit is None:
            return light
        residual = right - self._normal(light)
        return light.add_(self._edge_fit(residual / self._full_weight).mul_(self._edge))


class _PlaneFit:
    """Fits a plane around each pixel and evaluates it there."""

    def __init__(self, space: LatentSpace, response: torch.Tensor, fwhm: float) -> None:
        self._space = space
        sigma = fwhm_to_sigma(fwhm)
        radius = min((min(space.latent_shape) - 1) // 2, round(2.5 * _FAR_WIDTH * sigma))
        y = torch.arange(-radius, radius + 1, dtype=torch.float64, device=response.device)[:, None] / sigma
        square = y**2 + y.T**2
        transfers = []
        for width in (1.0, _FAR_WIDTH):
            near = torch.exp(-0.5 * square / width**2)
            near /= near.sum()
            moments = (near, y * near, y.T * near, y**2 * near, y * y.T * near, y.T**2 * near)
            # Neighbours are summed up, so that it correlates.
            transfers.append(space.transfer(torch.stack(moments)).conj().to(torch.complex64))
        self._transfers = torch.stack(transfers)
        self._far = torch.zeros(())
        self._sign = response.sign()
        weight = response.abs()
        near = self._moments(weight, 1)[0, 0]
        # The second counts where the first has less than a tenth of its data.
        self._far = 0.01 * (1.0 - near / 0.1).clamp(min=0.0)
        share, y_sum, x_sum, yy, yx, xx = self._moments(weight, 6)[0]
        self._known = share > _LEAST_WEIGHT
        self.total = share.clamp(min=_LEAST_WEIGHT)
        self._y, self._x = y_sum / self.total, x_sum / self.total
        # In units of the mean square of positions.
        self._yy = yy / self.total - self._y**2 + _RIDGE
        self._yx = yx / self.total - self._y * self._x
        self._xx = xx / self.total - self._x**2 + _RIDGE

    @property
    def gain(self) -> torch.Tensor:
        """Fourier transform of the neighbourhood."""
        return self._transfers[0, 0].real

    def _moments(self, images: torch.Tensor, number: int) -> torch.Tensor:
        """Return weighted sums over neighbours, (b, number, *latent_shape)."""
        transform = self._space.transform(images)[:, None]
        near, far = (self._space.inverse_transform(transform * t[:number]) for t in self._transfers)
        return near + self._far.to(near) * far

    def __call__(self, right: torch.Tensor) -> torch.Tensor:
        """Fit planes to right-hand sides for weights of sum 1."""
        level, dy, dx = (self._moments(right * self._sign, 3) / self.total).unbind(dim=1)
        dy, dx = dy - self._y * level, dx - self._x * level
        determinant = self._yy * self._xx - self._yx**2
        level -= (self._xx * dy - self._yx * dx) / determinant * self._y
        level -= (self._yy * dx - self._yx * dy) / determinant * self._x
        return torch.where(self._known, level, 0.0)
