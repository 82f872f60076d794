# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Quality of restored coadds: figures, verdicts, tables and pictures."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import astropy.units as u
import numpy as np
import pytest
import yaml
from astropy.table import Table
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lsst.astroclearnet.adapters import PatchGeometry, make_cell_coadd
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.metrics import point_source_depth, point_source_image, psf_flux_error
from lsst.astroclearnet.tasks import (
    QUALITY_UNITS,
    MakeColorPicturesConfig,
    MakeColorPicturesTask,
    MeasureRestorationConfig,
    MeasureRestorationTask,
    QualityLimitsConfig,
    SummarizeRestorationConfig,
    SummarizeRestorationTask,
    Verdict,
    exposure_metrics,
    judge,
)
from lsst.astroclearnet.tests import make_patch_geometry
from lsst.images import Box, ColorImage
from lsst.images.cells import CellCoadd, CoaddProvenance
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import NoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

SIGMA = 2.0
TARGET, SEEING = 3.2, 4.4
GEOMETRY = make_patch_geometry(cells=(4, 5)).patch(3, 0)
HEIGHT, WIDTH = GEOMETRY.bbox.shape
COLUMNS, ROWS = (
    axis.ravel()
    for axis in np.meshgrid(np.arange(26.3, WIDTH - 25.0, 37.0), np.arange(25.8, HEIGHT - 25.0, 39.0))
)
FLUX = np.linspace(6000.0, 20000.0, COLUMNS.size)
EMPTY = np.zeros((HEIGHT, WIDTH), dtype=bool)


def provenance() -> CoaddProvenance:
    """Return the provenance of one exposure."""
    inputs = CoaddProvenance.make_empty_input_table(1)
    inputs["instrument"], inputs["visit"], inputs["detector"] = "TestCam", 1, 0
    inputs["physical_filter"], inputs["day_obs"] = "i_test", 20260101
    inputs["polygon"][0] = GEOMETRY.bbox.to_polygon()
    size = GEOMETRY.definition.cells.grid_size
    contributions = CoaddProvenance.make_empty_contribution_table(size.i * size.j)
    contributions["cell_i"], contributions["cell_j"] = (axis.ravel() for axis in np.indices((size.i, size.j)))
    contributions["instrument"], contributions["visit"], contributions["detector"] = "TestCam", 1, 0
    return CoaddProvenance(inputs=inputs, contributions=contributions)


def make_coadd(
    fwhm: float,
    *,
    scale: float = 1.0,
    sigma: float = SIGMA,
    seed: int = 1,
    declared: float | None = None,
    band: str = "i",
    geometry: PatchGeometry = GEOMETRY,
    no_data: NDArray[np.bool_] = EMPTY,
) -> CellCoadd:
    """Return a coadd of isolated stars with white noise."""
    image = scale * point_source_image((HEIGHT, WIDTH), gaussian_kernel(fwhm, 31), COLUMNS, ROWS, FLUX)
    image += np.random.default_rng(seed).normal(0.0, sigma, image.shape)
    noise = np.random.default_rng(seed + 1).normal(0.0, sigma, (2, *image.shape))
    return make_cell_coadd(
        geometry=geometry,
        band=band,
        image=np.where(no_data, np.nan, image),
        variance=np.where(no_data, np.nan, sigma**2),
        mask_planes={"NO_DATA": no_data},
        psf=gaussian_kernel(declared or fwhm, 21),
        provenance=provenance(),
        noise_realizations=noise,
    )


def noise_table() -> Table:
    """Return the correlation of white noise in all cells."""
    size = GEOMETRY.definition.cells.grid_size
    stamp = np.zeros((31, 31), dtype=np.float32)
    stamp[15, 15] = 1.0
    i, j = (axis.ravel() for axis in np.indices((size.i, size.j)))
    return Table({"cell_i": i, "cell_j": j, "correlation": np.array([stamp] * i.size)})


def exposure(visit: int, **changes: Any) -> dict[str, Any]:
    """Return what the restoration says of an exposure without faults."""
    return {
        "instrument": "TestCam",
        "visit": visit,
        "detector": 0,
        "psf_fwhm": 0.6 + 0.05 * visit,
        "weight_share": 0.25,
        "chi_square": 1.02,
        "variance_factor_min": 1.0,
        "variance_factor_max": 1.0,
        "variance_smoothed": False,
        "used_fraction": 1.0,
        "rejected_fraction": 0.002,
        "flux_error": 0.001,
        "flux_sigma": 0.001,
        "shift": 0.001,
        "shift_sigma": 0.001,
        "psf_width_error": 0.001,
        "psf_width_sigma": 0.001,
        "psf_consistent": True,
        "psf_change": [0.001, 0.0, 0.0, 0.0],
        "psf_change_sigma": [0.001, 0.001, 0.001, 0.003],
        "psf_refined": False,
        "suspect_reason": "",
        "background": [0.3, 0.0, 0.0],
        "background_sigma": [0.01, math.inf, math.inf],
        **changes,
    }


def make_metrics(**changes: Any) -> dict[str, Any]:
    """Return the metrics of a restoration without faults."""
    return {
        "patch": {
            "skymap": "test_map",
            "tract": 3,
            "patch": 0,
            "band": "i",
            "num_exposures": 4,
            "num_dropped": 0,
            "num_tiles": 1,
            "num_failed_tiles": 0,
        },
        "exposures": [exposure(visit) for visit in range(4)],
        "network": {"source": "packaged", "identity": "0a1b", "doubt": "", "held_out_loss": 0.55},
        "solves": {"linear_estimate": {"num_solves": 40, "num_unconverged": 0}},
        "image": {
            "chi_square": 1.01,
            "linear_median_sigma": SIGMA,
            "no_data_fraction": 0.0,
            "clipped_fraction": 0.01,
            "linear_psf_residual": 0.004,
            "psf_shared_width": 0.001,
            "psf_shared_width_sigma": 0.001,
            "psf_shared_stars": 20,
            "psf_flux_error": -0.03,
            "psf_flux_systematic": 0.003,
            "faintest_flux": 60.5,
        },
        "warnings": ["A detail."],
        **changes,
    }


@pytest.fixture(scope="module")
def coadds() -> dict[str, Any]:
    """Restored, linear and direct coadd of one sky."""
    return {
        "restored": make_coadd(TARGET, sigma=0.3, seed=5),
        "linear": make_coadd(TARGET, seed=7),
        "linear_noise": noise_table(),
        "direct": make_coadd(SEEING, seed=9),
    }


def measure(config: MeasureRestorationConfig | None = None, **inputs: Any) -> dict[str, Any]:
    """Run the task and return its dataset."""
    task = MeasureRestorationTask(config=config or MeasureRestorationConfig())
    outputs = task.run(**{"metrics": make_metrics(), **inputs})
    assertValidOutput(task, outputs)
    quality = outputs.restored_coadd_quality
    # It is written as YAML, which knows no numpy.
    assert yaml.safe_load(yaml.safe_dump(quality))["verdict"] == quality["verdict"]
    # Dashboards take the metrics from the metadata, where none may be missing.
    assert quality["metrics"].keys() <= QUALITY_UNITS.keys() <= set(task.metadata)
    for name, value in quality["metrics"].items():
        assert task.metadata[name] == pytest.approx(value, nan_ok=True)
    assert task.metadata["verdict_level"] == ["good", "check", "bad"].index(quality["verdict"])
    return dict(quality)


def test_a_patch_without_faults_is_good(coadds: dict[str, Any]) -> None:
    """If it fails, good patches alarm, or figures are wrong."""
    quality = measure(**coadds)
    assert quality["verdict"] == "good"
    assert quality["warnings"] == []
    assert quality["details"] == ["A detail."]
    assert quality["network"] == {"source": "packaged", "identity": "0a1b"}
    figures = quality["metrics"]
    assert figures.keys() == QUALITY_UNITS.keys()
    scale = GEOMETRY.pixel_scale
    assert figures["fwhm_in"] == pytest.approx(0.675)
    assert figures["fwhm_in_best"] == pytest.approx(0.6)
    assert figures["fwhm_out"] == pytest.approx(TARGET * scale, rel=2e-3)
    assert figures["star_fwhm"] == pytest.approx(TARGET * scale, rel=0.01)
    assert figures["star_fwhm_direct"] == pytest.approx(SEEING * scale, rel=0.01)
    assert figures["flux_num_stars"] == FLUX.size
    assert abs(figures["flux_offset_measured"]) < 4.0 * figures["flux_offset_error"] < 0.01
    assert abs(figures["denoised_flux_offset_measured"]) < 0.005
    linear = psf_flux_error(SIGMA**2, noise_table()["correlation"][0], gaussian_kernel(TARGET, 21))
    assert figures["depth_linear"] == pytest.approx(31.4 - 2.5 * np.log10(5.0 * linear), abs=1e-3)
    direct = point_source_depth(np.full(3, SIGMA**2), gaussian_kernel(SEEING, 21))
    assert figures["depth_direct"] == pytest.approx(direct, abs=1e-3)
    # Its noise is 0.3 instead of 2.
    expected = figures["depth_linear"] + 2.5 * np.log10(SIGMA / 0.3)
    assert figures["depth_restored"] == pytest.approx(expected, abs=0.08)
    assert abs(figures["noise_correlation"]) < 0.05
    assert figures["held_out_chi_square"] == pytest.approx(1.1)
    assert figures["rejected_fraction"] == pytest.approx(0.002)
    assert figures["faintest_flux"] == 60.5
    assert figures["background_offset"] == pytest.approx(0.15)
    patch = quality["patch"]
    inner = GEOMETRY.definition.inner_bbox
    assert patch["inner_x"] == [inner.x.start, inner.x.stop]
    assert patch["inner_y"] == [inner.y.start, inner.y.stop]


@pytest.mark.parametrize(("scale", "verdict"), [(1.02, "check"), (1.05, "bad")])
def test_fluxes_that_differ_are_noticed(
    coadds: dict[str, Any], scale: float, verdict: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a wrong flux scale of the restoration passes."""
    linear = make_coadd(TARGET, scale=scale, seed=7)
    restored = make_coadd(TARGET, scale=scale, sigma=0.3, seed=5)
    with caplog.at_level(logging.WARNING):
        quality = measure(**{**coadds, "linear": linear, "restored": restored})
    figures = quality["metrics"]
    assert figures["flux_offset"] == pytest.approx(scale - 1.0, abs=4.0 * figures["flux_offset_error"])
    assert quality["verdict"] == verdict
    (warning,) = quality["warnings"]
    assert "differ in flux by +" in warning
    assert warning in caplog.text


def test_stars_wider_than_declared_are_noticed(coadds: dict[str, Any]) -> None:
    """If it fails, a coadd with a wrong PSF passes."""
    linear = make_coadd(TARGET, declared=0.93 * TARGET, seed=7)
    quality = measure(**{**coadds, "linear": linear})
    assert quality["metrics"]["star_width_error"] == pytest.approx(1.0 / 0.93 - 1.0, abs=0.015)
    (check,) = (check for check in quality["checks"] if check["name"] == "star_width_error")
    assert check["verdict"] == "check"
    assert "are wider by 7" in check["words"]
    # The direct coadd, whose PSF is right, has other fluxes then.
    assert quality["metrics"]["flux_offset"] < -0.03
    assert quality["verdict"] == "bad"


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"patch": {"num_dropped": 1}}, "dropped_fraction", "check"),
        ({"patch": {"num_dropped": 5}}, "dropped_fraction", "bad"),
        ({"patch": {"num_tiles": 9, "num_failed_tiles": 1}}, "failed_fraction", "check"),
        ({"patch": {"num_tiles": 9, "num_failed_tiles": 4}}, "failed_fraction", "bad"),
        ({"network": {"doubt": "there are 99 exposures"}}, "network_doubt", "check"),
        ({"network": {"source": "fit", "num_epochs": 60, "converged": False}}, "unconverged", "check"),
        ({"solves": {"background": {"num_solves": 2, "num_unconverged": 1}}}, "unconverged_solves", "check"),
        (
            {"solves": {"linear_estimate": {"num_solves": 40, "num_unconverged": 30}}},
            "unconverged_solves",
            "bad",
        ),
        ({"image": {"chi_square": 0.6}}, "chi_square", "check"),
        ({"image": {"chi_square": 0.3}}, "chi_square", "bad"),
        ({"image": {"chi_square": 1.9}}, "chi_square", "check"),
        ({"image": {"no_data_fraction": 0.6}}, "no_data_fraction", "check"),
        ({"image": {"linear_psf_residual": 0.02}}, "linear_psf_residual", "check"),
        ({"image": {"psf_shared_width": 0.02}}, "psf_flux_error", "check"),
        ({"exposure": {"psf_change": [-0.03, 0.0, 0.0, 0.0]}}, "psf_flux_error", "check"),
        ({"exposure": {"chi_square": 3.0}}, "chi_square_weight", "check"),
        ({"exposure": {"psf_consistent": False}}, "psf_error_weight", "check"),
        ({"exposure": {"variance_factor_max": 4.0}}, "variance_error_weight", "check"),
        ({"exposure": {"flux_error": 0.05}}, "calibration_error_weight", "check"),
        ({"exposure": {"shift": 0.2}}, "calibration_error_weight", "check"),
        ({"exposure": {"suspect_reason": "flux_scale: It is."}}, "suspect_exposures", "check"),
        ({"exposure": {"chi_square": 5.0, "weight_share": 0.05}}, "exposure_chi_square", "check"),
        ({"exposure": {"background": [5.0, 0.0, 0.0]}}, "background_offset", "check"),
        ({"exposure": {"rejected_fraction": 0.2}}, "rejected_fraction", "check"),
    ],
)
def test_faults_of_exposures_and_fit_are_judged(
    changes: dict[str, dict[str, Any]], name: str, verdict: str
) -> None:
    """If it fails, a fault that the restoration tells of has no verdict."""
    metrics = make_metrics()
    for part, values in changes.items():
        (metrics["exposures"][1] if part == "exposure" else metrics[part]).update(values)
    worst, checks = judge(exposure_metrics(metrics, 3), QualityLimitsConfig())
    wrong = [check for check in checks if check["verdict"] != "good"]
    assert [(check["name"], check["verdict"]) for check in wrong] == [(name, verdict)]
    assert wrong[0]["words"]
    assert worst == verdict


@pytest.mark.parametrize(
    ("number", "fraction", "verdict"),
    [(2, 1.0, "check"), (1, 1.0, "bad"), (6, 1.0 / 6.0, "bad"), (12, 0.24, "good")],
)
def test_few_exposures_are_judged(number: int, fraction: float, verdict: str) -> None:
    """If it fails, artefacts of two exposures pass for sources, or those of a
    visit whose detectors share the patch.
    """
    used = [exposure(visit, used_fraction=fraction, weight_share=0.0) for visit in range(number)]
    figures = exposure_metrics(make_metrics(exposures=used), 3)
    assert figures["depth_in_exposures"] == pytest.approx(number * fraction)
    worst, checks = judge(figures, QualityLimitsConfig())
    assert worst == verdict
    (check,) = (check for check in checks if check["name"] == "missing_exposures")
    assert check["verdict"] == verdict
    # Half of the patch without data does not halve the depth.
    metrics = make_metrics(exposures=[exposure(visit, used_fraction=0.5) for visit in range(4)])
    metrics["image"]["no_data_fraction"] = 0.5
    assert exposure_metrics(metrics, 3)["depth_in_exposures"] == pytest.approx(4.0)


def test_a_patch_is_measured_without_linear_and_direct_coadd(coadds: dict[str, Any]) -> None:
    """If it fails, a campaign without them has no verdicts."""
    config = MeasureRestorationConfig()
    config.do_linear = config.do_compare_direct = False
    quality = measure(config, restored=coadds["restored"])
    assert quality["verdict"] == "good"
    assert math.isnan(quality["metrics"]["depth_linear"])
    assert "flux_offset" not in quality["metrics"]
    connections = MeasureRestorationTask(config=config).config.connections.ConnectionsClass(config=config)
    assert sorted(connections.inputs) == ["restored_coadd", "restored_coadd_metrics"]


def test_direct_coadds_of_other_boxes(coadds: dict[str, Any]) -> None:
    """If it fails, stars are compared with other places of the sky."""
    whole = GEOMETRY.bbox
    part = Box.factory[whole.y.start + 40 : whole.y.stop - 40, whole.x.start + 32 : whole.x.stop - 32]
    inner = {
        "restored": coadds["restored"][part],
        "linear": coadds["linear"][part],
        "linear_noise": noise_table(),
        "direct": coadds["direct"],
    }
    figures = measure(**inner)["metrics"]
    assert 0 < figures["flux_num_stars"] < FLUX.size
    assert abs(figures["flux_offset_measured"]) < 0.005
    linear = psf_flux_error(SIGMA**2, noise_table()["correlation"][0], gaussian_kernel(TARGET, 21))
    assert figures["depth_linear"] == pytest.approx(31.4 - 2.5 * np.log10(5.0 * linear), abs=1e-3)
    with pytest.raises(ValueError, match="and not all of .* of the restored one"):
        measure(**{**coadds, "direct": coadds["direct"][part]})


def test_empty_patches_have_no_work(coadds: dict[str, Any]) -> None:
    """If it fails, a patch without data ends in an error."""
    no_data = ~EMPTY
    no_data[0, 0] = False
    nothing = make_coadd(TARGET, no_data=no_data)
    nothing.image.array[0, 0] = np.nan
    with pytest.raises(NoWorkFound, match="No pixel of the restored coadd has a value"):
        measure(restored=nothing)
    # The core of a bright star has no data, and its halo is detected.
    core = (COLUMNS[7], ROWS[7])
    y, x = np.indices(EMPTY.shape)
    masked = (x - core[0]) ** 2 + (y - core[1]) ** 2 < 11.0**2
    bright = make_coadd(TARGET, sigma=0.3, scale=3000.0, no_data=masked)
    figures = measure(**{**coadds, "restored": bright})["metrics"]
    assert figures["flux_num_stars"] <= FLUX.size - 1
    hole = EMPTY.copy()
    hole[:, : WIDTH // 2] = True
    quality = measure(
        **{**coadds, "restored": make_coadd(TARGET, sigma=0.3, no_data=hole), "direct": make_coadd(SEEING)}
    )
    assert 0 < quality["metrics"]["flux_num_stars"] < FLUX.size


def test_limits_are_configurable_and_ordered() -> None:
    """If it fails, a campaign cannot have limits of its own."""
    limits = QualityLimitsConfig()
    assert judge({"chi_square": 1.6}, limits)[0] is Verdict.CHECK
    limits.chi_square = [1.7, 3.0]
    verdict, checks = judge({"chi_square": 1.6, "flux_offset": math.nan}, limits)
    assert verdict is Verdict.GOOD
    assert {check["words"] for check in checks} == {""}
    assert judge({"linear_psf_residual": math.inf}, limits)[0] is Verdict.BAD
    # Each figure with limits has words, and each field of limits a figure.
    assert {check["name"] for check in checks} == set(limits.keys())
    limits.chi_square = [3.0, 1.5]
    with pytest.raises(FieldValidationError, match="chi_square"):
        limits.validate()


def test_connections_are_sound() -> None:
    """If it fails, graphs of some configurations do not build."""
    lintConnections(_connections(MeasureRestorationTask))
    lintConnections(_connections(SummarizeRestorationTask))
    lintConnections(_connections(MakeColorPicturesTask))


def _connections(task: Any) -> Any:
    return task.ConfigClass.ConnectionsClass


def test_summary_of_a_tract(coadds: dict[str, Any]) -> None:
    """If it fails, the table or the map shows other patches."""
    good = measure(**coadds)
    bad = copy.deepcopy(good)
    bad["verdict"], bad["warnings"] = "bad", ["One.", "Two."]
    bad["patch"].update(patch=7, index_x=3, inner_x=[200, 360])
    bad["metrics"].pop("flux_offset")
    task = SummarizeRestorationTask(config=SummarizeRestorationConfig())
    outputs = task.run(qualities=[bad, good])
    assertValidOutput(task, outputs)
    table = outputs.restored_coadd_quality_table
    assert list(table["patch"]) == [0, 7]
    assert list(table["verdict"]) == ["good", "bad"]
    assert list(table["network"]) == ["0a1b", "0a1b"]
    assert list(table["warnings"]) == ["", "One. Two."]
    assert table["fwhm_in"][0] == good["metrics"]["fwhm_in"]
    assert table["fwhm_in"].unit == u.arcsec
    assert table["depth_linear"].unit == u.ABmag
    assert table["faintest_flux"].unit == u.nJy
    assert table["depth_in_exposures"].unit is None
    assert math.isnan(table["flux_offset"][1])
    assert table.meta["tract"] == 3
    assert isinstance(outputs.restored_coadd_quality_map, Figure)
    assert (task.metadata["num_good"], task.metadata["num_check"], task.metadata["num_bad"]) == (1, 0, 1)
    config = SummarizeRestorationConfig()
    config.do_plot = False
    outputs = SummarizeRestorationTask(config=config).run(qualities=[good])
    assert not hasattr(outputs, "restored_coadd_quality_map")


def test_color_pictures_have_one_stretch() -> None:
    """If it fails, coadd and restored coadd cannot be compared by eye."""
    restored = {band: make_coadd(TARGET, sigma=0.2, band=band) for band in "gri"}
    direct = {band: make_coadd(SEEING, band=band) for band in "gri"}
    config = MakeColorPicturesConfig()
    config.scales = [1.0, 1.0, 1.0]
    task = MakeColorPicturesTask(config=config)
    outputs = task.run(restored=restored, direct=direct)
    assertValidOutput(task, outputs)
    for image in (outputs.restored_color, outputs.direct_color):
        assert isinstance(image, ColorImage)
        assert image.bbox == GEOMETRY.bbox
        assert image.sky_projection == GEOMETRY.projection
        assert image.metadata["bands"] == "i, r, g"
    assert outputs.restored_color.metadata["stretch"] == outputs.direct_color.metadata["stretch"]
    # The same light in all bands is grey, and brighter where it is sharper.
    y, x = round(float(ROWS[0])), round(float(COLUMNS[0]))
    sharp, blurred = (
        image.array[y, x].astype(int) for image in (outputs.restored_color, outputs.direct_color)
    )
    assert np.ptp(sharp) <= 3
    assert sharp.mean() > blurred.mean() > 100
    # One that lacks a part of the patch is none.
    whole = GEOMETRY.bbox
    part = Box.factory[whole.y.start : whole.y.stop - 40, whole.x.start : whole.x.stop]
    smaller = {band: coadd[part] for band, coadd in direct.items()}
    with pytest.raises(ValueError, match="in i covers .* set do_compare_direct=False"):
        task.run(restored=restored, direct=smaller)
    # Direct coadds that are not there in all bands are not drawn.
    del direct["g"]
    outputs = task.run(restored=restored, direct=direct)
    assert not hasattr(outputs, "direct_color")
    with pytest.raises(NoWorkFound, match="no restored coadd in g"):
        task.run(restored={band: restored[band] for band in "ri"})


def test_two_bands_make_a_picture() -> None:
    """If it fails, campaigns of two bands have no colours."""
    config = MakeColorPicturesConfig()
    config.bands = ["i", "r"]
    config.scales = [1.0, 1.0, 1.0]
    restored = {"i": make_coadd(TARGET, scale=2.0, band="i"), "r": make_coadd(TARGET, band="r")}
    picture = MakeColorPicturesTask(config=config).run(restored=restored).restored_color.array
    y, x = round(float(ROWS[0])), round(float(COLUMNS[0]))
    red, green, blue = (int(value) for value in picture[y, x])
    assert red > green > blue
    assert green == pytest.approx(0.5 * (red + blue), abs=2)
