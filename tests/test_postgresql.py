# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A campaign in a repository whose registry is a PostgreSQL database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from lsst.astroclearnet.cli import main
from lsst.astroclearnet.commands._demonstration._survey import DEFAULTS, RESTORED
from lsst.astroclearnet.commands._pipetask import restore_command
from lsst.astroclearnet.simulation import SurveyOptions
from lsst.daf.butler import Butler

pytestmark = pytest.mark.slow

USER = "butler"


def find_program(name: str) -> str:
    """Return a program of the server, which Debian keeps off PATH; skip the
    test if there is none.
    """
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, versions)))
    if path is None:
        pytest.skip(f"no PostgreSQL server here: {name} is neither on PATH nor in /usr/lib/postgresql")
    return path


@pytest.fixture
def registry() -> Iterator[str]:
    """URL of an empty database, on a server that listens on a socket in a
    folder of its own and on no network.
    """
    psycopg = pytest.importorskip("psycopg", reason="no PostgreSQL driver here: install psycopg[binary]")
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    # The path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="acn-pg-"))
    account: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        # The server refuses to be root.
        account |= {"user": "postgres", "group": "postgres", "extra_groups": ()}
        shutil.chown(folder, "postgres", "postgres")

    def run(*command: str, check: bool = True) -> None:
        with tempfile.TemporaryFile() as output:
            # No pipe, which the server would keep open.
            result = subprocess.run(command, stdout=output, stderr=output, check=False, timeout=60, **account)
            output.seek(0)
            assert not check or result.returncode == 0, output.read().decode()

    data = str(folder / "data")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    try:
        run(initdb, "-D", data, "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        run(pg_ctl, "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
        with psycopg.connect(host=str(folder), user=USER, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE EXTENSION btree_gist")
        yield f"postgresql://{USER}@/postgres?host={folder}"
    finally:
        run(pg_ctl, "-D", data, "-m", "fast", "-w", "stop", check=False)
        shutil.rmtree(folder)


def run_to_end(command: list[str]) -> str:
    """Run a command and return its log; leave none of its processes behind."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, log = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    assert process.returncode == 0, log
    return log


@pytest.mark.timeout(900)
def test_campaign_with_four_processes(
    registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, a campaign that many processes write to a PostgreSQL
    registry loses patches, or cannot be made, found or summed up there.
    """
    root = tmp_path / "repo"
    words = "--bands i --visits 2 --patches 2 --patch-cells 1 --stars 5"
    assert main(["simulate", str(root), "--registry", registry, *words.split()]) == 0
    capsys.readouterr()
    assert main(["status", str(root), DEFAULTS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 patches: 4 not finished"

    skymap = SurveyOptions().skymap
    settings = ("target_fwhm=0.54", "restoration.fit.max_epochs=5", "restoration.noise.num_draws=2")
    options = [word for setting in settings for word in ("-c", f"restoreCoadd:{setting}")]
    command = restore_command(
        root, skymap=skymap, inputs=DEFAULTS, output=RESTORED, options=[*options, "-j", "4"]
    )
    assert "Executed 4 quanta successfully, 0 failed" in run_to_end(command)

    assert not list(root.glob("*.sqlite3"))
    butler = Butler.from_config(str(root), collections=[RESTORED])
    assert "PostgreSQL" in str(butler)
    for patch in range(4):
        data_id = {"skymap": skymap, "tract": 0, "patch": patch, "band": "i"}
        coadd, linear = (butler.get(f"restored_coadd{name}", data_id) for name in ("", "_linear"))
        assert np.isfinite(coadd.image.array).mean() > 0.9
        assert linear.bbox == coadd.bbox
        assert len(butler.get("restored_coadd_linear_noise", data_id)) > 0
        metrics = butler.get("restored_coadd_metrics", data_id)
        assert metrics["patch"]["num_exposures"] == len(coadd.provenance.inputs)
        assert butler.getURI("restored_coadd_plot", data_id).exists()

    path = tmp_path / "status.ecsv"
    assert main(["status", str(root), RESTORED, "--check", "--output", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 patches: 4 done"
    assert (Table.read(path)["wall_time"] > 0.0).all()
