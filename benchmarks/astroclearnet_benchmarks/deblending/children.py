# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A simple deblender: fluxes of sources at given positions.

That of SDSS (Lupton 2005) on a sharper image: the template of a source is the
smaller of each pair of opposite pixels around it, and the light of the coadd
is shared out among the templates, as broad as the coadd and fitted to it.
"""

from __future__ import annotations

__all__ = ("child_fluxes",)

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2
from scipy.optimize import nnls

type Array = npt.NDArray[np.float64]


def child_fluxes(
    coadd: Array,
    sharp: Array,
    kernel: npt.NDArray[np.complex128],
    positions: Array,
    radius: float,
) -> Array:
    """Share the light of a coadd out among sources.

    Parameters
    ----------
    coadd
        The coadd, shape (H, W).
    sharp
        The sharper image that templates are made of, shape (H, W).
    kernel
        Transform of what broadens it to the coadd, as of `scipy.fft.rfft2`.
    positions
        Rows and columns of the sources, shape (k, 2).
    radius
        Distance in pixels from the first source within which light counts.

    Returns
    -------
    flux : `numpy.ndarray`
        Fluxes of the children, shape (k,), 0 for one without a template.
    """
    y, x = np.indices(coadd.shape)
    inside = np.hypot(y - positions[0, 0], x - positions[0, 1]) <= radius
    light = np.where(inside, np.clip(sharp, 0.0, None), 0.0)
    templates = np.stack([_template(light, *position) for position in positions])
    broad = irfft2(rfft2(templates) * kernel, s=coadd.shape).clip(min=0.0)
    weights, _ = nnls(broad[:, inside].T, coadd[inside])
    shares = broad * weights[:, np.newaxis, np.newaxis]
    total = shares.sum(axis=0)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0.0)
    return np.asarray((shares * coadd * inside).sum(axis=(1, 2)))


def _template(light: Array, y: float, x: float) -> Array:
    """Return the part of the light that is symmetric about a position, to the
    nearest half of a pixel.
    """
    opposite = []
    for position, length in zip((y, x), light.shape, strict=True):
        index = round(2.0 * position) - np.arange(length)
        opposite.append((index.clip(0, length - 1), (index >= 0) & (index < length)))
    (rows, has_row), (columns, has_column) = opposite
    mirrored = light[np.ix_(rows, columns)] * np.outer(has_row, has_column)
    return np.minimum(light, mirrored)
