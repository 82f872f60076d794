# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How often the error is within the sigma that is declared."""

from __future__ import annotations

__all__ = ("FLUX_EDGES", "NOMINAL", "SIGMA_EDGES", "measure_coverage")

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from ..quality.product import Product
from ..scenes import Scene

type Array = npt.NDArray[np.float64]

FLUX_EDGES = (-math.inf, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, math.inf)
"""Limits of the bins of flux in sky sigmas."""

SIGMA_EDGES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, math.inf)
"""Limits of the bins of declared sigma in sky sigmas."""

NOMINAL = tuple(float(erf(k / math.sqrt(2.0))) for k in (1, 2, 3))
"""Shares of a normal distribution within 1, 2 and 3 sigma."""


def measure_coverage(product: Product, truth: Array, scene: Scene) -> dict[str, Any]:
    """Count the pixels whose error is within 1, 2 and 3 declared sigmas.

    All pixels count that the product gives a value and a variance and does
    not flag: their choice does not know the truth.

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
        (len(FLUX_EDGES) - 1, len(SIGMA_EDGES) - 1, 4), with the numbers of
        pixels and of those within 1, 2 and 3 sigma.  Empty if nothing is
        declared.
    """
    if product.variance is None:
        return {}
    image = np.asarray(product.image, dtype=float)
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(np.asarray(product.variance, dtype=float))
    used = np.isfinite(image) & np.isfinite(sigma) & (sigma > 0.0)
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
                bins=(_finite(FLUX_EDGES), _finite(SIGMA_EDGES)),
                weights=weights,
            )[0]
            for weights in counted
        ]
        record[name] = np.stack(planes, axis=-1).astype(int).tolist()
    return record


def _finite(edges: tuple[float, ...]) -> list[float]:
    """Replace infinities, which histograms do not take."""
    return [math.copysign(1e30, edge) if math.isinf(edge) else edge for edge in edges]
