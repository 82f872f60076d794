# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Put visit images into a repository, from memory and from files."""

from __future__ import annotations

__all__ = ("ingest_visit_images", "put_visit_image", "read_visit_images")

import logging
from collections.abc import Iterable, Iterator

from lsst.daf.butler import Butler, DatasetRef, DatasetType
from lsst.images import VisitImage
from lsst.images.serialization import read_archive
from lsst.resources import ResourcePath, ResourcePathExpression

# The adapters make the Piff models of stored images readable.
from .. import adapters as adapters
from ._records import register_visit_detector

_LOG = logging.getLogger(__name__)


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
        If the image does not name its instrument and visit.
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the run holds this dataset already, or if the repository describes
        the visit otherwise.
    """
    data_id = register_visit_detector(butler, visit_image)
    definition = _register_dataset_type(butler, dataset_type)
    butler.collections.register(run)
    return butler.put(visit_image, definition, run=run, **data_id)


def read_visit_images(paths: Iterable[ResourcePathExpression]) -> Iterator[VisitImage]:
    """Read visit images from files, one at a time.

    Parameters
    ----------
    paths
        Files that `lsst.images` wrote.

    Yields
    ------
    visit_image : `lsst.images.VisitImage`
        The image in the next file.

    Raises
    ------
    OSError
        If a file cannot be read.
    TypeError
        If a file holds anything else.
    """
    for path in paths:
        try:
            content = read_archive(ResourcePath(path))
        except MemoryError:
            raise
        except Exception as exc:
            # A file may fail in any way of the library that reads it.
            raise OSError(f"{path} cannot be read as a visit image: {exc!r}") from exc
        content = getattr(content, "deserialized", content)
        if not isinstance(content, VisitImage):
            raise TypeError(f"{path} holds a {type(content).__name__}, not a VisitImage.")
        yield content


def ingest_visit_images(
    butler: Butler,
    paths: Iterable[ResourcePathExpression],
    run: str,
    *,
    dataset_type: str = "visit_image",
) -> list[DatasetRef]:
    """Copy visit images from files into a repository.

    An image that the run holds already is left as it is, so that an
    interrupted ingest can be run again.

    Parameters
    ----------
    butler
        A writeable Butler.
    paths
        Files that `lsst.images` wrote.
    run
        RUN collection for the datasets, made if absent.
    dataset_type
        Name of the dataset type, registered if absent.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        References in the order of the files.

    Raises
    ------
    OSError
        If a file cannot be read.
    TypeError
        If a file does not hold a visit image.
    ValueError
        If an image does not name its instrument and visit.
    """
    refs: list[DatasetRef] = []
    definition = _register_dataset_type(butler, dataset_type)
    butler.collections.register(run)
    for visit_image in read_visit_images(paths):
        data_id = register_visit_detector(butler, visit_image)
        ref = butler.find_dataset(definition, collections=[run], **data_id)
        if ref is None:
            ref = butler.put(visit_image, definition, run=run, **data_id)
        else:
            _LOG.info("%s is in run %s already; left as it is.", ref, run)
        refs.append(ref)
    return refs


def _register_dataset_type(butler: Butler, name: str) -> DatasetType:
    """Register a dataset type for visit images.

    Parameters
    ----------
    butler
        A writeable Butler.
    name
        Name of the dataset type.

    Returns
    -------
    dataset_type : `lsst.daf.butler.DatasetType`
        The definition.
    """
    dataset_type = DatasetType(
        name, ["instrument", "visit", "detector"], "VisitImage", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(dataset_type)
    return dataset_type
