# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which network the task restores with, and what it records of it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.adapters import model_to_dict
from lsst.astroclearnet.core import RestorationModel, TrainedRange
from lsst.astroclearnet.core.estimate import RestorationNetwork
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tasks import (
    QualityLimitsConfig,
    RestorationAlgorithmError,
    RestoreCoaddConfig,
    RestoreCoaddTask,
    exposure_metrics,
    judge,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, DatasetType
from lsst.images import VisitImage
from lsst.pipe.base import Struct
from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor

SKY_MAP = make_patch_geometry(cells=(1, 1), cell_shape=(24, 24))
GEOMETRY = SKY_MAP.patch(3, 0)
SHAPE = (100, 130)
FWHM = 3.6
TRAINING = "u/test/trained"


def make_model(target_fwhm: tuple[float, float] = (2.0, 5.0)) -> RestorationModel:
    """Return a network that mixes filters as it is initialised."""
    network = RestorationNetwork((1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0))
    network.initialize(torch.Generator().manual_seed(4))
    with torch.no_grad():
        network.head.weight.zero_()
    limits = TrainedRange((1, 9), target_fwhm, ((-99.0,) * 18, (99.0,) * 18))
    return RestorationModel(network.eval(), limits, {"patches": 0})


def make_config(**fields: Any) -> RestoreCoaddConfig:
    """Return a configuration for a small patch."""
    config = RestoreCoaddConfig()
    config.update(geometry_source="dict", target_fwhm=0.6, device="cpu", do_plot=False)
    config.restoration.noise.update(num_draws=1, num_realizations=1)
    config.restoration.fit.update(max_epochs=1, num_folds=2)
    config.restoration.network.update(penalty_weights=[1e-5, 1e-3, 1e-1], hidden_channels=8)
    config.restoration.rejection.enabled = False
    config.restoration.calibration.background = "none"
    config.restoration.model.update(**fields)
    config.validate()
    return config


@pytest.fixture(scope="module")
def visits() -> list[VisitImage]:
    """Three visit images of five stars."""
    field = StarField(
        geometry=GEOMETRY,
        x=np.array([14.2, 35.7, 58.1, 20.4, 50.3]),
        y=np.array([12.9, 40.3, 20.6, 60.2, 61.7]),
        flux=np.array([4000.0, 2500.0, 3000.0, 2000.0, 3500.0]),
    )
    rng = np.random.default_rng(7)
    images = []
    for visit, rotation in enumerate((0.0, 9.0, -7.0), 1):
        projection = make_projection(SHAPE, rotation=rotation, offset=(0.0, 20.0), visit=visit)
        image = field.render(projection, SHAPE, FWHM) + rng.normal(size=SHAPE)
        images.append(make_visit_image(image, projection, fwhm=FWHM))
    return images


def restore(
    visits: list[VisitImage], model: RestorationModel | None = None, **fields: Any
) -> tuple[Struct, Any]:
    """Run the task and return its outputs and its metadata."""
    task = RestoreCoaddTask(config=make_config(**fields))
    dataset = None if model is None else model_to_dict(model)
    outputs = task.run(visit_images=visits, geometry=GEOMETRY, band="i", restoration_model=dataset)
    return outputs, task.metadata


def doubtful_checks(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the verdict on what is said of the network."""
    _, checks = judge(exposure_metrics(metrics, 3), QualityLimitsConfig())
    names = ("network_doubt", "unconverged")
    return {check["name"]: check["verdict"] for check in checks if check["name"] in names}


def test_dataset_is_used_and_recorded(visits: list[VisitImage], caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, nobody can tell which network made a coadd."""
    model = make_model()
    with caplog.at_level(logging.INFO):
        outputs, metadata = restore(visits, model, source="dataset")
    network = outputs.restored_coadd_metrics["network"]
    assert (network["source"], network["identity"]) == ("dataset", model.identity)
    assert network["num_parameters"] == model.network.num_parameters
    assert 0.3 < network["held_out_loss"] < 1.0
    assert metadata["network_identity"] == model.identity
    for coadd in (outputs.restored_coadd, outputs.restored_coadd_linear):
        assert coadd.metadata["network_source"] == "dataset"
        assert coadd.metadata["network"] == model.identity
        # Nothing was fitted.
        assert not {"num_epochs", "converged", "stop_reason"} & set(coadd.metadata)
    assert not {"num_epochs", "converged", "stop_reason"} & set(network)
    assert f"the dataset network {model.identity}" in caplog.text
    assert doubtful_checks(outputs.restored_coadd_metrics) == {"network_doubt": "good", "unconverged": "good"}


def test_fit_is_recorded(visits: list[VisitImage]) -> None:
    """If it fails, a fit that did not converge passes."""
    outputs, metadata = restore(visits, source="fit")
    metrics = outputs.restored_coadd_metrics
    network = metrics["network"]
    assert (network["source"], network["identity"], network["doubt"]) == ("fit", "fit", "")
    assert network["num_epochs"] == metadata["network_num_epochs"] == 1
    assert outputs.restored_coadd.metadata["network"] == "fit"
    assert outputs.restored_coadd.metadata["stop_reason"] == "reached max_epochs=1"
    assert "The fit did not converge: it reached max_epochs=1." in metrics["warnings"]
    assert doubtful_checks(metrics) == {"network_doubt": "good", "unconverged": "check"}


def test_unsuitable_network_is_flagged(visits: list[VisitImage]) -> None:
    """If it fails, coadds beyond the training pass for good ones."""
    model = make_model(target_fwhm=(5.0, 6.0))
    outputs, _ = restore(visits, model, source="dataset", unsuitable="flag")
    metrics = outputs.restored_coadd_metrics
    assert metrics["network"]["identity"] == model.identity
    (warning,) = (w for w in metrics["warnings"] if "may not suit" in w)
    assert model.identity in warning
    assert "it was trained on 5.00 to 6.00" in warning
    assert "it was trained on 5.00 to 6.00" in str(outputs.restored_coadd.metadata["network_doubt"])
    verdict, checks = judge(exposure_metrics(metrics, 3), QualityLimitsConfig())
    assert verdict == "check"
    assert [check["name"] for check in checks if check["verdict"] != "good"] == ["network_doubt"]


def test_unsuitable_network_fails_the_patch(visits: list[VisitImage]) -> None:
    """If it fails, the executor takes it for a bug, without its facts."""
    model = make_model(target_fwhm=(5.0, 6.0))
    with pytest.raises(RestorationAlgorithmError, match=f"{model.identity} may not suit") as caught:
        restore(visits, model, source="dataset", unsuitable="fail")
    assert caught.value.metadata["error"] == "InputError"


def test_unsuitable_network_is_replaced(visits: list[VisitImage]) -> None:
    """If it fails, a patch that was fitted names a network it does not have,
    or alarms though what was asked for was done.
    """
    outputs, _ = restore(visits[:1], make_model(target_fwhm=(5.0, 6.0)), source="dataset", unsuitable="fit")
    metrics = outputs.restored_coadd_metrics
    assert (metrics["network"]["source"], metrics["network"]["identity"]) == ("fit", "fit")
    assert any("A network was fitted to the patch, because" in warning for warning in metrics["warnings"])
    # Nor does it count as unconverged where nothing can be held out.
    assert "one exposure" in metrics["network"]["stop_reason"]
    assert doubtful_checks(metrics) == {"network_doubt": "good", "unconverged": "good"}


def test_damaged_dataset_is_refused(visits: list[VisitImage]) -> None:
    """If it fails, another network than the dataset says restores."""
    task = RestoreCoaddTask(config=make_config(source="dataset"))
    dataset = {**model_to_dict(make_model()), "identity": "0123456789abcdef"}
    with pytest.raises(RestorationAlgorithmError, match="says that it is 0123456789abcdef"):
        task.run(visit_images=visits, geometry=GEOMETRY, band="i", restoration_model=dataset)


def test_connection_follows_the_source() -> None:
    """If it fails, campaigns without a dataset need one, or the reverse."""
    for source in ("packaged", "dataset", "fit"):
        config = make_config(source=source)
        connections = config.connections.ConnectionsClass(config=config)
        expected = {"restoration_model"} if source == "dataset" else set()
        assert connections.prerequisiteInputs == expected


def test_dataset_in_a_repository(visits: list[VisitImage], tmp_path: Any) -> None:
    """If it fails, a graph is built without its network, or a network of a
    repository is not the one that restores.
    """
    root = str(tmp_path / "repo")
    writer = create_repository(root)
    register_sky_map(writer, SKY_MAP, "skymaps")
    for visit in visits:
        put_visit_image(writer, visit, "TestCam/visits")
    chain_collections(writer, "TestCam/defaults", ["TestCam/visits", "skymaps"])

    def prepare(output: str, *inputs: str) -> tuple[Butler, SimplePipelineExecutor]:
        butler = SimplePipelineExecutor.prep_butler(root, [*inputs, "TestCam/defaults"], output)
        return butler, SimplePipelineExecutor.from_task_class(
            RestoreCoaddTask,
            config=make_config(source="dataset"),
            where="skymap='test_map' AND patch=0",
            butler=butler,
        )

    missing = "There is no restoration_model of sky map 'test_map' in band i in the input collections"
    with pytest.raises(FileNotFoundError, match=missing):
        prepare("u/test/unregistered")
    model = make_model()
    dataset_type = DatasetType(
        "restoration_model", ("skymap", "band"), "StructuredDataDict", universe=writer.dimensions
    )
    writer.registry.registerDatasetType(dataset_type)
    writer.collections.register(TRAINING)
    writer.put(model_to_dict(model), dataset_type, skymap="test_map", band="i", run=TRAINING)
    with pytest.raises(FileNotFoundError, match=missing):
        prepare("u/test/elsewhere")
    butler, executor = prepare("u/test/restored", TRAINING)
    (quantum,) = executor.run(register_dataset_types=True)
    assert [ref.run for ref in quantum.inputs["restoration_model"]] == [TRAINING]
    metadata = butler.get("restored_coadd", skymap="test_map", tract=3, patch=0, band="i").metadata
    assert (metadata["network_source"], metadata["network"]) == ("dataset", model.identity)
