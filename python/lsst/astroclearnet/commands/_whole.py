# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Folders and files that are there whole, or not at all."""

from __future__ import annotations

__all__ = ("require_place", "whole_file", "whole_folder")

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ._errors import CommandError


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Offer a folder that takes its place when it has been filled.

    Parameters
    ----------
    folder
        Its place: absent, or an empty folder.

    Yields
    ------
    made : `pathlib.Path`
        Where to make it, without a dot in its name; removed if it cannot be
        filled.
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
        # It may be where a disk is mounted.  The file by which a repository
        # is known comes last.
        for path in sorted(made.iterdir(), key=lambda path: path.name == "butler.yaml"):
            path.rename(folder / path.name)


def require_place(path: str | os.PathLike[str] | None) -> None:
    """Refuse a file that cannot be written, before what is to be written to
    it takes its time.

    Parameters
    ----------
    path
        The file, if there is one.

    Raises
    ------
    CommandError
        If it is a folder, or in none that can be written to.
    """
    if path is None:
        return
    place = Path(path)
    if not place.name or place.is_dir():
        raise CommandError(f"{path} is a folder, not a file to write to.")
    if not place.parent.is_dir():
        raise CommandError(f"{path} cannot be written: there is no folder {place.parent}.")
    if not os.access(place.parent, os.W_OK):
        raise CommandError(f"{path} cannot be written: {place.parent} does not allow it.")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Offer a file that takes its place when it has been written.

    Parameters
    ----------
    path
        Its place; a file that is there is replaced.

    Yields
    ------
    made : `pathlib.Path`
        A file beside it with the same suffix, removed if writing fails.
    """
    place = Path(path)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}_") as folder:
        made = Path(folder) / place.name
        yield made
        made.replace(place)
