# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Robust majorisation-minimisation of many exposures at once."""

from __future__ import annotations

__all__ = ("ImageMM",)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import ExposureStack, InputError
from ..core.exposures import masked_medians
from ._point_model import PointModel
from ._restorer import Restoration, Restorer
from ._stops import check_positive, check_stops

_FLOOR = 1e-3
"""Start of a latent pixel without positive light, in units of the median sky
sigma: a multiplicative update cannot leave zero."""


@dataclass(frozen=True)
class ImageMM(Restorer):
    """ImageMM: multiplicative updates for a Huber likelihood.

    Sukurdeep, Budavari, Connolly & Navarro (2025, AJ 170, 233,
    arXiv:2501.03002), their robust algorithm without super-resolution.  The
    latent image x of non-negative points of light is multiplied in each
    iteration by

        u = clip(sum_t F(t)^T (w(t) y(t)) / sum_t F(t)^T (w(t) F(t) x),
                 1 / kappa, kappa)

    with F(t) the convolution with the PSF of exposure t and weights w(t) =
    m(t) psi(r(t)) / v(t): mask, variance plane as given and Huber weight
    psi(r) = min(1, delta / abs(r)) of the deviation r(t) = (y(t) - F(t) x) /
    sqrt(v(t)), renewed in each iteration.  It starts at the median of the
    exposures.

    It gives at each stop the latent image convolved with the target, without a
    variance.  The declared FWHM is that of the target; the true PSF is
    broader, because points at pixel centres cannot hold a star between them.
    NaN where no pixel is near enough to constrain the image.

    Attributes
    ----------
    stops
        Numbers of iterations at which to hand over an image.
    kappa
        Largest factor by which a pixel changes in one iteration.
    delta
        Deviation in units of sigma beyond which the loss is linear.
    name
        Words that name the method in a table.

    Notes
    -----
    The authors' values are kappa = 2 and delta = 2.  Assumed here are what
    the start holds where the median is not positive (a thousandth of the sky
    sigma), and that latent pixels which the data hardly constrain stay zero.
    The authors fit an image convolved with a small Gaussian; here, to
    compare, points are fitted and the Gaussian of the target applied last.
    """

    stops: tuple[int, ...] = (50, 100, 200, 400, 800)
    kappa: float = 2.0
    delta: float = 2.0
    name: str = "ImageMM"

    def __post_init__(self) -> None:
        check_stops(self.stops)
        check_positive(delta=self.delta)
        if not self.kappa > 1:
            raise InputError(f"kappa={self.kappa} must be above 1, or the image cannot change.")

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
        model = PointModel.from_stack(stack, target_fwhm)
        inverse = stack.good / stack.variances
        constrained = model.constrained(inverse)
        latent = _start(stack, model) * constrained
        for iteration in range(1, self.stops[-1] + 1):
            prediction = model.predict(latent)
            deviation = (stack.images - prediction) * inverse.sqrt()
            weights = inverse * (self.delta / deviation.abs().clamp(min=self.delta))
            top = model.adjoint(weights * stack.images)
            bottom = torch.where(constrained, model.adjoint(weights * prediction), 1.0)
            # Negative data give negative sums, which the clip takes care of;
            # rounding must not do so with what they are divided by.
            factor = torch.nan_to_num(top / bottom.clamp(min=0), nan=1.0)
            latent = latent * factor.clamp(min=1.0 / self.kappa, max=self.kappa)
            if iteration in self.stops:
                image = model.show(latent, constrained)
                yield Restoration(image=image, fwhm=target_fwhm, iteration=iteration)


def _start(stack: ExposureStack, model: PointModel) -> torch.Tensor:
    """Return the median of the usable exposures, made positive."""
    nan = torch.full((), torch.nan)
    median = torch.where(stack.good, stack.images, nan).nanmedian(dim=0).values
    sigma = masked_medians(stack.variances, stack.good, torch.inf).min().sqrt()
    return model.embed(torch.nan_to_num(median)).clamp(min=_FLOOR * float(sigma))
