# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cut-outs on the screen."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.adapters import make_demand_image
from lsst.astroclearnet.plots import show_cutout
from lsst.astroclearnet.tests import make_coadd, make_patch_geometry
from lsst.images import Box, MaskedImage, SkyProjection
from lsst.images.cells import CellCoadd

GEOMETRY = make_patch_geometry().patch(3, 0)
IMAGE = np.random.default_rng(1).normal(size=GEOMETRY.bbox.shape)


def make_demand() -> MaskedImage:
    """Return a map of demanded light with one pixel that was supplied."""
    supplied = np.zeros(GEOMETRY.bbox.shape, dtype=bool)
    supplied[12, 21] = True
    return make_demand_image(
        geometry=GEOMETRY,
        share=np.where(supplied, 0.0, 1.0),
        sigma=np.full(GEOMETRY.bbox.shape, 0.1),
        mask_planes={"SUPPLIED": supplied},
    )


class StandInDisplay:
    """What is used of ``lsst.afw.display.Display``, as of afw 714e0ed6de02."""

    made: list[StandInDisplay] = []  # noqa: RUF012

    def __init__(self, frame: int | None = None, backend: str | None = None, **kwargs: Any) -> None:
        self.frame, self.backend = frame, backend
        self.calls: list[tuple[Any, ...]] = []
        self.is_buffered = False
        self.made.append(self)

    def mtv(self, data: Any, title: str = "", wcs: Any = None, metadata: Any = None) -> None:
        self.calls.append(("mtv", data, title, wcs))

    def scale(self, algorithm: str, min: Any, max: Any = None, unit: Any = None) -> None:
        self.calls.append(("scale", algorithm, min, max))

    def dot(self, symb: str, c: float, r: float, size: float = 2, ctype: str | None = None) -> None:
        assert self.is_buffered
        self.calls.append(("dot", symb, c, r))

    @contextlib.contextmanager
    def Buffering(self) -> Iterator[None]:
        self.is_buffered = True
        yield
        self.is_buffered = False


@pytest.fixture
def firefly(monkeypatch: pytest.MonkeyPatch) -> type[StandInDisplay]:
    """Put a stand-in in the place of the display of afw."""
    module: Any = types.ModuleType("lsst.afw.display")
    module.Display = StandInDisplay
    monkeypatch.setitem(sys.modules, "lsst.afw", types.ModuleType("lsst.afw"))
    monkeypatch.setitem(sys.modules, "lsst.afw.display", module)
    monkeypatch.setattr(StandInDisplay, "made", [])
    exposure = types.SimpleNamespace(getWcs=lambda: None)
    monkeypatch.setattr(MaskedImage, "to_legacy", lambda self: "masked image")
    monkeypatch.setattr(CellCoadd, "to_legacy", lambda self: exposure)
    monkeypatch.setattr(SkyProjection, "to_legacy", lambda self: "wcs")
    return StandInDisplay


def test_firefly_shows_coadd_and_sources(firefly: type[StandInDisplay]) -> None:
    """If it fails, the RSP shows nothing, or sources beside their light."""
    coadd = make_coadd(GEOMETRY, IMAGE)
    shown = show_cutout(coadd, title="Restored", points=([5.5, 7.0], [8.0, 9.0]), frame=2)
    (display,) = firefly.made
    assert shown is display
    assert (display.frame, display.backend) == (2, "firefly")
    first, second, *dots = display.calls
    # An exposure has a WCS of its own, and afw refuses a second one.
    assert (first[0], *first[2:]) == ("mtv", "Restored", None)
    assert second == ("scale", "asinh", "zscale", None)
    assert dots == [("dot", "o", 5.5, 8.0), ("dot", "o", 7.0, 9.0)]


def test_firefly_shows_the_map(firefly: type[StandInDisplay]) -> None:
    show_cutout(make_demand(), title="Demanded", limits=(0.0, 1.0))
    (display,) = firefly.made
    assert display.calls == [("mtv", "masked image", "Demanded", "wcs"), ("scale", "linear", 0.0, 1.0)]


def test_figure_where_firefly_does_not_start(
    firefly: type[StandInDisplay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a stack without a Firefly server shows an error."""

    def refuse(self: StandInDisplay, **kwargs: Any) -> None:
        raise RuntimeError("Unable to connect")

    monkeypatch.setattr(firefly, "__init__", refuse)
    assert show_cutout(make_demand(), title="").axes


def test_figure_is_in_pixels_of_the_tract() -> None:
    """If it fails, marks and sources are beside their light."""
    box = Box.factory[
        GEOMETRY.bbox.y.start + 5 : GEOMETRY.bbox.y.start + 25,
        GEOMETRY.bbox.x.start + 10 : GEOMETRY.bbox.x.start + 50,
    ]
    x, y = GEOMETRY.bbox.x.start + 21, GEOMETRY.bbox.y.start + 12
    points = (np.array([x, x + 1000.0]), np.array([y, y]))
    figure = show_cutout(
        make_demand()[box], title="Cut-out", limits=(0.0, 1.0), planes=["SUPPLIED"], points=points
    )
    axes = figure.axes[0]
    image, mark = axes.get_images()
    assert image.get_extent() == [box.x.start - 0.5, box.x.stop - 0.5, box.y.start - 0.5, box.y.stop - 0.5]
    ((row, column),) = np.argwhere(~np.ma.getmaskarray(mark.get_array()))
    assert (box.x.start + column, box.y.start + row) == (x, y)
    (scatter,) = axes.collections
    # The other is outside.
    assert scatter.get_offsets().tolist() == [[x, y]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SUPPLIED"]


def test_unknown_plane_is_named() -> None:
    with pytest.raises(ValueError, match="no mask plane MISSPELT; known are .*SUPPLIED"):
        show_cutout(make_demand(), title="", planes=["SUPPLIED", "MISSPELT"])
