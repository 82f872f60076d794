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

import lsst.astroclearnet

ROOT = Path(lsst.astroclearnet.__file__).parent
MODULES = sorted(
    ".".join(("lsst.astroclearnet", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if "resources" not in path.parts
)


# Its modules are loaded by the subcommand that needs them.
NOT_GATHERED = "lsst.astroclearnet.commands"


def test_modules_can_be_imported() -> None:
    """If this fails, a module is broken, needs a package that is no
    dependency, or states a public name that does not exist.
    """
    faults = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            faults.append(f"{name}: {error!r}")
            continue
        names = getattr(module, "__all__", ())
        faults += [f"{name} has no {public}" for public in names if not hasattr(module, public)]
    assert faults == []


def test_rooms_show_the_names_of_their_modules() -> None:
    """If this fails, a public name can be reached through a private module
    only.  A module without ``__all__`` is for the use of its room alone.
    """
    faults = []
    for name in MODULES:
        parent, _, own = name.rpartition(".")
        if not own.startswith("_") or parent == NOT_GATHERED:
            continue
        module, room = importlib.import_module(name), importlib.import_module(parent)
        names = getattr(module, "__all__", ())
        if not isinstance(names, tuple):
            faults.append(f"{name}.__all__ must be a tuple")
        faults += [
            f"{parent} lacks {public} of {own}"
            for public in names
            if getattr(room, public, None) is not getattr(module, public)
        ]
    assert faults == []


def test_version_is_that_of_the_distribution() -> None:
    """If this fails, the provenance written into coadds names another version
    than the one installed.
    """
    assert lsst.astroclearnet.__version__ == version("lsst-astroclearnet")
