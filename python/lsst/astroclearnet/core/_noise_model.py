# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variances that do not follow the noise of the pixels they belong to."""

from __future__ import annotations

__all__ = ("masked_medians", "model_variances", "smooth")

import torch

from ._exposure_stack import ExposureStack
from ._kernels import fwhm_to_sigma
from ._latent_grid import fast_length
from ._local_medians import surrounding_variance
from ._own_noise import free_plane

_DIRECT_RADIUS = 6
"""Radius of a kernel in pixels above which Fourier space is faster."""


def smooth(images: torch.Tensor, fwhm: float) -> torch.Tensor:
    """Convolve images with a circular Gaussian, with zeros beyond the edge.

    Parameters
    ----------
    images
        Shape (n, H, W).
    fwhm
        FWHM of the Gaussian in pixels.

    Returns
    -------
    smoothed : `torch.Tensor`
        Shape (n, H, W).
    """
    sigma = fwhm_to_sigma(fwhm)
    radius = max(1, round(3.5 * sigma))
    r = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    profile = torch.exp(-0.5 * (r / sigma) ** 2)
    profile = profile / profile.sum()
    if radius > _DIRECT_RADIUS:
        return _convolve(_convolve(images, profile, -1), profile, -2)
    rows = torch.nn.functional.conv2d(images[:, None], profile[None, None, :, None], padding=(radius, 0))
    return torch.nn.functional.conv2d(rows, profile[None, None, None, :], padding=(0, radius))[:, 0]


def _convolve(images: torch.Tensor, profile: torch.Tensor, dim: int) -> torch.Tensor:
    """Convolve along one axis in Fourier space, with zeros beyond the edge."""
    length, radius = images.shape[dim], len(profile) // 2
    size = fast_length(max(length, radius + 1) + radius)
    # Periodic, with the middle of the profile at zero.
    kernel = torch.roll(torch.nn.functional.pad(profile, (0, size - len(profile))), -radius)
    gain = torch.fft.rfft(kernel, n=size).real
    if dim == -2:
        gain = gain[:, None]
    spectrum = torch.fft.rfft(images, n=size, dim=dim) * gain
    return torch.fft.irfft(spectrum, n=size, dim=dim).narrow(dim, 0, length)


def masked_medians(images: torch.Tensor, good: torch.Tensor, default: float) -> torch.Tensor:
    """Return the median of the good pixels of each image.

    Parameters
    ----------
    images
        Shape (n, H, W).
    good
        Shape (n, H, W), bool.
    default
        Value for an image without good pixels.

    Returns
    -------
    medians : `torch.Tensor`
        Shape (n,).
    """
    return torch.stack(
        [
            image[use].median() if bool(use.any()) else image.new_tensor(default)
            for image, use in zip(images, good, strict=True)
        ]
    )


def model_variances(stack: ExposureStack, prediction: torch.Tensor | None = None) -> torch.Tensor:
    """Return variances freed from the noise of the pixels themselves.

    The variance plane of a calibrated image holds the photon noise estimated
    from the very pixel, so that weights 1 / variance favour pixels that
    scattered low, which biases fluxes.  What a plane holds of it is removed,
    see `free_plane`; a plane that does not depend on the noise of its pixels
    is believed as it is.

    Parameters
    ----------
    stack
        The exposures.
    prediction
        Shape (n, H, W), expected brightness of each pixel.  Without it each
        variance is a median of those around, the pixel itself left out.

    Returns
    -------
    variances : `torch.Tensor`
        Shape (n, H, W), positive everywhere, also where pixels are not good.
    """
    # One exposure at a time: what is made on the way takes many times the
    # memory of the result.
    return torch.stack(
        [
            surrounding_variance(stack.variances[t], stack.good[t])
            if prediction is None
            else free_plane(stack.variances[t], stack.good[t], stack.images[t], prediction[t]).variance
            for t in range(stack.num_exposures)
        ]
    )
