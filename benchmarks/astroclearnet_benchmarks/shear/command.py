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
from .bias import measure_bias, measure_response_bias
from .fields import FLUXES, IMAGES, NUM_EXPOSURES, SHEAR, TARGET_FWHM, TRUTH
from .records import FieldRecord, measure_or_read
from .responses import PLACES, has_anacal

_LOG = logging.getLogger(__name__)

_FIRST_SEED = 900

_INTRODUCTION = (
    f"Sersic galaxies on a grid are sheared by g = ±{SHEAR} (g1 and g2 in turns), in {NUM_EXPOSURES} "
    "co-registered exposures of a seeing of 0.5 to 0.95 arcsec, with Moffat PSFs that are known and "
    "not quite round, blank sky around them, and the gaps between detectors. They are restored at "
    f"{TARGET_FWHM} pixels of 0.168 arcsec, with the default options. The variances are the true "
    "ones of the sky, the same for all. Each field is exposed at both shears with the same noise, and "
    "again with each galaxy turned by 90 degrees before it is sheared, and the noise negated, so that "
    "noise and shapes cancel in the differences and sums of a linear image. Blends and errors of PSFs are "
    "left out."
)

_MOMENTS = (
    "Moments are taken at the true centres under a fixed round Gaussian weight, and summed over "
    "galaxies; the same moments of the noise-free truth at the target PSF are what is expected. It is the "
    "response of the image that is measured, without detection, selection, and noise bias of single "
    "galaxies. m: difference of the ellipticities at both shears over that of the truth, less 1, its range "
    "over fields, and m of the moment along the shear alone, not divided by the size. c: mean of "
    "the ellipticities at both shears less that of the truth, of the component along the shear "
    "and the other one. Errors are from a bootstrap over galaxies."
)

_RESPONSES = (
    "FPFS of anacal, as a user would run it: with a noise realisation of the coadd, turned by 90 degrees, "
    "and its own correction for the response of ellipticities, detection and noise. known: measured at the "
    "true centres; detected: where anacal detects, with the weights of its detection, whose noise from the "
    "place of a galaxy in its pixel is in the errors. The truth is the noise-free sky at the target PSF, "
    "which shows what anacal does alone. m: difference of the shears at both signs over the true one, less "
    "1; interval: that of 95 %; over truth: m less that of the truth, of the same galaxies. c: mean of the "
    "shears at both signs, along the shear and across. Errors are from a bootstrap over galaxies. Beside a "
    "gap in the sharpest exposure noise is far stronger, and the turned realisation has it elsewhere."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page; fields that were measured are kept."""
    start_logging()
    parser = make_parser("shear", __doc__, "measured fields")
    parser.add_argument("--seeds", type=int, default=24, help="number of fields of each brightness")
    parser.add_argument("--size", type=int, default=320, help="side of the fields in pixels")
    options = parser.parse_args(words)
    options.work.mkdir(parents=True, exist_ok=True)
    if not has_anacal():
        _LOG.warning("The package anacal is not installed: shears from responses are left out.")
    fields: dict[str, list[FieldRecord]] = {galaxies: [] for galaxies in FLUXES}
    for k in range(options.seeds):
        for galaxies, records in fields.items():
            records.append(measure_or_read(options.work, galaxies, _FIRST_SEED + k, options.size))
    tables = [
        Table(
            "Response of the images",
            _MOMENTS,
            [
                _moment_row(galaxies, image, records)
                for galaxies, records in fields.items()
                for image in IMAGES
            ],
        )
    ]
    if has_anacal():
        rows = [
            _response_row(galaxies, place, image, records)
            for galaxies, records in fields.items()
            for place in PLACES
            for image in (TRUTH, *IMAGES)
        ]
        tables.append(Table("Shears by anacal", _RESPONSES, rows))
    command = f"{parser.prog} --seeds {options.seeds} --size {options.size}"
    section = Section.measured("shear", command, tables)
    options.output.write_text(make_page([section], title="Shear", introduction=_INTRODUCTION))
    return 0


def _moment_row(galaxies: str, image: str, records: Sequence[FieldRecord]) -> dict[str, str]:
    """Return the row of an image, from moments."""
    bias = measure_bias([record.shapes[image] for record in records])
    single = [measure_bias([record.shapes[image]]).shear[0] for record in records]
    ratios = np.concatenate([record.signal_to_noise for record in records])
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


def _response_row(galaxies: str, place: str, image: str, records: Sequence[FieldRecord]) -> dict[str, str]:
    """Return the row of an image, from responses."""
    recovered, true = ([record.responses[place, name] for record in records] for name in (image, TRUTH))
    bias = measure_response_bias(recovered, true)
    value, error = bias.shear
    return {
        "galaxies": galaxies,
        "positions": place,
        "image": image,
        "number": str(sum(field.shape[1] for field in recovered)),
        "m, 1e-3": format_value(bias.shear, 1e3),
        "interval, 1e-3": f"{1e3 * (value - 1.96 * error):.1f} to {1e3 * (value + 1.96 * error):.1f}",
        "over truth, 1e-3": "-" if image == TRUTH else format_value(bias.over_truth, 1e3),
        "c along, 1e-4": format_value(bias.along, 1e4),
        "c across, 1e-4": format_value(bias.across, 1e4),
    }
