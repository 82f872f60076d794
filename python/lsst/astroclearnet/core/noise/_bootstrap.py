# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Parametric-bootstrap errors of the estimator."""

from __future__ import annotations

__all__ = ("Observation", "RepeatedErrors", "repeat_bands", "repeat_observations")

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import torch

from .._errors import RestorationError
from ..estimate import BandImage, Estimate, Estimator, Precision, SolveStatus, collect_solves
from ..exposures import smooth
from ..forward import WEIGHT_FLOOR, ForwardModel

_STRUCTURE_FWHM = 4.0
"""FWHM in pixels above which light is smooth and continued beyond the data."""

_PRECISION = Precision(light=0.05, noise=0.03, edge_noise=0.1)
"""Of linear images of drawn noise.  At the edge of the data and in holes,
where the noise grows with each step of a solution, it is that of the linear
image itself."""

_NUM_LINEAR = 4
"""Draws of which there are linear images, unless more are kept: their squares
are averaged over many pixels, and each is solved for exactly."""

_TOGETHER = 6
"""Draws whose linear images are solved for together: as many as there are
estimates of a bank, which take as much memory."""

_NUM_COUNTED = 2
"""Draws from which the expected chi-square follows: it is a mean over so many
pixels that they suffice."""


type _Counter = Callable[[], contextlib.AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True)
class RepeatedErrors:
    """Errors of repeated observations of a known sky.

    Attributes
    ----------
    restored
        Shape (k, H, W), errors of the restored image.
    linear
        Shape (l, H, W), l <= k, errors of the linear image.
    chi_square
        Shape (n,), mean chi-square of each exposure.
    right
        Shape ``(k, *latent_shape)``, right-hand sides of the noise.
    unseen_light
        Shape (H, W), variance of the light where there are no data, 0
        elsewhere.
    """

    restored: torch.Tensor
    linear: torch.Tensor
    chi_square: torch.Tensor
    right: torch.Tensor
    unseen_light: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Observation:
    """What is observed again, and how.

    Attributes
    ----------
    estimator
        The fitted estimator.
    estimate
        Its estimate from the exposures, whose restored image is taken for the
        sky.
    noise
        Draws of the noise of the exposures, each of shape (n, h, w).
    counted
        Shape (n, h, w), 1 for the pixels that chi-square counts, 0 for
        others; all by default.
    """

    estimator: Estimator
    estimate: Estimate
    noise: Iterable[torch.Tensor]
    counted: torch.Tensor | None = None


def repeat_observations(
    estimator: Estimator,
    estimate: Estimate,
    noise: Iterable[torch.Tensor],
    counted: torch.Tensor | None = None,
) -> RepeatedErrors:
    """Observe the restored sky again and restore it (parametric bootstrap).

    The restored image is taken for the sky, observed with new noise, and
    restored by the same estimator; the difference is an error of the
    estimator, including the light that it smooths away (Efron & Tibshirani
    1993, An Introduction to the Bootstrap, section 6.5).  The error of the
    linear image is that of the noise alone, and of light where there are no
    data, which is drawn with the structure of the light around.

    Parameters
    ----------
    estimator, estimate, noise, counted
        As of `Observation`.
    """
    return repeat_bands([Observation(estimator, estimate, noise, counted)], None)[0]


def repeat_bands(
    observations: Sequence[Observation],
    combine: Callable[[Sequence[BandImage]], Sequence[torch.Tensor]] | None,
    solves: Sequence[dict[str, SolveStatus]] | None = None,
) -> list[RepeatedErrors]:
    """Observe the sky of several bands again and restore it.

    Noise is drawn in all bands together, so that errors of an image are also
    those that it takes from other bands.

    Parameters
    ----------
    observations
        The bands.
    combine
        What makes joint images, latent_shape of each, of bands that were
        restored on their own; by default they are not joint.
    solves
        Where the solves of each band are counted; by default, with those
        around.

    Returns
    -------
    errors : `list` [`RepeatedErrors`]
        Errors of each band, from as many draws as every band has.

    Raises
    ------
    RestorationError
        If an image is not finite, which other bands must not see.
    """
    bands = []
    for number, each in enumerate(observations):
        counted = (
            contextlib.nullcontext if solves is None else functools.partial(collect_solves, solves[number])
        )
        with counted():
            bands.append(_Repeated(each, counted))
    for draws in zip(*(each.noise for each in observations), strict=False):
        own = [band.observe(draw) for band, draw in zip(bands, draws, strict=True)]
        if not all(bool(torch.isfinite(image.restored).all()) for image in own):
            raise RestorationError("Pixels of a restored image of drawn noise are not finite.")
        images = [image.restored for image in own] if combine is None else combine(own)
        for band, draw, image in zip(bands, draws, images, strict=True):
            band.add(draw, image)
    return [band.errors() for band in bands]


class _Repeated:
    """Repeated observations of a band."""

    def __init__(self, observation: Observation, count: _Counter) -> None:
        self._count = count
        estimator, self._estimate = observation.estimator, observation.estimate
        self._estimator = estimator
        self._sky = self._estimate.restored
        self._expected = estimator.linear.normal(self._sky[None])[0]
        # What the image leaves of the exposures is noise, and solved as such.
        left = (self._estimate.debiased.right - self._expected)[None]
        noise = estimator.linear.solve_noise(left, estimator.network.penalty_weights)
        self._light = self._estimate.estimates - noise
        counted, weights = observation.counted, estimator.weights
        self._weights = weights if counted is None else weights * counted
        self._chi_square = torch.zeros(estimator.model.num_exposures, device=weights.device)
        self._restored: list[torch.Tensor] = []
        self._right: list[torch.Tensor] = []

    def observe(self, draw: torch.Tensor) -> BandImage:
        """Restore an observation with drawn noise, (n, h, w)."""
        self._right.append(self._estimator.linear.right_side(draw))
        with self._count():
            return self._estimator.restore_again(
                self._right[-1], self._light, self._estimate.debiased, self._expected
            )

    def add(self, draw: torch.Tensor, image: torch.Tensor) -> None:
        """Add the error of an image, latent_shape, made with drawn noise."""
        self._restored.append(image - self._sky)
        if len(self._restored) <= _NUM_COUNTED:
            residual = draw - self._estimator.model.predict(self._restored[-1])
            self._chi_square += (self._weights * residual**2).sum(dim=(1, 2))

    def errors(self) -> RepeatedErrors:
        """Return the errors of all draws."""
        crop = self._estimator.model.crop
        restored, right = torch.stack(self._restored), torch.stack(self._right)
        unseen = _draw_unseen_light(self._estimator, self._sky, restored)
        number = max(_NUM_LINEAR, self._estimator.options.noise.num_realizations)
        with self._count():
            linear = _linear_errors(self._estimator, right[:number], unseen[:number])
        return RepeatedErrors(
            restored=crop(restored),
            linear=crop(linear),
            chi_square=self._chi_square / min(len(restored), _NUM_COUNTED),
            right=right,
            unseen_light=crop(unseen).square().mean(dim=0),
        )


def _draw_unseen_light(estimator: Estimator, restored: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """Draw light where there are no data, with the structure of that around,
    shape of the errors.
    """
    model, coverage = estimator.model, estimator.linear.coverage
    if bool((coverage > WEIGHT_FLOOR).all()):
        return torch.zeros_like(errors)
    structure = _unseen_structure(model, coverage, restored[None])[0]
    # That of blank sky is zero.
    noise = sum(_unseen_structure(model, coverage, error[None])[0] for error in errors)
    structure = (structure - 2.0 * noise / len(errors)).clamp_(min=0.0).sqrt_()
    white = torch.randn(errors.shape, generator=torch.Generator().manual_seed(0)).to(errors)
    return model.filter_images(structure * white, model.target_transform)


def _linear_errors(estimator: Estimator, right: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    """Return the errors of linear images of drawn noise, and of light where
    there are no data, ``(k, *latent_shape)``.
    """
    solver, penalty_weight = estimator.linear, estimator.linear_penalty_weight
    has_unseen = bool(unseen.any())
    found = []
    for some, light in zip(right.split(_TOGETHER), unseen.split(_TOGETHER), strict=True):
        some = some + solver.normal(light) if has_unseen else some
        found.append(solver.solve(some, (penalty_weight,) * len(some), precision=_PRECISION) - light)
    return torch.cat(found)


def _unseen_structure(model: ForwardModel, coverage: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return, where there are no data, the variance of white pixels that at
    the target PSF are as structured as the light around, shape of images.
    """
    seen = model.embed((coverage > WEIGHT_FLOOR).to(images.dtype))
    share = smooth(seen[None], _STRUCTURE_FWHM).clamp(min=1e-6)
    squares = seen * (images - smooth(seen * images, _STRUCTURE_FWHM) / share) ** 2
    # The surroundings, three times as wide.
    share = smooth(seen[None], 12.0).clamp(min=1e-6)
    total = smooth(squares, 12.0).clamp(min=0.0)
    # The structure of white pixels of unit variance.
    impulse = torch.zeros_like(seen)
    impulse[tuple(n // 2 for n in impulse.shape)] = 1.0
    star = model.filter_images(impulse[None], model.target_transform)
    unit = (star - smooth(star, _STRUCTURE_FWHM)).square().sum()
    return (1.0 - seen) * (total / share / unit)
