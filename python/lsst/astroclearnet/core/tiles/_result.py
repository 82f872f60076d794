# This file is tile_data of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a restoration gives."""

from __future__ import annotations

__all__ = ("FailedTile", "MaskBit", "RestorationResult", "StackResult")

import dataclasses
import enum

import numpy as np

from ..estimate import FitHistory, SolveStatus
from ..noise import CellNoise


class MaskBit(enum.IntFlag):
    """Bits of the mask of a restored image."""

    NO_DATA = 1
    """No exposure constrains the pixel; image and variance are NaN."""

    INPAINTED = 2
    """No exposure has a usable pixel here; the value comes from around."""

    CLIPPED = 4
    """At least one exposure was left out because the others contradict it."""


@dataclasses.dataclass(frozen=True)
class FailedTile:
    """A tile that could not be restored.

    Attributes
    ----------
    rows, columns
        Pixels of the patch that have no data for it.
    reason
        What went wrong, in words.
    """

    rows: slice
    columns: slice
    reason: str


@dataclasses.dataclass(frozen=True)
class RestorationResult:
    """A restored image and all that is known about it.

    Attributes
    ----------
    image
        Shape (H, W), float32, the sky at the target PSF in the unit of the
        exposures; NaN where there is no data.
    variance
        Shape (H, W), float32, expected squared error of ``image``; NaN where
        there is no data.
    linear_image
        Shape (H, W), float32, the same restoration with everything that it
        left in the exposures, filtered linearly: the image to measure on,
        with the noise of the exposures; NaN where there is no data.
    linear_variance
        Shape (H, W), float32, variance of ``linear_image``.
    mask
        Shape (H, W), uint8, `MaskBit` values.
    coadd
        Shape (H, W), float32, inverse-variance mean of the exposures at the
        PSF that this gives, for comparison; NaN where no exposure was used.
    noise_realizations
        Shape (k, H, W), float32, errors of ``image`` when the restored sky is
        observed and restored again.
    linear_noise_realizations
        Shape (k, H, W), float32, those of ``linear_image`` for the same
        noise.
    linear_noise
        Correlation of the noise of neighbouring pixels of ``linear_image``,
        by cell.
    residual
        Shape (H, W), float32, mean deviation of the exposures from the
        restored image convolved to their PSFs, in units of its noise.
    chi_square
        Shape (n,), reduced chi-square of the used pixels of each exposure
        under the restored image convolved to its PSF: the sum of squared
        deviations over what the same estimator leaves of pure noise, which
        accounts for the degrees of freedom that the image takes up and for
        correlated noise.  NaN without pixels.
    flux_error
        Shape (n,), by how much the sources of each exposure are brighter than
        in the others, relative.  As all that follows it is 0, with an
        infinite standard deviation, where it is not known.
    flux_sigma
        Shape (n,), standard deviations of these.
    shift
        Shape (n, 2), by how much its sources lie at larger rows (y) and
        columns (x) than in the others, in pixels.
    shift_sigma
        Shape (n, 2), standard deviations of these.
    psf_width_error
        Shape (n,), by how much the PSF of each exposure is wider than given,
        relative to the others.
    psf_width_sigma
        Shape (n,), standard deviations of these, from noise and from what
        sources differ by.
    background
        Shape (n, 3), differences of background that were removed from the
        exposures: level at the centre of the patch, and slopes along rows (y)
        and columns (x) per pixel, in the unit of the exposures for a pixel of
        the patch.
    background_sigma
        Shape (n, 3), standard deviations of these from noise; infinite where
        nothing can be known or was to be removed.
    sky_noise
        Shape (n,), measured variance of blank sky over that of the given
        planes; NaN where there is not enough of it.
    sky_noise_sigma
        Shape (n,), standard deviations of these; infinite where nothing is
        known.
    variance_factor
        Shape (n, 2), smallest and largest factor that the variances of an
        exposure were multiplied with because blank sky shows them to be
        wrong; 1 where they were believed.
    weight_bias
        Shape (n,), by how much a mean weighted with the given variances would
        have been too low, in sigma of a pixel, because they follow the noise
        of their own pixels, which was removed; 0 where they do not.
    variance_smoothed
        Shape (n,), bool, whether they follow it in a way for which medians of
        neighbours had to take their place.
    dropped
        Why exposures were left out that contradict the others, a slug and
        words, by their index.
    suspect
        Why exposures that were used may be as wrong, which neither the others
        nor the photometry of stars prove, by their index.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of ``image``.
    sky_level
        Level below which the network sees no light, in the unit of the
        image, the median over tiles.
    linear_penalty_weight
        Strength of the penalty of the linear image, the median over tiles.
    linear_psf_residual
        Largest departure of the linear image of a star from the target PSF,
        relative to the peak, at full depth in any tile.
    num_parameters
        Number of fitted parameters.
    history
        What happened during the fit.
    device
        Device that was used.
    num_tiles
        Number of tiles that the patch was restored in.
    failed_tiles
        Tiles that could not be restored; they have no data.
    solves
        What the iterative solves reached, by kind; those of tiles that were
        done again for want of memory count as well.  The fit of the network
        is in ``history``.
    """

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    coadd: np.ndarray
    noise_realizations: np.ndarray
    linear_image: np.ndarray
    linear_variance: np.ndarray
    linear_noise_realizations: np.ndarray
    linear_noise: CellNoise
    residual: np.ndarray
    chi_square: np.ndarray
    flux_error: np.ndarray
    flux_sigma: np.ndarray
    shift: np.ndarray
    shift_sigma: np.ndarray
    psf_width_error: np.ndarray
    psf_width_sigma: np.ndarray
    background: np.ndarray
    background_sigma: np.ndarray
    sky_noise: np.ndarray
    sky_noise_sigma: np.ndarray
    variance_factor: np.ndarray
    weight_bias: np.ndarray
    variance_smoothed: np.ndarray
    dropped: dict[int, str]
    suspect: dict[int, str]
    target_fwhm: float
    sky_level: float
    linear_penalty_weight: float
    linear_psf_residual: float
    num_parameters: int
    history: FitHistory
    device: str
    num_tiles: int
    failed_tiles: tuple[FailedTile, ...]
    solves: dict[str, SolveStatus]


@dataclasses.dataclass(frozen=True)
class StackResult(RestorationResult):
    """The restoration of a stack, with maps of each exposure.

    Attributes
    ----------
    weights
        Shape (n, H, W), float32, inverse variances given to the exposures, by
        pixel of the patch; 0 where an exposure was not used.
    rejected
        Shape (n, H, W), bool, pixels of the patch with a usable pixel of the
        exposure that the other exposures contradict.
    """

    weights: np.ndarray
    rejected: np.ndarray
