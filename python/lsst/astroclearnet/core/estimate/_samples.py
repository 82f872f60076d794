# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training samples: squares of the patch with some exposures held out."""

from __future__ import annotations

__all__ = ("TrainingSample", "make_samples", "sample_boxes")

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


@dataclasses.dataclass(frozen=True)
class TrainingSample:
    """A sample: what the network sees, and what it has to predict.

    Attributes
    ----------
    bank
        Estimates from the exposures that the network sees.
    model
        Forward model of all exposures of the sample.
    held_out
        Shape (k,), indices of the exposures that it does not see.
    images
        Shape (k, h, w), the held-out exposures.
    inverse_sigma
        Shape (k, h, w), 1 / sigma, 0 where a pixel is not used.
    validation
        Shape (k, h, w), bool, pixels that are left out of the fit.
    num_seen
        Number of exposures that the network sees.
    origin
        Row and column, on the image that the sample was cut from, of the
        first pixel that the model covers.
    """

    bank: FilterBank
    model: ForwardModel
    held_out: torch.Tensor
    images: torch.Tensor
    inverse_sigma: torch.Tensor
    validation: torch.Tensor
    num_seen: int
    origin: tuple[int, int] = (0, 0)

    def draw(self, number: int, generator: torch.Generator) -> TrainingSample:
        """Draw some of the held-out exposures.

        Parameters
        ----------
        number
            Largest number of exposures.
        generator
            Source of random numbers, on the CPU.
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


def sample_boxes(shape: tuple[int, int], size: int, generator: torch.Generator) -> list[tuple[slice, slice]]:
    """Return boxes of a regular grid that covers a patch, in random order.

    A patch of less than two boxes is one.

    Parameters
    ----------
    shape
        Height and width of the patch in pixels.
    size
        Side of a box in pixels.
    generator
        Source of random numbers.
    """
    # Two boxes would have more pixels.
    if shape[0] * shape[1] <= 2 * size**2:
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
    # The first permutation is not used: with it a seed keeps its image.
    torch.randperm(len(grid), generator=generator)
    return [grid[k] for k in torch.randperm(len(grid), generator=generator).tolist()]


def make_samples(
    stack: ExposureStack,
    weights: torch.Tensor,
    model: ForwardModel,
    penalty_weights: tuple[float, ...],
    options: FitOptions,
    generator: torch.Generator,
    most: int | None = None,
) -> list[TrainingSample]:
    """Make samples of a square of the patch, each exposure held out of one.

    There is none where the exposures seen or those held out have no data.

    Parameters
    ----------
    stack
        At least two exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    model
        Their forward model.
    penalty_weights
        Those of the filter bank.
    options
        Settings of the fit.
    generator
        Source of random numbers.
    most
        Largest number of samples; by default one for each fold.
    """
    samples: list[TrainingSample] = []
    validation = model.sampling.look_up(_validation_blocks(model.shape, generator).to(stack.device))
    for seen, held_out in _deal_folds(stack.num_exposures, options.num_folds, generator):
        if len(samples) == most:
            break
        if not (bool(weights[seen].any()) and bool(weights[held_out].any())):
            continue
        seen, held_out = seen.to(stack.device), held_out.to(stack.device)
        try:
            estimator = LinearEstimator(model, weights, seen)
        except NoUsableDataError:
            # The pixels that are seen are too few to cover one of the patch.
            continue
        right = estimator.right_side(stack.images)
        estimates = estimator.solve(right, penalty_weights, precision=_PRECISION)
        samples.append(
            TrainingSample(
                bank=FilterBank.build(estimator, estimates, penalty_weights),
                model=model,
                held_out=held_out,
                images=stack.images[held_out],
                inverse_sigma=weights[held_out].sqrt(),
                validation=validation[held_out],
                num_seen=len(seen),
            )
        )
    return samples


def _deal_folds(
    num_exposures: int, num_folds: int, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return sorted indices of the exposures seen and held out, by fold."""
    order = torch.randperm(num_exposures, generator=generator)
    folds = []
    for k in range(min(num_folds, num_exposures)):
        held_out = torch.zeros(num_exposures, dtype=torch.bool)
        held_out[order[k::num_folds]] = True
        folds.append(((~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]))
    return folds


def _validation_blocks(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Choose a fifth of the blocks of 8 x 8 pixels, (H, W), bool."""
    rows, columns = (-(-s // 8) for s in shape)
    chosen = torch.rand(rows, columns, generator=generator) < 0.2
    full = chosen.repeat_interleave(8, 0).repeat_interleave(8, 1)
    return full[: shape[0], : shape[1]]
