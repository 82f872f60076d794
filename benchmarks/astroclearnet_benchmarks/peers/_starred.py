# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""STARRED: joint deconvolution with a starlet penalty."""

from __future__ import annotations

__all__ = ("Starred",)

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.core import ExposureStack, InputError, fwhm_to_sigma, gaussian_kernel

from ..baselines import Restoration, Restorer

_FWHM = 2.0
"""FWHM in pixels of the Gaussian that the package leaves in its image."""

_MASKED = 1e8
"""Variance of a masked pixel relative to the median of its exposure: the
package has no masks."""

_PEAK = 100.0
"""Value to which the brightest pixel of the reference exposure is scaled, as
in the deconvolution script of the package."""


@dataclass(frozen=True)
class Starred(Restorer):
    """STARRED of the package starred-astro, all light on its pixel grid.

    Michalewicz, Millon, Dux & Courbin (2023, JOSS 8, 5340) and Millon et al.
    (2024, AJ 168, 55).  Minimises the chi-square of all exposures plus the
    noise-weighted l1 norm of the starlet coefficients of the image and a
    penalty on negative pixels, by AdaBelief.  The image has a Gaussian PSF of
    FWHM 2 pixels, with which the PSFs are divided by the package's own
    function; what the target lacks is convolved last.

    It gives after each strength the image at the target PSF, without a
    variance.

    Attributes
    ----------
    strengths
        Strengths of the starlet penalty, of the finest scale and of the
        others alike; an image is handed over after each, and the next one
        starts from it.
    steps
        Iterations with each strength.
    positivity
        Strength of the penalty on negative pixels.
    learning_rate
        First step size in percent of the brightest pixel; it falls
        exponentially to a thousandth of that.
    name
        Words that name the method in a table.

    Notes
    -----
    As in the package's script: scaling, noise weights, AdaBelief, strength 1;
    as in its `multi_steps_deconvolution`: positivity 100.  Departures, which
    bring it closer to the truth where stars outshine the noise by orders of
    magnitude: it starts from the mean of the exposures, the step size falls
    from 1 to 0.001 in place of 0.05 throughout, there are 1000 iterations in
    place of 500, and weaker penalties follow.  Exposures are taken as
    registered and on zero sky.  No catalogue of point sources is given, so
    all light is in the pixels, one for each of the data.
    """

    strengths: tuple[float, ...] = (1.0, 0.3, 0.1)
    steps: int = 1000
    positivity: float = 100.0
    learning_rate: float = 1.0
    name: str = "STARRED"

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) < 0:
            raise InputError(f"strengths={self.strengths} must be one or more numbers, none negative.")
        if self.steps < 1 or not self.learning_rate > 0 or self.positivity < 0:
            raise InputError(
                f"steps={self.steps} and learning_rate={self.learning_rate} must be positive and "
                f"positivity={self.positivity} not negative."
            )

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        if not target_fwhm >= _FWHM:
            raise InputError(f"target_fwhm={target_fwhm} must be at least the {_FWHM} pixels of STARRED.")
        missing = fwhm_to_sigma(math.sqrt(target_fwhm**2 - _FWHM**2))
        problem = _Problem.from_stack(ExposureStack.from_arrays(images, variances, good, psfs))
        height, width = np.shape(images)[1:]
        image = problem.mean()
        for number, strength in enumerate(self.strengths, start=1):
            image = problem._minimise(image, self, strength)
            shown = gaussian_filter(
                problem.unit * image[:height, :width], missing, mode="constant", truncate=6.0
            )
            yield Restoration(image=shown, fwhm=target_fwhm, iteration=number * self.steps)


@dataclass(frozen=True)
class _Problem:
    """The exposures as the package wants them: square, scaled, sharpest first.

    Attributes
    ----------
    data, variances
        Shape (n, S, S), in units of ``unit``; zero and huge where masked.
        Exposures without a usable pixel are missing.
    noise
        Shape (n, S, S), sigma without masks, from which the package derives
        the noise of starlet coefficients.
    kernels
        Shape (n, P, P), the PSFs deconvolved by the package's Gaussian.
    unit
        Unit of the data in that of the exposures.
    """

    data: NDArray[np.float64]
    variances: NDArray[np.float64]
    noise: NDArray[np.float64]
    kernels: NDArray[np.float64]
    unit: float

    @classmethod
    def from_stack(cls, stack: ExposureStack) -> _Problem:
        from starred.utils.generic_utils import fourier_division

        psfs = stack.psfs[:, 0, 0].numpy()
        # The package takes the noise level of the first exposure.
        order = np.argsort(-np.square(psfs).sum(axis=(1, 2)), kind="stable")
        order = order[stack.good.numpy().any(axis=(1, 2))[order]]
        image, variance, good = (
            plane.numpy()[order] for plane in (stack.images, stack.variances, stack.good)
        )
        typical = np.array([np.median(v[g]) for v, g in zip(variance, good, strict=True)])
        side = max(stack.shape)
        pad = ((0, 0), (0, side - stack.shape[0]), (0, side - stack.shape[1]))
        used = np.pad(good, pad)
        filled = np.where(used, np.pad(variance, pad), typical[:, None, None]).astype(float)
        unit = float(np.abs(image[0]).max()) / _PEAK or 1.0
        gaussian = gaussian_kernel(_FWHM, psfs.shape[-1])
        return cls(
            data=np.pad(image, pad).astype(float) / unit,
            variances=np.where(used, filled, _MASKED * filled) / unit**2,
            noise=np.sqrt(filled) / unit,
            kernels=np.stack([np.asarray(fourier_division(psf, gaussian)) for psf in psfs[order]]),
            unit=unit,
        )

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of the usable pixels, shape (S, S)."""
        weights = 1.0 / self.variances
        return np.asarray((weights * self.data).sum(axis=0) / weights.sum(axis=0))

    def _minimise(self, start: NDArray[Any], options: Starred, strength: float) -> NDArray[np.float64]:
        """Return the image that minimises the loss."""
        from starred.deconvolution.deconvolution import setup_model
        from starred.deconvolution.loss import Loss
        from starred.deconvolution.parameters import ParametersDeconv
        from starred.optim.optimization import Optimizer
        from starred.utils.noise_utils import propagate_noise

        with warnings.catch_warnings():
            # PSFs smaller than the image are meant.
            warnings.filterwarnings("ignore", message="The narrow PSF")
            model, first, upper, lower, fixed = setup_model(
                self.data, self.variances, self.kernels, [], [], 1, initial_a=np.zeros(0)
            )
        first["kwargs_background"]["h"] = start.ravel()
        fixed["kwargs_analytic"] = dict(first["kwargs_analytic"])
        fixed["kwargs_background"]["mean"] = np.zeros(len(self.data))
        weights = propagate_noise(model, self.noise, first, method="SLIT", upsampling_factor=1)[0]
        parameters = ParametersDeconv(first, fixed, kwargs_up=upper, kwargs_down=lower)
        loss = Loss(
            self.data,
            model,
            parameters,
            self.variances,
            regularization_strength_scales=strength,
            regularization_strength_hf=strength,
            regularization_strength_positivity=options.positivity,
            W=weights,
        )
        Optimizer(loss, parameters, method="adabelief").minimize(
            max_iterations=options.steps,
            init_learning_rate=options.learning_rate,
            decay_rate=1e-3,
            progress_bar=False,
        )
        fitted = parameters.best_fit_values(as_kwargs=True)
        return np.asarray(model.getDeconvolved(fitted)[0], dtype=float)
