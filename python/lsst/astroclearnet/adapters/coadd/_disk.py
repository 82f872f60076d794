# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the coadds of a patch take on disk."""

from __future__ import annotations

__all__ = ("predict_disk_bytes",)

from ..place import PatchGeometry

_FLOAT_COMPRESSION = 0.9
"""Size of a compressed plane of floating-point numbers over its own."""

_PLANES_BYTES = 1.0
"""Bytes a pixel of mask and rejected fraction, compressed."""

_DEMAND_BYTES = 2.0
"""Bytes a pixel of the map of demanded light, of which few pixels have light
that stands out."""


def predict_disk_bytes(geometry: PatchGeometry, num_realizations: int, do_linear: bool) -> float:
    """Return what coadds and maps of a patch take on disk.

    Parameters
    ----------
    geometry
        Geometry of the patch.
    num_realizations
        Number of realisations of the noise.
    do_linear
        Whether there is a linear coadd.

    Returns
    -------
    size : `float`
        Bytes, compressed as `lsst.images` does by default.
    """
    # Image, variance and realisations; fractions and mask compress well.
    coadd = geometry.bbox.area * ((2 + num_realizations) * 4.0 * _FLOAT_COMPRESSION + _PLANES_BYTES)
    size = geometry.definition.cells.grid_size
    linear = do_linear * (coadd + size.i * size.j * 31**2 * 4.0)
    return coadd + geometry.bbox.area * _DEMAND_BYTES + linear
