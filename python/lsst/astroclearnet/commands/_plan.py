# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Propose the target PSF of a campaign from the visit images it has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from astropy.table import Table, vstack
from rich.table import Table as RichTable

from ..core import (
    DebiasingOptions,
    gaussian_pair_limit,
    kernel_fwhm,
    linear_noise,
    linear_psf_residual,
    psf_fit_scatter,
    suggest_target_fwhm,
)
from ..metrics import seeing_of_kernel
from ._errors import CommandError
from ._patch_cost import typical_cost
from ._plan_sample import BandSample, CampaignSample, PatchStack
from ._tables import ARCSEC, make_table, number, text

_SHARE = 0.95
"""Share of the patches in which the noise keeps its bound."""

_FIRST_FWHM, _STEP = 2.0, 0.25
"""Sharpest target of a curve, and its step, in pixels."""

_DIGITS = 2
"""Digits of a proposed target in arcsec."""


@dataclasses.dataclass(frozen=True)
class BandPlan:
    """Proposed target PSF of a band, with FWHMs in arcsec.

    Attributes
    ----------
    target_fwhm
        Proposed FWHM of the target PSF.
    seeing
        Median full width at half maximum of the PSFs.
    effective_fwhm
        Median FWHM of Gaussians with the effective areas of the PSFs, the
        upper limit of targets.
    curve
        Cost of each target: ``band``; ``target_fwhm`` in arcsec and
        ``target_fwhm_pixels``; ``noise`` and ``noise_high``, the blank-sky
        rms of the linear restored coadd in sky sigma of the inverse-variance
        coadd, as the median of the patches and as their 95 % quantile;
        ``psf_residual``, of the image of a star from the target over the peak,
        95 % quantile; ``fit_scatter``, of fluxes from a plain PSF fit over the
        Cramer-Rao bound, and ``depth_loss``, the same in magnitudes;
        ``pair_limit``, the separation in arcsec at which a Gaussian PSF
        splits two equal stars; and ``proposed``, true in one row.
    """

    sample: BandSample
    target_fwhm: float
    seeing: float
    effective_fwhm: float
    curve: Table

    @property
    def noise(self) -> float:
        """Noise that 95 % of the patches keep at the proposed target."""
        return float(self.curve["noise_high"][self.curve["proposed"]][0])

    def option(self, task: str) -> str:
        """Return the option of ``pipetask run`` that sets the target PSF."""
        return f"-c {task}:target_fwhm={self.target_fwhm:.{_DIGITS}f}"


@dataclasses.dataclass(frozen=True)
class CampaignPlan:
    """Target PSFs of the bands, in order of wavelength."""

    bands: tuple[BandPlan, ...]
    skymap: str | None
    skipped: Mapping[str, int]  # number of unusable visit images by reason
    max_noise: float  # sky sigma of the inverse-variance coadd
    common: bool  # one target for all bands

    def table(self) -> Table:
        """Return the curves of all bands, with the rest as metadata."""
        table = vstack([plan.curve for plan in self.bands], metadata_conflicts="silent")
        table.meta = {
            "skymap": self.skymap,
            "max_noise": self.max_noise,
            "common": self.common,
            "skipped": dict(self.skipped),
            "bands": {
                plan.sample.band: {
                    "target_fwhm": plan.target_fwhm,
                    "seeing": plan.seeing,
                    "effective_fwhm": plan.effective_fwhm,
                    "num_exposures": plan.sample.num_exposures,
                    "num_patches": len(plan.sample.patches),
                }
                for plan in self.bands
            },
        }
        return table


def plan_campaign(sample: CampaignSample, *, max_noise: float = 2.0, common: bool = False) -> CampaignPlan:
    """Propose the FWHM of the target PSF of each band, or of all in common.

    It is the sharpest, between 2.5 pixels and the median effective FWHM, at
    which the linear restored coadd of at least 95 % of the patches keeps its
    blank-sky rms below ``max_noise`` sky sigma of the inverse-variance coadd
    and stars at the target PSF, rounded up to 0.01 arcsec.
    """
    if not max_noise > 0:
        raise CommandError(f"The bound on the noise, {max_noise}, must be positive.")
    targets = [_propose(band.patches, max_noise) for band in sample.bands]
    if common:
        targets = [max(targets)] * len(targets)
    bands = tuple(_plan_band(band, target) for band, target in zip(sample.bands, targets, strict=True))
    return CampaignPlan(bands, sample.skymap, sample.skipped, max_noise, common)


def plan_table(plan: CampaignPlan) -> RichTable:
    """Lay out the curves for a terminal."""
    return make_table(
        "Cost of the FWHM of the target PSF",
        [row for band in plan.bands for row in band.curve],
        {"band": text("band")},
        {
            f"FWHM\n({ARCSEC})": number("target_fwhm", 3),
            "\n(pixels)": number("target_fwhm_pixels", 2),
            "noise\n(median)": number("noise", 2),
            f"\n({100 * _SHARE:.0f} %)": number("noise_high", 2),
            "PSF residual\n(% of peak)": lambda row: f"{100 * row['psf_residual']:.2f}",
            "PSF fit\n(/bound)": number("fit_scatter", 2),
            "depth lost\n(mag)": number("depth_loss", 2),
            f"pairs\n({ARCSEC})": number("pair_limit", 2),
        },
        group=lambda row: row["band"],
        is_bold=lambda row: row["proposed"],
        caption="Noise: blank-sky rms of the linear restored coadd in units of the sky sigma of the "
        f"inverse-variance coadd; {100 * _SHARE:.0f} % of the patches are below the second value. "
        "PSF residual: largest difference of the image of a star from the target, over the peak, in as "
        f"many patches; above {100 * DebiasingOptions().max_psf_residual:g} % the target is too sharp for "
        "the exposures. PSF fit: scatter of the fluxes of faint stars from a plain PSF fit, over the "
        "Cramer-Rao bound, and the depth that this loses; a fit with the covariance of the noise loses "
        "nothing. Pairs: separation from which a Gaussian PSF splits equal stars. Bold: the proposed target.",
    )


def plan_lines(plan: CampaignPlan, task: str = "restoreCoadd") -> Iterator[str]:
    """Yield what the plan was made from, and at last the options of
    ``pipetask run`` for a task.
    """
    for band in plan.bands:
        sample = band.sample
        patches = f"{len(sample.patches)} of {sample.num_patches_found} patches"
        yield (
            f"Band {sample.band}: {sample.num_exposures} of {sample.num_exposures_found} visit images, "
            f"{patches if plan.skymap is not None else 'no sky map'}, "
            f"median seeing {band.seeing:.2f}{ARCSEC}, "
            f"noise {band.noise:.2f} at {band.target_fwhm:.{_DIGITS}f}{ARCSEC}"
        )
        if (cost := typical_cost([patch.cost for patch in sample.patches if patch.cost])) is not None:
            yield f"Band {sample.band}: {cost.text}."
        if band.noise > plan.max_noise:
            yield (
                f"Band {sample.band}: no target up to the median effective FWHM, "
                f"{band.effective_fwhm:.2f}{ARCSEC}, keeps the noise below the bound."
            )
    if plan.skipped:
        reasons = ", ".join(f"{number} {reason}" for reason, number in plan.skipped.items())
        yield f"Visit images left out: {reasons}"
    yield f"For a noise of at most {plan.max_noise:g}, give to pipetask run:"
    if plan.common:
        yield f"  {plan.bands[0].option(task)}"
        return
    skymap = "" if plan.skymap is None else f"skymap='{plan.skymap}' AND "
    for band in plan.bands:
        yield f"  {band.option(task)} -d \"{skymap}band='{band.sample.band}'\""


def _propose(patches: Sequence[PatchStack], max_noise: float) -> float:
    """Return the target in arcsec that nearly all patches can afford."""
    targets = [
        suggest_target_fwhm(patch.psfs, patch.levels, max_noise=max_noise, pixel_side=patch.side)
        * patch.pixel_scale
        for patch in patches
    ]
    target = float(np.quantile(targets, _SHARE, method="inverted_cdf"))
    # Without the rounding errors of the product with a power of ten.
    return math.ceil(round(target * 10**_DIGITS, 6)) / 10**_DIGITS


def _plan_band(sample: BandSample, target_fwhm: float) -> BandPlan:
    """Compute the curve of a band through the proposed target in arcsec."""
    patches = sample.patches
    scale = float(np.median([patch.pixel_scale for patch in patches]))
    seeing, effective = (
        float(np.median([width(psf) * patch.pixel_scale for patch in patches for psf in patch.psfs]))
        for width in (seeing_of_kernel, kernel_fwhm)
    )
    grid = np.arange(_FIRST_FWHM, effective / scale + 1e-9, _STEP) * scale
    rows = []
    for fwhm in sorted({*grid[np.abs(grid - target_fwhm) > 1e-6].tolist(), target_fwhm}):
        noise = [
            linear_noise(patch.psfs, patch.levels, fwhm / patch.pixel_scale, pixel_side=patch.side)
            for patch in patches
        ]
        residuals, scatters = (
            [cost(patch.psfs, patch.levels, fwhm / patch.pixel_scale) for patch in patches]
            for cost in (linear_psf_residual, psf_fit_scatter)
        )
        scatter = float(np.median(scatters))
        rows.append(
            {
                "band": sample.band,
                "target_fwhm": fwhm,
                "target_fwhm_pixels": fwhm / scale,
                "noise": float(np.median(noise)),
                "noise_high": float(np.quantile(noise, _SHARE, method="inverted_cdf")),
                "psf_residual": float(np.quantile(residuals, _SHARE, method="inverted_cdf")),
                "fit_scatter": scatter,
                "depth_loss": 2.5 * math.log10(scatter),
                "pair_limit": gaussian_pair_limit(fwhm),
                "proposed": fwhm == target_fwhm,
            }
        )
    return BandPlan(sample, target_fwhm, seeing, effective, Table(rows=rows))
