# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sites of the Parsl plug-in: the submitting machine, and a Slurm cluster."""

from __future__ import annotations

__all__ = ("LocalSite", "SlurmSite")

import os

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider

from lsst.ctrl.bps.parsl import SiteConfig
from lsst.ctrl.bps.parsl.configuration import get_bps_config_value
from lsst.ctrl.bps.parsl.sites import Local, Slurm

LOOPBACK = "127.0.0.1"
"""The only address on which a local campaign listens."""


class LocalSite(Local):
    """The submitting machine, with nothing open to the network.

    The stock site listens on every address of the machine.  Under
    ``site.<computeSite>`` it reads ``cores`` (`int`), the number of jobs at a
    time, and ``accelerators`` (`int`, default 0): with GPUs, each job has one
    to itself and there are no more jobs than GPUs.
    """

    def get_address(self) -> str:
        """Return the address of the submitting process.

        Returns
        -------
        address : `str`
            The loopback address.
        """
        return LOOPBACK

    def get_executors(self) -> list[ParslExecutor]:
        """Make the executor.

        Returns
        -------
        executors : `list` [`parsl.executors.base.ParslExecutor`]
            One executor, named as ``select_executor`` expects.
        """
        return [
            HighThroughputExecutor(
                "local",
                provider=LocalProvider(),
                address=self.get_address(),
                max_workers_per_node=get_bps_config_value(self.site, "cores", int, required=True),
                available_accelerators=get_bps_config_value(self.site, "accelerators", int, 0),
            )
        ]

    def get_parsl_config(self) -> Config:
        """Make the configuration of Parsl.

        Returns
        -------
        config : `parsl.config.Config`
            Its files are in the submit directory.
        """
        return _keep_in_submit_directory(self, super().get_parsl_config())


class SlurmSite(Slurm):
    """A Slurm cluster whose jobs need memory or a GPU each.

    Beside what the stock site reads under ``site.<computeSite>``, it reads

    - ``accelerators`` (`int`, default 0): GPUs of a node.  Each job has one
      to itself, by ``CUDA_VISIBLE_DEVICES``.  The node's GPUs are asked for
      in ``scheduler_options``, in the form that the cluster wants.
    - ``cores_per_worker`` (`int`, default 1) and ``mem_per_worker`` (`float`,
      GB): what a job is given of a node, and so how many run there.
    - ``max_blocks`` (`int`, default 1): Slurm jobs at a time, each of
      ``nodes`` nodes.
    - ``exclusive`` (`bool`, default False): whole nodes only?
    """

    def get_executors(self) -> list[ParslExecutor]:
        """Make the executor.

        Returns
        -------
        executors : `list` [`parsl.executors.base.ParslExecutor`]
            One executor, named as ``select_executor`` expects.
        """
        return [
            self.make_executor(
                "slurm",
                mem_per_worker=get_bps_config_value(self.site, "mem_per_worker", float),
                provider_options={
                    "max_blocks": get_bps_config_value(self.site, "max_blocks", int, 1),
                    # The stock site reads this and leaves Parsl's True.
                    "exclusive": get_bps_config_value(self.site, "exclusive", bool, False),
                },
                executor_options={
                    "available_accelerators": get_bps_config_value(self.site, "accelerators", int, 0),
                    "cores_per_worker": get_bps_config_value(self.site, "cores_per_worker", int, 1),
                },
            )
        ]

    def get_parsl_config(self) -> Config:
        """Make the configuration of Parsl.

        Returns
        -------
        config : `parsl.config.Config`
            Its files are in the submit directory.
        """
        return _keep_in_submit_directory(self, super().get_parsl_config())


def _keep_in_submit_directory(site: SiteConfig, config: Config) -> Config:
    """Put the files of Parsl into the submit directory of the campaign."""
    submit_path = get_bps_config_value(site.config, "submitPath", str, required=True)
    config.run_dir = os.path.join(submit_path, "runinfo")
    return config
