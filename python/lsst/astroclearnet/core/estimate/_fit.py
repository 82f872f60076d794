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

from .._options import FitOptions
from ._network import MixingNetwork
from ._samples import TrainingSample

_LOG = logging.getLogger(__name__)

_SIGNIFICANT_GAIN = 1.0
"""Gain of validation log-likelihood that counts as progress."""

_RELATIVE_GAIN = 5e-5
"""The same relative to the loss, which decides for many pixels."""

_NUM_DECAYS = 4
"""How often the step size is cut, at a stand-still, before the fit ends."""

_DECAY = 0.5

_MIN_STEPS = 12
"""Least number of steps in an epoch."""

_ADAM_EPSILON = 1e-4
"""Gradients below it count little: with less, rounding errors of parameters
that hardly matter grow until they show in the image."""

_LARGEST_GRADIENT = 0.05
"""Norm to which gradients are cut: single bright stars make larger ones."""

_MAX_PREDICTED = 16
"""Largest number of held-out exposures that a step predicts."""

type ProgressCallback = Callable[[int, float, float], None]


@dataclasses.dataclass
class FitHistory:
    """What happened during a fit.

    Attributes
    ----------
    loss
        After each epoch, mean Huber loss a pixel on the exposures held out of
        what the network sees, over the pixels it is fitted to; the first
        entry is that of the initial parameters.
    validation_loss
        The same over the pixels it is not fitted to.
    best_epoch
        Epoch whose parameters were kept, 0 for the initial ones, -1 without a
        fit.
    stop_reason
        Why the fit ended, in words.
    """

    loss: list[float] = dataclasses.field(default_factory=list)
    validation_loss: list[float] = dataclasses.field(default_factory=list)
    best_epoch: int = -1
    stop_reason: str = "not fitted"

    @property
    def num_epochs(self) -> int:
        """Number of epochs that were made (`int`)."""
        return max(0, len(self.loss) - 1)

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
    optimizer = torch.optim.Adam(network.parameters(), options.learning_rate, eps=_ADAM_EPSILON)
    best = _evaluate(network, samples, options.huber_delta, history)
    best_state, history.best_epoch = copy.deepcopy(network.state_dict()), 0
    waited = decays = 0
    for epoch in range(1, options.max_epochs + 1):
        for k in _epoch_order(len(samples), generator):
            _step(network, samples[k].draw(_MAX_PREDICTED, generator), optimizer, options.huber_delta)
        total = _evaluate(network, samples, options.huber_delta, history)
        if callback is not None:
            callback(epoch, history.loss[-1], history.validation_loss[-1])
        gained = best - total > max(_SIGNIFICANT_GAIN, _RELATIVE_GAIN * best)
        waited = 0 if gained else waited + 1
        if total < best:
            best, best_state, history.best_epoch = total, copy.deepcopy(network.state_dict()), epoch
        if waited >= options.patience:
            if decays == _NUM_DECAYS:
                history.stop_reason = "converged"
                break
            decays, waited = decays + 1, 0
            network.load_state_dict(best_state)
            for group in optimizer.param_groups:
                group["lr"] *= _DECAY
    else:
        history.stop_reason = f"reached max_epochs={options.max_epochs}"
        _LOG.warning("The fit %s before it converged.", history.stop_reason)
    network.load_state_dict(best_state)
    return history


def _epoch_order(number: int, generator: torch.Generator) -> list[int]:
    """Return shuffled samples, several times over where there are few."""
    passes = -(-_MIN_STEPS // number)
    return [k for _ in range(passes) for k in torch.randperm(number, generator=generator).tolist()]


def _losses(
    network: MixingNetwork, sample: TrainingSample, delta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of each pixel, and which are fitted and set aside."""
    predicted = sample.model.predict(network(sample.bank), sample.held_out)
    deviation = (sample.images - predicted) * sample.inverse_sigma
    zero = torch.zeros_like(deviation)
    loss = torch.nn.functional.huber_loss(deviation, zero, reduction="none", delta=delta)
    used = sample.inverse_sigma > 0
    return loss, used & ~sample.validation, used & sample.validation


def _step(
    network: MixingNetwork, sample: TrainingSample, optimizer: torch.optim.Optimizer, delta: float
) -> None:
    loss, fitted, _ = _losses(network, sample, delta)
    optimizer.zero_grad()
    ((loss * fitted).sum() / fitted.sum().clamp(min=1)).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
    optimizer.step()


@torch.no_grad()
def _evaluate(
    network: MixingNetwork, samples: Sequence[TrainingSample], delta: float, history: FitHistory
) -> float:
    """Add an entry to the history; return the loss that decides."""
    sums = []
    for sample in samples:
        loss, fitted, aside = _losses(network, sample, delta)
        sums.append([(loss * fitted).sum(), fitted.sum(), (loss * aside).sum(), aside.sum()])
    fitted_loss, num_fitted, aside_loss, num_aside = torch.tensor(sums, dtype=torch.float64).sum(dim=0)
    history.loss.append(float(fitted_loss / num_fitted.clamp(min=1)))
    history.validation_loss.append(float(aside_loss / num_aside.clamp(min=1)))
    # A tiny patch may have too few pixels to set some aside.
    return float(aside_loss if num_aside else fitted_loss)
