# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bands that were restored together beside the same restored alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from rich.table import Table as RichTable

from lsst.daf.butler import Butler
from lsst.images.cells import CellCoadd

from ...adapters import unusable_pixels
from ...report import band_order
from .._tables import make_table, number, text
from ._patch import Patch
from ._picture import choose_zooms, draw_patch, patches_at, truth_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

type Array = npt.NDArray[np.float64]

_FAINT, _BRIGHT = 0.3, 3.0
"""Limits of sky, faint and bright light of the truth at the target PSF, in sky
sigmas of a pixel of the direct coadd, as in benchmarks/quality.md."""

_LIGHT = ("sky", "faint", "bright")


def compare_joint(butler: Butler, patches: Sequence[Patch]) -> Table:
    """Compare both restorations of the same patches with the truth.

    Returns
    -------
    table : `astropy.table.Table`
        A row for each band: ``num_patches``; and for ``sky``, ``faint`` and
        ``bright`` light the root mean square errors ``alone`` and
        ``together``, in sky sigmas of a pixel of the direct coadd, and their
        ``ratio`` (``sky_alone`` and so on), over the pixels of all patches
        with data.
    """
    sums: dict[str, Array] = {}
    numbers: dict[str, int] = {}
    for patch in patches:
        band = patch.band
        sums[band] = sums.get(band, 0.0) + _sum_squares(patch, _usable_joint(butler, patch))
        numbers[band] = numbers.get(band, 0) + 1
    rows = []
    for band in sorted(sums, key=band_order):
        row: dict[str, Any] = {"band": band, "num_patches": numbers[band]}
        for name, (alone, together, pixels) in zip(_LIGHT, sums[band], strict=True):
            row[f"{name}_alone"] = math.sqrt(alone / pixels) if pixels else math.nan
            row[f"{name}_together"] = math.sqrt(together / pixels) if pixels else math.nan
            row[f"{name}_ratio"] = math.sqrt(together / alone) if alone else math.nan
        rows.append(row)
    return Table(rows=rows)


def _sum_squares(patch: Patch, joint: Array) -> Array:
    """Return, for each kind of light, the sums of the squared errors alone
    and together, in sky sigmas, and the number of pixels.
    """
    truth = truth_panel(patch)
    good = np.isfinite(joint) & np.isfinite(patch.restored.image)
    sigma = float(np.sqrt(np.nanmedian(patch.coadd.variance)))
    level = truth / sigma
    errors = [((image - truth) / sigma) ** 2 for image in (patch.restored.image, joint)]
    areas = (level < _FAINT, (level >= _FAINT) & (level < _BRIGHT), level >= _BRIGHT)
    return np.array(
        [[*(error[area & good].sum() for error in errors), (area & good).sum()] for area in areas]
    )


def joint_table(table: Table) -> RichTable:
    """Lay out the comparison for a terminal."""
    columns = {
        f"{name if way == 'alone' else ''}\n{way}|{name}": number(f"{name}_{way}", 3)
        for name in _LIGHT
        for way in ("alone", "together", "ratio")
    }
    return make_table(
        "Bands restored alone and together: errors against the truth",
        table,
        {"band": text("band"), "patches": text("num_patches")},
        columns,
        caption="Root mean square error in sky sigmas of a pixel of the direct coadd, where the truth at the "
        f"target PSF is below {_FAINT:g} (sky), up to {_BRIGHT:g} (faint) and above (bright). A few patches "
        "of one simulated sky, in which every source has light in all bands: what to expect elsewhere is in "
        "benchmarks/joint.md.",
    )


def joint_picture(butler: Butler, patches: Sequence[Patch]) -> Figure:
    """Draw the patch of the comparison picture, with its bands restored alone
    and together.
    """
    patch, same = patches_at(patches)
    panels = {
        band: {
            "Coadd": one.coadd.image,
            # With what is interpolated in them, as they are shown elsewhere.
            "Bands alone": np.asarray(butler.get("restored_coadd", **one.data_id).image.array, dtype=float),
            "Bands together": np.asarray(_get_joint(butler, one).image.array, dtype=float),
            "Truth": truth_panel(one),
        }
        for band, one in same.items()
    }
    return draw_patch(patch, panels, choose_zooms(patch))


def _get_joint(butler: Butler, patch: Patch) -> CellCoadd:
    """Return the coadd of a patch that was restored with other bands."""
    coadd: CellCoadd = butler.get("restored_coadd_joint", **patch.data_id)
    return coadd


def _usable_joint(butler: Butler, patch: Patch) -> Array:
    """Return the image of that coadd, NaN where it is not measured on."""
    coadd = _get_joint(butler, patch)
    image = np.asarray(coadd.image.array, dtype=float)
    image[unusable_pixels(coadd)] = np.nan
    return image
