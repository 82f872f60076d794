# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets made of a restoration: coadd, metrics and figure."""

from __future__ import annotations

__all__ = ("RestorationInputs", "make_coadd", "make_figure", "make_metrics")

import dataclasses
import importlib.metadata
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lsst.images.cells import CellCoadd

from ..adapters import (
    CoregisteredExposure,
    PatchGeometry,
    crop_to_patch,
    make_cell_coadd,
    make_provenance,
    missing_cells,
)
from ..core import MaskBit, RestorationResult, gaussian_kernel, kernel_fwhm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SATURATED_FRACTION = 0.1
"""Fraction of covering exposures that must be saturated for the plane to be
set, as in Rubin's coadds."""


@dataclasses.dataclass(frozen=True)
class RestorationInputs:
    """What a restoration was made from.

    Attributes
    ----------
    exposures
        Co-registered exposures, in the order of the result's arrays.
    dropped
        Reason for each exposure that was left out, by its name.
    geometry
        Geometry of the patch.
    band
        Name of the band.
    data_id
        Words that name the patch.
    seed
        Seed of everything random.
    """

    exposures: list[CoregisteredExposure]
    dropped: dict[str, str]
    geometry: PatchGeometry
    band: str
    data_id: str
    seed: int

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
        realisations, and in its metadata what the fit did.
    """
    geometry = inputs.geometry
    image = crop_to_patch(result.image, geometry)
    weights = crop_to_patch(result.weights, geometry)
    missing = missing_cells(np.isfinite(image), geometry.definition.cells)
    covered = np.stack([crop_to_patch(e.covered, geometry) for e in inputs.exposures])
    unused = covered & (weights == 0)
    coadd = make_cell_coadd(
        geometry=geometry,
        band=inputs.band,
        image=image,
        variance=crop_to_patch(result.variance, geometry),
        mask_planes=_mask_planes(result, inputs, covered, unused),
        psf=_target_psf(result.target_fwhm),
        provenance=make_provenance(inputs.exposures, weights, geometry, missing),
        noise_realizations=np.nan_to_num(crop_to_patch(result.noise_realizations, geometry)),
        mask_fractions={"rejected": unused.sum(axis=0) / np.maximum(covered.sum(axis=0), 1)},
    )
    coadd.metadata.update(_coadd_metadata(result, inputs))
    return coadd


def make_metrics(result: RestorationResult, inputs: RestorationInputs) -> dict[str, Any]:
    """Return figures about a restoration that need no truth.

    Parameters
    ----------
    result
        The restoration.
    inputs
        What it was made from.

    Returns
    -------
    metrics : `dict`
        Plain Python values: ``exposures``, a list with the identity, PSF
        FWHM (arcsec), weight share, reduced chi-square and rejected fraction
        of each; ``dropped``, reasons by exposure; ``fit``, ``image`` and
        ``patch``, flat dictionaries.
    """
    geometry, scale = inputs.geometry, inputs.geometry.pixel_scale
    weights = crop_to_patch(result.weights, geometry)
    rejected = crop_to_patch(result.rejected, geometry)
    total = float(weights.sum())
    exposures = []
    for n, exposure in enumerate(inputs.exposures):
        used = weights[n] > 0
        identity = exposure.identity
        exposures.append(
            {
                "instrument": identity.instrument,
                "visit": identity.visit,
                "detector": identity.detector,
                "psf_fwhm": kernel_fwhm(np.nanmean(exposure.psfs, axis=(0, 1))) * scale,
                "weight_share": float(weights[n].sum()) / total if total else math.nan,
                "chi_square": float(result.chi_square[n]),
                "used_fraction": float(used.mean()),
                "rejected_fraction": float(rejected[n].sum() / max(1, int(used.sum() + rejected[n].sum()))),
                "num_not_finite": exposure.num_not_finite,
            }
        )
    image = crop_to_patch(result.image, geometry)
    mask = crop_to_patch(result.mask, geometry)
    history = result.history
    return {
        "patch": {
            "skymap": geometry.skymap,
            "tract": geometry.tract,
            "patch": geometry.definition.id,
            "band": inputs.band,
            "num_exposures": len(exposures),
            "num_dropped": inputs.num_dropped,
        },
        "exposures": exposures,
        "dropped": dict(inputs.dropped),
        "fit": {
            "num_epochs": len(history.loss),
            "best_epoch": history.best_epoch,
            "stop_reason": history.stop_reason,
            "converged": history.converged,
            "held_out_loss": history.validation_loss[history.best_epoch] if history.loss else math.nan,
            "num_parameters": result.num_parameters,
            "device": result.device,
            "seed": inputs.seed,
        },
        "image": {
            "target_fwhm": result.target_fwhm * scale,
            "median_sigma": float(np.sqrt(np.nanmedian(crop_to_patch(result.variance, geometry)))),
            "median": float(np.nanmedian(image)) if np.isfinite(image).any() else math.nan,
            "sky_level": result.sky_level,
            "noise_ratio": result.noise_ratio,
            "no_data_fraction": float(((mask & MaskBit.NO_DATA) > 0).mean()),
            "inpainted_fraction": float(((mask & MaskBit.INPAINTED) > 0).mean()),
            "clipped_fraction": float(((mask & MaskBit.CLIPPED) > 0).mean()),
            "chi_square": _pooled_chi_square(result),
        },
    }


def make_figure(result: RestorationResult, inputs: RestorationInputs) -> Figure:
    """Draw the restoration beside the plain coadd.

    Parameters
    ----------
    result
        The restoration.
    inputs
        What it was made from.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Coadd and restored image with one stretch, uncertainty, residual, PSF
        profiles and the course of the fit.
    """
    from ..baselines import coadd_psf, inverse_variance_coadd
    from ..plots import restoration_figure

    geometry = inputs.geometry
    used = np.stack([e.good for e in inputs.exposures])
    coadd = inverse_variance_coadd(
        np.stack([e.image for e in inputs.exposures]), np.stack([e.variance for e in inputs.exposures]), used
    )
    size = max(e.psfs.shape[-1] for e in inputs.exposures)
    stamps = [_mean_psf(e, size) for e in inputs.exposures]
    best = min(stamps, key=kernel_fwhm)
    history = result.history
    return restoration_figure(
        coadd=crop_to_patch(coadd.image, geometry),
        restored=crop_to_patch(result.image, geometry),
        variance=crop_to_patch(result.variance, geometry),
        mask=crop_to_patch(result.mask, geometry),
        residual=crop_to_patch(result.residual, geometry),
        psfs={
            "coadd": coadd_psf(np.stack(stamps), coadd.weights),
            "best exposure": best,
            "restored": _target_psf(result.target_fwhm),
        },
        history={
            "step": list(range(len(history.loss))),
            "loss": history.loss,
            "held_out_loss": history.validation_loss,
        },
        title=f"{inputs.data_id}: {len(inputs.exposures)} exposures",
        pixel_scale=geometry.pixel_scale,
    )


def _mask_planes(
    result: RestorationResult, inputs: RestorationInputs, covered: np.ndarray, unused: np.ndarray
) -> dict[str, np.ndarray]:
    geometry = inputs.geometry
    bits = crop_to_patch(result.mask, geometry)
    saturated = np.stack([crop_to_patch(e.saturated, geometry) for e in inputs.exposures])
    cosmic_ray = np.stack([crop_to_patch(e.cosmic_ray, geometry) for e in inputs.exposures])
    rejected = unused.any(axis=0)
    return {
        "NO_DATA": (bits & MaskBit.NO_DATA) > 0,
        "INTERPOLATED": (bits & MaskBit.INPAINTED) > 0,
        "CLIPPED": (bits & MaskBit.CLIPPED) > 0,
        "REJECTED": rejected,
        "INEXACT_PSF": rejected,
        "COSMIC_RAY": cosmic_ray.any(axis=0),
        "SATURATED": saturated.sum(axis=0) > _SATURATED_FRACTION * covered.sum(axis=0),
    }


def _coadd_metadata(
    result: RestorationResult, inputs: RestorationInputs
) -> dict[str, str | int | float | bool]:
    scale = inputs.geometry.pixel_scale
    metadata: dict[str, str | int | float | bool] = {
        "restorer": "AstroClearNet",
        "astroclearnet_version": importlib.metadata.version("lsst-astroclearnet"),
        "torch_version": importlib.metadata.version("torch"),
        "target_fwhm_arcsec": result.target_fwhm * scale,
        "seed": inputs.seed,
        "device": result.device,
        "num_epochs": len(result.history.loss),
        "converged": result.history.converged,
        "stop_reason": result.history.stop_reason,
        "num_exposures": len(inputs.exposures),
        "num_dropped": inputs.num_dropped,
    }
    for n, (name, reason) in enumerate(sorted(inputs.dropped.items())):
        metadata[f"dropped_{n}"] = f"{name}: {reason}"
    return metadata


def _pooled_chi_square(result: RestorationResult) -> float:
    number = (result.weights > 0).sum(axis=(1, 2))
    return float(np.nansum(result.chi_square * number) / max(1, int(number.sum())))


def _target_psf(fwhm: float) -> np.ndarray:
    return gaussian_kernel(fwhm, 2 * math.ceil(2.5 * fwhm) + 1)


def _mean_psf(exposure: CoregisteredExposure, size: int) -> np.ndarray:
    pad = (size - exposure.psfs.shape[-1]) // 2
    return np.pad(np.nanmean(exposure.psfs, axis=(0, 1)), pad)
