# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Runs that are killed or find the disk full, and how they are taken up."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, DatasetRef

SHAPE = (90, 160)
PATCHES = (0, 1)
TYPES = (
    "restored_coadd",
    "restored_coadd_demand",
    "restored_coadd_linear",
    "restored_coadd_linear_noise",
    "restored_coadd_metrics",
    "restoreCoadd_metadata",
)
SETTINGS = {
    "target_fwhm": "0.55",
    "do_plot": "False",
    "restoration.fit.max_epochs": "2",
    "restoration.noise.num_draws": "2",
}
PIPETASK = Path(sys.executable).with_name("pipetask")
FAULTY = Path(__file__).with_name("faulty_pipetask.py")
AGAIN = ("--extend-run", "--skip-existing", "--clobber-outputs")


def make_command(repo: Path, output: str, *arguments: str, program: Path = PIPETASK) -> list[str]:
    """Return the command that restores both patches."""
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"restoreCoadd:{name}={value}")]
    return [
        *(sys.executable, str(program), "run"),
        *("-b", str(repo), "-i", "TestCam/defaults", "-o", output),
        *("-p", "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml#restore"),
        *("-d", "skymap='test_map' AND tract=3 AND band='i'", "--register-dataset-types"),
        *(*settings, *arguments),
    ]


def run(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Return exit status and output of a command."""
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        check=False,
        timeout=280,
    )
    return result.returncode, result.stdout


def run_with(fault: str, where: str, repo: Path, output: str, *arguments: str) -> tuple[int, str]:
    """Restore both patches with a fault of `faulty_pipetask`."""
    command = make_command(repo, output, *arguments, program=FAULTY)
    return run(command, env={**os.environ, "FAULT": fault, "FAULT_AT": where})


def run_well(command: list[str], num_quanta: int) -> None:
    """Run a command that must restore so many patches."""
    status, output = run(command)
    assert status == 0, output
    assert f"Executed {num_quanta} quanta successfully, 0 failed and 0 remain" in output


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two small patches and two visits."""
    root = tmp_path_factory.mktemp("killed") / "repo"
    butler = create_repository(str(root))
    register_sky_map(butler, make_patch_geometry(cells=(1, 1), cell_shape=(24, 20)), "skymaps")
    rng = np.random.default_rng(9)
    for visit in (1, 2):
        projection = make_projection(SHAPE, rotation=3.0 * visit, visit=visit)
        image = make_visit_image(rng.normal(size=SHAPE), projection)
        put_visit_image(butler, image, "TestCam/visits")
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    return root


@dataclasses.dataclass(frozen=True)
class Stored:
    """A dataset of a run.

    Attributes
    ----------
    identity
        Its UUID.
    modified
        When its file was written, in ns.
    content
        What is read.
    """

    identity: str
    modified: int
    content: Any

    @classmethod
    def read(cls, butler: Butler, ref: DatasetRef) -> Stored:
        """Read a dataset."""
        path = Path(butler.getURI(ref).ospath)
        return cls(str(ref.id), path.stat().st_mtime_ns, butler.get(ref))


def read_run(repo: Path, output: str) -> dict[tuple[str, int], Stored]:
    """Return what can be read of a run, by dataset type and patch."""
    stored = {}
    with Butler.from_config(str(repo), collections=[output]) as butler:
        for name in TYPES:
            for patch in PATCHES:
                data_id = {"skymap": "test_map", "tract": 3, "patch": patch, "band": "i"}
                ref = butler.find_dataset(name, data_id)
                if ref is not None:
                    stored[name, patch] = Stored.read(butler, ref)
    return stored


def assert_taken_up(repo: Path, output: str, complete: set[int]) -> dict[tuple[str, int], Stored]:
    """Check that a run has some patches, that the command of the README
    completes it, and what else can be read before and after.

    Returns
    -------
    after : `dict`
        What can be read at last.
    """
    before = read_run(repo, output)
    for patch in PATCHES:
        found = {name for name, own in before if own == patch}
        assert (found == set(TYPES)) == (patch in complete)
    run_well(make_command(repo, output, *AGAIN), len(PATCHES) - len(complete))
    after = read_run(repo, output)
    assert len(after) == len(TYPES) * len(PATCHES)
    for (name, patch), dataset in before.items():
        # What could be read of a patch was whole, whether or not the rest of
        # the patch was there.
        assert_equal(name, after[name, patch].content, dataset.content)
        if patch in complete:
            assert after[name, patch].identity == dataset.identity
            assert after[name, patch].modified == dataset.modified
    return after


def assert_equal(name: str, one: Any, other: Any) -> None:
    """Check that two datasets of a type are the same, every bit."""
    if name in ("restored_coadd", "restored_coadd_demand", "restored_coadd_linear"):
        for plane in ("image", "variance", "mask"):
            np.testing.assert_array_equal(getattr(one, plane).array, getattr(other, plane).array)
    elif name == "restored_coadd_linear_noise":
        np.testing.assert_array_equal(one["correlation"], other["correlation"])
    elif name == "restored_coadd_metrics":
        np.testing.assert_equal(one, other)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_put(repo: Path) -> None:
    """If it fails, half a coadd can be read, or cannot be made whole."""
    output = "u/test/half"
    status, text = run_with("half", "/restored_coadd_linear/3/1/", repo, output)
    assert status == -signal.SIGKILL, text
    # The file is there, under a name that nobody reads.
    (rest,) = (repo / output).rglob("*restored_coadd_linear_3_1_*")
    assert ".tmp." in rest.name
    assert ("restored_coadd_linear", 1) not in read_run(repo, output)
    assert_taken_up(repo, output, {0})


@pytest.mark.slow
def test_killed_between_file_and_record(repo: Path) -> None:
    """If it fails, a file that the repository does not know is in the way."""
    output = "u/test/moved"
    status, text = run_with("moved", "/restored_coadd_linear/3/1/", repo, output)
    assert status == -signal.SIGKILL, text
    (file,) = (repo / output).rglob("*restored_coadd_linear_3_1_*")
    assert ".tmp." not in file.name
    assert ("restored_coadd_linear", 1) not in read_run(repo, output)
    assert_taken_up(repo, output, {0})


@pytest.mark.slow
def test_killed_in_the_middle_of_a_patch(repo: Path) -> None:
    """If it fails, a run that a scheduler ends has to start from nothing."""
    output = "u/test/killed"
    started = 0
    with subprocess.Popen(
        make_command(repo, output),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            started += "Restoring test_map, tract 3, patch" in line
            if started == 2:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    # Nothing of the other patch is there.
    (complete,) = {patch for _, patch in read_run(repo, output)}
    after = assert_taken_up(repo, output, {complete})
    run_well(make_command(repo, "u/test/undisturbed"), len(PATCHES))
    for (name, patch), dataset in read_run(repo, "u/test/undisturbed").items():
        assert_equal(name, after[name, patch].content, dataset.content)


@pytest.mark.slow
def test_killed_worker(repo: Path) -> None:
    """If it fails, one process that dies takes the others with it, or nobody
    hears of it.
    """
    output = "u/test/worker"
    status, text = run_with("half", "/restored_coadd/3/0/", repo, output, "-j", "2")
    assert status == 1, text
    assert "Executed 1 quanta successfully, 1 failed" in text
    assert "patch: 0" in next(line for line in text.splitlines() if "signal 9" in line)
    assert_taken_up(repo, output, {1})


@pytest.mark.slow
def test_disk_full_in_the_middle_of_a_put(repo: Path) -> None:
    """If it fails, a full disk leaves half a coadd behind."""
    output = "u/test/full"
    status, text = run_with("full", "/restored_coadd/3/1/", repo, output)
    assert status == 1
    assert "No space left on device" in text
    assert "Executed 1 quanta successfully, 1 failed" in text
    assert not list((repo / output).rglob("*.tmp.*"))
    assert_taken_up(repo, output, {0})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system of its own needs the rights to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_full_disk(repo: Path, small_disk: Path) -> None:
    """If it fails, so does what the simulated full disk leaves out: the
    database, and all files of a patch.
    """
    copy, ballast = small_disk / "repo", small_disk / "ballast"
    shutil.copytree(repo, copy, ignore=shutil.ignore_patterns("u"))
    output = "u/test/small"
    run_well(make_command(copy, output, "-d", "skymap='test_map' AND tract=3 AND patch=0"), 1)
    # There is room for half a patch.
    needed = sum(path.stat().st_size for path in (copy / output).rglob("*") if path.is_file())
    state = os.statvfs(small_disk)
    ballast.write_bytes(bytes(state.f_bavail * state.f_frsize - needed // 2))
    status, text = run(make_command(copy, output, *AGAIN))
    assert status == 1
    assert "No space left on device" in text or "disk is full" in text
    assert "Executed 0 quanta successfully, 1 failed" in text
    ballast.unlink()
    assert_taken_up(copy, output, {0})
