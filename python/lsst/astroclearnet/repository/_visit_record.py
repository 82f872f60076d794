# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a repository records of a visit image."""

from __future__ import annotations

__all__ = ("VisitRecord",)

import dataclasses
import logging
import math
from typing import Any, Self

from lsst.daf.butler import Timespan
from lsst.images import VisitImage
from lsst.sphgeom import ConvexPolygon

from ..adapters import box_region
from ._names import _require_filter, _require_id, require_name

_LOG = logging.getLogger(__name__)

_DEFAULT_DAY_OBS = 19700101
_LAST_DAY_OBS = 99991231
_MAX_TEXT = 64
"""Characters that the registry has for a target or a programme."""


@dataclasses.dataclass(frozen=True)
class VisitRecord:
    """What a repository records of a visit image, checked.

    Attributes
    ----------
    instrument, visit, detector
        Its data ID.
    detector_name, physical_filter, band, day_obs
        Names of detector, filter and band; observing day as ``YYYYMMDD``.
    exposure_time
        In seconds; `None` if it is not known.
    target_name, science_program
        What was observed, and why; `None` if it is not known.
    timespan
        When; `None` if it is not known.
    region
        Region of sky of its pixels.
    """

    instrument: str
    visit: int
    detector: int
    detector_name: str
    physical_filter: str
    band: str
    day_obs: int
    exposure_time: float | None
    target_name: str | None
    science_program: str | None
    timespan: Timespan | None
    region: ConvexPolygon

    @classmethod
    def from_visit_image(cls, visit_image: VisitImage) -> Self:
        """Read the record from an image.

        Parameters
        ----------
        visit_image
            The image.  Where ``obs_info`` has no observing day, the UTC date
            of its start is used, and ``19700101`` without that.

        Returns
        -------
        record : `VisitRecord`
            The record.

        Raises
        ------
        ValueError
            If a name or number is missing or none that a repository can keep,
            or if the image has no region of sky.
        """
        info = visit_image.obs_info
        frame = visit_image.sky_projection.pixel_frame
        instrument = info.instrument or frame.instrument
        visit = info.visit_id if info.visit_id is not None else frame.visit
        if not instrument or visit is None:
            missing = "visit_id" if instrument else "instrument"
            raise ValueError(
                f"Visit image of detector {visit_image.detector.name!r} cannot be recorded: neither its "
                f"obs_info nor its pixel frame names the {missing.removesuffix('_id')}. Set "
                f"obs_info.{missing}."
            )
        for name, value in (("band", visit_image.band), ("physical filter", visit_image.physical_filter)):
            if not value:
                raise ValueError(
                    f"Visit image of detector {visit_image.detector.name!r} cannot be recorded: it names no "
                    f"{name}. Set {'its band' if name == 'band' else 'obs_info.physical_filter'}."
                )
        seconds = None if info.exposure_time is None else float(info.exposure_time.to_value("s"))
        return cls(
            instrument=require_name("instrument", instrument),
            visit=_require_id("visit", visit),
            detector=_require_id("detector", visit_image.detector.id),
            detector_name=require_name("detector", visit_image.detector.name),
            physical_filter=_require_filter(visit_image.physical_filter),
            band=require_name("band", visit_image.band),
            day_obs=_observing_day(info),
            exposure_time=seconds if seconds is not None and math.isfinite(seconds) else None,
            target_name=_text(info.object),
            science_program=_text(info.science_program),
            timespan=_timespan(info),
            region=_region(visit_image),
        )

    @property
    def data_id(self) -> dict[str, Any]:
        """Values of ``instrument``, ``visit`` and ``detector`` (`dict`)."""
        return {"instrument": self.instrument, "visit": self.visit, "detector": self.detector}

    @property
    def visit_row(self) -> dict[str, Any]:
        """Record of the dimension ``visit`` (`dict`)."""
        row = {
            "instrument": self.instrument,
            "id": self.visit,
            "name": str(self.visit),
            "physical_filter": self.physical_filter,
            "day_obs": self.day_obs,
            "exposure_time": self.exposure_time,
            "target_name": self.target_name,
            "science_program": self.science_program,
        }
        return row if self.timespan is None else row | {"timespan": self.timespan}


def _observing_day(info: Any) -> int:
    """Return the observing day of an image as ``YYYYMMDD``."""
    day = _DEFAULT_DAY_OBS
    if info.observing_day is not None:
        day = _require_id("observing day", info.observing_day)
    elif info.datetime_begin is not None:
        day = int(info.datetime_begin.utc.strftime("%Y%m%d"))
    if day > _LAST_DAY_OBS:
        raise ValueError(f"The observing day is {day}: it must be a date as YYYYMMDD.")
    return day


def _text(value: str | None) -> str | None:
    """Return what can be kept of a text."""
    if value is None:
        return None
    return "".join(c if c.isprintable() else " " for c in value)[:_MAX_TEXT] or None


def _timespan(info: Any) -> Timespan | None:
    """Return when an image was taken; `None` if it does not say so."""
    if info.datetime_begin is None or info.datetime_end is None:
        return None
    try:
        timespan = Timespan(info.datetime_begin, info.datetime_end)
    except (ValueError, OverflowError) as exc:
        _LOG.warning("Times of visit %s are not recorded: %s", info.visit_id, exc)
        return None
    return None if timespan.isEmpty() else timespan


def _region(visit_image: VisitImage) -> ConvexPolygon:
    """Return the region of sky of an image."""
    try:
        region = box_region(visit_image.sky_projection, visit_image.bbox)
        area = region.getBoundingCircle().getArea()
    except Exception as exc:
        # The projection may fail in any way of the library that computes it.
        raise ValueError(f"Its sky projection gives its corners no positions: {exc}") from exc
    if not area > 0:
        raise ValueError("Its sky projection gives its corners no positions that differ.")
    return region
