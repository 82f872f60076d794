# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Patches that a network is trained on, and what became of them."""

from __future__ import annotations

__all__ = ("PatchSamples", "TrainingPatch", "choose_validation", "list_exposures")

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..adapters import ExposureId, PatchGeometry, VisitImageSource
from ..core.estimate import TrainingSample
from ._quantum_inputs import VisitSummarySource
from .prepare_exposures import SkyCorrectionSource
from .select_exposures import VisitSelections


@dataclasses.dataclass(frozen=True)
class TrainingPatch:
    """A patch, with its inputs as `RestoreCoaddTask.run` takes them.

    Attributes
    ----------
    geometry
        Geometry of the patch.
    visit_images
        Visit images that may overlap it, or deferred handles of them.
    selections
        Visits selected elsewhere, by instrument; by default all.
    sky_corrections
        What to subtract from visit images, by instrument, visit and detector.
    visit_summaries
        Calibrations by instrument and visit.
    """

    geometry: PatchGeometry
    visit_images: Sequence[VisitImageSource]
    selections: VisitSelections | None = None
    sky_corrections: Mapping[tuple[str, int, int], SkyCorrectionSource] | None = None
    visit_summaries: Mapping[tuple[str, int], VisitSummarySource] | None = None

    @property
    def key(self) -> str:
        """Tract and patch, as the configuration names them (`str`)."""
        return f"{self.geometry.tract}/{self.geometry.definition.id}"

    @property
    def dataset_ids(self) -> list[str]:
        """Identifiers of the datasets of the visit images, where they have
        one (`list`).
        """
        refs = (getattr(source, "ref", None) for source in self.visit_images)
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
    samples: Sequence[TrainingSample] = ()
    target_fwhm: float | None = None
    exposures: Sequence[ExposureId] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reason: str = ""

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
