# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Read visit images once for all the patches that they cover."""

from __future__ import annotations

__all__ = ("VISIT_DIMENSIONS", "PatchStack", "VisitReader")

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from lsst.daf.butler import Butler
from lsst.sphgeom import ConvexPolygon

from ..adapters import UnusableExposureError, VisitPsf, read_visit_psf

type Array = npt.NDArray[np.float64]
type Progress = Callable[[int, int, str], None]
type VisitKey = tuple[str, int, int]

VISIT_DIMENSIONS = ("instrument", "visit", "detector")
"""Dimensions whose values make the key of a visit image."""

_MIN_FRACTION = 0.05
"""Exposures that cover less of a patch are not counted among its own."""


@dataclasses.dataclass(frozen=True)
class PatchStack:
    """PSFs and variances of the exposures of a patch.

    Attributes
    ----------
    psfs
        Shape (n, P, P), sum 1, on the pixels of the patch.
    levels
        Shape (n,), variance of the blank sky, larger by the part of the patch
        that an exposure does not cover.
    pixel_scale
        Size of the pixels in arcsec.
    """

    psfs: Array
    levels: Array
    pixel_scale: float


class VisitReader:
    """Read visit images once, and remember those that cannot be used.

    Parameters
    ----------
    butler
        The Butler.
    dataset_type
        Name of the dataset type.
    """

    def __init__(self, butler: Butler, dataset_type: str) -> None:
        self.skipped: dict[VisitKey, str] = {}
        self._butler = butler
        self._dataset_type = dataset_type
        self._visits: dict[VisitKey, VisitPsf] = {}

    def read(self, keys: set[VisitKey], progress: Progress | None) -> None:
        """Read visit images.

        Parameters
        ----------
        keys
            Which ones.
        progress
            Function that is told how far it is.
        """
        for done, key in enumerate(sorted(keys)):
            if progress is not None:
                progress(done, len(keys), "{} visit {}, detector {}".format(*key))
            data_id = dict(zip(VISIT_DIMENSIONS, key, strict=True))
            try:
                self._visits[key] = read_visit_psf(self._butler.getDeferred(self._dataset_type, data_id))
            except UnusableExposureError as exc:
                self.skipped[key] = exc.reason

    def stack(
        self,
        keys: Iterable[VisitKey],
        region: ConvexPolygon | None,
        pixel_scale: float | None,
        used: set[VisitKey],
    ) -> PatchStack | None:
        """Bring the exposures of a patch onto its pixels.

        Parameters
        ----------
        keys
            The exposures.
        region
            The patch; `None` for all of each exposure.
        pixel_scale
            Size of its pixels in arcsec; by default the smallest of the
            exposures' own.
        used
            Set to add to what is in the stack.

        Returns
        -------
        stack : `PatchStack` or `None`
            The stack; `None` if no exposure is usable.
        """
        visits = {key: self._visits[key] for key in keys if key in self._visits}
        if not visits:
            return None
        scale = pixel_scale or round(min(visit.pixel_scale for visit in visits.values()), 4)
        stamps: list[Array] = []
        levels: list[float] = []
        for key, visit in visits.items():
            overlap = visit.overlap(region)
            if overlap is None or overlap.fraction < _MIN_FRACTION:
                continue
            try:
                stamps.append(visit.stamp(y=overlap.y, x=overlap.x, pixel_scale=scale))
            except UnusableExposureError as exc:
                self.skipped[key] = exc.reason
                continue
            levels.append(visit.level_at(scale) / overlap.fraction)
            used.add(key)
        if not stamps:
            return None
        size = max(len(stamp) for stamp in stamps)
        psfs = [np.pad(stamp, (size - len(stamp)) // 2) for stamp in stamps]
        return PatchStack(np.stack(psfs), np.array(levels), scale)
