# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Repositories, datasets and sky maps that a command is told to use."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lsst.daf.butler import (
    Butler,
    DatasetRef,
    MissingCollectionError,
    MissingDatasetTypeError,
)

from ._errors import CommandError


def open_butler(root: str, collections: Sequence[str]) -> Butler:
    """Open a repository for reading; refuse what is none, and collections
    that do not exist.
    """
    require_repository(root)
    try:
        butler = Butler.from_config(root, collections=collections)
        # Otherwise the first query would find them missing.
        butler.collections.query(collections)
    except MissingCollectionError as exc:
        raise CommandError(f"{root}: {exc}") from exc
    return butler


def require_repository(root: str | os.PathLike[str], hint: str = "") -> None:
    """Refuse a directory that is no repository."""
    if not os.path.isfile(os.path.join(root, "butler.yaml")):
        raise CommandError(f"{os.fspath(root)} is not a Butler repository{hint}.")


def find_datasets(
    butler: Butler, dataset_type: str, collections: str | Sequence[str] | None = None
) -> list[DatasetRef]:
    """Return the first dataset for each data ID, by default in the default
    collections; none if there is no such type or collection.
    """
    try:
        return butler.query_datasets(dataset_type, collections, limit=None, explain=False)
    except (MissingCollectionError, MissingDatasetTypeError):
        return []


def choose_sky_map(butler: Butler, name: str | None) -> str | None:
    """Return the sky map that was asked for, or the only one; `None` if there
    is none.
    """
    records = butler.query_dimension_records("skymap", explain=False)
    names = sorted(str(record.name) for record in records)
    if name is None and len(names) > 1:
        raise CommandError(f"There are several sky maps; choose one with --skymap: {', '.join(names)}.")
    if name is not None and name not in names:
        raise CommandError(f"There is no sky map {name!r}; there is {', '.join(names) or 'none'}.")
    return names[0] if name is None and names else name
