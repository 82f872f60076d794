# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Patches that a network is trained on, and what became of them."""

from __future__ import annotations

__all__ = (
    "PatchSamples",
    "TrainingPatch",
    "choose_validation",
    "explain_nothing",
    "list_exposures",
    "mean_loss",
    "sort_patches",
    "split_samples",
)

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from lsst.pipe.base import NoWorkFound

from ..adapters import ExposureId, PatchGeometry
from ._errors import RestorationAlgorithmError
from ._patch_exposures import BandInputs, PatchExposures


@dataclasses.dataclass(frozen=True)
class TrainingPatch:
    """A patch and its exposures.

    Attributes
    ----------
    geometry
        Geometry of the patch.
    bands
        Datasets of each band, by its name.
    """

    geometry: PatchGeometry
    bands: Mapping[str, BandInputs]

    @property
    def key(self) -> str:
        """Tract and patch, as the configuration names them (`str`)."""
        return f"{self.geometry.tract}/{self.geometry.definition.id}"

    @property
    def dataset_ids(self) -> list[str]:
        """Identifiers of the datasets of the visit images, where they have
        one (`list`).
        """
        sources = (source for inputs in self.bands.values() for source in inputs.visit_images)
        refs = (getattr(source, "ref", None) for source in sources)
        return sorted(str(ref.id) for ref in refs if ref is not None)


@dataclasses.dataclass(frozen=True)
class PatchSamples:
    """The samples of a patch, or why there are none.

    Attributes
    ----------
    key
        Tract and patch, as in `TrainingPatch`.
    samples
        The samples.
    target_fwhm
        FWHM in arcsec of the target PSF; `None` if none was chosen.
    exposures
        The exposures that they were made of.
    left_out
        The reason for each exposure that was not used, by its name.
    reason
        Why there are no samples; empty if there are some.
    """

    key: str
    samples: Sequence[Any] = ()
    target_fwhm: float | None = None
    exposures: Sequence[ExposureId] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reason: str = ""

    @classmethod
    def start(cls, patch: TrainingPatch, exposures: Sequence[PatchExposures]) -> Self:
        """Return a patch without samples as yet.

        Parameters
        ----------
        patch
            The patch.
        exposures
            Its exposures, by band.
        """
        left_out: dict[str, str] = {}
        for band in exposures:
            left_out |= band.not_selected | band.dropped
        used = tuple(cutout.identity for band in exposures for cutout in band.source.cutouts)
        return cls(patch.key, exposures=used, left_out=left_out)

    def role(self, validation: Collection[str]) -> str:
        """Return what the samples are used for.

        Parameters
        ----------
        validation
            The patches that are set aside.
        """
        if not self.samples:
            return "left_out"
        return "validation" if self.key in validation else "trained"

    def record(self, role: str, validation_loss: float | None) -> dict[str, Any]:
        """Return the dataset of the patch.

        Parameters
        ----------
        role
            What the samples were used for.
        validation_loss
            Loss of the network on them, if it was not trained on them.
        """
        tract, patch = self.key.split("/")
        return {
            "tract": int(tract),
            "patch": int(patch),
            "role": role,
            "reason": self.reason,
            "num_samples": len(self.samples),
            "target_fwhm": self.target_fwhm,
            "validation_loss": validation_loss,
            "exposures": [exposure.data_id for exposure in self.exposures],
            "left_out": dict(self.left_out),
        }


def sort_patches(patches: Iterable[TrainingPatch]) -> list[TrainingPatch]:
    """Return patches in the order of tracts and patches.

    Parameters
    ----------
    patches
        The patches, in any order.
    """
    return sorted(patches, key=lambda patch: (patch.geometry.tract, patch.geometry.definition.id))


def choose_validation(keys: Sequence[str], fraction: float, seed: int) -> frozenset[str]:
    """Choose the patches that a network is not trained on.

    Parameters
    ----------
    keys
        Patches with samples, in a reproducible order.
    fraction
        Fraction to choose; it is at least one patch, and not all.
    seed
        Seed of the choice.

    Returns
    -------
    chosen : `frozenset` [`str`]
        The patches; none of a single one.
    """
    number = min(max(round(fraction * len(keys)), 1), len(keys) - 1)
    order = np.random.default_rng(seed).permutation(len(keys))
    return frozenset(keys[k] for k in order[: max(number, 0)])


def split_samples(
    patches: Iterable[PatchSamples], validation: Collection[str]
) -> tuple[list[Any], list[Any]]:
    """Return samples to train on, and those that are set aside.

    Parameters
    ----------
    patches
        The patches.
    validation
        Those that are set aside.
    """
    parts: tuple[list[Any], list[Any]] = ([], [])
    for patch in patches:
        parts[patch.key in validation].extend(patch.samples)
    return parts


def mean_loss(patches: Iterable[PatchSamples], losses: Mapping[str, float]) -> float | None:
    """Return the mean loss over all samples of patches with a loss.

    Parameters
    ----------
    patches
        The patches.
    losses
        Mean loss of some of them, by their keys.
    """
    sizes = {patch.key: len(patch.samples) for patch in patches if patch.key in losses}
    if not sizes:
        return None
    return sum(losses[key] * size for key, size in sizes.items()) / sum(sizes.values())


def explain_nothing(patches: Sequence[PatchSamples], name: str, needs: str) -> BaseException:
    """Return the error of a training without samples.

    Parameters
    ----------
    patches
        The patches.
    name
        What a network was to be trained for.
    needs
        What a patch must have.
    """
    failed = {patch.key: patch.reason for patch in patches if patch.reason.startswith("failed")}
    if failed:
        reasons = "\n".join(f"  - {key}: {reason}" for key, reason in failed.items())
        return RestorationAlgorithmError(
            f"No patch of {name} can be trained on:\n{reasons}", {"num_failed_patches": len(failed)}
        )
    if not patches:
        return NoWorkFound("There is no patch to train on.")
    return NoWorkFound(f"No patch of {name} has {needs}: {len(patches)} have not.")


def list_exposures(patches: Iterable[PatchSamples]) -> dict[str, dict[str, list[int]]]:
    """Return detectors by visit, by instrument, of all exposures of patches.

    Parameters
    ----------
    patches
        The patches.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for exposure in sorted({exposure for patch in patches for exposure in patch.exposures}):
        visits = found.setdefault(exposure.instrument, {})
        visits.setdefault(str(exposure.visit), []).append(exposure.detector)
    return found
