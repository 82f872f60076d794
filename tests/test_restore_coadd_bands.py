# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The task that restores all bands of a patch together, without a Butler."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import joint_model_to_dict, model_to_dict
from lsst.astroclearnet.core import (
    BandsResult,
    InputError,
    JointModel,
    NoUsableDataError,
    load_packaged_joint_model,
    load_packaged_model,
    restore_bands,
)
from lsst.astroclearnet.tasks import (
    BandInputs,
    RestorationAlgorithmError,
    RestoreCoaddBandsConfig,
    RestoreCoaddBandsConnections,
    RestoreCoaddBandsTask,
    RestoreCoaddConfig,
    RestoreCoaddTask,
    gather_inputs,
    restore_coadd_bands,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import DataCoordinate, DimensionUniverse
from lsst.images import VisitImage
from lsst.images.cells import CellCoadd
from lsst.pipe.base import InputQuantizedConnection, NoWorkFound, Struct, UpstreamFailureNoWorkFound

SHAPE = (140, 150)
SIGMA = 1.0
WIDTHS = {"g": (4.4, 5.0, 4.7), "i": (3.4, 3.8, 4.2)}
COLOR = {"g": 0.5, "i": 1.0}
VIEWS: tuple[dict[str, Any], ...] = (
    {"offset": (3.3, 30.2)},
    {"offset": (1.0, 26.0), "rotation": 9.0},
    {"offset": (0.0, 35.5), "rotation": -7.0},
)


def set_up[T: RestoreCoaddConfig](config: T, **changes: Any) -> T:
    """Set a configuration for small patches."""
    config.geometry_source = "dict"
    config.target_fwhm = 0.7
    config.device = "cpu"
    config.do_plot = False
    config.restoration.noise.num_draws = 2
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return config


def make_task(**changes: Any) -> RestoreCoaddBandsTask:
    """Return the task."""
    return RestoreCoaddBandsTask(config=set_up(RestoreCoaddBandsConfig(), **changes))


@pytest.fixture(scope="module")
def field() -> StarField:
    """Stars on patch 0."""
    rng = np.random.default_rng(9)
    return StarField(
        geometry=make_patch_geometry(cell_shape=(24, 20)).patch(3, 0),
        x=rng.uniform(12.0, 88.0, 6),
        y=rng.uniform(12.0, 84.0, 6),
        flux=rng.uniform(500.0, 4000.0, 6),
    )


def make_bad_visit() -> VisitImage:
    """Return one in r without a usable pixel."""
    projection = make_projection(SHAPE, offset=(0.0, 30.0), visit=90)
    return make_visit_image(np.ones(SHAPE), projection, planes={"BAD": np.ones(SHAPE, dtype=bool)}, band="r")


@pytest.fixture(scope="module")
def bands(field: StarField) -> dict[str, BandInputs]:
    """Three visits in g and i, and one that is all bad in r."""
    bands = {"r": BandInputs([make_bad_visit()])}
    for number, (band, widths) in enumerate(WIDTHS.items()):
        visits = []
        for n, (view, fwhm) in enumerate(zip(VIEWS, widths, strict=True)):
            rng = np.random.default_rng(10 * number + n)
            projection = make_projection(SHAPE, visit=1 + 10 * number + n, **view)
            image = COLOR[band] * field.render(projection, SHAPE, fwhm) + rng.normal(0.0, SIGMA, SHAPE)
            visits.append(make_visit_image(image, projection, variance=SIGMA**2, fwhm=fwhm, band=band))
        bands[band] = BandInputs(visits)
    return bands


@dataclasses.dataclass(frozen=True)
class Restored:
    """What the task made of them, with its metadata and log."""

    outputs: Struct
    metadata: Any
    messages: list[str]


@pytest.fixture(scope="module")
def restored(field: StarField, bands: dict[str, BandInputs]) -> Restored:
    """All bands, restored together."""
    task = make_task(do_plot=True)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    task.log.logger.addHandler(handler)
    outputs = task.run(geometry=field.geometry, bands=bands)
    task.log.logger.removeHandler(handler)
    return Restored(outputs, task.metadata, [record.getMessage() for record in records])


def test_every_band_has_its_products(field: StarField, restored: Restored) -> None:
    """If it fails, a band lacks a product, or has those of another."""
    outputs = restored.outputs
    assert outputs.partial is None
    per_band = {name for name, value in outputs.getDict().items() if isinstance(value, dict)}
    suffixes = ("", "_demand", "_linear", "_linear_noise", "_metrics", "_plot")
    assert per_band == {f"restored_coadd{suffix}" for suffix in suffixes}
    for name in per_band:
        assert sorted(getattr(outputs, name)) == ["g", "i"]
    for band in ("g", "i"):
        for name in ("restored_coadd", "restored_coadd_linear"):
            coadd: CellCoadd = getattr(outputs, name)[band]
            assert coadd.band == band
            assert coadd.bbox == field.geometry.bbox
            assert len(coadd.provenance.inputs) == 3
            assert coadd.metadata["joint_bands"] == "g,i"
            assert coadd.metadata["target_fwhm_arcsec"] == pytest.approx(0.7)
        metrics = outputs.restored_coadd_metrics[band]
        assert metrics["patch"]["band"] == band
        identity = load_packaged_joint_model().identity
        assert metrics["network"]["joint_bands"] == ["g", "i"]
        assert metrics["network"]["joint_network"] == coadd.metadata["joint_network"] == identity


def test_stars_have_the_flux_of_their_own_band(field: StarField, restored: Restored) -> None:
    """If it fails, light of one band is in another."""
    rows, columns = np.mgrid[-6:7, -6:7]
    sigma = 0.7 / 0.168 / 2.3548
    for band, color in COLOR.items():
        for name in ("restored_coadd", "restored_coadd_linear"):
            coadd = getattr(restored.outputs, name)[band]
            ratios = []
            for x, y, flux in zip(field.x, field.y, field.flux, strict=True):
                row, column = round(y) - coadd.bbox.y.start, round(x) - coadd.bbox.x.start
                cut = coadd.image.array[row - 6 : row + 7, column - 6 : column + 7]
                radius = (rows - (y - round(y))) ** 2 + (columns - (x - round(x))) ** 2
                psf = np.exp(-0.5 * radius / sigma**2) / (2 * np.pi * sigma**2)
                ratios.append((cut * psf).sum() / (psf**2).sum() / (color * flux))
            assert np.median(ratios) == pytest.approx(1.0, abs=0.02), (band, name)


def test_detection_coadd_is_the_mean_of_the_bands(field: StarField, restored: Restored) -> None:
    """If it fails, its weights are not those that it names, or it cannot be
    read as a coadd.
    """
    coadd: CellCoadd = restored.outputs.restored_coadd_detection
    assert coadd.band is None
    assert coadd.unit == u.nJy
    assert coadd.bbox == field.geometry.bbox
    assert coadd.patch == field.geometry.definition
    assert coadd.metadata["joint_bands"] == "g,i"
    weights = {band: float(str(coadd.metadata[f"weight_{band}"])) for band in ("g", "i")}
    assert sum(weights.values()) == pytest.approx(1.0)
    images = [weights[band] * c.image.array for band, c in restored.outputs.restored_coadd.items()]
    mean = np.sum(images, axis=0)
    bright = mean > 0.5 * mean.max()
    np.testing.assert_allclose(coadd.image.array[bright], mean[bright], rtol=0.02)
    assert (coadd.variance.array > 0).all()
    assert len(coadd.noise_realizations) == 2
    psf = restored.outputs.restored_coadd["g"].psf
    np.testing.assert_array_equal(
        coadd.psf.compute_kernel_image(x=70, y=60).array, psf.compute_kernel_image(x=70, y=60).array
    )


def test_band_without_usable_exposures_is_left_out(restored: Restored) -> None:
    """If it fails, one bad band costs the others, or is lost in silence."""
    (message,) = (text for text in restored.messages if text.startswith("Left band r out"))
    assert "no_usable_pixels" in message or "too_few_pixels" in message


def test_metadata_are_by_band(restored: Restored) -> None:
    """If it fails, a band overwrites what is recorded of another."""
    seeds = {band: restored.metadata[band]["network_seed"] for band in ("g", "i")}
    single = RestoreCoaddTask(config=set_up(RestoreCoaddConfig()))
    for band, seed in seeds.items():
        metrics = restored.outputs.restored_coadd_metrics[band]
        # That of the band alone, so that the two can be compared.
        assert seed == single.make_seed(f"test_map, tract 3, patch 0, {band}")
        assert seed == metrics["network"]["seed"]
    for name in ("plan_num_tiles", "plan_host_memory", "plan_disk", "peak_host_memory", "torch_version"):
        assert name in restored.metadata


def test_linear_coadds_are_those_of_each_band_alone(
    field: StarField, bands: dict[str, BandInputs], restored: Restored
) -> None:
    """If it fails, what is measured on depends on other bands."""
    single = RestoreCoaddTask(config=set_up(RestoreCoaddConfig())).run(
        visit_images=bands["g"].visit_images, geometry=field.geometry, band="g"
    )
    joint = restored.outputs.restored_coadd_linear["g"]
    np.testing.assert_array_equal(joint.image.array, single.restored_coadd_linear.image.array)
    # That comes from simulated observations of the denoised coadd.
    np.testing.assert_allclose(joint.variance.array, single.restored_coadd_linear.variance.array, rtol=0.05)


def test_target_psf_is_the_sharpest_that_all_bands_can_have(
    field: StarField, bands: dict[str, BandInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, the widest band is sharpened beyond max_noise."""
    wanted: list[float] = []

    def stop(sources: Any, *, target_fwhm: float, **arguments: Any) -> BandsResult:
        wanted.append(target_fwhm)
        raise NoUsableDataError("stopped")

    monkeypatch.setattr(restore_coadd_bands, "restore_bands", stop)
    task = make_task(target_fwhm=None)
    with pytest.raises(RestorationAlgorithmError, match="stopped"):
        task.run(geometry=field.geometry, bands=bands)
    suggested = []
    for band in ("g", "i"):
        exposures = task.read_exposures(bands[band], geometry=field.geometry, band=band)
        suggested.append(task.suggest_target_fwhm(exposures.source))
    assert suggested[0] > suggested[1]
    assert wanted == [suggested[0]]


def test_failed_band_does_not_cost_the_others(
    field: StarField, bands: dict[str, BandInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, the patch is lost with one of its bands."""

    def fail(sources: Any, **arguments: Any) -> BandsResult:
        result = restore_bands({"i": sources["i"]}, **arguments)
        return dataclasses.replace(result, failed={"g": InputError("the sky fell down", height=0)})

    monkeypatch.setattr(restore_coadd_bands, "restore_bands", fail)
    outputs = make_task(do_linear=False).run(geometry=field.geometry, bands=bands)
    assert list(outputs.restored_coadd) == ["i"]
    assert "restored_coadd_linear" not in outputs.getDict()
    assert isinstance(outputs.partial, RestorationAlgorithmError)
    assert "patch 0, g could not be restored: the sky fell down" in str(outputs.partial)
    # What the executor records.
    assert outputs.partial.metadata == {"g_error": "InputError", "g_height": 0}


def test_patch_without_usable_exposures_has_no_work(field: StarField) -> None:
    """If it fails, the reason that there is no coadd is lost."""
    with pytest.raises(UpstreamFailureNoWorkFound, match="TestCam visit 90"):
        make_task().run(geometry=field.geometry, bands={"r": BandInputs([make_bad_visit()])})
    with pytest.raises(NoWorkFound, match="No visit image has a pixel"):
        make_task().run(geometry=field.geometry, bands={"r": BandInputs([])})


def test_each_band_has_its_own_network(
    field: StarField, bands: dict[str, BandInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a band is restored with the network of another."""
    models = {band: load_packaged_model() for band in ("g", "i")}
    models["g"] = dataclasses.replace(models["g"], provenance={"band": "g"})
    assert models["g"].identity != models["i"].identity
    given: list[dict[str, str]] = []

    def stop(sources: Any, *, models: Any, **arguments: Any) -> BandsResult:
        given.append({band: model.identity for band, model in models.items()})
        raise NoUsableDataError("stopped")

    monkeypatch.setattr(restore_coadd_bands, "restore_bands", stop)
    trained = {
        band: dataclasses.replace(bands[band], restoration_model=model_to_dict(model))
        for band, model in models.items()
    }
    config = set_up(RestoreCoaddBandsConfig())
    config.restoration.model.source = "dataset"
    with pytest.raises(RestorationAlgorithmError, match="stopped"):
        RestoreCoaddBandsTask(config=config).run(geometry=field.geometry, bands=trained)
    assert given == [{band: model.identity for band, model in models.items()}]


def test_joint_network_of_the_survey_is_used(
    field: StarField, bands: dict[str, BandInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, another joint network restores bands than meant."""
    model = dataclasses.replace(load_packaged_joint_model(), provenance={"skymap": "m"})
    given: list[str] = []

    def stop(sources: Any, *, joint_model: JointModel, **arguments: Any) -> BandsResult:
        given.append(joint_model.identity)
        raise NoUsableDataError("stopped")

    monkeypatch.setattr(restore_coadd_bands, "restore_bands", stop)

    def restore(joint_model: Any, source: str = "dataset") -> None:
        task = make_task(joint_model_source=source)
        task.run(geometry=field.geometry, bands=bands, joint_model=joint_model)

    dataset = joint_model_to_dict(model)
    for wrong, source, words in (
        (dataset, "dataset", "stopped"),
        (None, "dataset", "joint_model_source='dataset' needs a joint model"),
        (dataset, "packaged", "does not go with one that is given"),
        (model_to_dict(load_packaged_model()), "dataset", "no file of a trained joint network"),
        (dataset | {"identity": "0"}, "dataset", "says that it is 0"),
    ):
        with pytest.raises(RestorationAlgorithmError, match=words):
            restore(wrong, source)
    assert given == [model.identity]


def test_inputs_are_gathered_by_band() -> None:
    """If it fails, a band is restored from exposures of another."""
    inputs: Any = InputQuantizedConnection()
    inputs.visit_images = [
        SimpleNamespace(dataId={"instrument": "HSC", "visit": visit, "band": band})
        for visit, band in ((1, "g"), (2, "i"), (3, "g"))
    ]
    inputs.visit_summaries = inputs.visit_images
    inputs.restoration_model = [SimpleNamespace(dataId={"skymap": "m", "band": band}) for band in "ig"]
    butler: Any = SimpleNamespace(get=lambda refs: refs)
    found = gather_inputs(butler, inputs, band="g")
    assert [handle.dataId["visit"] for handle in found["visit_images"]] == [1, 3]
    assert sorted(found["visit_summaries"]) == [("HSC", 1), ("HSC", 3)]
    assert found["restoration_model"].dataId["band"] == "g"


def test_band_without_a_trained_network_is_refused() -> None:
    """If it fails, a graph is built that cannot run."""
    config = set_up(RestoreCoaddBandsConfig())
    config.restoration.model.source = "dataset"
    connections: Any = RestoreCoaddBandsConnections(config=config)
    refs = {band: SimpleNamespace(dataId={"band": band}) for band in ("g", "i")}
    inputs = {"restoration_model": (connections.restoration_model, [refs["g"]])}
    outputs = {"restored_coadd": (connections.restored_coadd, list(refs.values()))}
    with pytest.raises(FileNotFoundError, match="no restoration_model of sky map 'm' in band i in the input"):
        connections.adjustQuantum(inputs, outputs, "restoreCoaddBands", {"skymap": "m"})


def test_joint_network_that_does_not_exist_is_refused() -> None:
    """If it fails, a graph is built that cannot run."""
    connections: Any = RestoreCoaddBandsConnections(
        config=set_up(RestoreCoaddBandsConfig(), joint_model_source="dataset")
    )
    inputs: dict[str, Any] = {"joint_model": (connections.joint_model, [])}
    outputs = {"restored_coadd": (connections.restored_coadd, [SimpleNamespace(dataId={"band": "g"})])}
    words = "no restoration_model_joint of sky map 'm' in the input .* restoreCoaddBands:joint_model_source"
    with pytest.raises(FileNotFoundError, match=words):
        connections.adjustQuantum(inputs, outputs, "restoreCoaddBands", {"skymap": "m"})
    assert not hasattr(RestoreCoaddBandsConnections(config=set_up(RestoreCoaddBandsConfig())), "joint_model")


def test_bands_that_no_data_have_are_told(
    field: StarField, bands: dict[str, BandInputs], caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a misspelt band is silently not restored."""
    config = set_up(RestoreCoaddBandsConfig(), bands=["g", "R"])
    connections: Any = RestoreCoaddBandsConnections(config=config)
    adjusted = {}
    for patch in (0, 1):
        place: dict[str, int | str] = {"skymap": "m", "tract": 3, "patch": patch}
        ids = [DataCoordinate.standardize(place, band=band, universe=DimensionUniverse()) for band in "gi"]
        refs = [SimpleNamespace(dataId=data_id) for data_id in ids]
        outputs = {"restored_coadd": (connections.restored_coadd, refs)}
        connections.adjustQuantum({}, outputs, "restoreCoaddBands", {"skymap": "m"})
        adjusted[patch] = [ref.dataId["band"] for ref in outputs["restored_coadd"][1]]
    assert adjusted == {0: ["g"], 1: ["g"]}
    words = "R of restoreCoaddBands:bands is not among the bands of the data, which are g."
    assert [record.getMessage() for record in caplog.records] == [words]
    caplog.clear()
    with pytest.raises(NoWorkFound, match="No visit image"):
        make_task(bands=["r", "R"]).run(geometry=field.geometry, bands={"r": BandInputs([])})
    assert "R of restoreCoaddBands:bands is not among the bands of the data, which are r." in caplog.text
