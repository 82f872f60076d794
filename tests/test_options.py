# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Options refuse values that cannot be meant."""

from __future__ import annotations

import dataclasses

import pytest

from lsst.astroclearnet.core import (
    CalibrationOptions,
    DebiasingOptions,
    FitOptions,
    InputError,
    ModelOptions,
    NetworkOptions,
    NoiseOptions,
    RejectionOptions,
    RestorationError,
    RestoreOptions,
)


def test_defaults_are_valid_and_frozen() -> None:
    """If it fails, the defaults break, or can be changed from afar."""
    options = RestoreOptions()
    assert options == RestoreOptions(
        ModelOptions(),
        NetworkOptions(),
        DebiasingOptions(),
        FitOptions(),
        RejectionOptions(),
        CalibrationOptions(),
        NoiseOptions(),
    )
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'fit'"):
        options.fit = FitOptions(patience=2)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "changes", "rule"),
    [
        (NetworkOptions(), {"penalty_weights": (1e-3,)}, "at least two positive, rising"),
        (NetworkOptions(), {"penalty_weights": (0.0, 1e-3)}, "at least two positive, rising"),
        (NetworkOptions(), {"penalty_weights": (1e-2, 1e-2)}, "at least two positive, rising"),
        (NetworkOptions(), {"penalty_weights": (1e-4, 1e-2, 1e-3)}, "at least two positive, rising"),
        (NetworkOptions(), {"hidden_channels": 0}, "positive"),
        (DebiasingOptions(), {"faint_penalty_weight": 0.0}, "positive"),
        (DebiasingOptions(), {"star_signal_to_noise": -1.0}, "positive"),
        (DebiasingOptions(), {"max_psf_residual": 0.0}, "between 0 and 1"),
        (DebiasingOptions(), {"max_psf_residual": 1.0}, "between 0 and 1"),
        (FitOptions(), {"huber_delta": 0.0}, "positive"),
        (FitOptions(), {"learning_rate": -1e-3}, "positive"),
        (FitOptions(), {"num_folds": 1}, "at least 2"),
        (FitOptions(), {"sample_size": 31}, "at least 32"),
        (FitOptions(), {"num_samples": 0}, "positive"),
        (FitOptions(), {"patience": 0}, "positive"),
        (FitOptions(), {"max_epochs": 0}, "positive"),
        (RejectionOptions(), {"low_threshold": 0.0}, "at most high_threshold=5.0"),
        (RejectionOptions(), {"low_threshold": 6.0}, "at most high_threshold=5.0"),
        (RejectionOptions(), {"psf_tolerance": -0.1}, "non-negative"),
        (RejectionOptions(), {"shift_tolerance": -0.1}, "non-negative"),
        (RejectionOptions(), {"variability": -0.1}, "non-negative"),
        (RejectionOptions(), {"max_rounds": 0}, "positive"),
        (NoiseOptions(), {"num_draws": 0}, "positive"),
        (NoiseOptions(), {"num_realizations": -1}, "at least 0 and at most num_draws=6"),
        (NoiseOptions(), {"num_realizations": 7}, "at least 0 and at most num_draws=6"),
    ],
)
def test_refusals(
    options: NetworkOptions | DebiasingOptions | FitOptions | RejectionOptions | NoiseOptions,
    changes: dict[str, object],
    rule: str,
) -> None:
    """If it fails, nonsense settings run and give a nonsense image."""
    (name,) = changes
    with pytest.raises(InputError, match=f"Option {name}=.* must be .*{rule}") as caught:
        dataclasses.replace(options, **changes)  # type: ignore[arg-type]
    assert caught.value.diagnostics == {"option": name}


def test_limits_are_allowed() -> None:
    """If it fails, the documented limits themselves are refused."""
    assert RejectionOptions(low_threshold=5.0).low_threshold == 5.0
    assert FitOptions(num_folds=2, sample_size=32, num_samples=1, patience=1, max_epochs=1).num_folds == 2
    assert NoiseOptions(num_draws=1, num_realizations=0).num_draws == 1
    assert NoiseOptions(num_draws=2, num_realizations=2).num_realizations == 2


def test_errors_are_of_the_usual_kinds() -> None:
    """If it fails, callers cannot catch what the core raises on purpose."""
    error = InputError("Nothing fits.", exposure=3)
    assert isinstance(error, ValueError)
    assert isinstance(error, RestorationError)
    assert error.diagnostics == {"exposure": 3}
