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

import contextlib
import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from ._errors import CommandError
from ._whole import whole_folder

type Progress = Callable[[int, int, str], None]


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
        Numbers of files by what became of them: see
        `lsst.astroclearnet.repository.IngestedImage`.
    """

    root: str
    instrument: str
    geometry: SkyMapGeometry
    defaults: str
    num_visit_images: int
    states: Counter[str]


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
    progress: Progress | None = None,
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
        Size of its pixels in arcsec; by default that of the finest image.
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
        If a file is missing, cannot be read, holds something else than a
        visit image, or does not say what a repository has to know; if files
        contradict each other or come from several instruments; if the sky map
        makes no sense; if the directory holds something else than a
        repository, or the repository describes the sky map or a visit
        otherwise.
    """
    sky_map = {"skymap": skymap, "cell_size": cell_size, "pixel_scale": pixel_scale}
    try:
        return _ingest(root, files, sky_map, num_patches, registry, replace, progress)
    except (OSError, TypeError, ValueError) as exc:
        raise CommandError(str(exc)) from exc


def _ingest(
    root: str | os.PathLike[str],
    files: Sequence[str],
    sky_map: dict[str, Any],
    num_patches: int,
    registry: str | None,
    replace: bool,
    progress: Progress | None,
) -> IngestSummary:
    """Do the same, with all the errors that are."""
    skymap = require_name("sky map", sky_map["skymap"])
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise CommandError(f"There is no file {missing[0]}.")
    # However they are named, and whatever links lead to them.
    files = list({os.path.realpath(path): path for path in reversed(files)}.values())[::-1]
    field = _Field()
    geometry = sky_map_around(
        field.read(_tell(files, 0, progress)),
        **sky_map,
        num_patches=(num_patches, num_patches),
        border_cells=int(num_patches > 1),
    )
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
            for path in _tell(files, len(files), progress):
                states[ingest_visit_image(butler, path, visits, replace=replace).state] += 1
        except ConflictingDefinitionError as exc:
            raise CommandError(
                f"{os.fspath(root)} describes a visit otherwise than the files: {exc}"
            ) from exc
        # Last: as long as it is not there, another one may have its name.
        register_sky_map(butler, geometry, maps)
        chain_collections(butler, defaults, [visits, maps])
    held = len(files) - states["differs"]
    return IngestSummary(os.fspath(root), instrument, geometry, defaults, held, states)


def _tell(files: Sequence[str], first: int, progress: Progress | None) -> Iterator[str]:
    """Yield files, and tell before each how far the two readings are."""
    for number, path in enumerate(files):
        if progress is not None:
            progress(first + number, 2 * len(files), Path(path).name)
        yield path


class _Field:
    """What the files of an ingest say of themselves, and of each other."""

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
        """Read files that must not contradict each other.

        Parameters
        ----------
        files
            The files.

        Yields
        ------
        visit_image : `lsst.images.VisitImage`
            The image in the next file.
        """
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


@contextlib.contextmanager
def _open_or_create(root: str | os.PathLike[str], registry: str | None) -> Iterator[Butler]:
    """Open a repository for writing, or make one, which is removed again if it
    cannot be completed.

    Parameters
    ----------
    root
        Root of the repository.
    registry
        URL of the database for the registry of a new one.

    Yields
    ------
    butler : `lsst.daf.butler.Butler`
        A writeable client.

    Raises
    ------
    CommandError
        If the directory holds something else, or a repository, which has a
        registry already.
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
    with whole_folder(folder) as made:
        create_repository(str(made), registry=registry).close()
    butler = Butler.from_config(str(folder), writeable=True)
    try:
        yield butler
    except Exception:
        # What an interruption leaves is taken up again, and so is what needs
        # a database, which would stay.
        if registry is None:
            butler.close()
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not present:
                folder.rmdir()
        raise
