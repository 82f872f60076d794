# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One visit image brought onto the grid of a patch."""

from __future__ import annotations

__all__ = ("CoregisteredExposure", "ExposureId", "UnusableExposureError", "coregister")

import dataclasses
from collections.abc import Sequence

import numpy as np

from lsst.images import Box, Polygon, VisitImage

from ..core import InputError, resample
from ._coverage import NearestPixel, cover_polygon
from ._exposure_id import ExposureId, UnusableExposureError
from ._mask_planes import DEFAULT_EXCLUDED_PLANES, mask_of_planes
from ._patch_geometry import PatchGeometry, crop_to_patch
from ._pixel_map import PixelMap
from ._psf import psf_stamps
from ._visit_requirements import calibrate, read_psf


@dataclasses.dataclass(frozen=True)
class CoregisteredExposure:
    """A visit image on the grid of a patch.

    Attributes
    ----------
    identity
        Which visit image.
    image
        Shape (H, W), float32, nJy; 0 where not ``good``.
    variance
        Shape (H, W), float32, nJy^2; 1 where not ``good``.
    good
        Shape (H, W), bool, usable pixels.
    covered
        Shape (H, W), bool, pixels on which the detector has a pixel.
    saturated
        Shape (H, W), bool.
    cosmic_ray
        Shape (H, W), bool.
    psfs
        Shape (n_cells_y, n_cells_x, P, P), float64, sum 1.
    noise
        Shape (k, H, W), float32, nJy, noise resampled like the image.
    polygon
        Part of the patch that the detector covers, in tract pixels.
    num_not_finite
        Pixels of the visit image that no mask plane excluded and whose value
        or variance is not usable.
    """

    identity: ExposureId
    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    covered: np.ndarray
    saturated: np.ndarray
    cosmic_ray: np.ndarray
    psfs: np.ndarray
    noise: np.ndarray
    polygon: Polygon
    num_not_finite: int

    @property
    def mean_psf(self) -> np.ndarray:
        """Mean PSF over the patch, of shape (P, P), float64."""
        mean: np.ndarray = np.nanmean(self.psfs, axis=(0, 1))
        return mean


def coregister(
    visit_image: VisitImage,
    geometry: PatchGeometry,
    *,
    identity: ExposureId | None = None,
    bbox: Box | None = None,
    pixel_map: PixelMap | None = None,
    excluded_planes: Sequence[str] = DEFAULT_EXCLUDED_PLANES,
    num_realizations: int = 0,
    seed: int = 0,
    kernel_order: int = 5,
) -> CoregisteredExposure:
    """Resample a visit image, its variance, mask and PSF onto a patch.

    Parameters
    ----------
    visit_image
        The visit image, or the part of it that overlaps the patch.
    geometry
        Geometry of the patch.
    identity
        Which visit image it is, where its data ID is known.
    bbox
        Box to fill, in tract pixels: the outer box of the patch, which is the
        default, or that with an even border.
    pixel_map
        Map from ``bbox`` to the visit image, where it is known already.
    excluded_planes
        Mask planes whose pixels are not used.
    num_realizations
        Number of noise realisations to draw from the variance plane and
        resample with the image.
    seed
        Seed of the realisations; exposures draw independently.
    kernel_order
        Half width of the Lanczos kernel in pixels.

    Returns
    -------
    exposure : `CoregisteredExposure`
        The exposure on the patch.

    Raises
    ------
    UnusableExposureError
        If the exposure has no PSF, a unit that is not calibrated, or no
        usable pixel on the patch.
    """
    identity = ExposureId.from_visit_image(visit_image) if identity is None else identity
    visit_image = calibrate(visit_image)
    psf = read_psf(visit_image)
    bbox = geometry.bbox if bbox is None else bbox
    if pixel_map is None:
        pixel_map = PixelMap.from_projections(geometry.projection, bbox, visit_image.sky_projection)
    origin = visit_image.bbox.start
    positions = pixel_map.positions()
    y, x = positions.y - origin.y, positions.x - origin.x
    excluded = mask_of_planes(visit_image.mask, excluded_planes)
    if visit_image.bounds != visit_image.bbox:
        grid = visit_image.bbox.meshgrid()
        excluded |= ~visit_image.bounds.contains(x=grid.x, y=grid.y)
    image, variance = visit_image.image.array, visit_image.variance.array
    usable = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    rng = np.random.default_rng([seed, identity.visit, identity.detector, *identity.instrument.encode()])
    deviation = np.sqrt(np.where(usable, variance, 0.0))
    draws = rng.standard_normal((num_realizations, *image.shape), dtype=np.float32) * deviation
    planes = resample(
        image, variance, usable & ~excluded, y=y, x=x, area=pixel_map.area(), noise=draws, order=kernel_order
    )
    nearest = NearestPixel(y, x, image.shape)
    if not crop_to_patch(nearest.inside, geometry).any():
        raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
    if not crop_to_patch(planes.good, geometry).any():
        raise UnusableExposureError("no_usable_pixels", "No usable pixel falls onto the patch.")
    try:
        psfs = psf_stamps(psf, pixel_map, visit_image.bbox)
    except InputError as exc:
        raise UnusableExposureError("bad_psf", str(exc)) from exc
    return CoregisteredExposure(
        identity=identity,
        image=planes.image,
        variance=planes.variance,
        good=planes.good,
        covered=nearest.inside,
        saturated=nearest(mask_of_planes(visit_image.mask, ["SATURATED"])),
        cosmic_ray=nearest(mask_of_planes(visit_image.mask, ["COSMIC_RAY"])),
        psfs=psfs,
        noise=planes.noise,
        polygon=cover_polygon(geometry, visit_image),
        num_not_finite=int((~usable & ~excluded).sum()),
    )
