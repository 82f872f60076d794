# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a restoration of many patches should write, and what is there."""

from __future__ import annotations

__all__ = ("ButlerSource", "PatchKey", "PatchOutputs", "PatchState", "Report", "StatusSource")

import ast
import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

from lsst.daf.butler import (
    Butler,
    DatasetNotFoundError,
    DatasetRef,
    EmptyQueryResultError,
    InvalidQueryError,
    MissingCollectionError,
    MissingDatasetTypeError,
)

from ._campaign import choose_sky_map
from ._errors import CommandError

type Report = Callable[[int, int, str], None]
"""Called with the number done, the number to do, and a name."""


class PatchKey(NamedTuple):
    """What is restored at a time."""

    band: str
    tract: int
    patch: int

    @classmethod
    def from_ref(cls, ref: DatasetRef) -> Self:
        """Return the patch of a dataset.

        Parameters
        ----------
        ref
            A dataset with band, tract and patch.

        Returns
        -------
        key : `PatchKey`
            The patch.
        """
        return cls(str(ref.dataId["band"]), int(ref.dataId["tract"]), int(ref.dataId["patch"]))

    def __str__(self) -> str:
        return f"band {self.band}, tract {self.tract}, patch {self.patch}"


class PatchState(enum.StrEnum):
    """How far a patch is."""

    DONE = "done"
    """The quantum succeeded and wrote a coadd."""

    PARTIAL = "in part"
    """The outputs were written, but part of the coadd is not restored."""

    NO_WORK = "no work"
    """The quantum succeeded without a coadd: no exposure is usable."""

    FAILED = "failed"
    """The quantum ended with an error before its outputs were written."""

    UNFINISHED = "not finished"
    """Not run yet, running, or killed: nothing tells these apart."""


@dataclasses.dataclass(frozen=True)
class PatchOutputs:
    """The datasets of a patch that tell how it went.

    Attributes
    ----------
    log, metadata
        What the executor writes: the log at the end of every quantum, the
        metadata at the end of one that succeeds.
    coadd, metrics
        The restored coadd and its metrics.
    """

    log: DatasetRef | None = None
    metadata: DatasetRef | None = None
    coadd: DatasetRef | None = None
    metrics: DatasetRef | None = None

    @property
    def state(self) -> PatchState:
        """How far the patch is, without looking into files (`PatchState`).

        In a collection of several runs, a failure counts only if no run wrote
        the coadd.
        """
        log, metadata, coadd = self.log, self.metadata, self.coadd
        if metadata is not None:
            if coadd is not None:
                return PatchState.DONE
            if log is None or log.run == metadata.run:
                return PatchState.NO_WORK
            # A later run found work, and failed.
            return PatchState.FAILED
        if log is None:
            return PatchState.UNFINISHED
        is_partial = coadd is not None and coadd.run == log.run and self.metrics is not None
        return PatchState.PARTIAL if is_partial else PatchState.FAILED


class StatusSource(Protocol):
    """Where the datasets of a restoration are looked up."""

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        """Find the patches to restore.

        Parameters
        ----------
        progress
            Function that is told how far it is.

        Returns
        -------
        expected : `frozenset` [`PatchKey`]
            The patches.
        """

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        """Find what is there now.

        Returns
        -------
        outputs : `dict`
            Datasets of each patch that has any.
        """

    def get(self, ref: DatasetRef) -> Any:
        """Read a dataset.

        Parameters
        ----------
        ref
            One of `find_outputs`.

        Returns
        -------
        content : `object`
            What it holds.
        """


class ButlerSource:
    """Look a restoration up in a repository.

    Each look takes one query for each dataset type, and the patches to
    restore are found by one query for each tract.

    Parameters
    ----------
    butler
        A Butler whose default collections hold the outputs and, if they are
        those of a CHAINED collection that ``pipetask`` made, the inputs.
    label
        Label of the task in its pipeline.
    skymap
        Sky map of the patches; by default that of the outputs, or the only
        one of the repository.
    where
        Expression of the Butler's query language that selects the patches.

    Raises
    ------
    CommandError
        If the sky map is not known.
    """

    def __init__(self, butler: Butler, *, label: str, skymap: str | None = None, where: str = "") -> None:
        self._butler = butler
        self._where = where
        self._visit_image, self._reference, coadd = _dataset_types(butler, label)
        self._names = {
            "log": f"{label}_log",
            "metadata": f"{label}_metadata",
            "coadd": coadd,
            "metrics": f"{coadd}_metrics",
        }
        used = {str(ref.dataId["skymap"]) for ref in self._query(self._names["log"])}
        self._skymap = choose_sky_map(butler, used.pop() if skymap is None and len(used) == 1 else skymap)

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        """Find the patches with visit images, or with an output.

        Parameters
        ----------
        progress
            Function that is told how far it is.

        Returns
        -------
        expected : `frozenset` [`PatchKey`]
            The patches; those with an output but without visit images only
            if no expression selects among them.

        Raises
        ------
        CommandError
            If there is none, or the expression is not understood.
        """
        if self._skymap is None:
            raise CommandError("The repository has no sky map, so there are no patches.")
        try:
            expected = self._query_expected(self._skymap, progress)
        except (EmptyQueryResultError, MissingDatasetTypeError):
            expected = set()
        except InvalidQueryError as exc:
            raise CommandError(f"--where {self._where!r}: {exc}") from exc
        if not expected:
            collections = ", ".join(self._butler.collections.defaults)
            selected = f" with {self._where}" if self._where else ""
            raise CommandError(
                f"There is no {self._visit_image} in {collections} on the patches of sky map "
                f"{self._skymap!r}{selected}; name the collections of the inputs with --input."
            )
        if not self._where:
            expected |= self.find_outputs().keys()
        return frozenset(expected)

    def _query_expected(self, skymap: str, progress: Report | None) -> set[PatchKey]:
        """Find the patches with visit images, one tract after the other.

        Parameters
        ----------
        skymap
            Name of the sky map.
        progress
            Function that is told how far it is.

        Returns
        -------
        expected : `set` [`PatchKey`]
            The patches.
        """
        with self._butler.query() as query:
            query = query.join_dataset_search(self._visit_image).where(skymap=skymap)
            if self._where:
                query = query.where(self._where)
            # With the visits the rows are many, but short: without them, each
            # would hold the regions of all visit images of a tract.
            data_ids = query.data_ids(["tract", "instrument", "visit"])
            tracts = sorted({int(data_id["tract"]) for data_id in data_ids})
        expected: set[PatchKey] = set()
        for done, tract in enumerate(tracts):
            if progress is not None:
                progress(done, len(tracts), f"tract {tract}")
            # A query of its own, so that no writer waits long for an SQLite
            # registry to be released.
            with self._butler.query() as query:
                query = query.join_dataset_search(self._visit_image)
                if self._reference is not None:
                    query = query.join_dataset_search(self._reference)
                query = query.where(skymap=skymap, tract=tract)
                if self._where:
                    query = query.where(self._where)
                for data_id in query.data_ids(["tract", "patch", "band"]):
                    expected.add(PatchKey(str(data_id["band"]), tract, int(data_id["patch"])))
        return expected

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        """Find what is there now.

        Returns
        -------
        outputs : `dict`
            Datasets of each patch that has any.
        """
        # Dataset types and members of the collection may be new.
        self._butler.registry.refresh()
        found: dict[PatchKey, dict[str, DatasetRef]] = {}
        # Against the order in which they are written: of a patch that is just
        # being finished the coadd is not missed.
        for field in ("log", "metadata", "coadd", "metrics"):
            for ref in self._query(self._names[field]):
                if ref.dataId["skymap"] == self._skymap:
                    found.setdefault(PatchKey.from_ref(ref), {})[field] = ref
        return {key: PatchOutputs(**refs) for key, refs in found.items()}

    def get(self, ref: DatasetRef) -> Any:
        """Read a dataset.

        Parameters
        ----------
        ref
            One of `find_outputs`.

        Returns
        -------
        content : `object`
            What it holds.
        """
        return self._butler.get(ref)

    def _query(self, dataset_type: str) -> list[DatasetRef]:
        """Find all datasets of a type.

        Parameters
        ----------
        dataset_type
            Its name.

        Returns
        -------
        refs : `list` [`lsst.daf.butler.DatasetRef`]
            The first in the collections for each data ID.
        """
        try:
            return self._butler.query_datasets(dataset_type, limit=None, explain=False)
        except (EmptyQueryResultError, MissingCollectionError, MissingDatasetTypeError):
            return []


def _dataset_types(butler: Butler, label: str) -> tuple[str, str | None, str]:
    """Return the names of the dataset types that a task is configured with.

    Parameters
    ----------
    butler
        A Butler.
    label
        Label of the task.

    Returns
    -------
    visit_image : `str`
        Name of the visit images.
    reference : `str` or `None`
        Name of the coadds that the geometry of the patches is taken from, if
        it is.
    coadd : `str`
        Name of the restored coadds.
    """
    # Not as a configuration, which is Python that the Butler would run; and
    # that of another version of the task may have other fields.
    try:
        text = butler.getURI(f"{label}_config").read().decode()
    except (DatasetNotFoundError, MissingDatasetTypeError, LookupError, OSError, ValueError):
        text = ""
    values = _settings(text)
    reference = values.get("connections.reference_name") if values.get("geometry_source") == "coadd" else None
    return (
        values.get("connections.visit_image_name", "visit_image"),
        reference,
        values.get("connections.output_name", "restored_coadd"),
    )


def _settings(text: str) -> dict[str, str]:
    """Return the fields of a stored configuration that are strings."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    return {
        ast.unparse(target).removeprefix("config."): value
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        for value in [getattr(statement.value, "value", None)]
        if isinstance(target, ast.Attribute) and isinstance(value, str)
    }
