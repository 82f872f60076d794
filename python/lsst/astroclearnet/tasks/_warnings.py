# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Warnings about a restoration."""

from __future__ import annotations

__all__ = (
    "describe_offsets",
    "describe_shared_psf_error",
    "list_warnings",
    "psf_changed",
    "variances_fit",
    "variances_kept",
)

from collections.abc import Callable, Mapping
from typing import Any

from ..adapters import ExposureId
from ._used_network import list_network_warnings

_MIN_EXPOSURES = 3
"""With two exposures the faulty one cannot be identified."""

SIGNIFICANCE = 5.0
"""Significance, in sigma, of an offset that is reported."""

# In half of the exposures these errors change the fluxes of stars by about one
# per cent.
PSF_TOLERANCE = 0.015
"""Relative error of the width of a PSF that is reported."""

_SHARED_TOLERANCE = 0.005  # the same, shared by all exposures
_FLUX_TOLERANCE = 0.02  # relative error of the flux scale
_SHIFT_TOLERANCE = 0.05  # arcsec

_MAX_CHI_SQUARE = 2.0
"""Reduced chi-square from which, or one over which, variances are wrong."""

_ROUNDING = 1e-3
"""Relative excess over a limit that is rounding."""

_OFFSETS = (
    ("flux_error", "flux_sigma", _FLUX_TOLERANCE, "in flux scale by {:+.3f}"),
    ("shift", "shift_sigma", _SHIFT_TOLERANCE, "in position by {:.3f} arcsec"),
)
"""Metrics of an exposure that may be offset from the others, with the names of
their standard deviations, the tolerance, and words."""


def list_warnings(metrics: Mapping[str, Any], max_psf_residual: float) -> list[str]:
    """List what a user of the coadds should know.

    Parameters
    ----------
    metrics
        What `make_metrics` returned.
    max_psf_residual
        Largest residual of the linear image of a star from the target PSF
        that was allowed, relative to the peak.

    Returns
    -------
    warnings : `list` [`str`]
        Sentences; none if all is well.
    """
    warnings = []
    for title, describe in _EXPOSURE_WARNINGS.items():
        found = [
            f"{_name(e)}{words.removesuffix('.')}"
            for e in metrics["exposures"]
            if (words := describe(e)) is not None
        ]
        if found:
            warnings.append(f"{title}: {'; '.join(found)}.")
    residual = metrics["image"]["linear_psf_residual"]
    if residual > max_psf_residual * (1.0 + _ROUNDING):
        warnings.append(
            f"The target PSF is too sharp for these exposures: stars in the linear coadd differ from it by "
            f"{100.0 * residual:.1f} % of their peak, more than {100.0 * max_psf_residual:.1f} %."
        )
    warnings += filter(None, [describe_shared_psf_error(metrics["image"])])
    unconverged = [
        f"{status['num_unconverged']} of {status['num_solves']} ({kind}), the worst with "
        f"{status['max_residual']:.3g} times the tolerance"
        for kind, status in metrics["solves"].items()
        if status["num_unconverged"]
    ]
    if unconverged:
        warnings.append(f"Iterative solves did not converge: {'; '.join(unconverged)}.")
    warnings += list_network_warnings(metrics["network"])
    if metrics["failed_tiles"]:
        warnings.append(f"Some tiles could not be restored: {'; '.join(metrics['failed_tiles'])}.")
    number = sum(e["used_fraction"] > 0 for e in metrics["exposures"])
    if number < _MIN_EXPOSURES:
        warnings.append(f"With {number} exposure(s) no pixel can be rejected as an outlier.")
    return warnings


def variances_fit(exposure: Mapping[str, Any]) -> bool:
    """Tell whether the variances of an exposure fit its residuals.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    fits : `bool`
        Whether its reduced chi-square is within a factor of 2 of one, or not
        known.
    """
    chi_square = exposure["chi_square"]
    return not (chi_square > _MAX_CHI_SQUARE or chi_square < 1.0 / _MAX_CHI_SQUARE)


def variances_kept(exposure: Mapping[str, Any]) -> bool:
    """Tell whether the variances of an exposure were not rescaled.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    kept : `bool`
        Whether blank sky agrees with them.
    """
    return bool(exposure["variance_factor_min"] == exposure["variance_factor_max"] == 1.0)


def _wider_by(error: float) -> str:
    """Say how much wider or narrower a PSF is, from the relative error."""
    return f"{'wider' if error > 0 else 'narrower'} by {100.0 * abs(error):.1f} %"


def psf_changed(exposure: Mapping[str, Any]) -> bool:
    """Tell whether the PSF given for an exposure is noticeably wrong in width.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    changed : `bool`
        Whether its ``psf_change`` in width exceeds 1.5 % and 5 sigma.
    """
    width, sigma = exposure["psf_change"][0], exposure["psf_change_sigma"][0]
    return bool(abs(width) > max(PSF_TOLERANCE, SIGNIFICANCE * sigma))


def describe_shared_psf_error(image: Mapping[str, Any]) -> str:
    """Describe an error that the PSFs of all exposures share.

    Parameters
    ----------
    image
        The ``image`` of `make_metrics`.

    Returns
    -------
    words : `str`
        Its size and what it does to fluxes; empty if it is not significant.
    """
    width, sigma = image["psf_shared_width"], image["psf_shared_width_sigma"]
    if not abs(width) > max(_SHARED_TOLERANCE, SIGNIFICANCE * sigma):
        return ""
    return (
        f"The PSFs of all exposures share an error: stars are {_wider_by(width)} than they say "
        f"({image['psf_shared_stars']} stars); fluxes fitted with the declared PSF are wrong by "
        f"{100.0 * image['psf_flux_error']:+.1f} %. Correct the PSFs, or set psf_refinement to 'stars'."
    )


def describe_offsets(exposure: Mapping[str, Any]) -> list[str]:
    """Describe the significant offsets of an exposure from the others.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    differences : `list` [`str`]
        Size of each, in words.
    """
    return [
        words.format(exposure[key])
        for key, sigma, least, words in _OFFSETS
        if abs(exposure[key]) > max(least, SIGNIFICANCE * exposure[sigma])
    ]


def _name(exposure: Mapping[str, Any]) -> str:
    """Return the name of one of the ``exposures`` of `make_metrics`."""
    return str(ExposureId(exposure["visit"], exposure["detector"], exposure["instrument"]))


def _describe_psf(exposure: Mapping[str, Any]) -> str | None:
    """Say by how much the PSF that was used is wrong, if it is."""
    if not exposure["psf_consistent"]:
        return f": {_wider_by(exposure['psf_width_error'])}"
    if psf_changed(exposure) and not exposure["psf_refined"]:
        # The refinement sees smaller errors.
        return f": {_wider_by(exposure['psf_change'][0])}"
    return None


_EXPOSURE_WARNINGS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "Some exposures are offset from the others": lambda e: (
        f" {' and '.join(offsets)}" if (offsets := describe_offsets(e)) else None
    ),
    "Some exposures are suspected outliers, but were used": lambda e: (
        f": {e['suspect_reason']}" if e["suspect_reason"] else None
    ),
    "The PSFs of some exposures do not fit their stars": _describe_psf,
    "The PSFs of some exposures were corrected": lambda e: (
        f": {_wider_by(e['psf_change'][0])}" if e["psf_refined"] and psf_changed(e) else None
    ),
    "The variances of some exposures do not fit their residuals, by chi-square": lambda e: (
        None if variances_fit(e) else f": {e['chi_square']:.3g} with {e['weight_share']:.1%} of the weight"
    ),
    "The variances of some exposures do not fit their blank sky": lambda e: (
        None
        if variances_kept(e)
        else f": multiplied by {e['variance_factor_min']:.2f} to {e['variance_factor_max']:.2f}"
    ),
    "The variances of some exposures follow the noise of their pixels and were smoothed": lambda e: (
        "" if e["variance_smoothed"] else None
    ),
}
"""Warnings, with a function that describes what is wrong with an exposure."""
