# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Detector images of a simulated camera, and where the time goes with them."""

from __future__ import annotations

__all__ = ("camera_options", "measure_detectors", "run_detectors", "simulate_detectors")

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lsst.astroclearnet.adapters import (
    PatchGeometry,
    PatchSource,
    PixelMap,
    UnusableExposureError,
    VisitCutout,
    pad_to_common_size,
)
from lsst.astroclearnet.adapters.place import PatchPsf
from lsst.astroclearnet.core import FitOptions, RestoreOptions, restore_exposures, suggest_target_fwhm
from lsst.astroclearnet.simulation import (
    PIXEL_SCALE,
    SurveyOptions,
    detector_projection,
    focal_plane,
    make_catalogue,
    observe,
    plan_visits,
)
from lsst.images import VisitImage

from ..processes import call_in_process
from ..record import Table

_CELL = 50
_BORDER = 16
"""Pixels around the patch, as by default in a task."""

_QUICK_SIZE, _QUICK_VISITS = 150, 2

_STAGES = ("cutting", "PSFs", "positions", "reading", "calibration", "tiles")

_WATCHED: tuple[tuple[type, str, str], ...] = (
    (VisitCutout, "take", "cutting"),
    (PatchPsf, "evaluate", "PSFs"),
    (PatchPsf, "stamps", "PSFs"),
    (PixelMap, "from_projections", "positions"),
    (PixelMap, "positions", "positions"),
    (PixelMap, "area", "positions"),
    (PatchSource, "read", "reading"),
)
"""Methods whose time is that of a stage, without the stages inside it."""


class _Stopwatch:
    """CPU time by stage, each moment in the innermost one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*_STAGES, "other"), 0.0)
        self._stages = ["other"]
        self._last = time.process_time()

    def switch(self, stage: str) -> None:
        """Replace the innermost stage."""
        self._lap()
        self._stages[-1] = stage

    @contextlib.contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Enter a stage."""
        self._lap()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._lap()
            self._stages.pop()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Enter stages with the watched methods."""
        originals = [vars(owner)[name] for owner, name, _ in _WATCHED]
        for (owner, name, stage), original in zip(_WATCHED, originals, strict=True):
            setattr(owner, name, self._timed(original, stage))
        try:
            yield
        finally:
            for (owner, name, _), original in zip(_WATCHED, originals, strict=True):
                setattr(owner, name, original)

    def _timed(self, method: Any, stage: str) -> Any:
        if isinstance(method, classmethod):
            return classmethod(self._timed(method.__func__, stage))

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(stage):
                return method(*arguments, **options)

        return timed

    def _lap(self) -> None:
        now = time.process_time()
        self.seconds[self._stages[-1]] += now - self._last
        self._last = now


def camera_options(size: int, visits: int) -> SurveyOptions:
    """Return one patch of ``size`` pixels under a camera with gaps.

    A detector is as high as the patch and half as wide, as one of Hyper
    Suprime-Cam on a patch of Rubin's sky map.
    """
    return SurveyOptions(
        bands=("i",),
        visits_per_band=visits,
        cell_size=_CELL,
        num_patches=(1, 1),
        patch_cells=max(1, size // _CELL - 2),
        detector_grid=(3, 5),
        detector_shape=(size, size // 2),
        dither_arcsec=PIXEL_SCALE * size / 4,
    )


def simulate_detectors(options: SurveyOptions) -> tuple[PatchGeometry, list[VisitImage]]:
    """Return the patch of a survey and the detector images on it."""
    geometry = options.geometry.patch(options.tract, 0)
    visits = plan_visits(options)
    catalogue = make_catalogue(options, visits)
    images = []
    for visit in visits:
        for layout in focal_plane(options.detector_grid, options.detector_shape, options.detector_gap):
            projection = detector_projection(visit, layout, options)
            pixel_map = PixelMap.from_projections(geometry.projection, geometry.bbox, projection)
            if pixel_map.overlap(layout.bbox) is not None:
                images.append(observe(visit, layout, catalogue, options))
    return geometry, images


def run_detectors(*, size: int, visits: int, max_epochs: int, device: str = "cpu") -> dict[str, float]:
    """Simulate a patch, and restore it as a task does.

    Returns
    -------
    figures : `dict`
        CPU seconds of each stage; ``images``, the number of detector images,
        and ``pixels``, their usable ones on the patch with its border.
    """
    geometry, images = simulate_detectors(camera_options(size, visits))
    bbox = geometry.bbox.padded(_BORDER)
    clock = _Stopwatch()
    with clock.watch():
        cutouts = []
        for image in images:
            with contextlib.suppress(UnusableExposureError):
                cutouts.append(VisitCutout.take(image, geometry, bbox=bbox))
        source = PatchSource(cutouts, geometry, bbox)
        target = suggest_target_fwhm(
            pad_to_common_size([cutout.mean_psf for cutout in cutouts]),
            np.array([cutout.level for cutout in cutouts]),
        )
        clock.switch("calibration")
        restore_exposures(
            source,
            target_fwhm=target,
            options=RestoreOptions(fit=FitOptions(max_epochs=max_epochs)),
            device=device,
            layout=source.layout,
            tile_callback=lambda done, number: clock.switch("tiles"),
        )
        clock.switch("other")
    pixels = sum(int(cutout.good.sum()) for cutout in cutouts)
    return {"images": len(cutouts), "pixels": pixels, **{s: clock.seconds[s] for s in _STAGES}}


def measure_detectors(*, quick: bool, device: str, sizes: Sequence[int], visits: int) -> list[Table]:
    """Restore patches from detector images, in processes of their own."""
    epochs = 1 if quick else FitOptions.max_epochs
    rows = []
    for size in (_QUICK_SIZE,) if quick else sizes:
        number = _QUICK_VISITS if quick else visits
        run = call_in_process(run_detectors, size=size, visits=number, max_epochs=epochs, device=device)
        total = sum(run[stage] for stage in _STAGES)
        rows.append(
            {
                "patch": f"{size} x {size}",
                "visits": str(number),
                "detector images": f"{run['images']:.0f}",
                "pixels (1e6)": f"{1e-6 * run['pixels']:.2f}",
                **{stage: f"{1e6 * run[stage] / run['pixels']:.2f}" for stage in _STAGES},
                "all": f"{1e6 * total / run['pixels']:.1f}",
                "all, a pixel of the patch and image": f"{1e6 * total / (size**2 * run['images']):.1f}",
                "PSFs (%)": f"{100.0 * run['PSFs'] / total:.1f}",
            }
        )
    legend = (
        "Visits of a simulated camera, rotated by any angle and dithered by up to a quarter of the patch, "
        "whose detectors are as high as the patch and half as wide, with gaps of 15 pixels, and have Piff "
        "models of the PSF.  Columns are microseconds of CPU time for each usable pixel of a detector image "
        "on the patch: cutting pixels and masks out of images in memory, PSFs, positions, reading tiles, "
        "calibration with the choice of the network, and the tiles.  An image covers a part of the patch, so "
        "that the time for each pixel of the patch and image is less."
    )
    return [Table("Detector images", legend, rows)]
