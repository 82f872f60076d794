# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variance and correlation of the noise of a linear estimate."""

from __future__ import annotations

__all__ = ("LocalNoise",)

import numpy as np
import torch

from ..exposures import smooth
from ..forward import WEIGHT_FLOOR, ForwardModel, WeightMaps, iterate_weight_maps
from ._cell_noise import STAMP_RADIUS

_NUM_BINS = 32
"""Bins of the power of the PSFs in which frequencies are pooled."""

_LOWEST_POWER = 1e-8
"""Power of the PSFs below which frequencies are pooled into one bin."""

_CHUNK, _GPU_CHUNK = 1 << 12, 1 << 22
"""Numbers of pixels whose spectra the cache of a CPU holds, and that keep a
GPU busy."""

_NOISE_FWHM = 0.6
"""FWHM, in units of that of the target PSF, of the geometric mean that stands
for the noise around a pixel: measured at edges of a factor of 25, in patches
of 8 pixels and on stars, where the variance is then right within 15 %."""


class LocalNoise:
    """Noise of a linear estimate where weights vary slowly.

    For constant weights the estimate of penalty weight s has the noise power
    spectrum::

        N = (1 + s)^2 P / (P + s W / |g|^2)^2,
        P = sum over t of w(t) |k(t)|^2,  W = sum over t of w(t),

    in which each exposure here counts with its weight in the neighbourhood.
    The variance of a pixel is the mean of its spectrum, over frequencies that
    are pooled by the power of the PSFs.

    Parameters
    ----------
    model
        Forward model of the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    penalty_weight
        Penalty weight s of the estimate.
    """

    def __init__(self, model: ForwardModel, weights: torch.Tensor, penalty_weight: float) -> None:
        self._model = model
        self._penalty_weight = penalty_weight
        typical, ratios = [], []
        nominal = torch.zeros(model.shape, device=weights.device)
        for maps in iterate_weight_maps(model, weights):
            typical.append(maps.typical)
            ratio = _geometric_mean(maps, _NOISE_FWHM * model.target_fwhm) / maps.typical.clamp(min=1e-30)
            nominal = nominal + (maps.typical * ratio)[0]
            # The filters mix neighbours; beyond the edge there are no data.
            ratios.append(ratio * smooth(maps.presence, 4.0))
        self._typical = torch.cat(typical)
        self._ratios = torch.cat(ratios)
        self._floor = WEIGHT_FLOOR * torch.where(nominal > 0, nominal, self._typical.sum())

    def variance(self) -> torch.Tensor:
        """Return the variance, (H, W), 0 where there are no data around."""
        shares, powers, inverse_target = self._pool()
        chunk = _CHUNK if powers.device.type == "cpu" else _GPU_CHUNK
        parts = [
            self._variance(shares, powers, inverse_target, ratios, floor)
            for ratios, floor in zip(
                self._ratios.flatten(1).split(chunk, dim=1), self._floor.flatten().split(chunk), strict=True
            )
        ]
        return torch.cat(parts).reshape(self._floor.shape)

    def _variance(
        self,
        shares: torch.Tensor,
        powers: torch.Tensor,
        inverse_target: torch.Tensor,
        ratios: torch.Tensor,
        floor: torch.Tensor,
    ) -> torch.Tensor:
        """Return the variance of some pixels."""
        weighted = self._typical[:, None] * ratios
        total = torch.maximum(weighted.sum(dim=0), floor)
        return shares @ self._spectrum(powers.T @ weighted, total, inverse_target[:, None])

    def correlation(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the correlation of the noise in a box, (31, 31), float32.

        Coefficients by the separation of two pixels, 1 in the middle; 0
        without data.

        Parameters
        ----------
        rows, columns
            The box.
        """
        weights = self._typical * self._ratios[:, rows, columns].mean(dim=(1, 2))
        size = 2 * STAMP_RADIUS + 1
        if not bool(weights.sum() > 0):
            return np.zeros((size, size), dtype=np.float32)
        local = self._model.local(
            *(_clip(s, n) for s, n in zip((rows, columns), self._model.shape, strict=True))
        )
        power = (weights[:, None, None] * local.otfs.abs() ** 2).sum(dim=0)
        spectrum = self._spectrum(power, weights.sum(), local.inverse_target_power)
        covariance = torch.fft.fftshift(local.space.inverse_transform(spectrum.to(torch.complex64)))
        row, column = (length // 2 for length in covariance.shape)
        # A tiny patch has small separations only.
        reach = min(STAMP_RADIUS, row - 1, column - 1)
        rows, columns = (slice(c - reach, c + reach + 1) for c in (row, column))
        stamp = torch.nn.functional.pad(covariance[rows, columns], 4 * [STAMP_RADIUS - reach])
        return (stamp / covariance[row, column]).cpu().numpy().astype(np.float32)

    def _spectrum(
        self, information: torch.Tensor, total: torch.Tensor, inverse_target: torch.Tensor
    ) -> torch.Tensor:
        """Return the noise power spectrum N."""
        s = self._penalty_weight
        return (1.0 + s) ** 2 * information / (information + s * total * inverse_target) ** 2

    def _pool(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pool frequencies; return shares (J,), powers (n, J) and 1/|g|^2."""
        model = self._model
        inverse_target = model.inverse_target_power
        multiplicity = torch.full_like(inverse_target, 2.0)
        multiplicity[:, [0, -1]] = 1.0
        multiplicity /= multiplicity.sum()
        relative_power = model.total_power(self._typical / self._typical.sum()) / inverse_target
        decades = torch.log(relative_power.clamp(min=_LOWEST_POWER)) / np.log(_LOWEST_POWER)
        index = (decades * _NUM_BINS).long().clamp(0, _NUM_BINS).flatten()
        shares = torch.zeros(_NUM_BINS + 1, device=index.device).index_add_(0, index, multiplicity.flatten())
        used = shares > 0

        def mean(values: torch.Tensor) -> torch.Tensor:
            pooled = torch.zeros_like(shares).index_add_(0, index, (multiplicity * values).flatten())
            return pooled[used] / shares[used]

        return (
            shares[used],
            torch.stack([mean(model.power(t)) for t in range(model.num_exposures)]),
            mean(inverse_target),
        )


def _geometric_mean(maps: WeightMaps, fwhm: float) -> torch.Tensor:
    """Return the geometric mean of weights around each pixel with data."""
    known = maps.presence > 0
    logs = torch.where(known, torch.log((maps.weights / maps.presence).clamp(min=1e-30)), 0.0)
    share = smooth(known.to(logs.dtype), fwhm)
    # Without data it is not used.
    return torch.where(share > 1e-3, torch.exp(smooth(logs, fwhm) / share.clamp(min=1e-3)), 0.0)


def _clip(box: slice, length: int) -> slice:
    """Return a range just large enough for a stamp, around the same centre."""
    middle = (box.start + box.stop) // 2
    start = min(max(middle - STAMP_RADIUS, 0), max(length - 2 * STAMP_RADIUS, 0))
    return slice(start, min(start + 2 * STAMP_RADIUS, length))
