# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compressed images are those of astropy, read and written sooner."""

from __future__ import annotations

import inspect
import io
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits.hdu.compressed import _codecs, section

from lsst.astroclearnet.adapters import quick_compression
from lsst.astroclearnet.adapters.read import _astropy_compat

QUICK: Callable[..., Any] = section.decompress_image_data_section
# What was patched, which is kept by the function that takes its place.
PLAIN: Callable[..., Any] = inspect.getclosurevars(QUICK).nonlocals["decompress"]

PIXELS = np.random.default_rng(5).normal(scale=300.0, size=(53, 61))


def compressed(image: np.ndarray, **options: Any) -> bytearray:
    """Return a file with an image."""
    options = {"compression_type": "GZIP_2", "quantize_level": 0.0} | options
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, **options)]).writeto(file)
    return bytearray(file.getvalue())


def read(content: bytearray, *cut: slice) -> np.ndarray:
    """Return an image of a file, or a part of it."""
    with fits.open(io.BytesIO(bytes(content))) as hdus:
        return np.asarray(hdus[1].section[cut or ...])


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return for each image that is read whether it was read quickly."""
    reads, quick = [], _astropy_compat._read_gzip_2

    def watched(*args: Any) -> np.ndarray | None:
        result = quick(*args)
        reads.append(result is not None)
        return result

    monkeypatch.setattr(_astropy_compat, "_read_gzip_2", watched)
    return reads


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i2", "u1"])
@pytest.mark.parametrize("tile_shape", [None, (10, 17), (53, 61)])
def test_quick_tiles_are_those_of_the_image(
    dtype: str, tile_shape: tuple[int, int] | None, found: list[bool]
) -> None:
    """If it fails, pixels are read wrongly, or slowly."""
    image = np.abs(PIXELS).clip(0, 255).astype(dtype) if dtype == "u1" else PIXELS.astype(dtype)
    if image.dtype.kind == "f":
        image[3, 4], image[5, 6] = np.nan, -np.inf
    content = compressed(image, tile_shape=tile_shape)
    for cut in ((), (slice(7, 44), slice(11, 40)), (slice(52, 53), slice(0, 1))):
        part = read(content, *cut)
        assert part.dtype == image.dtype
        np.testing.assert_array_equal(part, image[cut] if cut else image)
    assert found == [True, True, True]


def test_images_with_offset_are_scaled(found: list[bool]) -> None:
    """If it fails, unsigned masks are read wrongly."""
    image = (np.abs(PIXELS) * 100.0).astype(np.uint16)
    np.testing.assert_array_equal(read(compressed(image), slice(3, 20), slice(4, 9)), image[3:20, 4:9])
    assert found == [True]


@pytest.mark.parametrize(
    "options", [{"compression_type": "GZIP_1"}, {"compression_type": "RICE_1", "quantize_level": 16.0}]
)
def test_other_compression_is_left_to_astropy(
    options: dict[str, Any], found: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, quantized images are read wrongly."""
    content = compressed(PIXELS.astype(np.float32), **options)
    image = read(content)
    assert found == [False]
    monkeypatch.setattr(section, "decompress_image_data_section", PLAIN)
    np.testing.assert_array_equal(image, read(content))
    np.testing.assert_allclose(image, PIXELS, atol=20.0)


def test_damaged_tiles_are_left_to_astropy(found: list[bool]) -> None:
    """If it fails, a damaged file gives pixels, or another error."""
    content = compressed(PIXELS.astype(np.float32))
    start = content.index(b"\x1f\x8b", 5760)
    content[start + 30] ^= 0xFF
    errors = []
    for reader in (QUICK, PLAIN):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(section, "decompress_image_data_section", reader)
            with pytest.raises((zlib.error, OSError, EOFError)) as caught:
                read(content)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert found == []


def test_quick_compression_keeps_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, coadds are written wrongly, or much larger."""
    image = PIXELS.astype(np.float32)
    usual = compressed(image)
    with quick_compression():
        quick = compressed(image)
    monkeypatch.setattr(section, "decompress_image_data_section", PLAIN)
    np.testing.assert_array_equal(read(quick), image)
    assert quick != usual
    assert len(quick) <= 1.1 * len(usual)


def test_quick_compression_ends() -> None:
    """If it fails, other files of the process are compressed otherwise too."""
    before = _codecs.gzip_compress
    with quick_compression():
        assert _codecs.gzip_compress is not before
    assert _codecs.gzip_compress is before
    with pytest.raises(ZeroDivisionError, match="division"), quick_compression():
        _ = 1 / 0
    assert _codecs.gzip_compress is before


def test_quick_compression_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, files with the same pixels differ."""
    files = []
    for now in (1.0e9, 1.1e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with quick_compression():
            files.append(compressed(PIXELS))
    assert files[0] == files[1]
