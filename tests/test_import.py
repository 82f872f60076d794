# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Every module can be imported and shows its public names in its room."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path

import pytest

import lsst.astroclearnet

ROOT = Path(lsst.astroclearnet.__file__).parent
MODULES = sorted(
    ".".join(("lsst.astroclearnet", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if "resources" not in path.parts
)


@pytest.mark.parametrize("name", MODULES)
def test_module_can_be_imported(name: str) -> None:
    """If this fails, a module is broken or needs a package that is no
    dependency, and every public name it states must exist.
    """
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"


# Its modules are loaded by the subcommand that needs them.
NOT_GATHERED = "lsst.astroclearnet.commands"
PRIVATE = [
    name
    for name in MODULES
    if name.rpartition(".")[2].startswith("_") and name.rpartition(".")[0] != NOT_GATHERED
]


@pytest.mark.parametrize("name", PRIVATE)
def test_room_shows_the_names_of_its_modules(name: str) -> None:
    """If this fails, a public name can be reached through a private module
    only.  A module without ``__all__`` is for the use of its room alone.
    """
    module = importlib.import_module(name)
    room = importlib.import_module(name.rpartition(".")[0])
    names = getattr(module, "__all__", ())
    assert isinstance(names, tuple), f"{name}.__all__ must be a tuple"
    for public in names:
        assert getattr(room, public, None) is getattr(module, public), f"{room.__name__} lacks {public}"


def test_version_is_that_of_the_distribution() -> None:
    """If this fails, the provenance written into coadds names another version
    than the one installed.
    """
    assert lsst.astroclearnet.__version__ == version("lsst-astroclearnet")
