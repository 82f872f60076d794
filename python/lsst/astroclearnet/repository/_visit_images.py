# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Put visit images into a repository, from memory and from files."""

from __future__ import annotations

__all__ = (
    "IngestedImage",
    "ingest_visit_image",
    "put_visit_image",
    "read_visit_image",
)

import dataclasses
import logging
from typing import Literal

from lsst.daf.butler import Butler, DatasetRef, DatasetType
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.images import VisitImage
from lsst.images.serialization import ArchiveReadError, read_archive
from lsst.resources import ResourcePath, ResourcePathExpression

# The adapters make the Piff models of stored images readable.
from .. import adapters as adapters
from ._names import _require_collection, require_name
from ._records import _register_visit_detector
from ._same_content import _differing_parts
from ._visit_record import VisitRecord

_LOG = logging.getLogger(__name__)

_MAX_DATASET_TYPE = 128
"""Characters that the registry has for the name of a dataset type."""


@dataclasses.dataclass(frozen=True)
class IngestedImage:
    """What became of a file.

    Attributes
    ----------
    ref
        The dataset.
    state
        ``new`` where the file was copied, ``unchanged`` where the run holds
        its content already, ``replaced`` where it took the place of another,
        ``differs`` where the run holds another, which was left.
    """

    ref: DatasetRef
    state: Literal["new", "unchanged", "replaced", "differs"]


def put_visit_image(
    butler: Butler, visit_image: VisitImage, run: str, *, dataset_type: str = "visit_image"
) -> DatasetRef:
    """Put a visit image together with the records that it needs.

    Parameters
    ----------
    butler
        A writeable Butler.
    visit_image
        The image; its ``obs_info`` names the instrument and the visit.
    run
        RUN collection for the dataset, made if absent.
    dataset_type
        Name of the dataset type, registered with storage class ``VisitImage``
        and dimensions instrument, visit and detector if absent.

    Returns
    -------
    ref : `lsst.daf.butler.DatasetRef`
        Reference to the dataset.

    Raises
    ------
    ValueError
        If the image does not name its instrument and visit, or if a name is
        none that a repository can keep.
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the run holds this dataset already, or if the repository describes
        the visit otherwise.
    """
    VisitRecord.from_visit_image(visit_image)
    definition = _prepare(butler, run, dataset_type)
    with butler.transaction():
        data_id = _register_visit_detector(butler, visit_image)
        return butler.put(visit_image, definition, run=run, **data_id)


def read_visit_image(path: ResourcePathExpression) -> VisitImage:
    """Read a visit image from a file.

    Parameters
    ----------
    path
        File that `lsst.images` wrote.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The image.

    Raises
    ------
    OSError
        If the file or the PSF in it cannot be read.
    TypeError
        If the file holds anything else.
    """
    try:
        content = read_archive(ResourcePath(path))
    except Exception as exc:
        # A file may fail in any way of the library that reads it, and ask for
        # any amount of memory.
        reason = "its PSF is missing or of no known kind" if _lacks_psf(exc) else f"{exc!r:.500}"
        raise OSError(f"{path} cannot be read as a visit image: {reason}") from exc
    content = getattr(content, "deserialized", content)
    if not isinstance(content, VisitImage):
        raise TypeError(f"{path} holds a {type(content).__name__}, not a VisitImage.")
    try:
        psf = content.psf
    except ArchiveReadError as exc:
        raise OSError(f"The PSF in {path} cannot be read: {exc}") from exc
    if psf is None:
        raise OSError(f"{path} has no PSF.")
    return content


def _lacks_psf(error: Exception) -> bool:
    """Tell whether `lsst.images` found something that is no PSF."""
    return isinstance(error, AttributeError) and error.name == "deserialize"


def ingest_visit_image(
    butler: Butler,
    path: ResourcePathExpression,
    run: str,
    *,
    dataset_type: str = "visit_image",
    replace: bool = False,
) -> IngestedImage:
    """Copy a visit image from a file into a repository.

    An image that the run already holds is left as it is, so that an
    interrupted ingestion can be repeated; if its file has changed, a warning
    is logged.

    Parameters
    ----------
    butler
        A writeable Butler.
    path
        File that `lsst.images` wrote.
    run
        RUN collection for the dataset, made if absent.
    dataset_type
        Name of the dataset type, registered if absent.
    replace
        Replace an image of the run with another content.

    Returns
    -------
    ingested : `IngestedImage`
        The dataset, and whether it is new.

    Raises
    ------
    OSError
        If the file cannot be read.
    TypeError
        If the file does not hold a visit image.
    ValueError
        If the image does not name its instrument and visit, if a name is none
        that a repository can keep, or if the repository cannot keep the image.
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository describes the visit otherwise.
    """
    visit_image = read_visit_image(path)
    try:
        record = VisitRecord.from_visit_image(visit_image)
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from exc
    definition = _prepare(butler, run, dataset_type)
    held = butler.find_dataset(definition, collections=[run], **record.data_id)
    if held is not None:
        parts = _differing_parts(butler, held, visit_image)
        if not parts:
            return IngestedImage(held, "unchanged")
        name = f"visit {record.visit}, detector {record.detector} of {record.instrument}"
        if not replace:
            _LOG.warning(
                "%s is not what run %s holds for %s (%s differ): what it holds is left as it is. Take the "
                "file instead with --replace (in Python replace=True), or ingest it into another repository.",
                path,
                run,
                name,
                ", ".join(parts),
            )
            return IngestedImage(held, "differs")
        _LOG.info("%s replaces what run %s holds for %s (%s).", path, run, name, ", ".join(parts))
    try:
        with butler.transaction():
            _register_visit_detector(butler, visit_image, update=replace)
        if held is not None:
            butler.pruneDatasets([held], disassociate=True, unstore=True, purge=True)
        ref = butler.put(visit_image, definition, run=run, **record.data_id)
    except ConflictingDefinitionError as exc:
        raise ConflictingDefinitionError(f"{path}: {exc}") from exc
    except OSError:
        raise
    except Exception as exc:
        # What a library could read, it need not be able to write.
        raise ValueError(f"{path} cannot be written to the repository: {exc!r}") from exc
    return IngestedImage(ref, "new" if held is None else "replaced")


def _prepare(butler: Butler, run: str, name: str) -> DatasetType:
    """Register a run, and a dataset type for visit images."""
    dataset_type = DatasetType(
        require_name("dataset type", name, max_length=_MAX_DATASET_TYPE),
        ["instrument", "visit", "detector"],
        "VisitImage",
        universe=butler.dimensions,
    )
    butler.registry.registerDatasetType(dataset_type)
    butler.collections.register(_require_collection(run))
    return dataset_type
