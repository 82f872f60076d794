# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes on a common grid: what is called true of them must be true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from astroclearnet_benchmarks.scenes import SCENE_KINDS, Scene, SceneOptions, simulate_scene
from lsst.astroclearnet.metrics import fwhm_of_kernel, point_source_image
from lsst.astroclearnet.simulation import PIXEL_SCALE, ArtefactOptions

SHAPE = (88, 122)


@pytest.fixture(scope="module")
def ideal() -> Scene:
    """Stars without noise and without defects."""
    options = SceneOptions(
        seed=3, kind="stars", shape=SHAPE, num_exposures=3, hole_size=0, artefacts=ArtefactOptions.none()
    )
    return simulate_scene(options)


@pytest.fixture(scope="module")
def blank() -> Scene:
    """Blank sky with all defects."""
    options = SceneOptions(
        seed=4, kind="blank", shape=(150, 181), num_exposures=5, artefacts=ArtefactOptions(cosmic_rays=60.0)
    )
    return simulate_scene(options)


def test_exposures_are_the_sources_at_the_psfs_given(ideal: Scene) -> None:
    """If this fails, a method is judged with another PSF, another centre or
    another flux than its inputs have.
    """
    stars = ideal.catalogue
    for image, psf, good in zip(ideal.images, ideal.psfs, ideal.good, strict=True):
        expected = point_source_image(SHAPE, psf, stars["x"], stars["y"], stars["flux"])
        deviation = np.abs(image - expected)[good]
        assert deviation.max() < 2e-3 * expected.max()
    np.testing.assert_allclose(ideal.psfs.sum(axis=(1, 2)), 1.0, rtol=1e-6)


def test_seeing_has_the_range_asked_for() -> None:
    """If this fails, scenes are sharper or softer than the benchmark says."""
    scene = simulate_scene(SceneOptions(seed=8, kind="blank", shape=(32, 40), num_exposures=40))
    widths = np.array([fwhm_of_kernel(psf) for psf in scene.psfs]) * PIXEL_SCALE
    assert 0.48 < widths.min() < 0.55
    assert 0.9 < widths.max() < 0.97


def test_signal_to_noise_is_flux_over_the_cramer_rao_bound(ideal: Scene) -> None:
    """If this fails, all scatters are over a wrong bound."""
    index = int(np.argmax(ideal.catalogue["is_clean"]))
    star = ideal.catalogue[index]
    unit = [point_source_image(SHAPE, psf, [star["x"]], [star["y"]], [1.0]) for psf in ideal.psfs]
    information = np.sum(np.square(unit) * ideal.good / ideal.true_variances)
    assert star["signal_to_noise"] == pytest.approx(star["flux"] * np.sqrt(information), rel=2e-3)
    assert np.sum(ideal.catalogue["is_clean"]) >= 3


def test_truth_is_the_sum_of_its_sources_at_their_places(ideal: Scene) -> None:
    """If this fails, every method is compared with a wrong sky."""
    truth = ideal.truth(3.0)
    total = sum(ideal.source_image(k, 3.0) for k in range(len(ideal.catalogue)))
    np.testing.assert_allclose(truth, total, atol=1e-6 * truth.max())
    image = ideal.source_image(1, 3.0)
    rows, columns = np.indices(SHAPE)
    flux = float(ideal.catalogue["flux"][1])
    assert image.sum() == pytest.approx(flux, rel=1e-6)
    assert (image * columns).sum() / flux == pytest.approx(ideal.catalogue["x"][1], abs=1e-4)
    assert (image * rows).sum() / flux == pytest.approx(ideal.catalogue["y"][1], abs=1e-4)
    # FWHM 3: a sum of squares of 1 / (4 pi sigma^2).
    sigma = 3.0 / 2.3548
    assert np.sum((image / flux) ** 2) == pytest.approx(1.0 / (4.0 * np.pi * sigma**2), rel=1e-3)


def test_noise_and_variance_planes(blank: Scene) -> None:
    """If this fails, errors are in wrong units, or variance planes lack the
    noise that those of pipelines have.
    """
    used = blank.good & (blank.artefacts == 0.0)
    pulls = (blank.images / np.sqrt(blank.true_variances))[used]
    assert pulls.std() == pytest.approx(1.0, abs=0.01)
    assert pulls.mean() == pytest.approx(0.0, abs=0.01)
    image, variance = blank.images[0][used[0]], blank.variances[0][used[0]]
    assert np.corrcoef(image, variance)[0, 1] > 0.999
    weights = 1.0 / np.median(blank.true_variances, axis=(1, 2))
    assert blank.sky_sigma == pytest.approx(weights.sum() ** -0.5, rel=1e-3)


def test_masks_and_artefacts(blank: Scene) -> None:
    """If this fails, the scenes lack the defects that methods must cope
    with.
    """
    hole, number = label(blank.depth == 0.0)
    assert number == 1
    rows, columns = np.nonzero(hole)
    assert len(rows) == 81
    assert np.ptp(rows) == np.ptp(columns) == 8
    assert np.all(blank.artefacts[~blank.good] == 0.0)
    crossed = blank.trail.any(axis=(1, 2))
    assert crossed.sum() == 1
    rays = (blank.artefacts > blank.trail + 10.0 * blank.sky_sigma).sum(axis=(1, 2))
    assert rays.sum() > 20
    assert np.mean((blank.depth > 0.0) & (blank.depth < 0.99)) > 0.1
    assert blank.blank.all()


def test_transients_are_not_in_the_truth() -> None:
    """If this fails, a method that removes a supernova is praised for it."""
    scene = simulate_scene(SceneOptions(seed=5, kind="transients", shape=SHAPE, num_exposures=12))
    changing = scene.catalogue[~scene.catalogue["is_steady"]]
    assert sorted(changing["kind"]) == ["asteroid", "supernova"]
    shines = (scene.transients.max(axis=(1, 2)) > 0.0).sum()
    assert shines in (3, 4)
    supernova = changing[changing["kind"] == "supernova"][0]
    x, y = round(float(supernova["x"])), round(float(supernova["y"]))
    peak = scene.transients[:, y, x].max()
    assert peak > 20.0 * scene.truth(3.0)[y, x]


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_same_options_give_the_same_scene(kind: str) -> None:
    """If this fails, a table cannot be reproduced."""
    options = SceneOptions(seed=6, kind=kind, shape=(60, 76), num_exposures=2)
    one, two = simulate_scene(options), simulate_scene(options)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.good, two.good)
    assert one.images.dtype == one.variances.dtype == one.psfs.dtype == np.float32


def test_isolated_stars_are_isolated_and_fill_the_bins() -> None:
    """If this fails, neighbours disturb the statistics of stars."""
    stars = simulate_scene(SceneOptions(seed=7, kind="stars", num_exposures=2)).catalogue
    distance = np.hypot(*(np.subtract.outer(stars[c], stars[c]) for c in ("x", "y")))
    assert np.min(distance[distance > 0.0]) >= 31.9
    counts = np.histogram(stars["signal_to_noise"], bins=[0.0, 20.0, 100.0, 1000.0, 4000.0])[0]
    assert counts.min() >= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "moon"}, "kind='moon' must be one of"),
        ({"num_exposures": 0}, "num_exposures=0 must be at least 1"),
        ({"stamp_size": 40}, "stamp_size=40 must be odd"),
    ],
)
def test_options_without_sense_are_refused(arguments: dict[str, str | int], message: str) -> None:
    """If this fails, a mistake shows up far from its cause."""
    with pytest.raises(ValueError, match=message):
        SceneOptions(seed=1, **arguments)  # type: ignore[arg-type]
