# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arguments of the command ``astroclearnet``."""

from __future__ import annotations

__all__ = ("make_parser",)

import argparse

from . import __version__


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the arguments.

    Returns
    -------
    parser : `argparse.ArgumentParser`
        Its result has the name of the subcommand as ``command``.
    """
    parser = argparse.ArgumentParser(
        prog="astroclearnet",
        description="Simulate, ingest, plan, watch, compare and report what restoreCoadd restores.",
        epilog="Coadds are restored by pipetask; 'ingest' and 'demo' print the command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_simulate(commands)
    _add_ingest(commands)
    _add_plan(commands)
    _add_status(commands)
    _add_compare(commands)
    _add_report(commands)
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, "", []):
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def _add_command(commands: _Commands, name: str, description: str) -> argparse.ArgumentParser:
    """Add a subcommand.

    Parameters
    ----------
    commands
        The subcommands.
    name
        Its name, a key of `lsst.astroclearnet.commands.ACTIONS`.
    description
        What it does.

    Returns
    -------
    parser : `argparse.ArgumentParser`
        Its parser.
    """
    return commands.add_parser(
        name,
        help=description,
        description=description[0].upper() + description[1:] + ".",
        formatter_class=_HelpFormatter,
    )


def _add_survey_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that define a simulated survey.

    Parameters
    ----------
    parser
        Parser of a subcommand.
    """
    survey = parser.add_argument_group("survey")
    survey.add_argument("--seed", type=int, default=1, help="seed of every random number")
    survey.add_argument(
        "--bands", nargs="+", default=["g", "r", "i"], metavar="BAND", help="bands to observe"
    )
    survey.add_argument("--visits", type=_positive, default=5, metavar="N", help="visits in each band")
    survey.add_argument(
        "--patches",
        type=_positive,
        nargs="+",
        default=[2, 1],
        metavar="N",
        help="patches of the tract along x, and along y if that is another number",
    )
    survey.add_argument(
        "--patch-cells",
        type=_positive,
        default=3,
        metavar="N",
        help="cells of 50 pixels along each side of the inner region of a patch",
    )
    survey.add_argument(
        "--stars", type=float, default=30.0, metavar="N", help="mean number of stars in a patch"
    )


def _add_demo(commands: _Commands) -> None:
    """Add the subcommand ``demo``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands,
        "demo",
        "simulate a survey, restore its coadds with pipetask and compare them with the truth",
    )
    parser.add_argument("outdir", metavar="OUTDIR", help="directory to write to; what is there is kept")
    parser.add_argument("--jobs", type=_positive, default=2, metavar="N", help="patches to restore at a time")
    parser.add_argument("--overwrite", action="store_true", help="delete what an earlier demo wrote there")
    _add_survey_options(parser)


def _add_simulate(commands: _Commands) -> None:
    """Add the subcommand ``simulate``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands, "simulate", "simulate a survey into a new Butler repository, with its truth"
    )
    parser.add_argument("repo", metavar="REPO", help="directory of the repository; it must not exist")
    _add_registry_option(parser)
    _add_survey_options(parser)


def _add_ingest(commands: _Commands) -> None:
    """Add the subcommand ``ingest``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands, "ingest", "copy VisitImage files into a Butler repository and define a sky map around them"
    )
    parser.add_argument("repo", metavar="REPO", help="directory of the repository, made if absent")
    parser.add_argument("files", metavar="FILE", nargs="+", help="file of a VisitImage")
    parser.add_argument("--skymap", required=True, metavar="NAME", help="name of the sky map")
    parser.add_argument(
        "--cell-size", type=_positive, default=50, metavar="N", help="side of a cell in pixels"
    )
    parser.add_argument(
        "--pixel-scale",
        type=float,
        metavar="ARCSEC",
        help="size of the pixels; that of the finest image if not given",
    )
    parser.add_argument(
        "--patches", type=_positive, default=1, metavar="N", help="patches along each side of the field"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace images whose file has changed since it was ingested; else they are named",
    )
    _add_registry_option(parser)


def _add_registry_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses the registry of a new repository.

    Parameters
    ----------
    parser
        Parser of a subcommand.
    """
    parser.add_argument(
        "--registry",
        metavar="URL",
        help="empty database for the registry of a new repository, such as postgresql://USER@HOST/DATABASE; "
        "an SQLite file if not given",
    )


def _add_plan(commands: _Commands) -> None:
    """Add the subcommand ``plan``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands, "plan", "propose the target PSF of a campaign from the PSFs and variances of its visits"
    )
    parser.add_argument("repo", metavar="REPO", help="repository")
    parser.add_argument("--input", required=True, metavar="C", help="collections of the visit images")
    parser.add_argument(
        "--dataset-type", default="visit_image", metavar="NAME", help="dataset type of the visit images"
    )
    parser.add_argument(
        "--skymap", metavar="NAME", help="sky map of the patches; the only one there is if not given"
    )
    parser.add_argument("--where", default="", metavar="EXPR", help="query that selects visits and patches")
    parser.add_argument("--bands", nargs="+", default=[], metavar="BAND", help="bands to plan for; else all")
    parser.add_argument(
        "--max-noise",
        type=float,
        default=2.0,
        metavar="X",
        help="blank-sky rms that a target may cost, in sky sigma of the inverse-variance coadd",
    )
    parser.add_argument("--common", action="store_true", help="one target for all bands")
    parser.add_argument(
        "--max-exposures",
        type=_positive,
        default=60,
        metavar="N",
        help="visit images of a band to read at most, evenly spaced among its patches and visits",
    )
    parser.add_argument("--output", metavar="FILE", help="ECSV file to write the table to")


def _add_status(commands: _Commands) -> None:
    """Add the subcommand ``status``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands, "status", "sum up how far a restoration is, why patches failed, and what they took"
    )
    parser.add_argument("repo", metavar="REPO", help="repository")
    parser.add_argument(
        "collection",
        metavar="COLLECTION",
        nargs="?",
        help="collection of the outputs, if they are in one yet",
    )
    parser.add_argument(
        "--input", default="", metavar="C", help="collections of the inputs, where COLLECTION has none"
    )
    parser.add_argument("--where", default="", metavar="EXPR", help="query that was given to pipetask as -d")
    parser.add_argument("--skymap", metavar="NAME", help="sky map; that of the outputs if not given")
    parser.add_argument("--task", default="restoreCoadd", metavar="LABEL", help="label of the task")
    parser.add_argument(
        "--graph",
        metavar="FILE",
        help="quantum graph of jobs under way that the registry does not know yet, as those of bps; instead "
        "of COLLECTION",
    )
    parser.add_argument("--watch", type=_positive, metavar="SECONDS", help="look again until all have ended")
    parser.add_argument(
        "--max-read",
        type=_positive,
        default=100,
        metavar="N",
        help="patches of each band and state whose logs and figures are read at most",
    )
    parser.add_argument("--output", metavar="FILE", help="ECSV file to write a table of all patches to")
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 if a patch failed or is not finished"
    )


def _add_report(commands: _Commands) -> None:
    """Add the subcommand ``report``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands, "report", "write figures, verdicts and pictures of restored coadds as pages for a browser"
    )
    parser.add_argument("repo", metavar="REPO", help="repository")
    parser.add_argument("collection", metavar="COLLECTION", help="collections of the outputs, with commas")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder to write to; a report that is there is replaced",
    )
    parser.add_argument("--where", default="", metavar="EXPR", help="query that restricts the patches")
    parser.add_argument(
        "--dataset-type", default="restored_coadd", metavar="NAME", help="dataset type of the coadds"
    )
    parser.add_argument("--task", default="restoreCoadd", metavar="LABEL", help="label of the task")


def _add_compare(commands: _Commands) -> None:
    """Add the subcommand ``compare``.

    Parameters
    ----------
    commands
        The subcommands.
    """
    parser = _add_command(
        commands, "compare", "measure restored coadds of a simulated survey beside the plain coadds"
    )
    parser.add_argument("repo", metavar="REPO", help="repository")
    parser.add_argument("--collection", required=True, metavar="C", help="collection of the restored coadds")
    parser.add_argument(
        "--truth", default="HSC-Sim/truth", metavar="C", help="collection of the truth catalogue"
    )
    parser.add_argument("--output", metavar="FILE", help="ECSV file to write the table to")


def _positive(text: str) -> int:
    """Read a positive integer.

    Parameters
    ----------
    text
        An argument.

    Returns
    -------
    number : `int`
        The number.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not one.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)
