# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What coadds take on disk, predicted."""

from __future__ import annotations

__all__ = ("predict_disk_bytes",)

from lsst.images.cells import PatchDefinition

_FLOAT_COMPRESSION = 0.9
"""Size of a compressed plane of floating-point numbers over its own."""

_PLANES_BYTES = 1.0
"""Bytes a pixel of mask and rejected fraction, compressed."""

_DEMAND_BYTES = 2.0
"""Bytes a pixel of the map of demanded light, of which few pixels have light
that stands out."""

_CORRELATION_BYTES = 31**2 * 4.0
"""Bytes of the noise correlation of a cell."""


def predict_disk_bytes(
    patch: PatchDefinition, *, num_realizations: int, do_linear: bool, num_bands: int = 1, joint: bool = False
) -> float:
    """Return what coadds and maps of a patch take on disk.

    Parameters
    ----------
    patch
        Geometry of the patch.
    num_realizations
        Number of realisations of the noise.
    do_linear
        Whether there are linear coadds.
    num_bands
        Number of bands.
    joint
        Whether they are restored together, with a coadd for detection.

    Returns
    -------
    size : `float`
        Bytes, compressed as `lsst.images` does by default.
    """
    pixels, cells = patch.outer_bbox.area, patch.cells.grid_size
    # Image, variance and realisations; fractions and mask compress well.
    coadd = pixels * ((2 + num_realizations) * 4.0 * _FLOAT_COMPRESSION + _PLANES_BYTES)
    linear = do_linear * (coadd + cells.i * cells.j * _CORRELATION_BYTES)
    return num_bands * (coadd + pixels * _DEMAND_BYTES + linear) + joint * coadd
