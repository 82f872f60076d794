# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Trained networks as datasets of plain types."""

from __future__ import annotations

__all__ = ("joint_model_from_dict", "joint_model_to_dict", "model_from_dict", "model_to_dict")

import base64
import binascii
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..core import InputError, JointModel, RestorationModel


def model_to_dict(model: RestorationModel) -> dict[str, Any]:
    """Return a model as a `dict` that any Butler can store.

    Parameters
    ----------
    model
        A trained model.

    Returns
    -------
    data : `dict` [`str`, `~typing.Any`]
        ``identity``, ``provenance`` and ``trained_range`` to read, and
        ``weights``, the whole model as a safetensors file in base64.
    """
    return {
        "identity": model.identity,
        "trained_range": dataclasses.asdict(model.trained_range),
        "provenance": model.provenance,
        "weights": _encode(model.to_bytes()),
    }


def model_from_dict(data: Mapping[str, Any], name: str) -> RestorationModel:
    """Return the model that `model_to_dict` was given.

    Parameters
    ----------
    data
        What it returned.
    name
        What to call the dataset in an error.

    Returns
    -------
    model : `~lsst.astroclearnet.core.RestorationModel`
        The model.

    Raises
    ------
    InputError
        If it is no such dataset, or its weights are not those of its identity.
    """
    return _decode(data, RestorationModel.from_bytes, name)


def joint_model_to_dict(model: JointModel) -> dict[str, Any]:
    """Return a joint model as a `dict` that any Butler can store.

    Parameters
    ----------
    model
        A trained joint model.

    Returns
    -------
    data : `dict` [`str`, `~typing.Any`]
        ``identity``, ``bases``, ``num_bands`` and ``provenance`` to read, and
        ``weights``, the whole model as a safetensors file in base64.
    """
    return {
        "identity": model.identity,
        "bases": list(model.bases),
        "num_bands": list(model.num_bands),
        "provenance": model.provenance,
        "weights": _encode(model.to_bytes()),
    }


def joint_model_from_dict(data: Mapping[str, Any], name: str) -> JointModel:
    """Return the model that `joint_model_to_dict` was given.

    Parameters
    ----------
    data
        What it returned.
    name
        What to call the dataset in an error.

    Returns
    -------
    model : `~lsst.astroclearnet.core.JointModel`
        The model.

    Raises
    ------
    InputError
        If it is no such dataset, or its weights are not those of its identity.
    """
    return _decode(data, JointModel.from_bytes, name)


def _encode(file: bytes) -> str:
    """Return a file in base64."""
    return base64.b64encode(file).decode("ascii")


def _decode[Model: RestorationModel | JointModel](
    data: Mapping[str, Any], read: Callable[[bytes, str], Model], name: str
) -> Model:
    """Read the file of a dataset, and check whose it is."""
    try:
        weights = base64.b64decode(data["weights"], validate=True)
    except (KeyError, TypeError, binascii.Error) as exc:
        raise InputError(f"The {name} holds no weights of a network: {type(exc).__name__}: {exc}.") from exc
    model = read(weights, name)
    if model.identity != data.get("identity"):
        raise InputError(
            f"The {name} says that it is {data.get('identity')}, but its weights are those of "
            f"{model.identity}."
        )
    return model
