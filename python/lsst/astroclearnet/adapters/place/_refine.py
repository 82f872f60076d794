# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sky maps with smaller pixels, and the same tracts and patches."""

from __future__ import annotations

__all__ = ("refine_sky_map",)

import numpy as np

from lsst.sphgeom import ConvexPolygon

from ._geometry import SkyMapGeometry


def refine_sky_map(geometry: SkyMapGeometry, factor: int, name: str) -> SkyMapGeometry:
    """Return a sky map with smaller pixels.

    Tracts, patches and cells have the same areas on the sky.

    Parameters
    ----------
    geometry
        The sky map.
    factor
        Ratio of the pixel scales, at least 2.
    name
        Name of the finer sky map.

    Returns
    -------
    refined : `SkyMapGeometry`
        The finer sky map.

    Raises
    ------
    ValueError
        If the factor is smaller.
    """
    require_factor(factor)
    tracts = (
        tract.model_copy(
            update={
                "pixel_scale_arcsec": tract.pixel_scale_arcsec / factor,
                "cell_shape": (factor * tract.cell_shape[0], factor * tract.cell_shape[1]),
            }
        )
        for tract in geometry.tracts
    )
    return SkyMapGeometry(skymap=name, tracts=tuple(tracts))


def require_factor(factor: int) -> None:
    """Refuse a factor that makes no finer sky map.

    Parameters
    ----------
    factor
        Ratio of pixel scales.

    Raises
    ------
    ValueError
        If it is less than 2.
    """
    if factor < 2:
        raise ValueError(f"factor={factor}: pixels become smaller by a factor of 2 or more.")


def corner_distance(region: ConvexPolygon, other: ConvexPolygon) -> float:
    """Return the largest distance of a corner from those of another region.

    Parameters
    ----------
    region, other
        The regions of sky.

    Returns
    -------
    distance : `float`
        In radians.
    """
    first, second = (np.array([(v.x(), v.y(), v.z()) for v in r.getVertices()]) for r in (region, other))
    return float(np.linalg.norm(first[:, None] - second, axis=-1).min(axis=1).max())
