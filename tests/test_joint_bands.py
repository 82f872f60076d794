# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Joint restoration of the bands of a patch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    BandsResult,
    ExposureStack,
    InputError,
    JointModel,
    MaskBit,
    NoiseOptions,
    NoUsableDataError,
    RestorationError,
    RestorationResult,
    RestoreOptions,
    TilingOptions,
    load_packaged_joint_model,
    load_packaged_model,
    plan_bands_memory,
    plan_memory,
    restore_bands,
    restore_exposures,
)
from lsst.astroclearnet.core.estimate import RestorationNetwork
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.joint import JointNetwork
from lsst.astroclearnet.core.tiles._band_restoration import BandRestoration
from lsst.astroclearnet.core.tiles._choose_joint_model import choose_joint_model
from lsst.astroclearnet.core.tiles._tile_restorer import TileRestorer
from lsst.astroclearnet.tests import TARGET, ExposureArrays, make_scene

OPTIONS = RestoreOptions(noise=NoiseOptions(num_draws=2, num_realizations=1))
FAINT = ((22.3, 27.6, 60.0), (47.8, 58.1, 90.0))


def source(arrays: ExposureArrays, unit: float = 1.0) -> StackSource:
    """Return exposures in memory, in another unit of flux."""
    images, variances, good, psfs = arrays
    return StackSource(ExposureStack.from_arrays(images * unit, variances * unit**2, good, psfs))


def empty() -> StackSource:
    """Return exposures without usable pixels."""
    stack = ExposureStack.from_arrays(*make_scene(stars=FAINT, seed=9))
    stack.good[:] = False
    return StackSource(stack)


@functools.cache
def scenes() -> dict[str, StackSource]:
    """Return three bands of two faint stars."""
    return {
        band: source(make_scene(stars=[(y, x, ratio * f) for y, x, f in FAINT], seed=seed))
        for seed, (band, ratio) in enumerate({"g": 0.7, "r": 1.0, "i": 1.4}.items())
    }


def restore_together(sources: Mapping[str, StackSource], **changes: Any) -> BandsResult:
    """Restore bands on the CPU."""
    seeds = {band: ord(band[0]) for band in sources}
    arguments = {"target_fwhm": TARGET, "options": OPTIONS, "seeds": seeds, "device": "cpu", **changes}
    return restore_bands(sources, **arguments)


@functools.cache
def together() -> BandsResult:
    """Return the joint restoration of the three bands."""
    return restore_together(scenes())


@functools.cache
def alone(band: str) -> RestorationResult:
    """Return the restoration of a band on its own."""
    return restore_exposures(
        scenes()[band], target_fwhm=TARGET, options=OPTIONS, seed=ord(band), device="cpu"
    )


def assert_same(first: RestorationResult, second: RestorationResult) -> None:
    """Check that planes are the same to the last bit."""
    for name in ("image", "variance", "noise_realizations", "linear_image", "linear_variance", "mask"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_one_band_is_the_single_restoration() -> None:
    """If it fails, a survey in one band is restored otherwise than before."""
    result = restore_together({"r": scenes()["r"]})
    assert (result.failed, result.joint_network, result.joint_doubt) == ({}, "", "")
    assert_same(result.results["r"], alone("r"))
    assert result.detection.weights == {"r": 1.0}
    np.testing.assert_array_equal(result.detection.image, result.results["r"].image)
    # Brightness is averaged within the tile alone.
    inner = np.s_[4:-4, 4:-4]
    ratio = result.detection.variance[inner] / result.results["r"].variance[inner]
    # A pixel may just pass for the core of a star in one of them.
    assert np.quantile(np.abs(ratio - 1.0), 0.999) < 0.1


def test_linear_images_stay_per_band() -> None:
    """If it fails, what is measured on depends on other bands."""
    result = together()
    assert result.joint_network == load_packaged_joint_model().identity
    assert result.joint_doubt == ""
    for band, joint in result.results.items():
        np.testing.assert_array_equal(joint.linear_image, alone(band).linear_image)
        assert not np.array_equal(joint.image, alone(band).image)
        for name in ("image", "variance", "noise_realizations"):
            assert np.isfinite(getattr(joint, name)).all()
        assert (joint.variance > 0.0).all()


def test_order_of_bands_does_not_matter() -> None:
    """If it fails, two runs of the same patch differ."""
    other = restore_together(dict(reversed(scenes().items())))
    for band, result in together().results.items():
        assert_same(result, other.results[band])
    np.testing.assert_array_equal(together().detection.image, other.detection.image)


def test_unit_of_a_band_does_not_matter() -> None:
    """If it fails, images depend on the zero point of another band."""
    unit = 1e3
    arrays = make_scene(stars=[(y, x, 0.7 * f) for y, x, f in FAINT], seed=0)
    other = restore_together(scenes() | {"g": source(arrays, unit)})
    for band, factor in (("g", unit), ("r", 1.0), ("i", 1.0)):
        first, second = together().results[band], other.results[band]
        scatter = np.sqrt(np.median(first.variance))
        assert np.abs(second.image / factor - first.image).max() < 0.02 * scatter


def test_band_without_data_is_left_out() -> None:
    """If it fails, a missing band costs the others."""
    result = restore_together(scenes() | {"z": empty()})
    assert set(result.failed) == {"z"}
    assert isinstance(result.failed["z"], NoUsableDataError)
    for band in scenes():
        assert_same(result.results[band], together().results[band])


def test_pixels_of_one_band_are_those_of_the_single_restoration() -> None:
    """If it fails, a band is guided where no other band has data."""
    arrays = make_scene(stars=FAINT, seed=9)
    arrays.good[:, :, 40:] = False
    result = restore_together({"r": scenes()["r"], "z": source(arrays)})
    np.testing.assert_array_equal(result.results["r"].image[:, 45:], alone("r").image[:, 45:])
    assert not np.array_equal(result.results["r"].image[:, :40], alone("r").image[:, :40])
    missing = (result.results["z"].mask & MaskBit.NO_DATA) > 0
    detection = result.detection
    assert missing[:, 55:].all()
    assert np.isfinite(detection.image).all()
    assert not (detection.mask & MaskBit.NO_DATA).any()
    assert (detection.variance > 0.0).all()
    np.testing.assert_array_equal(detection.image[missing], result.results["r"].image[missing])


def test_detection_image_ends_where_no_band_has_data() -> None:
    """If it fails, significances at the edge of a survey are infinite."""
    sources = {}
    for seed, band in enumerate("gr"):
        arrays = make_scene(stars=FAINT, seed=seed)
        arrays.good[:, :, 50:] = False
        sources[band] = source(arrays)
    detection = restore_together(sources).detection
    has_data = (detection.mask & MaskBit.NO_DATA) == 0
    assert has_data[:, :45].all()
    assert not has_data[:, 70:].any()
    assert (detection.variance[has_data] > 0.0).all()
    assert np.isnan(detection.image[~has_data]).all()
    # As where the data do not end.
    ratio = np.median(detection.variance[:, :30]) / np.median(restore_together(scenes()).detection.variance)
    assert 0.3 < ratio < 5.0


def test_detection_image_is_a_mean_of_bands() -> None:
    """If it fails, what is detected on has another PSF or unit."""
    detection = together().detection
    assert sum(detection.weights.values()) == pytest.approx(1.0)
    images = [w * together().results[band].image for band, w in detection.weights.items()]
    expected = np.sum(images, axis=0)
    bright = expected > 0.3 * expected.max()
    # By the errors of the bands, where light is bright.
    np.testing.assert_allclose(detection.image[bright], expected[bright], rtol=0.03)
    assert detection.noise_realizations.shape == (1, *detection.image.shape)
    assert (detection.variance > 0.0).all()
    # Deeper than any band.
    assert np.median(detection.variance) < min(np.median(r.variance) for r in together().results.values())


def test_band_that_fails_at_the_end_is_left_out_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, what is detected comes from an image that nobody has."""
    finish = TileRestorer.finish

    def fail(restorer: TileRestorer, *arguments: Any) -> Any:
        if restorer.seed == ord("i"):
            raise RestorationError("not finite")
        return finish(restorer, *arguments)

    monkeypatch.setattr(TileRestorer, "finish", fail)
    result = restore_together(scenes())
    assert set(result.results) == {"g", "r"}
    weights = result.detection.weights
    assert set(weights) == {"g", "r"}
    assert sum(weights.values()) == pytest.approx(1.0)
    images = [weights[band] * result.results[band].image for band in ("g", "r")]
    expected = np.sum(images, axis=0)
    np.testing.assert_allclose(result.detection.image, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_errors_of_the_detection_image_on_blank_sky_are_declared() -> None:
    """If it fails, noise is detected, or a threshold hides what is there."""
    pulls = []
    for seed in (20, 40, 60):
        bands = {band: source(make_scene(stars=[], seed=seed + k)) for k, band in enumerate("gri")}
        detection = restore_together(bands).detection
        pulls.append(detection.image**2 / detection.variance)
        realized = detection.noise_realizations[0]
        assert 0.3 < np.sqrt(np.mean(realized**2) / np.mean(detection.variance)) < 3.0
    assert 0.3 < np.sqrt(np.mean(pulls)) < 1.3


def test_bands_that_do_not_go_together_are_refused() -> None:
    """If it fails, mistakes end in a wrong image."""
    with pytest.raises(InputError, match="no band"):
        restore_together({})
    with pytest.raises(InputError, match="seed of band i is missing"):
        restore_together(scenes(), seeds={"g": 1, "r": 2})
    with pytest.raises(InputError, match="equal seeds .*: g 1, i 2, r 2"):
        restore_together(scenes(), seeds={"g": 1, "i": 2, "r": 2})
    other = source(ExposureArrays(*(a[..., :60, :60] if k < 3 else a for k, a in enumerate(make_scene()))))
    with pytest.raises(InputError, match="same patch"):
        restore_together({"g": scenes()["g"], "r": other})
    options = dataclasses.replace(OPTIONS, model=dataclasses.replace(OPTIONS.model, source="dataset"))
    with pytest.raises(InputError, match="needs trained models"):
        restore_together(scenes(), options=options)
    with pytest.raises(NoUsableDataError, match="z: "):
        restore_together({"z": empty()})


def test_joint_model_of_another_network_is_doubted() -> None:
    """If it fails, images of a network are mixed as those of another."""
    model = dataclasses.replace(load_packaged_joint_model(), bases=("other",))
    result = restore_together(scenes(), joint_model=model)
    assert "trained with other" in result.joint_doubt


def test_joint_model_is_checked_before_exposures_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, hours of calibration end in an error that was known."""

    def read(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(StackSource, "read", read)
    packaged = load_packaged_joint_model()
    other = dataclasses.replace(packaged, bases=("other",))
    small = dataclasses.replace(packaged, network=JointNetwork(3))
    fail = dataclasses.replace(OPTIONS.model, unsuitable="fail")
    for model, choice, words in (
        (other, fail, "may not suit the bands: bands are restored by the network"),
        (packaged, dataclasses.replace(fail, source="fit"), "by the network fit, and"),
        (small, OPTIONS.model, "network of band [gri] has 6 penalty weights, and .* takes 3"),
    ):
        options = dataclasses.replace(OPTIONS, model=choice)
        with pytest.raises(InputError, match=words):
            restore_together(scenes(), joint_model=model, options=options)
    # One band has no joint network.
    with pytest.raises(AssertionError, match="read"):
        restore_together({"r": scenes()["r"]}, joint_model=small)


def test_band_that_is_left_out_is_not_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a joint network is refused that suits the other bands."""
    original = BandRestoration.prepare

    def fail(cls: object, *arguments: Any, seed: int, **others: Any) -> BandRestoration:
        if seed == ord("i"):
            raise InputError("no way") from ValueError("before")
        return original(*arguments, seed=seed, **others)

    model = dataclasses.replace(load_packaged_joint_model(), num_bands=(2, 2))
    options = dataclasses.replace(OPTIONS, model=dataclasses.replace(OPTIONS.model, unsuitable="fail"))
    with pytest.raises(InputError, match="there are 3 bands"):
        restore_together(scenes(), joint_model=model, options=options)
    monkeypatch.setattr(BandRestoration, "prepare", classmethod(fail))
    result = restore_together(scenes(), joint_model=model, options=options)
    assert (set(result.results), set(result.failed), result.joint_doubt) == ({"g", "r"}, {"i"}, "")
    # Tracebacks would keep the tensors of the band.
    error = result.failed["i"]
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_networks_of_their_own_are_no_bands_too_many() -> None:
    """If it fails, a band that may be left out has a joint network refused."""
    packaged = load_packaged_model()
    models = {band: dataclasses.replace(packaged, provenance={"band": band}) for band in "gri"}
    bases = tuple(model.identity for model in models.values())
    joint = dataclasses.replace(load_packaged_joint_model(), bases=bases, num_bands=(2, 2))
    choice = dataclasses.replace(OPTIONS.model, source="dataset", unsuitable="fail")
    options = dataclasses.replace(OPTIONS, model=choice)
    assert choose_joint_model("gri", joint, options, models) is joint
    with pytest.raises(InputError, match=f"by the network {models['i'].identity}, and"):
        choose_joint_model("gri", dataclasses.replace(joint, bases=bases[:2]), options, models)


def test_penalty_weights_are_those_of_all_bands() -> None:
    """If it fails, images of other sharpness are averaged as if they were
    the same.
    """
    models = {}
    for band, strongest in {"g": 1.0, "r": 2.0}.items():
        network = RestorationNetwork((1e-5, 1e-4, 1e-3, 1e-2, 1e-1, strongest)).eval()
        models[band] = dataclasses.replace(load_packaged_model(), network=network)
    options = dataclasses.replace(OPTIONS, model=dataclasses.replace(OPTIONS.model, source="dataset"))
    with pytest.raises(InputError, match=r"same penalty weights, not g \(.*, 1\.0\); r \(.*, 2\.0\)"):
        choose_joint_model("gr", None, options, models)


def test_errors_of_all_bands_keep_their_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, nobody can tell why a patch was lost."""

    def fail(cls: object, source: StackSource, *_: object, seed: int, **__: object) -> None:
        raise InputError("no way", number=seed)

    monkeypatch.setattr(BandRestoration, "prepare", classmethod(fail))
    with pytest.raises(InputError, match="g: no way; i: no way; r: no way") as raised:
        restore_together(scenes())
    assert raised.value.diagnostics == {f"{band}_number": ord(band) for band in ("g", "i", "r")}


def test_plan_counts_all_bands() -> None:
    """If it fails, memory runs out where bands are restored together."""
    single = plan_memory(scenes()["g"], OPTIONS, device="cpu")
    joint = plan_bands_memory(scenes(), OPTIONS, device="cpu")
    assert joint.max_exposures == 3 * single.max_exposures
    assert joint.host_memory > single.host_memory
    tight = dataclasses.replace(OPTIONS, tiling=TilingOptions(max_host_memory=0.1))
    with pytest.raises(InputError, match="max_host_memory"):
        plan_bands_memory(scenes(), tight, device="cpu")


def test_solves_are_those_of_a_band() -> None:
    """If it fails, a band that does not converge is held against others."""
    for band, result in together().results.items():
        counted = {kind: status.num_solves for kind, status in result.solves.items()}
        assert counted == {kind: status.num_solves for kind, status in alone(band).solves.items()}


def test_joint_step_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, nobody learns why no band of a patch has an image."""

    def fail(*_: object) -> list[torch.Tensor]:
        raise RestorationError("no joint image")

    monkeypatch.setattr(JointModel, "combine", fail)
    with pytest.raises(RestorationError, match=r"g: No tile .* no joint image.*; i: No tile"):
        restore_together(scenes())
