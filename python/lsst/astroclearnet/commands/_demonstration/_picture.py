# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Picture of a patch: best exposure, coadd, restored coadd and truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lsst.daf.butler import Butler

from ...simulation import BANDS, render_truth, warp_visit_image
from .._errors import CommandError
from .._tables import ARCSEC
from ._patch import Patch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...plots import Zoom

type Array = npt.NDArray[np.float64]

_PAIR_SIZE, _ZOOM_SIZE = 28, 44
"""Sides of the zooms on a close pair and on anything else, in pixels."""

_MIN_COVERAGE = 0.5
"""Fraction of the patch that a visit should show."""

_ARTEFACT_WIDTH = 1.0
"""Standard deviation in pixels of the smoothing that artefacts are found
with."""


def comparison_picture(butler: Butler, patches: Sequence[Patch]) -> Figure:
    """Draw the patch with the best close pair and galaxy.

    The panels are the best visit, the direct coadd, the restored coadd and
    the truth at its PSF, with one stretch, and zooms on a close pair, a
    galaxy and an artefact; in colour if there are three bands.
    """
    patch, same = patches_at(patches)
    zooms = choose_zooms(patch)
    panels = {band: _panels(butler, one, zooms[:1]) for band, one in same.items()}
    return draw_patch(patch, panels, zooms)


def patches_at(patches: Sequence[Patch]) -> tuple[Patch, dict[str, Patch]]:
    """Choose the patch with the best close pair and galaxy, and return the
    same place in the three reddest bands, from red to blue, or in its own.
    """
    if not patches:
        raise CommandError("There is no patch to draw.")
    patch = max(patches, key=_interest)
    same = {one.band: one for one in patches if _place(one) == _place(patch)}
    bands = sorted(same, key=list(BANDS).index, reverse=True)
    bands = bands[:3] if len(bands) >= 3 else [patch.band]
    return patch, {band: same[band] for band in bands}


def draw_patch(patch: Patch, panels: Mapping[str, Mapping[str, Array]], zooms: Sequence[Zoom]) -> Figure:
    """Draw images of a patch, given by band and title, in colour if there are
    three bands; one of them is the coadd, which sets the stretch.
    """
    from ...plots import COLOR_SCALES, color_picture, color_stretch, comparison_figure

    titles = list(next(iter(panels.values())))
    images = {title: [of_band[title] for of_band in panels.values()] for title in titles}
    pictures: dict[str, npt.NDArray[Any]] = {title: bands[0] for title, bands in images.items()}
    if len(panels) == 3:
        stretch = color_stretch(images["Coadd"], COLOR_SCALES)
        pictures = {title: color_picture(bands, stretch) for title, bands in images.items()}
    keys = patch.data_id
    return comparison_figure(
        list(pictures.items()),
        zooms=zooms,
        pixel_scale=patch.geometry.pixel_scale,
        title=f"{keys['skymap']}, tract {keys['tract']}, patch {keys['patch']}: {', '.join(panels)}",
    )


def truth_panel(patch: Patch) -> Array:
    """Return the truth at the target PSF."""
    width = float(patch.metrics["image"]["target_fwhm"])
    return render_truth(
        patch.sources, patch.geometry, patch.band, psf_fwhm=width / patch.geometry.pixel_scale
    )


def _place(patch: Patch) -> tuple[Any, ...]:
    """Return where a patch is, in any band."""
    return tuple(patch.data_id[name] for name in ("skymap", "tract", "patch"))


def _panels(butler: Butler, patch: Patch, zooms: Sequence[Zoom]) -> dict[str, Array]:
    """Return the images of a patch that are compared, by their titles."""
    width = float(patch.metrics["image"]["target_fwhm"])
    restored = butler.get("restored_coadd", **patch.data_id).image.array
    return {
        "Best exposure": _best_exposure(butler, patch, zooms),
        "Coadd": patch.coadd.image,
        "Restored coadd": np.asarray(restored, dtype=float),
        f"Truth at {width:.2f}{ARCSEC} FWHM": truth_panel(patch),
    }


def _best_exposure(butler: Butler, patch: Patch, zooms: Sequence[Zoom]) -> Array:
    """Return the sharpest visit that shows half the patch and the zooms, in
    nJy on the grid of the patch, NaN where no pixel is usable.
    """
    visits: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for exposure in patch.metrics["exposures"]:
        visits.setdefault((exposure["instrument"], exposure["visit"]), []).append(exposure)
    widths = {visit: np.mean([part["psf_fwhm"] for part in parts]) for visit, parts in visits.items()}
    best: tuple[float, Array] | None = None
    for visit in sorted(visits, key=lambda visit: float(widths[visit])):
        image = np.full(patch.coadd.image.shape, np.nan)
        for part in visits[visit]:
            keys = {name: part[name] for name in ("instrument", "visit", "detector")}
            exposure = warp_visit_image(butler.get("visit_image", **keys), patch.geometry)
            image[exposure.good] = exposure.image[exposure.good]
        shares = [float(np.isfinite(image).mean()) / _MIN_COVERAGE]
        for zoom in zooms:
            x, y = zoom.corner(image.shape)
            shares.append(float(np.isfinite(image[y : y + zoom.size, x : x + zoom.size]).mean()) / 0.9)
        if best is None or min(shares) > best[0]:
            best = (min(shares), image)
        if best[0] >= 1.0:
            break
    if best is None:
        raise CommandError("The restored coadd has no exposures.")
    return best[1]


def choose_zooms(patch: Patch) -> list[Zoom]:
    """Choose a close pair, a galaxy and an artefact, if there are any."""
    from ...plots import Zoom

    zooms = []
    pair, galaxy = _close_pair(patch), _galaxy(patch)
    if pair is not None:
        x, y = (float(np.mean(pair[name])) for name in ("x", "y"))
        separation = float(pair["pair_separation"][0])
        zooms.append(Zoom(x, y, _PAIR_SIZE, f"stars {separation:.2f}{ARCSEC} apart"))
    if galaxy is not None:
        zooms.append(Zoom(float(galaxy["x"][0]), float(galaxy["y"][0]), _ZOOM_SIZE, "galaxy"))
    artefact = _artefact(patch)
    if artefact is not None:
        zooms.append(Zoom(*artefact, _ZOOM_SIZE, "cosmic ray or trail"))
    return zooms


def _interest(patch: Patch) -> float:
    """Return how much a patch has to show: a close pair that is hard but
    possible to separate counts most, then the brightness of its galaxy.
    """
    pair, galaxy = _close_pair(patch), _galaxy(patch)
    interest = 0.0
    if pair is not None:
        interest += 10.0 - 10.0 * _pair_offset(patch, float(pair["pair_separation"][0]))
    if galaxy is not None:
        interest += float(np.log10(galaxy[f"flux_{patch.band}"][0]))
    return interest


def _pair_offset(patch: Patch, separation: float) -> float:
    """Return the relative offset of a separation from 1.3 target FWHM."""
    return abs(separation / (1.3 * patch.metrics["image"]["target_fwhm"]) - 1.0)


def _has_room(patch: Patch) -> npt.NDArray[np.bool_]:
    """Return which pixels have data around them that fill a zoom."""
    has_data = np.pad(np.isfinite(patch.coadd.image), 1)
    return np.asarray(distance_transform_edt(has_data)[1:-1, 1:-1] > _ZOOM_SIZE // 2)


def _inside(patch: Patch, sources: Table) -> npt.NDArray[np.bool_]:
    """Return which sources have data around them that fill a zoom."""
    x, y = (np.rint(np.asarray(sources[name])).astype(int) for name in ("x", "y"))
    height, width = patch.coadd.image.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    inside[inside] = _has_room(patch)[y[inside], x[inside]]
    return inside


def _sky_sigma(patch: Patch) -> float:
    """Return the flux error of a faint star in the direct coadd in nJy."""
    return float(np.sqrt(np.nanmedian(patch.coadd.variance) / np.sum(patch.coadd.psf**2)))


def _close_pair(patch: Patch) -> Table | None:
    """Return two sources of high signal-to-noise ratio, if there are any."""
    sources = patch.sources
    bright = np.asarray(sources[f"flux_{patch.band}"]) > 30.0 * _sky_sigma(patch)
    usable = sources[bright & _inside(patch, sources) & (sources["pair_id"] >= 0)]
    pairs = [usable[usable["pair_id"] == pair] for pair in np.unique(usable["pair_id"])]
    pairs = [pair for pair in pairs if len(pair) == 2]
    return min(pairs, key=lambda pair: _pair_offset(patch, float(pair["pair_separation"][0])), default=None)


def _galaxy(patch: Patch) -> Table | None:
    """Return the brightest galaxy with a radius of half the target FWHM."""
    galaxies = patch.galaxies()
    large = np.asarray(galaxies["disc_radius"]) > 0.5 * patch.metrics["image"]["target_fwhm"]
    usable = galaxies[large & _inside(patch, galaxies)]
    brightest = np.argsort(-np.asarray(usable[f"flux_{patch.band}"]))[:1]
    return usable[brightest] if len(usable) else None


def _artefact(patch: Patch) -> tuple[float, float] | None:
    """Return the pixel of the strongest excess of 4 sigma over the truth."""
    coadd = patch.coadd
    truth = patch.render(patch.sources, coadd.psf)
    sigma = np.sqrt(np.nanmedian(coadd.variance))
    blank = np.isfinite(coadd.image) & (truth < sigma)
    smoothed = gaussian_filter(np.where(blank, coadd.image - truth, 0.0), _ARTEFACT_WIDTH)
    smoothed[~_has_room(patch)] = 0.0
    # White noise of sigma is smoothed to sigma / (2 sqrt(pi) width).
    if not smoothed.max() > 4.0 * sigma / (2.0 * np.sqrt(np.pi) * _ARTEFACT_WIDTH):
        return None
    y, x = np.unravel_index(np.argmax(smoothed), smoothed.shape)
    return float(x), float(y)
