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

ARRAYS = ("numba", "numpy", "safetensors", "scipy", "torch", "triton")

# From below: each may import those before it.
CORE_ROOMS = (
    "exposures",
    "forward",
    "estimate",
    "joint",
    "outliers",
    "stars",
    "calibration",
    "noise",
    "tiles",
    "training",
)

ADAPTER_ROOMS = ("place", "read", "cutout", "coadd")

# The key is a room, a room in it, or one file with a rule of its own.
RULES = {
    "core": Room(ARRAYS),
    "core/_errors.py": Room(),
    "core/_options.py": Room(ARRAYS, ("core._errors",)),
    **{
        f"core/{room}": Room(
            ARRAYS, ("core._errors", "core._options", *(f"core.{r}" for r in CORE_ROOMS[:i]))
        )
        for i, room in enumerate(CORE_ROOMS)
    },
    "metrics": Room(("numpy", "scipy", "astropy", "hpgeom", "sep")),
    "measurement": Room(("numpy", "scipy", "astropy", "sep", "photutils"), ("metrics",)),
    "plots": Room(("numpy", "astropy", "matplotlib"), ("metrics",)),
    "plots/_display.py": Room(("numpy", "matplotlib"), ("plots",), ("lsst.afw",)),
    "adapters": Room((*IMAGES, "scipy", "torch"), ("core",)),
    **{
        f"adapters/{room}": Room(
            (*IMAGES, "scipy", "torch"),
            ("core", "adapters._exposure_id", *(f"adapters.{r}" for r in ADAPTER_ROOMS[:i])),
        )
        for i, room in enumerate(ADAPTER_ROOMS)
    },
    **{
        f"adapters/{room}/_legacy.py": Room((*IMAGES, "scipy"), ("core", "adapters"), STACK)
        for room in ("place", "read", "coadd")
    },
    "repository": Room(
        (*IMAGES, "healsparse", "lsst.daf.butler", "lsst.resources", "lsst.utils"),
        ("core", "adapters"),
        ("yaml",),
    ),
    "simulation": Room(
        (*IMAGES, "scipy", "galsim", "piff", "torch", "lsst.daf.butler", "lsst.utils"),
        ("core", "adapters", "repository"),
    ),
    "tasks": Room(
        (
            *IMAGES,
            *("healsparse", "torch", "rich"),
            *("lsst.daf.butler", "lsst.pex.config", "lsst.pipe.base", "lsst.utils"),
        ),
        ("core", "adapters", "metrics", "measurement"),
        # What draws sources needs GalSim.
        (f"{PACKAGE}.plots", f"{PACKAGE}.simulation", "matplotlib", "lsst.analysis.tools"),
    ),
    "report": Room(
        ("jinja2", "astropy", "lsst.daf.butler", "lsst.resources"), ("metrics",), (f"{PACKAGE}.plots",)
    ),
    "commands": Room(
        (*IMAGES, "scipy", "rich", "lsst.daf.butler", "lsst.pipe.base"),
        ("core", "adapters", "metrics", "report", "repository", "simulation"),
        (f"{PACKAGE}.plots", "matplotlib"),
    ),
    # With an extra that no other command needs.
    "commands/_hips_tiles.py": Room(("numpy", "astropy", "reproject", "PIL"), (), (f"{PACKAGE}.plots",)),
    "batch": Room(("parsl", "psutil", "lsst.ctrl.bps")),
    "tests": Room((*IMAGES, "torch", "pytest", "lsst.daf.butler"), ("core", "adapters", "simulation")),
    "__init__.py": Room((), ("version",)),
    "version.py": Room(),
    # The command only starts what the rooms do, and starts up without them.
    "cli.py": Room(
        ("click",), ("version", "_cli_group", "_cli_options", "_cli_simulated"), (f"{PACKAGE}.commands",)
    ),
    "_cli_simulated.py": Room(("click",), ("_cli_group", "_cli_options"), (f"{PACKAGE}.commands",)),
    "_cli_group.py": Room(("click",), (), (f"{PACKAGE}.commands", "rich")),
    "_cli_options.py": Room(("click",)),
}


def find_key(module: Path) -> str | None:
    """Return the key of the rule for a module, given by its path inside the
    package.
    """
    keys = (module.as_posix(), module.parent.as_posix(), module.parts[0])
    return next((key for key in keys if key in RULES), None)


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


def find_violations(source: str, module: Path) -> list[str]:
    """List the imports of a module that its rule does not allow."""
    key = find_key(module)
    assert key is not None, f"{module} is in no room: state in RULES what it may import"
    rule = RULES[key]
    own = () if key.endswith(".py") else (key.replace("/", "."),)
    always = [
        *sys.stdlib_module_names,
        *rule.packages,
        *(f"{PACKAGE}.{name}" for name in (*own, *rule.rooms)),
    ]
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


def test_modules_import_only_what_their_rooms_allow() -> None:
    """If this fails, a dependence points up or sideways: the core would need
    the Rubin packages, or a side room the tasks.
    """
    violations = []
    for path in sorted(ROOT.rglob("*.py")):
        violations += find_violations(path.read_text(), path.relative_to(ROOT))
    assert violations == []


def test_every_room_in_a_room_has_its_place() -> None:
    """If this fails, the order of the rooms says nothing of one of them."""
    for room, below in (("core", CORE_ROOMS), ("adapters", ADAPTER_ROOMS)):
        assert {path.parent.name for path in (ROOT / room).glob("*/__init__.py")} == set(below)


def test_forbidden_imports_are_found() -> None:
    """If this fails, the test above has a hole and guards nothing."""
    missed = []
    for module, source, imported in (
        ("core/estimate/_fit.py", "import lsst.images", "lsst.images"),
        ("core/estimate/_fit.py", "from lsst import images", "lsst.images"),
        ("core/estimate/_fit.py", "import numpy, astropy.io.fits", "astropy.io.fits"),
        (
            "core/estimate/_fit.py",
            "def f():\n    from ...adapters import PatchGeometry",
            f"{PACKAGE}.adapters",
        ),
        ("core/estimate/_fit.py", "from ... import adapters", f"{PACKAGE}.adapters"),
        ("core/estimate/_fit.py", f"from {PACKAGE} import tasks", f"{PACKAGE}.tasks"),
        ("core/estimate/_fit.py", "from .... import images", "lsst.images"),
        (
            "core/estimate/_fit.py",
            "from ..calibration import ExposureCalibration",
            f"{PACKAGE}.core.calibration.ExposureCalibration",
        ),
        ("core/estimate/_fit.py", "def f():\n    from .. import tiles", f"{PACKAGE}.core.tiles"),
        ("core/estimate/_fit.py", f"from {PACKAGE}.core import restore", f"{PACKAGE}.core.restore"),
        ("core/exposures/__init__.py", f"import {PACKAGE}.core.forward", f"{PACKAGE}.core.forward"),
        ("core/_options.py", "from .exposures import Tile", f"{PACKAGE}.core.exposures.Tile"),
        ("adapters/place/_psf.py", "def f():\n    import lsst.afw.image", "lsst.afw.image"),
        ("adapters/read/_legacy.py", "import lsst.afw.image", "lsst.afw.image"),
        ("adapters/place/_psf.py", "from ..read import MaskTable", f"{PACKAGE}.adapters.read.MaskTable"),
        ("adapters/place/_psf.py", "if True:\n    import lsst.daf.butler", "lsst.daf.butler"),
        ("adapters/place/_psf.py", "import lsst.imagesque", "lsst.imagesque"),
        ("plots/_figure.py", "from ..tasks.restore_coadd import RestoreCoaddTask", f"{PACKAGE}.tasks"),
        ("simulation/_survey.py", "from ..tasks import RestoreCoaddTask", f"{PACKAGE}.tasks"),
        ("tasks/restore_coadd.py", "from ..plots import plot_restoration", f"{PACKAGE}.plots"),
        ("tasks/restore_coadd.py", "class A:\n    import matplotlib.figure", "matplotlib.figure"),
    ):
        found = find_violations(source, Path(module))
        if len(found) != 1 or f"imports {imported}" not in found[0]:
            missed.append((module, source, found))
    assert missed == []


def test_allowed_imports_are_left_alone() -> None:
    """If this fails, the rules refuse what the design allows."""
    refused = []
    for module, source in (
        (
            "core/estimate/_fit.py",
            "from __future__ import annotations\nimport torch.nn.functional as F, math",
        ),
        (
            "core/estimate/_fit.py",
            "from torch import nn\nfrom ._samples import make_samples\nfrom . import _network",
        ),
        (
            "core/estimate/_fit.py",
            f"from {PACKAGE}.core.forward import ForwardModel\nfrom .._options import FitOptions",
        ),
        ("adapters/place/_psf.py", "from lsst import images\nfrom ...core import restore"),
        ("adapters/read/_legacy.py", "def f():\n    import lsst.afw.image"),
        ("adapters/read/_legacy.py", "if TYPE_CHECKING:\n    from lsst.afw.image import ExposureF"),
        ("tasks/restore_coadd.py", "def f():\n    from ..plots import plot_restoration"),
    ):
        refused += find_violations(source, Path(module))
    assert refused == []


def test_benchmarks_use_what_is_public() -> None:
    """If this fails, the benchmarks are no distribution of their own, since
    any change inside the package breaks them.
    """
    benchmarks = ROOT.parents[2] / "benchmarks"
    private = [
        f"{path.relative_to(benchmarks)}:{statement.lineno} imports {name}"
        for path in sorted(benchmarks.rglob("*.py"))
        for statement, _ in walk_imports(ast.parse(path.read_text()))
        if not getattr(statement, "level", 0)
        for names in name_candidates(statement, Path(path.name))
        for name in names[-1:]
        if name.startswith(f"{PACKAGE}.") and "._" in name
    ]
    assert private == []


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
