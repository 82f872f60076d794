# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``compare``: coadds of a simulated survey against the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Row, Table
from rich.table import Table as RichTable

from lsst.daf.butler import Butler, DatasetRef

from ...adapters import CoaddArrays
from ...metrics import (
    SIGNAL_TO_NOISE_BINS,
    depth_of_error,
    measure_patch,
    measured_depth,
    psf_flux,
    psf_flux_correlated,
    star_statistics,
)
from ...report import band_order
from .._butler import find_datasets
from .._errors import CommandError
from .._progress import Report
from .._tables import ARCSEC, Columns, format_number, make_table, number, text
from ._patch import Patch, read_patch

type Array = npt.NDArray[np.float64]

_ALL = "all"
"""Name of the row of all patches of a band."""

_SCATTER_ERROR = 1.17
"""Error of a standard deviation from the median absolute deviation, times the
root of the number of stars (Rousseeuw and Croux 1993, JASA 88, 1273)."""

_MIN_DEPTH_STARS = 8
"""Fewest stars that give a depth, within 1.09 * 1.17 / sqrt(8) = 0.45 mag."""

_STARS = ("flux", "error", "truth", "signal_to_noise")

_SUFFIXES = [f"_snr_{low:.0f}_{high:.0f}" for low, high in SIGNAL_TO_NOISE_BINS]
"""Suffixes of columns, for example ``_snr_5_20``."""


def compare_patches(butler: Butler, *, progress: Report | None = None) -> tuple[Table, list[Patch]]:
    """Measure every restored coadd and the direct coadd of the same patch.

    All are measured on the same pixels and the same stars, in the same bins
    of signal-to-noise; galaxies are subtracted as the truth has them.  Fluxes
    on the linear coadd are weighted with the covariance of its noise.

    The default collections of the Butler hold ``restored_coadd``,
    ``restored_coadd_metrics``, ``deep_coadd`` and ``truth_catalogue``, and
    ``restored_coadd_linear`` with ``restored_coadd_linear_noise`` where they
    were written.

    Returns
    -------
    table : `astropy.table.Table`
        A row for each image (``image`` is coadd, restored or linear) of every
        patch and band, and for all patches of a band, named ``all``: medians
        over the patches, and statistics of the stars of all.  ``fwhm`` is
        that of the stars in arcsec, ``psf_fwhm`` that of the PSF model;
        ``depth_claimed`` is the 5 sigma depth in AB magnitudes by the
        variance plane for white noise, ``depth_noise`` that of the noise
        realisations, ``depth_measured`` that of blank sky and ``depth_stars``
        that of the deviations, bias and all, of the fluxes of at least eight
        stars of the faintest bin from the truth; ``chi_square`` is reduced;
        ``num_exposures`` and ``num_dropped`` count visit images.  The other
        columns are those of `lsst.astroclearnet.metrics.measure_patch`.
    patches : `list` [`Patch`]
        What was measured.
    """
    refs = sorted(
        _require_datasets(butler, "restored_coadd", "Restore coadds first."),
        key=lambda ref: (
            *(ref.dataId[name] for name in ("skymap", "tract")),
            band_order(str(ref.dataId["band"])),
            ref.dataId["patch"],
        ),
    )
    truth = {
        (ref.dataId["skymap"], ref.dataId["tract"]): ref
        for ref in _require_datasets(
            butler, "truth_catalogue", "Only simulated surveys can be compared with the truth."
        )
    }
    patches: list[Patch] = []
    rows: list[dict[str, Any]] = []
    stars: list[dict[str, Table]] = []
    for done, ref in enumerate(refs):
        if progress is not None:
            progress(done, len(refs), f"patch {ref.dataId['patch']}, {ref.dataId['band']}")
        catalogue = butler.get(truth[ref.dataId["skymap"], ref.dataId["tract"]])
        patches.append(read_patch(butler, ref.dataId.required, catalogue))
        measured = _measure(patches[-1])
        rows += [row for row, _ in measured.values()]
        stars.append({image: table for image, (_, table) in measured.items()})
    for band in dict.fromkeys(patch.band for patch in patches):
        of_band = [tables for patch, tables in zip(patches, stars, strict=True) if patch.band == band]
        rows += _pool([row for row in rows if row["band"] == band], of_band)
    table = Table(rows=sorted(rows, key=lambda row: band_order(row["band"])))
    return table, patches


def _require_datasets(butler: Butler, dataset_type: str, hint: str) -> list[DatasetRef]:
    """Find the datasets of a type, or tell the user what to do without any."""
    refs = find_datasets(butler, dataset_type)
    if not refs:
        collections = ", ".join(butler.collections.defaults)
        raise CommandError(f"There is no {dataset_type} in {collections}. {hint}")
    return refs


def _measure(patch: Patch) -> dict[str, tuple[dict[str, Any], Table]]:
    """Return a row of the table, and stars with columns `_STARS`, by image."""
    stars = patch.stars()
    images = {"coadd": patch.coadd, "restored": patch.restored}
    if patch.linear is not None:
        images["linear"] = patch.linear
    x, y = np.asarray(stars["x"]), np.asarray(stars["y"])
    correlations = {name: image.correlation_at(x, y) for name, image in images.items()}
    models = {name: patch.render(patch.galaxies(), image.psf) for name, image in images.items()}
    photometry = {
        name: _photometry(image, x, y, models[name], correlations[name]) for name, image in images.items()
    }
    # A pair that only one of the images resolves would count for it alone.
    lost = np.logical_or.reduce([~np.isfinite(flux) for flux, _ in photometry.values()])
    stars["signal_to_noise"][lost] = np.nan
    measured = {}
    for name, image in images.items():
        row = measure_patch(
            image.image, image.variance, image.psf, stars, model=models[name], correlation=correlations[name]
        )
        flux, error = photometry[name]
        columns = (flux, error, stars["flux"], stars["signal_to_noise"])
        table = Table(dict(zip(_STARS, columns, strict=True)))
        measured[name] = ({**_describe(patch, name, image, row), **_depth_of_stars(table)}, table)
    return measured


def _photometry(
    image: CoaddArrays, x: Array, y: Array, model: Array, correlation: Array | None
) -> tuple[Array, Array]:
    """Return fluxes and errors of stars in nJy, as the noise asks for."""
    if correlation is None:
        return psf_flux(image.image, image.variance, image.psf, x, y, model=model)
    return psf_flux_correlated(image.image, image.variance, correlation, image.psf, x, y, model=model)


def _describe(patch: Patch, name: str, image: CoaddArrays, row: dict[str, float]) -> dict[str, Any]:
    """Turn the result of `measure_patch` into a row of the table."""
    scale = patch.geometry.pixel_scale
    is_restored = name != "coadd"
    facts = patch.metrics["patch"]
    blank = np.zeros(image.image.shape, dtype=bool)
    depths = [measured_depth(draw, image.psf, blank) for draw in image.noise]
    statistics = {key: value for key, value in row.items() if "_snr_" in key}
    return {
        "band": patch.band,
        "patch": str(patch.data_id["patch"]),
        "image": name,
        "fwhm": row["star_fwhm"] * scale,
        "psf_fwhm": row["psf_fwhm"] * scale,
        "depth_claimed": row["depth_claimed"],
        "depth_noise": float(np.median(depths)) if depths else np.nan,
        "depth_measured": row["depth_measured"],
        "noise_correlation": row["noise_correlation"],
        "chi_square": float(patch.metrics["image"]["chi_square"]) if name == "restored" else np.nan,
        "num_exposures": float(facts["num_exposures"] if is_restored else patch.num_coadd_exposures),
        "num_dropped": float(facts["num_dropped"]) if is_restored else np.nan,
        **_with_scatter_errors(statistics),
    }


def _depth_of_stars(stars: Table) -> dict[str, float]:
    """Return the 5 sigma depth from faint stars; NaN with too few of them."""
    low, high = SIGNAL_TO_NOISE_BINS[0]
    faint = stars[(stars["signal_to_noise"] >= low) & (stars["signal_to_noise"] < high)]
    if len(faint) < _MIN_DEPTH_STARS:
        return {"depth_stars": np.nan}
    sigma = 1.4826 * float(np.median(np.abs(faint["flux"] - faint["truth"])))
    return {"depth_stars": depth_of_error(sigma)}


def _with_scatter_errors(statistics: dict[str, float]) -> dict[str, float]:
    """Add the errors of the scatter to statistics of stars."""
    complete = {}
    for suffix in _SUFFIXES:
        number, scatter = statistics[f"num_stars{suffix}"], statistics[f"scatter_percent{suffix}"]
        complete.update({key: value for key, value in statistics.items() if key.endswith(suffix)})
        error = _SCATTER_ERROR * scatter / np.sqrt(number) if number else np.nan
        complete[f"scatter_percent_error{suffix}"] = float(error)
    return complete


def _pool(rows: Sequence[dict[str, Any]], stars: Sequence[dict[str, Table]]) -> list[dict[str, Any]]:
    """Return a row for each image, of all patches of a band."""
    pooled = []
    for name in dict.fromkeys(name for tables in stars for name in tables):
        of_image = [row for row in rows if row["image"] == name]
        columns = [np.concatenate([t[name][column] for t in stars if name in t]) for column in _STARS]
        row = dict(of_image[0], patch=_ALL)
        for key, value in row.items():
            if isinstance(value, float) and "_snr_" not in key:
                values = np.array([other[key] for other in of_image])
                row[key] = float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan
        statistics = star_statistics(*columns)
        flat = {
            f"{column}{suffix}": float(line[column])
            for suffix, line in zip(_SUFFIXES, statistics, strict=True)
            for column in statistics.colnames
            if column not in ("snr_min", "snr_max")
        }
        depth = _depth_of_stars(Table(dict(zip(_STARS, columns, strict=True))))
        pooled.append({**row, **_with_scatter_errors(flat), **depth})
    return pooled


def comparison_tables(table: Table) -> list[RichTable]:
    """Lay out images and the fluxes of their stars, each in a table."""
    images: Columns = {
        header: number(name, digits)
        for header, name, digits in (
            (f"FWHM ({ARCSEC})", "fwhm", 3),
            (f"PSF ({ARCSEC})", "psf_fwhm", 3),
            ("5\N{GREEK SMALL LETTER SIGMA} claimed", "depth_claimed", 2),
            ("draws", "depth_noise", 2),
            ("blank sky", "depth_measured", 2),
            ("stars", "depth_stars", 2),
            ("correlation", "noise_correlation", 2),
            ("red. \N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}", "chi_square", 3),
            ("exposures", "num_exposures", 0),
            ("dropped", "num_dropped", 0),
        )
    }
    stars: Columns = {}
    for (low, high), end in zip(SIGNAL_TO_NOISE_BINS, _SUFFIXES, strict=True):
        name = f"S/N > {low:.0f}" if math.isinf(high) else f"S/N {low:.0f}-{high:.0f}"
        stars = {
            **stars,
            f"{name}\nstars": number(f"num_stars{end}", 0),
            f"\nbias|{name}": _with_error("bias_percent", end),
            f"\nscatter|{name}": _with_error("scatter_percent", end),
            f"\npull|{name}": number(f"pull_width{end}", 2),
        }
    return [
        make_table(
            title,
            table,
            {name: text(name) for name in ("band", "patch", "image")},
            columns,
            group=lambda row: (row["band"], row["patch"]),
            is_bold=lambda row: row["patch"] == _ALL,
            caption=caption,
        )
        for title, columns, caption in (
            (
                "Images: width of the stars, depth (AB mag), noise, exposures",
                images,
                "5\N{GREEK SMALL LETTER SIGMA} depth for point sources: claimed by the variance plane for "
                "white noise; shown by the noise realisations (draws); by blank sky, which a restoration "
                "smooths more than sources; and by the errors, bias and all, of faint stars. Correlation: "
                "of the noise of adjacent pixels. Row all: medians over the patches.",
            ),
            (
                "Star fluxes against the truth, in bins of the signal-to-noise ratio in the coadd",
                stars,
                "Bias and scatter in percent; pull: scatter in units of the claimed error, which is that of "
                "white noise except for the linear coadd, whose fluxes follow from the covariance of its "
                "noise. The stars are the same for all images. Row all: the stars of all patches together.",
            ),
        )
    ]


def _with_error(name: str, end: str) -> Callable[[Row], str]:
    """Return a function that formats a number with its error, if any."""

    def cell(row: Row) -> str:
        value, error = row[f"{name}{end}"], row[f"{name}_error{end}"]
        if not math.isfinite(error):
            return format_number(value, 1)
        digits = 1 if error >= 0.5 else 2
        return f"{value:.{digits}f}\N{PLUS-MINUS SIGN}{error:.{digits}f}"

    return cell
