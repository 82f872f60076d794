# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What all figures share: fonts, the stretch, the scale bar."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import AsinhNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

_STYLE: Any = {
    "font.family": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "figure.titlesize": 14,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.7,
    "axes.formatter.limits": (-4, 5),
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.5,
}
"""Settings of matplotlib under which the figures are made."""

_COLORS = ("#c1440e", "#1f5fa8", "#3b8a4a", "#7a4fa3", "#8a6d1c")
"""Line colours, told apart by colour-blind eyes too."""

_OUTLINE = withStroke(linewidth=1.8, foreground="black")
"""Dark rim that keeps light text readable on an image."""

_BARS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
"""Lengths of scale bars in arcsec."""

_DRAWN_SIZE = 600
"""Pixels on the shorter side of an image that are drawn at least: panels have
fewer."""


class _StyledFigure(Figure):
    """Figure that has the style of the package whenever it is drawn."""

    def draw(self, renderer: RendererBase) -> None:
        with matplotlib.rc_context(_STYLE):
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        with matplotlib.rc_context(_STYLE):
            super().savefig(fname, **kwargs)


def _new_figure(width: float, height: float, gap: float | None = None) -> Figure:
    """Return an empty figure on an Agg canvas, laid out if a gap is given."""
    layout = None
    if gap is not None:
        layout = ConstrainedLayoutEngine(w_pad=gap, h_pad=gap, wspace=0.0, hspace=0.0)
    figure = _StyledFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _plain(text: str) -> str:
    """Return a text whose dollars are drawn as they are: names in a
    repository are no mathematics, and bad mathematics is an error.
    """
    return text.replace("$", r"\$")


def _thin(image: NDArray[Any]) -> NDArray[Any]:
    """Return every k-th pixel of an image that is larger than needed."""
    step = max(1, min(image.shape) // _DRAWN_SIZE)
    return image[step // 2 :: step, step // 2 :: step]


def _color_map(name: str, bad: str) -> Colormap:
    """Return a colour map with a colour for missing pixels."""
    return matplotlib.colormaps[name].with_extremes(bad=bad)


def _sky_sigma(image: NDArray[Any]) -> float:
    """Return the robust scatter of the darker half of an image."""
    thin = _thin(image)
    values = np.asarray(thin, dtype=float)[np.isfinite(thin)]
    if values.size == 0:
        return 1.0
    median = np.median(values)
    # Sigma of a Gaussian over its median absolute deviation.
    sigma = 1.4826 * float(np.median(median - values[values <= median]))
    return sigma if sigma > 0 else 1.0


def _asinh_norm(images: list[NDArray[Any]], sigma: float) -> AsinhNorm:
    """Return one asinh stretch for several images."""
    thinned = [_thin(image) for image in images]
    tops = [np.percentile(i[np.isfinite(i)], 99.8) for i in thinned if np.isfinite(i).any()]
    top = max([float(t) for t in tops] + [20.0 * sigma])
    return AsinhNorm(linear_width=2.5 * sigma, vmin=-1.5 * sigma, vmax=top)


def _show_image(axes: Axes, image: NDArray[Any], norm: Normalize, cmap: Colormap) -> AxesImage:
    """Draw an image with the first row at the bottom and no ticks."""
    height, width = image.shape[:2]
    drawn = axes.imshow(
        np.ma.masked_invalid(_thin(image)),
        origin="lower",
        norm=norm,
        cmap=cmap,
        interpolation="nearest",
        extent=(-0.5, width - 0.5, -0.5, height - 0.5),
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def _add_color_bar(drawn: AxesImage, axes: Axes, label: str) -> None:
    """Add a slim colour bar along the right side of axes."""
    beside = axes.inset_axes((1.025, 0.0, 0.045, 1.0))
    bar = axes.get_figure(root=True).colorbar(drawn, cax=beside, label=label)  # type: ignore[union-attr]
    if isinstance(drawn.norm, AsinhNorm):
        ticks = _asinh_ticks(drawn.norm)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()


def _asinh_ticks(norm: AsinhNorm) -> list[float]:
    """Choose round ticks that do not crowd."""
    top = float(norm.vmax or 1.0)
    decade = 10.0 ** np.floor(np.log10(top))
    candidates = [m * decade * 10.0**-k for k in range(6) for m in (5.0, 2.0, 1.0)]
    ticks = [0.0]
    for value in sorted(candidates):
        if value <= top and float(norm(value)) - float(norm(ticks[-1])) > 1.0 / 12.0:
            ticks.append(float(value))
    return ticks


def _add_scale_bar(axes: Axes, shape: tuple[int, int], pixel_scale: float, color: str = "white") -> None:
    """Draw a bar of a round length in arcsec into the lower left corner."""
    height, width = shape
    fitting = [bar for bar in _BARS if bar <= 0.3 * width * pixel_scale]
    arcsec = fitting[-1] if fitting else _BARS[0]
    length = arcsec / pixel_scale
    x, y = 0.07 * width - 0.5, 0.07 * height - 0.5
    axes.add_patch(Rectangle((x, y), length, 0.01 * width, color=color, lw=0))
    axes.annotate(
        f"{arcsec:g}\N{DOUBLE PRIME}",
        (x + length / 2, y + 0.01 * width),
        xytext=(0, 2),
        textcoords="offset points",
        color=color,
        ha="center",
        va="bottom",
        path_effects=[_OUTLINE],
    )
