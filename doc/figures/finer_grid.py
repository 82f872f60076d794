# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw a star of undersampled exposures on grids of both finenesses.

``python doc/figures/finer_grid.py``, with the benchmarks installed.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from astroclearnet_benchmarks.finer_grids.methods import FinerImage, drizzle, restored
from astroclearnet_benchmarks.finer_grids.scene import Array, Scene

SCENE = Scene(1.2, size=40)
STAR, RADIUS = 0, 4.5
TITLES = ("exposure", "linear coadd, native grid", "linear coadd, 2 times finer", "drizzle, 2 times finer")


def around_star(image: Array, positions: Array, factor: int) -> tuple[Array, tuple[float, ...]]:
    """Return an image in units of its flux per pixel of the exposures, and
    its edges relative to the star in such pixels.
    """
    y, x = positions
    edges = (-0.5 - x, image.shape[1] - 0.5 - x, -0.5 - y, image.shape[0] - 0.5 - y)
    return image * factor**2 / SCENE.flux, tuple(edge / factor for edge in edges)


def main() -> None:
    """Draw the figure beside this file."""
    images: list[FinerImage] = [next(iter(restored(SCENE, factor))) for factor in (1, 2)]
    images.append(drizzle(SCENE, 2, 0.6))
    exposure = around_star(SCENE.images[0], SCENE.stars[STAR] - SCENE.dithers[0] + 1.0, 1)
    shown = [exposure] + [
        around_star(one.image, SCENE.star_positions(one.factor)[STAR], one.factor) for one in images
    ]
    figure = Figure(figsize=(10.0, 2.6), layout="constrained")
    top = float(np.nanmax(shown[-1][0]))
    for axes, (image, extent), title in zip(figure.subplots(1, 4), shown, TITLES, strict=True):
        drawn = axes.imshow(image, origin="lower", cmap="magma", extent=extent, vmin=-0.05 * top, vmax=top)
        axes.set(xlim=(-RADIUS, RADIUS), ylim=(-RADIUS, RADIUS))
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.colorbar(drawn, ax=figure.axes, label="share of the flux per pixel²")
    figure.supxlabel("pixels of the exposures from the star", fontsize=8)
    figure.savefig(Path(__file__).with_name("finer-grid.png"), dpi=100)


if __name__ == "__main__":
    mpl.use("Agg")
    main()
