# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Make stored Piff models readable with the released versions of Piff."""

from __future__ import annotations

__all__ = ("patch_piff_reader",)

from typing import Any

from lsst.images.psfs import _piff


def patch_piff_reader() -> None:
    """Mend how `lsst.images` reads Piff models; harmless when repeated.

    Piff removes keys from the dictionaries that it is handed, so the second
    read of a model from one cached file fails unless it is handed copies; and
    Piff 1.7 asks the reader for a bandpass, which none of these models has.
    """
    reader: Any = _piff._ArchivePiffReader
    if getattr(reader, "_astroclearnet_patched", False):
        return
    read_struct = reader.read_struct

    def read_copy(self: Any, name: str) -> dict[str, Any] | None:
        struct = read_struct(self, name)
        return None if struct is None else dict(struct)

    reader.read_struct = read_copy
    if not hasattr(reader, "read_bandpass"):
        reader.read_bandpass = lambda self, name: None
    reader._astroclearnet_patched = True


patch_piff_reader()
