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
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

# Before torch is loaded: on a busy machine its threads would spend most of the
# time of small tests in waiting for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that admit and demand tests."""
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")
    parser.addoption(
        "--require-afw",
        action="store_true",
        help="stop, and say which packages of the full stack are missing, instead of skipping its tests",
    )
    if importlib.util.find_spec("pytest_timeout") is None:
        # An environment of the full stack need not have it; without this its
        # setting would be an error.
        parser.addini("timeout", "not in force: pytest-timeout is not installed")


def _cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()


def _packages_of(item: pytest.Item) -> Iterable[str]:
    """Yield the packages of the full stack that a test needs."""
    for marker in item.iter_markers("afw"):
        yield "lsst.afw"
        yield from marker.args


def _find_missing(packages: Iterable[str]) -> list[str]:
    """Return which packages cannot be imported."""
    missing = []
    for package in sorted(set(packages)):
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    return missing


def _say_missing(missing: Sequence[str]) -> str:
    return ", ".join(missing) + (" is" if len(missing) == 1 else " are") + " not set up"


def _check_afw(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of the full stack where it is not, or stop if demanded."""
    marked = [item for item in items if item.get_closest_marker("afw")]
    if config.getoption("--require-afw"):
        missing = _find_missing(package for item in marked for package in _packages_of(item))
        if not marked:
            pytest.exit("no test of the full stack is among those selected", returncode=1)
        if missing:
            pytest.exit(
                f"{_say_missing(missing)}; set up lsst_distrib, or its packages that hold them, and "
                "astroclearnet on top of it (setup -r . -j)",
                returncode=1,
            )
    for item in marked:
        if missing := _find_missing(_packages_of(item)):
            item.add_marker(pytest.mark.skip(reason=_say_missing(missing)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip marked tests whose condition does not hold here."""
    _check_afw(config, items)
    conditions: dict[str, tuple[Callable[[], bool], str]] = {
        "slow": (lambda: bool(config.getoption("--run-slow")), "slow: opt in with --run-slow"),
        "gpu": (_cuda_is_available, "no CUDA device here"),
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
