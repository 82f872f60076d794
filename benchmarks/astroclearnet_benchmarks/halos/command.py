# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether light of low surface brightness survives."""

from __future__ import annotations

__all__ = ("main",)

import logging
from collections.abc import Sequence

import numpy as np

from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from .measure import COVERAGES, IMAGES, measure_halo

_LOG = logging.getLogger(__name__)

_FIRST_SEED = 700

_INTRODUCTION = (
    "A halo of 28 mag/arcsec2 in its centre (0.92 nJy a pixel of 0.2 arcsec) and 30 arcsec FWHM is added to "
    "a field of 8 exposures, of a sky noise of 30 nJy a pixel each: 3 % of it. Each exposure has a "
    "background of its own, a plane of 9 nJy rms in level and slopes. The difference to the restoration "
    "without the halo, of the same noise, is compared with the halo."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    start_logging()
    parser = make_parser("halos", __doc__)
    parser.add_argument("--seeds", type=int, default=4, help="number of fields")
    parser.add_argument("--size", type=int, default=320, help="side of the fields in pixels")
    options = parser.parse_args(words)
    rows = []
    for coverage in COVERAGES:
        found = [measure_halo(_FIRST_SEED + k, options.size, coverage) for k in range(options.seeds)]
        for image in IMAGES:
            light = np.array([one[image].light for one in found])
            centre = np.array([one[image].centre for one in found])
            rows.append(
                {
                    "exposures": coverage,
                    "image": image,
                    "fields": str(len(found)),
                    "light within 30 arcsec": f"{light.mean():.3f}",
                    "lowest": f"{light.min():.3f}",
                    "highest": f"{light.max():.3f}",
                    "within 8 arcsec": f"{centre.mean():.3f}",
                    "lowest, within 8": f"{centre.min():.3f}",
                    "highest, within 8": f"{centre.max():.3f}",
                }
            )
            _LOG.info("%s", rows[-1])
    legend = "Light that is found over that of the halo, within radii from its centre."
    command = f"{parser.prog} --seeds {options.seeds} --size {options.size}"
    section = Section.measured("halos", command, [Table("Light of halos", legend, rows)])
    options.output.write_text(make_page([section], title="Halos", introduction=_INTRODUCTION))
    return 0
