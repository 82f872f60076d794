# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Size and content of a simulated survey."""

from __future__ import annotations

__all__ = ("ArtefactOptions", "SurveyOptions")

import dataclasses
import math

from ..adapters import SkyMapGeometry, TractGeometry
from ..repository import require_name
from ._instrument import BANDS, PIXEL_SCALE


def _require_at_least(options: object, least: float, *names: str) -> None:
    """Refuse options that are not finite numbers from a least value on."""
    for name in names:
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and number >= least):
                kind = type(options).__name__
                raise ValueError(f"{kind}.{name}={value} must be finite and at least {least}.")


@dataclasses.dataclass(frozen=True)
class ArtefactOptions:
    """What makes an exposure differ from its expectation.

    Attributes
    ----------
    noise
        Photon noise of sky and sources, read noise and digitisation.
    saturation
        Clip at full well, with charge bleeding along columns.
    cosmic_rays
        Mean number of cosmic rays per 100 000 pixels; a thick CCD collects
        about ten in 200 s.
    flagged_fraction
        Fraction of the cosmic rays that the pipeline found and flagged.
    bad_columns
        Number of bad columns per detector.
    satellite_trails
        Put one trail, unflagged, into one visit of each band.
    """

    noise: bool = True
    saturation: bool = True
    cosmic_rays: float = 10.0
    flagged_fraction: float = 0.7
    bad_columns: int = 1
    satellite_trails: bool = True

    def __post_init__(self) -> None:
        _require_at_least(self, 0, "cosmic_rays", "flagged_fraction", "bad_columns")
        if self.flagged_fraction > 1.0:
            raise ValueError(f"ArtefactOptions.flagged_fraction={self.flagged_fraction} must be at most 1.")

    @classmethod
    def none(cls) -> ArtefactOptions:
        """Return options without noise and without defects.

        Returns
        -------
        options : `ArtefactOptions`
            Everything turned off: pixels are the expectation.
        """
        return cls(noise=False, saturation=False, cosmic_rays=0.0, bad_columns=0, satellite_trails=False)


@dataclasses.dataclass(frozen=True)
class SurveyOptions:
    """Everything that defines a simulated survey.

    The same options give the same survey, pixel by pixel.

    Attributes
    ----------
    seed
        Seed of every random number.
    skymap, tract
        Name of the sky map and ID of its only tract.
    ra_deg, dec_deg
        ICRS position of the centre of the tract.
    bands
        Bands to observe, of those in `BANDS`.
    visits_per_band
        Number of visits in each band.
    cell_size
        Side of the cells in pixels.
    patch_cells, border_cells
        Cells along a side of the inner region of a patch, and cells by which
        it extends beyond that on each side.
    num_patches
        Numbers of patches of the tract along y and x.
    detector_grid
        Number of detectors along y and x.
    detector_shape
        Height and width of a detector in pixels.
    detector_gap
        Gaps between detectors along y and x in pixels.
    dither_arcsec
        Radius of the disc in which boresights lie around the centre.
    seeing_arcsec
        Smallest, median and largest seeing: the FWHM of atmosphere and optics,
        without the pixel.
    distortion
        Fractional change of the pixel scale between the boresight and the
        corner of the focal plane.
    stars_per_patch
        Mean number of stars in the inner region of a patch.
    star_magnitudes
        Brightest and faintest star in i.
    pairs_per_patch
        Mean number of close pairs of stars in the inner region of a patch,
        beside the other stars.
    pair_separation_arcsec
        Smallest and largest separation of the pairs.
    galaxies_per_arcmin2
        Number of galaxies brighter than i = 25 per square arcmin.
    galaxy_magnitudes
        Brightest and faintest galaxy in i.
    num_psf_stars
        Stars that constrain the PSF model of each detector.
    truth_fwhm
        FWHM of the circular Gaussian PSF of the truth images in pixels.
    artefacts
        Noise and defects.
    is_drawn_fast
        Draw stars on the pixels and faint galaxies photon by photon, which
        takes a fraction of the time; else all are drawn by Fourier transforms.

    Raises
    ------
    ValueError
        If there are no bands or unknown ones, no visits, no detectors,
        too few PSF stars, seeing that is not in order, photons without noise,
        or a number that is negative or not finite.
    """

    seed: int = 1
    skymap: str = "hsc_sim"
    tract: int = 0
    ra_deg: float = 150.1
    dec_deg: float = 2.2
    bands: tuple[str, ...] = ("r", "i")
    visits_per_band: int = 8
    cell_size: int = 50
    patch_cells: int = 4
    border_cells: int = 1
    num_patches: tuple[int, int] = (2, 2)
    detector_grid: tuple[int, int] = (2, 2)
    detector_shape: tuple[int, int] = (300, 350)
    detector_gap: tuple[int, int] = (15, 15)
    dither_arcsec: float = 15.0
    seeing_arcsec: tuple[float, float, float] = (0.5, 0.66, 0.95)
    distortion: float = 0.005
    stars_per_patch: float = 25.0
    star_magnitudes: tuple[float, float] = (16.0, 27.0)
    pairs_per_patch: float = 2.0
    pair_separation_arcsec: tuple[float, float] = (0.3, 0.8)
    galaxies_per_arcmin2: float = 35.0
    galaxy_magnitudes: tuple[float, float] = (19.0, 26.5)
    num_psf_stars: int = 30
    truth_fwhm: float = 3.0
    artefacts: ArtefactOptions = ArtefactOptions()
    is_drawn_fast: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.bands) - set(BANDS))
        if unknown or not self.bands or len(set(self.bands)) < len(self.bands):
            raise ValueError(
                f"SurveyOptions.bands={self.bands!r} must name at least one band, each once, all of "
                f"{tuple(BANDS)}."
            )
        require_name("sky map", self.skymap)
        _require_at_least(
            self,
            1,
            "visits_per_band",
            "cell_size",
            "patch_cells",
            "num_patches",
            "detector_grid",
            "detector_shape",
        )
        _require_at_least(
            self, 0, "seed", "tract", "border_cells", "detector_gap", "dither_arcsec", "stars_per_patch"
        )
        _require_at_least(self, 0, "pairs_per_patch", "galaxies_per_arcmin2", "pair_separation_arcsec")
        _require_at_least(
            self, -math.inf, "ra_deg", "dec_deg", "distortion", "star_magnitudes", "galaxy_magnitudes"
        )
        for name in ("num_patches", "detector_grid", "detector_shape", "detector_gap"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"SurveyOptions.{name}={getattr(self, name)} must be a pair, along y and x.")
        if abs(self.dec_deg) > 90.0:
            raise ValueError(f"SurveyOptions.dec_deg={self.dec_deg} must be from -90 to 90.")
        if self.num_psf_stars < 3:
            raise ValueError(
                f"SurveyOptions.num_psf_stars={self.num_psf_stars} must be at least 3, for a model that is "
                "linear in position."
            )
        low, median, high = self.seeing_arcsec
        if not 0.0 < low < median < high < math.inf:
            raise ValueError(
                f"SurveyOptions.seeing_arcsec={self.seeing_arcsec} must be (smallest, median, largest)."
            )
        for name in ("star_magnitudes", "galaxy_magnitudes", "pair_separation_arcsec"):
            first, last = getattr(self, name)
            if first > last:
                raise ValueError(f"SurveyOptions.{name}={(first, last)} must be in order.")
        if self.is_drawn_fast and not self.artefacts.noise:
            raise ValueError("SurveyOptions.is_drawn_fast needs noise: that of photons comes with them.")
        if not 0.0 < self.truth_fwhm < math.inf:
            raise ValueError(f"SurveyOptions.truth_fwhm={self.truth_fwhm} must be positive.")

    @property
    def geometry(self) -> SkyMapGeometry:
        """Sky map (`lsst.astroclearnet.adapters.SkyMapGeometry`)."""
        tract = TractGeometry(
            tract=self.tract,
            ra_deg=self.ra_deg,
            dec_deg=self.dec_deg,
            pixel_scale_arcsec=PIXEL_SCALE,
            cell_shape=(self.cell_size, self.cell_size),
            patch_cells=(self.patch_cells, self.patch_cells),
            border_cells=self.border_cells,
            num_patches=self.num_patches,
        )
        return SkyMapGeometry(skymap=self.skymap, tracts=(tract,))
