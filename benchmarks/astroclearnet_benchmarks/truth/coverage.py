# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How often the error is within the sigma that is declared."""

from __future__ import annotations

__all__ = ("MIN_PIXELS", "NOMINAL", "coverage_rows", "measure_coverage", "pool_coverage")

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from ..quality.product import Product
from ..scenes import Scene

type Array = npt.NDArray[np.float64]

_FLUX_EDGES = (-math.inf, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, math.inf)
"""Limits of the bins of flux in sky sigmas."""

_SIGMA_EDGES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, math.inf)
"""Limits of the bins of declared sigma in sky sigmas."""

NOMINAL = tuple(float(erf(k / math.sqrt(2.0))) for k in (1, 2, 3))
"""Shares of a normal distribution within 1, 2 and 3 sigma."""


MIN_PIXELS = 5000
"""Pixels that a bin needs: they are correlated over a PSF, so that its shares
are known to two percent."""


def measure_coverage(product: Product, truth: Array, scene: Scene) -> dict[str, Any]:
    """Count the pixels whose error is within 1, 2 and 3 declared sigmas.

    All pixels count that an exposure has and that the product gives a value
    and a variance and does not flag: their choice does not know the truth.

    Parameters
    ----------
    product
        What a method made of the scene.
    truth
        Shape (H, W), the truth at the PSF that it declares.
    scene
        The scene.

    Returns
    -------
    record : `dict`
        ``by_image`` and ``by_truth``, in bins of the flux in the image or in
        the truth and of declared sigma: arrays as lists, of shape
        (bins of flux, bins of sigma, 4), with the numbers of pixels and of
        those within 1, 2 and 3 sigma.  Empty if nothing is
        declared.
    """
    if product.variance is None:
        return {}
    image = np.asarray(product.image, dtype=float)
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(np.asarray(product.variance, dtype=float))
    used = np.isfinite(image) & np.isfinite(sigma) & (sigma > 0.0) & (scene.depth > 0.0)
    if product.flagged is not None:
        used &= ~product.flagged
    pull = np.abs(image - truth)[used] / sigma[used]
    counted = np.stack([np.ones_like(pull), *(pull <= k for k in (1, 2, 3))])
    record = {}
    for name, level in (("by_image", image), ("by_truth", truth)):
        planes = [
            np.histogram2d(
                level[used] / scene.sky_sigma,
                sigma[used] / scene.sky_sigma,
                bins=(_finite(_FLUX_EDGES), _finite(_SIGMA_EDGES)),
                weights=weights,
            )[0]
            for weights in counted
        ]
        record[name] = np.stack(planes, axis=-1).astype(int).tolist()
    return record


def pool_coverage(records: Sequence[dict[str, Any]], bins: str) -> npt.NDArray[np.int64]:
    """Add up what was counted in several scenes.

    Parameters
    ----------
    records
        Records of `measure_coverage`.
    bins
        ``by_image`` or ``by_truth``.

    Returns
    -------
    counts : `numpy.ndarray`
        As a record has them; zeros if nothing was declared.
    """
    counts = np.zeros((len(_FLUX_EDGES) - 1, len(_SIGMA_EDGES) - 1, 4), dtype=np.int64)
    for record in records:
        if record:
            counts += np.array(record[bins])
    return counts


def coverage_rows(records: Sequence[dict[str, Any]], bins: str) -> list[dict[str, str]]:
    """Return a row of a table for each bin with enough pixels.

    Parameters
    ----------
    records
        Records of `measure_coverage`.
    bins
        ``by_image`` or ``by_truth``.

    Returns
    -------
    rows : `list` [`dict` [`str`, `str`]]
        Cells by the names of columns.
    """
    counts = pool_coverage(records, bins)
    rows = []
    for flux, sigma in np.argwhere(counts[..., 0] >= MIN_PIXELS):
        number, *within = counts[flux, sigma]
        row = {
            "flux": f"{_FLUX_EDGES[flux]:g} to {_FLUX_EDGES[flux + 1]:g}",
            "declared sigma": f"{_SIGMA_EDGES[sigma]:g} to {_SIGMA_EDGES[sigma + 1]:g}",
            "pixels": str(number),
        }
        shares = zip(NOMINAL, within, strict=True)
        rows.append(row | {f"% of {100.0 * n:.1f}": f"{100.0 * count / number:.1f}" for n, count in shares})
    return rows


def _finite(edges: tuple[float, ...]) -> list[float]:
    """Replace infinities, which histograms do not take."""
    return [math.copysign(1e30, edge) if math.isinf(edge) else edge for edge in edges]
