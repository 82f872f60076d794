# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Run a method on a scene and measure what it makes."""

from __future__ import annotations

__all__ = ("best_products", "measure_product", "run_method")

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..scenes import Scene
from .artefacts import measure_artefacts
from .detection import measure_detection
from .errors import measure_errors
from .galaxies import measure_galaxies
from .methods import Method
from .pairs import measure_pairs
from .product import Product
from .stars import measure_stars

type Array = npt.NDArray[np.float64]


def run_method(method: Method, scene: Scene, target_fwhm: float, seed: int) -> dict[str, Any]:
    """Run a method and measure each of its products at its best stop."""
    products, wall, cpu = best_products(method.run(scene, target_fwhm, seed), scene, target_fwhm)
    return {
        "seconds": wall,
        "cpu_seconds": cpu,
        "products": {
            name: measure_product(product, scene, target_fwhm) for name, product in products.items()
        },
    }


def best_products(
    stops: Iterator[list[Product]], scene: Scene, target_fwhm: float
) -> tuple[dict[str, Product], float, float]:
    """Return each product of a method at its best stop.

    The best stop is the one with the smallest rms error to the truth at the
    target PSF, in units of the noise that a mean of the exposures has there.
    A user, who has no truth, cannot do as well.

    Returns
    -------
    products : `dict` [`str`, `Product`]
        The products by name.
    wall, cpu : `float`
        Time that the method took, in seconds.
    """
    target_truth = scene.truth(target_fwhm)
    best: dict[str, tuple[float, Product]] = {}
    wall, cpu = 0.0, 0.0
    while True:
        start, cpu_start = time.perf_counter(), time.process_time()
        products = next(stops, None)
        wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - cpu_start
        if products is None:
            break
        for product in products:
            error = _distance(product, scene, target_truth)
            if product.name not in best or error < best[product.name][0]:
                best[product.name] = (error, product)
    return {name: product for name, (_, product) in best.items()}, wall, cpu


def _distance(product: Product, scene: Scene, truth: Array) -> float:
    """Return the error that decides about the best stop."""
    sigma = scene.best_sigma
    used = np.isfinite(product.image) & np.isfinite(sigma)
    return float(np.mean(((product.image - truth)[used] / sigma[used]) ** 2))


def measure_product(product: Product, scene: Scene, target_fwhm: float) -> dict[str, Any]:
    """Measure what a kind of scene is for."""
    truth = scene.truth(product.fwhm)
    record: dict[str, Any] = {
        "fwhm": product.fwhm,
        "iteration": product.iteration,
        "figures": product.figures,
    }
    match scene.options.kind:
        case "stars":
            record |= measure_stars(product, scene, truth)
        case "galaxies":
            record |= measure_galaxies(product, scene, truth)
        case "pairs":
            record |= measure_pairs(product, scene)
        case _:
            record |= measure_errors(product, scene, truth, scene.truth(target_fwhm))
            record |= measure_artefacts(product, scene, truth)
            record |= measure_detection(product, scene)
    return record
