# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of errors of PSFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astroclearnet_benchmarks.psf_errors.cases import make_field
from astroclearnet_benchmarks.psf_errors.command import main, measure_field


@pytest.mark.slow
def test_declared_errors_are_tabulated(tmp_path: Path) -> None:
    """If it fails, the record of declared errors cannot be made."""
    page = tmp_path / "psf_errors.md"
    words = ["--sections", "declared", "--scenes", "1", "--quick"]
    assert main([*words, "--output", str(page), "--work", str(tmp_path / "work")]) == 0
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    # A header, and two kinds of PSFs, two estimates of errors, two images.
    assert len(rows) == 9
    assert sum("noise alone" in row for row in rows) == 4


@pytest.mark.slow
def test_refinement_helps_one_wrong_exposure() -> None:
    """If it fails, the record says that refined PSFs are worse."""
    record = measure_field(make_field("one, +3 %", 3), ("off", "apply"))
    assert abs(record["apply"]["flux"]) < 0.5 * abs(record["off"]["flux"])
    assert np.isfinite(record["apply"]["systematic"])
