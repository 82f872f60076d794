# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The table of mask planes."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.astroclearnet.adapters import DEFAULT_MASK_TREATMENTS, MaskTable
from lsst.astroclearnet.adapters.read import mask_of_planes
from lsst.images import (
    Box,
    Mask,
    MaskPlane,
    MaskSchema,
    get_legacy_deep_coadd_mask_planes,
    get_legacy_visit_image_mask_planes,
)

BOX = Box.factory[5:9, 3:8]


def make_mask(*names: str) -> Mask:
    """Return a mask in which plane k is set in pixel k alone."""
    mask = Mask(0, schema=MaskSchema([MaskPlane(name, "") for name in names]), bbox=BOX)
    for k, name in enumerate(names):
        plane = np.zeros(BOX.shape, dtype=bool)
        plane.flat[k] = True
        mask.set(name, plane)
    return mask


@pytest.mark.parametrize(
    ("plane", "legacy"),
    [(plane.name, legacy) for legacy, plane in get_legacy_visit_image_mask_planes().items()],
)
def test_new_and_legacy_names(plane: str, legacy: str) -> None:
    """If it fails, bad pixels of converted exposures are used."""
    for name in (plane, legacy):
        mask = make_mask("OTHER", name)
        (pixel,) = np.flatnonzero(mask_of_planes(mask, [plane, "NOT_THERE"]))
        assert pixel == 1
    assert not mask_of_planes(make_mask("OTHER"), [plane]).any()


def test_plane_under_both_names() -> None:
    """If it fails, half of the flagged pixels of a mixed mask are used."""
    np.testing.assert_array_equal(
        np.flatnonzero(mask_of_planes(make_mask("SAT", "BAD", "SATURATED"), ["SATURATED"])), [0, 2]
    )


def test_default_table_excludes_what_rubin_excludes() -> None:
    """If it fails, the product uses pixels that other coadds leave out, or
    shows saturation at another threshold.
    """
    table = MaskTable.from_treatments()
    # bad_mask_planes of Rubin's AssembleCellCoaddTask (CLIPPED is its own
    # finding), and what its cameras and LSSTCam alone add.
    legacy = get_legacy_visit_image_mask_planes()
    for name in ("BAD", "NO_DATA", "SAT", "SUSPECT", "PARTLY_VIGNETTED", "SPIKE"):
        assert legacy[name].name in table.excluded
    assert table.propagated["SATURATED"] == 0.1
    assert table.propagated["COSMIC_RAY"] == 0.0
    assert "STREAK" in table.excluded
    for name in ("DETECTED", "CROSSTALK", "DETECTION_EDGE", "NOT_DEBLENDED"):
        assert name not in DEFAULT_MASK_TREATMENTS
    schema = {plane.name for plane in get_legacy_deep_coadd_mask_planes().values()}
    assert set(table.propagated) <= schema


def test_plane_shows_above_its_fraction_of_the_covering_exposures() -> None:
    """If it fails, one saturated exposure of many marks the coadd, or an
    exposure that does not see a pixel counts there.
    """
    table = MaskTable.from_treatments(
        {"SATURATED": "propagate 0.25, exclude", "COSMIC_RAY": "propagate 0", "BAD": "exclude"}
    )
    assert table.excluded == ("SATURATED", "BAD")
    covered = np.ones((4, 2, 5), dtype=bool)
    covered[3, :, 4] = False
    flags = np.zeros(covered.shape, dtype=bool)
    flags[0, 0, 1:] = True
    flags[1, 0, 3] = True
    counts = {"SATURATED": flags.sum(axis=0), "COSMIC_RAY": flags.sum(axis=0)}
    planes = table.propagate(counts, covered.sum(axis=0))
    # One of four is 25 % and not more; two of four are, as is one of three.
    np.testing.assert_array_equal(planes["SATURATED"], [[0, 0, 0, 1, 1], [0] * 5])
    np.testing.assert_array_equal(planes["COSMIC_RAY"], [[0, 1, 1, 1, 1], [0] * 5])


@pytest.mark.parametrize(
    ("treatments", "message"),
    [
        ({"SAT": "exclude"}, "Unknown visit-image mask plane 'SAT'"),
        ({"BAD": ""}, "'' is no treatment of mask plane BAD"),
        ({"SATURATED": "propagate"}, "'propagate' is no treatment"),
        ({"SATURATED": "propagate much"}, "'propagate much' is no treatment"),
        ({"SATURATED": "exclude, propagate 1.0"}, "'propagate 1.0' is no treatment"),
        ({"SPIKE": "exclude, propagate 0.5"}, "Coadds have no mask plane SPIKE"),
    ],
)
def test_senseless_treatment_is_refused(treatments: dict[str, str], message: str) -> None:
    """If it fails, a typing error in the table goes unnoticed."""
    with pytest.raises(ValueError, match=message):
        MaskTable.from_treatments(treatments)
