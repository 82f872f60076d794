# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Make stored Piff models readable, and their reading harmless."""

from __future__ import annotations

__all__ = ("patch_piff_reader",)

from typing import Any

from lsst.images.psfs import _piff

from ._piff_trust import require_harmless


def patch_piff_reader() -> None:
    """Mend how `lsst.images` reads Piff models; harmless when repeated.

    Piff evaluates strings of the file as Python, so everything that it is
    handed is looked at before; it removes keys from the dictionaries that it
    is handed, so the second read of a model from one cached file fails unless
    it is handed copies; and Piff 1.7 asks the reader for a bandpass, which
    none of these models has.
    """
    reader: Any = _piff._ArchivePiffReader
    if getattr(reader, "_astroclearnet_patched", False):
        return
    read_struct, read_table = reader.read_struct, reader.read_table

    def read_harmless(self: Any, name: str) -> dict[str, Any] | None:
        struct = read_struct(self, name)
        if struct is None:
            return None
        require_harmless(self.get_full_name(name), struct)
        return dict(struct)

    def read_harmless_table(self: Any, name: str, metadata: dict[str, Any] | None = None) -> Any:
        found: dict[str, Any] = {}
        table = read_table(self, name, found)
        require_harmless(self.get_full_name(name), found)
        if metadata is not None:
            metadata.update(found)
        return table

    reader.read_struct, reader.read_table = read_harmless, read_harmless_table
    if not hasattr(reader, "read_bandpass"):
        reader.read_bandpass = lambda self, name: None
    reader._astroclearnet_patched = True


patch_piff_reader()
