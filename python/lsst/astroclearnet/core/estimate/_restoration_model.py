# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A trained network, with all that is known of it, as a file."""

from __future__ import annotations

__all__ = ("RestorationModel", "TrainedRange", "load_packaged_model")

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterable
from typing import Any, Self

import torch

from ._model_file import describe_bytes, read_model_file, write_model_file
from ._restoration_network import RestorationNetwork
from ._samples import TrainingSample

_SCHEMA = 1
_TOLERANCE = 0.05
"""By how much, in natural logarithm, conditions may leave the trained range:
less than the steps between the conditions of trained patches."""

_MORE_EXPOSURES = 2
"""By which factor exposures may be more than in training, where the network
sees a part of them, in units of their noise."""


@dataclasses.dataclass(frozen=True)
class TrainedRange:
    """Conditions that a network has seen.

    Attributes
    ----------
    num_exposures
        Smallest and largest number of exposures that it saw at a time.
    target_fwhm
        Smallest and largest FWHM of the target PSF in pixels.
    log_ratios
        Smallest and largest value of each of the ``log_noise_ratios``.
    """

    num_exposures: tuple[int, int]
    target_fwhm: tuple[float, float]
    log_ratios: tuple[tuple[float, ...], tuple[float, ...]]

    @classmethod
    def of(cls, samples: Iterable[TrainingSample]) -> Self:
        """Return the range of the conditions of samples.

        Parameters
        ----------
        samples
            At least one.
        """
        seen = [(s.bank.log_ratios.cpu(), s.num_seen, s.model.target_fwhm) for s in samples]
        logs, numbers, targets = zip(*seen, strict=True)
        ratios = torch.stack(logs)
        return cls(
            # None of those seen may have data in a crop.
            num_exposures=(max(min(numbers), 1), max(numbers)),
            target_fwhm=(min(targets), max(targets)),
            log_ratios=(tuple(ratios.amin(dim=0).tolist()), tuple(ratios.amax(dim=0).tolist())),
        )

    def find_departure(self, log_ratios: torch.Tensor, num_exposures: int, target_fwhm: float) -> str:
        """Return which conditions are beyond the range, in words; or nothing.

        Parameters
        ----------
        log_ratios
            The ``log_noise_ratios`` of the linear estimates.
        num_exposures
            Their number.
        target_fwhm
            FWHM of the target PSF in pixels.
        """
        low, high = self.num_exposures
        if not low <= num_exposures <= _MORE_EXPOSURES * high:
            return f"there are {num_exposures} exposures, and it was trained on {low} to {high}"
        least, largest = self.target_fwhm
        slack = 1.0 + _TOLERANCE
        if not least / slack <= target_fwhm <= largest * slack:
            return (
                f"the target PSF has a FWHM of {target_fwhm:.2f} pixels, and it was trained on "
                f"{least:.2f} to {largest:.2f}"
            )
        ratios = log_ratios.cpu()
        below, above = (torch.tensor(limit) for limit in self.log_ratios)
        beyond = float(torch.maximum(below - ratios, ratios - above).max())
        if beyond > _TOLERANCE:
            return (
                "relative to the target PSF the exposures are sharper or less sharp than those it was "
                f"trained on: the noise of a linear estimate is off their range by {100.0 * beyond:.0f} %"
            )
        return ""


@dataclasses.dataclass(frozen=True)
class RestorationModel:
    """A trained network, the conditions that it has seen, and its origin.

    Attributes
    ----------
    network
        The network, in evaluation mode, on the CPU.
    trained_range
        Conditions that it has seen.
    provenance
        What it was trained on and how, of types that JSON has.
    """

    network: RestorationNetwork
    trained_range: TrainedRange
    provenance: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Return a safetensors file, the same for the same model."""
        about = {
            "schema": _SCHEMA,
            "penalty_weights": self.network.penalty_weights,
            "trained_range": dataclasses.asdict(self.trained_range),
            "provenance": self.provenance,
        }
        return write_model_file(self.network, about)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "restoration model") -> Self:
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
            network = RestorationNetwork(tuple(about["penalty_weights"]))
            network.load_state_dict(tensors)
            limits = {key: tuple(value) for key, value in about["trained_range"].items()}
            limits["log_ratios"] = tuple(tuple(values) for values in limits["log_ratios"])
            return cls(network.eval(), TrainedRange(**limits), about["provenance"])

        return read_model_file(
            data, build, name=name, kind="trained network", mark="trained_range", schema=_SCHEMA
        )

    @functools.cached_property
    def identity(self) -> str:
        """First 16 digits of the SHA-256 of the file (`str`)."""
        return describe_bytes(self.to_bytes())


@functools.cache
def load_packaged_model() -> RestorationModel:
    """Return the model that comes with the package."""
    file = importlib.resources.files(__package__) / "packaged_model.safetensors"
    return RestorationModel.from_bytes(file.read_bytes(), "packaged model")
