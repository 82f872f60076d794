# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Submit files of bps: what each workflow management system is handed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lsst.astroclearnet.adapters import SkyMapGeometry, TractGeometry
from lsst.astroclearnet.batch import CampaignError, ParslService
from lsst.astroclearnet.batch._service import _find_writers
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tests import make_projection, make_visit_image
from lsst.ctrl.bps import BPS_DEFAULTS, BPS_SEARCH_ORDER, BpsConfig
from lsst.ctrl.bps.drivers import prepare_driver
from lsst.ctrl.bps.parsl import SiteConfig
from lsst.pipe.base import Pipeline

BPS = Path(__file__).parents[1] / "bps"
PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml"
BANDS = "grizy"
NUM_PATCHES = 81
# Coadds and their metrics in each band, pictures, catalogues and summaries.
NUM_QUANTA = 2 * NUM_PATCHES * len(BANDS) + 2 * NUM_PATCHES + len(BANDS)
# The part that the submit file uses of what the PanDA plug-in has in a stack.
PANDA_SITE = """
wmsServiceClass: lsst.ctrl.bps.panda.PanDAService
placeholderParams: ['qgraphNodeId', 'qgraphId']
computeSite: SITE
fileDistributionEndPoint: "/cache/{uniqProcName}/"
runnerCommand: "{custom_lsst_setup} python3 decoder.py _cmd_line_"
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A repository with a tract of as many patches as HSC has, but tiny ones,
    and the quantum graph of all tasks in five bands.
    """
    folder = tmp_path_factory.mktemp("tract")
    butler = create_repository(str(folder / "repo"))
    tract = TractGeometry(
        tract=3,
        ra_deg=150.1,
        dec_deg=2.2,
        pixel_scale_arcsec=0.168,
        cell_shape=(10, 10),
        patch_cells=(2, 2),
        num_patches=(9, 9),
    )
    register_sky_map(butler, SkyMapGeometry(skymap="test_map", tracts=(tract,)), "skymaps")
    for visit, band in enumerate(BANDS, 1):
        projection = make_projection((240, 250), visit=visit)
        put_visit_image(
            butler, make_visit_image(np.ones((240, 250)), projection, band=band), "TestCam/visits"
        )
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    path = folder / "tract.qg"
    command: list[str | Path] = [
        *(Path(sys.executable).with_name("pipetask"), "qgraph", "-b", folder / "repo", "-p", PIPELINE),
        *("-i", "TestCam/defaults", "-o", "u/test/restored", "-d", "skymap='test_map'", "-q", path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert f"QuantumGraph contains {NUM_QUANTA} quanta" in result.stderr, result.stderr
    return folder / "repo", path


@pytest.fixture
def submit_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of who submits, with the programs and files that
    the plug-ins want.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("USER", "test")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CTRL_BPS_PANDA_DIR", str(tmp_path / "plugin"))
    # Without this, importing the client of PanDA looks a server up.
    monkeypatch.setenv("PANDA_BEHIND_REAL_LB", "1")
    (tmp_path / "plugin" / "config").mkdir(parents=True)
    (tmp_path / "plugin" / "config" / "bps_usdf.yaml").write_text(PANDA_SITE)
    return tmp_path


def prepare(name: str, graph: tuple[Path, Path]) -> tuple[Path, Any]:
    """Do what `bps prepare` does, but do not ask for a running service."""
    repo, quanta = graph
    config, workflow = prepare_driver(
        str(BPS / f"{name}.yaml"),
        runWmsSubmissionChecks=False,
        butler_config=str(repo),
        qgraph=str(quanta),
        output="u/test/restored",
        output_run="u/test/restored/run",
        # The graph is for this run already.
        update_quantum_graph="cp {inputQgraphFile} {qgraphFile}",
    )
    return Path(str(config["submitPath"])), workflow


def load(name: str, changes: str = "{}") -> BpsConfig:
    """Return what bps makes of a submit file with changes."""
    config = BpsConfig(str(BPS / f"{name}.yaml"), defaults=BPS_DEFAULTS, search_order=BPS_SEARCH_ORDER)
    config.update(yaml.safe_load(changes))
    return config


def make_executor(name: str, changes: str) -> Any:
    """Return the executor of a site of Parsl."""
    config = load(name, changes)
    config.update({"submitPath": "/submit", "uniqProcName": "test"})
    (executor,) = SiteConfig.from_config(config).get_parsl_config().executors
    return executor


def count_quanta(command_line: str) -> int:
    """Return the number of quanta that a job is given."""
    (found,) = re.findall(r"--qgraph-node-id (\S+)", command_line)
    return len(str(found).split(","))


def check_small_quanta_share_processes(workflow: Any) -> None:
    """Metrics, pictures and summaries must not be a process each."""
    jobs = [job for job in workflow.jobs.values() if job.generic.label not in ("pipetaskInit", "finalJob")]
    measuring = [job for job in jobs if "measureRestoration" in job.generic.quanta_counts]
    assert len(measuring) == NUM_PATCHES / 9
    for job in measuring:
        assert job.generic.quanta_counts == {"measureRestoration": 9 * len(BANDS), "makeColorPictures": 9}
        command = job.evaluate_command_line(job.get_command_line())
        assert command.count("pipetask") == 1
        assert " run-qbb " in command
        assert count_quanta(command) == 9 * (len(BANDS) + 1)
    (summary,) = (job for job in jobs if "summarizeRestoration" in job.generic.quanta_counts)
    assert summary.generic.quanta_counts == {"summarizeRestoration": len(BANDS)}
    assert sum(sum(job.generic.quanta_counts.values()) for job in jobs) == NUM_QUANTA


@pytest.mark.parametrize("name", ["local", "slurm", "htcondor", "panda"])
def test_submit_file_takes_its_numbers_from_the_snippets(name: str, submit_folder: Path) -> None:
    # Who changes a number in one place must not find another one used.
    if name in ("htcondor", "panda"):
        pytest.importorskip(f"lsst.ctrl.bps.{name}")
    config = load(name)
    resources = BpsConfig(str(BPS / "resources" / ("cpu.yaml" if name == "local" else "gpu.yaml")))
    job = config[".cluster.restorePatches"]
    for key in ("requestMemory", "requestMemoryMax", "memoryMultiplier", "numberOfRetries"):
        assert job[key] == resources[".cluster.restorePatches"][key]
    assert job["pipetasks"] == "restoreCoadd, restoreCoaddBands"
    assert config["pipelineYaml"].endswith("pipelines/HSC/RestoreCoadd-Prod.yaml#restore")
    assert "target_fwhm=" in config["extraQgraphOptions"]


def test_training_asks_for_what_its_task_needs(submit_folder: Path) -> None:
    """If this fails, a training has the memory or threads of another task, or
    begins anew when it is tried again.
    """
    config = load("train")
    (label,) = Pipeline.from_uri(config["pipelineYaml"]).task_labels
    job = config[f".pipetask.{label}"]
    assert job["requestMemory"] == 16384
    assert job["numberOfRetries"] > 0
    assert f"-c {label}:checkpoint_folder=" in config["extraQgraphOptions"]


def test_local_site_is_closed_to_the_network(graph: tuple[Path, Path], submit_folder: Path) -> None:
    submit_path, workflow = prepare("local", graph)
    (executor,) = workflow.parsl_config.executors
    assert executor.all_addresses == {executor.loopback_address} == {"127.0.0.1"}
    assert executor.max_workers_per_node == 1
    assert executor.available_accelerators == []
    # Where a restart looks for what is done, whatever else was submitted.
    assert Path(workflow.parsl_config.run_dir) == submit_path / "runinfo"
    jobs = [job for job in workflow.jobs.values() if job.generic.label == "restorePatches"]
    assert len(jobs) == NUM_PATCHES
    check_small_quanta_share_processes(workflow)
    for job in jobs:
        command = job.evaluate_command_line(job.get_command_line())
        assert count_quanta(command) == len(BANDS)
        # A small machine must not be given more threads than it has cores.
        assert "--cores-per-quantum 1" in command


def test_local_gpus_are_shared_out() -> None:
    executor = make_executor("local", "site: {local: {accelerators: 3, cores: 8}}")
    assert executor.available_accelerators == ["0", "1", "2"]


def test_slurm_job_has_one_worker_for_each_gpu(graph: tuple[Path, Path], submit_folder: Path) -> None:
    submit_path, workflow = prepare("slurm", graph)
    (executor,) = workflow.parsl_config.executors
    provider = executor.provider
    assert "#SBATCH --gres=gpu:2" in provider.scheduler_options
    assert "--exclusive" not in provider.scheduler_options
    assert executor.available_accelerators == ["0", "1"]
    assert executor.workers_per_node == 2
    assert (provider.init_blocks, provider.max_blocks, provider.walltime) == (1, 4, "12:00:00")
    assert Path(workflow.parsl_config.run_dir) == submit_path / "runinfo"
    # What is asked of Slurm must hold what its jobs ask for.
    jobs = [job.generic for job in workflow.jobs.values() if job.generic.label == "restorePatches"]
    assert provider.mem_per_node * 1024 >= 2 * jobs[0].request_memory
    assert provider.cores_per_node == 2 * jobs[0].request_cpus
    assert len(jobs) == NUM_PATCHES / 9
    assert [job.quanta_counts for job in jobs] == [{"restoreCoadd": 9 * len(BANDS)}] * len(jobs)
    check_small_quanta_share_processes(workflow)


def test_slurm_memory_limits_the_workers() -> None:
    # On CPUs nothing but memory and cores keeps a node from taking too many.
    site = "{accelerators: 0, cores_per_node: 32, mem_per_node: 64, mem_per_worker: 12.0, exclusive: true}"
    executor = make_executor("slurm", f"site: {{slurm: {site}}}")
    assert executor.workers_per_node == 5
    assert "#SBATCH --exclusive" in executor.provider.scheduler_options


def test_htcondor_jobs_ask_for_a_gpu(graph: tuple[Path, Path], submit_folder: Path) -> None:
    pytest.importorskip("lsst.ctrl.bps.htcondor")
    submit_path, _ = prepare("htcondor", graph)
    jobs = [path.read_text() for path in submit_path.glob("jobs/restorePatches/**/*.sub")]
    assert [count_quanta(job) for job in jobs] == [9 * len(BANDS)] * 9
    for job in jobs:
        assert "\n+RequestGPUs = 1\n" in job
        assert "\nrequirements=(TARGET.GPUs >= 1)\n" in job
        assert "\nrequest_cpus=4\n" in job
        assert "--cores-per-quantum 4" in job
        # The first try, and the growth and end of those after it.
        assert "max({12288, MemoryUsage ?: 0})" in job
        assert "min({int(12288 * pow(1.5, NumJobStarts)), 32768})" in job
    others = [*submit_path.glob("jobs/pipetaskInit/*.sub"), *submit_path.glob("jobs/finalJob/*.sub")]
    assert len(others) == 2
    measuring = [*submit_path.glob("jobs/diagnosePatches/**/*.sub")]
    assert [count_quanta(path.read_text()) for path in measuring] == [9 * (len(BANDS) + 1)] * 9
    assert not any("GPU" in path.read_text() for path in others + measuring)


def test_htcondor_plugin_refuses_the_plain_request() -> None:
    # If this fails, the submit file can say what it means.
    plugin = pytest.importorskip("lsst.ctrl.bps.htcondor.lssthtc")
    with pytest.raises(KeyError, match="request_gpus"):
        plugin.HTCJob("job").add_job_cmds({"request_gpus": 1})


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_panda_jobs_go_to_the_gpu_queue(graph: tuple[Path, Path], submit_folder: Path) -> None:
    pytest.importorskip("lsst.ctrl.bps.panda")
    _, workflow = prepare("panda", graph)
    works = {
        re.sub(r".*_\d+_(\w+)_\d+$", r"\1", work.task_name): work
        for work in workflow.idds_client_workflow.template.works.values()
    }
    stages = {"restorePatches", "measurePatches", "diagnosePatches", "summarizeTract"}
    assert set(works) == {"pipetaskInit", *stages, "finalJob"}
    restore = works["restorePatches"]
    assert (restore.task_queue, restore.task_rss, restore.task_rss_max) == (
        "NAME_OF_A_GPU_QUEUE",
        12288,
        32768,
    )
    assert restore.core_count == 4
    assert works["pipetaskInit"].task_queue is None
    # The names of the quanta of a job travel in one field of a table.
    for work in (restore, works["diagnosePatches"]):
        names = [dependency["name"] for dependency in work.dependency_map]
        assert len(names) == 9
        assert max(map(len, names)) < 4000


def test_restart_refuses_beside_a_running_campaign(tmp_path: Path) -> None:
    # Two processes would restore the same patch and write the same files.
    (tmp_path / "log").write_text("written before")
    with (tmp_path / "log").open():
        assert _find_writers(str(tmp_path)) == []
    with (tmp_path / "log").open("a"):
        assert _find_writers(str(tmp_path)) == [os.getpid()]
        assert _find_writers(str(tmp_path / "lo")) == []
        with pytest.raises(CampaignError, match=f"kill {os.getpid()}$"):
            ParslService({}).restart(str(tmp_path))
