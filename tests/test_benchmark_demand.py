# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of demanded light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astroclearnet_benchmarks.demand import command, measure


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make scenes small."""
    monkeypatch.setattr(measure, "_SHAPE", (72, 72))


def test_doctored_stars_are_counted() -> None:
    """If it fails, the record does not say what it measured."""
    field = measure.make_field("blank", 3, num_exposures=3)
    invented, withheld = field.find_doctored(20.0, np.random.default_rng(0))
    assert len(invented.found) == len(invented.blank) > 4
    assert invented.found.all()
    assert withheld.found.all()
    assert not field.measure().withheld.any()


def test_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (command._Case("blank sky", "blank", num_exposures=2, psf_error=0.01),)
    monkeypatch.setattr(command, "_CASES", cases)
    page = tmp_path / "demand.md"
    assert command.main(["--seeds", "1", "--output", str(page)]) == 0
    text = page.read_text()
    assert "| blank sky |" in text
    assert "invented, S/N 12" in text
