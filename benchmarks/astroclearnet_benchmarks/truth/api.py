# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""All measures of a method in one call."""

from __future__ import annotations

__all__ = ("as_run", "measure_all")

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..baselines import Restorer
from ..quality.product import Product
from ..scenes import Scene
from .cases import DEFAULT_SUITES, Case, expose
from .figures import Row, make_rows
from .measure import measure_case, restore_case

_LOG = logging.getLogger(__name__)

type Run = Callable[[Scene, float, int], Iterator[list[Product]]]


def as_run(method: Restorer | Callable[..., Any], name: str = "") -> Run:
    """Return a method as a function that yields products.

    Parameters
    ----------
    method
        A `~astroclearnet_benchmarks.baselines.Restorer`; or a function of
        images, variances, good pixels and PSFs, with the keywords
        ``target_fwhm`` and ``seed``, that returns an object with ``image`` and
        ``variance`` (or `None`) at the target PSF, as
        `lsst.astroclearnet.core.restore` does.  The keyword ``positions`` is
        given where exposures are on their own grids, which a `Restorer`
        cannot take.
    name
        Name of the row; by default that of the method.

    Returns
    -------
    run : `~collections.abc.Callable`
        Function of scene, target FWHM and seed.
    """

    def run(scene: Scene, target_fwhm: float, seed: int) -> Iterator[list[Product]]:
        exposures = (scene.images, scene.variances, scene.good, scene.psfs)
        if isinstance(method, Restorer):
            for stop in method.restore(*exposures, target_fwhm=target_fwhm, seed=seed):
                words = name or method.name
                yield [Product(words, stop.image, stop.fwhm, stop.variance, stop.iteration)]
        else:
            grids = {} if scene.positions is None else {"positions": scene.positions}
            result = method(*exposures, target_fwhm=target_fwhm, seed=seed, **grids)
            words = name or getattr(method, "__name__", "method")
            yield [Product(words, result.image, target_fwhm, result.variance)]

    return run


def measure_all(
    method: Restorer | Callable[..., Any],
    seeds: Iterable[int] = range(3),
    *,
    suites: Iterable[str] = DEFAULT_SUITES,
    name: str = "",
    **setting: Any,
) -> list[Row]:
    """Measure a method on development scenes.

    Parameters
    ----------
    method
        The method, as `as_run` takes it.
    seeds
        Seeds of the scenes of each suite.
    suites
        Some of `SUITES`.
    name
        Name of the row; by default that of the method.
    **setting
        ``target_fwhm``, ``num_exposures`` and ``shape`` of the cases, see
        `Case`.

    Returns
    -------
    rows : `list` [`Row`]
        The figures.
    """
    run = as_run(method, name)
    records = defaultdict(list)
    for seed in seeds:
        for suite in suites:
            case = Case(suite, seed, **setting)
            exposures = expose(case)
            products, cpu = restore_case(run, case, exposures)
            records[suite].append(measure_case(case, exposures, products))
            _LOG.info("%s: %.1f CPU seconds for the plain scene", case.name, cpu)
    return make_rows(records)
