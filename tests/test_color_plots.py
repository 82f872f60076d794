# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures of colours: what is red, green and blue, and where."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.astroclearnet.plots import (
    ColorStretch,
    color_channels,
    color_comparison_figure,
    color_magnitude_figure,
    color_picture,
    color_stretch,
)

SHAPE = (60, 84)


def test_colors_follow_the_ratios_of_the_bands() -> None:
    """If it fails, a red source looks blue, or colours change with flux."""
    red = np.zeros(SHAPE)
    red[10, 10], red[10, 20], red[40, 30] = 4.0, 40.0, np.nan
    planes = [red, 0.5 * red, 0.25 * red]
    picture = color_picture(planes, ColorStretch((1.0, 1.0, 2.0), 0.0, 20.0))
    assert picture.dtype == np.uint8
    for column in (10, 20):
        one, two, three = (int(value) for value in picture[10, column])
        # Blue has half the flux, and twice the factor, as green.
        assert one > two == three > 0
        assert two == pytest.approx(0.5 * one, abs=1.5)
    assert picture[10, 20].max() > picture[10, 10].max()
    assert len(set(picture[40, 30].tolist())) == 1
    assert (picture[0, 0] == 0).all()


def test_two_bands_have_their_mean_as_green() -> None:
    """If it fails, pictures and HiPS of two bands have other colours."""
    i, r, g = (np.full((2, 3), value) for value in (4.0, 2.0, 1.0))
    np.testing.assert_array_equal(color_channels([i, r, g]), [i, r, g])
    np.testing.assert_array_equal(color_channels([i, r]), [i, np.full((2, 3), 3.0), r])
    with pytest.raises(ValueError, match="two or three bands; got 1"):
        color_channels([i])


def test_stretch_is_that_of_the_noise() -> None:
    """If it fails, pictures of deep coadds are black or all noise."""
    rng = np.random.default_rng(8)
    planes = [rng.normal(scale=scale, size=(200, 200)) for scale in (1.0, 2.0, 4.0)]
    stretch = color_stretch(planes, (4.0, 2.0, 1.0))
    # All three have a sigma of 4 after their factors.
    assert stretch.minimum == pytest.approx(-4.0, rel=0.05)
    assert stretch.stretch == pytest.approx(80.0, rel=0.05)
    assert color_stretch(planes, (4.0, 2.0, 1.0), 7.0).stretch == 7.0


def test_color_comparison_shows_the_same_place_twice() -> None:
    """If it fails, the enlargements show different places."""
    one = np.zeros((60, 90, 3), dtype=np.uint8)
    one[45:55, 5:20] = 200
    other = one.copy()
    other[45:55, 5:20, 0] = 90
    figure = color_comparison_figure([("Coadd", one), ("Restored", other)], pixel_scale=0.2, title="Patch")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_array_equal(shown[0], one)
    assert shown[2].shape == shown[3].shape == (20, 30, 3)
    # 150 bright pixels in the first, as many in the second.
    assert (shown[2].max(axis=2) > 0).sum() == (shown[3].max(axis=2) > 0).sum() == 150
    with pytest.raises(ValueError, match="pictures of one shape"):
        color_comparison_figure([("One", one), ("Other", one[:5])], pixel_scale=0.2, title="")


def test_colors_and_magnitudes() -> None:
    """If it fails, measured sources are drawn beside those of others."""
    truth = np.array([[1000.0, 500.0, 100.0, 100.0], [1000.0, 2000.0, 300.0, 100.0]])
    measured = truth * 1.1
    measured[0, 3] = -5.0
    figure = color_magnitude_figure(
        measured, truth, np.array([True, True, False, True]), bands=("g", "i"), title="Sources"
    )
    stars, galaxies = figure.axes
    true_stars, found_stars = (np.asarray(drawn.get_offsets()) for drawn in stars.collections)
    np.testing.assert_allclose(true_stars, [[0.0, 23.9], [1.505, 23.147]], atol=1e-3)
    np.testing.assert_allclose(found_stars, true_stars - [0.0, 0.1035], atol=1e-3)
    assert np.shape(galaxies.collections[1].get_offsets()) == (1, 2)
    with pytest.raises(ValueError, match=r"got \(2, 4\), \(2, 4\) and \(3,\)"):
        color_magnitude_figure(measured, truth, np.ones(3, dtype=bool), bands=("g", "i"), title="")
