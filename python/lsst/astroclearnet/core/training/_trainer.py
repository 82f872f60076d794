# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the restoration network on exposures that it does not see."""

from __future__ import annotations

__all__ = ("Trainer",)

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .._options import TrainingOptions
from ..estimate import FilterBank, RestorationNetwork, TrainingSample, held_out_residuals
from ..exposures import smooth

_AVERAGING = 0.999
"""Decay in a step of the moving average of the weights."""

_WARM_UP = 200
"""Steps in which the learning rate rises."""

_EVEN_LIGHT = (0.3, 3e4)
"""Least and most light that is added to a sample everywhere, in units of the
noise of the estimate of the strongest penalty, up to that of a bright nebula:
an image of smooth light has the same structure at any level."""


class Trainer:
    """Training that can be stopped and continued after any step.

    The network sees some exposures and predicts the others, whose noise is
    independent of what it saw, so that the expected minimum of the loss is the
    best predictor of the noiseless sky in its class (Lehtinen et al. 2018,
    arXiv 1803.04189).  The order of the samples and their reflections follow
    from the seed and the step.

    Parameters
    ----------
    penalty_weights
        Those of the filter bank.
    options
        Settings.
    seed
        Seed of the initial weights and the order of the samples.
    device
        Where to train.

    Attributes
    ----------
    network
        The network with the average of recent weights.
    step
        Number of steps that were made.
    """

    _even_light_share = 0.25
    """Share of the samples that even light is added to.  Chosen, not measured:
    most of the sky is dark."""

    def __init__(
        self, penalty_weights: tuple[float, ...], options: TrainingOptions, *, seed: int, device: torch.device
    ) -> None:
        self._options = options
        self._seed = seed
        self._current = self._make_network(penalty_weights)
        self._current.initialize(torch.Generator().manual_seed(seed))
        self._current.to(device)
        self.network = copy.deepcopy(self._current).eval()
        self._optimizer = torch.optim.AdamW(
            self._current.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.step = 0

    @staticmethod
    def _make_network(penalty_weights: tuple[float, ...]) -> Any:
        """Return the network, without initial parameters."""
        return RestorationNetwork(penalty_weights)

    @property
    def is_done(self) -> bool:
        """Whether all steps were made (`bool`)."""
        return self.step >= self._options.num_steps

    def train(self, samples: Sequence[Any], num_steps: int) -> float:
        """Make some steps, no more than there are left.

        Parameters
        ----------
        samples
            The samples, the same ones in the same order each time.
        num_steps
            Number of steps.

        Returns
        -------
        loss : `float`
            Mean loss a pixel in these steps.
        """
        self._current.train()
        total, number = 0.0, 0
        while not self.is_done and number < num_steps:
            generator = torch.Generator().manual_seed(self._seed + self.step)
            for group in self._optimizer.param_groups:
                group["lr"] = self._options.learning_rate * self._schedule()
            self._optimizer.zero_grad()
            for _ in range(self._options.batch_size):
                sample = samples[int(torch.randint(len(samples), (), generator=generator))]
                loss = self._loss(sample, generator) / self._options.batch_size
                loss.backward()
                total += float(loss.detach())
            # Single bright stars make larger gradients.
            torch.nn.utils.clip_grad_norm_(self._current.parameters(), 0.1)
            self._optimizer.step()
            self.step += 1
            number += 1
            self._average()
        return total / max(number, 1)

    @torch.no_grad()
    def evaluate(self, samples: Sequence[Any]) -> float:
        """Return the mean loss of the averaged network on other samples.

        Parameters
        ----------
        samples
            The samples.
        """
        losses = []
        for sample in samples:
            losses.append(float(self._mean_loss(self.network, sample)))
        return sum(losses) / max(len(losses), 1)

    def state(self) -> dict[str, Any]:
        """Return what a training needs to be continued (`dict`)."""
        return {
            "step": self.step,
            "current": self._current.state_dict(),
            "average": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue a training.

        Parameters
        ----------
        state
            What `state` returned.
        """
        self.step = state["step"]
        self._current.load_state_dict(state["current"])
        self.network.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _schedule(self) -> float:
        """Return the share of the learning rate: a rise and a half cosine."""
        rise = min(1.0, (self.step + 1) / _WARM_UP)
        return rise * 0.5 * (1.0 + math.cos(math.pi * self.step / self._options.num_steps))

    def _loss(self, sample: TrainingSample, generator: torch.Generator) -> torch.Tensor:
        """Return the mean loss of a reflected or rotated sample, to some of
        which light is added.
        """
        turns, flips = torch.randint(4, (2,), generator=generator).tolist()
        is_lit, level = torch.rand(2, generator=generator).tolist()
        low, high = _EVEN_LIGHT
        light = low * (high / low) ** level if is_lit < self._even_light_share else 0.0
        return self._mean_loss(_Changed(self._current, turns, flips % 2 == 1, light), sample)

    def _mean_loss(
        self, network: Callable[[FilterBank], torch.Tensor], sample: TrainingSample
    ) -> torch.Tensor:
        """Return the mean loss over pixels, of deviations and of their detail.

        The PSFs of the exposures suppress detail of the image, which is
        learned slowly if it does not count for more.  Pixels that do not count
        have no deviation in either.
        """
        deviation, used = self._deviation(network, sample)
        detail = deviation - smooth(deviation, self._options.detail_fwhm)
        loss = self._robust(deviation) + self._options.detail_weight * self._robust(detail)
        return (loss * used).sum() / used.sum().clamp(min=1)

    def _deviation(
        self, network: Callable[[FilterBank], torch.Tensor], sample: TrainingSample
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return deviations in sigma, and which of them count."""
        return held_out_residuals(network, sample), sample.inverse_sigma > 0

    def _robust(self, deviation: torch.Tensor) -> torch.Tensor:
        """Return a loss that grows with the logarithm of the Huber loss where
        that is large: what nobody can predict, such as the core of a star that
        is masked in all exposures seen, would decide what is learned.
        """
        delta = self._options.huber_delta
        loss = torch.nn.functional.huber_loss(
            deviation, torch.zeros_like(deviation), reduction="none", delta=delta
        )
        return delta**2 * torch.log1p(loss / delta**2)

    def _average(self) -> None:
        """Add the weights to their average, from early on."""
        share = max(1.0 - _AVERAGING, 1.0 / (self.step + 1.0))
        with torch.no_grad():
            for mean, value in zip(self.network.parameters(), self._current.parameters(), strict=True):
                mean.lerp_(value, share)


class _Changed:
    """A network that sees images rotated, reflected and with more light, and
    whose image is changed back.
    """

    def __init__(
        self, network: Callable[[FilterBank], torch.Tensor], turns: int, flips: bool, light: float
    ) -> None:
        self._network = network
        self._turns = turns
        self._flips = flips
        self._light = light

    def __call__(self, bank: FilterBank) -> torch.Tensor:
        def turn(images: torch.Tensor) -> torch.Tensor:
            images = torch.rot90(images, self._turns, dims=(-2, -1))
            return (images.flip(-1) if self._flips else images).contiguous()

        light = torch.zeros(())
        if self._light:
            # All estimates keep the level of even light.
            light = self._light * bank.noise[bank.num_solved - 1]
            bank = dataclasses.replace(bank, estimates=bank.estimates + light)
        image = self._network(bank.map(turn)) - light
        image = image.flip(-1) if self._flips else image
        return torch.rot90(image, -self._turns, dims=(-2, -1))
