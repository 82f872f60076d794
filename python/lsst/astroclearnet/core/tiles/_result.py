# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a restoration returns: images, errors, state of the exposures.

Each field is described here once.  Its metadata hold ``doc`` and, where they
apply, ``shape``, of a patch of H by W pixels and n exposures; ``dtype``;
``flux_power``, the power of the flux unit of the exposures that it has;
``unit``, if it is another; and ``tiles``, how the mosaic makes it of tiles.
"""

from __future__ import annotations

__all__ = ("FailedTile", "MaskBit", "RestorationResult", "StackResult")

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from ..estimate import FitHistory, SolveStatus
from ..noise import CellNoise

BELIEVABLE_SIGNAL_TO_NOISE = 8.0
"""Signal-to-noise ratio of a star from which some four fifths of its flux come
back in the restored image: 0.81 +- 0.04 were measured from 7 to 10."""

type Combination = Literal["blend", "own", "median", "max", "pixel median"]


class MaskBit(enum.IntFlag):
    """Bits of the mask of a restored image."""

    NO_DATA = 1
    """No exposure constrains the pixel; image and variance are NaN."""

    INPAINTED = 2
    """No exposure has a usable pixel here; the value comes from around.

    In the masked core of a bright star it is the star, fitted to its wings, at
    the target PSF.
    """

    CLIPPED = 4
    """At least one exposure was rejected here, as an outlier."""

    SUPPLIED = 8
    """Light stands out of ``image`` here, more than half of which the
    exposures do not demand: the network supplied it."""

    WITHHELD = 16
    """The exposures demand light here that ``image`` does not have."""


@dataclasses.dataclass(frozen=True)
class FailedTile:
    """A tile that could not be restored.

    Attributes
    ----------
    rows, columns
        Pixels of the patch that have no data for it.
    reason
        What went wrong.
    """

    rows: slice
    columns: slice
    reason: str


def _field(doc: str, shape: str = "", **about: Any) -> Any:
    """Return a field with its metadata."""
    metadata = {"doc": doc, "shape": shape, "dtype": "", "unit": "", "flux_power": 0, "tiles": None}
    return dataclasses.field(metadata=metadata | about)


def _image(doc: str, **about: Any) -> Any:
    return _field(doc, "H, W", dtype="float32", **about)


def _noise(doc: str) -> Any:
    return _field(doc, "k, H, W", dtype="float32", flux_power=1, tiles="blend")


@dataclasses.dataclass(frozen=True)
class RestorationResult:
    """A restored image, its errors, and the state of its exposures.

    Images are NaN where there is no data.  An offset that could not be
    measured is 0 with an infinite standard deviation.
    """

    image: np.ndarray = _image("The sky at the target PSF.", tiles="blend", flux_power=1)
    variance: np.ndarray = _image("Expected squared error of ``image``.", tiles="blend", flux_power=2)
    mask: np.ndarray = _field("`MaskBit` values.", "H, W", dtype="uint8", tiles="own")
    coadd: np.ndarray = _image(
        "Inverse-variance mean of the exposures at the PSF that this gives, for comparison; NaN where no "
        "exposure was used.",
        tiles="own",
        flux_power=1,
    )
    noise_realizations: np.ndarray = _noise(
        "Errors of ``image`` when the restored sky is observed and restored again."
    )
    linear_image: np.ndarray = _image(
        "``image`` plus a linear filter of the residuals of the exposures: the image to measure on, with "
        "the noise of the exposures.",
        tiles="blend",
        flux_power=1,
    )
    linear_variance: np.ndarray = _image("Variance of ``linear_image``.", tiles="blend", flux_power=2)
    linear_noise_realizations: np.ndarray = _noise("Errors of ``linear_image``, for the same noise.")
    linear_noise: CellNoise = _field(
        "Correlation of the noise of neighbouring pixels of ``linear_image``, by cell."
    )
    residual: np.ndarray = _image(
        "Mean residual of the exposures from the restored image convolved to their PSFs.",
        tiles="own",
        unit="its standard deviation",
    )
    demanded_share: np.ndarray = _image(
        "Share of the light that stands out from its surroundings in ``image`` that the exposures demand, "
        "by a matched filter; about 1 for what they saw, 0 for what the network supplied.  NaN where no "
        "light stands out by 3 sigma.",
        tiles="own",
    )
    demanded_share_sigma: np.ndarray = _image(
        "Standard deviation of ``demanded_share``; NaN also where no exposure constrains the light, and the "
        "share is 0.",
        tiles="own",
    )
    chi_square: np.ndarray = _field(
        "Reduced chi-square of each exposure under the restored image convolved to its PSF: the sum of "
        "squared residuals over that of pure noise after the same estimator, which accounts for the "
        "degrees of freedom of the image and for correlated noise.  NaN without pixels.",
        "n",
    )
    flux_error: np.ndarray = _field(
        "Relative offset of the fluxes of each exposure from the others; positive if brighter.", "n"
    )
    flux_sigma: np.ndarray = _field("Standard deviation of ``flux_error``.", "n")
    shift: np.ndarray = _field(
        "Offset of the sources of each exposure in row (y) and column (x) from the others.",
        "n, 2",
        unit="pixels",
    )
    shift_sigma: np.ndarray = _field("Standard deviation of ``shift``.", "n, 2", unit="pixels")
    psf_width_error: np.ndarray = _field(
        "Relative offset of the PSF width of each exposure from that used, compared with the others; "
        "positive if wider.",
        "n",
    )
    psf_width_sigma: np.ndarray = _field(
        "Standard deviation of ``psf_width_error``, from noise and from differences between sources.",
        "n",
    )
    psf_residual_scatter: np.ndarray = _field(
        "Standard deviations of what differs in each exposure where light has structure, beyond noise: "
        "light above its surroundings (relative), position along an axis (pixels), width of the PSF and "
        "its ellipticity (relative).  They are part of the variances and of the expected chi-square.",
        "n, 4",
    )
    psf_change: np.ndarray = _field(
        "Errors of the PSF given for each exposure, from the others: width, relative and positive if it is "
        "wider in the sky; shear along rows less columns, and along diagonals; and share of the light in "
        "wings of twice the width.  0 where not measured.",
        "n, 4",
    )
    psf_change_sigma: np.ndarray = _field(
        "Standard deviation of ``psf_change``; infinite where not measured.", "n, 4"
    )
    psf_refined: bool = _field("Whether PSFs were corrected by ``psf_change``.")
    psf_scatter: np.ndarray = _field(
        "Scatter of the errors of PSFs between exposures, as of ``psf_change``; NaN where not measured.", "4"
    )
    psf_shared_width: float = _field(
        "Relative offset of the width of stars that all exposures share, from the PSFs used; 0 where not "
        "measured."
    )
    psf_shared_width_sigma: float = _field(
        "Standard deviation of ``psf_shared_width``, from the scatter of stars; infinite without enough."
    )
    psf_shared_stars: int = _field("Number of stars that ``psf_shared_width`` was measured on.")
    psf_flux_error: float = _field(
        "Relative error of the flux of a star in ``linear_image``, fitted with the target PSF, from the "
        "errors of PSFs that were measured and not corrected."
    )
    psf_flux_systematic: float = _field(
        "Standard deviation of the relative error of all fluxes from errors of PSFs that are not measured, "
        "such as the mean of all exposures; NaN where PSFs were not compared."
    )
    background: np.ndarray = _field(
        "Background differences that were subtracted: level at the centre of the patch, and slopes per "
        "pixel along rows (y) and columns (x).",
        "n, 3",
        flux_power=1,
    )
    background_sigma: np.ndarray = _field(
        "Standard deviation of ``background`` from noise; infinite where nothing was measured.",
        "n, 3",
        flux_power=1,
    )
    sky_noise: np.ndarray = _field(
        "Variance measured on blank sky over the given one; NaN without enough of it.", "n"
    )
    sky_noise_sigma: np.ndarray = _field(
        "Standard deviation of ``sky_noise``; infinite where that is not measured.", "n"
    )
    variance_factor: np.ndarray = _field(
        "Smallest and largest factor applied to the variances of each exposure because blank sky shows "
        "them to be wrong; 1 where they were kept.",
        "n, 2",
    )
    weight_bias: np.ndarray = _field(
        "By how much a mean weighted with the given variances would have been too low because they "
        "follow the noise of their own pixels, which was removed; 0 where they do not.",
        "n",
        unit="sigma of a pixel",
    )
    variance_smoothed: np.ndarray = _field(
        "Whether such variances were replaced with medians of their neighbours.", "n", dtype="bool"
    )
    dropped: dict[int, str] = _field(
        "Why exposures were dropped as outliers, a slug and words, by their index."
    )
    suspect: dict[int, str] = _field(
        "Why exposures that were used may be outliers, which neither the others nor the photometry of "
        "stars prove, by their index."
    )
    star_position: np.ndarray = _field(
        "Row (y) and column (x) of the bright stars that were taken out of the exposures and put back at the "
        "target PSF, brightest first; they may lie off the patch.",
        "m, 2",
        unit="pixels",
    )
    star_position_sigma: np.ndarray = _field(
        "Standard deviation of ``star_position``.", "m, 2", unit="pixels"
    )
    star_flux: np.ndarray = _field(
        "Fluxes of these stars, fitted to all exposures outside of masked cores.", "m", flux_power=1
    )
    star_flux_sigma: np.ndarray = _field(
        "Standard deviation of ``star_flux``, from noise and from errors of the PSFs that differ from "
        "exposure to exposure.",
        "m",
        flux_power=1,
    )
    star_chi_square: np.ndarray = _field("Reduced chi-square of the fit of these stars.", "m")
    star_misfit: np.ndarray = _field(
        "What a point source leaves of the light of these stars where it is brightest, relative, root mean "
        "square.",
        "m",
    )
    target_fwhm: float = _field("FWHM of the circular Gaussian PSF of ``image``.", unit="pixels")
    sky_level: float = _field(
        "Level below which the network sees no light, the median over tiles.",
        flux_power=1,
        tiles="median",
    )
    faintest_flux: float = _field(
        "Faintest believable flux: that of a star of signal-to-noise ratio "
        f"{BELIEVABLE_SIGNAL_TO_NOISE:g}, the median over pixels that an exposure constrains.  ``image`` may "
        "keep less than four fifths of the flux of fainter ones.  NaN without such pixels.",
        flux_power=1,
        tiles="pixel median",
    )
    linear_penalty_weight: float = _field(
        "Penalty weight of the linear image, the median over tiles.", tiles="median"
    )
    linear_psf_residual: float = _field(
        "Largest residual of the linear image of a star from the target PSF, relative to the peak, at "
        "full weight in any tile.",
        tiles="max",
    )
    network: str = _field(
        "Identity of the trained network that made ``image``; ``fit`` for one fitted to the patch."
    )
    network_doubt: str = _field(
        "Why the trained network may not suit the exposures; empty if nothing speaks against it."
    )
    held_out_loss: float = _field(
        "Mean Huber loss of the network in a pixel of exposures that it does not see; NaN where none can be "
        "held out."
    )
    num_parameters: int = _field("Number of parameters of the network.")
    history: FitHistory = _field("Course of the fit, if there was one.")
    device: str = _field("Device that was used.")
    num_tiles: int = _field("Number of tiles that the patch was restored in.")
    failed_tiles: tuple[FailedTile, ...] = _field("Tiles that could not be restored; they have no data.")
    solves: dict[str, SolveStatus] = _field(
        "What the iterative solves reached, by kind, those of tiles repeated for want of memory included."
        " The fit of the network is in ``history``."
    )

    def reorder(self, order: Sequence[int] | np.ndarray) -> Self:
        """Return the same result for exposures in another order.

        Parameters
        ----------
        order
            Index in that order of each exposure of this result.

        Returns
        -------
        reordered
            The same result.
        """
        back = np.argsort(order)
        changes: dict[str, Any] = {
            f.name: getattr(self, f.name)[back] for f in dataclasses.fields(self) if _is_by_exposure(f)
        }
        for name in ("dropped", "suspect"):
            changes[name] = {int(order[t]): reason for t, reason in getattr(self, name).items()}
        return dataclasses.replace(self, **changes)

    def in_flux_unit(self, unit: float) -> Self:
        """Return the same result in another unit of flux.

        Parameters
        ----------
        unit
            The unit of this result in the other one.

        Returns
        -------
        converted
            The same result.
        """
        changes: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            if power := f.metadata["flux_power"]:
                value = np.asarray(getattr(self, f.name))
                # Squares of extreme units overflow single precision.
                changed = (value.astype(np.float64) * unit**power).astype(value.dtype)
                changes[f.name] = changed if value.ndim else float(changed)
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class StackResult(RestorationResult):
    """The restoration of a stack, with maps of each exposure."""

    weights: np.ndarray = _field(
        "Inverse variances given to the exposures, by pixel of the patch; 0 where one was not used.",
        "n, H, W",
        dtype="float32",
        flux_power=-2,
    )
    rejected: np.ndarray = _field(
        "Pixels of the patch with a usable pixel of the exposure that was rejected as an outlier.",
        "n, H, W",
        dtype="bool",
    )


def fields_by_tiles(*combinations: Combination) -> list[dataclasses.Field[Any]]:
    """Return the fields that the mosaic makes in certain ways.

    Parameters
    ----------
    *combinations
        ``"blend"``, ``"own"``, ``"median"``, ``"max"`` or ``"pixel median"``.

    Returns
    -------
    fields : `list` [`dataclasses.Field`]
        Fields of `RestorationResult`.
    """
    return [f for f in dataclasses.fields(RestorationResult) if f.metadata["tiles"] in combinations]


def _is_by_exposure(f: dataclasses.Field[Any]) -> bool:
    return str(f.metadata["shape"]).partition(",")[0] == "n"


def _describe(f: dataclasses.Field[Any]) -> str:
    """Return the entry of a field in the documentation."""
    about = f.metadata
    shape = f"Shape ({about['shape']}{'' if ',' in about['shape'] else ','})" if about["shape"] else ""
    unit = about["unit"]
    if about["flux_power"]:
        unit = (
            "flux of the exposures" + {1: "", 2: " squared", -2: " to the power of -2"}[about["flux_power"]]
        )
    facts = ", ".join(fact for fact in (shape, about["dtype"]) if fact)
    return f"{f.name}\n    {facts and facts + ': '}{about['doc']}{unit and f'  Unit: {unit}.'}"


for _class in (RestorationResult, StackResult):
    # The documentation shows what the fields say of themselves.
    _entries = [_describe(f) for f in dataclasses.fields(_class)]
    _class.__doc__ = "\n".join([f"{_class.__doc__}\n\nAttributes\n----------", *_entries])
