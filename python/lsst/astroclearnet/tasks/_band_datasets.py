# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets of a quantum of several bands: which are wanted, which missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate, DatasetRef


def is_of_bands(data_id: DataCoordinate, bands: Collection[str]) -> bool:
    """Tell whether a dataset is of a band in a list, or of none.

    Parameters
    ----------
    data_id
        Its data ID.
    bands
        The list; all bands if it is empty.
    """
    if not bands or "band" not in data_id.dimensions:
        return True
    # Visits have their band as an implied value, known once expanded.
    return ("band" not in data_id.required and not data_id.hasFull()) or data_id["band"] in bands


def list_bands(refs: Iterable[DatasetRef]) -> list[str]:
    """Return the bands of datasets, sorted.

    Parameters
    ----------
    refs
        The datasets, with the band among their dimensions.
    """
    return sorted({str(ref.dataId["band"]) for ref in refs})


def describe_missing_bands(wanted: Collection[str], found: Set[str], label: str) -> str:
    """Return in words which bands of a configuration there are none of.

    Parameters
    ----------
    wanted
        Bands of the configuration.
    found
        Bands of the data.
    label
        Label of the task.

    Returns
    -------
    words : `str`
        A sentence; empty if none is missing.
    """
    missing = sorted(set(wanted) - found)
    if not missing:
        return ""
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"{', '.join(missing)} of {label}:bands {verb} not among the bands of the data, "
        f"which are {', '.join(sorted(found)) or 'none'}."
    )


def explain_missing_model(
    connection: cT.BaseInput, field: str, data_id: DataCoordinate, bands: Iterable[str] = ()
) -> FileNotFoundError:
    """Return the error of a quantum whose trained network does not exist.

    Parameters
    ----------
    connection
        Connection of the network.
    field
        Field of the configuration that asks for it.
    data_id
        Data ID of the quantum.
    bands
        Bands without one, of a network for each band.

    Returns
    -------
    error : `FileNotFoundError`
        What to raise.
    """
    where = f" in band {', '.join(sorted(bands))}" if bands else ""
    return FileNotFoundError(
        f"There is no {connection.name} of sky map {data_id['skymap']!r}{where} in the input collections: "
        f"add the collection of its training, or change {field}."
    )
