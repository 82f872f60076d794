# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Status of a campaign by patch and band."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from uuid import UUID

import astropy.units as u
from astropy.table import Table

from ..report import band_order
from ._progress import Report
from ._status_details import PatchDetails, Usage, read_details
from ._status_sources import PatchKey, PatchOutputs, PatchState, StatusSource

WRITTEN = (PatchState.DONE, PatchState.PARTIAL)
"""States of patches that have a coadd."""

_ALL = "all"
_LEFT = (PatchState.FAILED, PatchState.UNFINISHED)

_VANISHED = (OSError, LookupError, ValueError, RuntimeError)
"""What reading raises where a file is being removed or replaced."""


@dataclasses.dataclass(frozen=True)
class PatchStatus:
    """Status of a patch; ``details`` is `None` if its files were not read."""

    key: PatchKey
    state: PatchState
    details: PatchDetails | None = None


@dataclasses.dataclass(frozen=True)
class Reason:
    """The same message of several patches, as it was for the first of them."""

    text: str
    patches: tuple[PatchKey, ...]


@dataclasses.dataclass(frozen=True)
class BandStatus:
    """Status of the patches of a band, or of all bands.

    Medians and maxima are those of the patches with a coadd that were read,
    and NaN if there is none.

    Attributes
    ----------
    band
        Name of the band, or ``all``.
    patches
        At least one patch.
    unit
        ``GPU`` if the patches of the campaign are restored on one, else
        ``CPU``.
    """

    band: str
    patches: Sequence[PatchStatus]
    unit: str

    @cached_property
    def counts(self) -> Counter[PatchState]:
        """Number of patches in each state."""
        return Counter(patch.state for patch in self.patches)

    @cached_property
    def read(self) -> list[PatchDetails]:
        """Details of the patches with a coadd that were read."""
        return [p.details for p in self.patches if p.details is not None and p.state in WRITTEN]

    @property
    def num_written(self) -> int:
        """Number of patches with a coadd."""
        return sum(self.counts[state] for state in WRITTEN)

    @property
    def num_left(self) -> int:
        """Number of patches that failed or are not finished."""
        return sum(self.counts[state] for state in _LEFT)

    @property
    def num_warned(self) -> int:
        """Number of patches, among those read, with a warning."""
        return sum(bool(details.warnings) for details in self.read)

    def median(self, name: str) -> float:
        """Return the median of an attribute of `PatchDetails`."""
        return _median(float(getattr(details, name)) for details in self.read)

    def maximum(self, name: str) -> float:
        """Return the maximum of an attribute of `PatchDetails`."""
        values = [float(getattr(details, name)) for details in self.read]
        return max((value for value in values if math.isfinite(value)), default=math.nan)

    @property
    def median_time(self) -> float:
        """Median wall-clock time of a patch in s."""
        return _median(details.usage.wall for details in self.read)

    @property
    def hours(self) -> float:
        """Median hours of a patch on the device of the campaign."""
        used = [details.usage for details in self.read if _unit(details.device) in ("", self.unit)]
        return _median(_hours(usage, self.unit) for usage in used)

    @cached_property
    def hours_spent(self) -> dict[str, float]:
        """Hours spent on each kind of device, failures and earlier attempts
        included; patches that were not read are taken to be like the others
        in their state.
        """
        groups: dict[PatchState, list[PatchDetails]] = defaultdict(list)
        for patch in self.patches:
            if patch.details is not None:
                groups[patch.state].append(patch.details)
        spent: dict[str, float] = defaultdict(float)
        for state, group in groups.items():
            share = self.counts[state] / len(group)
            for details in group:
                unit = _unit(details.device) or self.unit
                spent[unit] += share * _hours(details.usage + details.earlier, unit)
        return dict(spent)


@dataclasses.dataclass(frozen=True)
class CampaignStatus:
    """Status of a campaign: of at least one patch, in order of band by
    wavelength, tract and patch.
    """

    patches: Sequence[PatchStatus]

    @cached_property
    def unit(self) -> str:
        """Kind of device that restores most patches, ``GPU`` or ``CPU``."""
        units = Counter(_unit(p.details.device) for p in self.patches if p.details is not None)
        return "GPU" if units["GPU"] > units["CPU"] else "CPU"

    @cached_property
    def bands(self) -> tuple[BandStatus, ...]:
        """The bands in order of wavelength."""
        groups: dict[str, list[PatchStatus]] = defaultdict(list)
        for patch in self.patches:
            groups[patch.key.band].append(patch)
        return tuple(BandStatus(band, groups[band], self.unit) for band in sorted(groups, key=band_order))

    @cached_property
    def total(self) -> BandStatus:
        """All bands together."""
        return BandStatus(_ALL, self.patches, self.unit)

    @property
    def is_complete(self) -> bool:
        """Whether every patch is restored or has no work."""
        return self.total.num_left == 0

    @property
    def remaining(self) -> str:
        """Number of patches that are left, for an error message."""
        counts = self.total.counts
        return (
            f"Patches that failed: {counts[PatchState.FAILED]}; not finished: "
            f"{counts[PatchState.UNFINISHED]}."
        )

    def hours_left(self, band: BandStatus) -> float:
        """Project the hours that failed and unfinished patches of a band, or
        of all, will take.

        They follow from the median of each band, or that of all where a band
        has no patch yet; NaN if none has.
        """
        if band.band == _ALL:
            return math.fsum(self.hours_left(each) for each in self.bands)
        if not band.num_left:
            return 0.0
        hours = band.hours
        return band.num_left * (hours if math.isfinite(hours) else self.total.hours)

    def reasons(self, state: PatchState) -> list[Reason]:
        """Return why patches are in a state, most frequent reason first."""
        found = [
            (p.details.reason, p.key) for p in self.patches if p.details is not None and p.state is state
        ]
        return _gather(found, end="\n")

    def warnings(self) -> list[Reason]:
        """Return warnings for restored patches, most frequent first."""
        read = [(p.details, p.key) for p in self.patches if p.details is not None and p.state in WRITTEN]
        return _gather(((text, key) for details, key in read for text in details.warnings), end=":")

    def table(self) -> Table:
        """Return a row for every patch, with NaN, zeros and empty texts where
        ``read`` is false or nothing is known.
        """
        rows = []
        for patch in self.patches:
            details = patch.details or PatchDetails(patch.state)
            rows.append(
                {
                    **patch.key._asdict(),
                    "state": str(patch.state),
                    "read": patch.details is not None,
                    "reason": details.reason,
                    "num_warnings": len(details.warnings),
                    "num_failed_tiles": details.num_failed_tiles,
                    "num_exposures": details.num_exposures,
                    "seeing": details.seeing,
                    "target_fwhm": details.target_fwhm,
                    "device": details.device,
                    "wall_time": details.usage.wall,
                    "cpu_time": details.usage.cpu,
                    "earlier_wall_time": details.earlier.wall,
                    "earlier_cpu_time": details.earlier.cpu,
                    "host_memory": details.host_memory,
                    "device_memory": details.device_memory,
                }
            )
        units = {"seeing": u.arcsec, "target_fwhm": u.arcsec}
        units |= {name: u.s for name in rows[0] if name.endswith("_time")}
        units |= {name: u.byte for name in rows[0] if name.endswith("_memory")}
        return Table(rows=rows, units=units)


class CampaignWatch:
    """Look at a campaign again and again, and read each file once.

    Files are read of ``max_read`` patches in each band and state at most, a
    random sample that is the same at each look.
    """

    def __init__(
        self, source: StatusSource, *, label: str, max_read: int = 100, progress: Report | None = None
    ) -> None:
        self._source = source
        self._label = label
        self._max_read = max_read
        self._expected = sorted(source.find_expected(progress), key=_sample_order)
        self._known: dict[tuple[UUID | None, ...], PatchDetails] = {}

    def look(self, progress: Report | None = None) -> CampaignStatus:
        """Return the present status.

        Nothing is read of a patch whose files are just being removed or
        replaced.
        """
        found = self._source.find_outputs()
        outputs = {key: found.get(key, PatchOutputs()) for key in self._expected}
        groups: dict[tuple[str, PatchState], list[PatchKey]] = defaultdict(list)
        for key, datasets in outputs.items():
            if datasets.state is not PatchState.UNFINISHED:
                groups[key.band, datasets.state].append(key)
        chosen = [key for keys in groups.values() for key in keys[: self._max_read]]
        details: dict[PatchKey, PatchDetails] = {}
        for done, key in enumerate(chosen):
            if progress is not None:
                progress(done, len(chosen), str(key))
            if (read := self._read(outputs[key])) is not None:
                details[key] = read
        return CampaignStatus(
            [
                PatchStatus(
                    key, details[key].state if key in details else outputs[key].state, details.get(key)
                )
                for key in sorted(self._expected, key=lambda key: (band_order(key.band), key))
            ]
        )

    def _read(self, outputs: PatchOutputs) -> PatchDetails | None:
        """Read the files of a patch unless that was done; `None` if a file
        cannot be read.
        """
        refs = (outputs.log, outputs.metadata, outputs.coadd, *outputs.metrics)
        key = tuple(None if ref is None else ref.id for ref in refs)
        if key not in self._known:
            try:
                self._known[key] = read_details(self._source.get, outputs, self._label)
            except _VANISHED:
                return None
        return self._known[key]


def _sample_order(key: PatchKey) -> bytes:
    """Return a key that sorts patches at random, the same at each time."""
    return hashlib.blake2b(repr(key).encode(), digest_size=8).digest()


def _gather(found: Iterable[tuple[str, PatchKey]], *, end: str) -> list[Reason]:
    """Gather patches with the same message, up to a character and apart from
    numbers.
    """
    texts: dict[str, str] = {}
    patches: dict[str, dict[PatchKey, None]] = defaultdict(dict)
    for text, key in found:
        kind = re.sub(r"[-+.\d]+", "#", text.partition(end)[0])
        texts.setdefault(kind, text)
        patches[kind][key] = None
    kinds = sorted(texts, key=lambda kind: (-len(patches[kind]), kind))
    return [Reason(texts[kind], tuple(patches[kind])) for kind in kinds]


def _unit(device: str) -> str:
    """Return the kind of a device such as ``cuda:0``; empty if unknown."""
    if not device:
        return ""
    return "CPU" if device.startswith("cpu") else "GPU"


def _hours(usage: Usage, unit: str) -> float:
    """Return the hours that a GPU was held, or those of the CPU."""
    return (usage.wall if unit == "GPU" else usage.cpu) / 3600.0


def _median(values: Iterable[float]) -> float:
    """Return the median of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan
