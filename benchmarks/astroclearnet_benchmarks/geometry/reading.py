# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Time and memory of reading the exposures of a patch from files."""

from __future__ import annotations

__all__ = ("measure_reading",)

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates

from lsst.astroclearnet.adapters import (
    PatchExposure,
    PatchGeometry,
    PixelMap,
    VisitCutout,
    read_overlap,
    source_id,
)
from lsst.astroclearnet.repository import create_repository, put_visit_image
from lsst.astroclearnet.simulation import (
    ArtefactOptions,
    SurveyOptions,
    focal_plane,
    make_catalogue,
    observe,
    plan_visits,
    resample,
)
from lsst.astroclearnet.tasks import PrepareExposuresTask
from lsst.daf.butler import Butler, DeferredDatasetHandle
from lsst.images import Box, VisitImage

from ..processes import Runner, current_memory, peak_memory
from ..record import Table, compare, format_value
from .projections import BORDER

_LIMIT = 2.0
_ORDER = 5
_REPEATS = 3
_WARPED = 6
"""One of so many exposures is warped: a kernel of 100 taps takes its time."""

_RUN = "benchmark/visits"

_LEGEND = (
    "Files of a Butler repository, by deferred handles, in three runs each: the median of the processor time "
    "of `PrepareExposuresTask`; of reading the same sub-images; of that and a bare warp of image and "
    "variance to the patch, positions from the same interpolated map, by the Lanczos kernel of order 5 of "
    "the `resampled` likelihood and by the quintic spline of SciPy, in C, of 36 taps (of every sixth "
    "exposure, times their number); and the ratios of the first to these. Memory is by how much that of a "
    "process of its own grew at most, beside the bytes that the result keeps. "
)


def measure_reading(runner: Runner, *, count: int, quick: bool) -> list[Table]:
    """Compare the time of reading and preparing with that of a bare warp."""
    del count
    shape, cells, visits = ((220, 140), 4, 2) if quick else ((1100, 600), 20, 12)
    options = SurveyOptions(
        seed=7400,
        bands=("i",),
        visits_per_band=visits,
        patch_cells=cells,
        border_cells=0,
        num_patches=(1, 1),
        detector_grid=(1, 2),
        detector_shape=shape,
        stars_per_patch=40.0,
        pairs_per_patch=0.0,
        galaxies_per_arcmin2=1.0,
        num_psf_stars=12,
        artefacts=ArtefactOptions.none(),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder) / "repo")
        number = _make_repository(root, options)
        arguments = (root, options)
        times = runner(_time_all, *arguments)
        grown = runner(_grow, *arguments)
    bare = {name: times["read"] + times[name] for name in ("lanczos", "spline")}
    row = {
        "exposures": f"{times['exposures']:.0f} of {number}",
        "patch": f"{cells * options.cell_size}x{cells * options.cell_size}",
        "prepare s": format_value(times["prepare"]),
        "read s": format_value(times["read"]),
        "read and Lanczos s": format_value(bare["lanczos"]),
        "read and spline s": format_value(bare["spline"]),
        "ratio, Lanczos": format_value(times["prepare"] / bare["lanczos"]),
        "ratio, spline": format_value(times["prepare"] / bare["spline"]),
        "limit": compare(max(times["prepare"] / each for each in bare.values()), _LIMIT, ""),
        "kept MiB": format_value(grown["kept"]),
        "kept, bytes per pixel": format_value(grown["kept"] * 2**20 / grown["pixels"]),
        "memory grew MiB": format_value(grown["grown"]),
    }
    setting = f"{visits} visits of 2 detectors of {shape[0]}x{shape[1]} pixels, border {BORDER}."
    return [Table("From files", _LEGEND + setting, [row])]


def _make_repository(root: str, options: SurveyOptions) -> int:
    """Write visit images, and nothing else; return their number."""
    butler = create_repository(root)
    visits = plan_visits(options)
    catalogue = make_catalogue(options, visits)
    layouts = focal_plane(options.detector_grid, options.detector_shape, options.detector_gap)
    for visit in visits:
        for layout in layouts:
            put_visit_image(butler, observe(visit, layout, catalogue, options), _RUN)
    return len(visits) * len(layouts)


def _open(root: str, options: SurveyOptions) -> tuple[list[DeferredDatasetHandle], PatchGeometry]:
    butler = Butler.from_config(root, collections=[_RUN])
    refs = butler.query_datasets("visit_image")
    return [butler.getDeferred(ref) for ref in refs], options.geometry.patch(options.tract, 0)


def _time_all(root: str, options: SurveyOptions) -> dict[str, float]:
    """Return median times of all steps, and how many exposures are used."""
    handles, geometry = _open(root, options)
    used = {each.cutout.identity for each in _prepare(handles, geometry)}
    handles = [h for h in handles if source_id(h) in used]
    prepare, read = [], []
    for _ in range(_REPEATS):
        start = time.process_time()
        _prepare(handles, geometry)
        prepare.append(time.process_time() - start)
        start = time.process_time()
        for handle in handles:
            _read(handle, geometry)
        read.append(time.process_time() - start)
    warps = [_time_warps(handle, geometry) for handle in handles[::_WARPED]]
    return {
        "exposures": float(len(handles)),
        "prepare": float(np.median(prepare)),
        "read": float(np.median(read)),
        **{name: len(handles) * float(np.mean([w[name] for w in warps])) for name in warps[0]},
    }


class _Prepared(NamedTuple):
    """All that a tile as large as the patch needs of an exposure."""

    cutout: VisitCutout
    exposure: PatchExposure
    planes: dict[str, np.ndarray]

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        arrays = [*vars(self.exposure).values(), *self.planes.values()]
        return self.cutout.num_bytes + sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))


def _prepare(handles: Sequence[DeferredDatasetHandle], geometry: PatchGeometry) -> list[_Prepared]:
    source = PrepareExposuresTask().run(visit_images=handles, geometry=geometry).source
    return [
        _Prepared(cutout, exposure, cutout.planes_within(source.bbox))
        for cutout in source.cutouts
        if (exposure := cutout.within(source.bbox)) is not None
    ]


def _read(handle: DeferredDatasetHandle, geometry: PatchGeometry) -> tuple[VisitImage, PixelMap]:
    """Read the pixels and variances that a patch needs."""
    visit_image, pixel_map = read_overlap(handle, geometry, geometry.bbox.padded(BORDER), padding=1)
    # Planes that are read only when they are asked for.
    _ = visit_image.image.array, visit_image.variance.array
    return visit_image, pixel_map


def _time_warps(handle: DeferredDatasetHandle, geometry: PatchGeometry) -> dict[str, float]:
    """Return the times of bare warps of one exposure."""
    visit_image, pixel_map = _read(handle, geometry)
    image, variance = visit_image.image.array, visit_image.variance.array
    good = np.ones(image.shape, dtype=bool)
    start = time.process_time()
    y, x, area = _place(pixel_map, visit_image.bbox)
    placed = time.process_time()
    resample(image, variance, good, y=y, x=x, area=area, order=_ORDER)
    warped = time.process_time()
    for plane in (image, variance):
        area * map_coordinates(plane, [y, x], order=_ORDER, output=np.float32, mode="constant")
    done = time.process_time()
    return {"lanczos": warped - start, "spline": placed - start + done - warped}


def _place(pixel_map: PixelMap, bbox: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the patch lies on a sub-image, and areas."""
    positions = pixel_map.positions()
    return positions.y - bbox.y.start, positions.x - bbox.x.start, pixel_map.area()


def _grow(root: str, options: SurveyOptions) -> dict[str, float]:
    """Return by how much the memory grows, and how much is kept."""
    handles, geometry = _open(root, options)
    # What is loaded with the first image stays.
    _prepare(handles[:1], geometry)
    before = current_memory()
    prepared = _prepare(handles, geometry)
    grown = peak_memory() - before
    pixels = sum(each.exposure.image.size for each in prepared)
    kept = sum(each.num_bytes for each in prepared) / 2**20
    return {"grown": grown, "kept": kept, "pixels": float(pixels)}
