# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Mend what `lsst.images` (30.2026.4300) does to the provenance of coadds.

It can neither write nor read a coadd with inputs of more than one instrument
or filter: it assigns a column of integers to ``table.columns[name]``, which
astropy refuses (``Cannot replace column``).  Files of the mended writer are
as `lsst.images` means them.  ``CoaddProvenance.subset`` repeats an input for
each cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from astropy.table import Column, Table

from lsst.images.cells import CellIJ, CoaddProvenance, CoaddProvenanceSerializationModel

_WRITER, _READER = "_fix_str_for_serialization", "_fix_str_for_deserialization"


def mend_provenance_columns() -> bool:
    """Mend how `lsst.images` stores columns of names; return whether it did.

    It did not need to in a release that can store two names, or when called
    again.
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
    """Check whether two names of one column survive being stored."""
    table = Table([Column(["one", "other"], "name", object)])
    try:
        read("name", write("name", table), table)
    except ValueError:
        return False
    return list(table["name"]) == ["one", "other"]


def mend_provenance_parts() -> bool:
    """List each input once in a part of a coadd; return whether it did."""
    original = CoaddProvenance.subset
    contributions = CoaddProvenance.make_empty_contribution_table(2)
    contributions["instrument"], contributions["cell_j"] = "", [0, 1]
    inputs = CoaddProvenance.make_empty_input_table(1)
    inputs["instrument"] = ""
    part = CoaddProvenance(inputs, contributions).subset([CellIJ(0, 0), CellIJ(0, 1)])
    if part is None or len(part.inputs) == 1:
        return False

    def subset(self: CoaddProvenance, cells: Iterable[CellIJ]) -> CoaddProvenance | None:
        part = original(self, cells)
        if part is None:
            return None
        keys = part.inputs["instrument", "visit", "detector"]
        first = {tuple(key): n for n, key in reversed(list(enumerate(keys)))}
        return CoaddProvenance(part.inputs[sorted(first.values())], part.contributions)

    setattr(CoaddProvenance, "subset", subset)  # noqa: B010
    return True


mend_provenance_columns()
mend_provenance_parts()
