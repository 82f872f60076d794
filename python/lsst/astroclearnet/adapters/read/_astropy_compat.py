# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Decompression of images of `lsst.images` without the overhead of astropy.

Astropy (8.0) looks up the header and seeks in the file for every tile, which
is a row of pixels by default, and decompresses it twice to learn its size.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

import numpy as np

_GZIP = 31
"""Window bits that tell zlib to read gzip."""


def patch_tile_reader() -> bool:
    """Have astropy read GZIP_2 tiles quickly; return whether it does now.

    All other compression, and whatever is odd in a file, remains with astropy.
    A release that is built otherwise is left alone.
    """
    try:
        from astropy.io.fits.hdu.compressed import section
    except ImportError:
        return False
    decompress: Any = getattr(section, "decompress_image_data_section", None)
    if decompress is None or getattr(decompress, "_astroclearnet_patched", False):
        return decompress is not None

    def decompress_quickly(*args: Any) -> Any:
        try:
            found = _read_gzip_2(*args)
        except (AttributeError, ImportError, LookupError, TypeError, ValueError, zlib.error):
            # What is wrong is for astropy to say.
            found = None
        return decompress(*args) if found is None else found

    decompress_quickly._astroclearnet_patched = True  # type: ignore[attr-defined]
    section.decompress_image_data_section = decompress_quickly
    return True


def _read_gzip_2(
    data: Any, kind: str, header: Any, table: Any, image_header: Any, first: np.ndarray, last: np.ndarray
) -> np.ndarray | None:
    """Return the tiles from the first to the last, or `None` for astropy."""
    from astropy.io.fits.hdu.base import BITPIX2DTYPE
    from astropy.io.fits.hdu.compressed.utils import _data_shape, _iter_array_tiles, _tile_shape

    # Neither quantized nor with marks for missing values.
    if kind != "GZIP_2" or {"ZSCALE", "ZBLANK"} & {*data.dtype.names, *header} or "BLANK" in image_header:
        return None
    whole, tile = np.array(_data_shape(header)), np.array(_tile_shape(header))
    image = np.empty(np.minimum(whole, (last + 1) * tile) - first * tile, BITPIX2DTYPE[header["ZBITPIX"]])
    if not image.size:
        return image
    rows, boxes = zip(*_iter_array_tiles(tuple(whole), tuple(tile), first, last), strict=True)
    sizes, offsets = np.array(data["COMPRESSED_DATA"])[list(rows)].astype(int).T
    start, stop = int(offsets.min()), int((offsets + sizes).max())
    if sizes.min() <= 0 or start < 0 or stop > header["PCOUNT"]:
        return None
    heap = memoryview(table._get_raw_data(stop - start, np.uint8, table._data_offset + table._theap + start))
    # Bytes of a number in descending order of significance, as in the file.
    pixels = image.view(np.uint8).reshape(*image.shape, image.itemsize)
    if sys.byteorder == "little":
        pixels = pixels[..., ::-1]
    for box, size, offset in zip(boxes, sizes.tolist(), (offsets - start).tolist(), strict=True):
        target = pixels[box]
        reader = zlib.decompressobj(_GZIP)
        content = reader.decompress(heap[offset : offset + size], target.size + 1)
        if not reader.eof or len(content) != target.size:
            return None
        planes = np.frombuffer(content, np.uint8).reshape(image.itemsize, *target.shape[:-1])
        target[...] = np.moveaxis(planes, 0, -1)
    return image


patch_tile_reader()
