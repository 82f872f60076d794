# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Options, markers and fixtures that the tests share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that admits tests of minutes."""
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")


def _cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()


def _afw_is_importable() -> bool:
    try:
        importlib.import_module("lsst.afw")
    except ImportError:
        return False
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip marked tests whose condition does not hold here."""
    conditions: dict[str, tuple[Callable[[], bool], str]] = {
        "slow": (lambda: bool(config.getoption("--run-slow")), "slow: opt in with --run-slow"),
        "gpu": (_cuda_is_available, "no CUDA device here"),
        "afw": (_afw_is_importable, "lsst.afw cannot be imported here"),
    }
    for name, (holds, reason) in conditions.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        # The condition may import torch: look only where a test asks for it.
        if marked and not holds():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Name of a torch device: the CPU, and CUDA where there is one."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real exposures, which are no part of the package.

    The environment variable ASTROCLEARNET_DATA_DIR names it; by default it is
    ``shared/data`` beside the checkout.  Without it a test is skipped, unless
    ASTROCLEARNET_REQUIRE_DATA is 1: then it fails.
    """
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ASTROCLEARNET_DATA_DIR") or default).resolve()
    if not folder.is_dir():
        reason = f"no real exposures in {folder}: set ASTROCLEARNET_DATA_DIR"
        if os.environ.get("ASTROCLEARNET_REQUIRE_DATA") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return folder
