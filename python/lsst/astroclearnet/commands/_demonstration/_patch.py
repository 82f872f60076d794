# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A patch of a simulated survey: its images, its stars and its truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Table
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import distance_transform_edt

from lsst.daf.butler import Butler, DatasetNotFoundError, MissingDatasetTypeError
from lsst.images.cells import CellCoadd

from ...adapters import CoaddArrays, PatchGeometry, unusable_pixels
from ...metrics import fwhm_of_kernel
from ...simulation import render_truth

type Array = npt.NDArray[np.float64]

_MARGIN = 15.0
"""Distance in pixels up to which sources outside a patch count."""

_FINE_FWHM = 2.0
"""FWHM in pixels of the sky that is convolved with PSFs: narrower than these,
and yet sampled by the pixels."""


@dataclasses.dataclass(frozen=True)
class Patch:
    """Images of a patch in one band, and what they ought to show.

    Attributes
    ----------
    data_id
        Values of skymap, tract, patch and band.
    geometry
        Geometry of the patch.
    coadd, restored
        The direct and the restored coadd, bad pixels of either NaN in both.
    sources
        Rows of the truth catalogue, ``x`` and ``y`` in pixels of the arrays.
    metrics
        The dataset ``restored_coadd_metrics``.
    num_coadd_exposures
        Number of exposures of the direct coadd.
    linear
        The linear coadd, if there is one, with the same pixels NaN.
    """

    data_id: dict[str, Any]
    geometry: PatchGeometry
    coadd: CoaddArrays
    restored: CoaddArrays
    sources: Table
    metrics: Mapping[str, Any]
    num_coadd_exposures: int
    linear: CoaddArrays | None = None

    @property
    def band(self) -> str:
        """Name of the band."""
        return str(self.data_id["band"])

    def render(self, sources: Table, psf: Array) -> Array:
        """Draw rows of ``sources`` in nJy, shape (H, W).

        The PSF stamp has an odd size and is broader than two pixels.
        """
        sky = render_truth(sources, self.geometry, self.band, psf_fwhm=_FINE_FWHM)
        return _replace_psf(sky, psf)

    def stars(self) -> Table:
        """Return the stars of ``sources`` with what bins them.

        Columns are ``x``, ``y``, ``flux`` (nJy) and ``signal_to_noise``: that
        of an optimal flux on the sky of the direct coadd, and NaN, which is
        in no bin, for stars outside the inner region of the patch and within
        one FWHM of a bad pixel.
        """
        rows = self.sources[self.sources["kind"] == "star"]
        x, y = np.asarray(rows["x"]), np.asarray(rows["y"])
        flux = np.asarray(rows[f"flux_{self.band}"], dtype=float)
        good = np.isfinite(self.coadd.image)
        sigma = np.sqrt(np.median(self.coadd.variance[good]) / np.sum(self.coadd.psf**2))
        inner, outer = self.geometry.definition.inner_bbox, self.geometry.bbox
        counts = (
            (x >= inner.x.min - outer.x.min - 0.5)
            & (x < inner.x.max - outer.x.min + 0.5)
            & (y >= inner.y.min - outer.y.min - 0.5)
            & (y < inner.y.max - outer.y.min + 0.5)
        )
        if not good.all():
            distance = distance_transform_edt(good)
            row, column = np.rint(y[counts]).astype(int), np.rint(x[counts]).astype(int)
            counts[counts] = distance[row, column] > fwhm_of_kernel(self.coadd.psf)
        return Table(
            {"x": x, "y": y, "flux": flux, "signal_to_noise": np.where(counts, flux / sigma, np.nan)}
        )

    def galaxies(self) -> Table:
        """Return the galaxies of ``sources``."""
        return self.sources[self.sources["kind"] == "galaxy"]


def read_patch(butler: Butler, data_id: Mapping[str, Any], catalogue: Table) -> Patch:
    """Read the coadds of a patch, of which the linear one may be absent."""
    keys = {name: data_id[name] for name in ("skymap", "tract", "patch", "band")}
    direct: CellCoadd = butler.get("deep_coadd", **keys)
    restored: CellCoadd = butler.get("restored_coadd", **keys)
    linear = _read_if_there(butler, "restored_coadd_linear", keys)
    noise_table = _read_if_there(butler, "restored_coadd_linear_noise", keys)
    bad = unusable_pixels(direct) | unusable_pixels(restored)
    geometry = PatchGeometry(projection=restored.sky_projection, definition=restored.patch)
    return Patch(
        data_id=keys,
        geometry=geometry,
        coadd=CoaddArrays.from_coadd(direct, bad),
        restored=CoaddArrays.from_coadd(restored, bad),
        sources=_sources_of(catalogue, geometry),
        metrics=butler.get("restored_coadd_metrics", **keys),
        num_coadd_exposures=len(direct.provenance.inputs),
        linear=None if linear is None else CoaddArrays.from_coadd(linear, bad, noise_table),
    )


def _read_if_there(butler: Butler, dataset_type: str, data_id: Mapping[str, Any]) -> Any:
    """Return a dataset, or `None` if there is none."""
    try:
        return butler.get(dataset_type, **data_id)
    except (DatasetNotFoundError, MissingDatasetTypeError):
        return None


def _sources_of(catalogue: Table, geometry: PatchGeometry) -> Table:
    """Return the sources on and around a patch, in pixels of its arrays."""
    sky = SkyCoord(ra=np.asarray(catalogue["ra"]) * u.deg, dec=np.asarray(catalogue["dec"]) * u.deg)
    pixels = geometry.projection.sky_to_pixel(sky)
    height, width = geometry.bbox.shape
    x, y = np.asarray(pixels.x) - geometry.bbox.x.min, np.asarray(pixels.y) - geometry.bbox.y.min
    near = (x > -_MARGIN) & (x < width + _MARGIN) & (y > -_MARGIN) & (y < height + _MARGIN)
    sources = catalogue[near]
    sources["x"], sources["y"] = x[near], y[near]
    return sources


def _replace_psf(sky: Array, psf: Array) -> Array:
    """Replace the Gaussian PSF of an image, of `_FINE_FWHM`."""
    size = psf.shape[0]
    shape = [next_fast_len(side + size, real=True) for side in sky.shape]
    sigma = _FINE_FWHM * gaussian_fwhm_to_sigma
    square = np.add.outer(np.fft.fftfreq(shape[0]) ** 2, np.fft.rfftfreq(shape[1]) ** 2)
    transfer = rfft2(psf, s=shape) * np.exp(2.0 * (np.pi * sigma) ** 2 * square)
    half = size // 2
    full = irfft2(rfft2(sky, s=shape) * transfer, s=shape)
    return np.asarray(full[half : half + sky.shape[0], half : half + sky.shape[1]])
