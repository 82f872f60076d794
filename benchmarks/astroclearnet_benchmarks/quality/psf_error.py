# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs that are given too broad or too narrow: what it does to fluxes."""

from __future__ import annotations

__all__ = ("dilate", "predict_bias", "restore_with_wrong_psfs")

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import affine_transform

from lsst.astroclearnet.core import StackResult, kernel_fwhm, restore
from lsst.astroclearnet.core.forward import ForwardModel

from ..scenes import Scene
from .product import Product

type Array = npt.NDArray[np.float64]

_ERRORS = {"3 % too broad": 1.03, "3 % too narrow": 0.97}
_MIN_ERROR = 0.015
_MIN_SIGNIFICANCE = 5.0
"""An exposure is flagged beyond both: error of the width of its PSF, and the
same in standard deviations."""


def restore_with_wrong_psfs(scene: Scene, target_fwhm: float, seed: int) -> Iterator[list[Product]]:
    """Restore a scene with PSFs of wrong widths.

    Yields
    ------
    products : `list` [`Product`]
        Both images, for PSFs too broad and too narrow in all exposures and in
        the one of median seeing, with what is predicted and flagged as
        ``figures``.
    """
    true = scene.psfs.astype(float)
    median = int(np.argsort([kernel_fwhm(psf) for psf in true])[len(true) // 2])
    for where, wrong in (("all", np.arange(len(true))), ("one", np.array([median]))):
        for words, factor in _ERRORS.items():
            given = true.copy()
            given[wrong] = [dilate(true[index], factor) for index in wrong]
            result = restore(
                scene.images, scene.variances, scene.good, given, target_fwhm=target_fwhm, seed=seed
            )
            figures = _flags(result, wrong) | _predictions(scene, true, given, target_fwhm, result)
            name = f"{where}, {words}"
            yield [
                Product(f"restored_coadd, {name}", result.image, target_fwhm, figures=figures),
                Product(
                    f"restored_coadd_linear, {name}",
                    result.linear_image,
                    target_fwhm,
                    result.linear_variance,
                    correlation=result.linear_noise.correlation,
                    figures=figures,
                ),
            ]


def dilate(psf: Array, factor: float) -> Array:
    """Return a PSF of another width."""
    middle = psf.shape[0] // 2
    dilated = affine_transform(psf, np.full(2, 1.0 / factor), offset=middle * (1.0 - 1.0 / factor), order=5)
    return np.asarray(dilated / dilated.sum())


def predict_bias(
    true: Array, given: Array, levels: Array, target_fwhm: float, penalty_weight: float
) -> tuple[float, float]:
    """Predict the relative bias of fluxes to first order.

    With wrong PSFs f' in place of f, the best flux from all exposures is
    biased by sum(w f' f) / sum(w f'^2) - 1.  The linear image of a star has
    in each frequency the transform of the target, G, times

        (1 + s) sum(w K'* K) / (sum(w |K'|^2) + s / |G|^2),   K = F / G,

    and a plain fit of the target weights frequencies by G^2, higher ones than
    the best flux does where the target is sharper than the exposures.

    Returns
    -------
    plain : `float`
        Of a plain fit to the linear image, relative to that with right PSFs.
    best : `float`
        Of the best flux.
    """
    weights = (1.0 / levels) / np.sum(1.0 / levels)
    size = true.shape[-1]
    right, wrong = (
        ForwardModel(torch.from_numpy(psfs)[:, None, None], (size, size), target_fwhm)
        for psfs in (true, given)
    )
    share = torch.from_numpy(weights).float()[:, None, None]

    def response(model: ForwardModel) -> float:
        cross = (share * model.mean_otfs.conj() * right.mean_otfs).sum(dim=0).real
        power = (share * model.mean_otfs.abs() ** 2).sum(dim=0)
        gain = (1.0 + penalty_weight) * cross / (power + penalty_weight * model.inverse_target_power)
        return float(model.fold_transform(model.target_transform**2 * gain))

    best = np.tensordot(weights, given * true, axes=1).sum() / np.tensordot(weights, given**2, axes=1).sum()
    return response(wrong) / response(right) - 1.0, float(best) - 1.0


def _predictions(
    scene: Scene, true: Array, given: Array, target_fwhm: float, result: StackResult
) -> dict[str, float]:
    levels = np.array([np.median(v[g]) for v, g in zip(scene.variances, scene.good, strict=True)])
    plain, best = predict_bias(true, given, levels, target_fwhm, result.linear_penalty_weight)
    return {"predicted_plain": plain, "predicted_best": best}


def _flags(result: StackResult, wrong: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return which exposures are flagged for the width of their PSF."""
    error = result.psf_width_error
    flagged = (np.abs(error) > _MIN_ERROR) & (np.abs(error) > _MIN_SIGNIFICANCE * result.psf_width_sigma)
    is_wrong = np.isin(np.arange(len(error)), wrong)
    return {
        "width_error": float(np.mean(error[is_wrong])),
        "flagged": float(np.mean(flagged[is_wrong])),
        "falsely_flagged": float(np.mean(flagged[~is_wrong])) if not is_wrong.all() else float("nan"),
    }
