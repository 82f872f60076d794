# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Correction of flux scales and positions."""

from __future__ import annotations

import dataclasses
import math

import torch

from ..exposures import ExposureStack


def align_exposures(stack: ExposureStack, offsets: torch.Tensor) -> ExposureStack:
    """Correct flux scales and positions of exposures.

    Parameters
    ----------
    stack
        The exposures.
    offsets
        Shape (3, n), by how much they depart from the others: relative flux
        scale and shifts along rows and columns, in pixels of the patch.

    Returns
    -------
    stack : `ExposureStack`
        Exposures with fluxes divided by their scale, and with PSFs off their
        centre by the shift, which leaves the pixels where they are.
    """
    scale = 1.0 / (1.0 + offsets[0].to(stack.images))[:, None, None]
    return dataclasses.replace(
        stack,
        images=stack.images * scale,
        variances=torch.where(stack.good, stack.variances * scale**2, stack.variances),
        psfs=_shifted(stack.psfs, offsets[1:].T.to(stack.psfs)),
    )


def _shifted(psfs: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Shift PSFs, (n, cells_y, cells_x, P, P), by (n, 2) pixels."""
    size = psfs.shape[-1]
    # Padded so that nothing comes in at the other side.
    ky = torch.fft.fftfreq(2 * size, dtype=psfs.dtype, device=psfs.device)[:, None]
    kx = torch.fft.rfftfreq(2 * size, dtype=psfs.dtype, device=psfs.device)
    angle = -2.0 * math.pi * (shifts[:, 0, None, None] * ky + shifts[:, 1, None, None] * kx)
    phase = torch.polar(torch.ones_like(angle), angle)[:, None, None]
    moved = torch.fft.irfft2(torch.fft.rfft2(psfs, s=(2 * size, 2 * size)) * phase, s=(2 * size, 2 * size))
    return moved[..., :size, :size]
