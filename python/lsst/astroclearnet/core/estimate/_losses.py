# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The likelihood of the exposures."""

from __future__ import annotations

__all__ = ("huber",)

import torch


def huber(deviation: torch.Tensor, delta: float) -> torch.Tensor:
    """Return the Huber loss of deviations in units of sigma.

    It is half the square of the deviation up to ``delta`` and linear beyond
    (Huber 1964), scaled so that without outliers it is the negative
    log-likelihood of a Gaussian.

    Parameters
    ----------
    deviation
        Any shape, (data - model) / sigma.
    delta
        Deviation at which the loss turns linear.

    Returns
    -------
    loss : `torch.Tensor`
        The shape of ``deviation``.
    """
    zero = torch.zeros_like(deviation)
    return torch.nn.functional.huber_loss(deviation, zero, reduction="none", delta=delta)
