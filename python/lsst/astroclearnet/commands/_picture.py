# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Picture of a patch: best exposure, coadd, restored coadd and truth."""

from __future__ import annotations

__all__ = ("comparison_picture",)

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.ndimage import gaussian_filter

from lsst.daf.butler import Butler

from ..adapters import coregister
from ._errors import CommandError
from ._patches import Patch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..plots import Zoom

type Array = npt.NDArray[np.float64]

_ZOOM_SIZE = 40
_MIN_COVERAGE = 0.7


def comparison_picture(butler: Butler, patches: Sequence[Patch]) -> Figure:
    """Draw the patch that has most to show.

    Parameters
    ----------
    butler
        A Butler whose default collections hold the visit images.
    patches
        Patches of a simulated survey.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Best exposure, coadd, restored coadd and truth at the PSF of the
        latter with one stretch, and zooms on a close pair, a galaxy and an
        artefact.

    Raises
    ------
    CommandError
        If there is no patch.
    """
    from ..plots import comparison_figure

    if not patches:
        raise CommandError("There is no patch to draw.")
    patch = max(patches, key=_interest)
    exposure, name = _best_exposure(butler, patch)
    truth = patch.render(patch.sources, patch.restored.psf)
    scale = patch.geometry.pixel_scale
    width = patch.metrics["image"]["target_fwhm"]
    keys = patch.data_id
    return comparison_figure(
        [
            (f"Best exposure ({name})", exposure),
            (f"Coadd of {patch.num_coadd_exposures} exposures", patch.coadd.image),
            ("Restored coadd", patch.restored.image),
            (f"Truth at {width:.2f}\N{DOUBLE PRIME} FWHM", truth),
        ],
        zooms=_zooms(patch, exposure),
        pixel_scale=scale,
        title=f"{keys['skymap']}, tract {keys['tract']}, patch {keys['patch']}, {keys['band']} band",
    )
