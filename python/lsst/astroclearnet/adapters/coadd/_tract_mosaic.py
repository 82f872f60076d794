# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Coadds of the patches of a tract joined to one image."""

from __future__ import annotations

__all__ = (
    "MAX_BINNING",
    "BinnedPatch",
    "bin_inner_region",
    "binned_projection",
    "faintest_peak",
    "join_binned",
)

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt

from lsst.images import Box, GeneralFrame, Interval, SkyProjection
from lsst.images.cells import CellCoadd

from ..place import PatchGeometry

MAX_BINNING = 255
"""Largest width of a block, whose pixels must be counted in 16 bits."""


@dataclasses.dataclass(frozen=True)
class BinnedPatch:
    """Inner region of a patch, summed over blocks of pixels of the tract.

    Attributes
    ----------
    bbox
        Box in blocks: block n holds the pixels n b to n b + b - 1 of the
        tract, with b the width of a block.
    total
        Sum of the pixels with a value, float32, shape of the box, in the unit
        of the image.
    num_good, num_pixels
        Number of these pixels, and of all of the inner region, uint16, shape
        of the box.
    """

    bbox: Box
    total: npt.NDArray[np.float32]
    num_good: npt.NDArray[np.uint16]
    num_pixels: npt.NDArray[np.uint16]


def bin_inner_region(image: npt.NDArray[Any], bbox: Box, inner: Box, binning: int) -> BinnedPatch:
    """Sum the inner region of a patch over blocks of pixels.

    Inner regions do not overlap, so that the sums of neighbours add up to
    those of a tract without borders, wherever the blocks lie.

    Parameters
    ----------
    image
        Image of the patch, NaN without a value, shape of its box.
    bbox
        Box of the image in pixels of the tract.
    inner
        Inner box of the patch; what lies beyond the image does not count.
    binning
        Width of a block in pixels.

    Returns
    -------
    patch : `BinnedPatch`
        The sums.

    Raises
    ------
    ValueError
        If the width is not from 1 to `MAX_BINNING`.
    """
    if not 1 <= binning <= MAX_BINNING:
        raise ValueError(f"binning={binning} must be from 1 to {MAX_BINNING} pixels.")
    inside = inner.intersection(bbox)
    blocks = _blocks(inside, binning)
    pixels = np.asarray(image)[inside.slice_within(bbox)]
    widths = [
        (axis.start - binning * block.start, binning * block.stop - axis.stop)
        for axis, block in ((inside.y, blocks.y), (inside.x, blocks.x))
    ]
    shape = (blocks.y.size, binning, blocks.x.size, binning)

    def summed(plane: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
        return np.pad(plane, widths).reshape(shape).sum(axis=(1, 3), dtype=dtype)

    good = np.isfinite(pixels)
    return BinnedPatch(
        bbox=blocks,
        total=summed(np.where(good, pixels, 0.0), np.float64).astype(np.float32),
        num_good=summed(good, np.uint16),
        num_pixels=summed(np.ones_like(good), np.uint16),
    )


def join_binned(patches: Sequence[BinnedPatch], bbox: Box) -> npt.NDArray[np.float32]:
    """Join patches to one image.

    Parameters
    ----------
    patches
        Patches of one tract in one band.
    bbox
        Box of the image in blocks, which holds those of the patches.

    Returns
    -------
    image : `numpy.ndarray`
        Mean of the pixels with a value of each block, float32, shape of the
        box; NaN where less than half of the pixels that inner regions have
        there has one.
    """
    total = np.zeros(bbox.shape, dtype=np.float32)
    num_good, num_pixels = (np.zeros(bbox.shape, dtype=np.uint16) for _ in range(2))
    for patch in patches:
        place = patch.bbox.slice_within(bbox)
        total[place] += patch.total
        num_good[place] += patch.num_good
        num_pixels[place] += patch.num_pixels
    known = (num_good > 0) & (2 * num_good >= num_pixels)
    return np.divide(total, num_good, out=np.full_like(total, np.nan), where=known)


def binned_projection(projection: SkyProjection[Any], bbox: Box, binning: int) -> SkyProjection[GeneralFrame]:
    """Return the projection of blocks of pixels.

    Parameters
    ----------
    projection
        That of the pixels.
    bbox
        Box of the image in blocks.
    binning
        Width of a block in pixels.

    Returns
    -------
    projection : `lsst.images.SkyProjection`
        Mapping from blocks to ICRS.

    Raises
    ------
    ValueError
        If the projection of the pixels is not that of a FITS header.
    """
    pixels = Box(*(Interval(binning * axis.start, binning * axis.stop) for axis in (bbox.y, bbox.x)))
    wcs = projection.as_fits_wcs(pixels, allow_approximation=True)
    if wcs is None:
        raise ValueError("The projection of the tract cannot be written as a FITS header.")
    wcs = wcs.deepcopy()
    # The middle of the first pixel of an array is 1.
    wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) / binning + 0.5
    if wcs.wcs.has_cd():
        wcs.wcs.cd = wcs.wcs.cd * binning
    else:
        wcs.wcs.cdelt = wcs.wcs.cdelt * binning
    return SkyProjection.from_fits_wcs(
        wcs, GeneralFrame(unit=u.pix), pixel_bounds=bbox, x0=bbox.x.start, y0=bbox.y.start
    )


def faintest_peak(coadd: CellCoadd) -> float:
    """Return the peak of the faintest believable star on a restored coadd.

    Parameters
    ----------
    coadd
        The coadd, whose metadata say its PSF and how faint a flux is
        believable.

    Returns
    -------
    peak : `float`
        Value of its brightest pixel in nJy; NaN if the metadata do not say.
    """
    metadata: Mapping[str, Any] = coadd.metadata
    flux, fwhm = (float(metadata.get(key, math.nan)) for key in ("faintest_flux_njy", "target_fwhm_arcsec"))
    scale = PatchGeometry(projection=coadd.sky_projection, definition=coadd.patch).pixel_scale
    return flux * 4.0 * math.log(2.0) / math.pi * (scale / fwhm) ** 2


def _blocks(bbox: Box, binning: int) -> Box:
    """Return the blocks that pixels of a box lie in."""
    return Box(*(Interval(axis.start // binning, -(-axis.stop // binning)) for axis in (bbox.y, bbox.x)))
