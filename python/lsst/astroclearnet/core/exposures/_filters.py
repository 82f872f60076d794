# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Smoothing and medians of images."""

from __future__ import annotations

__all__ = ("fast_length", "masked_medians", "smooth")

import scipy.fft
import torch

from ._psf_stamps import fwhm_to_sigma

_DIRECT_RADIUS = 6
"""Kernel radius in pixels above which Fourier space is faster."""


def smooth(images: torch.Tensor, fwhm: float) -> torch.Tensor:
    """Convolve images with a circular Gaussian, zero beyond the edge.

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
    """Convolve along one axis in Fourier space, zero beyond the edge."""
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


def fast_length(length: int) -> int:
    """Return the next even length with a fast Fourier transform.

    Parameters
    ----------
    length
        Minimum length.

    Returns
    -------
    fast : `int`
        A product of 2, 3 and 5.
    """
    return 2 * int(scipy.fft.next_fast_len(-(-length // 2), real=True))
