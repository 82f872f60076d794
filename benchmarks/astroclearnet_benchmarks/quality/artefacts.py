# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What is left of unflagged artefacts."""

from __future__ import annotations

__all__ = ("measure_artefacts",)

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from ..scenes import Scene
from .product import Product

type Array = npt.NDArray[np.float64]

_SMOOTHING = 1.3
"""Standard deviation in pixels of the filter that looks for residues: about
that of the target PSF, to which methods bring the light of an artefact."""


def measure_artefacts(product: Product, scene: Scene, truth: Array) -> dict[str, dict[str, float]]:
    """Measure the light of artefacts relative to the plain mean.

    The template is what artefacts add to the inverse-variance mean.  The
    residue is the projection of the error of the image on the smoothed
    template, over that of the template itself: 1 for the plain mean.
    """
    residual = np.asarray(product.image, dtype=float) - truth
    seen = np.isfinite(residual)
    residual[~seen] = 0.0
    level = np.array(
        [np.median(v[g]) if g.any() else np.inf for v, g in zip(scene.variances, scene.good, strict=True)]
    )
    weights = scene.good / level[:, np.newaxis, np.newaxis]
    total = weights.sum(axis=0)
    left = {}
    for name, light in (("cosmic_rays", scene.artefacts - scene.trail), ("trail", scene.trail)):
        mean = np.divide((weights * light).sum(axis=0), total, out=np.zeros(total.shape), where=total > 0)
        projector = seen * gaussian_filter(mean, _SMOOTHING, mode="constant")
        norm = float(np.sum(projector * mean))
        left[name] = float(np.sum(projector * residual)) / norm if norm > 0.0 else math.nan
    return {"left": left}
