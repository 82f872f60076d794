# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variances that do not follow the noise of the pixels they belong to."""

from __future__ import annotations

__all__ = ("model_variances",)

import torch

from ._local_medians import surrounding_variance
from ._own_noise import free_plane
from ._stack import ExposureStack


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
