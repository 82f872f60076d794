# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A trained joint network, with all that is known of it, as a file."""

from __future__ import annotations

__all__ = ("JointModel", "load_packaged_joint_model")

import dataclasses
import functools
import importlib.resources
from collections.abc import Sequence
from typing import Any, Self

import torch

from ..estimate import BandImage, describe_bytes, read_model_file, write_model_file
from ._guided_bank import GuidedBank, make_guide
from ._joint_network import JointNetwork

_SCHEMA = 2


@dataclasses.dataclass(frozen=True)
class JointModel:
    """A trained joint network, the conditions that it has seen, and its
    origin.

    Attributes
    ----------
    network
        The network, in evaluation mode, on the CPU.
    bases
        Identities of the networks that restore each band on its own.
    num_bands
        Smallest and largest number of bands that it saw at a time.
    provenance
        What it was trained on and how, of types that JSON has.
    """

    network: JointNetwork
    bases: tuple[str, ...]
    num_bands: tuple[int, int]
    provenance: dict[str, Any]

    def find_departure(self, bases: Sequence[str]) -> str:
        """Return in words why it may not suit some bands; nothing if it does.

        Parameters
        ----------
        bases
            Identity of the network of each band.
        """
        strange = sorted(set(bases) - set(self.bases))
        if strange:
            return (
                f"bands are restored by the network {', '.join(strange)}, and it was trained with "
                f"{', '.join(self.bases)}"
            )
        low, high = self.num_bands
        if len(bases) > high:
            return f"there are {len(bases)} bands, and it was trained on {low} to {high}"
        return ""

    @torch.no_grad()
    def combine(self, bands: Sequence[BandImage]) -> list[torch.Tensor]:
        """Restore each band with the help of the others.

        Parameters
        ----------
        bands
            The bands, restored on their own; their order does not matter.

        Returns
        -------
        images : `list` [`torch.Tensor`]
            Joint restored images, latent_shape of each band.
        """
        if len(bands) == 1:
            return [bands[0].restored]
        images = []
        for k, band in enumerate(bands):
            others = [*bands[:k], *bands[k + 1 :]]
            images.append(self.network(GuidedBank.build(band, make_guide(band, others))))
        return images

    def to(self, device: torch.device) -> Self:
        """Return the model with a copy of its network on a device.

        Parameters
        ----------
        device
            The device.
        """
        network = JointNetwork(self.network.num_penalty_weights)
        network.load_state_dict(self.network.state_dict())
        return dataclasses.replace(self, network=network.to(device).eval())

    def to_bytes(self) -> bytes:
        """Return a safetensors file, the same for the same model."""
        about = {
            "schema": _SCHEMA,
            "num_penalty_weights": self.network.num_penalty_weights,
            "bases": self.bases,
            "num_bands": self.num_bands,
            "provenance": self.provenance,
        }
        return write_model_file(self.network, about)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "joint model") -> Self:
        """Read what `to_bytes` returned.

        Parameters
        ----------
        data
            The file.
        name
            What to call it in an error.

        Raises
        ------
        InputError
            If it is no such file, or of another schema.
        """

        def build(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
            network = JointNetwork(about["num_penalty_weights"])
            network.load_state_dict(tensors)
            low, high = about["num_bands"]
            bases = tuple(about["bases"])
            return cls(network.eval(), bases, (low, high), about["provenance"])

        return read_model_file(
            data, build, name=name, kind="trained joint network", mark="bases", schema=_SCHEMA
        )

    @functools.cached_property
    def identity(self) -> str:
        """First 16 digits of the SHA-256 of the file (`str`)."""
        return describe_bytes(self.to_bytes())


@functools.cache
def load_packaged_joint_model() -> JointModel:
    """Return the joint model that comes with the package."""
    file = importlib.resources.files(__package__) / "packaged_joint_model.safetensors"
    return JointModel.from_bytes(file.read_bytes(), "packaged joint model")
