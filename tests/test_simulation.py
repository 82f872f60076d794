# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated skies, exposures and surveys against what they should be."""

from __future__ import annotations

import dataclasses
from typing import Any

import astropy.units as u
import galsim
import numpy as np
import numpy.typing as npt
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lsst.astroclearnet.adapters import PatchGeometry, SkyMapGeometry
from lsst.astroclearnet.simulation import (
    BANDS,
    GAIN,
    PIXEL_SCALE,
    READ_NOISE,
    ArtefactOptions,
    DetectorLayout,
    SimulatedVisit,
    SurveyOptions,
    SurveySummary,
    detector_projection,
    focal_plane,
    local_wcs,
    make_catalogue,
    make_deep_coadd,
    make_survey,
    observe,
    plan_visits,
    render_truth,
)
from lsst.astroclearnet.simulation._artefacts import _bad_column_mask
from lsst.astroclearnet.simulation._psf import _true_psf
from lsst.daf.butler import Butler
from lsst.images import YX, Box, VisitImage

OPTIONS = SurveyOptions(
    seed=7,
    bands=("r", "i"),
    visits_per_band=3,
    cell_size=25,
    patch_cells=3,
    detector_grid=(1, 2),
    detector_shape=(130, 170),
    dither_arcsec=4.0,
    stars_per_patch=10.0,
)
CLEAN = dataclasses.replace(OPTIONS, artefacts=ArtefactOptions.none())


@pytest.fixture(scope="module")
def visits() -> tuple[SimulatedVisit, ...]:
    return plan_visits(OPTIONS)


@pytest.fixture(scope="module")
def detectors() -> tuple[DetectorLayout, ...]:
    return focal_plane(OPTIONS.detector_grid, OPTIONS.detector_shape, OPTIONS.detector_gap)


@pytest.fixture(scope="module")
def catalogue(visits: tuple[SimulatedVisit, ...]) -> Table:
    return make_catalogue(OPTIONS, visits)


@pytest.fixture(scope="module")
def progress() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory, progress: list[tuple[int, int, str]]) -> SurveySummary:
    root = tmp_path_factory.mktemp("survey") / "repo"
    return make_survey(root, OPTIONS, progress=lambda *call: progress.append(call))


def patch_geometry(patch: int = 2) -> PatchGeometry:
    return OPTIONS.geometry.patch(OPTIONS.tract, patch)


def place(source: Table, sky: SkyCoord, band: str, flux: float) -> Table:
    """Return a catalogue of one source, moved to a position."""
    moved = source.copy()
    moved["ra"], moved["dec"] = sky.ra.deg * u.deg, sky.dec.deg * u.deg
    moved[f"flux_{band}"] = flux * u.nJy
    return moved


def moments(image: npt.NDArray[np.floating]) -> tuple[float, float, float, float]:
    """Return centroid and width along x and y of an image."""
    y, x = np.indices(image.shape)
    total = image.sum()
    x0, y0 = (x * image).sum() / total, (y * image).sum() / total
    widths = (((x - x0) ** 2 * image).sum() / total, ((y - y0) ** 2 * image).sum() / total)
    return float(x0), float(y0), float(np.sqrt(widths[0])), float(np.sqrt(widths[1]))


@pytest.mark.parametrize("kind", ["star", "galaxy"])
def test_flux_of_a_source_without_noise(
    kind: str, catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # Every bias that is measured against the catalogue rests on this.
    visit, layout = dataclasses.replace(visits[-1], trail=None), detectors[1]
    projection = detector_projection(visit, layout, CLEAN)
    sky = projection.pixel_to_sky(YX(y=60.3, x=101.7))
    rows = catalogue[catalogue["kind"] == kind]
    source = rows[:1] if kind == "star" else rows[np.argsort(np.abs(rows["disc_radius"] - 0.3))][:1]
    image = observe(visit, layout, place(source, sky, visit.band, 54321.0), CLEAN)
    assert image.unit == u.nJy
    assert image.image.array.sum(dtype=float) == pytest.approx(54321.0, rel=2e-3)
    x, y, _, _ = moments(image.image.array.astype(float))
    np.testing.assert_allclose((x, y), (101.7, 60.3), atol=0.01)


def test_distortion_and_rotation_of_the_projection(
    visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # The scale must change by the stated amount, and y point where it says.
    visit, layout = visits[0], detectors[0]
    projection = detector_projection(visit, layout, OPTIONS)
    boresight = (-layout.x_offset, -layout.y_offset)
    corner = (-0.5, -0.5)
    x, y = np.array([boresight[0], corner[0]]), np.array([boresight[1], corner[1]])
    centre, edge = local_wcs(projection, x=x, y=y)
    assert np.sqrt(centre.pixelArea()) == pytest.approx(PIXEL_SCALE, rel=1e-6)
    # A cubic term k changes radii by 3 k r^2 and the area by 3 k r^2 + k r^2.
    area = (1.0 + OPTIONS.distortion) * (1.0 + OPTIONS.distortion / 3.0)
    assert edge.pixelArea() / centre.pixelArea() == pytest.approx(area, rel=1e-4)
    sky = projection.pixel_to_sky(YX(y=np.array([boresight[1], boresight[1] + 10.0]), x=x[[0, 0]]))
    angle = sky[0].position_angle(sky[1]).to_value(u.deg)
    assert (angle - visit.rotation_deg + 180.0) % 360.0 == pytest.approx(180.0, abs=1e-3)


def test_detectors_of_a_visit_do_not_overlap(
    visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # Neighbours share one boresight: a gap, and no pixel of sky twice.
    first, second = (detector_projection(visits[0], layout, CLEAN) for layout in detectors)
    edge = first.pixel_to_sky(YX(y=60.0, x=169.5 + OPTIONS.detector_gap[1]))
    pixel = second.sky_to_pixel(edge)
    np.testing.assert_allclose((pixel.x, pixel.y), (-0.5, 60.0), atol=1e-3)


def test_fitted_psf_is_near_the_truth_and_varies(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # The model must describe the pixel-convolved PSF where it is asked to.
    visit, layout = visits[0], detectors[0]
    psf = observe(visit, layout, catalogue[:0], OPTIONS).psf
    projection = detector_projection(visit, layout, OPTIONS)
    kernels = []
    for x, y in ((5.0, 8.0), (84.0, 65.0), (165.0, 120.0)):
        wcs = local_wcs(projection, x=np.array([x]), y=np.array([y]))[0]
        stamp = galsim.ImageD(psf.kernel_bbox.x.size, psf.kernel_bbox.y.size)
        stamp.setCenter(0, 0)
        _true_psf(visit, layout, OPTIONS, x=x, y=y).drawImage(stamp, center=galsim.PositionD(0, 0), wcs=wcs)
        assert stamp.array.sum() > 0.998
        kernel = psf.compute_kernel_image(x=x, y=y).array
        np.testing.assert_allclose(kernel, stamp.array, atol=0.02 * stamp.array.max())
        kernels.append(kernel)
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-3 * kernels[0].max()


def test_empty_sky_has_the_noise_that_its_variance_claims(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # A wrong variance spoils every weight and every claimed significance.
    artefacts = dataclasses.replace(ArtefactOptions.none(), noise=True)
    options = dataclasses.replace(OPTIONS, artefacts=artefacts)
    visit = dataclasses.replace(visits[-1], trail=None)
    image = observe(visit, detectors[0], catalogue[:0], options)
    pulls = image.image.array / np.sqrt(image.variance.array)
    # Digitisation adds GAIN^2 / 12 to a variance of more than 10^4 electrons.
    assert pulls.std() == pytest.approx(1.0, abs=4.0 / np.sqrt(2.0 * pulls.size))
    assert pulls.mean() == pytest.approx(0.0, abs=5.0 / np.sqrt(pulls.size))
    assert image.variance.unit == u.nJy**2
    properties = BANDS["i"]
    sky = 200.0 * PIXEL_SCALE**2 * 10.0 ** (0.4 * (properties.zero_point - properties.sky_brightness))
    per_njy = 200.0 * 10.0 ** (0.4 * (properties.zero_point - 31.4))
    expected = (sky + READ_NOISE**2 + GAIN**2 / 12.0) / per_njy**2
    # Zero points scatter by 0.03 mag and the sky by 0.1 mag between visits.
    assert np.median(image.variance.array) == pytest.approx(expected, rel=0.4)


def test_same_options_give_the_same_pixels(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # A benchmark must be repeatable, and no two exposures share their noise.
    first = observe(visits[0], detectors[0], catalogue, OPTIONS)
    again = observe(plan_visits(OPTIONS)[0], detectors[0], make_catalogue(OPTIONS, visits), OPTIONS)
    np.testing.assert_array_equal(first.image.array, again.image.array)
    other = observe(visits[0], detectors[0], catalogue, dataclasses.replace(OPTIONS, seed=8))
    assert not np.array_equal(first.image.array, other.image.array)


def test_catalogue_agrees_with_its_own_columns(catalogue: Table) -> None:
    # Positions in pixels and on the sky, pairs and fluxes are used together.
    sky = SkyCoord(catalogue["ra"], catalogue["dec"])
    pixels = OPTIONS.geometry.tract(0).projection(OPTIONS.skymap).sky_to_pixel(sky)
    np.testing.assert_allclose(pixels.x, catalogue["x"], atol=1e-6)
    np.testing.assert_allclose(pixels.y, catalogue["y"], atol=1e-6)
    pairs = np.unique(catalogue["pair_id"][catalogue["pair_id"] >= 0])
    assert len(pairs) > 0
    for pair in pairs:
        members = catalogue["pair_id"] == pair
        assert members.sum() == 2
        separation = sky[members][0].separation(sky[members][1]).arcsec
        np.testing.assert_allclose(catalogue["pair_separation"][members], separation, rtol=1e-3)
    stars = catalogue["kind"] == "star"
    assert 0 < catalogue["is_saturated"].sum() < 0.2 * stars.sum()
    assert not np.any(catalogue["is_saturated"] & ~stars)
    # A star of i = 16 is 10^(0.4 x 15.4) nJy, one of 27 is 10^(0.4 x 4.4).
    flux = catalogue["flux_i"][stars]
    assert flux.min() >= 10.0**1.76
    assert flux.max() <= 10.0**6.16
    assert np.all(np.isfinite(catalogue["disc_radius"][~stars]))


def test_truth_image_of_a_star_is_the_declared_gaussian(catalogue: Table) -> None:
    # The PSF of the restored image is compared with this one.
    geometry, fwhm = patch_geometry(), 3.3
    sky = geometry.projection.pixel_to_sky(YX(y=geometry.bbox.y.min + 50.2, x=geometry.bbox.x.min + 70.4))
    star = place(catalogue[catalogue["kind"] == "star"][:1], sky, "r", 1234.0)
    truth = render_truth(star, geometry, "r", psf_fwhm=fwhm)
    y, x = np.indices(geometry.bbox.shape)
    sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
    gaussian = np.exp(-0.5 * ((x - 70.4) ** 2 + (y - 50.2) ** 2) / sigma**2) / (2.0 * np.pi * sigma**2)
    np.testing.assert_allclose(truth, 1234.0 * gaussian, atol=1e-4 * 1234.0 * gaussian.max())


def test_truth_image_of_a_galaxy(catalogue: Table) -> None:
    # Flux, and a position angle east of north (towards lower x).
    geometry = patch_geometry()
    sky = geometry.projection.pixel_to_sky(YX(y=geometry.bbox.y.min + 60.0, x=geometry.bbox.x.min + 64.0))
    galaxy = place(catalogue[catalogue["kind"] == "galaxy"][:1], sky, "i", 5000.0)
    galaxy["disc_radius"], galaxy["bulge_radius"] = 0.4 * u.arcsec, 0.16 * u.arcsec
    galaxy["disc_g"], galaxy["bulge_g"], galaxy["position_angle"] = 0.4, 0.1, 45.0 * u.deg
    truth = render_truth(galaxy, geometry, "i", psf_fwhm=3.0)
    assert truth.sum() == pytest.approx(5000.0, rel=2e-3)
    y, x = np.indices(truth.shape)
    cross = ((x - 64.0) * (y - 60.0) * truth).sum() / truth.sum()
    _, _, width, height = moments(truth)
    assert width == pytest.approx(height, rel=0.01)
    assert cross < -0.1 * width * height


def test_truth_images_of_neighbouring_patches_agree(catalogue: Table) -> None:
    # A source beyond the edge of a patch must still shine into it.
    left = patch_geometry(0)
    right = patch_geometry(1)
    overlap = left.bbox.intersection(right.bbox)
    images = [render_truth(catalogue, geometry, "i", psf_fwhm=3.0) for geometry in (left, right)]
    cuts = [
        image[
            overlap.y.min - geometry.bbox.y.min : overlap.y.max - geometry.bbox.y.min + 1,
            overlap.x.min - geometry.bbox.x.min : overlap.x.max - geometry.bbox.x.min + 1,
        ]
        for image, geometry in zip(images, (left, right), strict=True)
    ]
    assert cuts[0].max() > 100.0
    np.testing.assert_allclose(cuts[0], cuts[1], atol=1e-4 * cuts[0].max())


def test_mask_planes_of_a_simulated_image(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # Flags are all that the restoration knows about defects.
    images = [observe(visits[0], layout, catalogue, OPTIONS) for layout in detectors]
    for image, layout in zip(images, detectors, strict=True):
        bad = _bad_column_mask(layout, OPTIONS.artefacts.bad_columns, OPTIONS.seed)
        np.testing.assert_array_equal(image.mask.get("BAD"), bad)
        assert np.flatnonzero(bad.any(axis=0)).size == 1
        flagged = image.mask.get("BAD") | image.mask.get("COSMIC_RAY") | image.mask.get("SATURATED")
        np.testing.assert_array_equal(image.mask.get("INTERPOLATED"), flagged)
        assert image.mask.get("DETECTION_EDGE").sum() == 130 * 170 - 120 * 160
        assert np.isfinite(image.image.array).all()
        assert image.variance.array.min() > 0.0
    assert sum(image.mask.get("COSMIC_RAY").sum() for image in images) > 0


def test_satellite_trail_is_there_and_not_flagged(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    artefacts = dataclasses.replace(ArtefactOptions.none(), satellite_trails=True)
    options = dataclasses.replace(OPTIONS, artefacts=artefacts)
    visit = next(visit for visit in visits if visit.trail is not None)
    assert visit.trail is not None
    images = [observe(visit, layout, catalogue[:0], options) for layout in detectors]
    peak = max(float((im.image.array / np.sqrt(im.variance.array)).max()) for im in images)
    assert peak == pytest.approx(visit.trail.brightness, rel=0.1)
    assert not any(image.mask.get("INTERPOLATED").any() for image in images)


def test_survey_holds_every_dataset(survey: SurveySummary, catalogue: Table) -> None:
    # What a user, the task and the benchmark read must all be there.
    butler = Butler.from_config(survey.root, collections=[survey.defaults, survey.truth_run])
    assert survey.num_visit_images == 12
    assert len(butler.query_datasets("visit_image")) == 12
    content = butler.get("skymap_geometry", skymap=survey.skymap)
    assert SkyMapGeometry.from_dict(content) == OPTIONS.geometry
    table = butler.get("truth_catalogue", skymap=survey.skymap, tract=survey.tract)
    assert table.colnames == catalogue.colnames
    np.testing.assert_array_equal(table["flux_r"], catalogue["flux_r"])
    assert table["flux_r"].unit == u.nJy
    assert len(butler.query_datasets("truth_image")) == 2 * 4
    assert len(butler.query_datasets("deep_coadd")) == 2 * 4
    coadd = butler.get("deep_coadd", skymap=survey.skymap, tract=survey.tract, patch=1, band="r")
    assert coadd.bbox == patch_geometry(1).bbox
    truth = butler.get("truth_image", skymap=survey.skymap, tract=survey.tract, patch=3, band="i")
    assert truth.bbox == patch_geometry(3).bbox
    assert truth.metadata["psf_fwhm_pixels"] == OPTIONS.truth_fwhm
    with butler.query() as query:
        joined = query.where(f"skymap = '{survey.skymap}' AND instrument = 'HSC-Sim' AND band = 'i'")
        patches = {data_id["patch"] for data_id in joined.data_ids(["patch", "visit", "detector"])}
    assert patches == set(survey.patches)
    assert butler.query_datasets("truth_image", collections=[survey.defaults], explain=False) == []


def test_visit_images_survive_the_butler(
    survey: SurveySummary,
    catalogue: Table,
    visits: tuple[SimulatedVisit, ...],
    detectors: tuple[DetectorLayout, ...],
) -> None:
    # Pixels, cutouts and PSF must read back as they were simulated.
    butler = Butler.from_config(survey.root, collections=[survey.defaults])
    simulated = observe(visits[4], detectors[1], catalogue, OPTIONS)
    (ref,) = butler.query_datasets(
        "visit_image", instrument="HSC-Sim", visit=visits[4].visit, detector=detectors[1].detector
    )
    whole: VisitImage = butler.get(ref)
    np.testing.assert_array_equal(whole.image.array, simulated.image.array)
    np.testing.assert_array_equal(whole.variance.array, simulated.variance.array)
    assert whole.mask == simulated.mask
    assert whole.sky_projection == simulated.sky_projection
    assert whole.detector == simulated.detector
    box = Box.factory[15:64, 30:99]
    cutout: VisitImage = butler.get(ref, parameters={"bbox": box})
    np.testing.assert_array_equal(cutout.image.array, whole.image.array[15:64, 30:99])
    expected = simulated.psf.compute_kernel_image(x=40.0, y=50.0).array
    for psf in (cutout.psf, butler.get(ref.makeComponentRef("psf")), butler.get(ref.makeComponentRef("psf"))):
        np.testing.assert_allclose(psf.compute_kernel_image(x=40.0, y=50.0).array, expected, rtol=1e-10)


def test_deep_coadd_of_a_star(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # The coadd that users compare with must have the right flux and PSF.
    geometry = patch_geometry(3)
    x, y = geometry.bbox.x.min + 58.3, geometry.bbox.y.min + 66.6
    sky = geometry.projection.pixel_to_sky(YX(y=y, x=x))
    star = place(catalogue[catalogue["kind"] == "star"][:1], sky, "i", 25000.0)
    clean = [dataclasses.replace(visit, trail=None) for visit in visits if visit.band == "i"]
    images = [observe(visit, layout, star, CLEAN) for visit in clean for layout in detectors]
    coadd = make_deep_coadd(images, geometry, "i")
    assert coadd is not None
    assert (coadd.band, coadd.bbox, coadd.unit) == ("i", geometry.bbox, u.nJy)
    np.testing.assert_array_equal(coadd.mask.get("NO_DATA"), ~np.isfinite(coadd.image.array))
    rows, columns = np.indices(coadd.bbox.shape)
    aperture = np.hypot(columns - 58.3, rows - 66.6) < 15.0
    assert not coadd.mask.get("NO_DATA")[aperture].any()
    flux = coadd.image.array[aperture].sum(dtype=float)
    # 15 pixels hold 99.6 % of the broadest PSF, which has the least weight.
    assert flux == pytest.approx(25000.0, rel=6e-3)
    kernel = coadd.psf.compute_kernel_image(x=x, y=y)
    assert kernel.array.sum() == pytest.approx(1.0, abs=1e-4)
    half = kernel.bbox.x.max
    stamp = coadd.image.array[67 - half : 68 + half, 58 - half : 59 + half]
    # Apart from the fraction of a pixel, the star has the width of the PSF.
    assert np.hypot(*moments(stamp[5:-5, 5:-5])[2:]) == pytest.approx(
        np.hypot(*moments(kernel.array[5:-5, 5:-5])[2:]), rel=0.03
    )
    assert {int(visit) for visit in coadd.provenance.inputs["visit"]} == {v.visit for v in clean}


def test_deep_coadd_without_overlap_is_none(
    catalogue: Table, visits: tuple[SimulatedVisit, ...], detectors: tuple[DetectorLayout, ...]
) -> None:
    # A patch that no exposure reaches has no coadd rather than an empty one.
    image = observe(visits[-1], detectors[0], catalogue[:0], CLEAN)
    elsewhere = dataclasses.replace(OPTIONS, ra_deg=151.0).geometry.patch(OPTIONS.tract, 0)
    assert make_deep_coadd([image], elsewhere, "i") is None


def test_progress_is_reported(survey: SurveySummary, progress: list[tuple[int, int, str]]) -> None:
    # The demo shows a bar; its end must be reached.
    assert [call[:2] for call in progress] == [(done, 12) for done in range(1, 13)]
    assert progress[1][2] == "visit 2000 detector 1"


@pytest.mark.parametrize("changes", [{"detector_gap": (15,)}, {"num_patches": (1, 2, 3)}])
def test_sizes_are_pairs(changes: dict[str, Any]) -> None:
    """If it fails, a survey is simulated with a size that was not meant."""
    with pytest.raises(ValueError, match="must be a pair, along y and x"):
        SurveyOptions(**changes)
