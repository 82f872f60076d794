# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restorers that are linear in the exposures."""

from __future__ import annotations

__all__ = ("InverseVarianceCoadd", "PsfMatchedCoadd", "WienerFilter")

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lsst.astroclearnet.core import ExposureStack, kernel_fwhm
from lsst.astroclearnet.core.estimate import LinearEstimator, Precision
from lsst.astroclearnet.core.forward import WEIGHT_FLOOR, ForwardModel
from lsst.astroclearnet.core.outliers import likelihood_variances

from ._coadd import coadd_psf, inverse_variance_coadd
from ._psf_matched import psf_matched_coadd
from ._restorer import Restoration, Restorer
from ._stops import check_positive

_HUBER_DELTA = 3.0
"""Deviation in units of sigma beyond which robust weights decrease."""

_PRECISION = Precision(light=1e-3, noise=0.01)
"""Of the estimates."""

_ROBUST_ROUNDS = 5
"""How often robust weights are renewed."""


@dataclass(frozen=True)
class InverseVarianceCoadd(Restorer):
    """Weighted mean of the exposures, at its own PSF.

    It gives the coadd with its variance, NaN where no exposure has a usable
    pixel; its FWHM is that of the Gaussian with the effective area of the PSF
    of the coadd.

    Attributes
    ----------
    name
        Words that name the method in a table.
    """

    name: str = "inverse-variance coadd"

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        coadd = inverse_variance_coadd(images, variances, good)
        fwhm = kernel_fwhm(coadd_psf(psfs, coadd.weights))
        yield Restoration(image=coadd.image, fwhm=fwhm, variance=coadd.variance)


@dataclass(frozen=True)
class PsfMatchedCoadd(Restorer):
    """Weighted mean of the exposures brought to the target PSF.

    Exposures with a PSF broader than the target are deconvolved, which
    amplifies their noise.

    It gives the coadd with its variance; NaN where no exposure has data, also
    within about the width of the matching kernel of them.

    Attributes
    ----------
    name
        Words that name the method in a table.
    """

    name: str = "PSF-matched coadd"

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        coadd = psf_matched_coadd(images, variances, good, psfs, target_fwhm)
        yield Restoration(image=coadd.image, fwhm=target_fwhm, variance=coadd.variance)


@dataclass(frozen=True)
class WienerFilter(Restorer):
    """Regularised generalised least squares at the target PSF, with masks.

    The estimate of ``core.estimate.LinearEstimator`` at one
    penalty weight, with weights from variances that do not follow the noise
    of the pixels themselves.

    It gives the estimate, finite everywhere, and the variance of its noise
    (not of its bias).  Where no exposure has a usable pixel the image is what
    the penalty lets the surroundings say, and the variance that of 2 percent
    of the full depth, which is a lower limit.

    Attributes
    ----------
    penalty_weight
        Weight of the penalty relative to the weights: the smaller, the less
        bias and the more noise.
    max_psf_residual
        Residual of the image of a star from the target PSF, relative to its
        peak, from which the penalty weight follows, or `None` to use
        ``penalty_weight``.
    robust
        Whether to reweight pixels that deviate from the estimate by more than
        3 sigma, by Huber weights renewed five times.
    name
        Words that name the method in a table.
    """

    penalty_weight: float = 1e-4
    max_psf_residual: float | None = None
    robust: bool = False
    name: str = "Wiener filter"

    def __post_init__(self) -> None:
        check_positive(penalty_weight=self.penalty_weight)
        if self.max_psf_residual is not None:
            check_positive(max_psf_residual=self.max_psf_residual)

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        stack = ExposureStack.from_arrays(images, variances, good, psfs)
        model = ForwardModel.from_stack(stack, target_fwhm)
        with torch.no_grad():
            weights = stack.good / likelihood_variances(stack, model)
            estimator = LinearEstimator(model, weights)
            penalty_weight = (
                self.penalty_weight
                if self.max_psf_residual is None
                else estimator.penalty_weight_for(self.max_psf_residual)
            )
            latent = _solve(estimator, stack.images, penalty_weight)
            for _ in range(_ROBUST_ROUNDS if self.robust else 0):
                deviation = (stack.images - model.predict(latent)).abs() * weights.sqrt()
                estimator = LinearEstimator(model, weights * (_HUBER_DELTA / deviation).clamp(max=1.0))
                latent = _solve(estimator, stack.images, penalty_weight, latent)
            image = model.crop(latent)
            full = estimator.variances(torch.tensor([penalty_weight]))[0]
            variance = full / estimator.relative_weight.clamp(min=WEIGHT_FLOOR)
        yield Restoration(image=image.numpy(), fwhm=target_fwhm, variance=variance.numpy())


def _solve(
    estimator: LinearEstimator,
    images: torch.Tensor,
    penalty_weight: float,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the estimate of one penalty weight."""
    right = estimator.right_side(images)
    return estimator.solve(right, (penalty_weight,), start=start, precision=_PRECISION)[0]
