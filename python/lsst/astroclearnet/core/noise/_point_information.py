# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fisher information of exposures about the flux of a faint star."""

from __future__ import annotations

__all__ = ("information_shares", "point_source_information")

import numpy as np


def point_source_information(
    weights: np.ndarray,
    psfs: np.ndarray,
    cell_shape: tuple[int, int],
    *,
    offset: tuple[int, int] = (0, 0),
    full_shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the Fisher information of each exposure in each cell.

    For a point source so faint that the noise of the sky dominates, at a
    known position and with known PSF f, it is sum_p w(p) f(p)^2 over pixels p
    of weight w: the inverse of the variance of the flux.  A cell has the sum
    over the positions of its pixels, taken as the sum of their weights times
    the mean of sum f^2 over the cell.

    Parameters
    ----------
    weights
        Shape (..., H, W), inverse variances, for white noise in pixels of the
        patch; 0 where an exposure is not used.
    psfs
        Shape (..., n_cells_y, n_cells_x, P, P), sum 1, on pixels of the
        patch, at the centres of the cells of a regular grid over a box that
        holds the patch; NaN where an exposure has none.  Their squared norms
        are interpolated bilinearly.
    cell_shape
        Height and width in pixels of the cells of the result.
    offset
        Row and column of the first pixel of the patch in that box.
    full_shape
        Height and width in pixels of that box; the patch by default.

    Returns
    -------
    information : `numpy.ndarray`
        Shape (..., H / cell height, W / cell width), float64, in 1 / flux^2;
        0 for an exposure without any PSF.

    Raises
    ------
    ValueError
        If H and W are not whole numbers of cells.
    """
    height, width = weights.shape[-2:]
    if height % cell_shape[0] or width % cell_shape[1]:
        raise ValueError(
            f"Weights of {height}x{width} pixels are not a whole number of cells of "
            f"{cell_shape[0]}x{cell_shape[1]}."
        )
    norms = (np.asarray(psfs, dtype=float) ** 2).sum(axis=(-1, -2))
    full = full_shape if full_shape is not None else (height, width)
    rows = _mean_hats(norms.shape[-2], height, cell_shape[0], offset[0], full[0])
    columns = _mean_hats(norms.shape[-1], width, cell_shape[1], offset[1], full[1])
    known = np.isfinite(norms)
    norms = np.where(known, norms, 0.0)
    number = known.sum(axis=(-1, -2), keepdims=True)
    overall = norms.sum(axis=(-1, -2), keepdims=True) / np.maximum(number, 1)
    # Cells far from any PSF take the mean one.
    share = rows @ known.astype(float) @ columns.T
    mean = np.broadcast_to(overall, share.shape).copy()
    np.divide(rows @ norms @ columns.T, share, out=mean, where=share > 0)
    blocks = weights.reshape(
        *weights.shape[:-2], height // cell_shape[0], cell_shape[0], width // cell_shape[1], cell_shape[1]
    )
    return mean * blocks.sum(axis=(-3, -1), dtype=float)


def information_shares(information: np.ndarray) -> np.ndarray:
    """Return the share of each exposure in the information of all.

    Parameters
    ----------
    information
        Shape (n, ...), not negative.

    Returns
    -------
    shares : `numpy.ndarray`
        Shape (n, ...), sum 1 over the exposures, or 0 without information.
    """
    total = information.sum(axis=0)
    return np.divide(information, total, out=np.zeros_like(information), where=total > 0)


def _mean_hats(number: int, size: int, cell: int, offset: int, full: int) -> np.ndarray:
    """Return weights of linear interpolation averaged over cells, (size /
    cell, number), from nodes at the centres of equal parts of ``full`` pixels.
    """
    pixels = np.arange(size) + offset + 0.5
    place = np.clip(pixels * number / full - 0.5, 0.0, number - 1.0)
    hats = np.clip(1.0 - np.abs(place[:, None] - np.arange(number)), 0.0, None)
    return hats.reshape(size // cell, cell, number).mean(axis=1)
