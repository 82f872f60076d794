# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The exposures of a patch, read tile by tile."""

from __future__ import annotations

__all__ = ("PatchSource", "pad_to_common_size", "stack_exposures")

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lsst.images import Box

from ...core import CellLayout, ExposureCutouts, ExposureStack, InputError, NoUsableDataError, PixelPositions
from ..place import PatchGeometry
from ._visit_cutout import PatchExposure, VisitCutout

_LOG = logging.getLogger(__name__)


class PatchSource:
    """Exposures of a patch, an `lsst.astroclearnet.core.ExposureSource`.

    Parameters
    ----------
    cutouts
        The exposures.
    geometry
        Geometry of the patch.
    bbox
        Box of the patch with its border, in tract pixels: the pixels of the
        source.

    Attributes
    ----------
    cutouts, geometry, bbox
        The parameters.
    problems
        Why exposures are missing in parts of the patch, by their number.
    """

    def __init__(self, cutouts: Sequence[VisitCutout], geometry: PatchGeometry, bbox: Box) -> None:
        self.cutouts = tuple(cutouts)
        self.geometry = geometry
        self.bbox = bbox
        self.problems: dict[int, str] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch with its border in pixels."""
        height, width = self.bbox.shape
        return height, width

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return len(self.cutouts)

    @property
    def resident_bytes(self) -> int:
        """Memory that the exposures take as a whole (`int`)."""
        return sum(c.num_bytes for c in self.cutouts if c.is_in_memory)

    @property
    def file_bytes(self) -> int:
        """Bytes of the exposures that are in temporary files (`int`)."""
        return sum(c.num_bytes for c in self.cutouts if not c.is_in_memory)

    @property
    def layout(self) -> CellLayout:
        """Cells of the patch (`lsst.astroclearnet.core.CellLayout`)."""
        grid, outer = self.geometry.definition.cells, self.geometry.bbox
        return CellLayout(
            cell_shape=(grid.cell_shape.y, grid.cell_shape.x),
            border=(outer.y.start - self.bbox.y.start, outer.x.start - self.bbox.x.start),
            number=(grid.grid_size.i, grid.grid_size.j),
        )

    def box(self, rows: slice, columns: slice) -> Box:
        """Return rows and columns of the source as a box in tract pixels.

        Parameters
        ----------
        rows, columns
            The pixels, with a start and a stop.
        """
        y, x = self.bbox.y.start, self.bbox.x.start
        return Box.factory[y + rows.start : y + rows.stop, x + columns.start : x + columns.stop]

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        """Return an upper bound of the shape of the stack in a box.

        Parameters
        ----------
        rows, columns
            As of `box`.
        """
        box = self.box(rows, columns)
        overlaps = [overlap.shape for cutout in self.cutouts if (overlap := cutout.overlap(box))]
        height, width = (
            (max(sides, default=0) for sides in zip(*overlaps, strict=True)) if overlaps else (0, 0)
        )
        return len(overlaps), height, width

    def read(self, rows: slice, columns: slice) -> ExposureCutouts | None:
        """Return the exposures with a usable pixel in a box, or `None`.

        An exposure whose PSF cannot be evaluated there is left out, which is
        logged and kept in ``problems``.

        Parameters
        ----------
        rows, columns
            As of `box`.
        """
        box = self.box(rows, columns)
        found: dict[int, PatchExposure] = {}
        for n, cutout in enumerate(self.cutouts):
            try:
                exposure = cutout.within(box)
            except InputError as exc:
                if n not in self.problems:
                    _LOG.warning("Left %s out where its PSF fails: %s", cutout.identity, exc)
                self.problems[n] = f"bad_psf: Left out where its PSF fails: {exc}"
                continue
            if exposure is not None:
                found[n] = exposure
        if not found:
            return None
        try:
            stack = ExposureStack.from_arrays(**stack_exposures(list(found.values())), overwrite=True)
        except NoUsableDataError:
            return None
        starts = [(e.bbox.start, self.cutouts[n].bbox.start) for n, e in found.items()]
        return ExposureCutouts(
            exposures=torch.tensor(list(found)),
            stack=stack,
            origins=tuple((start.y - whole.y, start.x - whole.x) for start, whole in starts),
        )


def stack_exposures(exposures: Sequence[PatchExposure]) -> dict[str, Any]:
    """Return exposures as arguments of `lsst.astroclearnet.core.restore`.

    They are padded at the end of both axes with unusable pixels.

    Parameters
    ----------
    exposures
        At least one exposure, all in the same box of the patch.
    """
    # Two pixels are the least that has a gradient.
    shape = tuple(max(2, *(e.bbox.shape[axis] for e in exposures)) for axis in (0, 1))
    fills = {"image": 0, "variance": 1, "good": False, "y": np.nan, "x": np.nan, "area": 0}
    stacked = {
        name: np.full((len(exposures), *shape), fill, dtype=getattr(exposures[0], name).dtype)
        for name, fill in fills.items()
    }
    for n, exposure in enumerate(exposures):
        height, width = exposure.bbox.shape
        for name, array in stacked.items():
            array[n, :height, :width] = getattr(exposure, name)
    height, width = exposures[0].box.shape
    return {
        "images": stacked["image"],
        "variances": stacked["variance"],
        "good": stacked["good"],
        "psfs": pad_to_common_size([e.psfs for e in exposures]),
        "positions": PixelPositions.from_arrays(
            (height, width), y=stacked["y"], x=stacked["x"], area=stacked["area"], overwrite=True
        ),
    }


def pad_to_common_size(psfs: Sequence[np.ndarray]) -> np.ndarray:
    """Stack PSFs as shape (n, ..., P, P), padded to the largest P.

    Parameters
    ----------
    psfs
        Shape (..., P, P) each, P odd; NaN where there is none.
    """
    size = max(stamps.shape[-1] for stamps in psfs)
    padded = np.zeros((len(psfs), *psfs[0].shape[:-2], size, size))
    for larger, stamps in zip(padded, psfs, strict=True):
        start = (size - stamps.shape[-1]) // 2
        inside = slice(start, start + stamps.shape[-1])
        larger[..., inside, inside] = stamps
        # The padding of a cell without a PSF must not make it look like one.
        larger[~np.isfinite(stamps).all(axis=(-1, -2))] = np.nan
    return padded
