# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of templates of difference images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astroclearnet_benchmarks.scenes import Scene, SceneOptions, SceneSource, inject, simulate_scene
from astroclearnet_benchmarks.template import command, measure, subtraction, templates, visits
from astroclearnet_benchmarks.template.subtraction import WAYS, subtract
from astroclearnet_benchmarks.template.templates import Template, transfer
from lsst.astroclearnet.simulation import ArtefactOptions

SHAPE = (120, 110)
FLUX = 3000.0
STAR = SceneSource("star", 60.3, 55.8, flux=2e5)
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def exposure(seeing: float, sources: list[SceneSource], noise: bool = False) -> Scene:
    """Return one exposure of some sources."""
    artefacts = dataclasses.replace(ArtefactOptions.none(), noise=noise)
    options = SceneOptions(
        seed=3,
        kind="blank",
        shape=SHAPE,
        num_exposures=1,
        seeing_arcsec=(seeing, seeing),
        hole_size=0,
        artefacts=artefacts,
    )
    return inject(simulate_scene(options), sources, 4)[0] if sources else simulate_scene(options)


def as_template(scene: Scene, share: float) -> Template:
    """Take an exposure as template, with a share of its noise."""
    psf = transfer(scene.psfs[0], SHAPE)
    power = np.full(psf.shape, share * scene.conditions[0].sky_variance)
    return Template(scene.images[0].astype(float), psf, power, np.ones(SHAPE))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seeing", [0.6, 0.9])
def test_a_constant_star_vanishes_and_a_new_one_is_measured(way: str, seeing: float) -> None:
    """If it fails, kernels do not match PSFs, or fluxes are not those of a
    point source.
    """
    template = as_template(exposure(0.75, [STAR]), 0.1)
    new = SceneSource("supernova", 30.0, 80.0, flux=FLUX)
    science = exposure(seeing, [STAR, new])
    rows, columns = np.indices(SHAPE)
    near_star = np.hypot(rows - STAR.y, columns - STAR.x) < 16.0
    score = subtract(science, science.psfs[0], template, way, near_star)
    # Gaussians cannot make every kernel, least of all one that sharpens.
    fitted = way == "fitted kernel"
    assert score.flux[80, 30] == pytest.approx(FLUX, rel=0.1 if fitted else 0.01)
    assert np.abs(score.flux[near_star]).max() < (1e-3 if fitted else 1e-4) * STAR.flux


@pytest.mark.parametrize("way", WAYS)
def test_the_noise_is_the_one_declared(way: str) -> None:
    """If it fails, heights in sigma are not those of noise."""
    science = exposure(0.6, [], noise=True)
    rng = np.random.default_rng(5)
    empty = as_template(exposure(0.9, []), 0.3)
    noise = np.sqrt(empty.power[0, 0]) * rng.normal(size=SHAPE)
    score = subtract(science, science.psfs[0], empty._replace(image=noise), way, EVERYWHERE)
    np.testing.assert_allclose(score.sigma, score.sky_sigma, rtol=1e-3)
    # Some hundred independent places.
    if way != "fitted kernel":
        assert np.std(score.flux) == pytest.approx(score.sky_sigma, rel=0.15)


def test_without_noise_of_the_template_it_is_the_bound() -> None:
    """If it fails, what the template costs is not measured from the bound."""
    science = exposure(0.7, [])
    perfect = templates.perfect_template(np.zeros(SHAPE), science.psfs[0])
    score = subtract(science, science.psfs[0], perfect, "ZOGY", EVERYWHERE)
    bound = np.sqrt(science.conditions[0].sky_variance / np.sum(science.psfs[0].astype(float) ** 2))
    assert score.sky_sigma == pytest.approx(bound, rel=1e-3)


def test_decorrelation_is_the_optimum_for_white_noise() -> None:
    """If it fails, decorrelation is not that of DMTN-021: with white noise it
    loses nothing.
    """
    for seeing in (0.6, 0.9):
        science = exposure(seeing, [], noise=True)
        template = as_template(exposure(0.75, []), 0.2)
        one, two = (subtract(science, science.psfs[0], template, way, EVERYWHERE) for way in list(WAYS)[:2])
        assert two.sky_sigma == pytest.approx(one.sky_sigma, rel=1e-3)
        np.testing.assert_allclose(two.flux, one.flux, atol=0.03 * one.sky_sigma)


def test_noise_of_templates_is_the_one_of_their_pixels() -> None:
    """If it fails, spectra and variances of templates disagree."""
    options = SceneOptions(seed=6, kind="blank", shape=(72, 72), num_exposures=3, hole_size=0)
    scene = simulate_scene(dataclasses.replace(options, artefacts=ArtefactOptions.none()))
    made = templates.make_templates(scene, scene.psfs)
    assert list(made) == list(templates.TEMPLATES)
    for name in ("direct", "PSF-matched"):
        assert np.median(made[name].variance) == pytest.approx(1.0, rel=0.01)
    weights = np.array([1.0 / c.sky_variance for c in scene.conditions])
    assert made["direct"].power[3, 4] == pytest.approx(1.0 / weights.sum(), rel=0.05)
    # The linear image has the noise of its variance plane, with no power
    # where its PSF has none.
    power = made["linear"].power
    assert (power >= 0.0).all()
    assert power[36, 36] < 1e-2 * power.max()


def test_visits_differ_by_the_transients(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, transients are in the template, or counted elsewhere."""
    monkeypatch.setattr(visits, "_SHAPE", (160, 160))
    field = visits.simulate_visits(7)
    assert field.templates.options.num_exposures == 12
    assert len(field.science) == len(field.light) == len(visits.SEEINGS)
    assert {t.kind for t in field.transients} == set(visits.KINDS)
    assert np.sum(list(field.places.values()), axis=0).max() == 1
    for scene, light, seeing in zip(field.science, field.light, visits.SEEINGS, strict=True):
        assert scene.conditions[0].fwhm * 0.168 == pytest.approx(seeing)
        new = scene.images[0] - light
        away = ~visits.pixels_near(field.transients, 18.0)
        noise = np.sqrt(scene.true_variances[0])
        assert np.std(new[away] / noise[away]) == pytest.approx(1.0, abs=0.03)
        total = sum(t.flux for t in field.transients)
        spread = np.sqrt(np.sum(noise[~away] ** 2))
        assert new[~away].sum() == pytest.approx(total, abs=4.0 * spread)
    apart = [
        np.hypot(one.x - other.x, one.y - other.y)
        for k, one in enumerate(field.transients)
        for other in field.transients[:k]
        if "variable stars" not in (one.kind, other.kind)
    ]
    assert min(apart) >= 20.0


def record(case: str, seeing: float, template: str, way: str) -> dict[str, Any]:
    """Return a record with known figures."""
    flux, sigma = 500.0, 50.0
    transients = [[kind, flux, flux + sign * sigma, sigma, 6.0] for kind in visits.KINDS for sign in (1, -1)]
    transients[0][4] = 4.1
    return {
        "case": case,
        "seeing": seeing,
        "template": template,
        "way": way,
        "sky_sigma": 40.0 if template == measure.PERFECT else 42.0,
        "transients": transients,
        "areas": {"blank sky": 80000, "sources": 20000, "bright stars": 5000, "cores": 100},
        "peaks": {"blank sky": [5.5, 4.0], "sources": [4.2, 4.0], "bright stars": [9.0] * 3, "cores": []},
        "squares": {"blank sky": 8e4, "sources": 2e4, "bright stars": 5e3, "cores": 400.0},
    }


def test_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, figures of the page are not those of the records."""

    def measured(seed: int) -> list[dict[str, Any]]:
        return [
            record(case, seeing, *names)
            for case in measure.CASES
            for seeing in visits.SEEINGS
            for names in measure.combinations()
        ]

    monkeypatch.setattr(command, "measure_field", measured)
    page, work = tmp_path / "template.md", tmp_path / "work"
    words = ["--seeds", "2", "--output", str(page), "--work", str(work)]
    assert command.main(words) == 0
    text = page.read_text()
    assert text.count("| linear | ZOGY |") == len(measure.CASES) * len(visits.SEEINGS)
    (row,) = {line for line in text.splitlines() if line.startswith("| direct | fitted kernel |")}
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    # 2 of 160000 pixels, none of 40000, 6 of 10000; the third highest peak.
    assert cells[2:6] == ["1.05", "1.25 ± 0.88", "< 7.5", "60 ± 24"]
    assert cells[6] == "0.83 ± 0.11 (4.20)"
    assert cells[7:10] == ["0.0 ± 2.5", "1", "1"]
    assert cells[-1] == "2.00"
    # Fields that were measured are not measured again.
    monkeypatch.setattr(command, "measure_field", None)
    assert command.main(words) == 0


def test_kernels_of_ip_diffim() -> None:
    """If it fails, the basis is not the one of its defaults."""
    narrow, wide = (templates._gaussian(fwhm, SHAPE) for fwhm in (3.5, 5.5))
    variance = np.ones(SHAPE)
    inputs = subtraction.Inputs(
        variance, variance, 1.0, wide, Template(variance, narrow, variance, variance), EVERYWHERE
    )
    basis = subtraction._kernel_basis(inputs)
    assert len(basis) == 15 + 6 + 6
    assert {kernel.shape[0] % 2 for kernel in basis} == {1}
    assert 21 <= basis[0].shape[0] <= 35
    # The second Gaussian is the one between both PSFs.
    middle = basis[15][basis[15].shape[0] // 2]
    offsets = np.arange(-(len(middle) // 2), len(middle) // 2 + 1)
    width = np.sqrt(np.sum(middle * offsets**2) / middle.sum())
    assert width == pytest.approx(np.sqrt(5.5**2 - 3.5**2) / 2.3548, rel=0.02)
