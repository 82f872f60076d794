# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Summary of a restoration: what is counted, read and shown."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from lsst.astroclearnet.cli import main
from lsst.astroclearnet.commands import CommandError
from lsst.astroclearnet.commands._status import CampaignStatus, CampaignWatch
from lsst.astroclearnet.commands._status_report import status_lines
from lsst.astroclearnet.commands._status_sources import ButlerSource, GraphSource, PatchKey, PatchState
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tasks import RestorationAlgorithmError, RestoreCoaddTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, QuantumBackedButler
from lsst.pipe.base import AnnotatedPartialOutputsError, Pipeline
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.pipe.base.log_capture import LogCapture
from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor

SHAPE = (230, 340)
PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml#restore"
INPUTS, OUTPUT = "TestCam/defaults", "u/test/restored"
FWHM = {1: 3.6, 2: 4.2}
"""FWHM of the PSFs of the visits in i, in pixels of 0.168 arcsec."""


def restore_pipeline(**fields: Any) -> Pipeline:
    """Return the pipeline, set for small fits."""
    pipeline = Pipeline.from_uri(PIPELINE)
    fields = {
        "target_fwhm": 0.65,
        "restoration.fit.max_epochs": 3,
        "do_plot": False,
        "do_linear": False,
        **fields,
    }
    for name, value in fields.items():
        pipeline.addConfigOverride("restoreCoadd", name, value)
    return pipeline


def restore(
    root: Path, where: str, run: str, *, raises: bool = True, is_streamed: bool = False, **fields: Any
) -> None:
    """Restore patches into a run of OUTPUT, in this process.

    Logs are streamed into files by pipetask with several processes, and kept
    in memory by pipetask with one process and by batch jobs.
    """
    runs = Butler.from_config(str(root)).collections.query(f"{OUTPUT}/*")
    butler = SimplePipelineExecutor.prep_butler(str(root), [INPUTS], OUTPUT, f"{OUTPUT}/{run}")
    # As pipetask does, the latest run first; their names are in its order.
    members = [f"{OUTPUT}/{run}", *sorted(runs, reverse=True), INPUTS]
    butler.collections.redefine_chain(OUTPUT, members)
    executor = SimplePipelineExecutor.from_pipeline(
        restore_pipeline(**fields), butler=butler, where=where, raise_on_partial_outputs=raises
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogCapture, "stream_json_logs", is_streamed)
        executor.run(register_dataset_types=True, save_versions=False)


@pytest.fixture(scope="module", autouse=True)
def logged() -> Iterator[None]:
    """Logs with what pipetask writes into them."""
    logger = logging.getLogger("lsst")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two patches with visits in i and a bad one in r."""
    root = tmp_path_factory.mktemp("status") / "repo"
    butler = create_repository(str(root))
    sky_map = make_patch_geometry()
    register_sky_map(butler, sky_map, "skymaps")
    rng = np.random.default_rng(9)
    places = {"x": rng.uniform(20.0, 140.0, 12), "y": rng.uniform(20.0, 140.0, 12)}
    field = StarField(geometry=sky_map.patch(3, 0), **places, flux=rng.uniform(500.0, 4000.0, 12))
    for visit, fwhm in FWHM.items():
        projection = make_projection(SHAPE, rotation=5.0 * visit, visit=visit)
        image = field.render(projection, SHAPE, fwhm) + rng.normal(0.0, 1.0, SHAPE)
        put_visit_image(butler, make_visit_image(image, projection, fwhm=fwhm), "TestCam/visits")
    planes = {"BAD": np.ones(SHAPE, dtype=bool)}
    bad = make_visit_image(np.ones(SHAPE), make_projection(SHAPE, visit=4), planes=planes, band="r")
    put_visit_image(butler, bad, "TestCam/visits")
    chain_collections(butler, INPUTS, ["TestCam/visits", "skymaps"])
    return root


@pytest.fixture(scope="module")
def restored(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one patch of each kind: failed, done, without work, and
    missing.
    """
    root = tmp_path_factory.mktemp("status") / "restored"
    shutil.copytree(inputs, root)
    with pytest.raises(RestorationAlgorithmError, match="cuda:99"):
        restore(root, "patch = 1 AND band = 'i'", "1", device="cuda:99")
    restore(root, "patch = 0", "2", device="cpu")
    return root


class StoredOutputs:
    """What the patch that was restored has, to be put for another one."""

    def __init__(self, root: Path) -> None:
        butler = Butler.from_config(str(root), collections=[OUTPUT])
        data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
        self.coadd = butler.get("restored_coadd", data_id)
        self.metrics = butler.get("restored_coadd_metrics", data_id)

    def put(self, task: RestoreCoaddTask, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:
        """Do as `RestoreCoaddTask.runQuantum`, in no time."""
        butlerQC.put(self.coadd, outputRefs.restored_coadd)
        butlerQC.put(self.metrics, outputRefs.restored_coadd_metrics)
        task.log.warning("These outputs were put again.")


@pytest.fixture
def copy(restored: Path, tmp_path: Path) -> Path:
    """A copy of the repository to change."""
    shutil.copytree(restored, tmp_path / "repo")
    return tmp_path / "repo"


def look(root: Path, *collections: str, **options: Any) -> CampaignStatus:
    """Return the summary of a repository."""
    butler = Butler.from_config(str(root), collections=collections or [OUTPUT])
    source = ButlerSource(butler, label="restoreCoadd", **options)
    return CampaignWatch(source, label="restoreCoadd").look()


def states(status: CampaignStatus) -> dict[PatchKey, PatchState]:
    return {patch.key: patch.state for patch in status.patches}


def test_every_state(restored: Path) -> None:
    """If it fails, what failed or is missing is taken for done, or the other
    way round.
    """
    status = look(restored)
    assert states(status) == {
        PatchKey("i", 3, 0): PatchState.DONE,
        PatchKey("i", 3, 1): PatchState.FAILED,
        PatchKey("r", 3, 0): PatchState.NO_WORK,
        PatchKey("r", 3, 1): PatchState.UNFINISHED,
    }
    assert [(band.band, len(band.patches), band.num_left) for band in status.bands] == [
        ("r", 2, 1),
        ("i", 2, 1),
    ]
    (failure,) = status.reasons(PatchState.FAILED)
    assert failure.text.startswith("RestorationAlgorithmError: Device 'cuda:99' was asked for")
    assert failure.patches == (PatchKey("i", 3, 1),)
    (no_work,) = status.reasons(PatchState.NO_WORK)
    assert no_work.text.startswith("No visit image of test_map, tract 3, patch 0, r is usable:")
    assert no_work.text.endswith("no_usable_pixels: No usable pixel falls onto the patch.")
    assert any("no pixel can be rejected" in warning.text for warning in status.warnings())


def test_metrics_of_patches(restored: Path) -> None:
    """If it fails, seeing, time, memory or device are those of something
    else.
    """
    butler = Butler.from_config(str(restored), collections=[OUTPUT])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    quantum = butler.get("restoreCoadd_metadata", data_id)["quantum"]
    cpu = quantum["endCpuTime"] - quantum["startCpuTime"]
    status = look(restored)
    others, band = status.bands
    assert band.median("seeing") == pytest.approx(0.168 * np.mean(list(FWHM.values())), rel=1e-3)
    assert band.median("target_fwhm") == pytest.approx(0.65)
    assert band.median("num_exposures") == 2
    assert cpu <= band.median_time * 1.2
    # It may grow a little after it was noted.
    assert band.median("host_memory") == pytest.approx(quantum["endMaxResidentSetSize"], rel=0.01)
    assert (status.unit, band.read[0].device) == ("CPU", "cpu")
    assert band.hours == pytest.approx(cpu / 3600.0)
    # The failure took time as well; the patch in r is taken to be like those
    # in i.
    assert band.hours < band.hours_spent["CPU"] < band.hours + 1.0 / 3600.0
    assert status.hours_left(status.total) == pytest.approx(2.0 * band.hours)
    assert others.hours_spent["CPU"] > 0.0


def test_later_success_counts(copy: Path) -> None:
    """If it fails, a patch that was done again still counts as failed; or one
    that was done counts as failed since a later run did not succeed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RestoreCoaddTask, "runQuantum", partialmethod(StoredOutputs(copy).put))
        restore(copy, "patch = 1 AND band = 'i'", "3")
    status = look(copy)
    assert states(status)[PatchKey("i", 3, 1)] is PatchState.DONE
    assert any(PatchKey("i", 3, 1) in warning.patches for warning in status.warnings())

    def fail(task: RestoreCoaddTask, *_: object) -> None:
        task.log.warning("This run has the files of another patch.")
        raise OSError("No space left on device")

    for band, state in (("i", PatchState.DONE), ("r", PatchState.FAILED)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RestoreCoaddTask, "runQuantum", fail)
            with pytest.raises(OSError, match="No space"):
                restore(copy, f"patch = 0 AND band = '{band}'", f"4{band}")
        assert states(look(copy))[PatchKey(band, 3, 0)] is state
    # What is said of a patch that is done is of the run that wrote it.
    assert not any("another patch" in warning.text for warning in look(copy).warnings())


def test_nothing_yet(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a campaign cannot be watched from its beginning."""
    status = look(inputs, INPUTS)
    assert set(states(status).values()) == {PatchState.UNFINISHED}
    assert len(status.patches) == 4
    assert np.isnan(status.hours_left(status.total))
    assert main(["status", str(inputs), INPUTS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 patches: 4 not finished"


def test_selection(restored: Path) -> None:
    """If it fails, patches that nobody asked for are missing."""
    status = look(restored, where="band = 'i' AND patch = 0 AND tract = 3")
    assert states(status) == {PatchKey("i", 3, 0): PatchState.DONE}
    # The run alone does not have the inputs.
    run = f"{OUTPUT}/2"
    assert states(look(restored, run, INPUTS))[PatchKey("i", 3, 1)] is PatchState.UNFINISHED
    with pytest.raises(CommandError, match=f"no visit_image in {run} on .* with --input"):
        look(restored, run)


def test_outputs_without_inputs(copy: Path) -> None:
    """If it fails, patches are forgotten whose visit images were removed."""
    writer = Butler.from_config(str(copy), writeable=True)
    refs = writer.query_datasets(
        "visit_image", "TestCam/visits", where="visit = 4 AND instrument = 'TestCam'"
    )
    assert len(refs) == 1
    writer.pruneDatasets(refs, unstore=True, purge=True)
    restored = [PatchKey("i", 3, 0), PatchKey("i", 3, 1)]
    assert list(states(look(copy))) == [PatchKey("r", 3, 0), *restored]
    assert list(states(look(copy, where="tract = 3"))) == restored


def test_several_sky_maps(copy: Path) -> None:
    """If it fails, the patches of another sky map are waited for."""
    other = make_patch_geometry(skymap="other")
    register_sky_map(Butler.from_config(str(copy), writeable=True), other, "skymaps")
    assert len(look(copy).patches) == 4
    with pytest.raises(CommandError, match="several sky maps; choose one with --skymap"):
        look(copy, INPUTS)
    status = look(copy, skymap="other")
    assert states(status)[PatchKey("i", 3, 0)] is PatchState.UNFINISHED


def test_configured_names(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, coadds that are not named by default are not found."""
    monkeypatch.setattr(RestoreCoaddTask, "runQuantum", partialmethod(StoredOutputs(copy).put))
    names: dict[str, Any] = {"connections.output_name": "sharp"}
    restore(copy, "patch = 0 AND band = 'i'", "3", **names)
    status = look(copy, f"{OUTPUT}/3", INPUTS)
    assert states(status)[PatchKey("i", 3, 0)] is PatchState.DONE
    # A configuration that this version does not understand.
    (ref,) = Butler.from_config(str(copy)).query_datasets("restoreCoadd_config", f"{OUTPUT}/2")
    butler = Butler.from_config(str(copy), collections=[f"{OUTPUT}/2", INPUTS])
    path = Path(butler.getURI(ref).ospath)
    content = path.read_text()
    assert "config.min_exposures=" in content
    path.write_text(content.replace("config.min_exposures=", "config.min_exposurez="))
    assert states(look(copy, f"{OUTPUT}/2", INPUTS))[PatchKey("i", 3, 0)] is PatchState.DONE
    # Nor is it run.
    canary = copy / "canary"
    path.write_text(f"{content}\n__import__('pathlib').Path({str(canary)!r}).touch()\n")
    assert states(look(copy, f"{OUTPUT}/2", INPUTS))[PatchKey("i", 3, 0)] is PatchState.DONE
    assert not canary.exists()


@pytest.mark.parametrize("raises", [True, False])
def test_part_of_a_coadd(copy: Path, monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    """If it fails, a coadd with failed tiles counts as done, or as nothing."""
    stored = StoredOutputs(copy)

    def fail_in_part(task: RestoreCoaddTask, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:
        stored.put(task, butlerQC, inputRefs, outputRefs)
        task.metadata["patch_num_failed_tiles"] = 2
        error = RestorationAlgorithmError("2 of 9 tiles failed.", {"num_failed_tiles": 2})
        raise AnnotatedPartialOutputsError.annotate(error, task, log=task.log) from error

    def fail_late(task: RestoreCoaddTask, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:
        stored.put(task, butlerQC, inputRefs, outputRefs)
        raise OSError("No space left on device")

    monkeypatch.setattr(RestoreCoaddTask, "runQuantum", fail_in_part)
    where = "patch = 1 AND band = 'i'"
    if raises:
        with pytest.raises(RestorationAlgorithmError, match="tiles"):
            restore(copy, where, "3")
    else:
        restore(copy, where, "3", raises=False)
    status = look(copy)
    assert states(status)[PatchKey("i", 3, 1)] is PatchState.PARTIAL
    (reason,) = status.reasons(PatchState.PARTIAL)
    assert reason.text == "RestorationAlgorithmError: 2 of 9 tiles failed."
    (row,) = [row for row in status.table() if row["state"] == "in part"]
    assert (row["num_failed_tiles"], row["target_fwhm"], row["num_exposures"]) == (2, 0.65, 2)
    assert row["wall_time"] > 0.0
    # An error that the task did not foresee is no failed tile.
    monkeypatch.setattr(RestoreCoaddTask, "runQuantum", fail_late)
    with pytest.raises(OSError, match="No space"):
        restore(copy, "patch = 1 AND band = 'r'", "4")
    status = look(copy)
    assert states(status)[PatchKey("r", 3, 1)] is PatchState.FAILED
    assert [reason.text for reason in status.reasons(PatchState.FAILED)] == [
        "OSError: No space left on device"
    ]


def test_files_that_vanish(copy: Path) -> None:
    """If it fails, a look at the wrong moment ends in a traceback."""
    butler = Butler.from_config(str(copy), collections=[OUTPUT])
    source = ButlerSource(butler, label="restoreCoadd")
    watch = CampaignWatch(source, label="restoreCoadd")
    for name, where in (("restored_coadd_metrics", "band = 'i'"), ("restoreCoadd_log", "band = 'r'")):
        (ref,) = butler.query_datasets(name, where=where)
        path = Path(butler.getURI(ref).ospath)
        path.write_bytes(path.read_bytes()[:100])
    status = watch.look()
    assert [patch.state for patch in status.patches] == [
        PatchState.NO_WORK,
        PatchState.UNFINISHED,
        PatchState.DONE,
        PatchState.FAILED,
    ]
    assert [patch.details is None for patch in status.patches] == [True, True, True, False]
    assert "metrics are those of 1 of the 3 patches that ended" in "\n".join(status_lines(status))
    # A process that was killed leaves its outputs, but neither metadata nor
    # log; what was there is gone at the next look.
    writer = Butler.from_config(str(copy), writeable=True)
    lost = [
        ref
        for name in ("restoreCoadd_log", "restoreCoadd_metadata")
        for ref in butler.query_datasets(name, where="patch = 0 AND band = 'i'")
    ]
    assert len(lost) == 2
    writer.pruneDatasets(lost, unstore=True, purge=True, disassociate=True)
    assert states(watch.look())[PatchKey("i", 3, 0)] is PatchState.UNFINISHED


@pytest.fixture
def graph(inputs: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A quantum graph, one quantum of which was executed as by a batch job
    and one failed.
    """
    root, path = tmp_path / "repo", tmp_path / "graph.qg"
    shutil.copytree(inputs, root)
    butler = Butler.from_config(str(root), collections=[INPUTS])
    builder = AllDimensionsQuantumGraphBuilder(
        restore_pipeline().to_graph(), butler, where="skymap = 'test_map'", output_run="u/batch/run"
    )
    components = builder.finish(attach_datastore_records=True)
    components.write(str(path))
    predicted = components.assemble()
    task = predicted.pipeline_graph.tasks["restoreCoadd"]
    executor = SingleQuantumExecutor(
        limited_butler_factory=lambda quantum: QuantumBackedButler.initialize(
            str(root), quantum, butler.dimensions
        )
    )
    predicted.write_configs(predicted.make_init_qbb(str(root)), compare_existing=False)
    with pytest.MonkeyPatch.context() as patch:
        for quantum_id, quantum in predicted.build_execution_quanta(task_label="restoreCoadd").items():
            assert quantum.dataId is not None
            if quantum.dataId["patch"] == 0 and quantum.dataId["band"] == "r":
                executor.execute(task, quantum, quantum_id)
            elif quantum.dataId["patch"] == 0:
                patch.setattr(RestoreCoaddTask, "run", lambda *_, **__: 1 / 0)
                with pytest.raises(ZeroDivisionError, match="zero"):
                    executor.execute(task, quantum, quantum_id)
                patch.undo()
    return root, path


def test_graph_of_a_batch_system(
    graph: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, jobs of a batch system are missing until all have ended,
    which is when the registry learns of them.
    """
    root, path = graph
    assert set(states(look(root, INPUTS)).values()) == {PatchState.UNFINISHED}
    watch = CampaignWatch(GraphSource(str(root), str(path), label="restoreCoadd"), label="restoreCoadd")
    for _ in range(2):
        status = watch.look()
        assert states(status) == {
            PatchKey("i", 3, 0): PatchState.FAILED,
            PatchKey("i", 3, 1): PatchState.UNFINISHED,
            PatchKey("r", 3, 0): PatchState.NO_WORK,
            PatchKey("r", 3, 1): PatchState.UNFINISHED,
        }
        (reason,) = status.reasons(PatchState.FAILED)
        assert reason.text == "ZeroDivisionError: division by zero"
    # A retry removes the log of what it does again.
    (log,) = (root / "u/batch/run/restoreCoadd_log/3/0/i").iterdir()
    content = log.read_bytes()
    log.unlink()
    assert states(watch.look())[PatchKey("i", 3, 0)] is PatchState.UNFINISHED
    log.write_bytes(content)
    assert main(["status", str(root), "--graph", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 patches: 1 no work, 1 failed, 2 not finished"
    assert main(["status", str(root), "--graph", str(path), "--task", "isr"]) == 1
    assert "There is no task 'isr'" in capsys.readouterr().err


def test_command(restored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, the command does not do what its help says."""
    path = tmp_path / "status.ecsv"
    assert main(["status", str(restored), OUTPUT, "--output", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(
        "4 patches: 1 done, 1 no work, 1 failed, 1 not finished, <0.01 CPU-hours left"
    )
    assert lines[lines.index("Failed:") + 1].startswith("  band i, tract 3, patch 1: RestorationAlgorithm")
    table = Table.read(path)
    assert list(table["state"]) == ["no work", "not finished", "done", "failed"]
    assert table["seeing"].unit == "arcsec"
    assert table["seeing"][2] == pytest.approx(0.655, abs=0.002)
    assert "cuda:99" in table["reason"][3]
    assert list(table["read"]) == [True, False, True, True]
    assert main(["status", str(restored), OUTPUT, "--check"]) == 1
    assert "Patches that failed: 1; not finished: 1." in capsys.readouterr().err
    assert main(["status", str(restored), OUTPUT, "--check", "--where", "patch = 0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "No collection with name 'absent'"),
        ([], "either a collection or, with --graph, a quantum graph"),
        ([OUTPUT, "--graph", "x.qg"], "either a collection or, with --graph, a quantum graph"),
        (["--graph", "x.qg"], "There is no file x.qg"),
        ([OUTPUT, "--input", "absent"], "No collection with name 'absent'"),
        ([OUTPUT, "--skymap", "none"], "There is no sky map 'none'"),
        ([OUTPUT, "--where", "visit ="], "--where 'visit =': "),
        (
            [OUTPUT, "--where", "visit = 77"],
            "There is no visit_image in u/test/restored on .* with visit = 77",
        ),
        (["skymaps"], "There is no visit_image in skymaps .*--input"),
    ],
)
def test_refusals(
    arguments: list[str], message: str, restored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, a slip of the finger gives the status of something else."""
    assert main(["status", str(restored), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
