# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Richardson-Lucy deconvolution of many exposures at once."""

from __future__ import annotations

__all__ = ("RichardsonLucy",)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import ExposureStack
from ..core.exposures import masked_medians
from ._point_model import PointModel
from ._restorer import Restoration, Restorer
from ._stops import check_positive, check_stops


@dataclass(frozen=True)
class RichardsonLucy(Restorer):
    """Multi-frame Richardson-Lucy deconvolution.

    Richardson (1972, JOSA 62, 55) and Lucy (1974, AJ 79, 745), for several
    exposures as in Hook & Lucy (1992).  The latent image x of non-negative
    points of light is multiplied in each iteration by

        [sum_t w(t) A(t)^T (m(t) (y(t) + b) / (A(t) x + b))]
        / [sum_t w(t) A(t)^T m(t)]

    with A(t) the convolution with the PSF of exposure t, m(t) its mask, w(t)
    the inverse of the median of its variances, normalised, and b a pedestal
    of sky.  The pedestal makes background-subtracted data positive (what
    remains negative counts as zero), and noise that of a bright sky, which
    it is; the larger it is, the slower faint sources emerge.

    It gives at each stop the latent image convolved with the target, without a
    variance.  The declared FWHM is that of the target; the true PSF is
    broader, because the iteration is not converged, the more so for faint
    sources, and because points at pixel centres cannot hold a star between
    them.  NaN where no pixel is near enough to constrain the image.

    Attributes
    ----------
    stops
        Numbers of iterations at which to hand over an image.
    pedestal
        The pedestal in units of the sky sigma of the noisiest exposure.
    name
        Words that name the method in a table.
    """

    stops: tuple[int, ...] = (25, 50, 100, 200, 400)
    pedestal: float = 5.0
    name: str = "Richardson-Lucy"

    def __post_init__(self) -> None:
        check_stops(self.stops)
        check_positive(pedestal=self.pedestal)

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
        medians = masked_medians(stack.variances, stack.good, torch.inf)
        weights = stack.good * (medians.min() / medians)[:, None, None]
        constrained = model.constrained(weights)
        level = self.pedestal * float(medians[medians.isfinite()].max()) ** 0.5
        data = (stack.images + level).clamp(min=0) * weights
        response = torch.where(constrained, model.adjoint(weights), 1.0)
        latent = level * constrained.float()
        for iteration in range(1, self.stops[-1] + 1):
            prediction = model.predict(latent) + level
            # Rounding must not take light below zero.
            latent = latent * (model.adjoint(data / prediction) / response).clamp(min=0)
            if iteration in self.stops:
                image = model.show(latent, constrained)
                yield Restoration(image=image, fwhm=target_fwhm, iteration=iteration)
