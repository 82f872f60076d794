# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restore the scenes of a case and measure what a method makes of them."""

from __future__ import annotations

__all__ = ("Products", "measure_case", "restore_case")

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..quality.measure import best_products
from ..quality.product import Product
from ..scenes import Scene
from .cases import Case, Exposures
from .coverage import measure_coverage
from .halos import measure_halos
from .injections import measure_injections
from .pixels import measure_pixels
from .repeats import measure_difference, measure_harm
from .shapes import measure_shapes
from .surroundings import measure_surroundings

type Products = dict[str, dict[str, Product]]
"""Products by variant of the case and by name."""

_OTHER_SEED = 1


def restore_case(
    run: Callable[[Scene, float, int], Iterator[list[Product]]], case: Case, exposures: Exposures
) -> tuple[Products, float]:
    """Restore all scenes of a case.

    A method that its users stop by eye is stopped closest to the truth of the
    plain scene, and as late in the others.

    Parameters
    ----------
    run
        Function of the scene, the target FWHM in pixels and the seed, which
        yields the products of each stop, as of
        `~astroclearnet_benchmarks.quality.methods.Method`.
    case
        The case.
    exposures
        Its scenes.

    Returns
    -------
    products : `dict` [`str`, `dict` [`str`, `Product`]]
        By variant and name.
    cpu_seconds : `float`
        Time that the plain scene took.
    """
    plain = exposures.scenes["plain"]
    chosen, _, cpu = best_products(run(plain, case.target_fwhm, case.seed), plain, case.target_fwhm)
    products: Products = {"plain": chosen}
    for variant, scene in exposures.scenes.items():
        if variant == "plain":
            continue
        seed = case.seed + (_OTHER_SEED if variant == "again" else 0)
        products[variant] = {}
        for stop in run(scene, case.target_fwhm, seed):
            for product in stop:
                if product.iteration == chosen[product.name].iteration:
                    products[variant][product.name] = product
    return products, cpu


def measure_case(case: Case, exposures: Exposures, products: Products) -> dict[str, dict[str, Any]]:
    """Measure the products of a case.

    Parameters
    ----------
    case
        The case.
    exposures
        Its scenes.
    products
        What a method made of them.

    Returns
    -------
    record : `dict` [`str`, `dict`]
        By name of the product, and for each what the suite measures by name
        of the measure.  Variants that a method has not restored are left out.
    """
    return {
        name: _measure(case, exposures, {variant: each.get(name) for variant, each in products.items()})
        for name in products["plain"]
    }


def _measure(case: Case, exposures: Exposures, variants: Mapping[str, Product | None]) -> dict[str, Any]:
    """Measure one product."""
    scene, plain = exposures.scenes["plain"], variants["plain"]
    if plain is None:
        return {}
    image, truth = np.asarray(plain.image, dtype=float), scene.truth(case.target_fwhm)
    at_target = (image, truth, scene)
    record: dict[str, Any] = {}
    if case.suite != "injections":
        record["pixels"] = measure_pixels(*at_target)
        record["halos"] = measure_halos(*at_target, case.target_fwhm)
        record["coverage"] = measure_coverage(plain, scene.truth(plain.fwhm), scene)
    if case.suite in ("field", "hosts"):
        record["shapes"] = measure_shapes(*at_target, case.target_fwhm)
    if case.suite in ("field", "companions"):
        compensated = case.suite == "companions"
        record["detection"] = measure_surroundings(plain, scene, compensated=compensated)
    if (again := variants.get("again")) is not None:
        record["difference"] = measure_difference(plain, again, scene)
    if (bad := variants.get("bad")) is not None:
        record["harm"] = measure_harm(plain, bad, truth, scene)
    if (injected := variants.get("injected")) is not None:
        record["injections"] = measure_injections(plain, injected, exposures.sources)
    return record
