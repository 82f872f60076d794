# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Memory and time of large patches, beside what was planned."""

from __future__ import annotations

__all__ = ("draw_memory", "measure_memory", "measure_time")

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lsst.astroclearnet.core import RestoreOptions, plan_memory

from ..processes import call_in_process
from ..record import Table, format_value
from .run import measure_run
from .source import SyntheticSource

_FULL = {500: (8, 33), 1000: (8,), 4200: (8, 33)}
"""Numbers of exposures, by the side of the patch in pixels."""

_PLANNED = ((4200, 64), (4200, 115))
"""Sides and numbers of exposures whose memory is planned and not measured."""

_QUICK = {160: (4,)}

_TIMES = ((200, 8), (200, 32), (300, 8), (300, 20), (400, 8), (400, 16), (500, 8))
_QUICK_TIMES = ((128, 4), (160, 4), (160, 6))

_TOLERANCE = 1.2
"""Ratio of measured and planned memory that is good enough."""


def measure_memory(*, quick: bool, device: str) -> list[Table]:
    """Restore tiles of patches of many sizes."""
    rows = []
    for size, numbers in (_QUICK if quick else _FULL).items():
        for exposures in numbers:
            limits = {"max_host_memory": 2.5, "max_tile_size": 128} if quick else {}
            run = call_in_process(
                measure_run,
                size=size,
                exposures=exposures,
                max_tiles=1,
                max_epochs=1,
                device=device,
                **limits,
            )
            ratio = run["host"] / run["planned_host"]
            pixels = run["pixels"] * exposures
            rows.append(
                {
                    "patch": f"{size} x {size}",
                    "exposures": str(exposures),
                    "tiles": f"{run['num_tiles']:.0f}",
                    "side of a tile": f"{run['tile']:.0f}",
                    "host, planned (GiB)": f"{run['planned_host']:.2f}",
                    "host, measured (GiB)": f"{run['host']:.2f}",
                    "measured / planned": f"{ratio:.2f}"
                    + ("" if 1.0 / _TOLERANCE <= ratio <= _TOLERANCE else " **missed**"),
                    "device, planned (GiB)": format_value(run["planned_device"] or np.nan),
                    "device, measured (GiB)": format_value(run["device"] or np.nan),
                    "a tile (s)": f"{run['tiles']:.1f}",
                    "microseconds a pixel and exposure": f"{1e6 * run['tiles'] / pixels:.1f}",
                    "all tiles, extrapolated (h)": f"{run['tiles'] * size**2 / run['pixels'] / 3600.0:.2f}",
                }
            )
    for size, exposures in () if quick else _PLANNED:
        plan = plan_memory(SyntheticSource((size, size), exposures), RestoreOptions(), device=device)
        rows.append(dict.fromkeys(rows[0], "-"))
        rows[-1]["patch"], rows[-1]["exposures"] = f"{size} x {size}", str(exposures)
        rows[-1]["tiles"] = str(len(plan.grid.tiles))
        rows[-1]["side of a tile"] = str(max(max(tile.shape) for tile in plan.grid.tiles))
        rows[-1]["host, planned (GiB)"] = f"{plan.host_memory / 2**30:.2f}"
    legend = (
        "One tile of each patch, the largest, in a process of its own; the planes are those of the whole "
        "patch, the limit is 8 GiB, and the exposures are made when they are read, so that they take no "
        "memory beside those of a tile. Time is that of the tile over the pixels that it owns. Memory is the "
        "largest resident set of the process; the plan should be within 20 % of it."
    )
    return [Table("Memory", legend, rows)]


def measure_time(*, quick: bool, device: str) -> list[Table]:
    """Restore small patches and fit the cost."""
    rows, points = [], []
    for size, exposures in _QUICK_TIMES if quick else _TIMES:
        run = call_in_process(
            measure_run, size=size, exposures=exposures, max_epochs=1 if quick else 60, device=device
        )
        pixels = 1e-6 * size**2
        points.append((pixels * exposures, pixels, 1.0, run["tiles"]))
        rows.append(
            {
                "patch": f"{size} x {size}",
                "exposures": str(exposures),
                "pixels x exposures (1e6)": f"{points[-1][0]:.2f}",
                "calibration and fit (s)": f"{run['fit']:.1f}",
                "tiles (s)": f"{run['tiles']:.1f}",
            }
        )
    *columns, seconds = np.array(points).T
    terms = np.stack(columns, axis=1)
    values, *_ = np.linalg.lstsq(terms, seconds, rcond=None)
    scatter = ((seconds - terms @ values) ** 2).sum() / max(1, len(seconds) - len(values))
    errors = np.sqrt(scatter * np.diag(np.linalg.pinv(terms.T @ terms)))
    legend = (
        "Whole patches in one tile. The fit has two samples, whatever the patch, and the calibration takes "
        "the rest of the column before the last. The time of the tiles is, by least squares, "
        f"{format_value((values[0], errors[0]))} s for each 1e6 pixels x exposures, "
        f"{format_value((values[1], errors[1]))} s for each 1e6 pixels of the patch, whatever the number of "
        f"exposures, and {format_value((values[2], errors[2]))} s."
    )
    return [Table("Time", legend, rows)]


def draw_memory(table: Table) -> Figure:
    """Draw planned and measured memory against the size of the patch."""
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(4.6, 3.2), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        for number in sorted({int(row["exposures"]) for row in table.rows}):
            rows = [row for row in table.rows if int(row["exposures"]) == number]
            rows = [row for row in rows if row["host, measured (GiB)"] != "-"]
            if not rows:
                continue
            size = [int(row["patch"].split()[0]) for row in rows]
            (line,) = axes.plot(
                size, [float(row["host, measured (GiB)"]) for row in rows], "o-", label=f"{number} exposures"
            )
            planned = [float(row["host, planned (GiB)"]) for row in rows]
            axes.plot(size, planned, "x", color=line.get_color())
        axes.set(xlabel="side of the patch (pixels)", ylabel="peak memory (GiB)", ylim=(0, None))
        axes.axhline(8.0, color="grey", lw=0.8, ls="--")
        axes.set_title("measured (dots, lines) and planned (crosses)", fontsize=8)
        axes.legend(frameon=False)
    return figure
