# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sky maps with smaller pixels, and restorations on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lsst.pex.config as pex_config
from lsst.astroclearnet.adapters import box_region, refine_legacy_sky_map, refine_sky_map
from lsst.astroclearnet.adapters.place._refine import corner_distance
from lsst.astroclearnet.cli import main
from lsst.astroclearnet.core import fwhm_to_sigma
from lsst.astroclearnet.repository import create_repository, put_visit_image, register_sky_map
from lsst.astroclearnet.tasks import RestoreCoaddConfig, RestoreCoaddTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import Box, SkyProjection
from lsst.images.cells import CellIJ
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

VIEWS: tuple[dict[str, Any], ...] = (
    {"offset": (3.3, 8.2), "visit": 1},
    {"offset": (-4.1, 12.9), "rotation": 31.0, "visit": 2},
    {"offset": (0.4, -19.6), "rotation": 180.0, "visit": 3},
    {"offset": (6.2, 5.7), "scale": 1.01, "visit": 4},
    {"offset": (2.7, 9.4), "rotation": -57.0, "visit": 5},
    {"offset": (-1.5, 10.1), "rotation": 3.0, "visit": 6},
)
SHAPE = (118, 126)


def corners(projection: SkyProjection[Any], box: Box) -> np.ndarray:
    """Return the corners of a box as unit vectors, (4, 3)."""
    return np.array([(v.x(), v.y(), v.z()) for v in box_region(projection, box).getVertices()])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_tracts_patches_and_cells_stay_where_they_are(factor: int) -> None:
    """If it fails, catalogues of both grids have other patches."""
    coarse = make_patch_geometry()
    fine = refine_sky_map(coarse, factor, "fine")
    assert fine.skymap == "fine"
    for number in (0, 1):
        one, other = coarse.patch(3, number), fine.patch(3, number)
        assert other.pixel_scale == pytest.approx(one.pixel_scale / factor, rel=1e-8)
        cells, finer = one.definition.cells, other.definition.cells
        assert cells.grid_size == finer.grid_size
        for box, smaller in (
            (one.bbox, other.bbox),
            (one.definition.inner_bbox, other.definition.inner_bbox),
            (cells.bbox_of(CellIJ(i=1, j=2)), finer.bbox_of(CellIJ(i=1, j=2))),
            (coarse.tract(3).bbox, fine.tract(3).bbox),
        ):
            here, there = corners(one.projection, box), corners(other.projection, smaller)
            # 1e-12 radians are 0.2 microarcsec.
            np.testing.assert_allclose(there, here, atol=1e-12)


def test_factor_below_two_is_refused() -> None:
    """If it fails, a coarser or the same sky map gets another name."""
    with pytest.raises(ValueError, match="factor=1: pixels become smaller by a factor of 2"):
        refine_sky_map(make_patch_geometry(), 1, "same")


class Builder(pex_config.Config):
    """Options of a tract builder, as of lsst.skymap."""

    patchInnerDimensions = pex_config.ListField[int](doc="pixels", default=[400, 300])
    patchBorder = pex_config.Field[int](doc="pixels", default=10)


class LegacyBuilder:
    """A tract builder, as of lsst.skymap."""

    ConfigClass = Builder


BUILDERS = pex_config.makeRegistry("Tract builders.")
BUILDERS.register("legacy", LegacyBuilder)
BUILDERS.register("other", LegacyBuilder)


class SkyMapConfig(pex_config.Config):
    """Options of a sky map, as of lsst.skymap."""

    pixelScale = pex_config.Field[float](doc="arcsec", default=0.2)
    tractBuilder = BUILDERS.makeField("Builder.", default="legacy")


class Tract:
    """A tract of 0.05 degrees of a sky map, as of lsst.skymap."""

    def __init__(self, config: SkyMapConfig) -> None:
        self.config = config

    def getNumPatches(self) -> tuple[int, int]:
        pixels = 0.05 * 3600.0 / self.config.pixelScale
        width, height = self.config.tractBuilder["legacy"].patchInnerDimensions
        return -int(-pixels // width), -int(-pixels // height)

    def getOuterSkyPolygon(self) -> ConvexPolygon:
        number, inner = self.getNumPatches(), self.config.tractBuilder["legacy"].patchInnerDimensions
        sides = [n * s * self.config.pixelScale / 3600.0 for n, s in zip(number, inner, strict=True)]
        box = [(0.0, 0.0), (sides[0], 0.0), (sides[0], sides[1]), (0.0, sides[1])]
        return ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*corner)) for corner in box])


class SkyMap:
    """A sky map of one tract, as of lsst.skymap."""

    def __init__(self, config: SkyMapConfig) -> None:
        config.freeze()
        self.config, self._tracts = config, [Tract(config)]

    def __iter__(self) -> Any:
        return iter(self._tracts)


def test_sky_map_of_the_full_stack() -> None:
    """If it fails, a finer sky map of the full stack has other patches, or the
    given one is changed.
    """
    coarse = SkyMap(SkyMapConfig())
    fine = refine_legacy_sky_map(coarse, 3)
    assert isinstance(fine, SkyMap)
    assert fine.config.pixelScale == pytest.approx(0.2 / 3.0)
    builder = fine.config.tractBuilder["legacy"]
    assert (list(builder.patchInnerDimensions), builder.patchBorder) == ([1200, 900], 30)
    assert coarse.config.pixelScale == 0.2
    with pytest.raises(ValueError, match="factor=1"):
        refine_legacy_sky_map(coarse, 1)


def test_sky_map_of_the_full_stack_that_would_not_be_the_same() -> None:
    """If it fails, tracts have other numbers of patches."""

    class Moving(SkyMap):
        """One whose tracts follow the pixel scale."""

        def __iter__(self) -> Any:
            config = SkyMapConfig()
            config.tractBuilder["legacy"].patchInnerDimensions = [int(40 / config.pixelScale**2), 300]
            return iter([Tract(config if self.config.pixelScale < 0.2 else self.config)])

    with pytest.raises(ValueError, match="other tracts or patches"):
        refine_legacy_sky_map(Moving(SkyMapConfig()), 2)
    config = SkyMapConfig()
    config.tractBuilder.name = "other"
    with pytest.raises(ValueError, match="tract builder 'other'"):
        refine_legacy_sky_map(SkyMap(config), 2)


def square(start: float, side: float = 0.05) -> ConvexPolygon:
    """Return a square on the equator, in degrees."""
    ends = start + side
    box = [(start, 0.0), (ends, 0.0), (ends, side), (start, side)]
    return ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*corner)) for corner in box])


@pytest.mark.parametrize(("pixels", "moves"), [(1.0, False), (2.0, True)])
def test_sky_map_of_the_full_stack_whose_tracts_move(pixels: float, moves: bool) -> None:
    """If it fails, patches of a number are of other parts of the sky, or
    edges of whole pixels are refused.
    """

    class Shifted(SkyMap):
        """One whose tracts move along the equator where pixels are small."""

        def __iter__(self) -> Any:
            tract = Tract(self.config)
            fine = self.config.pixelScale < 0.2
            polygon = square(pixels * 0.2 / 3600.0 if fine else 0.0)
            tract.getOuterSkyPolygon = lambda: polygon  # type: ignore[method-assign]
            return iter([tract])

    if moves:
        with pytest.raises(ValueError, match="move tracts by more than a pixel"):
            refine_legacy_sky_map(Shifted(SkyMapConfig()), 2)
    else:
        assert refine_legacy_sky_map(Shifted(SkyMapConfig()), 2).config.pixelScale == pytest.approx(0.1)


def test_corner_distance() -> None:
    """If it fails, tracts that move are not found."""
    assert corner_distance(square(1.0), square(1.0)) == 0.0
    assert corner_distance(square(1.0), square(1.01)) == pytest.approx(np.radians(0.01), rel=1e-4)
    # Squares with a corner in common: the opposite one is farthest off.
    diagonal = np.radians(0.01) * np.sqrt(2.0)
    assert corner_distance(square(1.0, 0.06), square(1.0)) == pytest.approx(diagonal, rel=1e-4)


@pytest.fixture
def repo(tmp_path: Path) -> str:
    """A repository with two exposures."""
    root = str(tmp_path / "repo")
    butler = create_repository(root)
    register_sky_map(butler, make_patch_geometry(), "maps")
    for view in VIEWS[:2]:
        projection = make_projection((220, 320), **view)
        put_visit_image(butler, make_visit_image(np.zeros((220, 320)), projection), "visits")
    return root


def test_command(repo: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a user has no finer grid, one that was there is changed, or
    nobody says what it costs.
    """
    assert main(["refine-skymap", repo, "--factor", "2"]) == 0
    told = capsys.readouterr().out
    assert "-d \"skymap='test_map_x2'\"" in told
    assert "need --skymap test_map or --skymap test_map_x2" in told
    butler = Butler.from_config(repo, collections=["visits", "maps"])
    content = butler.get("skymap_geometry", skymap="test_map_x2")
    assert content == refine_sky_map(make_patch_geometry(), 2, "test_map_x2").to_dict()
    assert butler.get("skymap_geometry", skymap="test_map") == make_patch_geometry().to_dict()
    # The registry joins both to the same exposures.
    overlaps = []
    for name in ("test_map", "test_map_x2"):
        with butler.query() as query:
            joined = query.join_dataset_search("visit_image", ["visits"]).where(skymap=name)
            found = joined.data_ids(["instrument", "visit", "detector", "skymap", "tract", "patch"])
            overlaps.append({(data_id["patch"], data_id["visit"]) for data_id in found})
    assert overlaps[0] == overlaps[1] != set()
    # The same again changes nothing, another one of the name is refused.
    assert main(["refine-skymap", repo, "--skymap", "test_map", "--factor", "2"]) == 0
    capsys.readouterr()
    for words, message in (
        (["--skymap", "test_map", "--factor", "3", "--name", "test_map_x2"], "with another definition"),
        (["--factor", "2"], "There are several sky maps"),
        (["--skymap", "none", "--factor", "2"], "There is no sky map 'none'"),
    ):
        assert main(["refine-skymap", repo, *words]) == 1
        assert message in capsys.readouterr().err
    costs = []
    for name in ("test_map", "test_map_x2"):
        assert main(["plan", repo, "--input", "visits,maps", "--skymap", name]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "minutes of a core" in line]
        words = line.split()
        costs.append([float(words[words.index(unit) - 1]) for unit in ("minutes", "GiB", "MiB")])
        assert ("320x320 pixels of 0.084" in line) == (name == "test_map_x2")
    time, memory, disk = np.array(costs[1]) / costs[0]
    assert time == pytest.approx(4.0, rel=0.1)
    assert memory > 1.0
    # The correlation of the noise has one stamp for each cell.
    assert disk == pytest.approx(4.0, rel=0.1)


def star_fluxes(field: StarField, factor: int, fwhms: list[float], target: float) -> np.ndarray:
    """Return fluxes of stars, by fits of the target PSF on the linear coadd of
    a grid, over the truth.
    """
    visits = []
    for view, fwhm in zip(VIEWS, fwhms, strict=False):
        projection = make_projection(SHAPE, **view)
        rng = np.random.default_rng(view["visit"])
        image = field.render(projection, SHAPE, fwhm) + rng.normal(0.0, 0.5, SHAPE)
        visits.append(make_visit_image(image, projection, variance=0.25, fwhm=fwhm))
    sky_map = make_patch_geometry(cells=(1, 1), cell_shape=(24, 28))
    geometry = (sky_map if factor == 1 else refine_sky_map(sky_map, factor, "finer")).patch(3, 0)
    config = RestoreCoaddConfig()
    config.geometry_source, config.target_fwhm, config.device = "dict", target, "cpu"
    config.do_plot = False
    config.restoration.noise.num_draws = 1
    config.restoration.noise.num_realizations = 1
    outputs = RestoreCoaddTask(config=config).run(visit_images=visits, geometry=geometry, band="i")
    coadd = outputs.restored_coadd_linear
    sky = field.geometry.projection.pixel_to_sky(x=field.x, y=field.y)
    position = geometry.projection.sky_to_pixel(sky)
    sigma = fwhm_to_sigma(target / geometry.pixel_scale)
    rows, columns = coadd.bbox.y.arange[:, None], coadd.bbox.x.arange
    found = []
    for y, x, flux in zip(position.y, position.x, field.flux, strict=True):
        square = (rows - y) ** 2 + (columns - x) ** 2
        psf = np.exp(-0.5 * square / sigma**2) / (2.0 * np.pi * sigma**2)
        near = square < (3.0 * sigma) ** 2
        found.append((psf * coadd.image.array)[near].sum() / (psf[near] ** 2).sum() / flux)
    return np.array(found)


@pytest.fixture(scope="module")
def field() -> StarField:
    """Four stars of S/N of some 300 on a patch."""
    geometry = make_patch_geometry(cells=(1, 1), cell_shape=(24, 28)).patch(3, 0)
    x, y = np.array([21.3, 60.4, 23.9, 59.1]), np.array([20.6, 22.2, 50.7, 49.4])
    return StarField(geometry=geometry, x=x, y=y, flux=np.full(4, 1500.0))


def test_fluxes_of_well_sampled_stars_are_those_of_the_native_grid(field: StarField) -> None:
    """If it fails, photometry depends on the grid."""
    widths = [3.2, 3.6, 4.0, 3.4]
    native, finer = (star_fluxes(field, factor, widths, 0.55) for factor in (1, 2))
    np.testing.assert_allclose(native, 1.0, atol=0.01)
    np.testing.assert_allclose(finer / native, 1.0, atol=1e-3)


def test_undersampled_exposures_are_restored_on_the_finer_grid(field: StarField) -> None:
    """If it fails, the task aliases what the pixels of dithers have recorded,
    or their PSFs.
    """
    widths = [1.5, 1.7, 1.6, 1.8, 1.55, 1.65]
    native, finer = (star_fluxes(field, factor, widths, 0.28) for factor in (1, 2))
    assert np.abs(native - 1.0).max() > 0.012
    np.testing.assert_allclose(finer, 1.0, atol=0.006)
