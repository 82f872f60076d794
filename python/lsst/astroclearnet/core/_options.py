# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Options of the restoration: frozen, validated, with physical units."""

from __future__ import annotations

__all__ = (
    "BACKGROUND_MODELS",
    "CalibrationOptions",
    "DebiasingOptions",
    "FitOptions",
    "NetworkOptions",
    "NoiseOptions",
    "RejectionOptions",
    "RestoreOptions",
    "TilingOptions",
)

import dataclasses

from ._errors import InputError


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise InputError(f"Option {name}={value!r} must be {rule}.", option=name)


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """Size of the network.

    Attributes
    ----------
    penalty_weights
        Regularisation strengths of the bank of depth-wise filters over the
        exposures, relative to the total weight, rising.
    hidden_channels
        Channels of each hidden layer.
    non_negative
        Keep the output of the network at or above its fitted sky level.
    """

    penalty_weights: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    hidden_channels: int = 20
    non_negative: bool = True

    def __post_init__(self) -> None:
        _require(
            len(self.penalty_weights) > 1
            and self.penalty_weights[0] > 0
            and all(a < b for a, b in zip(self.penalty_weights, self.penalty_weights[1:], strict=False)),
            "penalty_weights",
            self.penalty_weights,
            "at least two positive, rising numbers",
        )
        _require(self.hidden_channels > 0, "hidden_channels", self.hidden_channels, "positive")


@dataclasses.dataclass(frozen=True)
class DebiasingOptions:
    """How what the network left in the exposures is given back.

    Attributes
    ----------
    sky_penalty_weight
        Strength of the penalty of the linear filter on blank sky; the
        smaller, the more of the light comes back, with its noise.
    star_signal_to_noise
        Signal-to-noise ratio of a star, by the brightness of its peak in the
        network's image, from which the strength falls with the square of the
        ratio, as for an error of the network in proportion to the brightness.
    max_psf_residual
        Largest departure of the linear image of a star from the declared PSF,
        relative to the peak.
    """

    sky_penalty_weight: float = 1.5
    star_signal_to_noise: float = 0.5
    max_psf_residual: float = 4e-3

    def __post_init__(self) -> None:
        for name in ("sky_penalty_weight", "star_signal_to_noise"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        _require(0 < self.max_psf_residual < 1, "max_psf_residual", self.max_psf_residual, "between 0 and 1")


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How the network is fitted.

    Attributes
    ----------
    huber_delta
        Residual, in sigma, beyond which the likelihood turns from quadratic
        to linear.
    learning_rate
        Step size of Adam.
    num_folds
        Into how many groups the exposures are dealt; each group in turn is
        held out of what the network sees and predicted by it.
    sample_size
        Side, in pixels, of the windows of the patch that are fitted.
    num_samples
        Number of windows; a patch that is hardly larger than one is fitted
        whole.
    patience
        Epochs without a significant gain of the validation loss after which
        the step size is cut, and in the end the fit has converged.
    max_epochs
        Upper bound on the number of epochs; reaching it is reported.
    """

    huber_delta: float = 3.0
    learning_rate: float = 5e-3
    num_folds: int = 4
    sample_size: int = 192
    num_samples: int = 2
    patience: int = 1
    max_epochs: int = 60

    def __post_init__(self) -> None:
        for name in ("huber_delta", "learning_rate"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        _require(self.num_folds > 1, "num_folds", self.num_folds, "at least 2")
        _require(self.sample_size >= 32, "sample_size", self.sample_size, "at least 32")
        for name in ("num_samples", "patience", "max_epochs"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")


@dataclasses.dataclass(frozen=True)
class RejectionOptions:
    """How pixels that the other exposures contradict are rejected.

    Attributes
    ----------
    enabled
        Whether to reject at all.
    high_threshold
        Deviation, in sigma, that starts a rejected region.
    low_threshold
        Deviation, in sigma, down to which a region is grown.
    psf_tolerance
        Standard deviation of the relative error of the width of a PSF in a
        single exposure, along any direction.
    shift_tolerance
        Standard deviation of the error of a position, in pixels.
    variability
        Standard deviation of the relative change of a source from exposure to
        exposure.
    max_rounds
        Largest number of rounds of prediction and rejection; they end as soon
        as hardly a pixel changes.
    """

    enabled: bool = True
    high_threshold: float = 5.0
    low_threshold: float = 2.5
    psf_tolerance: float = 0.03
    shift_tolerance: float = 0.1
    variability: float = 0.3
    max_rounds: int = 8

    def __post_init__(self) -> None:
        _require(
            0 < self.low_threshold <= self.high_threshold,
            "low_threshold",
            self.low_threshold,
            f"positive and at most high_threshold={self.high_threshold}",
        )
        for name in ("psf_tolerance", "shift_tolerance", "variability"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "non-negative")
        _require(self.max_rounds > 0, "max_rounds", self.max_rounds, "positive")


BACKGROUND_MODELS = ("none", "constant", "plane")
"""Differences of background between exposures that can be removed."""


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """What exposures must agree in, and what is done where they do not.

    Attributes
    ----------
    background
        Differences of background between exposures that are measured and
        removed: one of `BACKGROUND_MODELS`.
    max_flux_error
        Relative departure of the flux scale of an exposure from the others
        beyond which it is dropped, if three others agree and its stars
        confirm it.
    max_shift
        Distance of its sources from where the others have them, in pixels of
        the patch, beyond which it is dropped on the same conditions.
    correct
        Whether to correct flux scale and position of the exposures that stay.
    """

    background: str = "plane"
    max_flux_error: float = 0.1
    max_shift: float = 1.0
    correct: bool = False

    def __post_init__(self) -> None:
        _require(
            self.background in BACKGROUND_MODELS, "background", self.background, f"one of {BACKGROUND_MODELS}"
        )
        for name in ("max_flux_error", "max_shift"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")


@dataclasses.dataclass(frozen=True)
class NoiseOptions:
    """What is recorded of the noise.

    Attributes
    ----------
    num_draws
        Number of times that the restored sky is observed and restored again,
        from which the variances follow.
    num_realizations
        Number of the resulting errors that are kept.
    """

    num_draws: int = 6
    num_realizations: int = 2

    def __post_init__(self) -> None:
        _require(self.num_draws > 0, "num_draws", self.num_draws, "positive")
        _require(
            0 <= self.num_realizations <= self.num_draws,
            "num_realizations",
            self.num_realizations,
            f"at least 0 and at most num_draws={self.num_draws}",
        )


@dataclasses.dataclass(frozen=True)
class TilingOptions:
    """How much memory a patch may take; it is restored in tiles that fit.

    Attributes
    ----------
    max_host_memory
        Memory of the process in GiB, that of the interpreter, its libraries
        and the restored planes included.
    max_device_memory
        Memory of the process on a GPU in GiB.
    max_tile_size
        Side of a tile in pixels that is not exceeded, whatever the memory,
        unless a single cell with its surroundings is larger.
    """

    max_host_memory: float = 8.0
    max_device_memory: float = 12.0
    max_tile_size: int = 1024

    def __post_init__(self) -> None:
        for name in ("max_host_memory", "max_device_memory"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        _require(self.max_tile_size >= 128, "max_tile_size", self.max_tile_size, "at least 128")


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """All options of `restore`, by subject."""

    network: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    debiasing: DebiasingOptions = dataclasses.field(default_factory=DebiasingOptions)
    fit: FitOptions = dataclasses.field(default_factory=FitOptions)
    rejection: RejectionOptions = dataclasses.field(default_factory=RejectionOptions)
    calibration: CalibrationOptions = dataclasses.field(default_factory=CalibrationOptions)
    noise: NoiseOptions = dataclasses.field(default_factory=NoiseOptions)
    tiling: TilingOptions = dataclasses.field(default_factory=TilingOptions)
