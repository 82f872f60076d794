# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Options of the restoration: frozen, validated, with physical units.

Each option is written here once.  The metadata of its field hold ``doc`` and,
where they apply, ``unit``; the limits ``minimum`` (allowed), ``above`` and
``below`` (not allowed); ``at_most``, the name of the option it must not
exceed; ``choices``, their meaning by name; and ``rising``, for several
numbers.  The configuration of the task is made of the same metadata.
"""

from __future__ import annotations

__all__ = (
    "CalibrationOptions",
    "DebiasingOptions",
    "FitOptions",
    "ModelOptions",
    "NetworkOptions",
    "NoiseOptions",
    "RejectionOptions",
    "RestoreOptions",
    "StarOptions",
    "TilingOptions",
    "TrainingOptions",
)

import dataclasses
from collections.abc import Mapping
from typing import Any

from ._errors import InputError


def _option(default: Any, doc: str, **metadata: Any) -> Any:
    """Return a field of options."""
    return dataclasses.field(default=default, metadata={"doc": doc, **metadata})


class _Options:
    """Options that are checked against the metadata of their fields."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, limits = getattr(self, field.name), field.metadata
            other = limits.get("at_most")
            is_allowed = all(_is_allowed(each, limits) for each in _each(value))
            if limits.get("rising"):
                is_allowed &= len(value) > 1 and all(a < b for a, b in zip(value, value[1:], strict=False))
            if other is not None:
                is_allowed &= value <= getattr(self, other)
            if not is_allowed:
                rule = _describe_limits(limits)
                if other is not None:
                    rule = f"{rule} and at most {other}={getattr(self, other)}"
                message = f"Option {field.name}={value!r} must be {rule}."
                raise InputError(message, option=field.name)


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _is_allowed(value: Any, limits: Mapping[str, Any]) -> bool:
    """Tell whether a single value keeps the limits."""
    return (
        ("choices" not in limits or value in limits["choices"])
        and ("minimum" not in limits or value >= limits["minimum"])
        and ("above" not in limits or value > limits["above"])
        and ("below" not in limits or value < limits["below"])
    )


def _describe_limits(limits: Mapping[str, Any]) -> str:
    """Say which values are allowed, after "must be"."""
    if "choices" in limits:
        return f"one of {tuple(limits['choices'])}"
    if limits.get("rising"):
        return "at least two positive, rising numbers"
    if "below" in limits:
        return f"between {limits['above']:g} and {limits['below']:g}"
    if limits.get("above") == 0 or limits.get("minimum") == 1:
        return "positive"
    if limits["minimum"] == 0 and "at_most" not in limits:
        return "non-negative"
    return f"at least {limits['minimum']}"


@dataclasses.dataclass(frozen=True)
class ModelOptions(_Options):
    """Which network restores the image."""

    source: str = _option(
        "packaged",
        "Where the network comes from.",
        choices={
            "packaged": "Trained on simulations; it comes with the package.",
            "dataset": "Trained on a survey; it is given.",
            "fit": "A small one is fitted to each patch.",
        },
    )
    unsuitable: str = _option(
        "flag",
        "What to do where exposures are beyond the conditions that a trained network has seen, or where it "
        "predicts held-out exposures noticeably worse than the linear filters that a fit starts from.",
        choices={
            "fail": "Refuse the patch.",
            "flag": "Use it, and say so.",
            "fit": "Fit a small network to the patch instead.",
        },
    )


@dataclasses.dataclass(frozen=True)
class NetworkOptions(_Options):
    """Size of the network that is fitted to a patch."""

    penalty_weights: tuple[float, ...] = _option(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        "Penalty weights of the bank of depth-wise filters over the exposures, relative to the total weight, "
        "rising.",
        above=0.0,
        rising=True,
    )
    hidden_channels: int = _option(20, "Channels of each hidden layer.", minimum=1)
    non_negative: bool = _option(True, "Keep the output of the network at or above its fitted sky level?")


@dataclasses.dataclass(frozen=True)
class DebiasingOptions(_Options):
    """Linear correction of the network's image, from the residuals."""

    faint_penalty_weight: float = _option(
        1.5,
        "Penalty weight of the linear filter for extended light as bright as ``star_signal_to_noise``; the "
        "smaller, the more of faint light is recovered, with its noise.  Where the network shows no light, "
        "only scales above 24 pixels are corrected.",
        above=0.0,
    )
    star_signal_to_noise: float = _option(
        0.35,
        "Signal-to-noise ratio of a star, by the brightness of its peak in the network's image, around which "
        "the penalty weight falls with the square of the ratio, as for an error of the network in proportion "
        "to the brightness.",
        above=0.0,
    )
    max_psf_residual: float = _option(
        4e-3,
        "Largest residual of the linear image of a star from the declared PSF, relative to the peak.",
        above=0.0,
        below=1.0,
    )


@dataclasses.dataclass(frozen=True)
class FitOptions(_Options):
    """How a network is fitted to a patch, and a trained one is checked."""

    huber_delta: float = _option(
        3.0,
        "Residual beyond which the likelihood turns from quadratic to linear.",
        unit="sigma",
        above=0.0,
    )
    learning_rate: float = _option(5e-3, "Step size of Adam.", above=0.0)
    num_folds: int = _option(
        4,
        "Number of groups of exposures; each in turn is held out of what the network sees, and predicted.",
        minimum=2,
    )
    sample_size: int = _option(
        192, "Side of the samples of the patch that are fitted.", unit="pixels", minimum=32
    )
    num_samples: int = _option(2, "Number of samples; a patch of less than two is fitted whole.", minimum=1)
    patience: int = _option(
        1,
        "Epochs without a significant gain of the validation loss after which the step size is reduced, and "
        "in the end the fit has converged.",
        minimum=1,
    )
    max_epochs: int = _option(60, "Upper bound on the number of epochs; reaching it is reported.", minimum=1)


@dataclasses.dataclass(frozen=True)
class TrainingOptions(_Options):
    """How a restoration network is trained."""

    num_steps: int = _option(40000, "Number of steps.", minimum=1)
    batch_size: int = _option(1, "Number of samples in a step.", minimum=1)
    learning_rate: float = _option(2e-3, "Largest step size of AdamW.", above=0.0)
    weight_decay: float = _option(1e-2, "Weight decay of AdamW.", minimum=0.0)
    huber_delta: float = _option(
        3.0,
        "Residual beyond which the likelihood turns from quadratic to linear.",
        unit="sigma",
        above=0.0,
    )
    detail_weight: float = _option(
        8.0,
        "Weight, in the loss, of the detail of the residuals of held-out exposures: the residuals less a "
        "smoothed copy.",
        minimum=0.0,
    )
    detail_fwhm: float = _option(
        3.0,
        "FWHM of the Gaussian that smooths the residuals for ``detail_weight``.",
        unit="pixels",
        above=0.0,
    )
    tile_size: int = _option(
        320, "Side of the tiles of a patch that samples are taken from.", unit="pixels", minimum=64
    )
    tiles_per_patch: int = _option(4, "Largest number of such tiles of a patch.", minimum=1)
    light_error: float = _option(
        0.03,
        "Error of held-out exposures relative to their light, from PSFs that are not exact, beside their "
        "noise: without it a few bright stars decide what is learned.",
        minimum=0.0,
    )
    crop_size: int = _option(160, "Side of the crops that the network sees.", unit="pixels", minimum=64)
    num_splits: int = _option(4, "Times that exposures of a tile are held out at random.", minimum=1)
    seen_fraction: tuple[float, float] = _option(
        (0.5, 0.83), "Least and largest share of the exposures that the network sees.", above=0.0, rising=True
    )
    max_held_out: int = _option(8, "Largest number of held-out exposures that a crop predicts.", minimum=1)


@dataclasses.dataclass(frozen=True)
class RejectionOptions(_Options):
    """Rejection of pixels that are outliers among the exposures."""

    enabled: bool = _option(True, "Reject such pixels?")
    high_threshold: float = _option(
        5.0, "Deviation that starts a group of rejected pixels.", unit="sigma", above=0.0
    )
    low_threshold: float = _option(
        2.5, "Deviation down to which a group is grown.", unit="sigma", above=0.0, at_most="high_threshold"
    )
    psf_tolerance: float = _option(
        0.03,
        "Standard deviation of the relative error of the width of a PSF in a single exposure, along any "
        "direction.",
        minimum=0.0,
    )
    shift_tolerance: float = _option(
        0.1, "Standard deviation of the error of a position.", unit="pixels", minimum=0.0
    )
    variability: float = _option(
        0.3,
        "Standard deviation of the relative change of a source from exposure to exposure.",
        minimum=0.0,
    )
    max_rounds: int = _option(
        8,
        "Largest number of rounds of prediction and rejection; they end as soon as hardly a pixel changes.",
        minimum=1,
    )


@dataclasses.dataclass(frozen=True)
class CalibrationOptions(_Options):
    """Relative calibration of the exposures, and limits on its errors."""

    background: str = _option(
        "plane",
        "Differences of background between exposures that are measured and removed. What all exposures "
        "share cannot be told from the sky and stays.",
        choices={
            "none": "None.",
            "constant": "A constant over the patch.",
            "plane": "A plane over the patch.",
        },
    )
    psf_refinement: str = _option(
        "report",
        "Errors of the PSFs of single exposures (width, ellipticity, wings) that are measured against the "
        "others.",
        choices={
            "off": "Not measured.",
            "report": "Reported, with what they do to fluxes.",
            "apply": "Corrected; what all exposures share is reported.",
            "stars": "Corrected, and what all share as well, as far as stars show it.",
        },
    )
    psf_error: float = _option(
        0.01,
        "Scale of the relative errors of PSFs that is assumed before they are compared; their distribution "
        "has long tails, and a standard deviation 1.4 times as large. Their scatter replaces it where there "
        "are enough stars.",
        above=0.0,
    )
    max_flux_error: float = _option(
        0.1,
        "Relative offset of the flux scale of an exposure from the others beyond which it is dropped, if "
        "three others agree and its stars confirm it.",
        above=0.0,
    )
    max_shift: float = _option(
        1.0,
        "Distance of the sources of an exposure from where the others have them beyond which it is dropped, "
        "on the same conditions.",
        unit="pixels of the patch",
        above=0.0,
    )


@dataclasses.dataclass(frozen=True)
class StarOptions(_Options):
    """Bright stars, fitted as point sources, taken out and put back."""

    enabled: bool = _option(True, "Take them out of the exposures?")
    signal_to_noise: float = _option(
        300.0,
        "Signal-to-noise ratio of the flux from which on a star is taken out; a third of it where its core "
        "is masked in most exposures.",
        above=0.0,
    )
    max_misfit: float = _option(
        0.03,
        "What a point source may leave of the light where it is brightest, relative, root mean square: a "
        "source that leaves more is not a point, and stays.",
        above=0.0,
        below=1.0,
    )


@dataclasses.dataclass(frozen=True)
class NoiseOptions(_Options):
    """What is recorded of the noise."""

    num_draws: int = _option(
        6,
        "Number of times that the restored sky is observed and restored again, from which the variances "
        "follow, together with the errors of pixels that are as bright.",
        minimum=1,
    )
    num_realizations: int = _option(
        2,
        "Number of the resulting error images that are kept with each coadd.",
        minimum=0,
        at_most="num_draws",
    )


@dataclasses.dataclass(frozen=True)
class TilingOptions(_Options):
    """How much memory a patch may take; it is restored in tiles that fit."""

    max_host_memory: float = _option(
        8.0,
        "Memory of the process, that of the interpreter, its libraries and the restored planes included.",
        unit="GiB",
        above=0.0,
    )
    max_device_memory: float = _option(
        12.0,
        "Memory of the process on a GPU. Processes that share a GPU do not run out of memory as long as "
        "their limits fit together.",
        unit="GiB",
        above=0.0,
    )
    max_tile_size: int = _option(
        1024,
        "Side of a tile that is not exceeded, whatever the memory, unless a single cell with its "
        "surroundings is larger.",
        unit="pixels",
        minimum=128,
    )


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """All options of `restore`, by subject."""

    model: ModelOptions = dataclasses.field(default_factory=ModelOptions)
    network: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    debiasing: DebiasingOptions = dataclasses.field(default_factory=DebiasingOptions)
    fit: FitOptions = dataclasses.field(default_factory=FitOptions)
    rejection: RejectionOptions = dataclasses.field(default_factory=RejectionOptions)
    calibration: CalibrationOptions = dataclasses.field(default_factory=CalibrationOptions)
    noise: NoiseOptions = dataclasses.field(default_factory=NoiseOptions)
    tiling: TilingOptions = dataclasses.field(default_factory=TilingOptions)
    stars: StarOptions = dataclasses.field(default_factory=StarOptions)


for _class in _Options.__subclasses__():
    # The documentation shows what the fields say of themselves.
    _entries = [
        f"{field.name}\n    {field.metadata['doc']}"
        + (f" Unit: {field.metadata['unit']}." if "unit" in field.metadata else "")
        for field in dataclasses.fields(_class)  # type: ignore[arg-type]
    ]
    _class.__doc__ = "\n".join([f"{_class.__doc__}\n\nAttributes\n----------", *_entries])
