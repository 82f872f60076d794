# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Look a restoration up by its quantum graph."""

from __future__ import annotations

__all__ = ("GraphSource",)

import os
from collections.abc import Iterable
from typing import Any

from lsst.daf.butler import DatasetRef, QuantumBackedButler
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

from ._errors import CommandError
from ._status_outputs import PatchKey, PatchOutputs, Report


class GraphSource:
    """Look a restoration up by its quantum graph, in the files it writes.

    Jobs of a batch system write files that the registry of the repository
    does not know before they are all done; the quantum graph says where they
    will be.

    Parameters
    ----------
    root
        Root of the repository.
    path
        File of the quantum graph.
    label
        Label of the task.

    Raises
    ------
    CommandError
        If the graph has no such task.
    """

    def __init__(self, root: str, path: str, *, label: str) -> None:
        if not os.path.isfile(path):
            raise CommandError(f"There is no file {path}.")
        graph = PredictedQuantumGraph.read_execution_quanta(path)
        if label not in graph.pipeline_graph.tasks:
            labels = ", ".join(graph.pipeline_graph.tasks)
            raise CommandError(f"There is no task {label!r} in {path}; there is {labels}.")
        coadd = graph.pipeline_graph.tasks[label].outputs["restored_coadd"].dataset_type_name
        fields = {
            f"{label}_log": "log",
            f"{label}_metadata": "metadata",
            coadd: "coadd",
            f"{coadd}_metrics": "metrics",
        }
        self._refs: dict[str, dict[PatchKey, DatasetRef]] = {field: {} for field in fields.values()}
        for quantum in graph.build_execution_quanta(task_label=label).values():
            for dataset_type, (ref, *_) in quantum.outputs.items():
                if dataset_type.name in fields:
                    self._refs[fields[dataset_type.name]][PatchKey.from_ref(ref)] = ref
        self._ended: dict[PatchKey, PatchOutputs] = {}
        refs = [ref for group in self._refs.values() for ref in group.values()]
        self._butler = QuantumBackedButler.from_predicted(
            root,
            predicted_inputs=[],
            predicted_outputs=[ref.id for ref in refs],
            dimensions=graph.pipeline_graph.universe,
            datastore_records={},
            dataset_types={ref.datasetType.name: ref.datasetType for ref in refs},
        )

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        """Find the patches to restore.

        Parameters
        ----------
        progress
            Not used: the graph holds them.

        Returns
        -------
        expected : `frozenset` [`PatchKey`]
            The patches of the graph.
        """
        return frozenset(self._refs["log"])

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        """Find the files that are there now.

        Returns
        -------
        outputs : `dict`
            Datasets of each patch that has any.
        """
        # Against the order in which they are written, and without those that
        # need not be looked for.
        running = self._refs["log"].keys() - self._ended.keys()
        logs = self._find("log", running)
        metadata = self._find("metadata", running)
        ended = logs.keys() | metadata.keys()
        coadds = self._find("coadd", ended)
        metrics = self._find("metrics", coadds.keys())
        found = {
            key: PatchOutputs(logs.get(key), metadata.get(key), coadds.get(key), metrics.get(key))
            for key in ended
        }
        self._ended |= {key: outputs for key, outputs in found.items() if key in metadata}
        return {**found, **self._ended}

    def _find(self, field: str, keys: Iterable[PatchKey]) -> dict[PatchKey, DatasetRef]:
        """Find files.

        Parameters
        ----------
        field
            Attribute of `PatchOutputs`.
        keys
            Patches to look for.

        Returns
        -------
        found : `dict`
            The datasets whose file is there.
        """
        refs = {self._refs[field][key]: key for key in keys}
        stored = self._butler.stored_many(refs)
        return {key: ref for ref, key in refs.items() if stored[ref]}

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
