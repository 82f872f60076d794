# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The direction of dependence between the rooms of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "lsst.astroclearnet"
ROOT = Path(__file__).parents[1] / "python" / "lsst" / "astroclearnet"


@dataclass(frozen=True)
class Room:
    """What the modules of one room may import beside the standard library.

    Attributes
    ----------
    packages
        Names of packages outside this one.
    rooms
        Names of other rooms.
    lazy
        Names (packages in full, other rooms as ``PACKAGE.room``) that may be
        imported inside functions and under ``TYPE_CHECKING`` only.
    """

    packages: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()


IMAGES = ("numpy", "astropy", "astro_metadata_translator", "pydantic", "lsst.images", "lsst.sphgeom")
STACK = ("lsst.afw", "lsst.cell_coadds", "lsst.geom", "lsst.meas", "lsst.skymap")

# The key is a room, or one file of a room that may import more.
RULES = {
    "core": Room(("llvmlite", "numba", "numpy", "scipy", "torch")),
    "baselines": Room(("numpy", "torch"), ("core",)),
    "metrics": Room(("numpy", "scipy", "astropy", "sep")),
    "plots": Room(("numpy", "astropy", "matplotlib"), ("metrics",)),
    "adapters": Room((*IMAGES, "scipy", "torch"), ("core",)),
    "adapters/_legacy.py": Room((*IMAGES, "scipy", "torch"), ("core",), STACK),
    "adapters/_legacy_coadd.py": Room((*IMAGES,), ("core",), STACK),
    "repository": Room(
        (*IMAGES, "lsst.daf.butler", "lsst.resources", "lsst.utils"), ("core", "adapters"), ("yaml",)
    ),
    "simulation": Room(
        (*IMAGES, "scipy", "galsim", "piff", "torch", "lsst.daf.butler", "lsst.utils"),
        ("core", "adapters", "baselines", "repository"),
    ),
    "tasks": Room(
        (*IMAGES, "torch", "rich", "lsst.daf.butler", "lsst.pex.config", "lsst.pipe.base", "lsst.utils"),
        ("core", "adapters", "metrics"),
        (f"{PACKAGE}.baselines", f"{PACKAGE}.plots", "matplotlib"),
    ),
    "report": Room(("jinja2", "lsst.daf.butler", "lsst.resources"), (), (f"{PACKAGE}.plots",)),
    "commands": Room(
        (*IMAGES, "scipy", "rich", "lsst.daf.butler", "lsst.pipe.base"),
        ("core", "adapters", "metrics", "report", "repository", "simulation"),
        (f"{PACKAGE}.plots", "matplotlib"),
    ),
    "batch": Room(("parsl", "psutil", "lsst.ctrl.bps")),
    "tests": Room((*IMAGES, "torch", "pytest", "lsst.daf.butler"), ("core", "adapters", "simulation")),
    "__init__.py": Room((), ("version",)),
    "version.py": Room(),
    # The command only starts what the rooms do, and starts up without them.
    "cli.py": Room(("click",), ("version",), (f"{PACKAGE}.commands", "rich")),
}

# From below: each may import those before it.
CORE_ROOMS = ("exposures", "forward", "estimate", "outliers", "calibration", "noise", "tiles")


def find_rule(module: Path) -> Room | None:
    """Return the rule for a module given by its path inside the package."""
    return RULES.get(module.as_posix()) or RULES.get(module.parts[0])


def walk_imports(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield every import below a node, and whether importing the module
    leaves it undone.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from walk_imports(child, lazy or deferred)


def name_candidates(statement: ast.Import | ast.ImportFrom, module: Path) -> Iterator[tuple[str, ...]]:
    """Yield, for each imported name, the absolute dotted names it may mean.

    ``from lsst import images`` means ``lsst.images``, while ``from torch
    import nn`` is covered by ``torch`` itself.
    """
    if isinstance(statement, ast.Import):
        yield from ((alias.name,) for alias in statement.names)
        return
    base = statement.module or ""
    if statement.level:
        parents = [*PACKAGE.split("."), *module.parts[:-1]]
        parents = parents[: len(parents) - statement.level + 1]
        base = ".".join([*parents, base] if base else parents)
    yield from ((base, f"{base}.{alias.name}") for alias in statement.names)


def find_violations(source: str, module: Path, rule: Room) -> list[str]:
    """List the imports of a module that its room's rule does not allow."""
    room = module.parts[0]
    always = [*sys.stdlib_module_names, *rule.packages]
    always += [f"{PACKAGE}.{name}" for name in (room, *rule.rooms) if name.isidentifier()]
    violations = []
    for statement, lazy in walk_imports(ast.parse(source)):
        allowed = [*always, *rule.lazy] if lazy else always
        for names in name_candidates(statement, module):
            # The package itself holds nothing but its version.
            fits = names[-1] == f"{PACKAGE}.__version__" or any(
                name == prefix or name.startswith(f"{prefix}.") for name in names for prefix in allowed
            )
            if not fits:
                violations.append(f"{module}:{statement.lineno} imports {names[-1]}")
    return violations


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_what_its_room_allows(path: Path) -> None:
    """If this fails, a dependence points up or sideways: the core would need
    the Rubin packages, or a side room the tasks.
    """
    module = path.relative_to(ROOT)
    rule = find_rule(module)
    assert rule is not None, f"{module} is in no room: state in RULES what it may import"
    assert find_violations(path.read_text(), module, rule) == []


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("core/_fit.py", "import lsst.images", "lsst.images"),
        ("core/_fit.py", "from lsst import images", "lsst.images"),
        ("core/_fit.py", "import numpy, astropy.io.fits", "astropy.io.fits"),
        ("core/_fit.py", "def f():\n    from ..adapters import PatchGeometry", f"{PACKAGE}.adapters"),
        ("core/_fit.py", "from .. import adapters", f"{PACKAGE}.adapters"),
        ("core/_fit.py", f"from {PACKAGE} import tasks", f"{PACKAGE}.tasks"),
        ("core/_fit.py", "from ... import images", "lsst.images"),
        ("adapters/_psf.py", "def f():\n    import lsst.afw.image", "lsst.afw.image"),
        ("adapters/_legacy.py", "import lsst.afw.image", "lsst.afw.image"),
        ("adapters/_psf.py", "if True:\n    import lsst.daf.butler", "lsst.daf.butler"),
        ("adapters/_psf.py", "import lsst.imagesque", "lsst.imagesque"),
        ("plots/_figure.py", "from ..tasks.restore_coadd import RestoreCoaddTask", f"{PACKAGE}.tasks"),
        ("simulation/_survey.py", "from ..tasks import RestoreCoaddTask", f"{PACKAGE}.tasks"),
        ("tasks/restore_coadd.py", "from ..plots import plot_restoration", f"{PACKAGE}.plots"),
        ("tasks/restore_coadd.py", "class A:\n    import matplotlib.figure", "matplotlib.figure"),
    ],
)
def test_forbidden_import_is_found(module: str, source: str, imported: str) -> None:
    """If this fails, the test above has a hole and guards nothing."""
    path = Path(module)
    rule = find_rule(path)
    assert rule is not None
    (violation,) = find_violations(source, path, rule)
    assert f"imports {imported}" in violation


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core/_fit.py", "from __future__ import annotations\nimport torch.nn.functional as F, math"),
        ("core/_fit.py", "from torch import nn\nfrom ._losses import huber\nfrom . import _network"),
        ("core/_fit.py", f"from {PACKAGE}.core import restore\nfrom .. import __version__"),
        ("adapters/_psf.py", "from lsst import images\nfrom ..core import restore"),
        ("adapters/_legacy.py", "def f():\n    import lsst.afw.image"),
        ("adapters/_legacy.py", "if TYPE_CHECKING:\n    from lsst.afw.image import ExposureF"),
        ("tasks/restore_coadd.py", "def f():\n    from ..plots import plot_restoration"),
    ],
)
def test_allowed_import_is_left_alone(module: str, source: str) -> None:
    """If this fails, the rules refuse what the design allows."""
    path = Path(module)
    rule = find_rule(path)
    assert rule is not None
    assert find_violations(source, path, rule) == []


def list_core_rooms(source: str) -> list[str]:
    """Return the rooms of the core that a module in one of them imports."""
    names: list[str] = []
    for statement, _ in walk_imports(ast.parse(source)):
        if isinstance(statement, ast.ImportFrom) and statement.level == 2:
            names += [statement.module] if statement.module else [alias.name for alias in statement.names]
    return [name.split(".")[0] for name in names]


def test_rooms_of_the_core_depend_downwards() -> None:
    """If this fails, an image goes back and forth between the rooms."""
    assert {path.name for path in (ROOT / "core").iterdir() if path.is_dir()} - {"__pycache__"} == set(
        CORE_ROOMS
    )
    upwards = [
        f"core/{room}/{path.name} imports {other}"
        for room, below in ((room, CORE_ROOMS[:i]) for i, room in enumerate(CORE_ROOMS))
        for path in sorted((ROOT / "core" / room).glob("*.py"))
        for other in list_core_rooms(path.read_text())
        if other not in ("_errors", "_options", *below)
    ]
    assert upwards == []


def list_loaded_modules(statement: str) -> list[str]:
    """Return the names of the modules a fresh interpreter holds after it."""
    command = [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_core_loads_no_other_rubin_package() -> None:
    """If this fails, a PyTorch user needs the Rubin packages to use the
    core.
    """
    loaded = list_loaded_modules(f"import {PACKAGE}.core")
    others = [name for name in loaded if name.startswith("lsst.") and not name.startswith(PACKAGE)]
    assert f"{PACKAGE}.core" in loaded
    assert others == []


def test_package_loads_no_torch() -> None:
    """If this fails, reading the version or printing the command's help takes
    the seconds that torch takes to load.
    """
    assert "torch" not in list_loaded_modules(f"import {PACKAGE}")
