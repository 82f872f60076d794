# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the restorers that fit a network have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from ..core import ExposureStack
from ..core.exposures import masked_medians


def noise_unit(stack: ExposureStack) -> float:
    """Return the sky noise of all exposures together.

    Parameters
    ----------
    stack
        The exposures.

    Returns
    -------
    unit : `float`
        Standard deviation of their inverse-variance mean at full depth, in
        their unit, so that networks do not depend on that unit.
    """
    medians = masked_medians(stack.variances, stack.good, torch.inf)
    return float((1.0 / medians).sum()) ** -0.5


def descend(
    network: nn.Module,
    render: Callable[[], torch.Tensor],
    loss: Callable[[torch.Tensor], torch.Tensor],
    *,
    stops: tuple[int, ...],
    learning_rate: float,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Fit a network by Adam.

    Parameters
    ----------
    network
        The network, whose parameters change.
    render
        Returns the latent image of the network as it is.
    loss
        Returns what to minimise, given the latent image.
    stops
        Numbers of iterations at which to hand over the latent image.
    learning_rate
        Step of Adam.

    Yields
    ------
    iteration : `int`
        Number of iterations done.
    latent : `torch.Tensor`
        The latent image after them, without gradient.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for iteration in range(stops[-1] + 1):
        latent = render()
        if iteration in stops:
            yield iteration, latent.detach()
        if iteration < stops[-1]:
            optimizer.zero_grad()
            loss(latent).backward()
            optimizer.step()
