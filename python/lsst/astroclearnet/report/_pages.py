# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pages of a report."""

from __future__ import annotations

__all__ = ("write_report",)

import dataclasses
import datetime
import importlib.metadata
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from ._contents import (
    ReportContents,
    ReportError,
    _BandContents,
)
from ._pictures import _DASH, _copy_picture, _draw_completeness, _draw_demand, _draw_maps, _injection_rows

_GENERATOR = "lsst.astroclearnet"
"""Name in each page by which a report is known."""


@dataclasses.dataclass(frozen=True)
class _Metric:
    """A metric of the quality, as a table shows it."""

    name: str
    label: str
    style: str = ".2f"
    unit: str = ""
    error: str = ""

    def show(self, band: _BandContents) -> str:
        """Return the metric of a patch with its unit.

        Parameters
        ----------
        band
            The patch in a band.

        Returns
        -------
        text : `str`
            Formatted value.
        """
        return f"{self.number(band)} {self.unit}".strip()

    def number(self, band: _BandContents) -> str:
        """Return the metric of a patch without its unit.

        Parameters
        ----------
        band
            The patch in a band.

        Returns
        -------
        text : `str`
            Formatted value with its error; a dash if unknown.
        """
        metrics = band.quality["metrics"]
        value = metrics.get(self.name, math.nan)
        if not math.isfinite(value):
            return _DASH
        text = format(value, self.style)
        error = metrics.get(self.error, math.nan)
        if math.isfinite(error):
            text += f" \N{PLUS-MINUS SIGN} {format(error, self.style.lstrip('+'))}"
        return text


_METRICS = (
    _Metric("num_exposures", "Exposures with pixels on the patch", ".0f"),
    _Metric("depth_in_exposures", "Exposures per pixel, mean", ".1f"),
    _Metric("dropped_fraction", "Exposures dropped", ".0%"),
    _Metric("fwhm_in", "FWHM of the exposures, median", ".3f", "arcsec"),
    _Metric("fwhm_in_best", "FWHM of the sharpest exposure", ".3f", "arcsec"),
    _Metric("fwhm_out", "FWHM declared for the restored coadds", ".3f", "arcsec"),
    _Metric("star_fwhm", "FWHM of their stars", ".3f", "arcsec"),
    _Metric("star_fwhm_direct", "FWHM of the stars of the direct coadd", ".3f", "arcsec"),
    _Metric("depth_direct", "5\N{GREEK SMALL LETTER SIGMA} depth of the direct coadd", ".2f", "mag"),
    _Metric("depth_linear", "5\N{GREEK SMALL LETTER SIGMA} depth of the linear coadd", ".2f", "mag"),
    _Metric(
        "depth_restored",
        "5\N{GREEK SMALL LETTER SIGMA} of the noise left in the denoised coadd",
        ".2f",
        "mag",
    ),
    _Metric("faintest_flux", "Faintest believable flux of a star, denoised coadd", ".1f", "nJy"),
    _Metric("demanded_fraction", "Light of the denoised coadd that the exposures demand", ".1%"),
    _Metric("supplied_fraction", "Pixels with light that the network supplied", ".2%"),
    _Metric("withheld_fraction", "Pixels with light that the denoised coadd withholds", ".2%"),
    _Metric("noise_correlation", "Correlation of adjacent pixels, linear coadd"),
    _Metric("noise_correlation_direct", "Correlation of adjacent pixels, direct coadd"),
    _Metric("chi_square", "Reduced chi-square of the exposures"),
    _Metric("held_out_chi_square", "The same of exposures held out"),
    _Metric("chi_square_weight", "Weight of exposures with a chi-square beyond 2", ".0%"),
    _Metric("variance_error_weight", "Weight of exposures with rescaled variances", ".0%"),
    _Metric("psf_error_weight", "Weight of exposures with a wrong PSF", ".0%"),
    _Metric("calibration_error_weight", "Weight of exposures that differ in flux or position", ".0%"),
    _Metric("exposure_chi_square", "Largest chi-square of an exposure"),
    _Metric("suspect_exposures", "Suspect exposures", ".0f"),
    _Metric("background_offset", "Largest background removed", ".1f", "\N{GREEK SMALL LETTER SIGMA} a pixel"),
    _Metric("rejected_fraction", "Pixels rejected as artefacts", ".2%"),
    _Metric("no_data_fraction", "Pixels of the patch without data", ".1%"),
    _Metric("failed_fraction", "Tiles that failed", ".0%"),
    _Metric("linear_psf_residual", "Residual of stars from the declared PSF", ".2%"),
    _Metric("psf_shared_width", "Error of PSF widths that all exposures share", "+.2%"),
    _Metric("psf_flux_error", "Error of PSF fluxes from measured errors of PSFs", "+.2%"),
    _Metric(
        "psf_flux_systematic",
        "The same from those that are not measured, 1\N{GREEK SMALL LETTER SIGMA}",
        ".2%",
    ),
    _Metric(
        "flux_offset_measured",
        "Star fluxes, linear over direct coadd, less 1",
        "+.2%",
        error="flux_offset_error",
    ),
    _Metric("flux_num_stars", "Stars compared", ".0f"),
    _Metric(
        "denoised_flux_offset_measured",
        "Star fluxes, denoised over linear coadd, less 1",
        "+.2%",
        error="denoised_flux_offset_error",
    ),
    _Metric("num_sources", "Sources detected", ".0f"),
)
"""Metrics of a patch, in the order of its table."""

_OVERVIEW = tuple(
    metric
    for metric in _METRICS
    if metric.name
    in ("num_exposures", "fwhm_in", "fwhm_out", "depth_direct", "depth_linear", "chi_square")
    + ("rejected_fraction", "flux_offset_measured")
)
"""Those of the table of all patches."""

_HEADINGS = {
    "num_exposures": "exposures",
    "fwhm_in": "FWHM in (\N{DOUBLE PRIME})",
    "fwhm_out": "out (\N{DOUBLE PRIME})",
    "depth_direct": "depth, direct (mag)",
    "depth_linear": "linear (mag)",
    "chi_square": "chi-square",
    "rejected_fraction": "rejected",
    "flux_offset_measured": "star fluxes",
}


def write_report(
    contents: ReportContents, folder: str | os.PathLike[str], *, notes: Sequence[str] = ()
) -> Path:
    """Write a report that needs neither a server nor a network.

    Parameters
    ----------
    contents
        What it shows.
    folder
        Where to write it; a report that is there is replaced, with all that
        is in its folder.
    notes
        Sentences for its first page.

    Returns
    -------
    index : `pathlib.Path`
        Its first page.

    Raises
    ------
    ReportError
        If something else than a report is in the folder.
    """
    # What a link leads to is replaced, and not the link.
    final = Path(folder).resolve()
    _require_report(final)
    # What is there stays until the new one is complete.
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}_") as made:
        root = Path(made) / "new"
        _write_pages(contents, root, notes)
        if final.exists():
            final.rename(Path(made) / "old")
        root.rename(final)
    return Path(folder) / "index.html"


def _write_pages(contents: ReportContents, root: Path, notes: Sequence[str]) -> None:
    """Write all pages and pictures into a new folder."""
    (root / "patches").mkdir(parents=True)
    (root / "images").mkdir()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lsst.astroclearnet.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    common = {
        "generator": _GENERATOR,
        "version": importlib.metadata.version("lsst-astroclearnet"),
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "contents": contents,
        "verdicts": ("good", "check", "bad"),
    }
    (root / "style.css").write_text(environment.get_template("style.css").render())
    patch_page = environment.get_template("patch.html.j2")
    for tract in contents.tracts:
        for patch in tract.patches:
            page = patch_page.render(
                **common,
                root="../",
                patch=patch,
                metrics=_METRICS,
                color=_copy_picture(patch.color_plot, root, f"{patch.name}-color"),
                demands={b.band: _draw_demand(patch, b, root) for b in patch.bands},
                injections={
                    b.band: _copy_picture(b.injection_plot, root, f"{patch.name}-{b.anchor}-injections")
                    for b in patch.bands
                },
                plots={b.band: _copy_picture(b.plot, root, f"{patch.name}-{b.anchor}") for b in patch.bands},
                exposures={band.band: _exposure_rows(band) for band in patch.bands},
                snippets={band.band: _snippet(band, contents) for band in patch.bands},
                reasons={band.band: _why_unchanged(band) for band in patch.bands},
            )
            (root / "patches" / f"{patch.name}.html").write_text(page)
    maps = {tract.name: _draw_maps(tract, root) for tract in contents.tracts}
    page = environment.get_template("index.html.j2").render(
        **common,
        root="",
        maps=maps,
        colors={
            tract.name: _copy_picture(tract.color_plot, root, f"{tract.name}-tract-color")
            for tract in contents.tracts
        },
        completeness={tract.name: _draw_completeness(tract, root) for tract in contents.tracts},
        injections={tract.name: _injection_rows(tract) for tract in contents.tracts},
        columns=_OVERVIEW,
        headings=_HEADINGS,
        notes=list(notes),
    )
    (root / "index.html").write_text(page)


def _require_report(root: Path) -> None:
    """Refuse to replace anything but a report."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    index = root / "index.html"
    if not (index.is_file() and f'content="{_GENERATOR}' in index.read_text(errors="replace")):
        raise ReportError(f"{root} holds something else than a report; choose another folder, or delete it.")


def _exposure_rows(band: _BandContents) -> list[dict[str, Any]]:
    """Return what a table says of the exposures of a patch."""
    rows = []
    for exposure in band.quality["exposures"]:
        level = float(exposure["background"][0])
        rows.append(
            {
                "visit": f"{exposure['instrument']} {exposure['visit']}",
                "detector": exposure["detector"],
                "fwhm": f"{exposure['psf_fwhm']:.3f}",
                "weight": f"{exposure['weight_share']:.1%}",
                "used": f"{exposure['used_fraction']:.0%}",
                "rejected": f"{exposure['rejected_fraction']:.2%}",
                "chi_square": f"{exposure['chi_square']:.2f}",
                "flux_error": _measured(exposure["flux_error"], exposure["flux_sigma"], "+.3f"),
                "shift": _measured(exposure["shift"], exposure["shift_sigma"], ".3f"),
                "psf": _measured(exposure["psf_width_error"], exposure["psf_width_sigma"], "+.3f"),
                "background": f"{level:+.2g}" if math.isfinite(level) else _DASH,
            }
        )
    return rows


def _why_unchanged(band: _BandContents) -> str:
    """Say why exposures whose pixels do not fit do not change the verdict."""
    check = next((check for check in band.quality["checks"] if check["name"] == "chi_square_weight"), None)
    unlike = [
        f"visit {exposure['visit']}, detector {exposure['detector']}: {exposure['chi_square']:.2f}"
        for exposure in band.quality["exposures"]
        if exposure["used_fraction"] > 0 and not 0.5 <= exposure["chi_square"] <= 2.0
    ]
    if check is None or check["verdict"] != "good" or not unlike:
        return ""
    return (
        f"The chi-square of some exposures is beyond a factor of 2 ({'; '.join(unlike)}). By itself that is "
        f"within the limits: they have {check['value']:.1%} of the weight, and up to "
        f"{check['limits'][0]:.0%} may have such a chi-square."
    )


def _measured(value: float, sigma: float, style: str) -> str:
    return format(value, style) if math.isfinite(value) and math.isfinite(sigma) else _DASH


def _snippet(band: _BandContents, contents: ReportContents) -> str:
    """Return the lines of Python that read the coadd to measure on."""
    names = sorted(band.datasets)
    if not names:
        return ""
    name = next((name for name in names if name.endswith("_linear")), names[0])
    keys = ", ".join(f"{key}={value!r}" for key, value in band.data_id.items())
    return (
        "from lsst.daf.butler import Butler\n"
        f"butler = Butler.from_config({contents.repository!r}, collections={list(contents.collections)})\n"
        f'coadd = butler.get("{name}", {keys})'
    )
