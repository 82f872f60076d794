# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""References that are made from the code for the documentation."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import click
import pytest

from lsst.astroclearnet import tasks
from lsst.astroclearnet.cli import cli
from lsst.pex.config import (
    ChoiceField,
    Config,
    ConfigChoiceField,
    ConfigDictField,
    ConfigField,
    ConfigurableField,
    DictField,
    Field,
    ListField,
    RangeField,
)
from lsst.pipe.base import (
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    Task,
)

PATH = Path(__file__).parents[1] / "doc" / "_ext" / "code_reference.py"


@pytest.fixture(scope="module")
def reference() -> Any:
    """The extension, which is in no package."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("code_reference", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class _Inner(Config):
    depth = Field[int](doc="How deep it is.", default=3)


class _SubtaskConfig(Config):
    limit = RangeField(dtype=float, doc="Limit of a subtask.", default=1.5, min=0.0, inclusiveMin=False)


class _Subtask(Task):
    ConfigClass = _SubtaskConfig
    _DefaultName = "sub"


class _Connections(PipelineTaskConnections, dimensions=("skymap",)):
    pass


class _SampleConfig(PipelineTaskConfig, pipelineConnections=_Connections):
    added = Field[str](doc="A field that is *new*, with a_name.", default="x_y", optional=True)
    share = RangeField(dtype=float, doc="A share.", default=0.5, min=0.0, max=1.0, inclusiveMax=True)
    way = ChoiceField[str](doc="A way.", allowed={"a": "First way.", "b": "Second way."}, default="a")
    numbers = ListField[int](doc="Numbers.", default=[1, 2])
    labels = DictField[str, str](doc="Labels.", default={"k": "v"})
    inner = ConfigField[_Inner](doc="What is inside.")
    sub: Any = ConfigurableField(doc="A subtask.", target=_Subtask)
    kind: Any = ConfigChoiceField(doc="A kind.", typemap={"one": _Inner}, default="one")
    table: Any = ConfigDictField(doc="A table.", keytype=str, itemtype=_Inner)


class _SampleTask(PipelineTask):
    ConfigClass = _SampleConfig
    _DefaultName = "sample"


def test_every_field_of_a_task_appears(reference: Any) -> None:
    """If this fails, a field that is added to the code is not documented."""
    text = reference.configuration_rst(_SampleTask)
    for path in (
        "added",
        "share",
        "way",
        "numbers",
        "labels",
        "inner",
        "inner.depth",
        "sub",
        "sub.limit",
        "kind",
        "kind['one'].depth",
        "table",
        "table[KEY].depth",
        "connections",
    ):
        assert f".. confval:: sample:{path}\n" in text, path


def test_type_default_and_limits_are_told(reference: Any) -> None:
    text = reference.configuration_rst(_SampleTask)
    blocks = {block.split("\n")[0]: block for block in text.split(".. confval:: sample:")[1:]}
    assert ":type: str or None" in blocks["added"]
    assert ":default: ``'x_y'``" in blocks["added"]
    assert r"A field that is \*new\*, with a\_name." in blocks["added"]
    assert "Must be at least 0.0 and at most 1.0." in blocks["share"]
    assert "- ``'b'``: Second way." in blocks["way"]
    assert ":default: ``[1, 2]``" in blocks["numbers"]
    assert ":type: dict of str to str" in blocks["labels"]
    assert ":type: subtask, _Subtask by default".replace("_", r"\_") in blocks["sub"]
    assert "Must be greater than 0.0." in blocks["sub.limit"]
    assert "One of ``'one'``." in blocks["kind"]


def test_subtask_of_another_class_has_its_own_fields(reference: Any) -> None:
    config = _SampleConfig()
    config.sub.retarget(tasks.SelectExposuresTask)
    paths = [path for path, _, _ in reference.list_fields(config)]
    assert "sub.max_psf_fwhm" in paths
    assert "sub.limit" not in paths


def test_every_task_of_the_package_is_documented(reference: Any) -> None:
    found = reference.list_tasks(tasks)
    assert tasks.RestoreCoaddTask in found
    names = [task._DefaultName for task in found]
    assert names == sorted(names)
    text = reference.configuration_rst(tasks.RestoreCoaddTask)
    for path in ("target_fwhm", "restoration.fit.patience", "selection.max_visits", "preparation.border"):
        assert f".. confval:: restoreCoadd:{path}\n" in text
    # What a module gathers counts, not what it imports for itself.
    assert reference.list_tasks(types.SimpleNamespace(one=_SampleTask, base=PipelineTask)) == [_SampleTask]


def test_every_subcommand_and_option_appears(reference: Any) -> None:
    """If this fails, a subcommand or option is not documented."""
    text = reference.command_rst(cli)
    for name, command in cli.commands.items():
        assert f"\n{name}\n{'=' * len(name)}\n" in text
        assert f"\n   astroclearnet {name} [OPTIONS]" in text
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f".. option:: {parameter.opts[0]}" in text


def test_option_has_its_help_and_default(reference: Any) -> None:
    @click.command("program", context_settings={"show_default": True})
    @click.argument("files", metavar="FILE...", nargs=-1)
    @click.option("-n", "--number", default=2, metavar="N", help="A number_of things.")
    @click.option("--name", required=True, type=click.Choice(["a", "b"]), help="A name.")
    @click.option("--quiet", is_flag=True, help="Say nothing.")
    def command() -> None:
        """Read each FILE, 100 %."""

    text = reference.command_rst(command)
    assert "Read each FILE, 100 %." in text
    assert "   program [OPTIONS] FILE..." in text
    assert ".. option:: -n, --number N\n\n   A number\\_of things.  [default: 2]" in text
    assert ".. option:: --name [a|b]\n\n   A name.  [required]" in text
    assert ".. option:: --quiet\n\n   Say nothing." in text
