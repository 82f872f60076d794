# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Plan and defects of simulated exposures; arguments without sense."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lsst.astroclearnet.simulation import (
    FULL_WELL,
    ArtefactOptions,
    SurveyOptions,
    add_cosmic_rays,
    bleed,
    interpolate_rows,
    plan_visits,
    render_truth,
)


def test_bleeding_conserves_charge_along_columns() -> None:
    # Bleeds must run along y, and no charge appear from nowhere.
    electrons = np.full((61, 9), 100.0)
    electrons[30, 4] = 7.5 * FULL_WELL
    electrons[31, 4] = 2.0 * FULL_WELL
    before = electrons.copy()
    saturated = bleed(electrons)
    assert electrons.sum() == pytest.approx(before.sum(), rel=1e-12)
    assert electrons.max() == FULL_WELL
    changed = electrons != before
    assert np.flatnonzero(changed.any(axis=0)).tolist() == [4]
    # Nine and a half wells fill eight or nine pixels, and one at each end of
    # the run in part; all of them must be flagged, and one pixel around.
    rows = np.flatnonzero(electrons[:, 4] == FULL_WELL)
    assert len(rows) in (8, 9)
    assert rows.max() - rows.min() == len(rows) - 1
    assert abs(rows.mean() - 30.5) <= 1.0
    assert np.all(saturated[changed])
    assert saturated.sum() == 3 * (len(rows) + 2)


def test_bleeding_leaves_unsaturated_images_alone() -> None:
    electrons = np.linspace(0.0, 0.99 * FULL_WELL, 60).reshape(6, 10)
    before = electrons.copy()
    assert not bleed(electrons).any()
    np.testing.assert_array_equal(electrons, before)


def test_cosmic_rays_are_partly_flagged() -> None:
    # Unflagged ones are what robust restoration has to find by itself.
    options = dataclasses.replace(ArtefactOptions.none(), cosmic_rays=100.0, flagged_fraction=0.7)
    electrons = np.zeros((500, 700))
    flagged = add_cosmic_rays(electrons, options, np.random.default_rng(5))
    hit = electrons > 0.0
    assert 0.6 < flagged.sum() / hit.sum() < 0.8
    assert np.all(hit[flagged])
    # 350 tracks of about 7 pixels, each a little longer on the grid.
    assert 350 * 5 < hit.sum() < 350 * 12


def test_interpolation_bridges_flagged_pixels() -> None:
    # A linear ramp along x is restored exactly; a lost row stays.
    values = np.tile(np.arange(8.0), (3, 1))
    bad = np.zeros((3, 8), dtype=bool)
    bad[0, 3:5] = bad[1, 6] = True
    bad[2] = True
    broken = np.where(bad, 99.0, values)
    interpolate_rows(broken, bad)
    np.testing.assert_allclose(broken[:2], values[:2])
    assert np.all(broken[2] == 99.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("i", "u")}, "bands=.*must name at least one band"),
        ({"bands": ()}, "bands=.*must name at least one band"),
        ({"visits_per_band": 0}, "visits_per_band=0 must be finite and at least 1"),
        ({"num_psf_stars": 2}, "num_psf_stars=2 must be at least 3"),
        ({"detector_grid": (0, 2)}, "detector_grid=.*must be finite and at least 1"),
        ({"stars_per_patch": -5.0}, "stars_per_patch=-5.0 must be finite and at least 0"),
        ({"stars_per_patch": math.nan}, "stars_per_patch=nan must be finite"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"bands": ("i", "i")}, "each once"),
        ({"skymap": "../x"}, "name of the sky map is '../x'"),
        ({"star_magnitudes": (27.0, 16.0)}, "star_magnitudes=.*in order"),
        ({"seeing_arcsec": (0.7, 0.6, 0.9)}, "seeing_arcsec=.*smallest, median, largest"),
    ],
)
def test_senseless_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SurveyOptions(**changes)


def test_truth_needs_a_psf_and_fluxes() -> None:
    geometry = SurveyOptions().geometry.patch(0, 1)
    catalogue = Table({"flux_i": [1.0]})
    with pytest.raises(ValueError, match="psf_fwhm=0.0 must be a positive"):
        render_truth(catalogue, geometry, "i", psf_fwhm=0.0)
    with pytest.raises(ValueError, match="no fluxes in band 'z'"):
        render_truth(catalogue, geometry, "z", psf_fwhm=3.0)


def test_visits_obey_the_options() -> None:
    # Seeing, dithers and trails define how hard the survey is to restore.
    options = SurveyOptions(bands=("i", "r"), visits_per_band=3, dither_arcsec=4.0)
    visits = plan_visits(options)
    assert [visit.band for visit in visits] == ["r"] * 3 + ["i"] * 3
    assert len({visit.visit for visit in visits}) == 6
    low, _, high = options.seeing_arcsec
    assert all(low <= visit.seeing_arcsec <= high for visit in visits)
    center = SkyCoord(options.ra_deg, options.dec_deg, unit="deg")
    boresights = SkyCoord([v.ra_deg for v in visits], [v.dec_deg for v in visits], unit="deg")
    assert center.separation(boresights).arcsec.max() <= options.dither_arcsec * 1.001
    assert len({visit.rotation_deg for visit in visits}) == 6
    for band in options.bands:
        assert sum(v.trail is not None for v in visits if v.band == band) == 1
