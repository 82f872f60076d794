# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Campaigns of bps on this machine, and what becomes of them when processes
are killed and jobs fail.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from lsst.astroclearnet.adapters import SkyMapGeometry, TractGeometry
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tests import make_projection, make_visit_image
from lsst.daf.butler import Butler

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOP = Path(__file__).parents[1]
BPS = TOP / "bps"
SERVICE = "lsst.astroclearnet.batch.ParslService"
RUN = "u/test/restored/run"
NUM_PATCHES = 3
# Nothing of the fit matters here.
OPTIONS = (
    f"-C restoreCoadd:{TOP}/config/quick_look.py "
    "-c restoreCoadd:target_fwhm=0.55 -c restoreCoadd:do_linear=False "
    "-c restoreCoadd:restoration.fit.max_epochs=1"
)


class Campaign:
    """A repository with a tract, and a directory to submit from.

    Everything that a command of bps starts has this directory as its working
    directory, by which it is found.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.submit_path = folder / "submit" / RUN
        self.listening: set[str] = set()
        butler = create_repository(str(self.repo))
        tract = TractGeometry(
            tract=3,
            ra_deg=150.1,
            dec_deg=2.2,
            pixel_scale_arcsec=0.168,
            cell_shape=(30, 20),
            patch_cells=(2, 3),
            num_patches=(1, NUM_PATCHES),
        )
        register_sky_map(butler, SkyMapGeometry(skymap="test_map", tracts=(tract,)), "skymaps")
        rng = np.random.default_rng(5)
        for visit in (1, 2):
            projection = make_projection((140, 240), offset=(1.3 * visit, 2.0), visit=visit)
            image = make_visit_image(rng.normal(0.0, 1.0, (140, 240)), projection)
            put_visit_image(butler, image, "TestCam/visits")
        chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])

    def write_submit_file(self, clustering: str, **site: int) -> None:
        """Write a submit file that uses the snippets of the directory bps."""
        content = {
            "includeConfigs": [*(f"{BPS}/{name}.yaml" for name in ("local", f"clustering/{clustering}"))],
            "pipelineYaml": "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml#restore",
            "extraQgraphOptions": OPTIONS,
            "payload": {
                "butlerConfig": str(self.repo),
                "inCollection": "TestCam/defaults",
                "output": "u/test/restored",
                "outputRun": RUN,
                "dataQuery": "skymap='test_map'",
            },
            "site": {"local": site},
        }
        (self.folder / "submit.yaml").write_text(yaml.safe_dump(content))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of bps whose output goes to the file `log`."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                [Path(sys.executable).with_name("bps"), *arguments],
                cwd=self.folder,
                env={**os.environ, "PATH": path, "PWD": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def watch(self, process: subprocess.Popen[str], until: Callable[[], bool] | None = None) -> str:
        """Record what listens until a command ends, or something happens, and
        return what the command said.
        """
        while process.poll() is None and not (until and until()):
            for member in self.processes():
                try:
                    sockets = member.net_connections("inet")
                except psutil.Error:
                    continue
                self.listening |= {s.laddr.ip for s in sockets if s.status in ("LISTEN", "NONE")}
            time.sleep(0.5)
        output = (self.folder / "log").read_text()
        assert until is None or process.poll() is None, output
        return output

    def processes(self, program: str = "") -> list[psutil.Process]:
        """Return what runs of the campaign, with a word in its command."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.folder) and program in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def log_path(self, job: str) -> Path:
        """Return the log of a job."""
        (path,) = self.submit_path.glob(f"logs/**/{job}.stderr")
        return path

    def modification_times(self) -> dict[str, int]:
        """Return when each file of a restored coadd was written.

        What a killed process left of a transfer has other characters in front
        of its name.
        """
        files = (self.repo / RUN / "restored_coadd").rglob("restored_coadd_*.fits")
        return {path.name: path.stat().st_mtime_ns for path in files}

    def patches(self) -> list[int]:
        """Return the patches whose coadds a user finds."""
        butler = Butler.from_config(str(self.repo))
        refs = butler.query_datasets("restored_coadd", collections="u/test/restored")
        for ref in refs:
            assert np.isfinite(butler.get(ref).image.array).any()
        return sorted(int(ref.dataId["patch"]) for ref in refs)


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    """A campaign, all of whose processes are ended afterwards."""
    campaign = Campaign(tmp_path)
    yield campaign
    for process in campaign.processes():
        process.kill()


def kill_worker(campaign: Campaign) -> None:
    """Kill, as the kernel does when memory runs out, a worker and its job."""
    job = campaign.processes("run-qbb")[0]
    worker = next(parent for parent in job.parents() if "spawn_main" in " ".join(parent.cmdline()))
    for process in (worker, *worker.children(recursive=True)):
        process.kill()


def test_failed_job_is_told_and_done_by_a_restart(campaign: Campaign) -> None:
    # A file is where the directory of the coadd of patch 1 should be, and the
    # first worker is killed.
    obstacle = campaign.repo / RUN / "restored_coadd" / "3" / "1"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    campaign.write_submit_file("patch", retries=1)
    process = campaign.start("submit", "submit.yaml")
    campaign.watch(process, until=lambda: bool(campaign.processes("run-qbb")))
    kill_worker(campaign)
    output = campaign.watch(process)
    # Who launched the campaign sees that it failed, where, and what to do.
    assert process.returncode == 1, output
    assert f"1 of {NUM_PATCHES} jobs failed" in output
    job = "restorePatches_test_map_3_1"
    assert re.search(rf"Job {job} failed \(\d of {NUM_PATCHES}\)", output)
    assert f"\n{campaign.log_path(job)}\n" in output
    assert "NotADirectoryError" in campaign.log_path(job).read_text()
    (restart,) = re.findall(r"^Run again what failed with: bps (restart .*)$", output, re.MULTILINE)
    # What could be done is there, the job whose worker was killed included.
    assert campaign.patches() == [0, 2]
    before = campaign.modification_times()

    obstacle.unlink()
    process = campaign.start(*restart.split())
    output = campaign.watch(process)
    assert process.returncode == 0, output
    assert campaign.patches() == [0, 1, 2]
    after = campaign.modification_times()
    assert {name: after[name] for name in before} == before
    # Of the jobs that were done not even the process was started again.
    log = campaign.log_path("restorePatches_test_map_3_0").read_text()
    assert "Skipping already-successful quantum" not in log

    # The interchange and the workers of Parsl do listen, and only here.
    addresses = [ipaddress.ip_address(address) for address in campaign.listening]
    assert addresses
    assert all((getattr(a, "ipv4_mapped", None) or a).is_loopback for a in addresses), addresses
    assert campaign.processes() == []


def test_campaign_survives_its_submitter(campaign: Campaign) -> None:
    # All patches are in one job, as on a GPU; when the first is done, the
    # submitting process is killed.
    campaign.write_submit_file("patches")
    process = campaign.start("submit", "submit.yaml")
    metadata = campaign.repo / RUN / "restoreCoadd_metadata"
    campaign.watch(process, until=lambda: any(metadata.rglob("*.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()

    # Parsl's workers go on, and a second run must not get into their way.
    restart = ("restart", "--wms-service-class", SERVICE, "--id", str(campaign.submit_path))
    process = campaign.start(*restart)
    output = campaign.watch(process)
    assert process.returncode == 1, output
    (pids,) = re.findall(r"end them with: kill ([\d ]+)", output)
    for pid in map(int, pids.split()):
        # A process may have ended with another one.
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    before = campaign.modification_times()
    assert before

    process = campaign.start(*restart)
    output = campaign.watch(process)
    assert process.returncode == 0, output
    assert campaign.patches() == [0, 1, 2]
    after = campaign.modification_times()
    assert len(after) == NUM_PATCHES
    # The next patch may have been written and not yet recorded as done.
    first = min(before, key=lambda name: before[name])
    assert after[first] == before[first]
    log = campaign.log_path("restorePatches_test_map_3_001").read_text()
    assert "Skipping already-successful quantum" in log
