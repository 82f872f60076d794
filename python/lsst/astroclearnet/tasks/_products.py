# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets made of a restoration: coadds and noise table."""

from __future__ import annotations

__all__ = (
    "RestorationInputs",
    "describe_joint",
    "describe_software",
    "describe_tile",
    "make_coadd",
    "make_demand_map",
    "make_linear_coadd",
    "make_noise_table",
    "target_psf",
)

import dataclasses
import importlib.metadata
import math

import numpy as np
from astropy.table import Table

from lsst.images import MaskedImage
from lsst.images.cells import CellCoadd

from ..adapters import (
    FEW_EXPOSURES,
    MaskTable,
    PatchGeometry,
    PatchSource,
    PatchSummary,
    crop_to_patch,
    make_cell_coadd,
    make_demand_image,
    missing_cells,
    patch_slices,
)
from ..core import FailedTile, MaskBit, RestorationModel, RestorationResult, gaussian_kernel
from ._used_network import JointRestoration, network_source

_CORRELATION_USAGE = (
    "Correlation coefficients of the noise of two pixels of the cell, by their separation along y and x, "
    "which is zero in the middle; 0 beyond the stamp. The covariance of pixels p and q with variances V is "
    "sqrt(V_p V_q) times the coefficient."
)
"""Description of the column, which is kept with the dataset."""


@dataclasses.dataclass(frozen=True)
class RestorationInputs:
    """What a restoration was made from.

    Attributes
    ----------
    source
        Exposures, in the order of the result's arrays.
    summary
        What they say of each pixel.
    dropped
        Reason for each exposure that was left out for a fault or because it
        does not overlap the patch, by its name.
    not_selected
        Reason for each exposure that the selection left out, by its name.
    mask_table
        Treatment of mask planes.
    min_exposures
        Number of exposures below which a pixel is flagged.
    geometry
        Geometry of the patch.
    band
        Name of the band.
    patch_name
        Words that name the patch.
    seed
        Seed of everything random.
    model
        Trained network, if one was given.
    model_source
        Where the network should come from, a choice of
        `~lsst.astroclearnet.core.ModelOptions`.
    joint
        What restored the band together with others, if it was.
    """

    source: PatchSource
    summary: PatchSummary
    dropped: dict[str, str]
    not_selected: dict[str, str]
    mask_table: MaskTable
    min_exposures: int
    geometry: PatchGeometry
    band: str
    patch_name: str
    seed: int
    model: RestorationModel | None
    model_source: str
    joint: JointRestoration | None = None

    @property
    def num_dropped(self) -> int:
        """Exposures left out for a fault, not for lack of overlap (`int`)."""
        return sum(not reason.startswith("no_overlap") for reason in self.dropped.values())


def make_coadd(result: RestorationResult, inputs: RestorationInputs) -> CellCoadd:
    """Assemble the restored coadd of a patch.

    Parameters
    ----------
    result
        The restoration, on the patch and its border.
    inputs
        What it was made from.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        Image and variance, mask planes, target PSF, provenance, noise
        realisations, and in its metadata which network made it.
    """
    return _make_coadd(
        result,
        inputs,
        image=result.image,
        variance=result.variance,
        noise=result.noise_realizations,
        mask_planes=_mask_planes(result, inputs) | _demand_planes(result, inputs),
    )


def make_demand_map(result: RestorationResult, inputs: RestorationInputs) -> MaskedImage:
    """Assemble the map of the restored light that the exposures demand.

    Parameters
    ----------
    result
        The restoration, on the patch and its border.
    inputs
        What it was made from.

    Returns
    -------
    demand : `lsst.images.MaskedImage`
        Demanded share of the light that stands out, its variance, and the
        mask planes of the restored coadd.
    """
    geometry = inputs.geometry
    return make_demand_image(
        geometry=geometry,
        share=crop_to_patch(result.demanded_share, geometry),
        sigma=crop_to_patch(result.demanded_share_sigma, geometry),
        mask_planes=_mask_planes(result, inputs) | _demand_planes(result, inputs),
    )


def make_linear_coadd(result: RestorationResult, inputs: RestorationInputs) -> CellCoadd:
    """Assemble the coadd of a patch on which to measure.

    Parameters
    ----------
    result
        The restoration, on the patch and its border.
    inputs
        What it was made from.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        As `make_coadd`, with image, variance and noise realisations of the
        linear image, without the mask planes about the network, and in its
        metadata also ``linear_penalty_weight`` and ``linear_psf_residual``,
        the residual of the image of a star from the PSF, relative to the
        peak.
    """
    coadd = _make_coadd(
        result,
        inputs,
        image=result.linear_image,
        variance=result.linear_variance,
        noise=result.linear_noise_realizations,
        mask_planes=_mask_planes(result, inputs),
    )
    coadd.metadata["linear_penalty_weight"] = result.linear_penalty_weight
    coadd.metadata["linear_psf_residual"] = result.linear_psf_residual
    return coadd


def make_noise_table(result: RestorationResult, inputs: RestorationInputs) -> Table:
    """Return the correlation of the noise of the linear coadd, by cell.

    Parameters
    ----------
    result
        The restoration, on the patch and its border.
    inputs
        What it was made from.

    Returns
    -------
    table : `astropy.table.Table`
        A row for each cell with data: ``cell_i``, ``cell_j`` (int64), the
        indices of the cell along y and x; ``num_pixels`` (int64), its pixels
        with data; ``correlation`` (float32, shape (31, 31)), whose
        description says how to use it.
    """
    geometry = inputs.geometry
    grid = geometry.definition.cells
    known = np.isfinite(result.linear_image)
    rows, columns = patch_slices(known.shape, geometry)
    height, width = grid.cell_shape
    lines = []
    for i, j in np.ndindex(grid.grid_size.i, grid.grid_size.j):
        top, left = rows.start + i * height, columns.start + j * width
        number = int(known[top : top + height, left : left + width].sum())
        if number:
            lines.append((i, j, number, result.linear_noise.stamps[i, j]))
    indices = np.array([line[:3] for line in lines], dtype=np.int64).reshape(-1, 3)
    table = Table(dict(zip(("cell_i", "cell_j", "num_pixels"), indices.T, strict=True)))
    table["correlation"] = np.array([line[3] for line in lines], dtype=np.float32)
    table["correlation"].description = _CORRELATION_USAGE
    return table


def _make_coadd(
    result: RestorationResult,
    inputs: RestorationInputs,
    *,
    image: np.ndarray,
    variance: np.ndarray,
    noise: np.ndarray,
    mask_planes: dict[str, np.ndarray],
) -> CellCoadd:
    """Assemble a coadd from planes of the patch and its border."""
    geometry = inputs.geometry
    cropped = crop_to_patch(image, geometry)
    summary = inputs.summary
    missing = missing_cells(np.isfinite(cropped), geometry.definition.cells)
    coadd = make_cell_coadd(
        geometry=geometry,
        band=inputs.band,
        image=cropped,
        variance=crop_to_patch(variance, geometry),
        mask_planes=mask_planes,
        psf=target_psf(result.target_fwhm),
        provenance=summary.make_provenance(missing),
        noise_realizations=np.nan_to_num(crop_to_patch(noise, geometry)),
        mask_fractions={"rejected": summary.num_unused / np.maximum(summary.num_covering, 1)},
    )
    coadd.metadata.update(_coadd_metadata(result, inputs))
    return coadd


def _mask_planes(result: RestorationResult, inputs: RestorationInputs) -> dict[str, np.ndarray]:
    summary = inputs.summary
    bits = crop_to_patch(result.mask, inputs.geometry)
    rejected = summary.num_unused > 0
    number = summary.num_covering - summary.num_unused
    no_data = (bits & MaskBit.NO_DATA) > 0
    clipped = (bits & MaskBit.CLIPPED) > 0
    return inputs.mask_table.propagate(summary.counts, summary.num_covering) | {
        "NO_DATA": no_data,
        "INTERPOLATED": ~no_data & (((bits & MaskBit.INPAINTED) > 0) | (number == 0)),
        "CLIPPED": clipped,
        "REJECTED": rejected,
        "INEXACT_PSF": rejected,
        FEW_EXPOSURES: number < inputs.min_exposures,
    }


def _demand_planes(result: RestorationResult, inputs: RestorationInputs) -> dict[str, np.ndarray]:
    bits = crop_to_patch(result.mask, inputs.geometry)
    return {
        "SUPPLIED": (bits & MaskBit.SUPPLIED) > 0,
        "WITHHELD": (bits & MaskBit.WITHHELD) > 0,
    }


def _coadd_metadata(
    result: RestorationResult, inputs: RestorationInputs
) -> dict[str, str | int | float | bool]:
    scale = inputs.geometry.pixel_scale
    metadata: dict[str, str | int | float | bool] = {
        **describe_software(),
        "target_fwhm_arcsec": result.target_fwhm * scale,
        "faintest_flux_njy": result.faintest_flux,
        "psf_refined": result.psf_refined,
        "psf_flux_error": result.psf_flux_error,
        "psf_flux_systematic": result.psf_flux_systematic,
        "seed": inputs.seed,
        "device": result.device,
        "network_source": network_source(result, inputs.model_source),
        "network": result.network,
        "network_doubt": result.network_doubt,
        "num_solves": sum(status.num_solves for status in result.solves.values()),
        "num_unconverged": sum(status.num_unconverged for status in result.solves.values()),
        "num_exposures": inputs.source.num_exposures,
        "num_dropped": inputs.num_dropped,
        "num_not_selected": len(inputs.not_selected),
        "num_tiles": result.num_tiles,
        "num_failed_tiles": len(result.failed_tiles),
        "num_stars": len(result.star_flux),
    }
    if inputs.joint is not None:
        metadata |= describe_joint(inputs.joint)
    if metadata["network_source"] == "fit":
        metadata |= {
            "num_epochs": result.history.num_epochs,
            "converged": result.history.converged,
            "stop_reason": result.history.stop_reason,
        }
    for n, tile in enumerate(result.failed_tiles):
        metadata[f"failed_tile_{n}"] = f"{describe_tile(tile, inputs)}: {tile.reason}"
    for n, (name, reason) in enumerate(sorted(inputs.dropped.items())):
        metadata[f"dropped_{n}"] = f"{name}: {reason}"
    for n, (name, reason) in enumerate(sorted(inputs.not_selected.items())):
        metadata[f"not_selected_{n}"] = f"{name}: {reason}"
    return metadata


def describe_software() -> dict[str, str | int | float | bool]:
    """Return what the metadata of every coadd say of the software.

    Returns
    -------
    metadata : `dict`
        Name of the method, and versions.
    """
    return {
        "restorer": "AstroClearNet",
        "astroclearnet_version": importlib.metadata.version("lsst-astroclearnet"),
        "torch_version": importlib.metadata.version("torch"),
    }


def describe_joint(joint: JointRestoration) -> dict[str, str | int | float | bool]:
    """Return what the metadata of coadds say of a joint restoration.

    Parameters
    ----------
    joint
        What restored the bands together.

    Returns
    -------
    metadata : `dict`
        Bands, joint network and what speaks against it.
    """
    return {
        "joint_bands": ",".join(joint.bands),
        "joint_network": joint.identity,
        "joint_doubt": joint.doubt,
    }


def target_psf(fwhm: float) -> np.ndarray:
    """Return the PSF that restored coadds declare.

    Parameters
    ----------
    fwhm
        Its FWHM in pixels.

    Returns
    -------
    psf : `numpy.ndarray`
        Shape (P, P), P odd, sum 1.
    """
    return gaussian_kernel(fwhm, 2 * math.ceil(2.5 * fwhm) + 1)


def describe_tile(tile: FailedTile, inputs: RestorationInputs) -> str:
    """Return the place of a tile.

    Parameters
    ----------
    tile
        The tile.
    inputs
        What the restoration was made from.

    Returns
    -------
    place : `str`
        Its box in tract pixels, in words.
    """
    box = inputs.source.box(tile.rows, tile.columns)
    return f"y {box.y.start} to {box.y.stop}, x {box.x.start} to {box.x.stop}"
