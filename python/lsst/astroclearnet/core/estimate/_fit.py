# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit of the network to a patch, on exposures that it does not see."""

from __future__ import annotations

__all__ = ("FitHistory", "ProgressCallback", "fit_network", "held_out_loss", "held_out_residuals")

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence

import torch

from .._options import FitOptions
from ._bank import FilterBank
from ._network import MixingNetwork
from ._samples import TrainingSample

_LOG = logging.getLogger(__name__)

_NUM_DECAYS = 4
"""Learning-rate reductions on plateau before the fit stops."""

_MIN_STEPS = 12
"""Least number of steps in an epoch."""

_MAX_PREDICTED = 16
"""Largest number of held-out exposures that a step predicts: its cost does not
grow with the number of exposures."""

type ProgressCallback = Callable[[int, float, float], None]


@dataclasses.dataclass
class FitHistory:
    """Losses of a fit.

    Attributes
    ----------
    loss
        Mean Huber loss a pixel on the held-out exposures, after each epoch,
        over the pixels that are fitted; first that of the initial parameters.
    validation_loss
        The same over the pixels that are not fitted.
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
        """Number of epochs (`int`)."""
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
    """Minimise the masked Huber loss of the held-out exposures.

    The network sees some exposures and predicts the others.  Their noise is
    independent of what it saw, so the expected minimum is the best predictor
    of the noiseless sky in its class, and there is no iteration at which the
    fit starts to copy noise (Lehtinen et al. 2018, arXiv 1803.04189).
    Overfitting of a small patch is watched on blocks of pixels that are left
    out of the fit: the learning rate is reduced when their loss reaches a
    plateau, and in the end the best parameters are restored.

    Parameters
    ----------
    network
        The network, changed in place.
    samples
        At least one.
    options
        Settings of the fit.
    generator
        Source of random numbers, on the CPU.
    callback
        Called after each epoch with its number, loss and validation loss.

    Returns
    -------
    history : `FitHistory`
        Losses, and why the fit stopped.
    """
    history = FitHistory()
    # With a smaller epsilon rounding errors of parameters that hardly matter
    # grow until they show in the image.
    optimizer = torch.optim.Adam(network.parameters(), options.learning_rate, eps=1e-4)
    best = _evaluate(network, samples, options.huber_delta, history)
    best_state, history.best_epoch = copy.deepcopy(network.state_dict()), 0
    waited = decays = 0
    for epoch in range(1, options.max_epochs + 1):
        for k in _epoch_order(len(samples), generator):
            _step(network, samples[k].draw(_MAX_PREDICTED, generator), optimizer, options.huber_delta)
        total = _evaluate(network, samples, options.huber_delta, history)
        if callback is not None:
            callback(epoch, history.loss[-1], history.validation_loss[-1])
        # A gain of 1 in log-likelihood is significant; of many pixels the
        # relative gain decides.
        gained = best - total > max(1.0, 5e-5 * best)
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
                group["lr"] *= 0.5
    else:
        history.stop_reason = f"reached max_epochs={options.max_epochs}"
        _LOG.warning("The fit %s before it converged.", history.stop_reason)
    network.load_state_dict(best_state)
    return history


def _epoch_order(number: int, generator: torch.Generator) -> list[int]:
    """Return shuffled samples, several times over where there are few."""
    passes = -(-_MIN_STEPS // number)
    return [k for _ in range(passes) for k in torch.randperm(number, generator=generator).tolist()]


def held_out_loss(
    network: Callable[[FilterBank], torch.Tensor], sample: TrainingSample, delta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how well a network predicts the exposures that it does not see.

    Parameters
    ----------
    network
        From a bank to an image.
    sample
        What the network sees, and what it has to predict.
    delta
        Residual in sigma from which the loss is linear.

    Returns
    -------
    loss : `torch.Tensor`
        Shape (k, h, w), Huber loss of each pixel.
    used : `torch.Tensor`
        Shape (k, h, w), bool, pixels that count.
    """
    deviation = held_out_residuals(network, sample)
    loss = torch.nn.functional.huber_loss(
        deviation, torch.zeros_like(deviation), reduction="none", delta=delta
    )
    return loss, sample.inverse_sigma > 0


def held_out_residuals(network: Callable[[FilterBank], torch.Tensor], sample: TrainingSample) -> torch.Tensor:
    """Return by how much exposures deviate from the prediction of a network
    that does not see them.

    Parameters
    ----------
    network
        From a bank to an image.
    sample
        What the network sees, and what it has to predict.

    Returns
    -------
    deviation : `torch.Tensor`
        Shape (k, h, w), in sigma; 0 for pixels that do not count.
    """
    predicted = sample.model.predict(network(sample.bank), sample.held_out)
    return (sample.images - predicted) * sample.inverse_sigma


def _step(
    network: MixingNetwork, sample: TrainingSample, optimizer: torch.optim.Optimizer, delta: float
) -> None:
    """Make a step of the optimiser."""
    loss, used = held_out_loss(network, sample, delta)
    fitted = used & ~sample.validation
    optimizer.zero_grad()
    ((loss * fitted).sum() / fitted.sum().clamp(min=1)).backward()
    # Single bright stars make larger gradients.
    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.05)
    optimizer.step()


@torch.no_grad()
def _evaluate(
    network: MixingNetwork, samples: Sequence[TrainingSample], delta: float, history: FitHistory
) -> float:
    """Add an entry to the history; return the validation loss."""
    sums = []
    for sample in samples:
        loss, used = held_out_loss(network, sample, delta)
        fitted, aside = used & ~sample.validation, used & sample.validation
        sums.append([(loss * fitted).sum(), fitted.sum(), (loss * aside).sum(), aside.sum()])
    fitted_loss, num_fitted, aside_loss, num_aside = torch.tensor(sums, dtype=torch.float64).sum(dim=0)
    history.loss.append(float(fitted_loss / num_fitted.clamp(min=1)))
    history.validation_loss.append(float(aside_loss / num_aside.clamp(min=1)))
    # A tiny patch may have too few pixels to set some aside.
    return float(aside_loss if num_aside else fitted_loss)
