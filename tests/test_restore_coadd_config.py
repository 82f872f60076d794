# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The configuration of the task, its connections, and its warnings."""

from __future__ import annotations

from typing import Any

import pytest

from lsst.astroclearnet.core import RestoreOptions
from lsst.astroclearnet.tasks import (
    RestoreCoaddConfig,
    RestoreCoaddTask,
    list_warnings,
)
from lsst.pex.config import FieldValidationError
from lsst.pipe.base.testUtils import lintConnections


def make_config(**changes: Any) -> RestoreCoaddConfig:
    """Return a valid configuration."""
    config = RestoreCoaddConfig()
    for name, value in {"geometry_source": "dict", **changes}.items():
        setattr(config, name, value)
    config.validate()
    return config


GOOD_IMAGE: dict[str, float] = {
    "linear_psf_residual": 0.004,
    "psf_shared_width": 0.001,
    "psf_shared_width_sigma": 0.001,
    "psf_shared_stars": 20,
    "psf_flux_error": -0.0015,
}
GOOD_EXPOSURE = {
    "instrument": "TestCam",
    "visit": 3,
    "detector": 7,
    "psf_width_error": 0.001,
    "psf_consistent": True,
    "psf_change": [0.001, 0.0, 0.0, 0.0],
    "psf_change_sigma": [0.001, 0.001, 0.001, 0.003],
    "psf_refined": True,
    "used_fraction": 0.9,
    "chi_square": 1.1,
    "variance_factor_min": 1.0,
    "variance_factor_max": 1.0,
    "variance_smoothed": False,
    "flux_error": 0.001,
    "flux_sigma": 0.002,
    "shift": 0.001,
    "shift_sigma": 0.002,
    "weight_share": 0.3,
    "suspect_reason": "",
}


def test_warnings_are_put_in_words() -> None:
    metrics: dict[str, Any] = {
        "failed_tiles": [],
        "exposures": [GOOD_EXPOSURE] * 3,
        "image": GOOD_IMAGE,
        "network": {"source": "packaged", "identity": "0a1b", "doubt": ""},
        "solves": {"linear_estimate": {"num_solves": 9, "num_unconverged": 0, "max_residual": 0.9}},
    }
    assert list_warnings(metrics, 0.004) == []
    bad = {
        **GOOD_EXPOSURE,
        "psf_width_error": 0.03,
        "psf_consistent": False,
        "suspect_reason": "flux_scale: It is.",
    }
    narrow = {**GOOD_EXPOSURE, "psf_width_error": -0.02, "psf_consistent": False}
    unused = {**GOOD_EXPOSURE, "used_fraction": 0.0}
    metrics = {
        "failed_tiles": ["y 0 to 9: no"],
        "exposures": [bad, narrow, unused],
        "image": {**GOOD_IMAGE, "linear_psf_residual": 0.021},
        "network": {
            "source": "fit",
            "identity": "fit",
            "doubt": "there are 99 exposures",
            "converged": False,
            "num_epochs": 60,
            "stop_reason": "reached max_epochs=60",
        },
        "solves": {"linear_estimate": {"num_solves": 9, "num_unconverged": 2, "max_residual": 7.0}},
    }
    warnings = list_warnings(metrics, 0.004)
    suspect, wrong_psf, residual, solves, network, fit, tiles, number = warnings
    assert "2 of 9 (linear_estimate), the worst with 7 times the tolerance" in solves
    assert "A network was fitted to the patch, because" in network
    assert "there are 99 exposures." in network
    assert "reached max_epochs=60" in fit
    assert "could not be restored: y 0 to 9: no" in tiles
    assert (
        "TestCam visit 3, detector 7: wider by 3.0 %; TestCam visit 3, detector 7: narrower by 2.0 %."
        in wrong_psf
    )
    assert "TestCam visit 3, detector 7: flux_scale: It is." in suspect
    assert "by 2.1 % of their peak, more than 0.4 %" in residual
    assert "With 2 exposure(s)" in number


def test_warnings_name_errors_of_psfs() -> None:
    """If it fails, an error that all PSFs share is silent."""
    changed = {**GOOD_EXPOSURE, "visit": 8, "psf_change": [0.031, 0.0, 0.0, 0.0]}
    metrics: dict[str, Any] = {
        "failed_tiles": [],
        "exposures": [GOOD_EXPOSURE, GOOD_EXPOSURE, changed],
        "image": {**GOOD_IMAGE, "psf_shared_width": -0.03, "psf_flux_error": 0.048},
        "network": {"source": "packaged", "identity": "0a1b", "doubt": ""},
        "solves": {},
    }
    corrected, shared = list_warnings(metrics, 0.004)
    assert "were corrected: TestCam visit 8, detector 7: wider by 3.1 %." in corrected
    assert "stars are narrower by 3.0 % than they say (20 stars)" in shared
    assert "wrong by +4.8 %" in shared
    metrics |= {"image": GOOD_IMAGE, "exposures": [GOOD_EXPOSURE, {**changed, "psf_refined": False}] * 2}
    (wrong,) = list_warnings(metrics, 0.004)
    assert "do not fit their stars: TestCam visit 8, detector 7: wider by 3.1 %;" in wrong


def test_warnings_name_variances() -> None:
    """If it fails, nobody learns that variances are not those given."""
    rescaled = {**GOOD_EXPOSURE, "visit": 8, "variance_factor_max": 25.0}
    smoothed = {**GOOD_EXPOSURE, "visit": 9, "variance_smoothed": True}
    metrics = {
        "failed_tiles": [],
        "exposures": [GOOD_EXPOSURE, rescaled, smoothed],
        "image": GOOD_IMAGE,
        "network": {"source": "dataset", "identity": "0a1b", "doubt": ""},
        "solves": {},
    }
    wrong, followed = list_warnings(metrics, 0.004)
    assert "visit 8, detector 7: multiplied by 1.00 to 25.00" in wrong
    assert "visit 9" not in wrong
    assert "visit 9, detector 7" in followed


def test_seed_follows_from_the_patch_and_the_offset() -> None:
    # Two patches must not share their random numbers; a rerun must.
    seeds = {
        RestoreCoaddTask(config=make_config(seed_offset=offset)).make_seed(name)
        for offset in (0, 1)
        for name in ("a", "b", "a")
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("source", ["skymap", "coadd", "dict"])
def test_connections_follow_the_geometry_source(source: str) -> None:
    config = make_config(geometry_source=source)
    connections = config.connections.ConnectionsClass(config=config)
    names = {"skymap": "skymap", "coadd": "reference_coadd", "dict": "skymap_geometry"}
    assert connections.inputs == {"visit_images", names[source]}
    linear = {"restored_coadd_linear", "restored_coadd_linear_noise"}
    others = {f"restored_coadd{name}" for name in ("", "_demand", "_metrics", "_plot")}
    assert connections.outputs == linear | others
    lintConnections(config.connections.ConnectionsClass)
    config.do_plot = False
    without = config.connections.ConnectionsClass(config=config)
    assert "restored_coadd_plot" not in without.outputs
    config.do_linear = False
    assert not linear & config.connections.ConnectionsClass(config=config).outputs


def test_config_mirrors_the_options_of_the_core() -> None:
    # One truth: names and defaults of configuration and core must agree.
    assert RestoreCoaddConfig().restoration.make_options() == RestoreOptions()


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("geometry_source", "guess"),
        ("target_fwhm", -0.5),
        ("device", "abacus"),
        ("device", "cuda:first"),
        ("cell_size", 1),
        ("max_noise", 0.0),
    ],
)
def test_bad_configuration_names_the_field(field_name: str, value: object) -> None:
    config = RestoreCoaddConfig()
    with pytest.raises(FieldValidationError, match=field_name):
        setattr(config, field_name, value)


def test_unknown_mask_plane_is_refused() -> None:
    # A misspelt plane would let its pixels in.
    config = RestoreCoaddConfig()
    config.preparation.mask_planes["SATURTED"] = "exclude"
    with pytest.raises(FieldValidationError, match="SATURTED"):
        config.validate()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("fit", "num_folds", 1),
        ("fit", "learning_rate", 0.0),
        ("noise", "num_draws", 0),
        ("noise", "num_realizations", -1),
        ("debiasing", "faint_penalty_weight", 0.0),
        ("debiasing", "star_signal_to_noise", -1.0),
        ("debiasing", "max_psf_residual", 1.0),
        ("network", "hidden_channels", 0),
        ("network", "penalty_weights", [1e-2, 1e-3]),
        ("rejection", "max_rounds", 0),
    ],
)
def test_bad_restoration_configuration_names_the_field(part: str, name: str, value: object) -> None:
    config = RestoreCoaddConfig()

    def configure() -> None:
        setattr(getattr(config.restoration, part), name, value)
        config.validate()

    with pytest.raises(FieldValidationError, match=name):
        configure()


def test_thresholds_are_checked_together() -> None:
    config = RestoreCoaddConfig()
    config.restoration.rejection.low_threshold = 9.0
    with pytest.raises(ValueError, match="rejection.low_threshold=9.0"):
        config.validate()


def test_realizations_are_some_of_the_draws() -> None:
    config = RestoreCoaddConfig()
    config.restoration.noise.num_draws = 1
    with pytest.raises(ValueError, match="noise.num_realizations=2 must not exceed noise.num_draws=1"):
        config.validate()
