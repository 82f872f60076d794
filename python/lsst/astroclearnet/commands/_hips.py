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
    patches
        Patches that it shows.
    gone
        Sentences about those whose files are gone.
    """

    pixels: np.memmap[Any, Any]
    wcs: WCS
    peaks: Sequence[float]
    pixel_area: float
    patches: Sequence[int]
    gone: Sequence[str]


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
    refs = {band: _find(butler, name, skymap, tract, band) for band in bands}
    if absent := [band for band, found in refs.items() if not found]:
        raise CommandError(
            f"There is no {name} of tract {tract} of {skymap} in {', '.join(absent)}; choose other bands "
            "with --bands."
        )
    root = Path(folder)
    paths = {band: root / f"{name}_{band}" for band in bands}
    is_colored = len(bands) in (2, 3)
    color = root / f"{name}_color"
    for path in (*paths.values(), *([color] if is_colored else [])):
        if path.exists():
            raise CommandError(f"{path} exists already: delete it, or choose another --output.")
    root.mkdir(parents=True, exist_ok=True)
    title = f"{name}, {skymap}, tract {tract}"
    lines, peaks, area = [], [], 1.0
    shown: dict[str, set[int]] = {}
    trees: list[Hips] = []
    for band, path in paths.items():
        with _tract_image(butler, refs[band], root, progress, band) as image, _complete(path) as made:
            hips = image_tiles(
                image.pixels, image.wcs, made, title=f"{title}, {band}", unit="nJy / arcsec2", order=order
            )
        trees.append(dataclasses.replace(hips, folder=path))
        peaks.append([peak / image.pixel_area for peak in image.peaks])
        area = image.pixel_area
        shown[band] = set(image.patches)
        lines.append(f"{path}: {len(image.patches)} patches, {hips.num_tiles} tiles of order {hips.order}")
        lines += image.gone
    if is_colored:
        with _complete(color) as made:
            linear = None if stretch is None else stretch / area
            hips = color_tiles(
                trees,
                made,
                title=f"{title}, {', '.join(bands)}",
                peaks=peaks,
                linear=linear,
            )
        lines.append(f"{color}: {', '.join(bands)}, {hips.num_tiles} tiles of order {hips.order}")
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


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Give a place to write a folder, which is moved when it is complete."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}_") as folder:
        made = Path(folder) / path.name
        yield made
        made.rename(path)


@contextlib.contextmanager
def _tract_image(
    butler: Butler, refs: Sequence[DatasetRef], folder: Path, progress: Report | None, band: str
) -> Iterator[_TractImage]:
    """Join the inner boxes of patches in a file, which is deleted at last."""
    boxes: dict[DatasetRef, Box] = {}
    gone = []
    for ref in refs:
        try:
            boxes[ref] = butler.get(ref.makeComponentRef("bbox"))
        except FileNotFoundError as error:
            gone.append(f"Left out: patch {ref.dataId['patch']}, {band} (a file is gone: {error}).")
    if not boxes:
        raise CommandError(gone[0])
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
        patches = [int(ref.dataId["patch"]) for ref in boxes]
        yield _TractImage(pixels, wcs, peaks, area, patches, gone)
