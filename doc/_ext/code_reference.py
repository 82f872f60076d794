# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""References that are made from the code when the documentation is built.

``.. task-configurations:: MODULE`` documents the configuration of every
pipeline task in a module, ``.. command-line:: MODULE:NAME`` a click command.
"""

from __future__ import annotations

__all__ = ("command_rst", "configuration_rst", "list_fields", "list_tasks", "setup")

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, ClassVar

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from lsst.pex.config import (
    ChoiceField,
    ConfigChoiceField,
    ConfigDictField,
    ConfigField,
    ConfigurableField,
    DictField,
    Field,
    ListField,
    RangeField,
)
from lsst.pipe.base import PipelineTask


def list_tasks(module: Any) -> list[type[PipelineTask]]:
    """Return the pipeline tasks that a module offers.

    Parameters
    ----------
    module
        The module.

    Returns
    -------
    tasks : `list` [`type`]
        Task classes by their name in pipelines; a base class has none.
    """
    found = {
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, PipelineTask) and hasattr(member, "_DefaultName")
    }
    return sorted(found, key=lambda task: str(task._DefaultName))


def list_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Field, Any]]:
    """Walk through a configuration and all that it holds.

    Parameters
    ----------
    config
        Configuration with its default values.
    prefix
        What comes before the names of its fields.

    Yields
    ------
    path : `str`
        Name of the field from the outermost configuration on.
    field : `lsst.pex.config.Field`
        The field.
    value : `object`
        Its default.
    """
    for name, field in config._fields.items():
        path, value = f"{prefix}{name}", getattr(config, name)
        yield path, field, value
        if isinstance(field, ConfigField):
            yield from list_fields(value, f"{path}.")
        elif isinstance(field, ConfigurableField):
            yield from list_fields(value.value, f"{path}.")
        elif isinstance(field, ConfigChoiceField):
            for key in value.types:
                yield from list_fields(value[key], f"{path}[{key!r}].")
        elif isinstance(field, ConfigDictField):
            yield from list_fields(field.itemtype(), f"{path}[KEY].")


def configuration_rst(task: type[PipelineTask]) -> str:
    """Document the configuration of a task.

    Parameters
    ----------
    task
        Class of the task.

    Returns
    -------
    text : `str`
        reStructuredText, without a heading.
    """
    room = task.__module__.rpartition(".")[0]
    groups: dict[str, list[str]] = {"": [f"Fields of `~{room}.{task.ConfigClass.__name__}`."]}
    for path, field, value in list_fields(task.ConfigClass()):
        # Fields of one configuration stay together, whatever comes between.
        groups.setdefault(path.rpartition(".")[0], []).append(
            _field_rst(f"{task._DefaultName}:{path}", field, value)
        )
    blocks = []
    for prefix, fields in groups.items():
        if prefix:
            blocks.append(f"{prefix}\n{'-' * len(prefix)}")
        blocks += fields
    return "\n\n".join(blocks) + "\n"


def _field_rst(name: str, field: Field, value: Any) -> str:
    """Document one field."""
    lines = [f".. confval:: {name}", "   :no-contents-entry:", f"   :type: {_escape(_type_words(field))}"]
    default = _default_words(field, value)
    if default:
        lines.append(f"   :default: {default}")
    lines.append("")
    words = " ".join(str(field.doc).split())
    lines.append(textwrap.indent(_escape(words), "   "))
    limits = _limits_rst(field)
    if limits:
        lines += ["", textwrap.indent(limits, "   ")]
    return "\n".join(lines)


def _type_words(field: Field) -> str:
    """Say what may be assigned to a field."""
    if isinstance(field, ConfigurableField):
        return f"subtask, {field.target.__name__} by default"
    if isinstance(field, ConfigDictField):
        return f"dict of {field.keytype.__name__} to {field.itemtype.__name__}"
    if isinstance(field, ConfigChoiceField):
        return "one of several configurations"
    if isinstance(field, ConfigField):
        return "configuration"
    if isinstance(field, DictField):
        item = field.itemtype.__name__ if field.itemtype is not None else "anything"
        return f"dict of {field.keytype.__name__} to {item}"
    if isinstance(field, ListField):
        return f"list of {field.dtype.__name__}"
    return field.dtype.__name__ + (" or None" if field.optional else "")


def _default_words(field: Field, value: Any) -> str:
    """Return the default of a field as it would be written in code."""
    if isinstance(field, ConfigField | ConfigurableField | ConfigDictField):
        return ""
    if isinstance(field, ConfigChoiceField):
        value = value.names if field.multi else value.name
    elif isinstance(field, DictField):
        value = dict(value)
    elif isinstance(field, ListField):
        value = list(value)
    return f"``{value!r}``"


def _limits_rst(field: Field) -> str:
    """Say which values of a field are allowed, beyond their type."""
    if isinstance(field, ChoiceField):
        choices = {key: doc for key, doc in field.allowed.items() if key is not None}
        return "\n".join(f"- ``{key!r}``: {_escape(str(doc))}" for key, doc in choices.items())
    if isinstance(field, ConfigChoiceField):
        return "One of " + ", ".join(f"``{key!r}``" for key in field.typemap) + "."
    if isinstance(field, RangeField):
        # Whether a limit itself is allowed is kept as a comparison only.
        words = []
        if field.min is not None:
            word = "at least" if field.minCheck(field.min, field.min) else "greater than"
            words.append(f"{word} {field.min}")
        if field.max is not None:
            word = "at most" if field.maxCheck(field.max, field.max) else "less than"
            words.append(f"{word} {field.max}")
        return f"Must be {' and '.join(words)}." if words else ""
    return ""


def command_rst(command: click.Command, parent: click.Context | None = None) -> str:
    """Document a command with its subcommands.

    Parameters
    ----------
    command
        The command.
    parent
        Context of the command that it is a subcommand of.

    Returns
    -------
    text : `str`
        reStructuredText with a section for each subcommand.
    """
    context = click.Context(
        command, parent, info_name=command.name, terminal_width=90, **command.context_settings
    )
    usage = command.get_usage(context).removeprefix("Usage: ")
    blocks = [
        f".. program:: {context.command_path}",
        _escape(inspect.cleandoc(command.help or "")),
        f".. code-block:: text\n\n{textwrap.indent(textwrap.dedent(usage), '   ')}",
    ]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        # Arguments are explained in the text.
        if isinstance(parameter, click.Option) and record is not None:
            blocks.append(f".. option:: {record[0]}\n\n   {_escape(record[1])}")
    if command.epilog:
        blocks.append(_escape(command.epilog))
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            blocks += [f"{name}\n{'=' * len(name)}", command_rst(child, context)]
    return "\n\n".join(blocks) + "\n"


def _escape(text: str) -> str:
    """Return plain text as reStructuredText that shows just that."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


class TaskConfigurations(SphinxDirective):
    """The configurations of the pipeline tasks of a module."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        tasks = list_tasks(importlib.import_module(self.arguments[0]))
        blocks = []
        for task in tasks:
            title = str(task._DefaultName)
            blocks.append(f"{title}\n{'=' * len(title)}\n\n{configuration_rst(task)}")
        return self.parse_text_to_nodes("\n".join(blocks), allow_section_headings=True)


class CommandLine(SphinxDirective):
    """The arguments and options of a command."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(":")
        command = getattr(importlib.import_module(module), name)
        return self.parse_text_to_nodes(command_rst(command), allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("task-configurations", TaskConfigurations)
    app.add_directive("command-line", CommandLine)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
