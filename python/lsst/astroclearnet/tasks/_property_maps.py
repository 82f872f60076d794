# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Properties of restored coadds as HealSparse maps."""

from __future__ import annotations

__all__ = ("PROPERTY_MAPS", "PropertyMap", "map_properties", "sum_properties")

import dataclasses
from collections.abc import Callable, Iterator

import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.table import Table
from healsparse import HealSparseMap

from lsst.images import YX, Box, MaskedImage
from lsst.images.cells import CellCoadd

from ..adapters import CoaddArrays, PatchGeometry, unusable_pixels
from ..metrics import HealpixSums, flux_error_factor, psf_flux_error, shape_of_kernel

type Array = npt.NDArray[np.float64]

_MIN_PIXELS = 16.0
"""Pixels of a coadd that one of the map must hold at least: with fewer, many
pixels of the map have none by chance."""

_DEPTH_SIGMA = 5.0
"""Signal-to-noise ratio of the depth, as of Rubin's ``psf_maglim``."""


@dataclasses.dataclass(frozen=True)
class PropertyMap:
    """A map of a property of coadds.

    Attributes
    ----------
    name
        The property, a name of ``lsst.pipe.tasks`` where the definition is
        that of it.
    operation
        What is done with the values that fall into a pixel of the map.
    description, unit
        What is written into the map.
    value
        Values from the sums of `sum_properties`; NaN where there is none.
    """

    name: str
    operation: str
    description: str
    unit: str
    value: Callable[[dict[str, Array]], Array]

    @property
    def full_name(self) -> str:
        """Name as in the dataset type, after the prefix (`str`)."""
        return f"{self.name}_map_{self.operation}"


def _ratio(numerator: str, denominator: str) -> Callable[[dict[str, Array]], Array]:
    """Return a function that divides one sum by another, NaN for 0."""

    def divide(sums: dict[str, Array]) -> Array:
        with np.errstate(invalid="ignore"):
            return sums[numerator] / np.where(sums[denominator] > 0, sums[denominator], np.nan)

    return divide


def _depth(information: str) -> Callable[[dict[str, Array]], Array]:
    """Return a function that gives the magnitude of a star at the limit."""
    # The mean of variances weighted by their inverses.
    variance = _ratio("num_pixels", information)

    def magnitude(sums: dict[str, Array]) -> Array:
        return np.asarray(u.Quantity(_DEPTH_SIGMA * np.sqrt(variance(sums)), u.nJy).to_value(u.ABmag))

    return magnitude


PROPERTY_MAPS = (
    PropertyMap(
        "psf_maglim",
        "weighted_mean",
        "PSF magnitude limit",
        "mag(AB)",
        _depth("information"),
    ),
    PropertyMap("psf_size", "weighted_mean", "PSF size", "pixel", _ratio("size", "information")),
    PropertyMap("psf_e1", "weighted_mean", "PSF e1", "", _ratio("e1", "information")),
    PropertyMap("psf_e2", "weighted_mean", "PSF e2", "", _ratio("e2", "information")),
    PropertyMap("n_exposure", "sum", "Number of exposures", "", _ratio("n_exposure", "num_pixels")),
    PropertyMap(
        "correlated_psf_maglim",
        "weighted_mean",
        "PSF magnitude limit with the covariance of the noise",
        "mag(AB)",
        _depth("correlated_information"),
    ),
    PropertyMap(
        "demanded_share",
        "weighted_mean",
        "Share of the restored light that the exposures demand",
        "",
        _ratio("demanded", "demand_weight"),
    ),
    PropertyMap(
        "supplied_fraction",
        "mean",
        "Fraction of the area with light that the network supplied",
        "",
        _ratio("supplied", "num_pixels"),
    ),
    PropertyMap(
        "withheld_fraction",
        "mean",
        "Fraction of the area with light that the network withheld",
        "",
        _ratio("withheld", "num_pixels"),
    ),
)
"""The maps that `MakePropertyMapsTask` writes.  The first five are defined as
those of ``lsst.pipe.tasks``; the others are of this package alone."""


def sum_properties(linear: CellCoadd, noise: Table, demand: MaskedImage, nside: int) -> HealpixSums | None:
    """Sum the properties of a patch over its inner pixels with data.

    Inner boxes do not overlap, so that the sums of the patches of a tract
    have each pixel once.

    Parameters
    ----------
    linear
        The linear coadd.
    noise
        Correlation of its noise, the dataset ``restored_coadd_linear_noise``.
    demand
        The dataset ``restored_coadd_demand`` of the patch.
    nside
        Resolution of the map, a power of two.

    Returns
    -------
    sums : `lsst.astroclearnet.metrics.HealpixSums` or `None`
        ``area`` (arcsec^2) and ``num_pixels``; ``information`` and
        ``correlated_information``, inverse variances (1 / nJy^2) of the flux
        of a star from a fit of the PSF with equal weights, and from
        `lsst.astroclearnet.metrics.psf_flux_correlated`; ``size``, ``e1`` and
        ``e2`` of the PSF times the first; ``n_exposure``; ``supplied`` and
        ``withheld`` pixels; ``demand_weight``, the inverse variance of the
        demanded share, and ``demanded``, the share times it.  `None` if no
        inner pixel has data.

    Raises
    ------
    ValueError
        If the pixels of the map are too small for those of the coadd.
    """
    scale = PatchGeometry(projection=linear.sky_projection, definition=linear.patch).pixel_scale
    bad = unusable_pixels(linear)
    parts = []
    for box in _rows_of_cells(linear):
        bad_row = bad[box.slice_within(linear.bbox)]
        if not bad_row.all():
            parts.append(_sum_row(linear[box], bad_row, noise, demand[box], nside))
    if not parts:
        return None
    sums = HealpixSums.combine(parts)
    size = sums.pixel_area / scale**2
    if size < _MIN_PIXELS:
        raise ValueError(
            f"With nside={nside} a pixel of the map has {size:.1f} pixels of the coadd; it must have "
            f"at least {_MIN_PIXELS:.0f}: choose a smaller nside."
        )
    sums.values["area"] = sums.values["num_pixels"] * scale**2
    return sums


def map_properties(sums: HealpixSums, nside_coverage: int, min_coverage: float) -> dict[str, HealSparseMap]:
    """Return the maps of a tract.

    Parameters
    ----------
    sums
        Those of `sum_properties`, of all patches together.
    nside_coverage
        Resolution of the coverage map, a power of two.
    min_coverage
        Part of the area of a pixel of the map that must have data.

    Returns
    -------
    maps : `dict` [`str`, `healsparse.HealSparseMap`]
        Float64 maps by `PropertyMap.full_name`, with the metadata of those of
        ``lsst.pipe.tasks``.
    """
    covered = sums.select(sums.values["area"] >= min_coverage * sums.pixel_area)
    return {prop.full_name: _make_map(prop, covered, nside_coverage) for prop in PROPERTY_MAPS}


def _make_map(prop: PropertyMap, sums: HealpixSums, nside_coverage: int) -> HealSparseMap:
    metadata = {
        "DESCRIPTION": prop.description,
        "UNIT": prop.unit,
        "OPERATION": prop.operation.replace("_", " "),
    }
    made = HealSparseMap.make_empty(nside_coverage, sums.nside, np.float64, metadata=metadata)
    values = prop.value(sums.values)
    known = np.isfinite(values)
    made[sums.pixels[known]] = values[known]
    return made


def _rows_of_cells(coadd: CellCoadd) -> Iterator[Box]:
    """Yield the inner box of the patch in rows of cells."""
    grid, inner = coadd.patch.cells, coadd.patch.inner_bbox.intersection(coadd.bbox)
    height, origin = grid.cell_shape.y, grid.bbox.y.start
    starts = range(origin + (inner.y.start - origin) // height * height, inner.y.stop, height)
    for start in starts:
        rows = slice(max(start, inner.y.start), min(start + height, inner.y.stop))
        yield Box.factory[rows, inner.x.start : inner.x.stop]


def _sum_row(
    linear: CellCoadd, bad: npt.NDArray[np.bool_], noise: Table, demand: MaskedImage, nside: int
) -> HealpixSums:
    """Sum the properties of pixels of a row of cells."""
    arrays = CoaddArrays.from_coadd(linear, bad, noise)
    columns = np.arange(bad.shape[1], dtype=float)
    _, cells = arrays.cells_of(columns, np.zeros_like(columns))
    psfs = {name: values[cells] for name, values in _psf_properties(arrays).items()}
    variance, correlated = (arrays.variance * psfs[name] for name in ("variance_factor", "correlated_factor"))
    good = (variance > 0) & (correlated > 0)
    y, x = np.nonzero(good)
    sky = linear.sky_projection.pixel_to_sky(
        YX(y=y + float(linear.bbox.y.start), x=x + float(linear.bbox.x.start))
    )
    information = 1.0 / variance[good]
    values = {
        "num_pixels": np.ones(x.size),
        "information": information,
        "correlated_information": 1.0 / correlated[good],
        **{name: psfs[name][x] * information for name in ("size", "e1", "e2")},
        "n_exposure": _num_exposures(linear)[cells][x],
        **_demand_values(demand, good),
    }
    return HealpixSums.from_positions(nside, sky.ra.deg, sky.dec.deg, values)


def _psf_properties(arrays: CoaddArrays) -> dict[str, Array]:
    """Return, for each cell of a row, size and shape of the PSF, and variance
    of its flux over that of a pixel with both fits.
    """
    assert arrays.correlation is not None
    (psfs,), (correlations,) = arrays.psfs, arrays.correlation
    found = np.empty((5, len(psfs)))
    # Most cells share one PSF.
    distinct, which = np.unique(psfs.reshape(len(psfs), -1), axis=0, return_inverse=True)
    for n, stamp in enumerate(distinct):
        psf, same = stamp.reshape(psfs.shape[1:]), which == n
        found[:3, same] = np.array(shape_of_kernel(psf))[:, None]
        found[3, same] = flux_error_factor(correlations[same], psf) ** 2 / np.sum(psf**2)
        found[4, same] = [psf_flux_error(1.0, correlation, psf) ** 2 for correlation in correlations[same]]
    return dict(zip(("size", "e1", "e2", "variance_factor", "correlated_factor"), found, strict=True))


def _num_exposures(linear: CellCoadd) -> Array:
    """Return, for each cell of a row, the number of exposures that are used
    in a pixel, on average.
    """
    table = linear.provenance.contributions
    grid, box = linear.patch.cells, linear.bbox
    first, last = (grid.index_of(y=box.y.min, x=x).j for x in (box.x.min, box.x.max))
    return np.bincount(
        np.asarray(table["cell_j"]) - first, weights=table["unmasked_fraction"], minlength=last - first + 1
    )


def _demand_values(demand: MaskedImage, good: npt.NDArray[np.bool_]) -> dict[str, Array]:
    """Return the values of the map of demanded light in pixels with data."""
    share, variance = (plane.array[good].astype(float) for plane in (demand.image, demand.variance))
    known = np.isfinite(share) & (variance > 0)
    weight = np.where(known, 1.0 / np.where(known, variance, 1.0), 0.0)
    return {
        "demand_weight": weight,
        "demanded": np.where(known, share, 0.0) * weight,
        "supplied": demand.mask.get("SUPPLIED")[good].astype(float),
        "withheld": demand.mask.get("WITHHELD")[good].astype(float),
    }
