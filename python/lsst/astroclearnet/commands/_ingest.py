# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bring visit images from files into a repository that can be restored."""

from __future__ import annotations

__all__ = ("IngestSummary", "ingest_files")

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.images import VisitImage

from ..adapters import SkyMapGeometry
from ..repository import (
    VisitRecord,
    chain_collections,
    create_repository,
    ingest_visit_image,
    read_visit_image,
    register_sky_map,
    require_name,
    require_sky_map,
    sky_map_around,
)
from ._atomic_files import atomic_folder
from ._errors import CommandError
from ._pipetask import format_command, restore_command

_STATES = {
    "new": "new",
    "unchanged": "there already",
    "replaced": "replaced",
    "differs": "there already with other content, and left as they are there",
}


@dataclasses.dataclass(frozen=True)
class IngestSummary:
    """What an ingest wrote, and where.

    Attributes
    ----------
    root
        Root of the repository.
    instrument
        Name of the instrument.
    geometry
        The sky map around the images.
    defaults
        CHAINED collection of the visit images and the sky map.
    num_visit_images
        Number of files whose content the repository holds.
    states
        Number of files in each state of
        `lsst.astroclearnet.repository.IngestedImage`.
    """

    root: str
    instrument: str
    geometry: SkyMapGeometry
    defaults: str
    num_visit_images: int
    states: Counter[str]

    @property
    def text(self) -> str:
        """What was written, and how to restore it (`str`)."""
        (tract,) = self.geometry.tracts
        height, width = tract.bbox.shape
        skymap = self.geometry.skymap
        output = f"u/{os.environ.get('USER') or 'me'}/restored"
        command = restore_command(self.root, skymap=skymap, inputs=self.defaults, output=output)
        states = ", ".join(f"{number} {_STATES[state]}" for state, number in self.states.items())
        return (
            f"Repository:      {self.root}\n"
            f"Visit images:    {self.num_visit_images} of {self.instrument} ({states})\n"
            f"Sky map:         {skymap!r}, {width}x{height} pixels of {tract.pixel_scale_arcsec:g} arcsec "
            f"at RA {tract.ra_deg:.5f}, Dec {tract.dec_deg:+.5f}\n"
            f"For pipelines:   {self.defaults}\n"
            f"Restore it with\n$ {format_command(command)}"
        )


def ingest_files(
    root: str | os.PathLike[str],
    files: Sequence[str],
    *,
    skymap: str,
    cell_size: int = 50,
    pixel_scale: float | None = None,
    num_patches: int = 1,
    registry: str | None = None,
    replace: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> IngestSummary:
    """Copy visit images into a repository, with a sky map around them.

    Running it again changes nothing.  All files are read and compared with
    each other and with the repository before anything is written, and a new
    repository that cannot be completed is removed.

    Parameters
    ----------
    root
        Root of the repository, made if absent.
    files
        Files of `lsst.images.VisitImage` of one instrument.
    skymap
        Name of the sky map.
    cell_size
        Side of the cells of its patches in pixels.
    pixel_scale
        Pixel scale in arcsec; by default that of the finest image.
    num_patches
        Number of patches along each side; more than one overlap by a cell.
    registry
        URL of the database for the registry of a new repository; by default
        an SQLite file in it.
    replace
        Replace images whose file has changed since it was ingested; else the
        log names them.
    progress
        Function called before each file is read, which is done twice, with
        the number done, the number to do, and its name.

    Returns
    -------
    summary : `IngestSummary`
        What there is to restore.

    Raises
    ------
    CommandError
        If a file cannot be read as a visit image with all that a repository
        needs; if files contradict each other or the repository, or come from
        several instruments; if the sky map cannot be laid out; or if the
        directory holds something other than a repository.
    """
    sky_map = {
        "skymap": skymap,
        "cell_size": cell_size,
        "pixel_scale": pixel_scale,
        "num_patches": (num_patches, num_patches),
        "border_cells": int(num_patches > 1),
    }
    try:
        return _ingest(root, files, sky_map, registry, replace, progress)
    except (OSError, TypeError, ValueError) as exc:
        raise CommandError(str(exc)) from exc


def _ingest(
    root: str | os.PathLike[str],
    files: Sequence[str],
    sky_map: dict[str, Any],
    registry: str | None,
    replace: bool,
    progress: Callable[[int, int, str], None] | None,
) -> IngestSummary:
    """Ingest files, with errors as they come."""
    skymap = require_name("sky map", sky_map["skymap"])
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise CommandError(f"There is no file {missing[0]}.")
    # However they are named, and whatever links lead to them.
    files = list({os.path.realpath(path): path for path in reversed(files)}.values())[::-1]
    field = _Field()
    geometry = sky_map_around(field.read(_announce(files, 0, progress)), **sky_map)
    instrument = field.instrument
    visits, maps, defaults = f"{instrument}/visits", "skymaps", f"{instrument}/defaults"
    states: Counter[str] = Counter()
    with _open_or_create(root, registry) as butler:
        try:
            require_sky_map(butler, geometry)
        except ConflictingDefinitionError as exc:
            raise CommandError(
                f"{os.fspath(root)} has a sky map {skymap!r} with another geometry; choose another name."
            ) from exc
        try:
            for path in _announce(files, len(files), progress):
                states[ingest_visit_image(butler, path, visits, replace=replace).state] += 1
        except ConflictingDefinitionError as exc:
            raise CommandError(
                f"{os.fspath(root)} describes a visit otherwise than the files: {exc}"
            ) from exc
        # Last: until it is there, another one may have its name.
        register_sky_map(butler, geometry, maps)
        chain_collections(butler, defaults, [visits, maps])
    held = len(files) - states["differs"]
    return IngestSummary(os.fspath(root), instrument, geometry, defaults, held, states)


def _announce(
    files: Sequence[str], first: int, progress: Callable[[int, int, str], None] | None
) -> Iterator[str]:
    """Yield files, and report the progress of the two readings before each."""
    for number, path in enumerate(files):
        if progress is not None:
            progress(first + number, 2 * len(files), Path(path).name)
        yield path


class _Field:
    """Consistency of the files of an ingest."""

    def __init__(self) -> None:
        self._images: dict[tuple[str, int, int], str] = {}
        self._visits: dict[tuple[str, int], tuple[VisitRecord, str]] = {}
        self._bands: dict[tuple[str, str], tuple[str, str]] = {}

    @property
    def instrument(self) -> str:
        """Name of the only instrument."""
        instruments = sorted({instrument for instrument, *_ in self._images})
        if len(instruments) != 1:
            raise CommandError(f"The files are of several instruments ({', '.join(instruments)}).")
        return instruments[0]

    def read(self, files: Iterable[str]) -> Iterator[VisitImage]:
        """Yield the images in files that must not contradict each other."""
        for path in files:
            image = read_visit_image(path)
            try:
                record = VisitRecord.from_visit_image(image)
            except ValueError as exc:
                raise CommandError(f"{path}: {exc}") from exc
            self._compare(record, path)
            yield image

    def _compare(self, record: VisitRecord, path: str) -> None:
        """Compare a file with those before."""
        instrument, visit = record.instrument, record.visit
        other = self._images.setdefault((instrument, visit, record.detector), path)
        if other != path:
            raise CommandError(
                f"{other} and {path} are both of visit {visit}, detector {record.detector} of {instrument}; "
                "choose one of them."
            )
        band, other = self._bands.setdefault((instrument, record.physical_filter), (record.band, path))
        if band != record.band:
            raise CommandError(
                f"Filter {record.physical_filter!r} is of band {band!r} in {other}, but {record.band!r} in "
                f"{path}."
            )
        first, other = self._visits.setdefault((instrument, visit), (record, path))
        for name, value in record.visit_row.items():
            if first.visit_row.get(name) != value:
                raise CommandError(
                    f"Visit {visit} of {instrument} has {name} {first.visit_row.get(name)!s} in {other}, but "
                    f"{value!s} in {path}."
                )


@contextmanager
def _open_or_create(root: str | os.PathLike[str], registry: str | None) -> Iterator[Butler]:
    """Open a repository for writing, or make one, which is removed again if it
    cannot be completed.
    """
    folder = Path(root)
    if (folder / "butler.yaml").is_file():
        if registry is not None:
            raise CommandError(f"{folder} has a registry already; --registry is for a new repository.")
        yield Butler.from_config(str(folder), writeable=True)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} exists and is not a Butler repository.")
    present = folder.exists()
    with atomic_folder(folder) as made:
        create_repository(str(made), registry=registry).close()
    butler = Butler.from_config(str(folder), writeable=True)
    try:
        yield butler
    except Exception:
        # Any failure, but no interruption: that can be taken up again, and so
        # can a repository with a database, which would stay.
        if registry is None:
            butler.close()
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not present:
                folder.rmdir()
        raise
