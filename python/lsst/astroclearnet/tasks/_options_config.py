# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Configuration of the restoration, one class for each of its options."""

from __future__ import annotations

__all__ = (
    "CalibrationConfig",
    "DebiasingConfig",
    "FitConfig",
    "NetworkConfig",
    "NoiseConfig",
    "RejectionConfig",
    "RestorationConfig",
    "TilingConfig",
)

from lsst.pex.config import ChoiceField, Config, ConfigField, Field, ListField, RangeField

from ..core import (
    CalibrationOptions,
    DebiasingOptions,
    FitOptions,
    NetworkOptions,
    NoiseOptions,
    RejectionOptions,
    RestoreOptions,
    TilingOptions,
)


class NetworkConfig(Config):
    """Size of the network."""

    penalty_weights = ListField[float](
        doc="Regularisation strengths of the bank of depth-wise filters over the exposures, relative to the "
        "total weight, rising.",
        default=list(NetworkOptions.penalty_weights),
        minLength=2,
        itemCheck=lambda s: s > 0,
        listCheck=lambda items: list(items) == sorted(set(items)),
    )
    hidden_channels = RangeField(
        dtype=int, doc="Channels of each hidden layer.", default=NetworkOptions.hidden_channels, min=1
    )
    non_negative = Field[bool](
        doc="Keep the output of the network at or above its fitted sky level?",
        default=NetworkOptions.non_negative,
    )

    def make_options(self) -> NetworkOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.NetworkOptions`
            The same settings.
        """
        return NetworkOptions(
            penalty_weights=tuple(self.penalty_weights),
            hidden_channels=self.hidden_channels,
            non_negative=self.non_negative,
        )


class DebiasingConfig(Config):
    """How what the network left in the exposures is given back."""

    sky_penalty_weight = RangeField(
        dtype=float,
        doc="Strength of the penalty of the linear filter on blank sky; the smaller, the more of the light "
        "comes back, with its noise.",
        default=DebiasingOptions.sky_penalty_weight,
        min=0.0,
        inclusiveMin=False,
    )
    star_signal_to_noise = RangeField(
        dtype=float,
        doc="Signal-to-noise ratio of a star, by the brightness of its peak in the network's image, from "
        "which the strength falls with the square of the ratio.",
        default=DebiasingOptions.star_signal_to_noise,
        min=0.0,
        inclusiveMin=False,
    )
    max_psf_residual = RangeField(
        dtype=float,
        doc="Largest departure of the linear image of a star from the declared PSF, relative to the peak.",
        default=DebiasingOptions.max_psf_residual,
        min=0.0,
        max=1.0,
        inclusiveMin=False,
        inclusiveMax=False,
    )

    def make_options(self) -> DebiasingOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.DebiasingOptions`
            The same settings.
        """
        return DebiasingOptions(**self.toDict())


class FitConfig(Config):
    """How the network is fitted."""

    huber_delta = RangeField(
        dtype=float,
        doc="Residual (sigma) beyond which the likelihood turns from quadratic to linear.",
        default=FitOptions.huber_delta,
        min=0.0,
        inclusiveMin=False,
    )
    learning_rate = RangeField(
        dtype=float, doc="Step size of Adam.", default=FitOptions.learning_rate, min=0.0, inclusiveMin=False
    )
    num_folds = RangeField(
        dtype=int,
        doc="Into how many groups the exposures are dealt, each in turn held out of what the network sees.",
        default=FitOptions.num_folds,
        min=2,
    )
    sample_size = RangeField(
        dtype=int,
        doc="Side (pixels) of the windows of the patch that are fitted.",
        default=FitOptions.sample_size,
        min=32,
    )
    num_samples = RangeField(
        dtype=int,
        doc="Number of windows; a patch that is hardly larger than one is fitted whole.",
        default=FitOptions.num_samples,
        min=1,
    )
    patience = RangeField(
        dtype=int,
        doc="Epochs without a significant gain of the validation loss after which the fit has converged.",
        default=FitOptions.patience,
        min=1,
    )
    max_epochs = RangeField(
        dtype=int,
        doc="Upper bound on the number of epochs; reaching it is reported.",
        default=FitOptions.max_epochs,
        min=1,
    )

    def make_options(self) -> FitOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.FitOptions`
            The same settings.
        """
        return FitOptions(**self.toDict())


class RejectionConfig(Config):
    """How pixels that the other exposures contradict are rejected."""

    enabled = Field[bool](doc="Reject such pixels?", default=RejectionOptions.enabled)
    high_threshold = RangeField(
        dtype=float,
        doc="Deviation (sigma) that starts a rejected region.",
        default=RejectionOptions.high_threshold,
        min=0.0,
        inclusiveMin=False,
    )
    low_threshold = RangeField(
        dtype=float,
        doc="Deviation (sigma) down to which a region is grown.",
        default=RejectionOptions.low_threshold,
        min=0.0,
        inclusiveMin=False,
    )
    psf_tolerance = RangeField(
        dtype=float,
        doc="Standard deviation of the relative error of the width of a PSF in a single exposure.",
        default=RejectionOptions.psf_tolerance,
        min=0.0,
    )
    shift_tolerance = RangeField(
        dtype=float,
        doc="Standard deviation of the error of a position (pixels).",
        default=RejectionOptions.shift_tolerance,
        min=0.0,
    )
    variability = RangeField(
        dtype=float,
        doc="Standard deviation of the relative change of a source from exposure to exposure.",
        default=RejectionOptions.variability,
        min=0.0,
    )
    max_rounds = RangeField(
        dtype=int,
        doc="Largest number of rounds of prediction and rejection.",
        default=RejectionOptions.max_rounds,
        min=1,
    )

    def make_options(self) -> RejectionOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.RejectionOptions`
            The same settings.
        """
        return RejectionOptions(**self.toDict())

    def validate(self) -> None:
        super().validate()
        if self.low_threshold > self.high_threshold:
            raise ValueError(
                f"rejection.low_threshold={self.low_threshold} must not exceed "
                f"rejection.high_threshold={self.high_threshold}."
            )


class CalibrationConfig(Config):
    """What exposures must agree in, and what is done where they do not."""

    background = ChoiceField[str](
        doc="Differences of background between exposures that are measured and removed. What all exposures "
        "share cannot be told from the sky and stays.",
        allowed={
            "none": "None.",
            "constant": "A constant over the patch.",
            "plane": "A plane over the patch.",
        },
        default=CalibrationOptions.background,
    )
    max_flux_error = RangeField(
        dtype=float,
        doc="Relative departure of the flux scale of an exposure from the others beyond which it is dropped.",
        default=CalibrationOptions.max_flux_error,
        min=0.0,
        inclusiveMin=False,
    )
    max_shift = RangeField(
        dtype=float,
        doc="Distance (pixels of the patch) of the sources of an exposure from where the others have them "
        "beyond which it is dropped.",
        default=CalibrationOptions.max_shift,
        min=0.0,
        inclusiveMin=False,
    )
    correct = Field[bool](
        doc="Correct flux scale and position of the exposures that stay?", default=CalibrationOptions.correct
    )

    def make_options(self) -> CalibrationOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.CalibrationOptions`
            The same settings.
        """
        return CalibrationOptions(**self.toDict())


class NoiseConfig(Config):
    """What is recorded of the noise."""

    num_draws = RangeField(
        dtype=int,
        doc="Number of times that the restored sky is observed and restored again, from which the variances "
        "follow.",
        default=NoiseOptions.num_draws,
        min=1,
    )
    num_realizations = RangeField(
        dtype=int,
        doc="Number of the resulting error images that are stored with each coadd.",
        default=NoiseOptions.num_realizations,
        min=0,
    )

    def make_options(self) -> NoiseOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.NoiseOptions`
            The same settings.
        """
        return NoiseOptions(**self.toDict())

    def validate(self) -> None:
        super().validate()
        if self.num_realizations > self.num_draws:
            raise ValueError(
                f"noise.num_realizations={self.num_realizations} must not exceed "
                f"noise.num_draws={self.num_draws}."
            )


class TilingConfig(Config):
    """How much memory a patch may take; it is restored in tiles that fit."""

    max_host_memory = RangeField(
        dtype=float,
        doc="Memory of the process (GiB), that of the interpreter, its libraries and the restored planes "
        "included.",
        default=TilingOptions.max_host_memory,
        min=0.0,
        inclusiveMin=False,
    )
    max_device_memory = RangeField(
        dtype=float,
        doc="Memory of the process on a GPU (GiB). Processes that share a GPU do not run out of memory as "
        "long as their limits fit together.",
        default=TilingOptions.max_device_memory,
        min=0.0,
        inclusiveMin=False,
    )
    max_tile_size = RangeField(
        dtype=int,
        doc="Side of a tile (pixels) that is not exceeded, whatever the memory, unless a single cell with "
        "its surroundings is larger.",
        default=TilingOptions.max_tile_size,
        min=128,
    )

    def make_options(self) -> TilingOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.TilingOptions`
            The same settings.
        """
        return TilingOptions(**self.toDict())


class RestorationConfig(Config):
    """All settings of the restoration of a patch."""

    network = ConfigField[NetworkConfig](doc="Size of the network.")
    debiasing = ConfigField[DebiasingConfig](doc="How what the network left in the exposures is given back.")
    fit = ConfigField[FitConfig](doc="How the network is fitted.")
    rejection = ConfigField[RejectionConfig](doc="Rejection of pixels that the other exposures contradict.")
    calibration = ConfigField[CalibrationConfig](doc="What exposures must agree in.")
    noise = ConfigField[NoiseConfig](doc="What is recorded of the noise.")
    tiling = ConfigField[TilingConfig](doc="How much memory a patch may take.")

    def make_options(self) -> RestoreOptions:
        """Return the options of the core.

        Returns
        -------
        options : `lsst.astroclearnet.core.RestoreOptions`
            The same settings.
        """
        return RestoreOptions(
            network=self.network.make_options(),
            debiasing=self.debiasing.make_options(),
            fit=self.fit.make_options(),
            rejection=self.rejection.make_options(),
            calibration=self.calibration.make_options(),
            noise=self.noise.make_options(),
            tiling=self.tiling.make_options(),
        )
