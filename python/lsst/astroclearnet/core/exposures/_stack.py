# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A validated stack of exposures."""

from __future__ import annotations

__all__ = ("ExposureStack",)

import dataclasses
import logging
import math
from typing import Any

import numpy as np
import torch

from .._errors import InputError, NoUsableDataError
from ._arrays import ArrayLike, as_tensor, blocks, require_plain
from ._positions import PixelPositions
from ._psf_stamps import find_psf_fault

_LOG = logging.getLogger(__name__)

_MAX_RATIO = 2.0**24
"""Precision of float32: the smaller of two numbers with a larger ratio is lost
in their sum."""

_MAX_VARIANCE = 2.0**100
"""Variance above which (or below whose inverse) squares and inverses overflow
float32."""

_MEDIAN_SIZE = 100_000
"""Number of pixels that a median of variances is taken from."""

_MIN_NET_FLUX = 0.5
"""Smallest sum of a PSF over that of its absolute values."""


@dataclasses.dataclass(frozen=True)
class ExposureStack:
    """Exposures of one patch.

    Attributes
    ----------
    images
        Shape (n, h, w), float32, background-subtracted, in one common
        photometric unit, ``unit``; 0 where not ``good``.
    variances
        Shape (n, h, w), float32, in that unit squared; 1 where not ``good``.
    good
        Shape (n, h, w), bool, `True` where a pixel may be used.
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P), float64, the PSF of each
        exposure at the centres of a regular grid of cells that covers the
        patch, on pixels of the patch; sum 1, P odd.
    positions
        Positions of the pixels on the patch; `None` for co-registered
        exposures, whose pixels are those of the patch.
    unit
        Flux unit in terms of that of the input.
    """

    images: torch.Tensor
    variances: torch.Tensor
    good: torch.Tensor
    psfs: torch.Tensor
    positions: PixelPositions | None = None
    unit: float = 1.0

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        variances: ArrayLike,
        good: ArrayLike,
        psfs: ArrayLike,
        *,
        positions: PixelPositions | None = None,
        in_noise_units: bool = False,
        overwrite: bool = False,
    ) -> ExposureStack:
        """Validate arrays.

        Pixels that are not finite, or whose variance is not between 1e-30 and
        1e30, are not used.  Nor are pixels that exceed float32 precision:
        above 2^24 times the noise of the exposure, or with a variance that
        differs from the typical one by more than that factor; their number is
        logged.

        Parameters
        ----------
        images
            Shape (n, h, w).
        variances
            Shape (n, h, w).
        good
            Shape (n, h, w), boolean, `True` = usable.
        psfs
            Shape (n, P, P), or (n, n_cells_y, n_cells_x, P, P), any
            normalisation.  A cell with NaN takes the mean of the others of its
            exposure.  The flux of negative pixels may not exceed a third of
            that of positive ones; see also `find_psf_fault`.
        positions
            Positions of the pixels, for exposures on their own grids; pixels
            off the patch are not used.
        in_noise_units
            Whether to divide by the median noise of the exposures, in double
            precision, so that sums stay within single precision and the stack
            does not depend on the flux unit.
        overwrite
            Whether images, variances and good may be changed, and kept.

        Returns
        -------
        stack : `ExposureStack`
            The exposures, on the CPU.

        Raises
        ------
        InputError
            If shapes or dtypes are wrong, or a PSF is not usable.
        NoUsableDataError
            If there is no usable pixel.
        """
        device = torch.device("cpu")
        image = as_tensor("images", images, None, device)
        variance = as_tensor("variances", variances, None, device)
        if image.ndim != 3 or min(image.shape[1:]) < 2:
            raise InputError(
                f"images must have shape (n, h, w), not {tuple(image.shape)}, and at least 2x2 pixels."
            )
        if not image.shape[0]:
            raise NoUsableDataError("There is no exposure.")
        require_plain("good", good)
        good = good if isinstance(good, torch.Tensor) else np.asarray(good)
        if good.dtype not in (torch.bool, np.bool_):
            raise InputError(f"good must be boolean (True = usable), not {good.dtype}.")
        usable = as_tensor("good", good, torch.bool, device)
        for name, other in (("variances", variance), ("good", usable)):
            if other.shape != image.shape:
                raise InputError(
                    f"{name} has shape {tuple(other.shape)}, which is not that of images, "
                    f"{tuple(image.shape)}."
                )
        if positions is not None:
            positions = positions.to(device)
            if positions.y.shape != image.shape:
                raise InputError(
                    f"positions have shape {tuple(positions.y.shape)}, which is not that of images, "
                    f"{tuple(image.shape)}."
                )
        if not overwrite:
            usable = usable.clone()
        _require_usable(image, variance, usable, positions)
        medians = torch.stack([_sample_median(v, use) for v, use in zip(variance, usable, strict=True)])
        median = float(medians.nanmedian())
        unit = math.sqrt(median) if in_noise_units and median > 0 else 1.0
        images, variances = (
            values
            if overwrite and values.dtype == torch.float32
            else torch.empty_like(values, dtype=torch.float32)
            for values in (image, variance)
        )
        _keep_measurable(image, variance, usable, medians, unit, (images, variances))
        if not bool(usable.any()):
            raise NoUsableDataError(
                f"None of the pixels of {image.shape[0]} exposures is usable: all are masked, not finite, "
                "of a variance that is not positive or beyond single precision, millions of times as bright "
                "as the noise, or off the patch."
            )
        return cls(
            images=images,
            variances=variances,
            good=usable,
            psfs=_check_psfs(as_tensor("psfs", psfs, torch.float64, device), image.shape[0]),
            positions=positions,
            unit=unit,
        )

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch in pixels."""
        if self.positions is not None:
            return self.positions.shape
        return self.images.shape[1], self.images.shape[2]

    @property
    def device(self) -> torch.device:
        """Device of the tensors (`torch.device`)."""
        return self.images.device

    def to(self, device: torch.device) -> ExposureStack:
        """Return the exposures on a device.

        Parameters
        ----------
        device
            The device.

        Returns
        -------
        stack : `ExposureStack`
            The exposures.
        """
        return self.replace(
            images=self.images.to(device),
            variances=self.variances.to(device),
            good=self.good.to(device),
            psfs=self.psfs.to(device),
            positions=None if self.positions is None else self.positions.to(device),
        )

    def select(self, exposures: torch.Tensor) -> ExposureStack:
        """Return a selection of exposures.

        Parameters
        ----------
        exposures
            Shape (k,), indices in any order.

        Returns
        -------
        stack : `ExposureStack`
            The selection.
        """
        return self.replace(
            images=self.images[exposures],
            variances=self.variances[exposures],
            good=self.good[exposures],
            psfs=self.psfs[exposures],
            positions=None if self.positions is None else self.positions.select(exposures),
        )

    def replace(self, **changes: Any) -> ExposureStack:
        """Return a copy with some tensors replaced.

        Parameters
        ----------
        **changes
            New attributes, which are not validated.

        Returns
        -------
        stack : `ExposureStack`
            The copy.
        """
        return dataclasses.replace(self, **changes)


def _require_usable(
    image: torch.Tensor, variance: torch.Tensor, usable: torch.Tensor, positions: PixelPositions | None
) -> None:
    """Clear pixels off the patch or without a finite value and variance."""
    for block in blocks(image.shape):
        use, v = usable[block], variance[block]
        use &= torch.isfinite(image[block])
        use &= (v >= 1.0 / _MAX_VARIANCE) & (v <= _MAX_VARIANCE)
        if positions is not None:
            use &= torch.isfinite(positions.y[block])


def _keep_measurable(
    image: torch.Tensor,
    variance: torch.Tensor,
    usable: torch.Tensor,
    medians: torch.Tensor,
    unit: float,
    to: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Rescale images and variances; clear pixels beyond single precision."""
    medians = _rescale(medians, unit**2)
    known = medians[medians.isfinite()]
    reference = known.median() if len(known) else medians[0]
    brightest = _MAX_RATIO * medians.sqrt()
    images, variances = to
    number = int(torch.count_nonzero(usable))
    for block in blocks(image.shape):
        use, i, v = usable[block], _rescale(image[block], unit), _rescale(variance[block], unit**2)
        use &= (v >= reference / _MAX_RATIO) & (v <= reference * _MAX_RATIO)
        use &= i.abs() <= brightest[block[0]]
        images[block] = torch.where(use, i, 0.0)
        variances[block] = torch.where(use, v, 1.0)
    number -= int(torch.count_nonzero(usable))
    if number:
        _LOG.warning(
            "%d pixels are not used: their values are more than 2^24 times the noise, or their variances "
            "differ by more than that factor from the others.",
            number,
        )


def _rescale(values: torch.Tensor, unit: float) -> torch.Tensor:
    """Divide in double precision; float32."""
    if unit == 1.0:
        return values.to(torch.float32)
    return (values.double() / unit).to(torch.float32)


def _sample_median(values: torch.Tensor, use: torch.Tensor) -> torch.Tensor:
    """Return the median of a regular sample, NaN without values."""
    step = max(1, int(torch.count_nonzero(use)) // _MEDIAN_SIZE)
    samples, seen = [], 0
    for _, rows in blocks((1, *use.shape)):
        places = np.flatnonzero(use[rows].numpy())
        chosen = places[-seen % step :: step]
        samples.append(values[rows].flatten()[torch.from_numpy(chosen)])
        seen += len(places)
    sample = torch.cat(samples)
    return sample.median() if len(sample) else values.new_tensor(torch.nan)


def _check_psfs(psfs: torch.Tensor, num_exposures: int) -> torch.Tensor:
    if psfs.ndim == 3:
        psfs = psfs[:, None, None]
    if psfs.ndim != 5 or psfs.shape[0] != num_exposures or psfs.shape[-1] != psfs.shape[-2]:
        raise InputError(
            f"psfs must have shape (n, P, P) or (n, n_cells_y, n_cells_x, P, P) with n={num_exposures}, "
            f"not {tuple(psfs.shape)}."
        )
    if psfs.shape[-1] % 2 == 0 or 0 in psfs.shape:
        raise InputError(f"psfs must have an odd number of pixels on a side, not {psfs.shape[-1]}.")
    checked = psfs.clone()
    for t in range(num_exposures):
        finite = torch.isfinite(psfs[t]).all(dim=(-1, -2))
        if not bool(finite.any()):
            raise InputError(f"The PSF of exposure {t} is not finite.", exposure=t)
        mean = psfs[t][finite].mean(dim=0)
        checked[t][~finite] = mean
        total = checked[t].sum(dim=(-1, -2), keepdim=True)
        if not bool(((total > 0) & total.isfinite()).all()):
            raise InputError(f"The PSF of exposure {t} does not have a positive sum.", exposure=t)
        if not bool((total >= _MIN_NET_FLUX * checked[t].abs().sum(dim=(-1, -2), keepdim=True)).all()):
            raise InputError(f"The PSF of exposure {t} has too much light in negative pixels.", exposure=t)
        checked[t] /= total
        if fault := find_psf_fault(checked[t][finite].cpu().numpy()):
            raise InputError(f"The PSF of exposure {t} {fault}", exposure=t)
    return checked
