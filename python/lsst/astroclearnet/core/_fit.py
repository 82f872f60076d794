# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit of the network to one patch, on exposures that it does not see."""

from __future__ import annotations

__all__ = ("FitHistory", "ProgressCallback", "fit_network")

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence

import torch

from ._losses import huber
from ._network import MixingNetwork
from ._options import FitOptions
from ._samples import TrainingSample

_LOG = logging.getLogger(__name__)

_SIGNIFICANT_GAIN = 1.0
"""Gain of validation log-likelihood that counts as progress."""

_NUM_DECAYS = 2
"""How often the step size is cut, at a stand-still, before the fit ends."""

_DECAY = 0.3

type ProgressCallback = Callable[[int, float, float], None]


@dataclasses.dataclass
class FitHistory:
    """What happened during a fit.

    Attributes
    ----------
    loss
        For each epoch, mean Huber loss a pixel on the exposures held out of
        what the network saw, over the pixels it was fitted to.
    validation_loss
        The same over the pixels it was not fitted to.
    learning_rate
        Step size in each epoch.
    best_epoch
        Epoch whose parameters were kept, -1 without a fit.
    stop_reason
        Why the fit ended, in words.
    """

    loss: list[float] = dataclasses.field(default_factory=list)
    validation_loss: list[float] = dataclasses.field(default_factory=list)
    learning_rate: list[float] = dataclasses.field(default_factory=list)
    best_epoch: int = -1
    stop_reason: str = "not fitted"

    @property
    def converged(self) -> bool:
        """Whether the fit ended by itself (`bool`)."""
        return self.stop_reason == "converged"


def fit_network(
    network: MixingNetwork,
    samples: Sequence[TrainingSample],
    options: FitOptions,
    *,
    generator: torch.Generator,
    callback: ProgressCallback | None = None,
) -> FitHistory:
    """Minimise the masked Huber likelihood of the held-out exposures.

    The network sees some exposures and predicts the others.  Their noise is
    independent of what it saw, so the expected minimum is the best predictor
    of the noiseless sky in its class, and there is no iteration at which the
    fit starts to copy noise (Lehtinen et al. 2018, arXiv 1803.04189).  That
    the parameters do not follow the pixels of a small patch is watched on
    blocks of pixels that are left out of the fit.  Adam runs until the
    log-likelihood of those blocks stands still; the step size is then cut,
    and in the end the best parameters seen are restored.

    Parameters
    ----------
    network
        The network, changed in place.
    samples
        What it sees and what it has to predict, at least one.
    options
        Settings of the fit.
    generator
        Source of random numbers, on the CPU.
    callback
        Called after each epoch with its number, loss and validation loss.

    Returns
    -------
    history : `FitHistory`
        Losses and the reason of the stop.
    """
    history = FitHistory()
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    best_loss, best_state = float("inf"), copy.deepcopy(network.state_dict())
    waited = decays = 0
    for epoch in range(options.max_epochs):
        history.learning_rate.append(optimizer.param_groups[0]["lr"])
        order = torch.randperm(len(samples), generator=generator).tolist()
        steps = [_step(network, samples[k], optimizer, options.huber_delta) for k in order]
        sums = torch.stack(steps).sum(dim=0)
        loss, validation_loss = (float(sums[i] / sums[i + 1].clamp(min=1)) for i in (0, 2))
        history.loss.append(loss)
        history.validation_loss.append(validation_loss)
        if callback is not None:
            callback(epoch, loss, validation_loss)
        # A tiny patch may have too few pixels to set some aside.
        total = float(sums[2] if sums[3] else sums[0])
        waited = 0 if total < best_loss - _SIGNIFICANT_GAIN else waited + 1
        if total < best_loss:
            best_loss, best_state = total, copy.deepcopy(network.state_dict())
            history.best_epoch = epoch
        if waited >= options.patience:
            if decays == _NUM_DECAYS:
                history.stop_reason = "converged"
                break
            decays, waited = decays + 1, 0
            for group in optimizer.param_groups:
                group["lr"] *= _DECAY
    else:
        history.stop_reason = f"reached max_epochs={options.max_epochs}"
        _LOG.warning("The fit %s before it converged.", history.stop_reason)
    network.load_state_dict(best_state)
    return history


def _step(
    network: MixingNetwork, sample: TrainingSample, optimizer: torch.optim.Optimizer, delta: float
) -> torch.Tensor:
    """Make one step; return sums of loss and pixels, fitted and set aside."""
    predicted = sample.model.predict(network(sample.bank), sample.held_out)
    loss = huber((sample.images - predicted) * sample.inverse_sigma, delta)
    used = sample.inverse_sigma > 0
    fitted, aside = used & ~sample.validation, used & sample.validation
    objective = loss[fitted].sum()
    optimizer.zero_grad()
    (objective / fitted.sum().clamp(min=1)).backward()
    optimizer.step()
    sums = [objective.detach(), fitted.sum(), loss[aside].sum().detach(), aside.sum()]
    return torch.stack([s.double() for s in sums]).cpu()
