# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tiles assembled into the planes of a patch."""

from __future__ import annotations

__all__ = ("ExposureMaps",)

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from ..calibration import ExposureCalibration, PsfRefinement
from ..exposures import Tile, TileGrid
from ..noise import CellLayout, CellNoise
from ._result import Combination, MaskBit, fields_by_tiles
from ._tile_result import TileResult

_REDUCTIONS: dict[Combination, Callable[[list[float]], float]] = {"median": np.median, "max": np.max}


class ExposureMaps(Protocol):
    """Receives the weights and outliers of exposures, tile by tile.

    For a large patch they are too large to be kept in memory.
    """

    def add(self, tile: Tile, exposures: np.ndarray, weights: np.ndarray, rejected: np.ndarray) -> None:
        """Add the pixels that a tile owns.

        Parameters
        ----------
        tile
            The tile.
        exposures
            Shape (m,), int64, indices of the exposures.
        weights
            Shape (m, h, w), float32, inverse variances; 0 for unused pixels.
        rejected
            Shape (m, h, w), bool, pixels rejected as outliers.
        """


class BlendedPlanes:
    """Planes of a patch that are blended across the borders of tiles, with
    weights that add up to one.

    Parameters
    ----------
    grid
        The tiles.
    shapes
        Shape of each plane, (..., H, W), by its name.
    """

    def __init__(self, grid: TileGrid, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shape = grid.shape
        # Filled to allocate their memory now and not tile by tile.
        self._share = np.full(grid.shape, 0.0, dtype=np.float32)
        self._planes = {name: np.full(shape, 0.0, np.float32) for name, shape in shapes.items()}

    def add(self, tile: Tile, planes: Mapping[str, np.ndarray]) -> None:
        """Add a tile.

        Parameters
        ----------
        tile
            The tile.
        planes
            Its planes by name, NaN without data.
        """
        box = tile.rows, tile.columns
        share = tile.taper(self._shape) * np.isfinite(planes["image"])
        self._share[box] += share
        for name, plane in self._planes.items():
            plane[..., *box] += share * np.nan_to_num(planes[name])

    def finish(self, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Return the planes, NaN without data.

        Parameters
        ----------
        mask
            Shape (H, W), `MaskBit` values; pixels without a tile are added.
        """
        missing = ((mask & MaskBit.NO_DATA) > 0) | (self._share <= 0)
        mask[missing] |= np.uint8(MaskBit.NO_DATA)
        share = np.where(missing, 1.0, self._share)
        for plane in self._planes.values():
            plane /= share
            plane[..., missing] = np.nan
        return self._planes


class Mosaic:
    """Planes of a patch, assembled from tiles.

    Variances and noise realisations are blended like images, because
    neighbouring tiles share the pixels and their noise.

    Parameters
    ----------
    grid
        The tiles.
    num_exposures
        Number n of exposures of the patch.
    num_realizations
        Number of noise realisations.
    layout
        Cells of the noise correlation.
    """

    def __init__(self, grid: TileGrid, num_exposures: int, num_realizations: int, layout: CellLayout) -> None:
        realizations = (num_realizations, *grid.shape)
        self._blended = BlendedPlanes(
            grid,
            {
                f.name: realizations if "k" in f.metadata["shape"] else grid.shape
                for f in fields_by_tiles("blend")
            },
        )
        self._own = {
            f.name: np.full(grid.shape, MaskBit.NO_DATA if f.name == "mask" else np.nan, f.metadata["dtype"])
            for f in fields_by_tiles("own")
        }
        self._pixels = {
            f.name: np.full(grid.shape, np.nan, dtype=np.float32) for f in fields_by_tiles("pixel median")
        }
        self._scalars: dict[str, list[float]] = {f.name: [] for f in fields_by_tiles(*_REDUCTIONS)}
        self._noise = CellNoise.empty(layout)
        self._deviations = np.zeros(num_exposures)
        self._expected = np.zeros(num_exposures)

    def add(self, result: TileResult) -> None:
        """Add a tile.

        Parameters
        ----------
        result
            The restored tile.
        """
        tile, exposures = result.tile, result.exposures
        own = tile.inner_rows, tile.inner_columns
        self._blended.add(tile, result.planes)
        for name, values in (self._own | self._pixels).items():
            values[own] = result.planes[name][tile.within]
        for cell, stamp in result.correlations.items():
            self._noise.stamps[cell] = stamp
        self._deviations[exposures] += result.deviations
        self._expected[exposures] += result.expected
        for name, scalars in self._scalars.items():
            scalars.append(result.scalars[name])

    def finish(self, calibration: ExposureCalibration) -> dict[str, Any]:
        """Return the fields of a result.

        Parameters
        ----------
        calibration
            Relative calibration of the exposures.

        Returns
        -------
        fields : `dict`
            The fields of `RestorationResult` from tiles and calibration.
        """
        blended = self._blended.finish(self._own["mask"])
        expected = np.where(self._expected > 0, self._expected, np.nan)
        background, stars = calibration.background, calibration.stars
        values, sigmas = calibration.offsets.values, calibration.offsets.sigmas
        scalars = {
            f.name: float(_REDUCTIONS[f.metadata["tiles"]](self._scalars[f.name] or [math.nan]))
            for f in fields_by_tiles(*_REDUCTIONS)
        }
        return {
            **blended,
            **self._own,
            **scalars,
            **{name: _median(values[np.isfinite(values)]) for name, values in self._pixels.items()},
            "linear_noise": self._noise,
            "chi_square": (self._deviations / expected).astype(np.float32),
            "psf_width_error": values[3].numpy(),
            "psf_width_sigma": sigmas[3].numpy(),
            "psf_residual_scatter": calibration.psf_errors.amplitudes.numpy(),
            **_psf_fields(calibration.refinement),
            "flux_error": values[0].numpy(),
            "flux_sigma": sigmas[0].numpy(),
            "shift": values[1:3].T.numpy(),
            "shift_sigma": sigmas[1:3].T.numpy(),
            "background": background.coefficients.numpy(),
            "background_sigma": background.sigma.numpy(),
            "sky_noise": calibration.noise.ratio.numpy(),
            "sky_noise_sigma": calibration.noise.sigma.numpy(),
            "variance_factor": torch.stack(
                torch.aminmax(calibration.noise.factor.flatten(1), dim=1), dim=1
            ).numpy(),
            "weight_bias": calibration.noise.bias.numpy(),
            "variance_smoothed": calibration.noise.smoothed.numpy(),
            "star_position": stars.positions.numpy(),
            "star_position_sigma": stars.position_sigma.numpy(),
            "star_flux": stars.flux.numpy(),
            "star_flux_sigma": stars.flux_sigma.numpy(),
            "star_chi_square": stars.chi_square.numpy(),
            "star_misfit": stars.misfit.numpy(),
            "dropped": dict(calibration.dropped),
            "suspect": dict(calibration.suspect),
        }


def _psf_fields(refinement: PsfRefinement) -> dict[str, Any]:
    """Return the fields of a result about errors of PSFs."""
    return {
        "psf_change": refinement.changes.numpy().astype(np.float32),
        "psf_change_sigma": refinement.sigmas.numpy().astype(np.float32),
        "psf_refined": refinement.is_applied,
        "psf_scatter": refinement.scatter.numpy().astype(np.float32),
        "psf_shared_width": refinement.shared.value,
        "psf_shared_width_sigma": refinement.shared.sigma,
        "psf_shared_stars": refinement.shared.number,
        "psf_flux_error": refinement.flux_error,
        "psf_flux_systematic": refinement.flux_systematic,
    }


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else math.nan
