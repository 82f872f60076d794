# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Folders and files that appear complete, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from astropy.table import Table

from ._errors import CommandError


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which then takes its place: absent, or an empty
    folder.

    Its name has no dot.  It is removed if it cannot be filled.
    """
    folder = folder.resolve()
    present = folder.is_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder if present else folder.parent
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{folder.name}_") as beside:
        made = Path(beside) / "new"
        yield made
        if not present:
            made.rename(folder)
            return
        # It may be a mount point.  The file that makes a folder a repository
        # comes last.
        for path in sorted(made.iterdir(), key=lambda path: path.name == "butler.yaml"):
            path.rename(folder / path.name)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a file to write, with the same suffix, which then takes its
    place.
    """
    place = Path(path)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}_") as folder:
        made = Path(folder) / place.name
        yield made
        made.replace(place)


def write_table(table: Table, path: str | os.PathLike[str]) -> None:
    """Write an ECSV file."""
    with atomic_file(path) as made:
        table.write(made, format="ascii.ecsv")


def require_place(path: str | None) -> None:
    """Refuse a file that cannot be written, before the work of filling it."""
    if path is None:
        return
    place = Path(path)
    if not place.name or place.is_dir():
        raise CommandError(f"{path} is a folder, not a file to write to.")
    if not place.parent.is_dir():
        raise CommandError(f"{path} cannot be written: there is no folder {place.parent}.")
    if not os.access(place.parent, os.W_OK):
        raise CommandError(f"{path} cannot be written: {place.parent} does not allow it.")
