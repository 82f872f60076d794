# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The file and the dataset of a trained network."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import safetensors.torch
import torch

from lsst.astroclearnet.adapters import model_from_dict, model_to_dict
from lsst.astroclearnet.core import InputError, RestorationModel, TrainedRange, load_packaged_model
from lsst.astroclearnet.core.estimate import RestorationNetwork

RANGE = TrainedRange(
    num_exposures=(2, 8), target_fwhm=(2.5, 4.0), log_ratios=((-1.0, -2.0, -3.0), (-0.5, -1.0, -2.0))
)


def make_model(**provenance: Any) -> RestorationModel:
    """Return a network that was not trained."""
    network = RestorationNetwork((1e-3, 1e-2, 1e-1))
    network.initialize(torch.Generator().manual_seed(1))
    return RestorationModel(network.eval(), RANGE, {"version": "1", **provenance})


def change(model: RestorationModel, **about: Any) -> bytes:
    """Return the file of a model with other words about it."""
    data = model.to_bytes()
    length = int.from_bytes(data[:8], "little")
    known = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["about"])
    return bytes(
        safetensors.torch.save(safetensors.torch.load(data), metadata={"about": json.dumps(known | about)})
    )


def test_file_round_trips() -> None:
    """If this fails, the network that restores is not the one that was
    trained.
    """
    model = make_model(seed=2**55, loss=0.1, patches=["3/0"])
    read = RestorationModel.from_bytes(model.to_bytes())
    assert read.to_bytes() == model.to_bytes()
    assert read.identity == model.identity
    assert read.trained_range == model.trained_range
    assert read.provenance == model.provenance
    assert read.network.penalty_weights == model.network.penalty_weights
    assert not read.network.training
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, read.network.state_dict()[name])


def test_identity_is_that_of_content() -> None:
    assert make_model().identity == make_model().identity
    assert make_model(seed=1).identity != make_model().identity
    other = make_model()
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.001)
    assert other.identity != make_model().identity


def test_packaged_model_is_one() -> None:
    model = load_packaged_model()
    assert RestorationModel.from_bytes(model.to_bytes()).identity == model.identity
    assert model.provenance


def test_dataset_round_trips() -> None:
    model = make_model(seed=3)
    stored = json.loads(json.dumps(model_to_dict(model)))
    assert model_from_dict(stored, "model").to_bytes() == model.to_bytes()
    assert stored["identity"] == model.identity
    assert stored["provenance"] == model.provenance


def test_other_schema_is_refused() -> None:
    """If this fails, a later version misreads weights."""
    with pytest.raises(InputError, match="has schema 99, and this version reads 1"):
        RestorationModel.from_bytes(change(make_model(), schema=99))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no network",
        make_model().to_bytes()[:-4],
        make_model().to_bytes()[:200],
        change(make_model(), penalty_weights=[1e-3, 1e-1]),
        change(make_model(), trained_range={}),
        safetensors.torch.save({"weight": torch.zeros(3)}),
    ],
    ids=["empty", "words", "short", "header", "other size", "no range", "other tensors"],
)
def test_what_is_no_model_is_refused(data: bytes) -> None:
    """If this fails, a damaged file ends a campaign with a traceback, or
    restores it with noise.
    """
    with pytest.raises(InputError, match="my model is no file of a trained network"):
        RestorationModel.from_bytes(data, "my model")


def test_damaged_dataset_is_refused() -> None:
    dataset = model_to_dict(make_model())
    for changes in ({"weights": "@" + dataset["weights"][1:]}, {"weights": None}):
        with pytest.raises(InputError, match="my model holds no weights"):
            model_from_dict(dataset | changes, "my model")
    with pytest.raises(InputError, match="my model holds no weights"):
        model_from_dict({}, "my model")
    content = bytearray(base64.b64decode(dataset["weights"]))
    content[-2] ^= 1
    flipped = dataset | {"weights": base64.b64encode(bytes(content)).decode()}
    with pytest.raises(InputError, match="says that it is"):
        model_from_dict(flipped, "my model")


def test_departure_from_the_trained_range_is_told() -> None:
    """If this fails, nobody knows that a network is used for what it has not
    seen.
    """
    middle = torch.tensor([-0.7, -1.5, -2.5])
    assert RANGE.find_departure(middle, 5, 3.0) == ""
    assert RANGE.find_departure(middle, 16, 3.0) == ""
    assert "1 exposures" in RANGE.find_departure(middle, 1, 3.0)
    assert "17 exposures" in RANGE.find_departure(middle, 17, 3.0)
    assert "2.10 pixels" in RANGE.find_departure(middle, 5, 2.1)
    assert "4.50 pixels" in RANGE.find_departure(middle, 5, 4.5)
    assert "sharper" in RANGE.find_departure(middle + torch.tensor([0.4, 0.0, 0.0]), 5, 3.0)
    assert "sharper" in RANGE.find_departure(middle - torch.tensor([0.0, 0.0, 0.7]), 5, 3.0)
