# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The task: what it writes, what it drops and what it refuses."""

from __future__ import annotations

import importlib.metadata
import logging
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astro_metadata_translator import ObservationInfo

from lsst.astroclearnet.core import RestoreOptions, fwhm_to_sigma, load_packaged_model
from lsst.astroclearnet.metrics import psf_flux_correlated
from lsst.astroclearnet.tasks import (
    PrepareExposuresTask,
    RestorationAlgorithmError,
    RestoreCoaddConfig,
    RestoreCoaddTask,
    make_noise_table,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import VisitImage
from lsst.images.cells import CellCoadd
from lsst.images.fields import ChebyshevField
from lsst.images.serialization import ArchiveReadError
from lsst.pipe.base import InMemoryDatasetHandle, NoWorkFound, Struct, UpstreamFailureNoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput

SHAPE = (158, 172)
SIGMA = 2.0
VIEWS: tuple[dict[str, Any], ...] = (
    {"offset": (3.3, 28.2), "visit": 11},
    {"offset": (-4.1, 32.9), "rotation": 31.0, "visit": 12},
    {"offset": (0.4, -39.6), "rotation": 180.0, "visit": 13},
    {"offset": (6.2, 35.7), "scale": 1.01, "visit": 14},
)
WIDTHS = (3.2, 3.9, 4.6, 5.2)


def make_config(**changes: Any) -> RestoreCoaddConfig:
    """Return a configuration that fits small patches quickly."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = 0.55
    config.device = "cpu"
    config.restoration.fit.max_epochs = 12
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return config


def make_quick_config(**changes: Any) -> RestoreCoaddConfig:
    """Return one for tests that do not look at the pixels."""
    config = make_config(do_plot=False, **changes)
    config.restoration.fit.max_epochs = 2
    config.restoration.noise.num_draws = 2
    return config


@pytest.fixture(scope="module")
def field() -> StarField:
    """Stars on patch 0."""
    geometry = make_patch_geometry(cell_shape=(30, 24)).patch(3, 0)
    rng = np.random.default_rng(3)
    columns, rows = np.meshgrid(np.arange(16.0, 110.0, 22.0), np.arange(16.0, 110.0, 22.0))
    return StarField(
        geometry=geometry,
        x=columns.ravel() + rng.uniform(-0.5, 0.5, columns.size),
        y=rows.ravel() + rng.uniform(-0.5, 0.5, rows.size),
        flux=rng.uniform(300.0, 6000.0, columns.size),
    )


def observe(field: StarField, number: int, **changes: Any) -> VisitImage:
    """Return one noisy visit image of the stars."""
    projection = make_projection(SHAPE, **VIEWS[number])
    rng = np.random.default_rng(number)
    image = field.render(projection, SHAPE, WIDTHS[number]) + rng.normal(0.0, SIGMA, SHAPE)
    arguments = {"variance": SIGMA**2, "fwhm": WIDTHS[number], **changes}
    return make_visit_image(arguments.pop("image", image), projection, **arguments)


@pytest.fixture(scope="module")
def visits(field: StarField) -> list[VisitImage]:
    """Four visit images with rotations and dithers."""
    return [observe(field, n) for n in range(4)]


@pytest.fixture(scope="module")
def outputs(field: StarField, visits: list[VisitImage]) -> Struct:
    """What the task makes of them."""
    return RestoreCoaddTask(config=make_config()).run(visit_images=visits, geometry=field.geometry, band="i")


def test_outputs_are_those_of_the_connections(outputs: Struct) -> None:
    assertValidOutput(RestoreCoaddTask(config=make_config()), outputs)


def test_packaged_network_is_the_default(outputs: Struct) -> None:
    """If it fails, the documentation is wrong, or another network is named."""
    network, identity = outputs.restored_coadd_metrics["network"], load_packaged_model().identity
    assert (network["source"], network["identity"]) == ("packaged", identity)
    assert network["astroclearnet_version"] == importlib.metadata.version("lsst-astroclearnet")
    for coadd in (outputs.restored_coadd, outputs.restored_coadd_linear):
        assert coadd.metadata["network_source"] == "packaged"
        assert coadd.metadata["network"] == identity


def test_figure_without_a_fit(outputs: Struct) -> None:
    """If it fails, the figure has an empty panel."""
    titles = [axes.get_title() for axes in outputs.restored_coadd_plot.axes]
    assert "Agreement of the exposures" in titles
    assert "Convergence" not in titles


def test_restored_coadd_is_complete(field: StarField, outputs: Struct) -> None:
    # Downstream tasks read all of these from the coadd alone.
    coadd: CellCoadd = outputs.restored_coadd
    assert coadd.bbox == field.geometry.bbox
    assert coadd.unit == u.nJy
    assert coadd.band == "i"
    assert coadd.patch == field.geometry.definition
    assert coadd.sky_projection == field.geometry.projection
    assert len(coadd.noise_realizations) == 2
    assert np.isfinite(coadd.image.array).all()
    assert (coadd.variance.array > 0).all()
    kernel = coadd.psf.compute_kernel_image(x=70, y=60).array
    assert kernel.sum() == pytest.approx(1.0)
    inputs = coadd.provenance.inputs
    assert [int(v) for v in inputs["visit"]] == [11, 12, 13, 14]
    contributions = coadd.provenance.contributions
    cells = 4 * 5
    assert len(contributions) == 4 * cells
    assert np.sum(contributions["weight"]) == pytest.approx(cells)
    # The sharper an exposure, the more it says about point sources.
    share = [np.sum(contributions["weight"][contributions["visit"] == v]) for v in (11, 12, 13, 14)]
    assert share == sorted(share, reverse=True)
    assert coadd.metadata["target_fwhm_arcsec"] == pytest.approx(0.55)


def test_stars_have_their_flux_and_the_declared_psf(field: StarField, outputs: Struct) -> None:
    coadd: CellCoadd = outputs.restored_coadd
    image, origin = coadd.image.array, coadd.bbox.start
    rows, columns = np.mgrid[-6:7, -6:7]
    sigma = 0.55 / 0.168 / 2.3548
    ratios, widths = [], []
    for x, y, flux in zip(field.x, field.y, field.flux, strict=True):
        row, column = round(y) - origin.y, round(x) - origin.x
        cut = image[row - 6 : row + 7, column - 6 : column + 7]
        radius = (rows - (y - round(y))) ** 2 + (columns - (x - round(x))) ** 2
        psf = np.exp(-0.5 * radius / sigma**2) / (2 * np.pi * sigma**2)
        ratios.append((cut * psf).sum() / (psf**2).sum() / flux)
        widths.append(np.sqrt((cut * psf * radius).sum() / (cut * psf).sum()))
    bright = field.flux > 1500.0
    assert np.median(np.array(ratios)[bright]) == pytest.approx(1.0, abs=0.01)
    # Gaussian times Gaussian of the same width: half the variance an axis.
    assert np.median(np.array(widths)[bright]) == pytest.approx(sigma, rel=0.02)


def test_linear_coadd_differs_in_its_pixels_alone(outputs: Struct) -> None:
    # What reads one coadd must be able to read the other.
    coadd: CellCoadd = outputs.restored_coadd
    linear: CellCoadd = outputs.restored_coadd_linear
    assert (linear.bbox, linear.unit, linear.band, linear.patch) == (
        coadd.bbox,
        coadd.unit,
        coadd.band,
        coadd.patch,
    )
    np.testing.assert_array_equal(linear.mask.array, coadd.mask.array)
    kernel, other = (c.psf.compute_kernel_image(x=70, y=60).array for c in (coadd, linear))
    np.testing.assert_array_equal(other, kernel)
    assert len(linear.provenance.contributions) == len(coadd.provenance.contributions)
    assert linear.metadata["seed"] == coadd.metadata["seed"]
    penalty_weight = linear.metadata["linear_penalty_weight"]
    assert isinstance(penalty_weight, float)
    assert 0 < penalty_weight < 0.1
    residual = linear.metadata["linear_psf_residual"]
    assert isinstance(residual, float)
    assert 0.0 < residual <= RestoreOptions().debiasing.max_psf_residual
    # It keeps the noise that the other one smooths away, and says so.
    assert np.median(linear.variance.array) > 4.0 * np.median(coadd.variance.array)
    assert len(linear.noise_realizations) == 2
    for draw in linear.noise_realizations:
        ratio = draw.array / np.sqrt(linear.variance.array)
        assert np.std(ratio) == pytest.approx(1.0, abs=0.1)


def test_photometry_on_the_linear_coadd_follows_its_covariance(field: StarField, outputs: Struct) -> None:
    # The product to measure on: fluxes without bias, errors as claimed.
    coadd: CellCoadd = outputs.restored_coadd_linear
    table, grid = outputs.restored_coadd_linear_noise, coadd.patch.cells
    stamps = {(int(row["cell_i"]), int(row["cell_j"])): row["correlation"] for row in table}
    cells = [grid.index_of(y=round(y), x=round(x)) for x, y in zip(field.x, field.y, strict=True)]
    flux, error = psf_flux_correlated(
        coadd.image.array,
        coadd.variance.array,
        np.array([stamps[cell.i, cell.j] for cell in cells]),
        coadd.psf.compute_kernel_image(x=70, y=60).array,
        field.x - coadd.bbox.x.min,
        field.y - coadd.bbox.y.min,
    )
    assert np.median(flux / field.flux) == pytest.approx(1.0, abs=0.005)
    pulls = (flux - field.flux) / error
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1.0, abs=3.0 / np.sqrt(2 * pulls.size))


def test_noise_table_tells_how_noise_is_correlated(outputs: Struct) -> None:
    table = outputs.restored_coadd_linear_noise
    linear: CellCoadd = outputs.restored_coadd_linear
    assert table["correlation"].shape == (4 * 5, 31, 31)
    assert table["correlation"].dtype == np.float32
    assert "sqrt(V_p V_q)" in table["correlation"].description
    assert table["num_pixels"].sum() == linear.image.array.size
    stamp = np.asarray(table["correlation"]).mean(axis=0)
    assert stamp[15, 15] == pytest.approx(1.0)
    np.testing.assert_allclose(stamp, stamp[::-1, ::-1], atol=1e-3)
    draws = np.array([draw.array for draw in linear.noise_realizations])
    draws /= np.sqrt(linear.variance.array)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (0, 3)):
        height, width = draws.shape[1:]
        measured = np.mean(draws[:, dy:, dx:] * draws[:, : height - dy, : width - dx])
        assert measured / np.mean(draws**2) == pytest.approx(stamp[15 + dy, 15 + dx], abs=0.05)


def test_noise_table_has_the_cells_of_the_patch(field: StarField) -> None:
    # The arrays have a border around the patch; a cell must not be taken for
    # its neighbour, nor i for j.
    border = 6
    height, width = field.geometry.bbox.shape
    image = np.zeros((height + 2 * border, width + 2 * border))
    cell_height, cell_width = field.geometry.definition.cells.cell_shape
    # One cell is empty, and one has a hole.
    image[border + cell_height : border + 2 * cell_height, border : border + cell_width] = np.nan
    image[border : border + 3, border + cell_width : border + cell_width + 5] = np.nan
    stamps = np.arange(20, dtype=np.float32).reshape(4, 5, 1, 1) + np.zeros((31, 31), dtype=np.float32)
    result = SimpleNamespace(linear_image=image, linear_noise=SimpleNamespace(stamps=stamps))
    inputs = SimpleNamespace(geometry=field.geometry)
    table = make_noise_table(result, inputs)  # type: ignore[arg-type]
    expected = [(i, j) for i in range(4) for j in range(5) if (i, j) != (1, 0)]
    assert list(zip(table["cell_i"], table["cell_j"], strict=True)) == expected
    assert list(table["correlation"][:, 0, 0]) == [5 * i + j for i, j in expected]
    full = cell_height * cell_width
    assert list(table["num_pixels"]) == [full, full - 15, *[full] * 17]


def test_metrics_are_plain_and_true(outputs: Struct) -> None:
    metrics = outputs.restored_coadd_metrics
    assert metrics["patch"]["num_exposures"] == 4
    assert metrics["dropped"] == {}
    assert [e["visit"] for e in metrics["exposures"]] == [11, 12, 13, 14]
    for exposure, width in zip(metrics["exposures"], WIDTHS, strict=True):
        scale = 0.168 * (1.01 if exposure["visit"] == 14 else 1.0)
        assert exposure["psf_fwhm"] == pytest.approx(width * scale, rel=0.03)
        assert exposure["chi_square"] == pytest.approx(1.0, abs=0.08)
        assert exposure["psf_consistent"]
        assert abs(exposure["psf_width_error"]) < 0.01
    assert sum(e["weight_share"] for e in metrics["exposures"]) == pytest.approx(1.0)
    assert metrics["image"]["chi_square"] == pytest.approx(1.0, abs=0.05)
    for name, coadd in (("", outputs.restored_coadd), ("linear_", outputs.restored_coadd_linear)):
        sigma = np.sqrt(np.median(coadd.variance.array))
        assert metrics["image"][f"{name}median_sigma"] == pytest.approx(sigma, rel=1e-3)

    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for item in value.values() for leaf in leaves(item)]
        return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]

    assert {type(leaf) for leaf in leaves(metrics)} <= {str, int, float, bool}


def test_faintest_flux_is_in_njy(field: StarField, visits: list[VisitImage], outputs: Struct) -> None:
    """If it fails, users trust the restored coadd at the wrong flux."""
    information = sum(1.0 / (4.0 * np.pi * (fwhm_to_sigma(width) * SIGMA) ** 2) for width in WIDTHS)
    faintest = outputs.restored_coadd_metrics["image"]["faintest_flux"]
    # The variance planes hold no photon noise, and one pixel scale differs.
    assert faintest == pytest.approx(8.0 / np.sqrt(information), rel=0.03)
    for coadd in (outputs.restored_coadd, outputs.restored_coadd_linear):
        assert coadd.metadata["faintest_flux_njy"] == faintest
    zero_point = ChebyshevField(visits[0].bbox, np.array([[3.0]]), unit=u.nJy / u.electron)
    images = [
        observe(field, n, image=image.image.array, unit=u.electron, photometric_scaling=zero_point)
        for n, image in enumerate(visits)
    ]
    task = RestoreCoaddTask(config=make_quick_config())
    scaled = task.run(visit_images=images, geometry=field.geometry, band="i")
    assert scaled.restored_coadd_metrics["image"]["faintest_flux"] == pytest.approx(3.0 * faintest, rel=1e-3)


def test_order_of_inputs_does_not_matter(field: StarField, visits: list[VisitImage]) -> None:
    # The Butler gives inputs in any order; a rerun must give the same bits.
    first, second = (
        RestoreCoaddTask(config=make_quick_config()).run(
            visit_images=images, geometry=field.geometry, band="i"
        )
        for images in (visits[:3], visits[2::-1])
    )
    for name in ("restored_coadd", "restored_coadd_linear"):
        for plane in ("image", "variance"):
            one, other = (getattr(getattr(o, name), plane).array for o in (first, second))
            np.testing.assert_array_equal(other, one, err_msg=f"{name}.{plane}")


def test_handles_are_read_as_visit_images(field: StarField, visits: list[VisitImage]) -> None:
    handles = [
        InMemoryDatasetHandle(v, visit=v.obs_info.visit_id, detector=0, storageClass="VisitImage")
        for v in visits
    ]
    task = PrepareExposuresTask()
    direct = task.run(visit_images=visits, geometry=field.geometry)
    through = task.run(visit_images=handles, geometry=field.geometry)
    for first, second in zip(direct.source.cutouts, through.source.cutouts, strict=True):
        np.testing.assert_array_equal(first.image, second.image)


def test_bad_exposures_are_dropped_with_reasons(
    field: StarField, visits: list[VisitImage], caplog: pytest.LogCaptureFixture
) -> None:
    # One bad exposure must not cost the patch, nor be silently missing.
    far = make_projection(SHAPE, center=(151.0, 2.2), visit=20)
    bad = [
        observe(field, 1, psf=ArchiveReadError("no model in the file")),
        observe(field, 2, unit=u.electron),
        make_visit_image(np.ones(SHAPE), far),
        observe(field, 3, image=np.full(SHAPE, np.nan)),
        visits[0],
    ]
    task = RestoreCoaddTask(config=make_quick_config())
    with caplog.at_level(logging.WARNING):
        result = task.run(visit_images=[visits[0], *bad], geometry=field.geometry, band="i")
    dropped = result.restored_coadd_metrics["dropped"]
    assert {key: reason.split(":")[0] for key, reason in dropped.items()} == {
        "TestCam visit 11, detector 0": "duplicate",
        "TestCam visit 12, detector 0": "no_psf",
        "TestCam visit 13, detector 0": "not_calibrated",
        "TestCam visit 14, detector 0": "no_usable_pixels",
        "TestCam visit 20, detector 0": "no_overlap",
    }
    assert "no model in the file" in caplog.text
    assert "electron" in caplog.text
    recorded = [v for k, v in result.restored_coadd.metadata.items() if k.startswith("dropped_")]
    assert len(recorded) == 5
    assert any("no_psf" in str(r) for r in recorded)
    assert {task.metadata[f"dropped_{n}"] for n in range(5)} == set(recorded)


def test_nan_pixels_are_masked(field: StarField, visits: list[VisitImage]) -> None:
    image = visits[2].image.array.copy()
    image[74:80, 84:89] = np.nan
    holed = observe(field, 2, image=image)
    task = RestoreCoaddTask(config=make_quick_config())
    result = task.run(visit_images=[*visits[:2], holed], geometry=field.geometry, band="i")
    assert np.isfinite(result.restored_coadd.image.array).all()
    assert result.restored_coadd_metrics["exposures"][2]["num_not_finite"] == 30


def test_nothing_on_the_patch_is_no_work(field: StarField) -> None:
    task = RestoreCoaddTask(config=make_config())
    far = make_visit_image(np.ones(SHAPE), make_projection(SHAPE, center=(151.0, 2.2)))
    with pytest.raises(NoWorkFound, match="No visit image has a pixel on test_map, tract 3, patch 0, i"):
        task.run(visit_images=[far], geometry=field.geometry, band="i")


def test_only_bad_exposures_is_an_upstream_failure(field: StarField) -> None:
    task = RestoreCoaddTask(config=make_config())
    with pytest.raises(UpstreamFailureNoWorkFound, match="TestCam visit 12, detector 0: not_calibrated"):
        task.run(visit_images=[observe(field, 1, unit=u.adu)], geometry=field.geometry, band="i")


def test_one_exposure_is_restored_and_says_so(field: StarField, visits: list[VisitImage]) -> None:
    task = RestoreCoaddTask(config=make_quick_config(target_fwhm=None))
    result = task.run(visit_images=visits[:1], geometry=field.geometry, band="i")
    assert np.isnan(result.restored_coadd_metrics["network"]["held_out_loss"])
    assert np.isfinite(result.restored_coadd.image.array).all()
    # There is nothing to compare its PSF with.
    (exposure,) = result.restored_coadd_metrics["exposures"]
    assert np.isnan(exposure["psf_width_error"])
    assert exposure["psf_consistent"]


def test_wrong_psf_is_named(
    field: StarField, visits: list[VisitImage], caplog: pytest.LogCaptureFixture
) -> None:
    # A PSF that is given 5 % too narrow biases all that is measured later.
    wrong = make_visit_image(
        visits[1].image.array, visits[1].sky_projection, variance=SIGMA**2, fwhm=WIDTHS[1] / 1.05
    )
    config = make_quick_config(do_linear=False)
    config.restoration.calibration.psf_refinement = "report"
    task = RestoreCoaddTask(config=config)
    images = [visits[0], wrong, *visits[2:]]
    with caplog.at_level(logging.WARNING):
        result = task.run(visit_images=images, geometry=field.geometry, band="i")
    exposures = result.restored_coadd_metrics["exposures"]
    assert not exposures[1]["psf_consistent"]
    assert exposures[1]["psf_width_error"] == pytest.approx(0.05, abs=0.02)
    assert exposures[1]["psf_width_error"] > 5.0 * exposures[1]["psf_width_sigma"] > 0
    assert "do not fit their stars: " in caplog.text
    assert "TestCam visit 12, detector 0: wider by " in caplog.text
    assertValidOutput(task, result)
    assert not hasattr(result, "restored_coadd_linear")
    assert not hasattr(result, "restored_coadd_linear_noise")


def test_exposure_on_the_border_alone_is_left_out(field: StarField, visits: list[VisitImage]) -> None:
    # It reaches what is read around the patch, but not the patch: that must
    # not stop the others.
    origin = field.geometry.bbox.start
    corner = field.geometry.projection.pixel_to_sky(x=float(origin.x - 12), y=float(origin.y - 12))
    beside = make_projection(
        SHAPE,
        center=(float(corner.ra.deg), float(corner.dec.deg)),
        offset=(SHAPE[0] / 2 - 6, SHAPE[1] / 2 - 6),
        visit=21,
    )
    task = RestoreCoaddTask(config=make_quick_config())
    images = [*visits[:2], make_visit_image(np.ones(SHAPE), beside)]
    result = task.run(visit_images=images, geometry=field.geometry, band="i")
    assert result.restored_coadd_metrics["dropped"]["TestCam visit 21, detector 0"].startswith("no_overlap")
    assert result.restored_coadd_metrics["patch"]["num_dropped"] == 0


def test_identity_comes_from_the_data_id(field: StarField) -> None:
    # Converted images may not say which visit they are; two of them must
    # still be two exposures.
    info = ObservationInfo(physical_filter="i_test")
    handles = []
    for number in (0, 1):
        visit_image = observe(field, number, obs_info=info)
        handles.append(
            InMemoryDatasetHandle(
                visit_image, visit=71 + number, detector=4, instrument="Cam", storageClass="VisitImage"
            )
        )
    prepared = PrepareExposuresTask().run(visit_images=handles, geometry=field.geometry)
    first, second = prepared.source.cutouts
    assert [(e.identity.instrument, e.identity.visit) for e in (first, second)] == [("Cam", 71), ("Cam", 72)]


def test_core_errors_become_algorithm_errors(field: StarField, visits: list[VisitImage]) -> None:
    # The executor keeps the metadata of an AlgorithmError with the quantum.
    task = RestoreCoaddTask(config=make_config(target_fwhm=0.05))
    with pytest.raises(RestorationAlgorithmError, match="cannot be sampled") as caught:
        task.run(visit_images=visits[:2], geometry=field.geometry, band="i")
    assert caught.value.metadata["error"] == "InputError"
