# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arguments and options that subcommands of ``astroclearnet`` share."""

from __future__ import annotations

from collections.abc import Callable

import click

TASK = "restoreCoadd"
JOINT_TASK = "restoreCoaddBands"
POSITIVE = click.IntRange(min=1)


def split_words(
    context: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None
) -> tuple[str, ...]:
    """Return values with commas between them, or of an option that is given
    several times, as in options of the Butler.
    """
    texts = (value,) if isinstance(value, str) else value or ()
    words = tuple(word.strip() for text in texts for word in text.split(","))
    if not all(words):
        raise click.BadParameter(f"{','.join(texts)!r} has an empty name.")
    return words


def parse_pair(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Return one or two positive integers, with a comma, as two."""
    words = value.split(",")
    if len(words) > 2 or not all(word.isdecimal() and int(word) for word in words):
        raise click.BadParameter(f"{value!r} is neither a positive integer nor two with a comma.")
    return int(words[0]), int(words[-1])


repo_argument = click.argument("repo")
where_option = click.option(
    "--where", default="", show_default=False, metavar="EXPR", help="Butler query that selects data IDs."
)
skymap_option = click.option("--skymap", metavar="NAME", help="Sky map; required if there are several.")
task_option = click.option("--task", default=TASK, metavar="LABEL", help="Label of the task.")
table_option = click.option("--output", metavar="FILE", help="ECSV file for the table.")
registry_option = click.option(
    "--registry",
    metavar="URL",
    help="Empty database for the registry of a new repository, such as postgresql://USER@HOST/DATABASE; "
    "an SQLite file if not given.",
)


def input_option(
    text: str, *, required: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of the input collections."""
    return click.option(
        "--input",
        "inputs",
        required=required,
        multiple=True,
        callback=split_words,
        metavar="COLLECTION,...",
        help=text,
    )


def survey_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that define a simulated survey."""
    for option in (
        click.option("--stars", default=30.0, metavar="N", help="Mean number of stars in a patch."),
        click.option(
            "--patch-cells",
            type=POSITIVE,
            default=3,
            metavar="N",
            help="Cells of 50 pixels along each side of the inner region of a patch.",
        ),
        click.option(
            "--patches",
            default="2,1",
            callback=parse_pair,
            metavar="X[,Y]",
            help="Patches of the tract along x and y.",
        ),
        click.option("--visits", type=POSITIVE, default=8, metavar="N", help="Visits in each band."),
        click.option(
            "--bands",
            default=["g,r,i"],
            multiple=True,
            callback=split_words,
            metavar="BAND,...",
            help="Bands to observe.",
        ),
        click.option("--seed", default=1, metavar="N", help="Seed of all random numbers."),
    ):
        command = option(command)
    return command
