# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tiles, properties and coverage of HiPS.

The files are those of the IVOA recommendation HiPS 1.0 (Fernique et al. 2017);
`reproject.hips` writes the FITS tiles.  Files of all tiles of an order
(``Allsky``), which are optional, are not written.
"""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from numpy.typing import NDArray
from PIL import Image
from reproject import reproject_interp
from reproject.hips import reproject_to_hips

_TILE = 512
"""Width of a tile, that of the recommendation."""

_MAX_SAMPLED = 16
"""Tiles of an order at most, by whose sky the black of colours is chosen."""

_CUT = (1.0, 99.0)
"""Percentiles of the pixels that are shown first as black and white."""


@dataclasses.dataclass(frozen=True)
class Hips:
    """A HiPS that was written.

    Attributes
    ----------
    folder
        Where it is.
    order
        Its highest order.
    num_tiles
        Number of tiles of this order.
    """

    folder: Path
    order: int
    num_tiles: int


def image_tiles(
    pixels: NDArray[Any], wcs: WCS, folder: Path, *, title: str, unit: str, order: int | None
) -> Hips:
    """Write the FITS tiles of an image, bilinearly interpolated, down to order
    0; without an order, that whose pixels are nearest to those of the image.
    """
    step = max(1, min(pixels.shape) // 1000)
    sample = pixels[::step, ::step]
    low, high = np.nanpercentile(sample, _CUT) if np.isfinite(sample).any() else (0.0, 1.0)
    with warnings.catch_warnings():
        # Those of headers with keywords of HEALPix.
        warnings.simplefilter("ignore", AstropyWarning)
        reproject_to_hips(
            (pixels, wcs),
            coord_system_out="equatorial",
            reproject_function=reproject_interp,
            output_directory=folder,
            level=order,
            tile_size=_TILE,
            properties={
                "obs_title": title,
                "obs_description": f"{title} ({unit})",
                "obs_collection": "lsst.astroclearnet",
                # Data may not be public: whoever publishes them says so.
                "hips_status": "private master unclonable",
                "hips_pixel_cut": f"{low:.6g} {high:.6g}",
            },
            # The projection of a tract is one-to-one.
            roundtrip_coords=False,
            order="bilinear",
        )
    written = int(_read_properties(folder)["hips_order"])
    tiles = [number for number, _ in _tiles(folder, written)]
    _write_coverage(folder, written, tiles)
    return Hips(folder, written, len(tiles))


def color_tiles(
    trees: Sequence[Hips],
    folder: Path,
    *,
    title: str,
    peaks: Sequence[Sequence[float]],
    linear: float | None,
) -> Hips:
    """Write the coloured PNG tiles of two or three HiPS of one order, whose
    pixels are transparent where one of them has none.
    """
    from ..plots import COLOR_SCALES, choose_range, color_channels, color_picture, color_stretch

    order = trees[0].order
    if any(tree.order != order for tree in trees):
        raise ValueError(f"HiPS of the orders {[tree.order for tree in trees]} have no common tiles.")
    stretch = color_stretch(_sample(trees), COLOR_SCALES, linear or choose_range(peaks, COLOR_SCALES))
    drawn = []
    for number, path in _tiles(trees[0].folder, order):
        place = path.relative_to(trees[0].folder)
        others = [tree.folder / place for tree in trees[1:]]
        if not all(other.is_file() for other in others):
            continue
        planes = color_channels([_read_tile(each) for each in (path, *others)])
        known = np.isfinite(planes).all(axis=0)
        if known.any():
            colors = color_picture(planes, stretch)
            _write_color(_color_path(folder, order, number), colors, known)
            drawn.append(number)
    numbers = drawn
    for level in range(order - 1, -1, -1):
        numbers = sorted({number // 4 for number in numbers})
        for number in numbers:
            _write_color(_color_path(folder, level, number), *_halved(folder, level + 1, number))
    properties = _read_properties(trees[0].folder)
    for key in ("hips_pixel_bitpix", "hips_pixel_cut", "moc_sky_fraction"):
        properties.pop(key)
    properties |= {
        "creator_did": properties["creator_did"] + "/color",
        "obs_title": title,
        "obs_description": f"{title} as red, green and blue",
        "dataproduct_subtype": "color",
        "hips_tile_format": "png",
    }
    folder.mkdir(exist_ok=True)
    (folder / "properties").write_text("".join(f"{key:20} = {value}\n" for key, value in properties.items()))
    shutil.copyfile(trees[0].folder / "index.html", folder / "index.html")
    _write_coverage(folder, order, drawn)
    return Hips(folder, order, len(drawn))


def _color_path(folder: Path, order: int, number: int) -> Path:
    """Return the file of a coloured tile."""
    return folder / f"Norder{order}" / f"Dir{number // 10000 * 10000}" / f"Npix{number}.png"


def _write_color(path: Path, colors: NDArray[np.uint8], known: NDArray[np.bool_]) -> None:
    """Write a coloured tile, transparent where nothing is known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.dstack([colors, np.where(known, 255, 0).astype(np.uint8)])
    # The first row of an array is at the bottom.
    Image.fromarray(picture[::-1]).save(path)


def _halved(folder: Path, order: int, parent: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the colours of a tile from the four of an order, means of what
    is known in blocks of 2 x 2 pixels, and where they are.
    """
    whole = np.zeros((2 * _TILE, 2 * _TILE, 4), dtype=np.float32)
    for place, row, column in ((0, 1, 0), (1, 0, 0), (2, 1, 1), (3, 0, 1)):
        path = _color_path(folder, order, 4 * parent + place)
        if path.is_file():
            with Image.open(path) as image:
                quarter = np.asarray(image)[::-1]
            whole[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE] = quarter
    blocks = whole.reshape(_TILE, 2, _TILE, 2, 4)
    weight = blocks[..., 3:] / 255.0
    number = weight.sum(axis=(1, 3))
    mean = (blocks[..., :3] * weight).sum(axis=(1, 3)) / np.maximum(number, 1.0)
    return np.rint(mean).astype(np.uint8), number[..., 0] > 0


def _tiles(folder: Path, order: int) -> Iterator[tuple[int, Path]]:
    """Yield number and file of the tiles of an order."""
    for path in sorted(folder.glob(f"Norder{order}/Dir*/Npix*.fits")):
        yield int(path.stem.removeprefix("Npix")), path


def _read_tile(path: Path) -> NDArray[np.float32]:
    """Return the pixels of a FITS tile."""
    with fits.open(path) as file:
        return np.asarray(file[0].data, dtype=np.float32)


def _sample(trees: Sequence[Hips]) -> list[NDArray[np.float32]]:
    """Return all pixels of the highest order that has few tiles."""
    from ..plots import color_channels

    for level in range(trees[0].order, -1, -1):
        found = [[path for _, path in _tiles(tree.folder, level)] for tree in trees]
        if max(map(len, found)) <= _MAX_SAMPLED:
            break
    return color_channels([np.concatenate([_read_tile(path) for path in paths]) for paths in found])


def _read_properties(folder: Path) -> dict[str, str]:
    """Return the properties of a HiPS."""
    pairs = (line.split("=", 1) for line in (folder / "properties").read_text().splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _write_coverage(folder: Path, order: int, tiles: Sequence[int]) -> None:
    """Write the coverage map (MOC) of tiles, and its part of the sky."""
    unique = np.array(sorted(tiles), dtype=np.int64) + 4 * 4**order
    table = fits.BinTableHDU.from_columns([fits.Column("UNIQ", format="K", array=unique)])
    table.header.update(
        {
            "PIXTYPE": "HEALPIX",
            "ORDERING": "NUNIQ",
            "COORDSYS": "C",
            # Of versions 1 and 2 of the recommendation.
            "MOCORDER": order,
            "MOCORD_S": order,
            "MOCVERS": "2.0",
            "MOCDIM": "SPACE",
        }
    )
    table.writeto(folder / "Moc.fits")
    with (folder / "properties").open("a") as file:
        file.write(f"{'moc_sky_fraction':20} = {len(tiles) / (12 * 4**order):.6g}\n")
