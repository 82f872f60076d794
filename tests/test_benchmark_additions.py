# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes with structure, on dithered grids, and with additions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from astroclearnet_benchmarks.scenes import (
    Scene,
    SceneOptions,
    SceneSource,
    add_exposure,
    draw_sources,
    inject,
    simulate_scene,
)
from astroclearnet_benchmarks.scenes._exposures import expose_source, signal_to_noise
from lsst.astroclearnet.metrics import fwhm_of_kernel
from lsst.astroclearnet.simulation import PIXEL_SCALE, ArtefactOptions

SHAPE = (96, 112)
STARS = [SceneSource("star", 30.2, 40.7, signal_to_noise=10.0), SceneSource("star", 70.0, 50.0, flux=5e4)]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A small field."""
    return simulate_scene(SceneOptions(seed=2, shape=SHAPE, num_exposures=3))


def test_injected_light_and_its_photon_noise_are_all_that_changes(scene: Scene) -> None:
    """If this fails, pairs of restorations have different noise, or the light
    of a source has none of its own.
    """
    added, sources = inject(scene, STARS, 1)
    difference = added.images - scene.images
    for t, c in enumerate(scene.conditions):
        electrons = difference[t] * c.per_njy
        np.testing.assert_allclose(electrons, np.round(electrons), atol=0.02)
        np.testing.assert_allclose(
            added.variances[t] - scene.variances[t], difference[t] / c.per_njy, atol=2e-3 / c.per_njy**2
        )
        expected = sum(s.flux for s in sources)
        sigma = np.sqrt(expected / c.per_njy)
        assert abs(difference[t].sum() - expected) < 5.0 * sigma
    far = np.hypot(*np.subtract(np.indices(SHAPE), [[[50.0]], [[70.0]]])) > 60.0
    assert not difference[:, far].any()
    assert added.catalogue is scene.catalogue


def test_injected_sources_have_the_ratio_asked_for(scene: Scene) -> None:
    """If this fails, biases are quoted for another brightness."""
    added, (source, _) = inject(scene, STARS, 1)
    alone, _ = inject(scene, [source], 1)
    stamps = [expose_source(source, c, 20) for c in scene.conditions]
    ratio = signal_to_noise(source.flux, stamps, added.good / alone.true_variances)
    assert ratio == pytest.approx(10.0, rel=1e-3)


def test_a_source_without_exposures_is_refused(scene: Scene) -> None:
    """If this fails, its flux is endless."""
    with pytest.raises(ValueError, match="No exposure constrains the star"):
        inject(scene, [SceneSource("star", -300.0, 0.0, signal_to_noise=5.0)], 1)


def test_an_exposure_is_added_and_the_others_stay(scene: Scene) -> None:
    """If this fails, the harm of a bad exposure is that of other noise."""
    more = add_exposure(scene, 1.5)
    np.testing.assert_array_equal(more.images[:-1], scene.images)
    assert more.options.num_exposures == 4 == len(more.psfs) == len(more.conditions)
    assert fwhm_of_kernel(more.psfs[-1]) * PIXEL_SCALE == pytest.approx(1.5, rel=0.05)
    # The same sky: no excess over noise where all is smooth at that seeing.
    light = (more.images[-1] - scene.truth(1.5 / PIXEL_SCALE)) / np.sqrt(more.true_variances[-1])
    assert np.median(np.abs(light[more.good[-1]])) < 0.9


def test_galaxies_with_structure_are_bright_isolated_and_uneven() -> None:
    """If this fails, knots are injected on smooth galaxies."""
    scene = simulate_scene(SceneOptions(seed=1, kind="hosts", shape=SHAPE, num_exposures=1))
    assert len(scene.catalogue) == 9
    for index, galaxy in enumerate(scene.catalogue):
        light = scene.source_image(index, 1.5)
        rows, columns = np.indices(SHAPE)
        inside = np.hypot(rows - galaxy["y"], columns - galaxy["x"]) < galaxy["half_light_radius"]
        # Inclination and the PSF move some light out.
        assert 0.3 < light[inside].sum() / galaxy["flux"] < 0.6
        y, x = round(galaxy["y"]), round(galaxy["x"])
        stamp = np.pad(light, 12)[y : y + 25, x : x + 25]
        asymmetry = np.abs(stamp - stamp[::-1, ::-1]).sum() / stamp.sum()
        assert asymmetry > 0.1


@pytest.mark.parametrize(("kind", "least"), [("cluster", 0.3), ("nebula", 0.7)])
def test_diffuse_light_covers_the_sky(kind: str, least: float) -> None:
    """If this fails, light without edges is not tested."""
    scene = simulate_scene(SceneOptions(seed=1, kind=kind, shape=SHAPE, num_exposures=4))
    assert np.mean(scene.truth(4.0) > 0.3 * scene.sky_sigma) > least
    assert "diffuse" in scene.catalogue["kind"]


def test_dithered_exposures_are_those_of_their_positions() -> None:
    """If this fails, native grids are tested with wrong positions."""
    quiet = ArtefactOptions(noise=False, saturation=False, cosmic_rays=0.0, bad_columns=0)
    options = SceneOptions(
        seed=5, kind="stars", shape=(64, 72), num_exposures=4, max_dither=0.5, hole_size=0, artefacts=quiet
    )
    scene = simulate_scene(options)
    assert scene.positions is not None
    offsets = np.array([c.offset for c in scene.conditions])
    assert 0.1 < np.abs(offsets).max() <= 0.5
    star = [SceneSource("star", 30.0, 30.0, flux=1.0)]
    for conditions, (dy, dx) in zip(scene.conditions, offsets, strict=True):
        stamp = expose_source(star[0], conditions, 20)
        image = stamp.array
        rows, columns = np.indices(image.shape)
        middle = image.shape[0] // 2
        assert (image * (rows - middle)).sum() + stamp.center.y == pytest.approx(30.0 - dy, abs=0.02)
        assert (image * (columns - middle)).sum() + stamp.center.x == pytest.approx(30.0 - dx, abs=0.02)
    with pytest.raises(ValueError, match="max_dither"):
        SceneOptions(seed=1, max_dither=3.0)


def test_sources_are_drawn_as_the_truth(scene: Scene) -> None:
    """If this fails, injections are measured with another profile."""
    fluxes = np.asarray(scene.catalogue["flux"]).tolist()
    known = [dataclasses.replace(s, flux=f) for s, f in zip(scene.sources, fluxes, strict=True)]
    np.testing.assert_allclose(draw_sources(known, SHAPE, 3.0), scene.truth(3.0), atol=1e-9)
