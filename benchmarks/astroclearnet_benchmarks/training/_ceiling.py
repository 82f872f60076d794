# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training on the truth, which no survey has: the ceiling of a network."""

from __future__ import annotations

__all__ = ()

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from lsst.astroclearnet.core.estimate import FilterBank, TrainingSample
from lsst.astroclearnet.core.training import Trainer


@dataclasses.dataclass(frozen=True)
class TrueSample(TrainingSample):
    """A sample that knows the truth.

    Attributes
    ----------
    truth
        The sky at the target PSF where exposures are held out, shape (h, w),
        in the unit of the exposures.
    """

    truth: torch.Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0, 0))

    @classmethod
    def from_sample(cls, sample: TrainingSample, truth: npt.NDArray[np.floating]) -> TrueSample:
        """Return a sample with the truth.

        Parameters
        ----------
        sample
            The sample.
        truth
            The truth of the whole patch, shape (H, W).
        """
        row, column = sample.origin
        height, width = sample.model.shape
        cut = np.ascontiguousarray(truth[row : row + height, column : column + width], dtype=np.float32)
        return cls(
            **{f.name: getattr(sample, f.name) for f in dataclasses.fields(sample)},
            truth=torch.from_numpy(cut),
        )


class TrueTrainer(Trainer):
    """Training on `TrueSample`."""

    def _deviation(
        self, network: Callable[[FilterBank], torch.Tensor], sample: TrainingSample
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return deviations from the truth in the noise of the estimate of
        the middle penalty weight, where there are data.
        """
        assert isinstance(sample, TrueSample)
        bank, model = sample.bank, sample.model
        sigma = model.crop(bank.noise[bank.num_solved // 2] * bank.relative_noise)
        deviation = (model.crop(network(bank)) - sample.truth) / sigma
        return deviation[None], model.crop(bank.relative_weight)[None] > 0
