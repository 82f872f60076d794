# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visits that another task has selected."""

from __future__ import annotations

__all__ = ("VisitSelections", "parse_visit_selections", "require_selected")

from collections.abc import Iterable, Mapping
from typing import Any

from ..adapters import ExposureId, UnusableExposureError

type VisitSelections = Mapping[str, frozenset[int]]
"""Selected visits by the name of their instrument."""


def parse_visit_selections(
    datasets: Iterable[tuple[str, Mapping[Any, Any]]],
) -> dict[str, frozenset[int]]:
    """Take the selected visits from datasets.

    Parameters
    ----------
    datasets
        Instrument and content of each dataset, as
        ``lsst.pipe.tasks.selectImages.BestSeeingSelectVisitsTask`` and
        ``BestSeeingQuantileSelectVisitsTask`` write them: a dictionary whose
        keys are the selected visits.  The keys may be numbers or, where a
        format like JSON knows no others, strings; the values do not count.

    Returns
    -------
    selections : `dict` [`str`, `frozenset` [`int`]]
        Selected visits by instrument.

    Raises
    ------
    ValueError
        If a key is no visit.
    """
    selections: dict[str, frozenset[int]] = {}
    for instrument, content in datasets:
        try:
            visits = frozenset(int(key) for key in content)
        except (TypeError, ValueError) as exc:
            raise ValueError(
                f"The visit selection of {instrument} has a key that is no visit ({exc}); "
                "it must be a dictionary whose keys are visits."
            ) from exc
        selections[instrument] = selections.get(instrument, frozenset()) | visits
    return selections


def require_selected(identity: ExposureId, selections: VisitSelections) -> None:
    """Refuse an exposure whose visit is not selected.

    Parameters
    ----------
    identity
        Which exposure.
    selections
        Selected visits by instrument.

    Raises
    ------
    UnusableExposureError
        With reason ``visit_not_selected``.
    """
    if identity.instrument not in selections:
        names = ", ".join(sorted(selections)) or "none"
        raise UnusableExposureError(
            "visit_not_selected",
            f"There is no visit selection of instrument {identity.instrument!r}; there are: {names}.",
        )
    visits = selections[identity.instrument]
    if identity.visit not in visits:
        raise UnusableExposureError(
            "visit_not_selected",
            f"Visit {identity.visit} is not among the {len(visits)} of the visit selection.",
        )
