# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Files of trained networks: safetensors, with what is known of them."""

from __future__ import annotations

__all__ = ("describe_bytes", "read_model_file", "write_model_file")

import hashlib
import json
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from torch import nn

from .._errors import InputError


def write_model_file(network: nn.Module, about: dict[str, Any]) -> bytes:
    """Return a safetensors file, the same for the same network.

    Parameters
    ----------
    network
        The network.
    about
        What is known of it, of types that JSON has, with ``schema``.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    return bytes(safetensors.torch.save(tensors, metadata={"about": json.dumps(about, sort_keys=True)}))


def read_model_file[Model](
    data: bytes,
    build: Callable[[dict[str, Any], dict[str, torch.Tensor]], Model],
    *,
    name: str,
    kind: str,
    mark: str,
    schema: int,
) -> Model:
    """Read what `write_model_file` returned.

    Parameters
    ----------
    data
        The file.
    build
        Makes the model of what is known of the network and its parameters.
    name
        What to call the file in an error.
    kind
        What kind of network it should hold.
    mark
        What only files of this kind say of the network.
    schema
        Schema that is read.

    Raises
    ------
    InputError
        If it is no such file, or of another schema.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["about"])
        if mark not in about:
            raise ValueError(f"it has no {mark}")
        if about["schema"] != schema:
            raise InputError(
                f"The {name} has schema {about['schema']}, and this version reads {schema}: train it again."
            )
        return build(about, safetensors.torch.load(data))
    except InputError:
        raise
    except Exception as exc:
        # A file may be broken in any way.
        raise InputError(f"The {name} is no file of a {kind}: {type(exc).__name__}: {exc}.") from exc


def describe_bytes(data: bytes) -> str:
    """Return the identity of a file, the first 16 digits of its SHA-256.

    Parameters
    ----------
    data
        The file.
    """
    return hashlib.sha256(data).hexdigest()[:16]
