# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of one restored image: what went in, what came out, how well."""

from __future__ import annotations

__all__ = ("GrowthCurve", "restoration_figure")

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ._style import (
    _COLORS,
    _STYLE,
    _add_color_bar,
    _add_scale_bar,
    _asinh_norm,
    _color_map,
    _new_figure,
    _plain,
    _show_image,
    _sky_sigma,
    _thin,
)

_FLAG_COLOR = "#2f9e8f"
_MISSING_COLOR = "#3a3a3a"
_PLAIN_COLOR = "#e8e8e8"
_WITHHELD_COLOR = "#2b5fb4"

# In inches, with room for the labels and colour bars: fixed, because measuring
# all texts takes longer than drawing them.
_WIDTH, _PANEL, _LEFT, _GAP = 19.8, 2.9, 0.75, 0.9
_TOP, _BETWEEN, _BOTTOM = 0.75, 0.4, 0.55

_LARGEST_AREA = 120.0
"""Area (square points) of the mark of the exposure with the largest weight."""

_LEAST_AREA = 0.05
"""Least area, relative to it, of a mark that can be seen."""


@dataclass(frozen=True)
class GrowthCurve:
    """Light of stars within growing apertures.

    Attributes
    ----------
    label
        Whose stars.
    radius
        Radii in arcsec, shape (k,), ascending.
    light
        Light relative to that within the largest radius, shape (k,).
    error
        Standard deviation, shape (k,); `None` for a model.
    """

    label: str
    radius: NDArray[Any]
    light: NDArray[Any]
    error: NDArray[Any] | None = None


def restoration_figure(  # noqa: PLR0913
    *,
    images: Mapping[str, NDArray[Any]],
    variance: NDArray[Any],
    mask: NDArray[Any],
    residual: NDArray[Any],
    demanded: Mapping[str, NDArray[Any]],
    psfs: Mapping[str, NDArray[Any]],
    growth: Sequence[GrowthCurve],
    history: Mapping[str, Sequence[float]],
    exposures: Mapping[str, Sequence[float]],
    title: str,
    pixel_scale: float,
) -> Figure:
    """Draw a restored image beside the coadd, with what tells its quality.

    Parameters
    ----------
    images
        Three images in nJy, shape (H, W), by title: plain coadd, denoised
        image and image to measure on; drawn with one asinh stretch, which
        follows the noise of the first. NaN is missing.
    variance
        Variance plane of the restored image in nJy^2, shape (H, W), drawn as
        standard deviation; NaN where there are no data.
    mask
        Mask of the restored image, boolean or bits, shape (H, W): not zero on
        flagged pixels. Those without data are drawn as missing instead.
    residual
        Weighted mean of exposures minus model in units of its standard
        deviation, shape (H, W).
    demanded
        How much of the light of the restored image the exposures demand, by
        the keys ``share``, NaN where none stands out, and ``sigma``, its
        standard deviation, and where light is ``supplied`` and ``withheld``,
        boolean; each of shape (H, W).
    psfs
        PSF stamps, shape (P, P), by their label in the legend, in drawing
        order: the coadd's, the target, for example.
    growth
        Light of stars within growing apertures; may be empty.
    history
        Course of the fit by the keys ``epoch``, ``loss`` (mean loss of the
        held-out exposures over the pixels that are fitted) and, where there
        is one, ``held_out_loss`` (the same over the pixels set aside for
        validation); equally long lists, which are empty without a fit.
    exposures
        What is drawn where there was no fit, by the keys ``psf_fwhm`` in
        arcsec, ``chi_square``, reduced, and ``weight_share``, the share of
        the weight; equally long lists, which may be empty.
    title
        Title of the figure.
    pixel_scale
        Size of a pixel in arcsec.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure with an Agg canvas, 19.8 inches wide and, for a square image,
        7.5 inches high.
    """
    with matplotlib.rc_context(_STYLE):
        height, width = residual.shape
        ratio = float(np.clip(height / width, 0.5, 1.6))
        figure = _new_figure(_WIDTH, 2.0 * _PANEL * ratio + _TOP + _BETWEEN + _BOTTOM)
        _, full = figure.get_size_inches()
        figure.suptitle(_plain(title), fontsize=14, y=1.0 - 0.1 / full, va="top")
        axes = figure.subplots(
            2,
            5,
            gridspec_kw={
                "left": _LEFT / _WIDTH,
                "right": (_LEFT + 5.0 * _PANEL + 4.0 * _GAP) / _WIDTH,
                "wspace": _GAP / _PANEL,
                "bottom": _BOTTOM / full,
                "top": 1.0 - _TOP / full,
                "hspace": _BETWEEN / (_PANEL * ratio),
            },
        )
        _draw_sky(axes[0, :3], images, pixel_scale)
        _draw_demanded(axes[0, 3], demanded)
        _draw_residual(axes[0, 4], residual)
        _draw_psfs(axes[1, 0], psfs, pixel_scale)
        _draw_growth(axes[1, 1], growth)
        if len(history["epoch"]):
            _draw_history(axes[1, 2], history)
        else:
            _draw_exposures(axes[1, 2], exposures)
        _draw_shares(axes[1, 3], demanded)
        _draw_uncertainty(axes[1, 4], variance, mask)
        for panel in axes[1, :4]:
            panel.set_box_aspect(height / width)
    return figure


def _draw_sky(row: Sequence[Axes], images: Mapping[str, NDArray[Any]], pixel_scale: float) -> None:
    """Draw images with one stretch, which follows the noise of the first."""
    norm = _asinh_norm(list(images.values()), _sky_sigma(next(iter(images.values()))))
    cmap = _color_map("magma", _MISSING_COLOR)
    for axes, (name, image) in zip(row, images.items(), strict=True):
        drawn = _show_image(axes, image, norm, cmap)
        axes.set_title(name)
        _add_scale_bar(axes, image.shape, pixel_scale)
    _add_color_bar(drawn, row[-1], "nJy / pixel")


def _draw_demanded(axes: Axes, demanded: Mapping[str, NDArray[Any]]) -> None:
    """Draw the demanded share, with light that was supplied or withheld."""
    drawn = _show_image(axes, demanded["share"], Normalize(0.0, 1.0), _color_map("RdYlGn", _PLAIN_COLOR))
    withheld = np.zeros((*_thin(demanded["withheld"]).shape, 4))
    withheld[_thin(demanded["withheld"])] = to_rgba(_WITHHELD_COLOR)
    axes.imshow(withheld, origin="lower", interpolation="nearest", extent=drawn.get_extent())
    axes.set_title("Demanded by the exposures")
    supplied, lacking = (int(np.asarray(demanded[name]).sum()) for name in ("supplied", "withheld"))
    axes.set_xlabel(f"supplied: {supplied}, withheld: {lacking} pixels", color=_WITHHELD_COLOR, labelpad=1)
    _add_color_bar(drawn, axes, "share of the light that stands out")


def _draw_shares(axes: Axes, demanded: Mapping[str, NDArray[Any]]) -> None:
    """Draw demanded shares of pixels against their signal-to-noise ratio."""
    axes.set(xlabel="signal-to-noise ratio", ylabel="demanded share", title="Light that stands out")
    for value in (0.0, 1.0):
        axes.axhline(value, color="0.6", lw=0.7, zorder=0)
    axes.set_ylim(-0.75, 1.75)
    share, sigma = (_thin(np.asarray(demanded[name], dtype=float)).ravel() for name in ("share", "sigma"))
    known = np.isfinite(share) & (sigma > 0)
    if not known.any():
        axes.text(0.5, 0.5, "no light stands out", transform=axes.transAxes, ha="center", color="0.5")
        return
    ratio = 1.0 / sigma[known]
    axes.set_xscale("log")
    axes.scatter(
        ratio, share[known].clip(-0.7, 1.7), 4.0, color=_COLORS[0], alpha=0.3, lw=0.0, rasterized=True
    )
    line = np.geomspace(ratio.min(), max(ratio.max(), 1.01 * ratio.min()), 50)
    for side in (-2.0, 2.0):
        axes.plot(line, 1.0 + side / line, color="0.4", lw=0.8, ls="--")


def _draw_residual(axes: Axes, residual: NDArray[Any]) -> None:
    """Draw the residuals with their rms."""
    drawn = _show_image(axes, residual, Normalize(-5.0, 5.0), _color_map("RdBu_r", "#b0b0b0"))
    finite = residual[np.isfinite(residual)]
    rms = float(np.sqrt(np.mean(np.square(finite, dtype=float)))) if finite.size else float("nan")
    axes.set_title(f"Exposures $-$ model, rms {rms:.2f} $\\sigma$")
    _add_color_bar(drawn, axes, r"mean residual ($\sigma$)")


def _draw_uncertainty(axes: Axes, variance: NDArray[Any], mask: NDArray[Any]) -> None:
    """Draw the standard deviation with flagged pixels on top."""
    sigma = np.sqrt(np.where(np.asarray(variance) >= 0, variance, np.nan))
    has_data = np.isfinite(sigma)
    flagged = has_data & (np.asarray(mask) != 0)
    thin = _thin(sigma)
    trusted = thin[np.isfinite(thin) & ~_thin(flagged)]
    low, high = np.percentile(trusted, [0.5, 99.0]) if trusted.size else (0.0, 1.0)
    norm = Normalize(float(low), float(high) if high > low else float(low) + 1.0)
    drawn = _show_image(axes, sigma, norm, _color_map("bone", _MISSING_COLOR))
    overlay = np.zeros((*_thin(flagged).shape, 4))
    overlay[_thin(flagged)] = to_rgba(_FLAG_COLOR, 0.85)
    axes.imshow(overlay, origin="lower", interpolation="nearest", extent=drawn.get_extent())
    share = 100.0 * float(flagged.sum()) / max(1, int(has_data.sum()))
    axes.set_title("Uncertainty")
    axes.set_xlabel(f"flagged pixels: {share:.2g} %", color=_FLAG_COLOR, labelpad=5)
    _add_color_bar(drawn, axes, r"$\sigma$ (nJy / pixel)")


def _draw_psfs(axes: Axes, psfs: Mapping[str, NDArray[Any]], pixel_scale: float) -> None:
    """Draw the azimuthal profiles of the PSFs, with their widths."""
    extent = 3.0
    for index, (label, psf) in enumerate(psfs.items()):
        radius, profile = _radial_profile(psf)
        half = float(np.interp(-0.5, -profile[: np.argmin(profile) + 1], radius[: np.argmin(profile) + 1]))
        extent = max(extent, 4.0 * half)
        name = f"{label}: {2.0 * half * pixel_scale:.2f}\N{DOUBLE PRIME} FWHM"
        axes.plot(radius * pixel_scale, profile, color=_COLORS[index % len(_COLORS)], label=name)
    axes.set(xlabel="radius (arcsec)", ylabel="PSF / peak", title="Point-spread function", ylim=(-0.05, 1.05))
    axes.set_xlim(0.0, extent * pixel_scale)
    axes.axhline(0.0, color="0.6", lw=0.7, zorder=0)
    if psfs:
        axes.legend(loc="upper right")


def _radial_profile(psf: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the azimuthal mean of a stamp relative to its centre."""
    size = psf.shape[0]
    middle = size // 2
    transform = np.fft.fft2(np.fft.ifftshift(np.asarray(psf, dtype=float)))
    frequency = 2j * np.pi * np.fft.fftfreq(size)
    radius = np.arange(0.0, middle, 0.125)
    angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    phase_y = np.exp(np.multiply.outer(np.outer(radius, np.sin(angle)), frequency))
    phase_x = np.exp(np.multiply.outer(np.outer(radius, np.cos(angle)), frequency))
    profile = np.einsum("rai,ij,raj->r", phase_y, transform, phase_x, optimize=True).real
    return radius, profile / profile[0]


def _draw_growth(axes: Axes, growth: Sequence[GrowthCurve]) -> None:
    """Draw curves of growth."""
    axes.set(xlabel="radius (arcsec)", ylabel="light within", title="Curve of growth")
    axes.axhline(1.0, color="0.6", lw=0.7, zorder=0)
    shown = [curve for curve in growth if np.isfinite(curve.light).any()]
    if not shown:
        axes.text(0.5, 0.5, "no bright isolated star", transform=axes.transAxes, ha="center", color="0.5")
        return
    for index, curve in enumerate(shown):
        color = _COLORS[index % len(_COLORS)]
        if curve.error is None:
            axes.plot(curve.radius, curve.light, color=color, ls="--", lw=1.0, label=curve.label)
        else:
            error = np.nan_to_num(curve.error)
            axes.errorbar(
                curve.radius, curve.light, error, color=color, marker="o", ms=3.0, lw=1.2, label=curve.label
            )
    axes.set_xlim(left=0.0)
    axes.set_ylim(0.0, 1.08)
    axes.legend(loc="lower right")


def _draw_exposures(axes: Axes, exposures: Mapping[str, Sequence[float]]) -> None:
    """Draw chi-square against seeing, with areas by weight."""
    axes.set(xlabel="PSF FWHM (arcsec)", ylabel="reduced chi-square", title="Agreement of the exposures")
    axes.axhline(1.0, color="0.6", lw=0.7, zorder=0)
    width, chi_square, share = (
        np.asarray(exposures[name], dtype=float) for name in ("psf_fwhm", "chi_square", "weight_share")
    )
    known = np.isfinite(width) & np.isfinite(chi_square)
    if not known.any():
        axes.text(0.5, 0.5, "no exposure with pixels", transform=axes.transAxes, ha="center", color="0.5")
        return
    largest = max(float(np.nanmax(share, initial=0.0)), np.finfo(float).tiny)
    areas = _LARGEST_AREA * np.clip(np.nan_to_num(share) / largest, _LEAST_AREA, 1.0)
    axes.scatter(width[known], chi_square[known], areas[known], color=_COLORS[0], alpha=0.6, lw=0.0)
    # Of exposures that agree no differences should be seen.
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), max(high, 1.2))
    axes.text(0.97, 0.94, "area: weight", transform=axes.transAxes, ha="right", va="top", color="0.5")


def _draw_history(axes: Axes, history: Mapping[str, Sequence[float]]) -> None:
    """Draw the losses against the step."""
    steps = np.asarray(history.get("epoch", ()), dtype=float)
    drawn: list[NDArray[Any]] = []
    for key, label, color in (
        ("loss", "pixels fitted", _COLORS[1]),
        ("held_out_loss", "pixels set aside", _COLORS[0]),
    ):
        values = np.asarray(history.get(key, ()), dtype=float)
        if steps.size and values.size == steps.size and np.isfinite(values).any():
            axes.plot(steps, values, color=color, label=label)
            drawn.append(values[np.isfinite(values)])
    axes.set(xlabel="epoch", ylabel="loss of held-out exposures", title="Convergence")
    axes.margins(x=0.0)
    if not drawn:
        axes.text(0.5, 0.5, "no epochs recorded", transform=axes.transAxes, ha="center", color="0.5")
        return
    values = np.concatenate(drawn)
    if values.min() > 0 and values.max() > 10.0 * values.min():
        axes.set_yscale("log")
    axes.legend(loc="upper right")
