# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of a tile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from .._errors import RestorationError
from ..calibration import ExposureCalibration
from ..estimate import Estimator, Network
from ..exposures import Tile, close_holes
from ..forward import CleanTile, ForwardModel, TileData, WeightMaps, psf_fwhms, weight_maps
from ..noise import (
    CellLayout,
    LocalNoise,
    Observation,
    PsfErrorImages,
    RepeatedErrors,
    linear_variance,
    measure_demanded_light,
    repeat_bands,
    restored_variance,
    white_noise,
)
from ._bright_stars import BrightStars
from ._result import BELIEVABLE_SIGNAL_TO_NOISE, MaskBit
from ._tile_result import FinishedTile, ObservedTile, TileResult

_LEAST_SHARE = 0.3
"""Least weight of large pixels after resampling, over that before; at edges of
data it overshoots, and could vanish."""


@dataclasses.dataclass(frozen=True)
class TileRestorer:
    """Restores tiles of a patch.

    Attributes
    ----------
    network
        The network, trained or fitted.
    calibration
        Calibration of the exposures, with the settings.
    seed
        Seed of the noise draws.
    layout
        Cells of the noise correlation.
    """

    network: Network
    calibration: ExposureCalibration
    seed: int
    layout: CellLayout

    @torch.no_grad()
    def restore(self, tile_data: TileData) -> TileResult:
        """Restore a tile of one band.

        Parameters
        ----------
        tile_data
            The tile.

        Returns
        -------
        result : `TileResult`
            The restored tile, on the CPU.

        Raises
        ------
        RestorationError
            If pixels with data are not finite.
        """
        observed = self.observe(tile_data)
        return self.finish(observed, repeat_bands([observed.observation], None)[0]).result

    @torch.no_grad()
    def observe(self, tile_data: TileData) -> ObservedTile:
        """Clean a tile and estimate its light.

        Parameters
        ----------
        tile_data
            The tile.

        Returns
        -------
        observed : `ObservedTile`
            The tile with its images, on the device.
        """
        clean = self.calibration.clean(tile_data)
        tile_data, options = clean.tile_data, self.calibration.options
        model, stack = tile_data.model, tile_data.stack
        weights = stack.good / clean.variances
        origin = tile_data.tile.rows.start, tile_data.tile.columns.start
        stars = BrightStars.draw(self.calibration, tile_data)
        estimator = Estimator(self.network, model, weights, options, origin, stars.image)
        estimate = estimator.estimate(stack.images)
        observation = Observation(estimator, estimate, self._draw_noise(clean), _owned(tile_data))
        return ObservedTile(clean, stars, observation)

    @torch.no_grad()
    def finish(self, observed: ObservedTile, errors: RepeatedErrors) -> FinishedTile:
        """Make the planes of a tile.

        Parameters
        ----------
        observed
            What `observe` returned, perhaps with another restored image.
        errors
            Errors of repeated observations of that.

        Returns
        -------
        finished : `FinishedTile`
            The restored tile.

        Raises
        ------
        RestorationError
            If pixels with data are not finite.
        """
        clean, stars = observed.clean, observed.stars
        tile_data, options = clean.tile_data, self.calibration.options
        model, stack = tile_data.model, tile_data.stack
        estimator, estimate = observed.observation.estimator, observed.observation.estimate
        weights, owned = estimator.weights, observed.owned
        local_noise = LocalNoise(model, weights, estimator.linear_penalty_weight)
        maps = weight_maps(model, weights)
        seen = maps.used.any(dim=0)
        variance_of_linear = linear_variance(errors, local_noise, seen)
        psf_errors = self.calibration.psf_errors.select(tile_data.exposures)
        psf_images = PsfErrorImages.build(
            psf_errors,
            stack,
            model,
            maps,
            image=estimate.restored + stars.image,
            variance=variance_of_linear,
            penalty_weight=estimator.linear_penalty_weight,
        )
        variance_of_psfs = psf_images.variance()
        missing = model.crop(estimator.linear_residual(estimate.restored))
        brightness = model.crop(estimator.debiaser.brightness(estimate.restored))
        widths = psf_fwhms(stack)
        clipped = model.sampling.largest(clean.rejected)
        mask = _mask(seen, clipped, float(widths.max()))
        no_data = (mask & MaskBit.NO_DATA) > 0
        demanded = measure_demanded_light(
            estimator, estimate, errors.right, maps, variance_of_psfs, stars.light
        )
        mask[demanded.supplied & ~no_data] |= MaskBit.SUPPLIED
        mask[demanded.withheld & ~no_data] |= MaskBit.WITHHELD
        kept = options.noise.num_realizations
        psf_draws = self._draw_psf_errors(psf_images, tile_data, min(kept, len(errors.linear)))
        variance_of_restored = restored_variance(
            errors.restored, errors.unseen_light, variance_of_linear, brightness, seen
        )
        blended = {
            "image": model.crop(estimate.restored),
            "variance": variance_of_restored + variance_of_psfs,
            "noise_realizations": errors.restored[:kept] + psf_draws,
            "linear_image": model.crop(estimate.linear),
            "linear_variance": variance_of_linear + variance_of_psfs + missing.square(),
            "linear_noise_realizations": errors.linear[:kept] + psf_draws,
        }
        stars.put_back(blended, estimator, seen, self.seed)
        _require_finite(blended, ~no_data, tile_data.tile)
        rest, of_stars = model.predict(estimate.restored), self.calibration.star_light(tile_data)
        # The image follows each exposure by its share.
        shares = (maps.weights * maps.used).sum(dim=(1, 2))
        of_psfs = psf_errors.chi_squares(rest + of_stars, owned * weights, stack, model)
        expected = errors.chi_square + (1.0 - shares / shares.sum()) * of_psfs
        deviation = rest.neg_().add_(stack.images).mul_(weights.sqrt())
        total = model.sampling.total
        residual = total(deviation * weights.sqrt()) * total(weights).clamp(min=1e-30).rsqrt()
        coadd = torch.where(seen, _coadd(model, stack.images + of_stars, weights, maps), torch.nan)
        faintest = BELIEVABLE_SIGNAL_TO_NOISE * model.crop(estimator.debiaser.flux_noise)
        own = {
            "mask": mask,
            "coadd": coadd,
            "residual": residual,
            "demanded_share": torch.where(no_data, torch.nan, demanded.share),
            "demanded_share_sigma": torch.where(no_data, torch.nan, demanded.sigma),
            "faintest_flux": torch.where(seen, faintest, torch.nan),
        }
        rows, columns = tile_data.tile.within
        outlier_exposures = self.calibration.dropped
        used = [k for k, t in enumerate(tile_data.exposures.tolist()) if t not in outlier_exposures]
        result = TileResult(
            tile=tile_data.tile,
            exposures=tile_data.exposures[used].numpy(),
            planes={
                name: _to_numpy(torch.where(no_data, torch.nan, plane)) for name, plane in blended.items()
            }
            | {name: _to_numpy(plane) for name, plane in own.items()},
            weights=_to_numpy((maps.weights * maps.used)[used, rows, columns]),
            rejected=_to_numpy(clipped[used, rows, columns]),
            deviations=_to_numpy((owned * deviation**2).sum(dim=(1, 2), dtype=torch.float64)[used]),
            expected=_to_numpy(expected.double()[used]),
            correlations={
                (i, j): local_noise.correlation(cell_rows, cell_columns)
                for i, j, cell_rows, cell_columns in self.layout.cells_of(tile_data.tile)
            },
            scalars={
                "sky_level": float(self.network.sky_level) * _sky_unit(estimator),
                "linear_penalty_weight": estimator.linear_penalty_weight,
                "linear_psf_residual": estimator.linear_psf_residual,
            },
        )
        return FinishedTile(
            result=result,
            errors=errors,
            linear_variance=variance_of_linear,
            star_noise=model.crop(estimator.debiaser.star_noise),
            seen=seen,
            image=blended["image"],
            stars=blended["image"] - model.crop(estimate.restored),
            extra_variance=blended["variance"] - variance_of_restored,
            noise_realizations=blended["noise_realizations"],
            no_data=no_data,
        )

    def _draw_psf_errors(self, errors: PsfErrorImages, tile_data: TileData, number: int) -> torch.Tensor:
        """Draw errors of the images from those of PSFs, (k, H, W)."""
        origin = tile_data.tile.rows.start, tile_data.tile.columns.start
        exposures = tile_data.exposures.tolist()
        draws = [errors.draw(self.seed, draw, exposures, origin) for draw in range(number)]
        return torch.stack(draws) if draws else errors.templates.new_zeros(0, *errors.shape)

    def _draw_noise(self, clean: CleanTile) -> Iterator[torch.Tensor]:
        """Draw noise of the exposures, the same for any tiles."""
        tile_data = clean.tile_data
        if tile_data.noise is not None:
            for draw in tile_data.noise:
                yield torch.nan_to_num(draw.to(tile_data.stack.device))
            return
        sigma = clean.variances.sqrt()
        shape = (sigma.shape[1], sigma.shape[2])
        exposures = tile_data.exposures.tolist()
        for draw in range(self.calibration.options.noise.num_draws):
            noise = [
                white_noise(self.seed, draw, t, origin, shape, sigma.device)
                for t, origin in zip(exposures, tile_data.origins, strict=True)
            ]
            yield torch.stack(noise).mul_(sigma)


def _require_finite(planes: dict[str, torch.Tensor], known: torch.Tensor, tile: Tile) -> None:
    for name, plane in planes.items():
        number = int((~torch.isfinite(plane) & known).sum())
        if number:
            raise RestorationError(
                f"{number} pixels of {name} in rows {tile.rows.start} to {tile.rows.stop} and columns "
                f"{tile.columns.start} to {tile.columns.stop} of the patch are not finite.",
                num_pixels=number,
            )


def _owned(tile_data: TileData) -> torch.Tensor:
    """Return whether pixels of exposures lie on pixels that the tile owns."""
    inside = torch.zeros(tile_data.tile.shape, device=tile_data.stack.device)
    inside[tile_data.tile.within] = 1.0
    return tile_data.model.sampling.look_up(inside)


def _coadd(
    model: ForwardModel, images: torch.Tensor, weights: torch.Tensor, maps: WeightMaps
) -> torch.Tensor:
    """Return the weighted mean of exposures on the patch."""
    # The interpolation kernel of the model also resamples onto the patch.
    light = _resampled(model, model.sampling.spread(weights * images).sum(dim=0))
    spread = torch.tensor([model.sampling.is_spread(t) for t in range(len(weights))], device=weights.device)
    total = maps.weights[~spread].sum(dim=0)
    if bool(spread.any()):
        # Resampling amplifies what is left of the pattern of large pixels, in
        # the weights as in the light.
        data = (weights * model.sampling.area)[spread]
        rough = _resampled(model, model.sampling.spread(data, spread.nonzero()[:, 0]).sum(dim=0))
        total += torch.maximum(rough, _LEAST_SHARE * maps.weights[spread].sum(dim=0))
    return light / total.clamp(min=1e-30)


def _resampled(model: ForwardModel, image: torch.Tensor) -> torch.Tensor:
    """Return the patch of an image that is multiplied with the prefilter."""
    return model.crop(model.inverse_transform(model.filtered(model.transform(image))))


def _sky_unit(estimator: Estimator) -> float:
    """Return the noise of the smoothest filter, the unit of the sky level."""
    penalty_weight = torch.tensor(estimator.network.penalty_weights[-1:])
    return float(estimator.linear.variances(penalty_weight).sqrt())


def _mask(seen: torch.Tensor, rejected: torch.Tensor, widest: float) -> torch.Tensor:
    """Return the mask.

    Holes up to twice the widest PSF, by morphological closing, are inpainted.
    """
    near = close_holes(seen, max(1, round(widest)))
    mask = torch.zeros(seen.shape, dtype=torch.uint8, device=seen.device)
    mask[~near] |= MaskBit.NO_DATA
    mask[near & ~seen] |= MaskBit.INPAINTED
    mask[rejected.any(dim=0)] |= MaskBit.CLIPPED
    return mask


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
