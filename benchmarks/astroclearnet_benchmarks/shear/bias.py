# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The bias of shear that moments of galaxies show."""

from __future__ import annotations

__all__ = ("Bias", "ResponseBias", "measure_bias", "measure_response_bias")

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..record import Figure
from .fields import SHEAR
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


class ResponseBias(NamedTuple):
    """Biases of shears from responses, with their standard errors."""

    shear: Figure
    """Difference of the shears over the true one, less 1."""

    over_truth: Figure
    """The same, less that of the truth measured in the same way."""

    along: Figure
    """Mean of the shears at both signs."""

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
    return Bias(*(_figure(values) for values in _biases(*_resample(recovered, true))))


def measure_response_bias(
    recovered: Sequence[npt.NDArray[np.float64]], true: Sequence[npt.NDArray[np.float64]]
) -> ResponseBias:
    """Measure the bias of shears that follow from responses.

    The shear of an ensemble is the ratio of the sums of its ellipticities and
    of their responses.  Errors are from a bootstrap over galaxies, the same
    for the truth.

    Parameters
    ----------
    recovered, true
        Ellipticities and responses of fields on an image and on the truth,
        each of shape (2, n, 4): see `measure_responses`.

    Returns
    -------
    bias : `ResponseBias`
        The biases.
    """
    sums = _resample(*(np.concatenate(list(fields), axis=1) for fields in (recovered, true)))
    shears = [m[..., :2] / m[..., 2:] for m in sums]
    found, expected = ((g[0] - g[1])[:, 0] / (2.0 * SHEAR) - 1.0 for g in shears)
    offset = shears[0].mean(axis=0)
    figures = (found, found - expected, offset[:, 0], offset[:, 1])
    return ResponseBias(*(_figure(values) for values in figures))


def _resample(*values: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Return sums over all galaxies, and over those of samples, from values of
    shape (2, n, m): shape (2, 1 + samples, m).
    """
    number = values[0].shape[1]
    chosen = np.random.default_rng(0).integers(number, size=(_NUM_SAMPLES, number))
    counts = np.stack([np.bincount(sample, minlength=number) for sample in chosen])
    weights = np.concatenate([np.ones((1, number)), counts])
    return [weights @ v for v in values]


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
