# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tables of a comparison for the terminal."""

from __future__ import annotations

__all__ = ("comparison_tables", "format_number")

import math
from collections.abc import Iterator

from astropy.table import Row, Table
from rich.table import Table as RichTable

from ..metrics import SIGNAL_TO_NOISE_BINS

_IMAGE_COLUMNS = (
    ("FWHM (\N{DOUBLE PRIME})", "fwhm", 3),
    ("PSF (\N{DOUBLE PRIME})", "psf_fwhm", 3),
    ("5\N{GREEK SMALL LETTER SIGMA} claimed", "depth_claimed", 2),
    ("draws", "depth_noise", 2),
    ("blank sky", "depth_measured", 2),
    ("stars", "depth_stars", 2),
    ("correlation", "noise_correlation", 2),
    ("red. \N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}", "chi_square", 3),
    ("exposures", "num_exposures", 0),
    ("dropped", "num_dropped", 0),
)


def comparison_tables(table: Table) -> list[RichTable]:
    """Lay out a comparison for reading.

    Parameters
    ----------
    table
        What `compare_patches` returned.

    Returns
    -------
    tables : `list` [`rich.table.Table`]
        One on the images, one on the fluxes of their stars.
    """
    images = RichTable(
        title="Images: width of the stars, depth (AB mag), noise, exposures",
        caption="5\N{GREEK SMALL LETTER SIGMA} depth for point sources: claimed by the variance plane for "
        "white noise; shown by the noise realisations (draws); by blank sky, which a restoration smooths "
        "more than sources; and by the errors, bias and all, of faint stars. Correlation: of the noise of "
        "adjacent pixels. Row all: medians over the patches.",
    )
    stars = RichTable(
        title="Star fluxes against the truth, in bins of the signal-to-noise ratio in the coadd",
        caption="Bias and scatter in percent; pull: scatter in units of the claimed error, which is that of "
        "white noise except for the linear coadd, whose fluxes follow from the covariance of its noise. The "
        "stars are the same for all images. Row all: the stars of all patches together.",
    )
    for tabular in (images, stars):
        for name in ("band", "patch", "image"):
            tabular.add_column(name)
    for name, _, _ in _IMAGE_COLUMNS:
        images.add_column(name, justify="right")
    for low, high in SIGNAL_TO_NOISE_BINS:
        name = f"S/N > {low:.0f}" if math.isinf(high) else f"S/N {low:.0f}-{high:.0f}"
        for title in (f"{name}\nstars", "\nbias", "\nscatter", "\npull"):
            stars.add_column(title, justify="right")
    for number, row in enumerate(table):
        is_last = number + 1 == len(table) or table["patch"][number + 1] != row["patch"]
        style = "bold" if row["patch"] == "all" else None
        key = (str(row["band"]), str(row["patch"]), str(row["image"]))
        values = [format_number(row[name], digits) for _, name, digits in _IMAGE_COLUMNS]
        images.add_row(*key, *values, style=style, end_section=is_last)
        stars.add_row(*key, *_star_cells(row), style=style, end_section=is_last)
    return [images, stars]


def _star_cells(row: Row) -> Iterator[str]:
    """Format the statistics of the stars of one image.

    Parameters
    ----------
    row
        A row of the comparison.

    Yields
    ------
    cell : `str`
        Number, bias, scatter and pull of each bin.
    """
    for low, high in SIGNAL_TO_NOISE_BINS:
        suffix = f"_snr_{low:.0f}_{high:.0f}"
        yield format_number(row[f"num_stars{suffix}"], 0)
        for name in ("bias_percent", "scatter_percent"):
            yield _with_error(row[f"{name}{suffix}"], row[f"{name}_error{suffix}"])
        yield format_number(row[f"pull_width{suffix}"], 2)


def format_number(value: float, digits: int) -> str:
    """Format a number.

    Parameters
    ----------
    value
        The number.
    digits
        Digits after the point.

    Returns
    -------
    text : `str`
        A dash for NaN.
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _with_error(value: float, error: float) -> str:
    """Format a number and its error.

    Parameters
    ----------
    value
        The number.
    error
        Its standard deviation.

    Returns
    -------
    text : `str`
        Both with the digits that the error warrants, and without the error
        if there is none.
    """
    if not math.isfinite(error):
        return format_number(value, 1)
    digits = 1 if error >= 0.5 else 2
    return f"{value:.{digits}f}\N{PLUS-MINUS SIGN}{error:.{digits}f}"
