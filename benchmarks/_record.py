# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a record of measurements says of code and machine."""

from __future__ import annotations

__all__ = ("describe_code", "describe_machine")

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe_code() -> str:
    """Return version and commit of the package.

    Returns
    -------
    code : `str`
        In words.
    """
    try:
        release = version("lsst-astroclearnet")
    except PackageNotFoundError:
        release = "not installed"
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {release}"
    return f"version {release}, commit {result.stdout.strip()}"


def describe_machine(device: str = "cpu") -> str:
    """Return processor, threads and versions.

    Parameters
    ----------
    device
        Device that was computed on.

    Returns
    -------
    machine : `str`
        In words.
    """
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    if device == "cuda":
        processor = f"{torch.cuda.get_device_name()}, with {processor}"
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return f"{processor}, {threads} threads, Python {platform.python_version()}, {', '.join(_versions())}"


def _versions() -> Iterator[str]:
    """Yield the versions of the packages that are installed."""
    for name in ("torch", "numpy", "galsim", "lsst-images"):
        with contextlib.suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"
