# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The colour-magnitude picture of the demonstration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from lsst.astroclearnet.commands._demonstration import _catalogue


class Shelf:
    """A Butler with two catalogues and their truth."""

    def __init__(self) -> None:
        inner = {"acn_isPatchInner": [True, True, False], "coord_dec": [0.0] * 3}
        bright = {
            "coord_ra": [10.0, 10.01, 10.02],
            "g_acn_psfFlux": [100.0] * 3,
            "i_acn_psfFlux": [900.0] * 3,
        }
        faint = {"coord_ra": [10.03, 10.04, 10.02], "g_acn_psfFlux": [10.0] * 3, "i_acn_psfFlux": [40.0] * 3}
        self.tables = {
            "restored_object_patch": [Table(inner | bright), Table(inner | faint)],
            "truth_catalogue": [
                Table(
                    {
                        # The second lies beside the first, which is brighter.
                        "ra": [10.0, 10.00003, 10.02, 10.03],
                        "dec": [0.0] * 4,
                        "flux_g": [100.0, 20.0, 90.0, 11.0],
                        "flux_i": [890.0, 50.0, 800.0, 42.0],
                        "kind": ["star", "star", "star", "galaxy"],
                    }
                )
            ],
        }

    def get(self, ref: tuple[str, int]) -> Table:
        return self.tables[ref[0]][ref[1]]


def test_brightest_true_source_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, sources are drawn beside the truth of others, or twice."""
    shelf: Any = Shelf()
    monkeypatch.setattr(
        _catalogue, "find_datasets", lambda butler, name: [(name, k) for k in range(len(butler.tables[name]))]
    )
    figure = _catalogue.color_magnitude_picture(shelf, ["g", "r", "i"])
    assert figure is not None
    stars, galaxies = figure.axes
    color = 2.5 * np.log10(8.9)
    np.testing.assert_allclose(
        np.asarray(stars.collections[0].get_offsets()), [[color, 31.4 - 2.5 * np.log10(890.0)]]
    )
    assert np.shape(galaxies.collections[0].get_offsets()) == (1, 2)
    assert _catalogue.color_magnitude_picture(shelf, ["i"]) is None
    shelf.tables["restored_object_patch"] = []
    assert _catalogue.color_magnitude_picture(shelf, ["g", "i"]) is None
