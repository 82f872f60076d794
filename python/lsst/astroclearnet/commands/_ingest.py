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
from collections.abc import Iterator, Sequence
from pathlib import Path

from lsst.daf.butler import Butler
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.images import VisitImage

from ..adapters import SkyMapGeometry
from ..repository import (
    chain_collections,
    create_repository,
    ingest_visit_images,
    read_visit_images,
    register_sky_map,
    sky_map_around,
)
from ._errors import CommandError


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
        Number of files.
    """

    root: str
    instrument: str
    geometry: SkyMapGeometry
    defaults: str
    num_visit_images: int


def ingest_files(
    root: str | os.PathLike[str],
    files: Sequence[str],
    *,
    skymap: str,
    cell_size: int = 50,
    pixel_scale: float | None = None,
    num_patches: int = 1,
    registry: str | None = None,
) -> IngestSummary:
    """Copy visit images into a repository, with a sky map around them.

    Running it again changes nothing.

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

    Returns
    -------
    summary : `IngestSummary`
        What there is to restore.

    Raises
    ------
    CommandError
        If a file is missing, the images come from several instruments, the
        directory holds something else than a repository, or the repository
        describes the sky map or a visit otherwise.
    OSError
        If a file cannot be read.
    TypeError
        If a file does not hold a visit image.
    ValueError
        If an image does not name its instrument and visit.
    """
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise CommandError(f"There is no file {missing[0]}.")
    instruments: set[str] = set()
    geometry = sky_map_around(
        _note_instruments(files, instruments),
        skymap=skymap,
        cell_size=cell_size,
        pixel_scale=pixel_scale,
        num_patches=(num_patches, num_patches),
        border_cells=int(num_patches > 1),
    )
    if len(instruments) != 1:
        raise CommandError(f"The files are of several instruments ({', '.join(sorted(instruments))}).")
    instrument = instruments.pop()
    butler = _open_or_create(root, registry)
    visits, maps, defaults = f"{instrument}/visits", "skymaps", f"{instrument}/defaults"
    try:
        register_sky_map(butler, geometry, maps)
    except ConflictingDefinitionError as exc:
        raise CommandError(
            f"{os.fspath(root)} has a sky map {skymap!r} with another geometry; choose another name."
        ) from exc
    try:
        ingest_visit_images(butler, files, visits)
    except ConflictingDefinitionError as exc:
        raise CommandError(f"{os.fspath(root)} describes a visit otherwise than the files: {exc}") from exc
    chain_collections(butler, defaults, [visits, maps])
    return IngestSummary(os.fspath(root), instrument, geometry, defaults, len(files))


def _note_instruments(files: Sequence[str], instruments: set[str]) -> Iterator[VisitImage]:
    """Read images and note their instruments.

    Parameters
    ----------
    files
        Files of visit images.
    instruments
        Set to add the names of the instruments to.

    Yields
    ------
    visit_image : `lsst.images.VisitImage`
        The image in the next file.
    """
    for image in read_visit_images(files):
        instruments.add(image.obs_info.instrument or image.sky_projection.pixel_frame.instrument)
        yield image


def _open_or_create(root: str | os.PathLike[str], registry: str | None) -> Butler:
    """Open a repository for writing, or make one.

    Parameters
    ----------
    root
        Root of the repository.
    registry
        URL of the database for the registry of a new one.

    Returns
    -------
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
        return Butler.from_config(str(folder), writeable=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} exists and is not a Butler repository.")
    return create_repository(str(folder), registry=registry)
