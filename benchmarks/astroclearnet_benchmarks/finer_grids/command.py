# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Undersampled, dithered exposures on grids finer than their pixels."""

from __future__ import annotations

__all__ = ("main",)

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from ..processes import start_logging
from ..record import (
    Table,
    data_folder,
    format_value,
    make_page,
    make_parser,
    measure_sections,
    read_sections,
)
from .hubble import HubbleField
from .measure import Stars, measure_stars
from .methods import FinerImage, combine, drizzle, restored
from .scene import TARGET_FWHM, Scene

_LOG = logging.getLogger(__name__)

_FIRST_SEED = 40

_SECTIONS = ("undersampled", "well-sampled", "hubble")

_FWHMS = (1.2, 1.5, 2.0)
"""Widths of undersampled PSFs, in pixels of the exposures."""

_WELL_SAMPLED, _WIDE_TARGET = (3.0, 4.0), 2.5
"""Widths of PSFs that are not, and the target PSF for them."""

_INTRODUCTION = (
    "Isolated stars in 12 exposures that are shifted by random fractions of a pixel, with white noise. "
    "Their PSFs are Moffat profiles (beta 3.5) within the pixels, drawn by GalSim, with FWHMs that scatter "
    "by up to 10 % and ellipticities of up to 3 %; all are known. The stars have a signal-to-noise ratio of "
    "250 in all exposures together, below that from which stars are taken out of the exposures. Lengths are "
    f"in pixels of the exposures: the target PSF has a FWHM of {TARGET_FWHM:g}, 3 pixels of a grid that is "
    "finer by 2. PyIMCOM combines the same pixels to the same target; the drizzled image has a PSF of its "
    "own, that of infinitely many dithers. Stars and blank sky are fitted with the declared PSF, brightness "
    "and position at once, with equal weights. These are simulations of stars alone: no artefacts, no errors "
    "of PSFs or of positions."
)

_LEGEND = (
    "Grid: pixels along the side of one of the exposures. Flux: bias and scatter of the stars in per cent, "
    "the bound for which is .4; position: scatter along an axis in thousandths of a pixel. Both hold noise, "
    "and what the phase of a star in the pixels does to it. Sky: scatter of fluxes fitted to blank sky over "
    "the bound; below 1 for images that are denoised. PSF: what stars leave on average beside the declared "
    "PSF within 3 pixels, root mean square and largest, in per cent of the peak. Time: seconds of a core."
)


def main(words: Sequence[str]) -> int:
    """Measure the sections asked for, and write the page."""
    start_logging()
    parser = make_parser("finer_grids", __doc__, "measured sections")
    parser.add_argument("--seeds", type=int, default=3, help="number of scenes of each width")
    parser.add_argument("--sections", nargs="+", choices=_SECTIONS, default=_SECTIONS, help="what to measure")
    options = parser.parse_args(words)
    seeds = range(_FIRST_SEED, _FIRST_SEED + options.seeds)
    measures = {
        "undersampled": lambda: _undersampled_tables(seeds),
        "well-sampled": lambda: _well_sampled_tables(seeds),
        "hubble": _hubble_tables,
    }

    def write() -> None:
        sections = read_sections(options.work, _SECTIONS)
        options.output.write_text(make_page(sections, title="Finer grids", introduction=_INTRODUCTION))

    command = f"{parser.prog} --seeds {options.seeds} --sections {{}}"
    chosen = {name: measures[name] for name in options.sections}
    return int(measure_sections(chosen, command.format, options.work, write) > 0)


def _undersampled_tables(seeds: Sequence[int]) -> list[Table]:
    """Compare methods on undersampled exposures."""
    rows = [row for fwhm in _FWHMS for row in _undersampled_rows(fwhm, seeds)]
    return [Table("Undersampled exposures", _LEGEND, rows)]


def _well_sampled_tables(seeds: Sequence[int]) -> list[Table]:
    """Compare grids on well-sampled exposures."""
    legend = (
        f"The same for a target of {_WIDE_TARGET:g} pixels. Ratio: fluxes over those of the same stars on "
        "the grid of the exposures, mean and scatter, in per cent. Doubt: what the packaged network says of "
        "the exposures."
    )
    rows = [row for fwhm in _WELL_SAMPLED for row in _well_sampled_rows(fwhm, seeds)]
    return [Table("Well-sampled exposures", legend, rows)]


def _hubble_tables() -> list[Table]:
    """Compare a coadd of HSC on both grids with HST."""
    field = HubbleField(data_folder() / "hsc")
    if not field.folder.exists():
        return []
    native, finer = field.restored(1), field.restored(2)
    rows = [
        {"image": name, "grid": str(factor)}
        | dict(zip(("residual", "correlation"), map(format_value, field.compare(image, factor)), strict=True))
        for name, factor, image in (
            ("coadd of HSC", 1, field.coadd),
            ("linear_image", 1, native),
            ("linear_image", 2, finer),
        )
    ]
    inner = (slice(4, -4),) * 2
    blocks = finer.reshape(native.shape[0], 2, native.shape[1], 2).sum(axis=(1, 3))
    ratio = blocks[inner].sum() / native[inner].sum()
    legend = (
        "A coadd of HSC in band i (50x50 pixels, PSF of 3.5 pixels FWHM: well sampled, one exposure, with "
        f"correlated noise) restored at {field.target_arcsec:g} arcsec, and HST F814W brought to the same "
        "PSF; flux scale, level and shift are fitted. Residual: root mean square of the difference over "
        f"that of the light. The light of the finer grid is {ratio:.4f} of that on the native one. This "
        "tests consistency, not resolution."
    )
    return [Table("HSC against HST", legend, rows)]


def _undersampled_images(scene: Scene) -> Iterator[FinerImage]:
    """Yield the images that are compared."""
    for factor in (1, 2, 3) if scene.fwhm == _FWHMS[1] else (1, 2):
        yield from restored(scene, factor)
    yield combine(scene, 2, 1e-3)
    yield drizzle(scene, 2, 0.6)
    yield drizzle(scene, 2, 1.0)


def _undersampled_rows(fwhm: float, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Return the rows of scenes of a width."""
    found: dict[tuple[str, int], list[tuple[FinerImage, Stars]]] = {}
    for seed in seeds:
        scene = Scene(fwhm, seed=seed)
        for image in _undersampled_images(scene):
            found.setdefault((image.method, image.factor), []).append((image, measure_stars(scene, image)))
        _LOG.info("FWHM %.1f, seed %d", fwhm, seed)
    return [{"FWHM": f"{fwhm:.1f}"} | _row(images) for images in found.values()]


def _well_sampled_rows(fwhm: float, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Return the rows of scenes of a width, beside the native grid."""
    found: dict[tuple[str, int], list[tuple[FinerImage, Stars]]] = {}
    for seed in seeds:
        scene = Scene(fwhm, seed=seed)
        for factor in (1, 2):
            for image in restored(scene, factor, _WIDE_TARGET):
                stars = measure_stars(scene, image)
                found.setdefault((image.method, factor), []).append((image, stars))
        _LOG.info("FWHM %.1f, seed %d", fwhm, seed)
    rows = []
    for (method, _), images in found.items():
        ratios = np.concatenate(
            [one.flux / native.flux for (_, one), (_, native) in zip(images, found[method, 1], strict=True)]
        )
        rows.append(
            {"FWHM": f"{fwhm:.1f}"}
            | _row(images)
            | {
                "ratio": f"{100.0 * (ratios.mean() - 1.0):+.3f} / {100.0 * ratios.std():.3f}",
                "doubt": images[0][0].note or "none",
            }
        )
    return rows


def _row(found: Sequence[tuple[FinerImage, Stars]]) -> dict[str, str]:
    """Return the cells of an image, from all its scenes."""
    images, stars = zip(*found, strict=True)
    flux = np.concatenate([one.flux for one in stars])
    residual = np.mean([one.residual for one in stars], axis=0)
    return {
        "image": images[0].method,
        "grid": str(images[0].factor),
        "stars": str(len(flux)),
        "flux bias / scatter": f"{100.0 * (flux.mean() - 1.0):+.2f} / {100.0 * flux.std():.2f}",
        "position": f"{1e3 * np.concatenate([one.position for one in stars]).std():.1f}",
        "sky": f"{np.concatenate([one.sky for one in stars]).std():.2f}",
        "PSF rms / largest": f"{100.0 * np.sqrt(np.mean(residual**2)):.2f} / "
        f"{100.0 * np.abs(residual).max():.2f}",
        "time": f"{np.mean([image.seconds for image in images]):.1f}",
    }
