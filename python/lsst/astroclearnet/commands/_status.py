# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sum up a restoration of many patches."""

from __future__ import annotations

__all__ = ("BandStatus", "CampaignStatus", "PatchStatus", "Reason")

import dataclasses
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

import astropy.units as u
from astropy.table import Table

from ..report import band_order
from ._status_outputs import PatchKey, PatchState
from ._status_reading import PatchDetails, Usage

ALL = "all"
"""Name of the row of all bands."""

WRITTEN = (PatchState.DONE, PatchState.PARTIAL)
"""States of patches that have a coadd."""

_LEFT = (PatchState.FAILED, PatchState.UNFINISHED)


@dataclasses.dataclass(frozen=True)
class PatchStatus:
    """How far a patch is.

    Attributes
    ----------
    key
        The patch.
    state
        How far it is.
    details
        What its files say; `None` if there are none or they were not read.
    """

    key: PatchKey
    state: PatchState
    details: PatchDetails | None = None


@dataclasses.dataclass(frozen=True)
class BandStatus:
    """How far the patches of a band are, or those of all bands.

    Attributes
    ----------
    band
        Name of the band, or ``all``.
    patches
        The patches, at least one.
    unit
        ``GPU`` if the patches of the campaign are restored on one, else
        ``CPU``.
    """

    band: str
    patches: Sequence[PatchStatus]
    unit: str

    @cached_property
    def counts(self) -> Counter[PatchState]:
        """Number of patches in each state (`collections.Counter`)."""
        return Counter(patch.state for patch in self.patches)

    @cached_property
    def read(self) -> list[PatchDetails]:
        """What was read of the patches with a coadd (`list`)."""
        return [p.details for p in self.patches if p.details is not None and p.state in WRITTEN]

    @property
    def num_written(self) -> int:
        """Number of patches with a coadd (`int`)."""
        return sum(self.counts[state] for state in WRITTEN)

    @property
    def num_left(self) -> int:
        """Number of patches that failed or are not finished (`int`)."""
        return sum(self.counts[state] for state in _LEFT)

    @property
    def num_warned(self) -> int:
        """Number of patches, among those read, with a warning (`int`)."""
        return sum(bool(details.warnings) for details in self.read)

    def median(self, name: str) -> float:
        """Return the median of a figure.

        Parameters
        ----------
        name
            Attribute of `PatchDetails`.

        Returns
        -------
        median : `float`
            That of the patches read with a coadd; NaN if none has it.
        """
        return _median(float(getattr(details, name)) for details in self.read)

    def maximum(self, name: str) -> float:
        """Return the largest value of a figure.

        Parameters
        ----------
        name
            Attribute of `PatchDetails`.

        Returns
        -------
        maximum : `float`
            That of the patches read with a coadd; NaN if none has it.
        """
        values = [float(getattr(details, name)) for details in self.read]
        return max((value for value in values if math.isfinite(value)), default=math.nan)

    @property
    def median_time(self) -> float:
        """Median wall-clock time of a patch with a coadd in s (`float`)."""
        return _median(details.usage.wall for details in self.read)

    @property
    def hours(self) -> float:
        """Median hours of a patch with a coadd on the device of the campaign;
        NaN if none is known (`float`).
        """
        used = [details.usage for details in self.read if _unit(details.device) in ("", self.unit)]
        return _median(_hours(usage, self.unit) for usage in used)

    @cached_property
    def hours_spent(self) -> dict[str, float]:
        """Hours that were spent on each kind of device, failures and earlier
        attempts included (`dict`).

        Where only some of the patches in a state were read, the others are
        taken to be like them.
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
    """How far a campaign is.

    Attributes
    ----------
    patches
        Every patch, in order of band by wavelength, tract and patch; at least
        one.
    """

    patches: Sequence[PatchStatus]

    @cached_property
    def unit(self) -> str:
        """Kind of device that restores most patches, ``GPU`` or ``CPU``
        (`str`).
        """
        units = Counter(_unit(p.details.device) for p in self.patches if p.details is not None)
        return "GPU" if units["GPU"] > units["CPU"] else "CPU"

    @cached_property
    def bands(self) -> tuple[BandStatus, ...]:
        """The bands in order of wavelength (`tuple` [`BandStatus`])."""
        groups: dict[str, list[PatchStatus]] = defaultdict(list)
        for patch in self.patches:
            groups[patch.key.band].append(patch)
        return tuple(BandStatus(band, groups[band], self.unit) for band in sorted(groups, key=band_order))

    @cached_property
    def total(self) -> BandStatus:
        """All bands together (`BandStatus`)."""
        return BandStatus(ALL, self.patches, self.unit)

    @property
    def is_complete(self) -> bool:
        """Whether every patch is restored or has no work (`bool`)."""
        return self.total.num_left == 0

    def hours_left(self, band: BandStatus) -> float:
        """Project the hours that failed and unfinished patches will take.

        Parameters
        ----------
        band
            A band, or all.

        Returns
        -------
        hours : `float`
            Those on the device of the campaign, from the median of each band,
            or that of all where a band has no patch yet; NaN if none has.
        """
        if band.band == ALL:
            return math.fsum(self.hours_left(each) for each in self.bands)
        if not band.num_left:
            return 0.0
        hours = band.hours
        return band.num_left * (hours if math.isfinite(hours) else self.total.hours)

    def reasons(self, state: PatchState) -> list[Reason]:
        """Gather the patches that ended for the same reason.

        Parameters
        ----------
        state
            Which patches to look at.

        Returns
        -------
        reasons : `list` [`Reason`]
            The most frequent first; of the patches that were read.
        """
        found = [
            (p.details.reason, p.key) for p in self.patches if p.details is not None and p.state is state
        ]
        return _gather(found, lines=True)

    def warnings(self) -> list[Reason]:
        """Gather the patches that were warned of the same.

        Returns
        -------
        warnings : `list` [`Reason`]
            The most frequent first; of the patches that were read.
        """
        read = [(p.details, p.key) for p in self.patches if p.details is not None and p.state in WRITTEN]
        return _gather(((text, key) for details, key in read for text in details.warnings), lines=False)

    def table(self) -> Table:
        """Return a row for every patch.

        Returns
        -------
        table : `astropy.table.Table`
            NaN, zeros and empty texts where ``read`` is false or nothing is
            known.
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


@dataclasses.dataclass(frozen=True)
class Reason:
    """What happened to some patches in the same way.

    Attributes
    ----------
    text
        What was said of the first of them.
    patches
        The patches, at least one.
    """

    text: str
    patches: tuple[PatchKey, ...]


def _gather(found: Iterable[tuple[str, PatchKey]], *, lines: bool) -> list[Reason]:
    """Gather patches of which the same was said, apart from numbers.

    Parameters
    ----------
    found
        Texts and their patches.
    lines
        Compare the first line of each text, instead of what is before its
        first colon.

    Returns
    -------
    reasons : `list` [`Reason`]
        The most frequent first.
    """
    texts: dict[str, str] = {}
    patches: dict[str, dict[PatchKey, None]] = defaultdict(dict)
    for text, key in found:
        kind = re.sub(r"[-+.\d]+", "#", text.partition("\n" if lines else ":")[0])
        texts.setdefault(kind, text)
        patches[kind][key] = None
    kinds = sorted(texts, key=lambda kind: (-len(patches[kind]), kind))
    return [Reason(texts[kind], tuple(patches[kind])) for kind in kinds]


def _unit(device: str) -> str:
    """Return the kind of a device.

    Parameters
    ----------
    device
        Its name, such as ``cuda:0``.

    Returns
    -------
    unit : `str`
        ``GPU`` or ``CPU``; empty if there is no name.
    """
    if not device:
        return ""
    return "CPU" if device.startswith("cpu") else "GPU"


def _hours(usage: Usage, unit: str) -> float:
    """Return the hours that a device was in use.

    Parameters
    ----------
    usage
        Time of a patch.
    unit
        Kind of the device.

    Returns
    -------
    hours : `float`
        Wall-clock time that a GPU was held, or CPU time.
    """
    return (usage.wall if unit == "GPU" else usage.cpu) / 3600.0


def _median(values: Iterable[float]) -> float:
    """Return the median of numbers.

    Parameters
    ----------
    values
        The numbers.

    Returns
    -------
    median : `float`
        That of the finite ones; NaN if there is none.
    """
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan
