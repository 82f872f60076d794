# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Records, geometry and visit images written into Butler repositories."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astro_metadata_translator import ObservationInfo
from astropy.coordinates import SkyCoord
from astropy.time import Time
from astropy.wcs import WCS

from lsst.astroclearnet.adapters import SkyMapGeometry, TractGeometry
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    ingest_visit_image,
    put_visit_image,
    read_visit_image,
    register_sky_map,
    sky_map_around,
)
from lsst.astroclearnet.repository._records import _register_visit_detector
from lsst.astroclearnet.simulation import DetectorLayout, make_detector
from lsst.daf.butler import Butler
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.images import (
    YX,
    Box,
    DetectorFrame,
    Image,
    MaskSchema,
    SkyProjection,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.images.serialization import write_archive
from lsst.sphgeom import LonLat, UnitVector3d

SCALE = 0.2


@pytest.fixture
def butler(tmp_path: Path) -> Butler:
    return create_repository(tmp_path / "repo")


def make_visit_image(
    *,
    visit: int | None = 17,
    detector: int = 3,
    center: tuple[float, float] = (10.0, -30.0),
    scale: float = SCALE,
    instrument: str = "HSC-Sim",
    **info: Any,
) -> VisitImage:
    """Return an image of 40x70 pixels whose box does not start at zero."""
    bbox = Box.factory[5:45, 100:170]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [135.5, 25.5]
    wcs.wcs.crval = center
    angle = math.radians(25.0)
    wcs.wcs.cd = (scale / 3600.0) * np.array(
        [[-math.cos(angle), math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    frame = DetectorFrame(instrument=instrument, visit=visit, detector=detector, bbox=bbox)
    layout = DetectorLayout(detector, f"D{detector}", bbox, 0.0, 0.0)
    described: dict[str, Any] = {"instrument": instrument, "visit_id": visit, "physical_filter": "HSC-R"}
    described.update(info)
    return VisitImage(
        Image(np.arange(40 * 70, dtype=np.float32).reshape(40, 70), bbox=bbox, unit=u.nJy),
        variance=Image(np.ones((40, 70), dtype=np.float32), bbox=bbox, unit=u.nJy**2),
        mask_schema=MaskSchema(get_legacy_visit_image_mask_planes().values()),
        sky_projection=SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=bbox),
        psf=GaussianPointSpreadFunction(1.8, bounds=bbox, stamp_size=25),
        detector=make_detector(layout, visit or 0),
        obs_info=ObservationInfo(**described),
        band="r",
    )


def make_geometry(ra_deg: float = 10.0, dec_deg: float = -30.0) -> SkyMapGeometry:
    """Return a tract of 2x3 patches of 1x2 cells of 20x15 pixels."""
    tract = TractGeometry(
        tract=4,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        pixel_scale_arcsec=SCALE,
        cell_shape=(20, 15),
        patch_cells=(1, 2),
        border_cells=1,
        num_patches=(2, 3),
    )
    return SkyMapGeometry(skymap="toy", tracts=(tract,))


def test_sky_map_records_and_dataset(butler: Butler) -> None:
    # Without regions that cover their pixels no patch finds its visits.
    geometry = make_geometry()
    ref = register_sky_map(butler, geometry, "skymaps")
    assert register_sky_map(butler, geometry, "skymaps") == ref
    content = butler.get("skymap_geometry", skymap="toy", collections="skymaps")
    assert SkyMapGeometry.from_dict(content) == geometry
    records = {record.id: record for record in butler.query_dimension_records("patch", skymap="toy")}
    assert sorted(records) == list(range(6))
    assert (records[5].cell_y, records[5].cell_x) == (1, 2)
    for patch, opposite in ((0, 5), (5, 0), (2, 3)):
        inner = geometry.patch(4, patch).definition.inner_bbox
        sky = geometry.patch(4, patch).projection.pixel_to_sky(YX(y=inner.y.center, x=inner.x.center))
        point = UnitVector3d(LonLat.fromDegrees(float(sky.ra.deg), float(sky.dec.deg)))
        assert records[patch].region.contains(point)
        assert not records[opposite].region.contains(point)


def test_sky_map_with_another_geometry_is_refused(butler: Butler) -> None:
    # Else patches of one name could lie at two places of the sky.
    register_sky_map(butler, make_geometry(), "skymaps")
    with pytest.raises(ConflictingDefinitionError, match="skymap"):
        register_sky_map(butler, make_geometry(ra_deg=10.1), "other")


def test_put_visit_image_writes_every_record(butler: Butler) -> None:
    # A query by band, day or region must find what was put.
    image = make_visit_image(observing_day=20260203, exposure_time=30.0 * u.s)
    ref = put_visit_image(butler, image, "raw/visits")
    assert dict(ref.dataId.required) == {"instrument": "HSC-Sim", "visit": 17, "detector": 3}
    data_id = butler.registry.expandDataId(ref.dataId)
    assert (data_id["band"], data_id["day_obs"], data_id["physical_filter"]) == ("r", 20260203, "HSC-R")
    visit = data_id.records["visit"]
    assert visit is not None
    assert visit.exposure_time == 30.0
    read = butler.get(ref)
    np.testing.assert_array_equal(read.image.array, image.image.array)
    assert read.bbox == image.bbox
    with pytest.raises(ConflictingDefinitionError, match="raw/visits"):
        put_visit_image(butler, image, "raw/visits")


def test_records_of_a_visit_are_idempotent_and_consistent(butler: Butler) -> None:
    # Detectors of a visit share its record; a visit in two filters is a bug.
    for detector in (3, 4, 3):
        _register_visit_detector(butler, make_visit_image(detector=detector))
    assert len(butler.query_dimension_records("detector", instrument="HSC-Sim")) == 2
    assert len(butler.query_dimension_records("visit", instrument="HSC-Sim")) == 1
    with pytest.raises(ConflictingDefinitionError, match="visit"):
        _register_visit_detector(butler, make_visit_image(physical_filter="HSC-R2"))


def test_only_overlapping_patches_join_a_visit(butler: Butler) -> None:
    # The quantum graph rests on this join of regions.
    geometry = make_geometry()
    register_sky_map(butler, geometry, "skymaps")
    # Patches 1 and 3 start at x = 30 and at y = 20; the image, of a tenth of
    # the pixel scale, spans 7 pixels of the tract.
    corner = geometry.patch(4, 0).projection.pixel_to_sky(YX(y=10.0, x=12.0))
    image = make_visit_image(center=(float(corner.ra.deg), float(corner.dec.deg)), scale=SCALE / 10.0)
    put_visit_image(butler, image, "visits")
    with butler.query() as query:
        joined = query.where("skymap = 'toy' AND instrument = 'HSC-Sim'").data_ids(
            ["patch", "visit", "detector"]
        )
        assert [data_id["patch"] for data_id in joined] == [0]


@pytest.mark.parametrize(
    ("info", "day_obs"),
    [
        ({"datetime_begin": Time("2026-05-06T23:30:00", scale="utc")}, 20260506),
        ({}, 19700101),
    ],
)
def test_observing_day_without_one_in_the_header(butler: Butler, info: dict[str, Any], day_obs: int) -> None:
    # day_obs is a required column; the documented defaults must hold.
    ref = put_visit_image(butler, make_visit_image(**info), "visits")
    assert butler.registry.expandDataId(ref.dataId)["day_obs"] == day_obs


def test_image_without_visit_is_refused(butler: Butler) -> None:
    # The message must name the field that the user has to set.
    with pytest.raises(ValueError, match=r"'D3'.*Set obs_info.visit_id"):
        put_visit_image(butler, make_visit_image(visit=None), "visits")


def test_ingest_reads_files_and_can_be_repeated(butler: Butler, tmp_path: Path) -> None:
    # An interrupted ingest is run again with the same files.
    paths = [tmp_path / f"{detector}.fits" for detector in (1, 2)]
    for detector, path in zip((1, 2), paths, strict=True):
        write_archive(make_visit_image(detector=detector), str(path))
    first = ingest_visit_image(butler, paths[0], "visits").ref
    both = [ingest_visit_image(butler, path, "visits").ref for path in paths]
    assert both[0] == first
    assert [ref.dataId["detector"] for ref in both] == [1, 2]


def test_ingest_refuses_other_files(butler: Butler, tmp_path: Path) -> None:
    # A mask or coadd among the files must not be put as a visit image.
    path = tmp_path / "image.fits"
    write_archive(Image(0.0, shape=(4, 5)), str(path))
    with pytest.raises(TypeError, match=r"image.fits holds a Image, not a VisitImage"):
        ingest_visit_image(butler, path, "visits")


def test_chain_keeps_the_order_of_its_members(butler: Butler) -> None:
    # The first collection of a chain wins: a later call must not reorder.
    for run in ("a", "b", "c"):
        butler.collections.register(run)
    chain_collections(butler, "chain", ["b", "a"])
    chain_collections(butler, "chain", ["a", "c", "b"])
    assert butler.collections.get_info("chain").children == ("b", "a", "c")


def test_sky_map_around_covers_every_pixel() -> None:
    # A pixel outside the tract would be lost from the coadd.
    images = [make_visit_image(), make_visit_image(center=(10.01, -29.995), scale=0.1)]
    geometry = sky_map_around(images, skymap="toy", cell_size=16, num_patches=(2, 3), border_cells=1)
    tract = geometry.tract(0)
    assert tract.pixel_scale_arcsec == pytest.approx(0.1, abs=1e-3)
    inner = [tract.patch(patch).inner_bbox for patch in range(6)]
    low = YX(y=inner[0].y.min - 0.5, x=inner[0].x.min - 0.5)
    high = YX(y=inner[-1].y.max + 0.5, x=inner[-1].x.max + 0.5)
    projection = tract.projection("toy")
    slack = []
    for image in images:
        x = np.array([image.bbox.x.min - 0.5, image.bbox.x.max + 0.5] * 2)
        y = np.repeat([image.bbox.y.min - 0.5, image.bbox.y.max + 0.5], 2)
        pixels = projection.sky_to_pixel(image.sky_projection.pixel_to_sky(YX(y=y, x=x)))
        slack += [pixels.x - low.x, high.x - pixels.x, pixels.y - low.y, high.y - pixels.y]
    assert np.min(slack) > -1e-3
    # No more than a cell per patch is wasted on either side.
    assert min(np.min(slack[0::4]), np.min(slack[1::4])) < 16 * 3 / 2 + 1
    assert min(np.min(slack[2::4]), np.min(slack[3::4])) < 16 * 2 / 2 + 1


def test_sky_map_around_nothing_or_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="no images at all"):
        sky_map_around([], skymap="toy")
    images = [make_visit_image(), make_visit_image(center=(30.0, -30.0))]
    with pytest.raises(ValueError, match="more than ten degrees"):
        sky_map_around(images, skymap="toy")


def test_real_exposures_are_ingested(butler: Butler, shared_data: Path) -> None:
    # Real headers, filter names, TPV projections and Piff models.
    paths = sorted((shared_data / "decam").glob("galaxy_g_*.fits"))
    refs = [ingest_visit_image(butler, path, "DECam/visits").ref for path in paths]
    assert [ref.dataId["visit"] for ref in refs] == [425859, 763152, 770496]
    assert {ref.dataId["instrument"] for ref in refs} == {"DECam"}
    geometry = sky_map_around(map(read_visit_image, paths), skymap="decam", cell_size=25)
    register_sky_map(butler, geometry, "skymaps")
    assert geometry.tract(0).pixel_scale_arcsec == pytest.approx(0.263, abs=1e-3)
    galaxy = SkyCoord(244.7797, 12.0723, unit="deg")
    pixel = geometry.tract(0).projection("decam").sky_to_pixel(galaxy)
    bbox = geometry.tract(0).bbox
    assert abs(pixel.x - bbox.x.center) < 5
    assert abs(pixel.y - bbox.y.center) < 5
    with butler.query() as query:
        joined = query.where("skymap = 'decam' AND instrument = 'DECam' AND band = 'g'").data_ids(
            ["patch", "visit", "detector"]
        )
        assert joined.count(discard=True) == 3
    # Twice from the same dataset: the second read is the one that can fail.
    for _ in range(2):
        kernel = butler.get(refs[0].makeComponentRef("psf")).compute_kernel_image(x=20.0, y=25.0)
        assert kernel.array.sum() == pytest.approx(1.0, abs=1e-5)
