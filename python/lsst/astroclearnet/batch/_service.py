# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The Parsl service, with failures that nobody can overlook."""

from __future__ import annotations

__all__ = ("CampaignError", "ParslService")

import logging
import os
from concurrent.futures import as_completed
from typing import Any

import psutil
from parsl.utils import get_all_checkpoints

from lsst.ctrl.bps import BaseWmsWorkflow
from lsst.ctrl.bps.parsl import ParslService as StockService
from lsst.ctrl.bps.parsl import ParslWorkflow

_LOG = logging.getLogger(__name__)


class CampaignError(RuntimeError):
    """A campaign needs the attention of who launched it."""


class ParslService(StockService):
    """The service of the Parsl plug-in, which fails when a job failed.

    With the stock service, ``bps submit`` and ``bps restart`` end with exit
    status 0 whatever becomes of the jobs.
    """

    def submit(self, workflow: BaseWmsWorkflow, **kwargs: Any) -> None:
        """Run a workflow to its end.

        Parameters
        ----------
        workflow
            A prepared workflow.
        **kwargs
            Not used.

        Raises
        ------
        CampaignError
            If a job failed.
        """
        workflow.start()
        _run(workflow)
        workflow.run_id = workflow.path

    def restart(self, out_prefix: str) -> tuple[str, str, str]:
        """Run the jobs that did not succeed.

        Parameters
        ----------
        out_prefix
            The submit directory.

        Returns
        -------
        wms_id, run_name, message : `str`
            Name of the run, twice, and an empty message.

        Raises
        ------
        CampaignError
            If a job failed again, or processes of an earlier run go on.
        """
        # Parsl's processes outlive a submitting process that is killed.
        if writers := _find_writers(out_prefix):
            pids = " ".join(map(str, writers))
            raise CampaignError(
                f"Processes of an earlier run still write below {out_prefix}; "
                f"if its bps command is gone, end them with: kill {pids}"
            )
        workflow = ParslWorkflow.read(out_prefix)
        config = workflow.parsl_config
        # The stock workflow looks for the last run in the working directory;
        # what succeeded before that one would be started again.
        config.memoizer.checkpoint_files = get_all_checkpoints(config.run_dir)
        workflow.load_dfk()
        _run(workflow)
        return workflow.name, workflow.name, ""


def _run(workflow: ParslWorkflow) -> None:
    """Run a workflow that was started, and tell how each job ends."""
    # Parsl reports each turn of its timers.
    logging.getLogger("parsl.process_loggers").setLevel(logging.INFO)
    workflow.run(block=False)
    jobs = {job.future: job for job in workflow.jobs.values() if job.future is not None}
    failed = []
    for number, future in enumerate(as_completed(jobs), 1):
        job = jobs[future]
        if (error := future.exception()) is None:
            _LOG.info("Job %s succeeded (%d of %d).", job.name, number, len(jobs))
        else:
            _LOG.error("Job %s failed (%d of %d): %s", job.name, number, len(jobs), error)
            failed.append(job)
    workflow.shutdown()
    workflow.finalize_jobs()
    if failed:
        logs = "\n".join(job.stderr for job in failed)
        raise CampaignError(
            f"{len(failed)} of {len(jobs)} jobs failed; their logs are\n{logs}\n"
            f"Run again what failed with: bps restart --wms-service-class "
            f"{ParslService.__module__.rpartition('.')[0]}.ParslService --id {workflow.path}"
        )


def _find_writers(folder: str) -> list[int]:
    """Find the processes on this machine that write below a directory."""
    top = os.path.join(os.path.realpath(folder), "")
    pids = []
    for process in psutil.process_iter():
        try:
            files = process.open_files()
        except psutil.Error:
            continue
        # Not every system tells the mode.
        if any(file.path.startswith(top) and getattr(file, "mode", "w") != "r" for file in files):
            pids.append(process.pid)
    return pids
