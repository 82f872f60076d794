# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What README and documentation tell the user to type exists."""

from __future__ import annotations

import ast
import importlib
import math
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lsst.astroclearnet.cli import cli
from lsst.astroclearnet.commands._demonstration._survey import make_options
from lsst.astroclearnet.tasks import (
    InjectSourcesConfig,
    MakeColorPicturesConfig,
    MakePropertyMapsConfig,
    MakeTractPictureConfig,
    MeasureObjectsConfig,
    MeasureRestorationConfig,
    RestoreCoaddBandsConfig,
    RestoreCoaddConfig,
    TrainRestorationBandsConfig,
    TrainRestorationConfig,
)
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipelineIR import PipelineIR

TOP = Path(__file__).parents[1]
PIPELINES = "resource://lsst.astroclearnet/resources/pipelines"
PAGES = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    TOP / "bps" / "README.md",
    TOP / "benchmarks" / "README.md",
    *sorted((TOP / "doc" / "lsst.astroclearnet").glob("*.rst")),
    *sorted((TOP / "doc" / "lsst.astroclearnet").glob("*.md")),
]
# Built in passing, and not what a person wrote.
PAGES = [page for page in PAGES if page.name != "CHANGES.rst"]

_FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1   .*\n|\n)+)", re.MULTILINE)


def list_blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of code of a page."""
    text = page.read_text() + "\n"
    pattern = _FENCED if page.suffix == ".md" else _DIRECTIVE
    return [textwrap.dedent(code) for _, name, code in pattern.findall(text) if name == language]


def list_commands(page: Path) -> Iterator[list[str]]:
    """Return the words of each command of a page."""
    for block in list_blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield shlex.split(line.removeprefix("$ "), comments=True)


COMMANDS = [(page.name, words) for page in PAGES for words in list_commands(page)]
PYTHON = [
    (f"{page.name}:{n}", block) for page in PAGES for n, block in enumerate(list_blocks(page, "python"))
] + [(script.name, script.read_text()) for script in sorted((TOP / "doc" / "figures").glob("*.py"))]


def commands_of(program: str) -> list[tuple[str, list[str]]]:
    """Return page and arguments of each command of a program."""
    return [(page, words[1:]) for page, words in COMMANDS if words[0] == program]


def test_there_are_examples() -> None:
    """If this fails, the tests below test nothing."""
    assert len(commands_of("astroclearnet")) > 8
    assert len(commands_of("pipetask")) > 2
    assert len(commands_of("butler")) > 2
    assert len(commands_of("bps")) > 2
    assert len(PYTHON) > 10


def test_astroclearnet_takes_what_is_shown() -> None:
    """If this fails, a command of the documentation ends with its usage."""
    refused = []
    for page, words in commands_of("astroclearnet"):
        try:
            cli.commands[words[0]].make_context(words[0], list(words[1:]))
        except click.UsageError as exc:
            refused.append(f"{page}: {words}: {exc.format_message()}")
    assert refused == []


def list_options(program: str, command: str) -> set[str]:
    """Return the options of a command of the Rubin middleware."""
    module = {
        "pipetask": "lsst.ctrl.mpexec.cli.pipetask",
        "butler": "lsst.daf.butler.cli.butler",
        "bps": "lsst.ctrl.bps.cli.bps",
    }[program]
    group: Any = importlib.import_module(module).cli
    found = group.get_command(click.Context(group), command)
    assert found is not None, f"{program} has no command {command}"
    return {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_middleware_takes_what_is_shown() -> None:
    """If this fails, Rubin's commands do not have an option that is shown."""
    unknown = []
    for program in ("pipetask", "butler", "bps"):
        for page, words in commands_of(program):
            given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[A-Za-z]", word)}
            excess = given - list_options(program, words[0])
            unknown += [f"{page}: {program} {words[0]} {option}" for option in sorted(excess)]
    assert unknown == []


def test_options_in_the_text_exist() -> None:
    """If this fails, a page names an option that no command has."""
    known = {"--run-slow", "--user"}
    for own in (cli, *cli.commands.values()):
        known.update(option for parameter in own.params for option in parameter.opts)
    for program, command in (
        ("pipetask", "run"),
        ("pipetask", "report"),
        ("butler", "aggregate-graph"),
        ("bps", "submit"),
        ("bps", "report"),
        ("bps", "restart"),
    ):
        known |= list_options(program, command)
    # Wanted without running a benchmark, which would import the peers.
    for script in (TOP / "benchmarks").glob("*/*.py"), (TOP / "benchmarks").glob("*/*/*.py"):
        known.update(*(re.findall(r'"(--[a-z-]+)"', path.read_text()) for path in script))
    known |= set(re.findall(r'"(--[a-z-]+)"', (TOP / "tests" / "conftest.py").read_text()))
    for page in PAGES:
        named = set(re.findall(r"`(--[a-z][a-z-]+)", page.read_text()))
        assert named <= known, f"{page.name}: {sorted(named - known)}"


def test_fields_of_the_configuration_exist() -> None:
    """If this fails, an override of the documentation is refused."""
    configs = {
        "restoreCoadd": RestoreCoaddConfig(),
        "restoreCoaddBands": RestoreCoaddBandsConfig(),
        "measureRestoration": MeasureRestorationConfig(),
        "makeColorPictures": MakeColorPicturesConfig(),
        "makePropertyMaps": MakePropertyMapsConfig(),
        "makeTractPicture": MakeTractPictureConfig(),
        "measureObjects": MeasureObjectsConfig(),
        "trainRestoration": TrainRestorationConfig(),
        "trainRestorationBands": TrainRestorationBandsConfig(),
        "injectSources": InjectSourcesConfig(),
    }
    pipelines = {
        name: Pipeline.from_uri(f"{PIPELINES}/{pipeline}.yaml")
        for name, pipeline in (
            ("restored_coadd", "RestoreCoadd"),
            ("joint_coadd", "RestoreCoaddBands"),
            ("restoration_model", "TrainRestoration"),
            ("joint_model", "TrainRestorationBands"),
        )
    }
    # Of a pipeline whose graph needs the full stack.
    hips = PipelineIR.from_uri(f"{PIPELINES}/_ingredients/MakeRestoredHips.yaml")
    stack_parameters = set(hips.parameters.mapping) - {"restored_coadd_name"}
    count = 0
    for page in PAGES:
        for label, path in re.findall(r"\b([a-zA-Z]+):([a-z_.]+)=", page.read_text()):
            if label == "parameters" and path in stack_parameters:
                continue
            if label == "parameters":
                # They reach all tasks, and keep the contracts.
                value = False if path.endswith("do_linear") else "name"
                (parameters,) = (pipelines[name] for name in pipelines if path.startswith(name))
                parameters.addConfigOverride(label, path, value)
                parameters.to_graph()
            if label not in configs:
                continue
            part: Any = configs[label]
            for name in path.split("."):
                assert hasattr(part, name), f"{page.name}: {label} has no field {path}"
                part = getattr(part, name)
            count += 1
    assert count > 10


def list_imports(block: str) -> Iterator[tuple[str, list[str]]]:
    """Return each module that Python code imports, and the names from it."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ".", [alias.name for alias in node.names]


def test_python_compiles_and_its_imports_resolve() -> None:
    """If this fails, an example of the documentation ends with an error."""
    faults = []
    for place, block in PYTHON:
        try:
            for name, names in list_imports(block):
                module = importlib.import_module(name)
                faults += [f"{place}: {name} has no {one}" for one in names if not hasattr(module, one)]
        except (SyntaxError, ImportError, TypeError) as error:
            faults.append(f"{place}: {error!r}")
    assert faults == []


def test_examples_name_patches_of_the_demonstration() -> None:
    """If this fails, an example ends with an error on the only repository
    that every reader has.
    """
    options = cli.commands["demo"].make_context("demo", ["demo"]).params
    survey = make_options(
        **{name: options[name] for name in options.keys() - {"outdir", "jobs", "overwrite"}}
    )
    height, width = (cells * survey.patch_cells for cells in survey.num_patches)
    side = survey.cell_size
    # Patches touch, and have a cell of border.
    rows, columns = (height + 2) * side, (width + 2) * side
    found = 0
    for page in PAGES:
        for block in list_blocks(page, "python"):
            for number in re.findall(r"""\bpatch"? ?[=:] ?(\d+)""", block):
                assert int(number) < math.prod(survey.num_patches), page.name
                found += 1
            for y, x in re.findall(r"Box.factory\[\d+:(\d+), \d+:(\d+)\]", block):
                assert int(y) <= rows, page.name
                assert int(x) <= columns, page.name
                found += 1
    assert found > 5


def test_relative_links_lead_somewhere() -> None:
    """If this fails, a link of a Markdown file is dead."""
    links = [
        (page, target)
        for page in PAGES
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text())
        if "://" not in target
    ]
    assert links
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []
