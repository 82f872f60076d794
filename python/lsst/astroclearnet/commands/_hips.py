# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""HiPS (hierarchical progressive surveys) of restored coadds of a tract."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from lsst.daf.butler import Butler, DatasetRef, MissingDatasetTypeError
from lsst.images import Box, Interval

from ..adapters import PatchGeometry, faintest_peak, unusable_pixels
from ._errors import CommandError
from ._hips_tiles import Hips, color_tiles, image_tiles
from ._progress import Report

_MAX_LISTED = 8
"""Patches that a sentence names at most."""


@dataclasses.dataclass(frozen=True)
class _TractImage:
    """Image of a tract in one band, in a file.

    Attributes
    ----------
    pixels
        float32, nJy per square arcsec, NaN where there is no data.
    wcs
        Its projection.
    peaks
        Peaks of the faintest believable star of the patches in nJy.
    pixel_area
        Area of a pixel in square arcsec.
    """

    pixels: np.memmap[Any, Any]
    wcs: WCS
    peaks: Sequence[float]
    pixel_area: float


def write_hips(
    butler: Butler,
    folder: str | os.PathLike[str],
    *,
    skymap: str,
    tract: int,
    bands: Sequence[str],
    name: str = "restored_coadd",
    order: int | None = None,
    stretch: float | None = None,
    progress: Report | None = None,
) -> list[str]:
    """Write a HiPS of FITS tiles for each band, and one of coloured PNG tiles
    of two or three bands; return what was written, and what is missing.
    """
    if repeated := sorted({band for band in bands if bands.count(band) > 1}):
        raise CommandError(f"--bands has {', '.join(repeated)} more than once: name each band once.")
    refs = {band: _find(butler, name, skymap, tract, band) for band in bands}
    if absent := [band for band, found in refs.items() if not found]:
        raise CommandError(
            f"There is no {name} of tract {tract} of {skymap} in {', '.join(absent)}; choose other bands "
            "with --bands."
        )
    root = Path(folder)
    is_colored = len(bands) in (2, 3)
    for each in (*bands, *(["color"] if is_colored else [])):
        if (path := root / f"{name}_{each}").exists():
            raise CommandError(f"{path} exists already: delete it, or choose another --output.")
    # What hours of tiles must not end with is found out before.
    boxes, gone = {}, {}
    for band, found in refs.items():
        boxes[band], gone[band] = _read_boxes(butler, found, band)
    shown = {band: {int(ref.dataId["patch"]) for ref in each} for band, each in boxes.items()}
    if is_colored and not set[int].intersection(*shown.values()):
        raise CommandError(
            f"No patch has all of {', '.join(bands)}, so nothing has a colour: choose other bands, or give "
            "--bands one at a time."
        )
    root.mkdir(parents=True, exist_ok=True)
    title = f"{name}, {skymap}, tract {tract}"
    lines, peaks, area = [], [], 1.0
    trees: list[Hips] = []
    with _all_or_none(root) as made:
        for band in bands:
            with _tract_image(butler, boxes[band], made.parent, progress, band) as image:
                hips = image_tiles(
                    image.pixels,
                    image.wcs,
                    made / f"{name}_{band}",
                    title=f"{title}, {band}",
                    unit="nJy / arcsec2",
                    order=order,
                )
            if not hips.num_tiles:
                raise CommandError(
                    f"No HiPS was written: no pixel at order {hips.order} has a value in {band}; choose a "
                    "higher --order."
                )
            # Colours need tiles of one order.
            order = hips.order
            trees.append(hips)
            peaks.append([peak / image.pixel_area for peak in image.peaks])
            area = image.pixel_area
            place, number = root / hips.folder.name, len(shown[band])
            lines.append(f"{place}: {number} patches, {hips.num_tiles} tiles of order {order}")
            lines += gone[band]
        if is_colored:
            hips = color_tiles(
                trees,
                made / f"{name}_color",
                title=f"{title}, {', '.join(bands)}",
                peaks=peaks,
                linear=None if stretch is None else stretch / area,
            )
            lines.append(
                f"{root / hips.folder.name}: {', '.join(bands)}, {hips.num_tiles} tiles of order {hips.order}"
            )
            lines += _gaps(shown)
    return lines


def _find(butler: Butler, name: str, skymap: str, tract: int, band: str) -> list[DatasetRef]:
    """Return the coadds of a tract in a band, by patch."""
    # A value that is bound to the name of a dimension would be that dimension.
    where = "skymap = :skymap_name AND tract = :tract_id AND band = :band_name"
    bind = {"skymap_name": skymap, "tract_id": tract, "band_name": band}
    try:
        refs = butler.query_datasets(name, where=where, bind=bind, limit=None, explain=False)
    except MissingDatasetTypeError:
        return []
    return sorted(refs, key=lambda ref: int(ref.dataId["patch"]))


def _gaps(shown: dict[str, set[int]]) -> list[str]:
    """Say which patches have no colour because a band is missing."""
    some = sorted(set[int]().union(*shown.values()) - set[int].intersection(*shown.values()))
    if not some:
        return []
    named = ", ".join(map(str, some[:_MAX_LISTED])) + (", ..." if len(some) > _MAX_LISTED else "")
    return [f"{len(some)} patches lack a band and have no colour: {named}"]


def _read_boxes(
    butler: Butler, refs: Sequence[DatasetRef], band: str
) -> tuple[dict[DatasetRef, Box], list[str]]:
    """Return the boxes of coadds, and sentences about those whose files are
    gone, which cannot be all.
    """
    boxes, gone = {}, []
    for ref in refs:
        try:
            boxes[ref] = butler.get(ref.makeComponentRef("bbox"))
        except FileNotFoundError as error:
            gone.append(f"Left out: patch {ref.dataId['patch']}, {band} (a file is gone: {error}).")
    if not boxes:
        raise CommandError(gone[0])
    return boxes, gone


@contextlib.contextmanager
def _all_or_none(root: Path) -> Iterator[Path]:
    """Give a place to write folders, which are moved when all are complete."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".hips_") as folder:
        made = Path(folder) / "made"
        made.mkdir()
        yield made
        for path in sorted(made.iterdir()):
            path.rename(root / path.name)


@contextlib.contextmanager
def _tract_image(
    butler: Butler, boxes: dict[DatasetRef, Box], folder: Path, progress: Report | None, band: str
) -> Iterator[_TractImage]:
    """Join the inner boxes of patches in a file, which is deleted at last."""
    bbox = Box(*(Interval.hull(*axes) for axes in zip(*((b.y, b.x) for b in boxes.values()), strict=True)))
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".tract_", suffix=".float32") as file:
        pixels = np.memmap(file.name, dtype=np.float32, mode="w+", shape=bbox.shape)
        pixels[:] = np.nan
        peaks = []
        for done, ref in enumerate(boxes):
            if progress is not None:
                progress(done, len(boxes), f"patch {ref.dataId['patch']}, {band}")
            coadd = butler.get(ref)
            geometry = PatchGeometry(projection=coadd.sky_projection, definition=coadd.patch)
            area = geometry.pixel_scale**2
            inner = coadd.patch.inner_bbox.intersection(coadd.bbox)
            values = np.where(unusable_pixels(coadd), np.nan, coadd.image.array / area)
            pixels[inner.slice_within(bbox)] = values[inner.slice_within(coadd.bbox)]
            peaks.append(faintest_peak(coadd))
        wcs = coadd.sky_projection.as_fits_wcs(bbox, allow_approximation=True)
        if wcs is None:
            raise CommandError("The projection of the tract cannot be written as a FITS header.")
        yield _TractImage(pixels, wcs, peaks, area)
