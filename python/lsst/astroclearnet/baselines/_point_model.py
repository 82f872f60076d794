# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a sky of point-like pixels, by Fourier transforms."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import ExposureStack, InputError
from ..core.forward import ForwardModel

_MIN_SENSITIVITY = 1e-3
"""Response to a latent pixel, relative to the best one, below which it is
taken as not constrained."""


class PointModel(ForwardModel):
    """A sky of point-like pixels, seen through the PSF of each exposure.

    Exposure t is predicted as f(t) * x on the pixels of the data, f(t) the
    PSF of the exposure and x the latent image, whose pixels are points of
    light at pixel centres.  All else is `ForwardModel`.  The target is that of
    `show`.
    """

    # Points are no image of the target, which may have any width.
    _least_fwhm = 0.0

    @classmethod
    def from_stack(cls, stack: ExposureStack, target_fwhm: float) -> PointModel:
        """Construct the model of a stack of exposures.

        Parameters
        ----------
        stack
            The exposures, each with one PSF.
        target_fwhm
            FWHM of the target in pixels.

        Returns
        -------
        model : `PointModel`
            The model.

        Raises
        ------
        InputError
            If a PSF varies over the patch.
        """
        if stack.psfs.shape[1:3] != (1, 1):
            raise InputError(
                f"psfs must have shape (n, P, P) here, one PSF for each exposure, but hold "
                f"{tuple(stack.psfs.shape[1:3])} cells; average over them."
            )
        return cls(stack.psfs, stack.shape, target_fwhm)

    def _inverse(self, target: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(target)

    def convolve(self, latent: torch.Tensor, otfs: torch.Tensor) -> torch.Tensor:
        """Convolve latent images.

        Parameters
        ----------
        latent
            Shape (..., *latent_shape).
        otfs
            Transforms of kernels as `transfer` makes them, of a shape that
            broadcasts.

        Returns
        -------
        convolved : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return torch.fft.irfft2(torch.fft.rfft2(latent) * otfs, s=self.latent_shape)

    def constrained(self, weights: torch.Tensor) -> torch.Tensor:
        """Tell which latent pixels the data constrain.

        Parameters
        ----------
        weights
            Shape (n, H, W), 0 where a pixel is not used.

        Returns
        -------
        constrained : `torch.Tensor`
            Shape latent_shape, bool, `True` where the response of the data to
            light in the pixel is above 0.1 percent of the best.
        """
        response = self.adjoint(weights)
        return response > _MIN_SENSITIVITY * response.max()

    def show(self, latent: torch.Tensor, constrained: torch.Tensor) -> NDArray[np.float32]:
        """Return the image at the target PSF, on the pixels of the data.

        Parameters
        ----------
        latent
            Shape latent_shape.
        constrained
            Shape latent_shape, bool, where there are data.

        Returns
        -------
        image : `numpy.ndarray`
            Shape (H, W), float32, NaN where there are no data.
        """
        image = self.crop(self.convolve(latent, self.target_transform))
        nan = torch.full((), torch.nan)
        return torch.where(self.crop(constrained), image, nan).detach().numpy()
