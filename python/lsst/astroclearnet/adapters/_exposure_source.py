# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images as the exposures that the core reads in parts."""

from __future__ import annotations

__all__ = ("PatchSource",)

import logging
from collections.abc import Sequence

import torch

from lsst.images import Box

from ..core import CellLayout, ExposureCut, ExposureStack, InputError, NoUsableDataError
from ._patch_arrays import stack_patch_exposures
from ._patch_exposure import PatchExposure
from ._patch_geometry import PatchGeometry
from ._visit_cutout import VisitCutout

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
        Box of the patch with its border, in tract pixels, whose pixels are
        those of the source.

    Attributes
    ----------
    cutouts
        The exposures.
    geometry
        Geometry of the patch.
    bbox
        Box of the patch with its border.
    problems
        Why exposures are missing in some parts of the patch, by their number.
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
        """Return a region in tract pixels.

        Parameters
        ----------
        rows
            Rows of the region.
        columns
            Columns of the region.

        Returns
        -------
        box : `lsst.images.Box`
            The same pixels.
        """
        y, x = self.bbox.y.start, self.bbox.x.start
        return Box.factory[y + rows.start : y + rows.stop, x + columns.start : x + columns.stop]

    def count(self, rows: slice, columns: slice) -> int:
        """Return how many exposures may have pixels in a region.

        Parameters
        ----------
        rows
            Rows of the region.
        columns
            Columns of the region.

        Returns
        -------
        number : `int`
            Those whose boxes overlap it.
        """
        box = self.box(rows, columns)
        return sum(cutout.touches(box) for cutout in self.cutouts)

    def cut(self, rows: slice, columns: slice) -> ExposureCut | None:
        """Return the exposures in a region.

        An exposure whose PSF cannot be evaluated there is left out, which is
        logged and kept in ``problems``.

        Parameters
        ----------
        rows
            Rows of the region, with a start and a stop.
        columns
            Columns of the region, with a start and a stop.

        Returns
        -------
        cut : `lsst.astroclearnet.core.ExposureCut` or `None`
            The exposures with a usable pixel there; `None` if none has.
        """
        box = self.box(rows, columns)
        found: dict[int, PatchExposure] = {}
        for n, cutout in enumerate(self.cutouts):
            exposure = cutout.on(box)
            if exposure is None or not exposure.good.any():
                continue
            try:
                # Evaluated here, where a failure costs one exposure.
                exposure.psfs  # noqa: B018
            except InputError as exc:
                if n not in self.problems:
                    _LOG.warning("Left %s out where its PSF fails: %s", cutout.identity, exc)
                self.problems[n] = f"bad_psf: Left out where its PSF fails: {exc}"
                continue
            found[n] = exposure
        if not found:
            return None
        arrays = stack_patch_exposures(list(found.values()))
        try:
            stack = ExposureStack.from_arrays(
                arrays.images, arrays.variances, arrays.good, arrays.psfs, positions=arrays.positions
            )
        except NoUsableDataError:
            return None
        return ExposureCut(
            exposures=torch.tensor(list(found)),
            stack=stack,
            origins=tuple(
                (e.bbox.y.start - e.cutout.bbox.y.start, e.bbox.x.start - e.cutout.bbox.x.start)
                for e in found.values()
            ),
        )
