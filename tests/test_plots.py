# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures: the right data at the right place, and nothing on top of it."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import is_math_text
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from lsst.astroclearnet.plots import (
    GrowthCurve,
    Zoom,
    color_comparison_figure,
    color_figure,
    color_magnitude_figure,
    comparison_figure,
    demand_figure,
    restoration_figure,
    training_figure,
)
from lsst.astroclearnet.plots._verdict_map import _PatchBox, _verdict_map

SHAPE = (60, 84)


def gaussian(fwhm: float, size: int = 25) -> NDArray[np.float64]:
    """Return a circular Gaussian of unit sum."""
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = np.exp(-4.0 * np.log(2.0) * (x**2 + y**2) / fwhm**2)
    return np.asarray(stamp / stamp.sum())


def make_demanded(shape: tuple[int, int]) -> dict[str, Any]:
    """Return a source that is demanded, and pixels of one that is not."""
    share, sigma = np.full(shape, np.nan), np.full(shape, np.nan)
    share[10:15, 10:15], sigma[10:15, 10:15] = 0.9, 0.1
    share[20:22, 20:22] = 0.0
    withheld = np.zeros(shape, dtype=bool)
    withheld[30, 10:13] = True
    return {"share": share, "sigma": sigma, "supplied": share < 0.5, "withheld": withheld}


def scene() -> dict[str, Any]:
    """Return the arguments of `restoration_figure` for a small patch."""
    rng = np.random.default_rng(6)
    coadd = rng.normal(size=SHAPE)
    coadd[40, 20] = 500.0
    coadd[3:6, 70:75] = np.nan
    residual = np.full(SHAPE, 1.5)
    residual[0, 0] = np.nan
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, :21] = True
    radius = np.linspace(0.2, 2.0, 9)
    return {
        "images": {"Coadd": coadd, "Restored": 2.0 * coadd, "Linear": 2.0 * coadd + 1.0},
        "variance": np.full(SHAPE, 4.0) + np.linspace(0, 1, SHAPE[1]),
        "mask": mask,
        "residual": residual,
        "demanded": make_demanded(SHAPE),
        "psfs": {"coadd": gaussian(5.0), "restored": gaussian(3.0)},
        "growth": [
            GrowthCurve("coadd", radius, 1.0 - np.exp(-radius), np.full(9, 0.01)),
            GrowthCurve("declared PSF", radius, 1.0 - np.exp(-2.0 * radius)),
        ],
        "history": {"epoch": [0, 10, 20], "loss": [9.0, 2.0, 1.0], "held_out_loss": [9.5, 2.5, 1.2]},
        "exposures": {
            "psf_fwhm": [0.6, 0.7, 0.8, np.nan],
            "chi_square": [1.0, 1.1, 1.6, 1.0],
            "weight_share": [0.6, 0.3, 0.1, np.nan],
        },
        "title": "Tract 1, patch 2, band i",
        "pixel_scale": 0.2,
    }


def panel(figure: Figure, title: str) -> Axes:
    """Return the axes whose title starts with a text."""
    return next(axes for axes in figure.axes if axes.get_title().startswith(title))


def assert_panels_apart(figure: Figure) -> None:
    """Check that no panel, with all its labels, covers another."""
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    inside = figure.bbox.padded(1.0)
    for index, box in enumerate(boxes):
        assert box is not None
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1
        for other in boxes[:index]:
            assert other is not None
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 1.0 or height <= 1.0


def test_restoration_figure() -> None:
    """If it fails, the plot dataset shows the wrong thing or overlaps."""
    arguments = scene()
    settings = dict(matplotlib.rcParams)
    figure = restoration_figure(**arguments)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    assert dict(matplotlib.rcParams) == settings
    left, right = panel(figure, "Coadd").images[0], panel(figure, "Restored").images[0]
    assert left.norm is right.norm
    assert left.origin == "lower"
    data = left.get_array()
    assert data is not None
    assert data[40, 20] == 500.0
    drawn = panel(figure, "Linear").images[0]
    assert drawn.norm is left.norm
    (curve, model) = panel(figure, "Curve of growth").get_lines()[1:3]
    np.testing.assert_allclose(np.asarray(curve.get_ydata()), arguments["growth"][0].light)
    np.testing.assert_allclose(np.asarray(model.get_ydata()), arguments["growth"][1].light)
    assert panel(figure, "Exposures").get_title().endswith(r"rms 1.50 $\sigma$")
    assert panel(figure, "Uncertainty").get_xlabel() == "flagged pixels: 25 %"
    demanded = panel(figure, "Demanded")
    assert demanded.get_xlabel() == "supplied: 4, withheld: 3 pixels"
    overlay = np.asarray(demanded.images[1].get_array())
    np.testing.assert_array_equal(overlay[..., 3] > 0, arguments["demanded"]["withheld"])
    (marks,) = panel(figure, "Light that stands out").collections
    np.testing.assert_allclose(np.asarray(marks.get_offsets()), np.tile([10.0, 0.9], (25, 1)))
    assert_panels_apart(figure)


@pytest.mark.parametrize("shape", [(40, 120), (60, 60), (120, 40)])
def test_panels_of_any_shape(shape: tuple[int, int]) -> None:
    """If it fails, labels of patches that are not square cover each other."""
    arguments = scene()
    for name in ("variance", "residual", "mask"):
        arguments[name] = np.ones(shape)
    arguments["demanded"] = make_demanded(shape)
    arguments["images"] = {name: np.eye(*shape) for name in arguments["images"]}
    assert_panels_apart(restoration_figure(**arguments))


def test_large_images_are_thinned() -> None:
    """If it fails, figures of patches take a minute or show other places."""
    image = np.add.outer(10000.0 * np.arange(1900), np.arange(2500.0))
    figure = comparison_figure([("One", image)], zooms=[Zoom(400.0, 100.0, 20, "cut")], pixel_scale=0.2)
    whole, cut = (axes.images[0] for axes in figure.axes if axes.images)
    drawn = np.asarray(whole.get_array())
    assert drawn.shape == (633, 833)
    left, right, bottom, top = whole.get_extent()
    assert (left, right, bottom, top) == (-0.5, 2499.5, -0.5, 1899.5)
    # Each of the pixels has the value at its centre, but for the remainder.
    x = left + (np.arange(833) + 0.5) * (right - left) / 833
    y = bottom + (np.arange(633) + 0.5) * (top - bottom) / 633
    np.testing.assert_allclose(drawn[300] % 10000.0, x, atol=1.0)
    np.testing.assert_allclose(drawn[:, 0] // 10000.0, y, atol=1.0)
    assert np.asarray(cut.get_array()).shape == (20, 20)


def test_style_is_that_of_the_package() -> None:
    """If it fails, a figure looks different where it is saved."""
    pictures = []
    figure = restoration_figure(**scene())
    for family in ("sans-serif", "monospace"):
        with matplotlib.rc_context({"font.family": [family], "xtick.direction": "out", "lines.linewidth": 9}):
            pictures.append(io.BytesIO())
            figure.savefig(pictures[-1], metadata={"Software": None})
    assert pictures[0].getvalue() == pictures[1].getvalue()
    figure.canvas.draw()
    labels = panel(figure, "Convergence").get_xticklabels()
    assert {label.get_fontfamily()[0] for label in labels} == {"STIXGeneral"}


def test_exposures_stand_in_for_a_fit() -> None:
    """If it fails, the figure has an empty panel where nothing was fitted."""
    arguments = scene()
    assert panel(restoration_figure(**arguments), "Convergence").get_lines()
    arguments["history"] = {"epoch": [], "loss": []}
    figure = restoration_figure(**arguments)
    (marks,) = (c for c in panel(figure, "Agreement").collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(np.asarray(marks.get_offsets()), [(0.6, 1.0), (0.7, 1.1), (0.8, 1.6)])
    areas = marks.get_sizes()
    np.testing.assert_allclose(areas / areas[0], [1.0, 0.5, 1.0 / 6.0])
    assert_panels_apart(figure)


def test_psf_widths_in_legend() -> None:
    """If it fails, the figure quotes another seeing than it draws."""
    legend = panel(restoration_figure(**scene()), "Point-spread").get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["coadd: 1.00\N{DOUBLE PRIME} FWHM", "restored: 0.60\N{DOUBLE PRIME} FWHM"]


def test_restoration_figure_of_nothing() -> None:
    """If it fails, an empty patch ends in an error instead of a plot."""
    arguments = scene()
    for name in ("variance", "residual"):
        arguments[name] = np.full(SHAPE, np.nan)
    arguments["images"] = {name: np.full(SHAPE, np.nan) for name in ("Coadd", "Restored", "Linear")}
    arguments["demanded"] |= {name: np.full(SHAPE, np.nan) for name in ("share", "sigma")}
    arguments["growth"] = []
    arguments["history"] = {"epoch": [], "loss": []}
    arguments["psfs"] = {}
    arguments["exposures"] = {"psf_fwhm": [], "chi_square": [], "weight_share": []}
    figure = restoration_figure(**arguments)
    assert panel(figure, "Agreement").texts[0].get_text() == "no exposure with pixels"
    assert panel(figure, "Curve of growth").texts[0].get_text() == "no bright isolated star"
    assert panel(figure, "Light that stands out").texts[0].get_text() == "no light stands out"


def test_scale_bar_length() -> None:
    """If it fails, sizes read off the figure are wrong."""
    figure = comparison_figure([("One", np.zeros(SHAPE))], pixel_scale=0.2)
    axes = panel(figure, "One")
    (bar,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    # A third of 84 pixels of 0.2 arcsec is 5.04 arcsec: the bar is 5.
    assert axes.texts[0].get_text() == "5\N{DOUBLE PRIME}"
    assert bar.get_width() == pytest.approx(25.0)


def test_comparison_figure() -> None:
    """If it fails, zooms show another place than their frames."""
    image = np.add.outer(1000.0 * np.arange(SHAPE[0]), np.arange(SHAPE[1], dtype=float))
    zooms = [Zoom(50.0, 20.0, 16, "pair"), Zoom(83.0, 2.0, 20, "corner")]
    figure = comparison_figure(
        [("Coadd", image), ("Restored", image + 1.0)], zooms=zooms, pixel_scale=0.2, title="Patch"
    )
    rows = [axes for axes in figure.axes if axes.images]
    assert len(rows) == 6
    cut = rows[2].images[0].get_array()
    assert cut is not None
    np.testing.assert_array_equal(cut, image[12:28, 42:58])
    frame = rows[1].patches[0]
    assert isinstance(frame, Rectangle)
    assert (frame.get_x(), frame.get_y(), frame.get_width()) == (41.5, 11.5, 16)
    assert zooms[1].corner(SHAPE) == (64, 0)
    assert rows[4].get_ylabel().endswith("corner")
    assert rows[2].images[0].norm is rows[3].images[0].norm
    assert_panels_apart(figure)


def test_colour_pictures_are_shown_as_they_are() -> None:
    """If it fails, colours are false, or zooms show another place."""
    picture = np.zeros((*SHAPE, 3), dtype=np.uint8)
    picture[12:28, 42:58] = (200, 100, 50)
    zooms = [Zoom(50.0, 20.0, 16, "pair")]
    figure = comparison_figure([("Coadd", picture), ("Truth", picture)], zooms=zooms, pixel_scale=0.2)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(shown) == 4
    np.testing.assert_array_equal(shown[1], picture)
    assert (shown[3] == np.array([200, 100, 50])).all()
    assert_panels_apart(figure)


def test_comparison_figure_refuses() -> None:
    """If it fails, images of different patches are compared."""
    with pytest.raises(ValueError, match=r"images of one shape; got \[\(3, 4\), \(4, 3\)\]"):
        comparison_figure([("A", np.zeros((3, 4))), ("B", np.zeros((4, 3)))], pixel_scale=0.2)
    with pytest.raises(ValueError, match=r"images of one shape; got \[\]"):
        comparison_figure([], pixel_scale=0.2)


def test_pyplot_is_not_loaded() -> None:
    """If it fails, making a figure in a batch job needs a display."""
    code = "import sys, lsst.astroclearnet.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_verdict_map() -> None:
    """If it fails, patches are at the wrong place or have the wrong colour."""
    boxes = [
        _PatchBox("3", (100.0, 200.0), (0.0, 80.0), "good", ("0.8",)),
        _PatchBox("4", (200.0, 300.0), (0.0, 80.0), "bad"),
    ]
    figure = _verdict_map(boxes, title="Tract")
    axes = panel(figure, "Tract")
    first, second = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert (first.get_x(), first.get_y(), first.get_width(), first.get_height()) == (99.5, -0.5, 100.0, 80.0)
    assert second.get_x() == 199.5
    assert first.get_facecolor() != second.get_facecolor()
    assert [text.get_text() for text in axes.texts] == ["3\n0.8", "4"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["good: 1", "check: 0", "bad: 1"]
    with pytest.raises(ValueError, match="at least one patch"):
        _verdict_map([], title="")


@pytest.mark.parametrize(("shape", "drawn"), [((30, 40), (30, 40)), ((1500, 2100), (500, 700))])
def test_map_of_demanded_light_loses_no_mark(shape: tuple[int, int], drawn: tuple[int, int]) -> None:
    """If it fails, light that the network made is lost in large patches, or
    lies elsewhere.
    """
    marks = np.zeros(shape, dtype=bool)
    marks[7, 25] = True
    share = np.full(shape, np.nan)
    share[7, 25] = 0.25
    figure = demand_figure(
        np.random.default_rng(1).normal(size=shape), share, marks, ~marks & False, origin=(100, 50), title=""
    )
    left, right = figure.axes[:2]
    for axes in (left, right):
        arrays: list[Any] = [image.get_array() for image in axes.get_images()[1:]]
        supplied, withheld = (np.ma.getmaskarray(array) for array in arrays)
        assert supplied.shape == drawn
        assert (~supplied).sum() == 1
        assert withheld.all()
    values: Any = right.get_images()[0].get_array()
    assert values.compressed() == pytest.approx([0.25])
    # Positions are those of the tract.
    row, column = np.argwhere(~np.ma.getmaskarray(values))[0]
    step = shape[0] // drawn[0]
    west, _, south, _ = right.get_images()[0].get_extent()
    assert west + step * column <= 50 + 25 <= west + step * (column + 1)
    assert south + step * row <= 100 + 7 <= south + step * (row + 1)
    assert "supplied: 1 pixels" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_names_are_no_mathematics() -> None:
    """If it fails, the name of a sky map or a band costs a task or a report,
    or is drawn as another one.
    """
    name = r"a$\frac{$b"
    flux, plane = np.full((2, 3), 5.0), np.zeros((20, 30))
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    box = _PatchBox("1", (0.0, 10.0), (0.0, 10.0), "good")
    for figure, shown in (
        (color_figure(picture, pixel_scale=0.2, title=name, note=name), 2),
        (color_comparison_figure([("Coadd", picture)], pixel_scale=0.2, title=name), 1),
        (color_magnitude_figure(flux, flux, np.ones(3, dtype=bool), bands=(name, "r"), title=name), 3),
        (comparison_figure([("Coadd", plane)], pixel_scale=0.2, title=name), 1),
        (demand_figure(plane, plane, plane > 0, plane > 0, origin=(0, 0), title=name), 1),
        (training_figure(step=[1, 2], loss=[2.0, 1.0], validation_loss=[None, None], title=name), 1),
        (_verdict_map([box], title=name), 1),
    ):
        figure.canvas.draw()
        drawn = [text for text in figure.findobj(Text) if r"\frac" in text.get_text()]
        assert len(drawn) == shown
        for text in drawn:
            assert not is_math_text(text.get_text())
            # As matplotlib draws what is none.
            assert name in text.get_text().replace(r"\$", "$")
