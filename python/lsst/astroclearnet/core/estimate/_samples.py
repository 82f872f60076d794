# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the network is fitted to: parts of the patch, exposures held out."""

from __future__ import annotations

__all__ = ("TrainingSample", "deal_folds", "draw_windows", "make_samples")

import dataclasses

import torch

from .._errors import NoUsableDataError
from .._options import FitOptions
from ..exposures import ExposureStack
from ..forward import ForwardModel
from ._bank import FilterBank
from ._linear import LinearEstimator
from ._precision import Precision

_PRECISION = Precision(light=2e-2, noise=0.1)
"""Of estimates that a network is fitted to."""

_VALIDATION_BLOCK = 8
"""Side, in pixels, of the blocks of pixels set aside for validation."""

_VALIDATION_FRACTION = 0.2

_WHOLE_PATCH = 1.4
"""A patch up to this many times the area of a window is fitted whole."""


@dataclasses.dataclass(frozen=True)
class TrainingSample:
    """What the network sees and what it has to predict.

    Attributes
    ----------
    bank
        Estimates from the exposures that the network sees.
    model
        Forward model of all exposures in the window.
    held_out
        Shape (k,), indices of the exposures that it does not see.
    images
        Shape (k, h, w), the held-out exposures.
    inverse_sigma
        Shape (k, h, w), 1 / sigma, 0 where a pixel is not used.
    validation
        Shape (k, h, w), bool, pixels that are left out of the fit.
    """

    bank: FilterBank
    model: ForwardModel
    held_out: torch.Tensor
    images: torch.Tensor
    inverse_sigma: torch.Tensor
    validation: torch.Tensor

    def draw(self, number: int, generator: torch.Generator) -> TrainingSample:
        """Return the sample with some of the held-out exposures.

        Parameters
        ----------
        number
            Largest number of exposures.
        generator
            Source of random numbers, on the CPU; drawn from only where there
            are more.

        Returns
        -------
        sample : `TrainingSample`
            The sample, this one where it has no more.
        """
        if len(self.held_out) <= number:
            return self
        chosen = torch.randperm(len(self.held_out), generator=generator)[:number].sort().values
        chosen = chosen.to(self.held_out.device)
        return dataclasses.replace(
            self,
            held_out=self.held_out[chosen],
            images=self.images[chosen],
            inverse_sigma=self.inverse_sigma[chosen],
            validation=self.validation[chosen],
        )


def deal_folds(
    num_exposures: int, num_folds: int, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Deal exposures into groups, each in turn held out.

    Parameters
    ----------
    num_exposures
        Number of exposures, at least 2.
    num_folds
        Number of groups; no more than exposures are made.
    generator
        Source of random numbers.

    Returns
    -------
    folds : `list` [`tuple` [`torch.Tensor`, `torch.Tensor`]]
        Sorted indices seen and held out.  Each exposure is held out once.
    """
    order = torch.randperm(num_exposures, generator=generator)
    folds = []
    for k in range(min(num_folds, num_exposures)):
        held_out = torch.zeros(num_exposures, dtype=torch.bool)
        held_out[order[k::num_folds]] = True
        folds.append(((~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]))
    return folds


def draw_windows(
    shape: tuple[int, int], options: FitOptions, generator: torch.Generator
) -> list[tuple[slice, slice]]:
    """Draw the windows of the patch that the network is fitted to.

    Parameters
    ----------
    shape
        Height and width of the patch in pixels.
    options
        Size and number of windows.
    generator
        Source of random numbers.

    Returns
    -------
    windows : `list` [`tuple` [`slice`, `slice`]]
        Rows and columns of each window, drawn from a regular grid of windows
        that covers the patch.
    """
    size = options.sample_size
    if shape[0] * shape[1] <= _WHOLE_PATCH * size**2:
        return [(slice(0, shape[0]), slice(0, shape[1]))]
    starts = []
    for length in shape:
        number = -(-length // size)
        last = max(length - size, 0)
        starts.append([round(k * last / max(number - 1, 1)) for k in range(number)])
    grid = [
        (slice(y, min(y + size, shape[0])), slice(x, min(x + size, shape[1])))
        for y in starts[0]
        for x in starts[1]
    ]
    chosen = torch.randperm(len(grid), generator=generator)[: options.num_samples]
    return [grid[k] for k in chosen.sort().values.tolist()]


def make_samples(
    stack: ExposureStack,
    weights: torch.Tensor,
    model: ForwardModel,
    penalty_weights: tuple[float, ...],
    options: FitOptions,
    generator: torch.Generator,
) -> list[TrainingSample]:
    """Prepare all samples of a fit.

    Parameters
    ----------
    stack
        At least two exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    model
        Forward model of the whole patch.
    penalty_weights
        Strengths of the filter bank.
    options
        Settings of the fit.
    generator
        Source of random numbers.

    Returns
    -------
    samples : `list` [`TrainingSample`]
        One for each window and fold in which the exposures seen and those
        held out both have data.
    """
    samples = []
    for rows, columns in draw_windows(stack.shape, options, generator):
        window_model = model.window(rows, columns)
        images, weight = (window_model.sampling.cut(data) for data in (stack.images, weights))
        blocks = _validation_blocks(window_model.shape, generator).to(stack.device)
        validation = window_model.sampling.look_up(blocks).expand_as(images)
        for seen, held_out in deal_folds(stack.num_exposures, options.num_folds, generator):
            if not (bool(weight[seen].any()) and bool(weight[held_out].any())):
                continue
            seen, held_out = seen.to(stack.device), held_out.to(stack.device)
            try:
                estimator = LinearEstimator(window_model, weight, seen)
                right = estimator.right_side(images)
                estimates = estimator.solve(right, penalty_weights, precision=_PRECISION)
                bank = FilterBank.build(estimator, estimates, penalty_weights)
            except NoUsableDataError:
                # The pixels that are seen are too few to cover one of the
                # patch.
                continue
            samples.append(
                TrainingSample(
                    bank=bank,
                    model=window_model,
                    held_out=held_out,
                    images=images[held_out],
                    inverse_sigma=weight[held_out].sqrt(),
                    validation=validation[held_out],
                )
            )
    return samples


def _validation_blocks(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    rows, columns = (-(-s // _VALIDATION_BLOCK) for s in shape)
    chosen = torch.rand(rows, columns, generator=generator) < _VALIDATION_FRACTION
    full = chosen.repeat_interleave(_VALIDATION_BLOCK, 0).repeat_interleave(_VALIDATION_BLOCK, 1)
    return full[: shape[0], : shape[1]]
