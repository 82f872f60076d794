# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measures of how true an image looks, on images whose errors are known."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from astroclearnet_benchmarks.quality.product import Product
from astroclearnet_benchmarks.scenes import Scene, SceneOptions, draw_sources, inject, simulate_scene
from astroclearnet_benchmarks.truth.cases import Case, Exposures
from astroclearnet_benchmarks.truth.coverage import NOMINAL, measure_coverage
from astroclearnet_benchmarks.truth.figures import FIGURES, Row, make_rows
from astroclearnet_benchmarks.truth.halos import bright_galaxies, measure_halos
from astroclearnet_benchmarks.truth.injections import measure_injections, plan_injections, plan_knots
from astroclearnet_benchmarks.truth.limits import COADD, LIMITS, LINEAR, judge
from astroclearnet_benchmarks.truth.measure import measure_case
from astroclearnet_benchmarks.truth.pixels import FAR, far_from_saturated, measure_pixels
from astroclearnet_benchmarks.truth.recipes import lensed_arc
from astroclearnet_benchmarks.truth.repeats import measure_difference, measure_harm
from astroclearnet_benchmarks.truth.seeds import final_seeds
from astroclearnet_benchmarks.truth.shapes import measure_shapes
from astroclearnet_benchmarks.truth.surroundings import detection_figures, measure_surroundings

FWHM = 3.0


@pytest.fixture(scope="module")
def field() -> Scene:
    """A field with bright galaxies and a saturated star."""
    return simulate_scene(SceneOptions(seed=1, shape=(256, 256), num_exposures=3))


@pytest.fixture(scope="module")
def truth(field: Scene) -> np.ndarray:
    """Its truth at the target PSF."""
    return field.truth(FWHM)


def noise(scene: Scene, factor: float, seed: int = 0) -> np.ndarray:
    """Return white noise in units of the sky noise."""
    return np.random.default_rng(seed).normal(0.0, factor * scene.sky_sigma, scene.options.shape)


def test_the_truth_has_no_error_of_any_kind(field: Scene, truth: np.ndarray) -> None:
    """If this fails, a measure invents errors."""
    product = Product("truth", truth, FWHM, np.full(truth.shape, field.sky_sigma**2))
    case = Case("field", 1, num_exposures=3)
    variants = {name: {"truth": product} for name in ("plain", "again", "bad")}
    # Equal images have no total error of which the harm could be a share.
    variants.pop("bad")
    record = measure_case(case, Exposures({"plain": field}), variants)["truth"]
    json.dumps(record)
    rows = {row.measure: row.value for row in make_rows({"field": [{"truth": record}]})}
    for name, value in rows.items():
        if name.startswith(("error", "halo", "mottle", "asymmetry", "smoothness", "difference")):
            assert value == 0.0, name
    assert rows["completeness: isolated, i = 26"] > 0.9
    assert rows["false per galaxy"] == 0.0


def test_errors_at_saturated_stars_are_told_apart(field: Scene, truth: np.ndarray) -> None:
    """If this fails, the moat of a star hides the quality of the sky, or
    nothing tells that there is one.
    """
    saturated = field.catalogue[field.catalogue["is_saturated"]]
    assert len(saturated) == 1
    rows, columns = np.indices(truth.shape)
    distance = np.hypot(rows - saturated["y"][0], columns - saturated["x"][0])
    np.testing.assert_array_equal(far_from_saturated(field), distance > FAR)
    image = truth + noise(field, 0.5) + np.where(distance <= FAR, 3.0 * field.sky_sigma, 0.0)
    errors = measure_pixels(image, truth, field)
    for name in ("sky", "faint", "sources", "all"):
        assert errors["far"][name] == pytest.approx(0.5, rel=0.1)
    near = np.count_nonzero((distance <= FAR) & (field.depth > 0.0)) / np.count_nonzero(field.depth > 0.0)
    assert errors["everywhere"]["all"] == pytest.approx(math.sqrt(0.25 + 9.0 * near), rel=0.02)


def test_halos_and_their_mottle(field: Scene, truth: np.ndarray) -> None:
    """If this fails, a halo that is too bright and one that is broken up
    cannot be told apart.
    """
    bright = measure_halos(1.1 * truth, truth, field, FWHM)
    assert len(bright["halo"]) == len(bright_galaxies(field)) == 3
    np.testing.assert_allclose(bright["halo"], 0.1)
    shifted = measure_halos(truth + field.sky_sigma, truth, field, FWHM)
    assert min(shifted["halo"]) > 0.05
    # A constant is smooth; some of it is lost at the border and the hole.
    assert max(shifted["mottle"]) < 0.1 * min(shifted["halo"])
    speckled = measure_halos(truth + noise(field, 1.0), truth, field, FWHM)
    np.testing.assert_allclose(speckled["mottle"], speckled["halo"], rtol=0.1)


def test_a_knot_makes_a_galaxy_asymmetric() -> None:
    """If this fails, shredded galaxies look like round ones."""
    scene = simulate_scene(SceneOptions(seed=1, kind="hosts", shape=(62, 62), num_exposures=1))
    truth = scene.truth(FWHM)
    knots = [dataclasses.replace(s, flux=0.1 * f) for s, f in _knots(scene)]
    shapes = measure_shapes(truth + draw_sources(knots, truth.shape, FWHM), truth, scene, FWHM)
    assert len(shapes["asymmetry"]) >= 2
    assert np.median(shapes["asymmetry"]) > 0.02


def _knots(scene: Scene) -> list[tuple[Any, float]]:
    """Return a knot for each galaxy with the flux of the galaxy."""
    knots = []
    for index in bright_galaxies(scene):
        galaxy = scene.sources[index]
        radius = 1.5 * galaxy.half_light_radius
        knot = dataclasses.replace(galaxy, x=galaxy.x + radius, profile=None, extent=0.0)
        knots.append((knot, float(scene.catalogue["flux"][index])))
    return knots


def test_lost_light_of_injections_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If this fails, biases of stars, arcs or real galaxies are not seen, or
    those of neighbours are.
    """
    clump = np.exp(-0.5 * ((np.arange(250)[:, None] - 125) ** 2 + (np.arange(250) - 90) ** 2) / 5.0**2)
    noisy = 30.0 * clump + np.random.default_rng(0).normal(0.0, 0.5, clump.shape)
    fits.writeto(tmp_path / "galaxy.fits", noisy.astype(np.float32))
    scene = simulate_scene(SceneOptions(seed=3, kind="blank", num_exposures=2))
    planned = plan_injections(scene, tmp_path / "galaxy.fits", 1)
    _, sources = inject(scene, planned, 1)
    places = np.array([[s.x, s.y] for s in sources])
    distances = np.hypot(*(places[:, None] - places).T) + 1e3 * np.eye(len(places))
    assert distances.min() >= 32.0
    kinds = {s.kind for s in sources}
    assert {"star 5-20", "star 20-100", "star above 100", "arc", "real"} <= kinds
    assert "real" not in {s.kind for s in plan_injections(scene, None, 1)}
    kept = {"arc": 0.9, "real": 0.8}
    weighed = [dataclasses.replace(s, flux=s.flux * kept.get(s.kind, 1.0)) for s in sources]
    # Smooth light that comes with a real galaxy is no structure.
    before = noise(scene, 1.0)
    after = before + draw_sources(weighed, before.shape, FWHM)
    found = measure_injections(Product("a", before, FWHM), Product("a", after, FWHM), sources)
    for kind, ratios in found.items():
        # A star of the highest ratio may reach its neighbours.
        np.testing.assert_allclose(ratios, kept.get(kind, 1.0), atol=2e-3)
    assert sum(len(ratios) for ratios in found.values()) == len(sources)


def test_real_galaxies_are_structured(shared_data: Path) -> None:
    """If this fails, what is injected as real galaxies is noise or smooth."""
    from astroclearnet_benchmarks.truth.recipes import real_galaxies

    path = shared_data / "hsc" / "Cut_HST.fits"
    light = real_galaxies(path, np.random.default_rng(1)).drawImage(nx=41, ny=41, scale=1.0).array
    assert light.sum() == pytest.approx(1.0, abs=0.02)
    rows, columns = np.indices(light.shape) - 20
    assert light[np.hypot(rows, columns) > 15].sum() < 0.02
    assert light.max() < 0.15


def test_knots_are_on_galaxies() -> None:
    """If this fails, knots are measured on the sky."""
    scene = simulate_scene(SceneOptions(seed=1, kind="hosts", shape=(96, 112), num_exposures=2, hole_size=0))
    knots = plan_knots(scene, 1)
    assert {k.signal_to_noise for k in knots} == {10.0, 20.0}
    x, y = np.asarray(scene.catalogue["x"]), np.asarray(scene.catalogue["y"])
    for knot in knots:
        nearest = np.hypot(x - knot.x, y - knot.y).argmin()
        distance = math.hypot(x[nearest] - knot.x, y[nearest] - knot.y)
        assert 0.5 <= distance / scene.catalogue["half_light_radius"][nearest] <= 1.5


def test_arcs_are_arcs() -> None:
    """If this fails, arcs are blobs: the middle of an arc and its counter
    image is dark.
    """
    for seed in range(4):
        light = lensed_arc(np.random.default_rng(seed)).drawImage(nx=41, ny=41, scale=1.0).array
        assert light.sum() == pytest.approx(1.0, abs=0.03)
        y, x = (round((light * c).sum() / light.sum()) for c in np.indices(light.shape))
        assert light[y, x] < 0.1 * light.max()
        assert np.count_nonzero(light > 0.3 * light.max()) > 8


def test_false_detections_are_blamed_on_galaxies(field: Scene, truth: np.ndarray) -> None:
    """If this fails, galaxies may be shredded without anybody being told."""
    (index, *_) = bright_galaxies(field)
    galaxy = field.catalogue[index]
    image = truth + noise(field, 0.05)
    radius = 3.0 * float(galaxy["half_light_radius"])
    shreds = 0
    for angle in np.linspace(0.0, 2.0 * math.pi, 9)[:-1]:
        y, x = round(galaxy["y"] + radius * math.sin(angle)), round(galaxy["x"] + radius * math.cos(angle))
        if 12 < y < 243 and 12 < x < 243:
            image[y - 1 : y + 2, x - 1 : x + 2] += 40.0 * field.sky_sigma
            shreds += 1
    assert shreds >= 2
    clean, shredded = (
        detection_figures([measure_surroundings(Product("map", each, FWHM), field)])
        for each in (truth + noise(field, 0.05), image)
    )
    assert clean["false per galaxy"] < 0.4
    assert shredded["false per galaxy"] > clean["false per galaxy"] + 0.5
    assert shredded["isolated, i = 26.5"] < 0.5 < clean["isolated, i = 26.5"]


def test_companions_are_found_beside_the_light_of_their_hosts() -> None:
    """If this fails, blends are searched in a way that finds none even in
    the truth.
    """
    scene = simulate_scene(SceneOptions(seed=0, kind="companions", shape=(128, 136), num_exposures=2))
    product = Product("truth", scene.truth(FWHM) + noise(scene, 0.1), FWHM)
    matched, compensated = (
        detection_figures([measure_surroundings(product, scene, compensated=c)])["companions"]
        for c in (False, True)
    )
    assert compensated > 0.4 > matched


@pytest.mark.parametrize(("factor", "expected"), [(1.0, NOMINAL), (2.0, (0.383, 0.683, 0.866))])
def test_coverage_of_known_noise(
    field: Scene, truth: np.ndarray, factor: float, expected: tuple[float, ...]
) -> None:
    """If this fails, errors that are half as large as declared, or twice,
    pass for calibrated.
    """
    product = Product(
        "map", truth + noise(field, 0.3 * factor), FWHM, np.full(truth.shape, (0.3 * field.sky_sigma) ** 2)
    )
    record = measure_coverage(product, truth, field)
    counts = np.array(record["by_truth"]).sum(axis=(0, 1))
    assert counts[0] == truth.size
    np.testing.assert_allclose(counts[1:] / counts[0], expected, atol=0.006)
    assert np.array(record["by_image"])[:, [0, 1, 3, 4, 5]].sum() == 0
    assert measure_coverage(Product("map", truth, FWHM), truth, field) == {}


def test_difference_and_harm_have_their_units(field: Scene, truth: np.ndarray) -> None:
    """If this fails, luck and harm are quoted in other units."""
    sigma = np.full(truth.shape, field.sky_sigma**2)
    one, two = (Product("map", truth + noise(field, 0.1, seed), FWHM, sigma) for seed in (1, 2))
    assert measure_difference(one, two, field) == pytest.approx(0.1 * math.sqrt(2.0), rel=0.02)
    worse = Product("map", truth + 1.2 * (one.image - truth), FWHM)
    assert measure_harm(one, worse, truth, field) == pytest.approx(0.2)
    assert math.isnan(measure_difference(worse, one, field))


def test_errors_are_those_of_scenes_not_of_objects() -> None:
    """If this fails, stars of one scene count as independent."""
    rng = np.random.default_rng(1)
    means = rng.normal(1.0, 0.1, size=30)
    records = [{"x": {"injections": {"star 5-20": [mean] * 50}}} for mean in means]
    (row,) = make_rows({"injections": records})
    assert (row.measure, row.number, row.of_what) == ("bias, star 5-20", 1500, "stars")
    assert row.value == pytest.approx(means.mean() - 1.0)
    assert row.error == pytest.approx(means.std(ddof=1) / math.sqrt(30), rel=0.15)
    assert math.isnan(make_rows({"injections": records[:1]})[0].error)


def test_limits_are_judged_with_their_errors() -> None:
    """If this fails, a limit is called met that is not, or not known to be."""

    def verdict(value: float, error: float, measure: str = "halo", product: str = "image") -> str:
        row = Row(product, measure, value, error, 1, "scenes")
        others = [Row(LINEAR, measure, 0.5, 0.1, 1, "scenes"), Row(COADD, measure, 0.5, 0.1, 1, "scenes")]
        return judge(row, [row, *others])

    assert set(LIMITS) <= set(FIGURES)
    assert verdict(0.13, 0.005) == "stretch met"
    assert verdict(0.15, 0.004) == "met"
    assert verdict(0.15, 0.006) == "**missed**"
    assert verdict(0.05, 0.06) == "stretch met, uncertain"
    assert verdict(0.05, math.nan) == "stretch met, uncertain"
    assert verdict(-0.2, 0.01, "bias, knot 10") == "**missed**"
    assert verdict(-0.2, 0.001, "harm of a bad exposure") == "met"
    isolated = "completeness: isolated, i = 26"
    assert verdict(0.25, 0.1, isolated) == "met"
    assert verdict(0.2, 0.1, isolated) == "**missed**"
    assert verdict(0.6, 0.1, "false per galaxy") == "**missed**"
    assert verdict(0.4, 0.1, "false per galaxy") == "met"
    assert verdict(0.4, 0.1, "response at 1") == ""


def test_final_seeds_cannot_be_chosen() -> None:
    """If this fails, the published scenes are others than the sentence says,
    or have been developed on.
    """
    assert final_seeds("field", 2) == final_seeds("field", 5)[:2]
    assert len({*final_seeds("field", 50), *final_seeds("hosts", 50)}) == 100
    assert min(final_seeds("field", 50)) >= 2**24
    assert final_seeds("field", 1) == [31750970]
