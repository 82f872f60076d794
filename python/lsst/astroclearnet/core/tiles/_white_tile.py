# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The mean of all bands in a tile, and its errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ..estimate import BandImage
from ..joint import JointModel, WhiteEstimator


@dataclasses.dataclass(frozen=True)
class WhiteTile:
    """The mean of all bands in a tile, restored as one image.

    Attributes
    ----------
    image
        Shape (H, W), the image, without bright stars.
    errors
        Shape (k, H, W), errors of repeated observations.
    """

    image: torch.Tensor
    errors: torch.Tensor


class RepeatedWhite:
    """The mean of all bands, with its errors in repeated observations.

    Parameters
    ----------
    model
        The joint model.
    white
        Restores the mean.
    joint
        Joint images of the bands, which are the sky of the observations.
    """

    def __init__(self, model: JointModel, white: WhiteEstimator, joint: Sequence[torch.Tensor]) -> None:
        self._model = model
        self._white = white
        self._sky = white.mean(joint)
        self._errors: list[torch.Tensor] = []

    def combine(self, bands: Sequence[BandImage]) -> list[torch.Tensor]:
        """Return joint images of an observation, and keep the error of the
        mean.

        Parameters
        ----------
        bands
            The bands, restored on their own.
        """
        self._errors.append(self._white.restore(bands) - self._sky)
        return self._model.combine(bands)

    def finish(self, bands: Sequence[BandImage]) -> WhiteTile:
        """Return the mean of the bands in the tile.

        Parameters
        ----------
        bands
            The bands as they were observed, restored on their own.
        """
        crop = self._white.grids[self._white.reference].crop
        return WhiteTile(crop(self._white.restore(bands)), crop(torch.stack(self._errors)))
