# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The likelihood on the exposures' own pixels, and that on resampled ones.

The one on resampled pixels is the peer of the product's: everything of it is
imported here.
"""

from __future__ import annotations

__all__ = ("WAYS", "Runner", "Way", "current_memory", "peak_memory", "prepare")

import dataclasses
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lsst.astroclearnet.adapters import (
    PatchGeometry,
    PixelMap,
    coregister,
    prepare_exposure,
    stack_exposures,
    stack_patch_exposures,
)
from lsst.images import VisitImage

from ._geometry_projections import BORDER

_LOG = logging.getLogger("benchmarks")

WAYS = ("native", "resampled")
"""Pixels that the likelihood is of."""

type Way = str


def prepare(
    way: Way, visit_images: Sequence[VisitImage], geometry: PatchGeometry, *, num_draws: int = 0
) -> dict[str, Any]:
    """Make the arguments of `lsst.astroclearnet.core.restore`.

    Parameters
    ----------
    way
        One of `WAYS`.
    visit_images
        The exposures.
    geometry
        The patch.
    num_draws
        Number of noise realisations to resample with the pixels; native ones
        need none.

    Returns
    -------
    arguments : `dict`
        Arrays over the patch and its border.
    """
    bbox = geometry.bbox.padded(BORDER)
    if way == "native":
        native = stack_patch_exposures([prepare_exposure(v, geometry, bbox=bbox) for v in visit_images])
        return {f.name: getattr(native, f.name) for f in dataclasses.fields(native)}
    exposures = []
    for visit_image in visit_images:
        pixel_map = PixelMap.from_projections(geometry.projection, bbox, visit_image.sky_projection)
        # Two pixels more than the half width of the kernel.
        overlap = pixel_map.overlap(visit_image.bbox, padding=7)
        exposures.append(
            coregister(
                visit_image if overlap is None else visit_image[overlap],
                geometry,
                bbox=bbox,
                pixel_map=pixel_map,
                num_realizations=num_draws,
            )
        )
    resampled = stack_exposures(exposures)
    arguments = {f.name: getattr(resampled, f.name) for f in dataclasses.fields(resampled)}
    return arguments if num_draws else {**arguments, "noise": None}


def peak_memory() -> float:
    """Return the largest memory of this process so far, in MiB (`float`)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def current_memory() -> float:
    """Return the memory of this process in MiB (`float`).

    Where the system does not tell, that is its peak.
    """
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_memory()
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Runner:
    """Calls functions in processes of their own, for their peak memory.

    What they return is kept in a file, so that a benchmark that was stopped
    goes on where it was, and that more scenes can be added.

    Parameters
    ----------
    records
        File of what was measured before.
    code
        Version of the code; what another one measured is not used.
    isolate
        Whether to start processes; else everything is run in this one.
    """

    def __init__(self, records: Path, code: str, *, isolate: bool = True) -> None:
        self._records = records
        self._code = code
        self._isolate = isolate

    def __call__(self, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """Call a function, or return what it returned before.

        Parameters
        ----------
        function
            Function of a module.
        *args
            Its arguments.

        Returns
        -------
        record : `dict`
            What it returns.
        """
        key = f"{self._code}: {function.__name__}{args!r}"
        if self._records.exists():
            for line in self._records.read_text().splitlines():
                content: dict[str, Any] = json.loads(line)
                if content["key"] == key:
                    return dict(content["record"])
        start = time.perf_counter()
        if self._isolate:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                record = pool.submit(function, *args).result()
        else:
            record = function(*args)
        _LOG.info("%s%r: %.0f s", function.__name__, args, time.perf_counter() - start)
        with self._records.open("a") as file:
            file.write(json.dumps({"key": key, "record": record}) + "\n")
        return record
