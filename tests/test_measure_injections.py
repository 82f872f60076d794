# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What is measured of injected sources, from images and in a repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.figure import Figure

from lsst.astroclearnet.adapters import make_cell_coadd
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.metrics import (
    count_recovered,
    find_peaks,
    has_counterpart,
    matched_fluxes,
    point_source_image,
    significance_map,
    surface_brightness,
)
from lsst.astroclearnet.plots import completeness_figure
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.simulation import make_injection_catalogue, put_injection_catalogue
from lsst.astroclearnet.tasks import MeasureInjectionsConfig, MeasureInjectionsTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images.cells import CellCoadd, CoaddProvenance
from lsst.pipe.base import NoWorkFound, Pipeline
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.pipe.base.pipelineIR import PipelineIR
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

GEOMETRY = make_patch_geometry(cells=(3, 4)).patch(3, 0)
HEIGHT, WIDTH = GEOMETRY.bbox.shape
SIGMA, TARGET = 2.0, 3.2
PSF = gaussian_kernel(TARGET, 21)
POSITIONS = {"bright": (70.0, 81.0), "faint": (100.3, 60.6), "hidden": (62.5, 112.2), "outside": (5.0, 80.0)}
MAGNITUDES = {"bright": 21.0, "faint": 27.5, "hidden": 23.0, "outside": 22.0}
PIPELINES = "resource://lsst.astroclearnet/resources/pipelines"


def njy(magnitude: float) -> float:
    """Return the flux of a magnitude."""
    return float(10.0 ** (-0.4 * (magnitude - 31.4)))


def make_coadd(image: np.ndarray, psf: np.ndarray = PSF, noise: float = SIGMA) -> CellCoadd:
    """Return a coadd of the patch with white noise in its realisations."""
    inputs = CoaddProvenance.make_empty_input_table(1)
    inputs["instrument"], inputs["visit"], inputs["detector"] = "TestCam", 1, 0
    inputs["physical_filter"], inputs["day_obs"] = "i_test", 20260101
    inputs["polygon"][0] = GEOMETRY.bbox.to_polygon()
    size = GEOMETRY.definition.cells.grid_size
    contributions = CoaddProvenance.make_empty_contribution_table(size.i * size.j)
    contributions["cell_i"], contributions["cell_j"] = (axis.ravel() for axis in np.indices((size.i, size.j)))
    contributions["instrument"], contributions["visit"], contributions["detector"] = "TestCam", 1, 0
    return make_cell_coadd(
        geometry=GEOMETRY,
        band="i",
        image=image,
        variance=np.full(image.shape, SIGMA**2),
        mask_planes={"NO_DATA": ~np.isfinite(image)},
        psf=psf,
        provenance=CoaddProvenance(inputs=inputs, contributions=contributions),
        noise_realizations=np.random.default_rng(8).normal(0.0, noise, (2, *image.shape)),
    )


def injected_stars() -> Table:
    """Return the injected stars, and a galaxy beyond the patch."""
    x, y = np.transpose(list(POSITIONS.values()))
    sky = GEOMETRY.projection.pixel_to_sky(x=x, y=y)
    return Table(
        {
            "injection_id": np.arange(len(x)),
            "ra": sky.ra.deg,
            "dec": sky.dec.deg,
            "source_type": ["Star"] * len(x),
            "mag": list(MAGNITUDES.values()),
        }
    )


def draw(scale: dict[str, float]) -> np.ndarray:
    """Return an image of the stars times a factor for each."""
    stars = [(*POSITIONS[name], factor * njy(MAGNITUDES[name])) for name, factor in scale.items()]
    x, y, flux = np.transpose(stars)
    box = GEOMETRY.bbox
    return point_source_image((HEIGHT, WIDTH), PSF, x - box.x.min, y - box.y.min, flux)


@pytest.fixture(scope="module")
def sky() -> np.ndarray:
    """Noise, and a bright source where one star is injected."""
    image = np.random.default_rng(2).normal(0.0, SIGMA, (HEIGHT, WIDTH))
    return image + draw({"hidden": 5.0})


def test_fluxes_of_overlapping_templates_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    templates, image, ratios = [], np.zeros((40, 50)), [1.2, 0.3, -0.5]
    for ratio, (top, left) in zip(ratios, [(3, 5), (7, 9), (25, 30)], strict=True):
        light = rng.uniform(0.1, 1.0, (12, 14)) * 10.0 ** rng.uniform(0.0, 5.0)
        templates.append((slice(top, top + 12), slice(left, left + 14), light))
        image[top : top + 12, left : left + 14] += ratio * light
    image[8, 10] = np.nan
    assert matched_fluxes(image, templates) == pytest.approx(ratios, rel=1e-5)
    image[25:37, 30:44] = np.nan
    assert np.isnan(matched_fluxes(image, templates)).tolist() == [False, False, True]
    assert matched_fluxes(image, []).size == 0


def test_significance_is_that_of_a_point_source() -> None:
    """If it fails, the completeness is of another threshold than stated."""
    rng = np.random.default_rng(5)
    variance = np.where(np.arange(200) < 100, 4.0, 9.0) * np.ones((150, 1))
    noise = rng.normal(0.0, np.sqrt(variance))
    noise[70:80, 20:30] = np.nan
    away = significance_map(noise, variance, PSF)[12:-12, 12:-12]
    assert away.std() == pytest.approx(1.0, abs=0.03)
    flux = 8.0 * np.sqrt(4.0 / (PSF**2).sum())
    star = significance_map(point_source_image((150, 200), PSF, [50.0], [40.0], [flux]), variance, PSF)
    assert star[40, 50] == pytest.approx(8.0, rel=1e-4)
    x, y = find_peaks(star, 5.0)
    assert (x.tolist(), y.tolist()) == ([50], [40])
    assert find_peaks(star, 8.1)[0].size == 0


def test_counterparts_lie_within_the_radius() -> None:
    assert has_counterpart([0.0, 9.0], [0.0, 9.0], [0.0], [2.0], radius=2.0).tolist() == [True, False]
    assert has_counterpart([1.0], [1.0], [], [], radius=2.0).tolist() == [False]
    assert has_counterpart([], [], [1.0], [1.0], radius=2.0).size == 0


def test_bins_hold_what_was_recovered() -> None:
    magnitude = [22.1, 22.9, 23.0, 23.4, 23.6, 25.2, np.nan]
    found = [True, True, True, True, False, False, True]
    ratio = [1.0, 1.0, 0.8, 0.9, 1.0, np.nan, 5.0]
    first, second, third = count_recovered(magnitude, found, ratio, step=1.0)
    assert [(each["low"], each["high"], each["num_sources"]) for each in (first, second, third)] == [
        (22.0, 23.0, 2),
        (23.0, 24.0, 3),
        (25.0, 26.0, 1),
    ]
    assert second["completeness"] == pytest.approx(2.0 / 3.0)
    # Wilson (1927): limits solve (p - 2/3)^2 = p (1 - p) / 3.
    for limit in (second["completeness_low"], second["completeness_high"]):
        assert (limit - 2.0 / 3.0) ** 2 == pytest.approx(limit * (1.0 - limit) / 3.0)
    assert first["completeness_high"] == pytest.approx(1.0)
    assert second["flux_ratio"] == 0.9
    assert np.isnan(third["flux_ratio"])
    assert count_recovered([], [], [], step=1.0) == []
    with pytest.raises(ValueError, match="step=0"):
        count_recovered(magnitude, found, ratio, step=0.0)


def test_surface_brightness_is_the_mean_inside_half_the_light() -> None:
    bright, star = surface_brightness([24.0, 24.0], [1.0 / np.sqrt(2.0 * np.pi), 0.0])
    assert bright == pytest.approx(24.0)
    assert np.isnan(star)


def test_task_measures_what_a_restoration_made(sky: np.ndarray) -> None:
    """A restoration that keeps bright stars, halves faint ones and invents a
    source.
    """
    connections: Any = MeasureInjectionsConfig.ConnectionsClass
    lintConnections(connections)
    task = MeasureInjectionsTask(config=MeasureInjectionsConfig())
    stars = draw({"bright": 1.0, "hidden": 1.0, "faint": 0.5, "outside": 1.0})
    box = GEOMETRY.bbox
    stars += point_source_image((HEIGHT, WIDTH), PSF, [96.0 - box.x.min], [122.0 - box.y.min], [200.0])
    outputs = task.run(
        injection_catalogs=[injected_stars()], restored=make_coadd(sky), injected=make_coadd(sky + stars)
    )
    assertValidOutput(MeasureInjectionsTask(config=MeasureInjectionsConfig(do_linear=False)), outputs)
    table = outputs.restored_coadd_injections
    # A source in the border is measured on the neighbour.
    assert table["injection_id"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(table["restored_flux_ratio"], [1.0, 0.5, 1.0], rtol=2e-3)
    np.testing.assert_allclose(table["flux"], [njy(21.0), njy(27.5), njy(23.0)])
    assert table["restored_is_detected"].tolist() == [True, False, True]
    assert table["is_on_source"].tolist() == [False, False, True]
    metrics = outputs.restored_coadd_injection_metrics
    assert metrics["patch"] == {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    assert (metrics["num_sources"], metrics["num_on_source"]) == (3, 1)
    image = metrics["images"]["restored"]
    assert (image["num_appeared"], image["num_vanished"]) == (1, 0)
    assert image["flux_ratio_on_source"] == pytest.approx(1.0, rel=2e-3)
    counted = [(each["low"], each["num_sources"], each["completeness"]) for each in metrics["bins"]]
    assert counted == [(21.0, 1, 1.0), (27.0, 1, 0.0)]
    assert isinstance(outputs.restored_coadd_injection_plot, Figure)


def test_linear_coadds_are_measured_beside(sky: np.ndarray) -> None:
    stars = draw({"bright": 1.0, "hidden": 1.0, "faint": 1.0, "outside": 1.0})
    coadds = {"injected": 0.9, "injected_linear": 1.0}
    outputs = MeasureInjectionsTask(config=MeasureInjectionsConfig(do_plot=False)).run(
        injection_catalogs=[injected_stars()],
        restored=make_coadd(sky),
        linear=make_coadd(sky),
        **{name: make_coadd(sky + factor * stars) for name, factor in coadds.items()},
    )
    table = outputs.restored_coadd_injections
    np.testing.assert_allclose(table["restored_flux_ratio"], 0.9, rtol=2e-3)
    np.testing.assert_allclose(table["linear_flux_ratio"], 1.0, rtol=2e-3)
    assert {each["image"] for each in outputs.restored_coadd_injection_metrics["bins"]} == {
        "restored",
        "linear",
    }


def test_threshold_is_in_units_of_the_noise_realisations(sky: np.ndarray) -> None:
    """If it fails, correlated noise changes the completeness."""
    flux = 8.0 * SIGMA / np.sqrt((PSF**2).sum())
    stars = draw({"bright": flux / njy(MAGNITUDES["bright"])})
    table = injected_stars()[:1]
    table["mag"] = 31.4 - 2.5 * np.log10(flux)
    found = []
    for noise in (SIGMA, 2.0 * SIGMA):
        outputs = MeasureInjectionsTask(config=MeasureInjectionsConfig(do_plot=False)).run(
            injection_catalogs=[table],
            restored=make_coadd(sky, noise=noise),
            injected=make_coadd(sky + stars),
        )
        found.append(bool(outputs.restored_coadd_injections["restored_is_detected"][0]))
    # A signal-to-noise ratio of 8 is one of 4 if the noise is twice as large.
    assert found == [True, False]


def test_what_cannot_be_compared_is_told(sky: np.ndarray) -> None:
    task = MeasureInjectionsTask(config=MeasureInjectionsConfig())
    plain = make_coadd(sky)
    with pytest.raises(ValueError, match="Set the target_fwhm of both"):
        task.run(
            injection_catalogs=[injected_stars()],
            restored=plain,
            injected=make_coadd(sky, gaussian_kernel(1.01 * TARGET, 21)),
        )
    with pytest.raises(NoWorkFound, match="No injected source"):
        task.run(injection_catalogs=[injected_stars()[3:]], restored=plain, injected=plain)
    with pytest.raises(NoWorkFound, match="No injected source"):
        task.run(injection_catalogs=[], restored=plain, injected=plain)
    with pytest.raises(ValueError, match="at least one bin"):
        completeness_figure([], title="Nothing")


@pytest.mark.parametrize("name", ["RestoreInjected", "RestoreInjectedWithoutStack"])
def test_pipelines_name_what_the_tasks_exchange(name: str) -> None:
    """If it fails, the restoration reads images without injected sources."""
    tasks = PipelineIR.from_uri(f"{PIPELINES}/{name}.yaml").tasks
    assert tasks["restoreCoadd"].klass == "lsst.astroclearnet.tasks.RestoreCoaddTask"
    if name == "RestoreInjected":
        (config,) = tasks["injectVisit"].config or []
        assert config.rest["connections.input_exposure"] == "visit_image"
        assert config.rest["connections.output_exposure"] == "injected_visit_image"
        return
    graph = Pipeline.from_uri(f"{PIPELINES}/{name}.yaml").to_graph()
    assert set(graph.tasks) == {"injectSources", "restoreCoadd", "measureInjections"}
    assert "injected_visit_image" in graph.tasks["injectSources"].outputs["injected_image"].dataset_type_name
    inputs = {edge.dataset_type_name for edge in graph.tasks["restoreCoadd"].inputs.values()}
    assert "injected_visit_image" in inputs
    made = {edge.dataset_type_name for edge in graph.tasks["restoreCoadd"].outputs.values()}
    assert all(each.startswith("injected_restored_coadd") for each in made)
    read = {edge.dataset_type_name for edge in graph.tasks["measureInjections"].inputs.values()}
    plain = {"restored_coadd", "restored_coadd_linear"}
    assert read == plain | {f"injected_{each}" for each in plain}


def run(repo: Path, pipeline: str, inputs: str, output: str, *arguments: str) -> str:
    """Run a pipeline on the patch and return what was printed."""
    command = [
        *(Path(sys.executable).with_name("pipetask"), "run", "-b", repo, "-p", f"{PIPELINES}/{pipeline}"),
        *("-i", inputs, "-o", output, "-d", "skymap='test_map' AND tract=3 AND patch=0"),
        *("-c", "restoreCoadd:target_fwhm=0.65", "-c", "restoreCoadd:restoration.noise.num_draws=2"),
        *("--register-dataset-types", *arguments),
    ]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.slow
def test_injected_sources_come_back_from_a_repository(tmp_path: Path) -> None:
    """If it fails, the documented commands do not give a completeness."""
    repo = tmp_path / "repo"
    butler = create_repository(str(repo))
    sky_map = make_patch_geometry(cell_shape=(24, 20))
    register_sky_map(butler, sky_map, "skymaps")
    geometry = sky_map.patch(3, 0)
    rng = np.random.default_rng(9)
    shape = (140, 150)
    field = StarField(geometry=geometry, x=np.array([30.0]), y=np.array([30.0]), flux=np.array([3000.0]))
    for visit, rotation in enumerate((0.0, 9.0, -7.0), start=1):
        projection = make_projection(shape, rotation=rotation, offset=(0.0, 30.0), visit=visit)
        image = field.render(projection, shape, 3.3 + 0.3 * visit) + rng.normal(0.0, 1.0, shape)
        put_visit_image(butler, make_visit_image(image, projection, fwhm=3.3 + 0.3 * visit), "TestCam/visits")
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    table = make_injection_catalogue(
        geometry.projection,
        geometry.bbox,
        spacing=3.5,
        magnitudes=(22.0, 24.0),
        # The wings of galaxies are no less wide than this patch.
        galaxy_fraction=0.0,
        seed=3,
    )
    refs = put_injection_catalogue(butler, table, "injections", bands=["i"])
    assert sum(len(butler.get(ref)) for ref in refs) == len(table)
    builder = AllDimensionsQuantumGraphBuilder(
        Pipeline.from_uri(f"{PIPELINES}/RestoreInjectedWithoutStack.yaml#injectSources").to_graph(),
        butler,
        input_collections=["TestCam/defaults"],
        output_run="u/test/graph",
    )
    with pytest.raises(FileNotFoundError, match="No injection_catalog overlaps"):
        builder.finish(output="u/test", attach_datastore_records=False)
    run(repo, "RestoreCoaddWithoutStack.yaml#restore", "TestCam/defaults", "u/test/restored")
    arguments = ("-c", "injectSources:njy_per_electron=0.02")
    output = run(
        repo,
        "RestoreInjectedWithoutStack.yaml",
        "u/test/restored,injections",
        "u/test/injected",
        *arguments,
    )
    assert "Executed 5 quanta successfully, 0 failed" in output
    butler = Butler.from_config(str(repo), collections=["u/test/injected"])
    data_id: dict[str, Any] = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    found = butler.get("restored_coadd_injections", data_id)
    assert 0 < len(found) < len(table)
    # Magnitude 24 is 900 nJy: a signal-to-noise ratio above 100.
    assert np.all(found["linear_is_detected"] | found["is_on_source"])
    np.testing.assert_allclose(found["linear_flux_ratio"], 1.0, atol=0.03)
    metrics = butler.get("restored_coadd_injection_metrics", data_id)
    assert metrics["num_sources"] == len(found)
    assert butler.getURI("restored_coadd_injection_plot", data_id).exists()
    before, after = (
        butler.get(name, instrument="TestCam", visit=1, detector=0)
        for name in ("visit_image", "injected_visit_image")
    )
    assert after.image.array.sum() > before.image.array.sum() + 5000.0
    assert after.psf.compute_kernel_image(x=50.0, y=50.0).array == pytest.approx(
        before.psf.compute_kernel_image(x=50.0, y=50.0).array
    )
