# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of catalogues, on tiny scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astroclearnet_benchmarks.objects import command, measure


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make scenes small."""
    monkeypatch.setattr(measure, "_SHAPE", (72, 72))
    for module in (measure, command):
        monkeypatch.setattr(module, "THRESHOLDS", (5.0,))


@pytest.mark.slow
def test_page_is_written(tmp_path: Path) -> None:
    """If it fails, the record cannot be made, or lacks a method."""
    page, work = tmp_path / "objects.md", tmp_path / "work"
    assert command.main(["--scenes", "1", "--output", str(page), "--work", str(work)]) == 0
    text = page.read_text()
    for method in measure.METHODS:
        assert text.count(f"| {method} (5 sigma") == 4 + 3
    assert len(list(work.iterdir())) == 2


def test_thresholds_are_compared_at_equal_purity(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, one method is measured with more false detections than
    another.
    """
    monkeypatch.setattr(command, "THRESHOLDS", (3.0, 5.0, 8.0))
    stars = [[100.0, 10.0, True, np.nan]] * 3
    found, lost = [99.0, 10.0], [np.nan, np.nan]
    catalogues = {
        "3": {"number": 4, "found": [found] * 3},
        "5": {"number": 2, "found": [found, found, lost]},
        "8": {"number": 1, "found": [found, lost, lost]},
    }
    records = [{"stars": stars, "restored": catalogues}]
    threshold, purity, _, values = command._at_purity(records, "restored")
    assert (threshold, purity) == (5.0, 1.0)
    assert np.isfinite(values[:, 0]).sum() == 2
    # Where none is pure, the purest.
    catalogues["5"]["number"], catalogues["8"]["number"] = 4, 3
    assert command._at_purity(records, "restored")[:2] == (3.0, 0.75)
