# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a method makes of a scene."""

from __future__ import annotations

__all__ = ("Product",)

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

type Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Product:
    """An image that a method made of a scene.

    Attributes
    ----------
    name
        Name of the row in the table.
    image
        Shape (H, W), in nJy; NaN where the method says there is no data.
    fwhm
        FWHM in pixels of the circular Gaussian PSF that the method declares.
    variance
        Declared variance, shape (H, W), or `None`.
    iteration
        Number of iterations.
    correlation
        Function of slices of rows and of columns that returns the declared
        correlation coefficients of the noise there, a stamp (K, K) with K odd
        and 1 in the middle; or `None`.
    flagged
        Pixels that the method flags as not measured, shape (H, W), or `None`.
    figures
        What else is known of the image, for the record.
    """

    name: str
    image: Array
    fwhm: float
    variance: Array | None = None
    iteration: int = 0
    correlation: Callable[[slice, slice], Array] | None = None
    flagged: npt.NDArray[np.bool_] | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Whether a pixel is in the region that the method was given.

        Shape (H, W), `True` in the smallest box that holds all finite pixels:
        a pixel without data in there the method leaves out by its own choice.
        """
        finite = np.isfinite(self.image)
        rows, columns = finite.any(axis=1), finite.any(axis=0)
        covered = np.zeros_like(finite)
        if rows.any():
            box = (slice(seen.argmax(), len(seen) - seen[::-1].argmax()) for seen in (rows, columns))
            covered[tuple(box)] = True
        return covered
