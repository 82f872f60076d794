# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The tables of the benchmark of bright stars."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astroclearnet_benchmarks.stars import command, measure
from astroclearnet_benchmarks.stars.fields import BrightStar


def star(magnitude: float, ring: list[float], *, flux: float = 1000.0) -> dict[str, Any]:
    """Return the record of a star with the same errors in all rings."""
    rings = {f"{low:g}": ring for low, _ in measure.RINGS} | {"middle": ring, "core": ring}
    return {
        "magnitude": magnitude,
        "flux": 1000.0,
        "found": True,
        "fitted_flux": flux,
        "flux_sigma": 10.0,
        "image": rings,
        "linear_image": rings,
    }


def test_distance_is_from_the_flagged_core_and_its_trail() -> None:
    """If it fails, rings include flagged pixels, or begin elsewhere."""
    flagged = np.zeros((40, 40), dtype=bool)
    flagged[15:26, 20] = flagged[19:22, 19:22] = flagged[:, 35] = True
    one = BrightStar(20.0, 20.0, 15.0, 1.0, np.ones(3, dtype=bool))
    distance, own = measure._distances(one, flagged)
    assert own.sum() == 11 + 6
    assert distance[20, 25] == pytest.approx(4.0)
    assert distance[10, 20] == pytest.approx(5.0)
    far = BrightStar(20.0, 8.0, 19.0, 1.0, np.zeros(3, dtype=bool))
    distance, own = measure._distances(far, flagged)
    assert not own.any()
    assert distance[20, 11] == pytest.approx(3.0)


def test_tables_pool_stars_and_fields(tmp_path: Path) -> None:
    """If it fails, the record shows other figures than were measured."""
    options = argparse.Namespace(work=tmp_path, fields=2, left_in=0)
    for seed, (mean, square, flux) in enumerate([(0.1, 1.0, 1020.0), (0.3, 4.0, 980.0)]):
        stars = [star(15.0, [10.0, mean, square], flux=flux), star(19.0, [30.0, 0.0, 1.0])]
        far = {name: [50.0, 0.01, 1.0] for name in ("image", "linear_image")}
        record = {"stars": stars, "far": far, "chi_square": 1.0 + seed, "false": seed}
        command._path(options, seed, "exact", True).write_text(json.dumps(record))
    records = command._read(options)
    rings = command._ring_table(records, "image").rows
    assert [row["stars"] for row in rings] == ["14-16, saturated", "S/N > 1000"]
    assert rings[0]["2-4"] == "0.20 ± 0.10"
    (summary,) = command._summary_table(records).rows
    assert summary["restored: pull, 14-16, saturated"].startswith("1.58")
    assert summary["restored: pull, S/N > 1000"].startswith("1")
    assert summary["largest chi-square"] == "1.50"
    fluxes = command._flux_table(records).rows
    assert fluxes[0]["pull"] == "2.00"
    assert fluxes[0]["largest error, %"] == "2.00"
    assert fluxes[0]["sources taken out in vain"] == "1"
