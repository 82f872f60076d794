# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw how memory grows."""

from __future__ import annotations

__all__ = ("draw_memory",)

import matplotlib as mpl
from matplotlib.figure import Figure

from ._geometry_table import Table


def draw_memory(table: Table) -> Figure:
    """Draw planned and measured memory against the size of the patch.

    Parameters
    ----------
    table
        The table of memory.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        A line for each number of exposures.
    """
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
