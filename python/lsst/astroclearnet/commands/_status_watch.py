# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Look at a restoration of many patches, again and again."""

from __future__ import annotations

__all__ = ("CampaignWatch",)

import hashlib
from collections import defaultdict
from uuid import UUID

from ..report import band_order
from ._status import CampaignStatus, PatchStatus
from ._status_outputs import PatchKey, PatchOutputs, PatchState, Report, StatusSource
from ._status_reading import PatchDetails, read_details

_VANISHED = (OSError, LookupError, ValueError, RuntimeError)
"""What reading raises where a file is being removed or replaced."""


class CampaignWatch:
    """Look at a restoration, and read each file once.

    Parameters
    ----------
    source
        Where its datasets are looked up.
    label
        Label of the task.
    max_read
        Number of patches in each band and state whose files are read at most.
        They are chosen at random, but are the same at each look.
    progress
        Function that is told how far the search for the patches is.
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
        """Look how far it is now.

        Parameters
        ----------
        progress
            Function that is told how many files of patches are read.

        Returns
        -------
        status : `CampaignStatus`
            What there is.  Nothing is read of a patch whose files are just
            being removed or replaced.
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
        """Read the files of a patch unless that was done.

        Parameters
        ----------
        outputs
            Its datasets.

        Returns
        -------
        details : `PatchDetails` or `None`
            What they say; `None` if a file cannot be read.
        """
        refs = (outputs.log, outputs.metadata, outputs.coadd, outputs.metrics)
        key = tuple(None if ref is None else ref.id for ref in refs)
        if key not in self._known:
            try:
                self._known[key] = read_details(self._source.get, outputs, self._label)
            except _VANISHED:
                return None
        return self._known[key]


def _sample_order(key: PatchKey) -> bytes:
    """Return what patches are sorted by to be a random sample.

    Parameters
    ----------
    key
        A patch.

    Returns
    -------
    order : `bytes`
        The same at each time.
    """
    return hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
