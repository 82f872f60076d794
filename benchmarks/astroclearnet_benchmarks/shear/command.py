# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether the shear of galaxies survives."""

from __future__ import annotations

__all__ = ("main",)

import logging
from collections.abc import Sequence

import numpy as np

from ..processes import start_logging
from ..record import Section, Table, format_value, make_page, make_parser
from .bias import measure_bias
from .measure import FLUXES, IMAGES, NUM_EXPOSURES, SHEAR, TARGET_FWHM, Shapes, measure_field

_LOG = logging.getLogger(__name__)

_FIRST_SEED = 900

_INTRODUCTION = (
    f"Sersic galaxies on a grid are sheared by g = ±{SHEAR} (g1 and g2 in turns), in {NUM_EXPOSURES} "
    "co-registered exposures of a seeing of 0.5 to 0.95 arcsec, with Moffat PSFs that are known and "
    "not quite round, blank sky around them, and the gaps between detectors. They are restored at "
    f"{TARGET_FWHM} pixels of 0.168 arcsec, with the default options. The variances are the true "
    "ones of the sky, the same for all. Each field is exposed at both shears with the same noise, and "
    "again with each galaxy turned by 90 degrees before it is sheared, and the noise negated, so that "
    "noise and shapes cancel in the differences and sums of a linear image. Moments are taken at the true "
    "centres under a fixed round Gaussian weight, and summed over galaxies; the same moments of the "
    "noise-free truth at the target PSF are what is expected. It is the response of the image that is "
    "measured: detection, selection, noise bias of single galaxies, blends, and errors of PSFs are "
    "left out."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    start_logging()
    parser = make_parser("shear", __doc__)
    parser.add_argument("--seeds", type=int, default=6, help="number of fields of each brightness")
    parser.add_argument("--size", type=int, default=200, help="side of the fields in pixels")
    options = parser.parse_args(words)
    rows = []
    for galaxies, fluxes in FLUXES.items():
        fields = []
        for k in range(options.seeds):
            fields.append(measure_field(_FIRST_SEED + k, options.size, k % 2, fluxes))
            _LOG.info("Field %d of %d, %s galaxies", k + 1, options.seeds, galaxies)
        rows += [_row(galaxies, image, [field[image] for field in fields]) for image in IMAGES]
    legend = (
        "m: difference of the ellipticities at both shears over that of the truth, less 1, its range "
        "over fields, and m of the moment along the shear alone, not divided by the size. c: mean of "
        "the ellipticities at both shears less that of the truth, of the component along the shear "
        "and the other one. Errors are from a bootstrap over galaxies."
    )
    command = f"{parser.prog} --seeds {options.seeds} --size {options.size}"
    section = Section.measured("shear", command, [Table("Bias of shear", legend, rows)])
    options.output.write_text(make_page([section], title="Shear", introduction=_INTRODUCTION))
    return 0


def _row(galaxies: str, image: str, fields: Sequence[Shapes]) -> dict[str, str]:
    """Return the row of an image."""
    bias = measure_bias(fields)
    single = [measure_bias([field]).shear[0] for field in fields]
    ratios = np.concatenate([field.signal_to_noise for field in fields])
    return {
        "galaxies": galaxies,
        "image": image,
        "number": str(len(ratios)),
        "median S/N": f"{np.median(ratios):.0f}",
        "m, 1e-3": format_value(bias.shear, 1e3),
        "m of fields, 1e-3": f"{1e3 * min(single):.2f} to {1e3 * max(single):.2f}",
        "m of moments, 1e-3": format_value(bias.moment, 1e3),
        "c along, 1e-4": format_value(bias.along, 1e4),
        "c across, 1e-4": format_value(bias.across, 1e4),
    }
