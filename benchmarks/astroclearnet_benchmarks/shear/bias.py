# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The bias of shear that moments of galaxies show."""

from __future__ import annotations

__all__ = ("Bias", "measure_bias")

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..record import Figure
from .measure import Shapes

_NUM_SAMPLES = 2000
"""Samples of the bootstrap; the errors are then known to 2 %."""


class Bias(NamedTuple):
    """Biases of an ensemble of galaxies, with their standard errors."""

    shear: Figure
    """Difference of the ellipticities at both shears over that of the truth,
    less 1."""

    moment: Figure
    """The same of the moments along the shear, not divided by sizes."""

    along: Figure
    """Mean of the ellipticities at both shears, less that of the truth."""

    across: Figure
    """The same of the other component."""


def measure_bias(fields: Sequence[Shapes]) -> Bias:
    """Measure the bias of the shear of galaxies.

    The ellipticity of an ensemble is the ratio of the sums of its moments,
    which has no noise bias to speak of.  Errors are from a bootstrap over
    galaxies, each with its two orientations at both shears.

    Parameters
    ----------
    fields
        Moments of galaxies, all of which are one ensemble.

    Returns
    -------
    bias : `Bias`
        The biases.
    """
    recovered, true = (
        np.concatenate([getattr(field, name) for field in fields], axis=1) for name in ("recovered", "true")
    )
    number = recovered.shape[1]
    chosen = np.random.default_rng(0).integers(number, size=(_NUM_SAMPLES, number))
    sums = [
        np.concatenate([m.sum(axis=1, keepdims=True), m[:, chosen].sum(axis=2)], axis=1)
        for m in (recovered, true)
    ]
    return Bias(*(_figure(values) for values in _biases(*sums)))


def _biases(
    recovered: npt.NDArray[np.float64], true: npt.NDArray[np.float64]
) -> list[npt.NDArray[np.float64]]:
    """Return the biases of sums of moments, of shape (2, k, 3)."""
    found, expected = (m[..., :2] / m[..., 2:] for m in (recovered, true))
    offset = (found - expected).mean(axis=0)
    return [
        (found[0] - found[1])[:, 0] / (expected[0] - expected[1])[:, 0] - 1.0,
        (recovered[0] - recovered[1])[:, 0] / (true[0] - true[1])[:, 0] - 1.0,
        offset[:, 0],
        offset[:, 1],
    ]


def _figure(values: npt.NDArray[np.float64]) -> Figure:
    """Return the first value, and the scatter of the others as its error."""
    return float(values[0]), float(values[1:].std())
