# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What every method that restores a patch has in common."""

from __future__ import annotations

__all__ = ("Restoration", "Restorer")

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Restoration:
    """An image of a patch made by any method.

    Attributes
    ----------
    image
        Shape (H, W), in the unit of the exposures; NaN where the method says
        that there is no data.
    fwhm
        FWHM in pixels of the PSF that the method declares for the image.
    variance
        Shape (H, W), what the method says about the error of the image, or
        `None` if it says nothing.
    iteration
        Number of iterations behind the image; 0 for a direct method.
    """

    image: NDArray[Any]
    fwhm: float
    variance: NDArray[Any] | None = None
    iteration: int = 0


class Restorer(ABC):
    """A method that makes one image of co-registered exposures.

    Attributes
    ----------
    name
        Words that name the method in a table.
    """

    name: str

    def restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        *,
        target_fwhm: float,
        seed: int = 0,
    ) -> Iterator[Restoration]:
        """Restore a patch.

        Parameters
        ----------
        images
            Shape (n, H, W), background-subtracted exposures in one unit.
        variances
            Shape (n, H, W), their variances in that unit squared.
        good
            Shape (n, H, W), bool, `True` where a pixel may be used.
        psfs
            Shape (n, P, P), P odd, sum 1, centred on the middle pixel.
        target_fwhm
            FWHM in pixels of the circular Gaussian PSF asked for.
        seed
            Seed of everything random, where something is.

        Returns
        -------
        restorations : iterator of `Restoration`
            The image; a method that its users stop by eye gives one at each
            of its stops, the last one last.

        Raises
        ------
        InputError
            If the arrays or the target do not fit the method.
        """
        return self._restore(images, variances, good, psfs, target_fwhm, seed)

    @abstractmethod
    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        """Restore a patch: what the method does."""
