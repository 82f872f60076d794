# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Expected patches of a campaign, and the outputs that are there.

`lsst.pipe.base.quantum_provenance_graph.QuantumProvenanceGraph`, which
``pipetask report`` shows, cannot tell this while a campaign runs: it asks the
registry alone, which has nothing of batch jobs before all are ingested, and
needs the quantum graph of every run, which ``pipetask run`` does not keep
unless told to.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from lsst.daf.butler import (
    Butler,
    DatasetNotFoundError,
    DatasetRef,
    InvalidQueryError,
    MissingDatasetTypeError,
    QuantumBackedButler,
)
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

from ._butler import choose_sky_map, find_datasets, require_repository
from ._errors import CommandError
from ._progress import Report

_JOINT = "joint"
"""Stands for the band of patches whose bands are restored together."""


class PatchKey(NamedTuple):
    """Data ID of a quantum, without the sky map."""

    band: str
    tract: int
    patch: int

    @classmethod
    def from_ref(cls, ref: DatasetRef, *, is_joint: bool) -> Self:
        """Return the patch of a dataset, in its band or in all of them."""
        band = _JOINT if is_joint else str(ref.dataId["band"])
        return cls(band, int(ref.dataId["tract"]), int(ref.dataId["patch"]))

    def __str__(self) -> str:
        return f"band {self.band}, tract {self.tract}, patch {self.patch}"


class PatchState(enum.StrEnum):
    """How far a patch is."""

    DONE = "done"
    """The quantum succeeded and wrote a coadd."""

    PARTIAL = "in part"
    """The outputs were written, but some tiles of the coadd failed."""

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
    coadd
        The restored coadd; that for detection where all bands are restored
        together.
    metrics
        The metrics of each band.
    """

    log: DatasetRef | None = None
    metadata: DatasetRef | None = None
    coadd: DatasetRef | None = None
    metrics: tuple[DatasetRef, ...] = ()

    @property
    def state(self) -> PatchState:
        """State of the patch as far as the existence of files tells.

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
        is_partial = coadd is not None and coadd.run == log.run and bool(self.metrics)
        return PatchState.PARTIAL if is_partial else PatchState.FAILED


class StatusSource(Protocol):
    """Where the datasets of a campaign are looked up."""

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        """Find the patches to restore."""

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        """Find the datasets that are there now, of each patch with any."""

    def get(self, ref: DatasetRef) -> Any:
        """Read one of these datasets."""


class ButlerSource:
    """Look a campaign up in the registry of its repository.

    The default collections of the Butler are those of the outputs and, if the
    CHAINED collection that ``pipetask`` made does not hold them, the inputs.
    The sky map is by default that of the outputs, or the only one.
    """

    def __init__(self, butler: Butler, *, label: str, skymap: str | None = None, where: str = "") -> None:
        self._butler = butler
        self._where = where
        settings = _read_settings(butler, label)
        coadd = settings.get("connections.output_name", "restored_coadd")
        self._is_joint = _has_no_band(butler, f"{label}_log")
        self._names = _dataset_types(label, coadd, is_joint=self._is_joint)
        self._inputs = [settings.get("connections.visit_image_name", "visit_image")]
        if settings.get("geometry_source") == "coadd" and "connections.reference_name" in settings:
            self._inputs.append(settings["connections.reference_name"])
        used = {str(ref.dataId["skymap"]) for ref in find_datasets(butler, self._names["log"])}
        self._skymap = choose_sky_map(butler, used.pop() if skymap is None and len(used) == 1 else skymap)

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        """Find the patches with visit images and, if no expression selects
        among them, those with an output.
        """
        if self._skymap is None:
            raise CommandError("The repository has no sky map, so there are no patches.")
        try:
            expected = self._query_expected(self._skymap, progress)
        except MissingDatasetTypeError:
            expected = set()
        except InvalidQueryError as exc:
            raise CommandError(f"--where {self._where!r}: {exc}") from exc
        if not expected:
            collections = ", ".join(self._butler.collections.defaults)
            selected = f" with {self._where}" if self._where else ""
            raise CommandError(
                f"There is no {self._inputs[0]} in {collections} on the patches of sky map "
                f"{self._skymap!r}{selected}; name the collections of the inputs with --input."
            )
        if not self._where:
            expected |= self.find_outputs().keys()
        return frozenset(expected)

    def _query_expected(self, skymap: str, progress: Report | None) -> set[PatchKey]:
        """Find the patches with inputs, one tract after the other."""
        # With the visits the rows are many, but short: without them, each
        # would hold the regions of all visit images of a tract.
        names = ["tract", "instrument", "visit"]
        data_ids = self._query_inputs(self._inputs[:1], names, skymap=skymap)
        tracts = sorted({int(data_id["tract"]) for data_id in data_ids})
        expected: set[PatchKey] = set()
        for done, tract in enumerate(tracts):
            if progress is not None:
                progress(done, len(tracts), f"tract {tract}")
            # A query for each tract, so that no writer waits long for an
            # SQLite registry to be released.
            names = ["tract", "patch", "band"]
            for data_id in self._query_inputs(self._inputs, names, skymap=skymap, tract=tract):
                band = _JOINT if self._is_joint else str(data_id["band"])
                expected.add(PatchKey(band, tract, int(data_id["patch"])))
        return expected

    def _query_inputs(self, dataset_types: list[str], names: list[str], **data_id: Any) -> list[Any]:
        """Find data IDs that have datasets of all these types."""
        with self._butler.query() as query:
            for dataset_type in dataset_types:
                query = query.join_dataset_search(dataset_type)
            query = query.where(**data_id)
            if self._where:
                query = query.where(self._where)
            return list(query.data_ids(names))

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        """Find the datasets that are there now, of each patch with any."""
        # Dataset types and members of the collection may be new.
        self._butler.registry.refresh()
        found: dict[PatchKey, dict[str, list[DatasetRef]]] = {}
        # In the reverse order of writing, so that the coadd of a patch which
        # is just being finished is not missed.
        for field, name in self._names.items():
            for ref in find_datasets(self._butler, name):
                if ref.dataId["skymap"] == self._skymap:
                    key = PatchKey.from_ref(ref, is_joint=self._is_joint)
                    found.setdefault(key, {}).setdefault(field, []).append(ref)
        return {key: _as_outputs(refs) for key, refs in found.items()}

    def get(self, ref: DatasetRef) -> Any:
        """Read a dataset."""
        return self._butler.get(ref)


class GraphSource:
    """Look batch jobs up by their quantum graph, in the files they write.

    The registry does not know these files before the jobs are all done.
    """

    def __init__(self, root: str, path: str, *, label: str) -> None:
        require_repository(root)
        if not os.path.isfile(path):
            raise CommandError(f"There is no file {path}.")
        graph = PredictedQuantumGraph.read_execution_quanta(path)
        if label not in graph.pipeline_graph.tasks:
            labels = ", ".join(graph.pipeline_graph.tasks)
            raise CommandError(f"There is no task {label!r} in {path}; there is {labels}.")
        task = graph.pipeline_graph.tasks[label]
        coadd = task.outputs["restored_coadd"].parent_dataset_type_name
        is_joint = "band" not in task.dimensions
        fields = {name: field for field, name in _dataset_types(label, coadd, is_joint=is_joint).items()}
        self._refs: dict[str, dict[PatchKey, list[DatasetRef]]] = {field: {} for field in fields.values()}
        for quantum in graph.build_execution_quanta(task_label=label).values():
            for dataset_type, found in quantum.outputs.items():
                if dataset_type.name in fields:
                    key = PatchKey.from_ref(found[0], is_joint=is_joint)
                    self._refs[fields[dataset_type.name]][key] = list(found)
        self._ended: dict[PatchKey, PatchOutputs] = {}
        refs = [ref for group in self._refs.values() for of_patch in group.values() for ref in of_patch]
        self._butler = QuantumBackedButler.from_predicted(
            root,
            predicted_inputs=[],
            predicted_outputs=[ref.id for ref in refs],
            dimensions=graph.pipeline_graph.universe,
            datastore_records={},
            dataset_types={ref.datasetType.name: ref.datasetType for ref in refs},
        )

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        """Return the patches of the graph."""
        return frozenset(self._refs["log"])

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        """Find the files that are there now, of each patch with any."""
        # In the reverse order of writing, and without those that need not be
        # looked for.
        running = self._refs["log"].keys() - self._ended.keys()
        logs, metadata = self._find("log", running), self._find("metadata", running)
        ended = logs.keys() | metadata.keys()
        coadds = self._find("coadd", ended)
        files = {"log": logs, "metadata": metadata, "coadd": coadds}
        files["metrics"] = self._find("metrics", coadds.keys())
        found = {
            key: _as_outputs({field: refs[key] for field, refs in files.items() if key in refs})
            for key in ended
        }
        self._ended |= {key: outputs for key, outputs in found.items() if key in metadata}
        return found | self._ended

    def _find(self, field: str, keys: Iterable[PatchKey]) -> dict[PatchKey, list[DatasetRef]]:
        """Find the datasets of a field whose file is there."""
        refs = {ref: key for key in keys for ref in self._refs[field][key]}
        found: dict[PatchKey, list[DatasetRef]] = {}
        for ref, is_stored in self._butler.stored_many(refs).items():
            if is_stored:
                found.setdefault(refs[ref], []).append(ref)
        return found

    def get(self, ref: DatasetRef) -> Any:
        """Read a dataset."""
        return self._butler.get(ref)


def _dataset_types(label: str, coadd: str, *, is_joint: bool) -> dict[str, str]:
    """Return the dataset type of each field of `PatchOutputs`, in the reverse
    order of writing.
    """
    return {
        "log": f"{label}_log",
        "metadata": f"{label}_metadata",
        "coadd": f"{coadd}_detection" if is_joint else coadd,
        "metrics": f"{coadd}_metrics",
    }


def _as_outputs(refs: Mapping[str, Sequence[DatasetRef]]) -> PatchOutputs:
    """Return the datasets of a patch, by field."""
    single = {field: found[0] for field, found in refs.items() if field != "metrics"}
    return PatchOutputs(
        **single, metrics=tuple(sorted(refs.get("metrics", ()), key=lambda ref: str(ref.dataId)))
    )


def _has_no_band(butler: Butler, dataset_type: str) -> bool:
    """Tell whether a dataset type is known that is of all bands."""
    try:
        return "band" not in butler.get_dataset_type(dataset_type).dimensions
    except MissingDatasetTypeError:
        return False


def _read_settings(butler: Butler, label: str) -> dict[str, str]:
    """Return the fields of the stored configuration of a task that are
    strings; none if there is none or it cannot be parsed.
    """
    # Not as a configuration, which is Python that the Butler would run; and
    # that of another version of the task may have other fields.
    try:
        statements = ast.parse(butler.getURI(f"{label}_config").read().decode()).body
    except (DatasetNotFoundError, MissingDatasetTypeError, LookupError, OSError):
        return {}
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        # What a file raises that is no Python.
        return {}
    return {
        ast.unparse(target).removeprefix("config."): value
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        for value in [getattr(statement.value, "value", None)]
        if isinstance(target, ast.Attribute) and isinstance(value, str)
    }
