# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Surveys to be released, and facilities to do it."""

from __future__ import annotations

__all__ = ("HSC_WIDE", "RUBIN_YEAR_1", "RUBIN_YEAR_10", "SURVEYS", "Site", "Survey")

import dataclasses
import math
from collections.abc import Mapping

_TRACT_AREA = 41253.0 / 18938
"""Square degrees of sky of a tract with 120 rings: 18,938 tracts cover the
sky (RTN-028)."""


@dataclasses.dataclass(frozen=True)
class Site:
    """A facility.

    Attributes
    ----------
    name
        Its name.
    cores
        Cores for jobs.
    gpus
        GPUs for jobs, each with a share of the cores.
    bandwidth
        Bytes a second that all jobs together can read and write.
    submit_hosts
        Hosts that build graphs.
    source
        Where these numbers are from.
    """

    name: str
    cores: int
    gpus: int
    bandwidth: float
    submit_hosts: int
    source: str


@dataclasses.dataclass(frozen=True)
class Survey:
    """The sky that is released.

    Attributes
    ----------
    name
        Its name.
    area
        Square degrees.
    depths
        Exposures that cover a point, by band.
    pixel_scale
        Arcseconds.
    patch_side
        Pixels of a patch with its border.
    patches_per_tract
        Patches of a tract.
    detector_shape
        Pixels of a detector, which is a file.
    reads_whole_files
        Whether detector images are read whole; else the overlap is read.
    site
        Where it is done.
    source
        Where these numbers are from.
    """

    name: str
    area: float
    depths: Mapping[str, float]
    pixel_scale: float
    patch_side: int
    patches_per_tract: float
    detector_shape: tuple[int, int]
    reads_whole_files: bool
    site: Site
    source: str

    @property
    def num_tracts(self) -> int:
        """Tracts, whose inner regions tile the sky (`int`)."""
        return math.ceil(self.area / _TRACT_AREA)

    @property
    def num_patches(self) -> int:
        """Patches, those in the overlap of tracts included (`int`)."""
        return round(self.num_tracts * self.patches_per_tract)

    @property
    def num_quanta(self) -> int:
        """Patches and bands (`int`)."""
        return self.num_patches * len(self.depths)

    @property
    def patch_pixels(self) -> int:
        """Pixels of a patch (`int`)."""
        return self.patch_side**2

    @property
    def detectors_per_exposure(self) -> float:
        """Detector images that overlap a patch for each exposure that covers a
        point of it (`float`).

        A convex figure of area A and perimeter P, at random places and angles,
        meets (A + a + P p / 2 pi) / a figures of area a and perimeter p that
        cover each point once (Santalo 1976, Integral Geometry, I.6).
        """
        height, width = self.detector_shape
        area, perimeter = height * width, 2 * (height + width)
        return (self.patch_pixels + area + 4 * self.patch_side * perimeter / (2 * math.pi)) / area

    @property
    def read_pixels_per_exposure(self) -> float:
        """Pixels that are read for each exposure that covers a point
        (`float`).
        """
        if self.reads_whole_files:
            return self.detectors_per_exposure * math.prod(self.detector_shape)
        return self.patch_pixels


_USDF = Site(
    name="USDF, and 64 GPUs",
    cores=21600,
    gpus=64,
    bandwidth=20e9,
    submit_hosts=4,
    source="cores: the batch fleet of the US Data Facility (DMTN-135, update of 2026); the rest is assumed",
)
_CLUSTER = Site(
    name="cluster of a university",
    cores=1920,
    gpus=16,
    bandwidth=5e9,
    submit_hosts=1,
    source="assumed: 16 nodes of 120 cores, 16 GPUs",
)

_SHARES = {"u": 56, "g": 80, "r": 184, "i": 184, "z": 160, "y": 160}
"""Design of the visits in ten years by band (Ivezic et al. 2019, Table 1)."""


def _rubin_depths(visits: float) -> dict[str, float]:
    return {band: visits * share / sum(_SHARES.values()) for band, share in _SHARES.items()}


RUBIN_YEAR_1 = Survey(
    name="Rubin wide, year 1",
    area=19600.0,
    depths=_rubin_depths(80.0),
    pixel_scale=0.2,
    patch_side=3300,
    patches_per_tract=1285731 / 13015,
    detector_shape=(4000, 4072),
    reads_whole_files=False,
    site=_USDF,
    source=(
        "19,600 square degrees and 800 visits of a point in ten years (survey-strategy.lsst.io, baseline "
        "3.4), a tenth of them in year 1; shares of the bands: Ivezic et al. 2019, Table 1; `lsst_cells_v1` "
        "of 120 rings and 22x22 cells of 150 pixels with the border (lsst/skymap), 98.8 patches a tract "
        "(RTN-109, Table 7)"
    ),
)

RUBIN_YEAR_10 = dataclasses.replace(
    RUBIN_YEAR_1,
    name="Rubin wide, year 10",
    depths=_rubin_depths(800.0),
    source="as year 1, with all visits, on the facility of today",
)

HSC_WIDE = Survey(
    name="HSC wide",
    area=1400.0,
    depths={"g": 4, "r": 4, "i": 6, "z": 6, "y": 6},
    pixel_scale=0.168,
    patch_side=4200,
    patches_per_tract=81,
    detector_shape=(4176, 2048),
    reads_whole_files=True,
    site=_CLUSTER,
    source=(
        "1,400 square degrees, g in four exposures of 2.5 minutes (hsc-release.mtk.nao.ac.jp, Survey); 10 "
        "minutes in g and r and 20 in i, z and y (Aihara et al. 2019), assumed in exposures of 200 s; "
        "`hsc_rings_v1` of 120 rings, 9x9 patches a tract; calexp are read whole"
    ),
)

SURVEYS = (RUBIN_YEAR_1, RUBIN_YEAR_10, HSC_WIDE)
"""Surveys of the record."""
