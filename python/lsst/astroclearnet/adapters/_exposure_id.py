# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Identity of visit images, and why one is left out."""

from __future__ import annotations

__all__ = ("ExposureId", "UnusableExposureError")

import dataclasses
import re

from lsst.images import VisitImage


class UnusableExposureError(ValueError):
    """An exposure that must be left out.

    Parameters
    ----------
    reason
        A short, stable slug such as ``"no_psf"``.
    message
        What is wrong, with the value.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True, order=True)
class ExposureId:
    """Identity of a visit image; visit, detector and instrument compare.

    Attributes
    ----------
    visit, detector
        Their IDs.
    instrument, physical_filter
        Their names.
    day_obs
        Observing day as YYYYMMDD; 0 if unknown.
    """

    visit: int
    detector: int
    instrument: str = ""
    physical_filter: str = dataclasses.field(default="", compare=False)
    day_obs: int = dataclasses.field(default=0, compare=False)

    @classmethod
    def from_visit_image(cls, visit_image: VisitImage) -> ExposureId:
        """Construct from observation metadata, or else from the pixel frame.

        Parameters
        ----------
        visit_image
            The visit image.
        """
        info = visit_image.obs_info
        frame = visit_image.sky_projection.pixel_frame
        day = re.fullmatch(r"[0-9]{8}", str(info.observing_day or "").replace("-", ""))
        visit = info.visit_id if info.visit_id is not None else frame.visit
        return cls(
            visit=int(visit or 0),
            detector=int(frame.detector),
            instrument=info.instrument or frame.instrument or "",
            physical_filter=info.physical_filter or "",
            day_obs=int(day[0]) if day else 0,
        )

    @property
    def visit_key(self) -> tuple[str, int]:
        """Instrument and visit (`tuple`)."""
        return self.instrument, self.visit

    @property
    def detector_key(self) -> tuple[str, int, int]:
        """Instrument, visit and detector (`tuple`)."""
        return self.instrument, self.visit, self.detector

    @property
    def data_id(self) -> dict[str, str | int]:
        """Instrument, visit and detector by name (`dict`)."""
        return {"instrument": self.instrument, "visit": self.visit, "detector": self.detector}

    def __str__(self) -> str:
        return f"{self.instrument} visit {self.visit}, detector {self.detector}".lstrip()
