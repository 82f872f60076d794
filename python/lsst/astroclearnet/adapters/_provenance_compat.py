# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Make coadds of several filters or instruments writable and readable.

`lsst.images` (30.2026.4300) stores instruments and filters of the inputs of a
coadd as integers if there is more than one.  Writer and reader assign the new
column to ``table.columns[name]``, where the old one still is, which astropy
refuses (``Cannot replace column``): such a coadd can be neither written nor
read.  The files that the mended writer makes are as `lsst.images` means them.
"""

from __future__ import annotations

__all__ = ("mend_provenance_columns",)

from typing import Any

import numpy as np
from astropy.table import Column, Table

from lsst.images.cells import CoaddProvenanceSerializationModel

_WRITER, _READER = "_fix_str_for_serialization", "_fix_str_for_deserialization"


def mend_provenance_columns() -> bool:
    """Mend how `lsst.images` stores columns of names, where that fails.

    Returns
    -------
    mended : `bool`
        Whether there was something to mend; not in a release of `lsst.images`
        that can store two names, nor when called again.
    """
    model: Any = CoaddProvenanceSerializationModel
    write, read = getattr(model, _WRITER, None), getattr(model, _READER, None)
    if write is None or read is None or _keeps_names(write, read):
        return False

    def write_names(column: str, *tables: Table) -> str | dict[str, int]:
        names = sorted(set(tables[0][column]))
        if len(names) < 2:
            return write(column, *tables)
        codes = {name: code for code, name in enumerate(names)}
        for table in tables:
            values = [codes[name] for name in table[column]]
            table.replace_column(column, Column(values, column, np.uint8, description="Number of the name."))
        return codes

    def read_names(column: str, value: str | dict[str, int], *tables: Table) -> None:
        if isinstance(value, str):
            read(column, value, *tables)
            return
        names = {code: name for name, code in value.items()}
        for table in tables:
            values = [names[code] for code in table[column]]
            table.replace_column(column, Column(values, column, object))

    setattr(model, _WRITER, staticmethod(write_names))
    setattr(model, _READER, staticmethod(read_names))
    return True


def _keeps_names(write: Any, read: Any) -> bool:
    """Tell whether two names of one column survive being stored."""
    table = Table([Column(["one", "other"], "name", object)])
    try:
        read("name", write("name", table), table)
    except ValueError:
        return False
    return list(table["name"]) == ["one", "other"]


mend_provenance_columns()
