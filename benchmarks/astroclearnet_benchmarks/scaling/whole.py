# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""One patch of a survey from pixels to its verdict, part by part."""

from __future__ import annotations

__all__ = ("measure_whole",)

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsst.astroclearnet.simulation import PIXEL_SCALE

from ..processes import call_in_process
from ..record import Table
from .survey import SurveyPatch, simulate_survey
from .whole_judgement import judge_patch
from .whole_restoration import restore_patch

_TARGET = 0.53 / PIXEL_SCALE
"""FWHM in pixels of the target PSF, that of the demonstration."""


def measure_whole(*, quick: bool, folder: Path, size: int, visits: int, max_memory: float) -> list[Table]:
    """Simulate, restore and judge a patch, each in a process of its own.

    What a part found is kept in the folder, and the part is not repeated.

    Parameters
    ----------
    quick
        Whether to take a tiny patch, to see that all works.
    folder
        Where the folder of the patch is made, or was: with its repository, the
        truth and what the parts found.
    size
        Side of the patch with its border in pixels.
    visits
        Number of visits.
    max_memory
        Limit on the memory of the restoration in GiB.
    """
    if quick:
        size, visits = 200, 4
    folder = folder / f"whole_{size}_{visits}"
    folder.mkdir(parents=True, exist_ok=True)
    patch = SurveyPatch(folder, size, visits)
    simulated = _keep(folder / "simulated.json", simulate_survey, patch, _TARGET)
    restored = _keep(folder / f"restored_{max_memory:g}.json", restore_patch, patch, _TARGET, max_memory)
    judged = _keep(folder / f"judged_{max_memory:g}.json", judge_patch, patch, _TARGET, restored["tiles"])
    ratio = restored["peak"] / restored["planned"]
    cost = {
        "patch": f"{patch.size} x {patch.size}",
        "visits": str(patch.visits),
        "threads": str(restored["threads"]),
        "detector images": f"{simulated['images']:.0f}",
        "of them on a pixel": f"{simulated['covered']:.1f}",
        "limit (GiB)": f"{max_memory:g}",
        "planned (GiB)": f"{restored['planned']:.2f}",
        "peak (GiB)": f"{restored['peak']:.2f}",
        "peak / planned": f"{ratio:.2f}",
        "CPU of the restoration (min)": f"{restored['restore_cpu'] / 60.0:.1f}",
        "CPU of all tasks (min)": f"{restored['cpu'] / 60.0:.1f}",
        "wall (min)": f"{restored['wall'] / 60.0:.1f}",
        "microseconds a pixel and image": (
            f"{1e6 * restored['restore_cpu'] / (patch.geometry.bbox.area * simulated['covered']):.1f}"
        ),
        "inputs on disk (GiB)": f"{simulated['disk']:.2f}",
        "outputs on disk (GiB)": f"{restored['output']:.2f}",
    }
    setting = (
        f"A patch of {patch.size}x{patch.size} pixels under {patch.visits} visits of Hyper Suprime-Cam in "
        "one band, dithered by up to 10 arcmin and rotated by any angle: detectors of 2048x4176 pixels with "
        "gaps of 12 and 53 arcsec, as many of them as touch the patch; sizes are in proportion where the "
        "patch is not 4200 pixels wide.  Stars and galaxies have the density of the demonstration, PSFs are "
        "fitted by Piff, and `pipetask` restores the patch from a Butler repository in a process of its "
        "own.  Memory is the largest resident set of the process at the end of the restoration; time is "
        "that of the restoration with its reading, and of all tasks of the pipeline with the quantum "
        f"graph.  The plan: {restored['plan']}."
    )
    seams = (
        "Against the truth at the target PSF, by the distance from the border between tiles, in units of the "
        "median sigma of the linear image. Errors at seams must not be above those inside."
    )
    stars = (
        "PSF fits at the true positions of single, unsaturated stars, with the truth of all else subtracted, "
        "in bins of the signal-to-noise ratio in the linear coadd for white noise; the scatter in flux also "
        "over that of the same fits to a noise realisation."
    )
    facts = [{"": name, "value": value} for name, value in judged["facts"].items()]
    return [
        Table("A whole patch", setting, [cost]),
        Table("What the tasks say of it", "From its metrics and its quality.", facts),
        Table("Its seams", seams, judged["seams"]),
        Table("Its stars", stars, judged["stars"]),
    ]


def _keep(file: Path, function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function in a process of its own, unless it was called before."""
    if not file.exists():
        found = call_in_process(function, *arguments)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(file)
    return dict(json.loads(file.read_text()))
