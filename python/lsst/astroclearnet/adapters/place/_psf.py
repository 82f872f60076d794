# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF of a visit image on the grid of a patch."""

from __future__ import annotations

__all__ = ("PatchPsf", "psf_stamps")

import dataclasses
import math
from typing import Self

import numpy as np

from lsst.images import Box, Interval
from lsst.images.psfs import PointSpreadFunction

from ...core import InputError, find_psf_fault
from ._pixel_map import PixelMap
from ._psf_samples import PsfSamples

_SPACING = 50
"""Side, in patch pixels, of the cells of a box, and distance in pixels below
which the nodes of a PSF are not refined."""

_WIDEST_SPACING = 512
"""Largest distance of nodes in pixels before the first check, which halves
it."""

_TOLERANCE = 2e-3
"""Largest error of the linear interpolation at a node that was left out,
relative to the norm of its stamp.  That between the nodes which are kept is
about a quarter, less than that of the splines through the pixels."""

_LEAST_COMPONENT = 2e-4
"""Root mean square over the nodes, relative to the norm of the mean, below
which a component is left out."""

_SLACK = 0.1
"""Fraction of a pixel that a stamp may lack at its edges."""

_LARGEST_SIZE = 255
"""Pixels on a side of the largest PSF; there is a stamp for each cell."""

_FINER = 1.5
"""Ratio of the sides of pixels from which on those of the patch count as
smaller."""

_LARGEST_AREA = 1e3
"""Ratio of the areas of pixels beyond which a sky projection is wrong."""

_LEAST_NET_LIGHT = 0.5
"""Least sum of a PSF over that of its absolute values."""

_MOST_IN_ONE_PIXEL = 0.9
"""Largest share of a PSF's light in one pixel: a star covers several."""


@dataclasses.dataclass(frozen=True)
class PatchPsf:
    """PSF of a visit image on the pixels of a patch, evaluated once.

    It is a mean and a few components, with coefficients that are interpolated
    linearly between nodes on the visit image: the same in every box.  Nodes
    are placed only as densely as the PSF varies.

    Attributes
    ----------
    bbox
        Box of pixels of the visit image; beyond it the PSF is that of its
        edge.
    rows, columns
        Shape (k,) and (l,), rows and columns of the nodes.
    mean
        Shape (P, P), float64, sum 1, P odd, mean of the stamps at the nodes.
    components
        Shape (B, P, P), float64, sum 0, orthonormal.
    coefficients
        Shape (k, l, B), float64; NaN where the PSF cannot be used.
    faults
        Why it cannot, by the indices of the node.
    """

    bbox: Box
    rows: np.ndarray
    columns: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    coefficients: np.ndarray
    faults: dict[tuple[int, int], str]

    @classmethod
    def evaluate(cls, psf: PointSpreadFunction, to_patch: PixelMap) -> Self:
        """Evaluate a PSF in the box of a map from the visit image.

        Nodes are refined until those that were left out are predicted to
        0.2 % of the norm of the PSF, or are 50 pixels apart.

        Parameters
        ----------
        psf
            PSF of the visit image, on its own pixels.
        to_patch
            Map from the visit image to the patch.

        Raises
        ------
        InputError
            If the PSF can be used at no node.
        """
        nodes = _Nodes(psf, to_patch)
        while nodes.refine() > _TOLERANCE:
            pass
        return cls(
            bbox=to_patch.bbox,
            rows=nodes.rows,
            columns=nodes.columns,
            faults=nodes.faults,
            **nodes.decompose(),
        )

    def stamps(self, from_patch: PixelMap, *, max_cells: int | None = None) -> np.ndarray:
        """Return the PSF in the middles of cells of a box of the patch.

        Parameters
        ----------
        from_patch
            Map from the box to the visit image.
        max_cells
            Largest number of cells along each side; by default they have a
            side of about 50 pixels.

        Returns
        -------
        stamps : `numpy.ndarray`
            Shape (n_cells_y, n_cells_x, P, P), float64, sum 1, in cells of
            equal size that cover the box; NaN where the visit image has no
            position.

        Raises
        ------
        InputError
            If the PSF cannot be used near a cell, or there is no position for
            any.
        """
        y, x = (_cell_centers(side, max_cells) for side in (from_patch.bbox.y, from_patch.bbox.x))
        positions = from_patch.apply(y=y[:, None], x=x)
        known = np.isfinite(positions.y) & np.isfinite(positions.x)
        if not known.any():
            raise InputError("The visit image has no position for any cell of the patch.")
        row, column = (
            _between(nodes, np.clip(values[known], side.min, side.max))
            for nodes, values, side in zip(
                (self.rows, self.columns), positions, (self.bbox.y, self.bbox.x), strict=True
            )
        )
        coefficients = np.zeros((len(row[0]), len(self.components)))
        for j, i in np.ndindex(2, 2):
            weight = np.abs(1 - j - row[1]) * np.abs(1 - i - column[1])
            used = weight > 0
            node = row[0][used] + j, column[0][used] + i
            for place in zip(*node, strict=True) if self.faults else ():
                if place in self.faults:
                    raise InputError(self.faults[place])
            coefficients[used] += weight[used, None] * self.coefficients[node]
        stamps = np.full((*known.shape, *self.mean.shape), np.nan)
        stamps[known] = self.mean + np.tensordot(coefficients, self.components, axes=1)
        return stamps


class _Nodes:
    """Stamps of a PSF at the nodes of a grid that is refined."""

    def __init__(self, psf: PointSpreadFunction, to_patch: PixelMap) -> None:
        self._psf, self._map = psf, to_patch
        self.rows, self.columns = (_first_nodes(side) for side in (to_patch.bbox.y, to_patch.bbox.x))
        y, x = np.broadcast_arrays(self.rows[:, None], self.columns)
        self._size = _stamp_size(psf, _jacobians(to_patch, y.ravel(), x.ravel()))
        self.faults: dict[tuple[int, int], str] = {}
        self.stamps = np.full((*y.shape, self._size, self._size), np.nan)
        self._evaluate(np.ones(y.shape, dtype=bool))

    def refine(self) -> float:
        """Halve distances above 50 pixels; return the largest error found."""
        nodes, steps = zip(*(_halve(side) for side in (self.rows, self.columns)), strict=True)
        if steps == (1, 1):
            return 0.0
        self.rows, self.columns = nodes
        kept = tuple(slice(None, None, step) for step in steps)
        self.faults = {(j * steps[0], i * steps[1]): fault for (j, i), fault in self.faults.items()}
        predicted = self.stamps
        for axis, step in enumerate(steps):
            predicted = _fill_in(predicted, axis) if step == 2 else predicted
        new = np.ones(predicted.shape[:2], dtype=bool)
        new[kept] = False
        self.stamps = predicted.copy()
        self._evaluate(new)
        errors = np.linalg.norm(predicted[new] - self.stamps[new], axis=(1, 2))
        # Where the PSF fails, its limits are to be found.
        return float(np.nan_to_num(errors / np.linalg.norm(self.stamps[new], axis=(1, 2)), nan=np.inf).max())

    def decompose(self) -> dict[str, np.ndarray]:
        """Return mean, components and coefficients."""
        known = np.isfinite(self.stamps).all(axis=(2, 3))
        stamps = self.stamps[known]
        mean = stamps.mean(axis=0)
        left, values, right = np.linalg.svd((stamps - mean).reshape(len(stamps), -1), full_matrices=False)
        rank = int((values > _LEAST_COMPONENT * np.linalg.norm(mean) * math.sqrt(len(stamps))).sum())
        coefficients = np.full((*known.shape, rank), np.nan)
        coefficients[known] = left[:, :rank] * values[:rank]
        return {
            "mean": mean,
            "components": right[:rank].reshape(rank, *mean.shape),
            "coefficients": coefficients,
        }

    def _evaluate(self, wanted: np.ndarray) -> None:
        """Evaluate the PSF at nodes, and note where it fails."""
        nodes = np.transpose(np.nonzero(wanted))
        y, x = self.rows[nodes[:, 0]], self.columns[nodes[:, 1]]
        points = {"y": y, "x": x, "jacobians": _jacobians(self._map, y, x)}
        try:
            self.stamps[wanted] = psf_stamps(self._psf, **points, size=self._size)
        except InputError:
            for n, (j, i) in enumerate(nodes.tolist()):
                one = {name: values[n : n + 1] for name, values in points.items()}
                try:
                    self.stamps[j, i] = psf_stamps(self._psf, **one, size=self._size)[0]
                except InputError as exc:
                    self.stamps[j, i] = np.nan
                    self.faults[j, i] = str(exc)
        if len(self.faults) == wanted.size:
            raise InputError(next(iter(self.faults.values())))


def psf_stamps(
    psf: PointSpreadFunction, *, y: np.ndarray, x: np.ndarray, jacobians: np.ndarray, size: int | None = None
) -> np.ndarray:
    """Evaluate a PSF at positions and resample it to the pixels of a patch.

    It is sampled at the offsets of the pixels of the patch on the visit image,
    to first order, and still describes light in pixels of the visit image.
    One of less than 3 pixels FWHM is drawn at thirds of pixels where the model
    allows.

    Parameters
    ----------
    psf
        PSF of the visit image, on its own pixels.
    y, x
        Shape (n,), rows and columns in pixels of the visit image.
    jacobians
        Shape (n, 2, 2), derivatives of the (y, x) of the visit image by those
        of the patch.
    size
        Odd number of pixels on a side of the stamps; by default such that they
        hold the PSF whichever way it turns.

    Returns
    -------
    stamps : `numpy.ndarray`
        Shape (n, P, P), float64, sum 1, P odd.

    Raises
    ------
    InputError
        If there is no derivative, the PSF cannot be evaluated, its sum, size,
        centre or distribution of light is not that of a PSF, or pixels of the
        patch are smaller and it is known only at pixels of the visit image
        that it spans fewer than 2 of.
    """
    if not np.isfinite(jacobians).all():
        raise InputError("The visit image has no position on the patch where its PSF is to be evaluated.")
    if size is None:
        size = _stamp_size(psf, jacobians)
    kernels, stamps = [], []
    for place, jacobian in zip(zip(y.tolist(), x.tolist(), strict=True), jacobians, strict=True):
        is_finer = math.sqrt(abs(np.linalg.det(jacobian))) * _FINER < 1.0
        try:
            drawn = PsfSamples.draw(psf, y=place[0], x=place[1], is_finer=is_finer)
        except InputError:
            raise
        except Exception as exc:
            # A PSF model may fail in any way of its own library's.
            raise InputError(
                f"The PSF cannot be evaluated at (x={place[1]:.1f}, y={place[0]:.1f}): {exc}"
            ) from exc
        if drawn.kernel.bbox != psf.kernel_bbox:
            raise InputError(f"The PSF has the box {drawn.kernel.bbox} instead of {psf.kernel_bbox}.")
        stamps.append(_resample(drawn, jacobian, size))
        kernels.append(drawn.kernel.array)
    # The stamps, too, because the core will look at them.
    if fault := find_psf_fault(np.stack(kernels)) or find_psf_fault(np.stack(stamps)):
        raise InputError(f"The PSF {fault}")
    return np.stack(stamps)


def _jacobians(to_patch: PixelMap, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return derivatives of positions by those on the patch, or NaN."""
    inverse = to_patch.jacobian(y=y, x=x)
    with np.errstate(invalid="ignore", over="ignore"):
        known = np.abs(np.linalg.det(inverse)) > 0
    jacobians = np.full(inverse.shape, np.nan)
    jacobians[known] = np.linalg.inv(inverse[known])
    return jacobians


def _stamp_size(psf: PointSpreadFunction, jacobians: np.ndarray) -> int:
    """Return the odd size of stamps that hold a PSF whichever way it turns."""
    try:
        box = psf.kernel_bbox
    except Exception as exc:
        # A PSF model may fail in any way of its own library's.
        raise InputError(f"The PSF has no size: {exc}") from exc
    radius = box.y.max
    if (box.y.min, box.x.min, box.x.max) != (-radius, -radius, radius):
        raise InputError(f"The PSF has the box {box}, which is not a square around (0, 0).")
    jacobians = jacobians[np.isfinite(jacobians).all(axis=(1, 2))]
    if not len(jacobians):
        raise InputError("The visit image has no position for any cell of the patch.")
    areas = np.abs(np.linalg.det(jacobians))
    if not (areas.min() > 1.0 / _LARGEST_AREA and areas.max() < _LARGEST_AREA):
        raise InputError(f"A pixel of the patch holds {areas.min():g} to {areas.max():g} of the visit image.")
    # A stamp that cut the corners of turned pixels would rescale all fluxes.
    turned = np.abs(np.linalg.inv(jacobians)).sum(axis=-1).max()
    size = 2 * max(0.0, np.ceil(radius * turned - _SLACK)) + 1
    if not size <= _LARGEST_SIZE:
        raise InputError(f"The PSF takes {size:.0f} pixels of the patch, more than {_LARGEST_SIZE}.")
    return int(size)


def _first_nodes(side: Interval) -> np.ndarray:
    """Return nodes from edge to edge; one in the middle of a short side."""
    if side.size <= _SPACING:
        return np.array([side.center])
    return np.linspace(side.min, side.max, math.ceil(side.size / _WIDEST_SPACING) + 1)


def _halve(nodes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return nodes with those between, and the step of the given ones."""
    if len(nodes) == 1 or nodes[1] - nodes[0] <= _SPACING:
        return nodes, 1
    return np.linspace(nodes[0], nodes[-1], 2 * len(nodes) - 1), 2


def _fill_in(stamps: np.ndarray, axis: int) -> np.ndarray:
    """Interpolate linearly between neighbours along an axis."""
    stamps = np.moveaxis(stamps, axis, 0)
    filled = np.empty((2 * len(stamps) - 1, *stamps.shape[1:]))
    filled[::2], filled[1::2] = stamps, 0.5 * (stamps[1:] + stamps[:-1])
    return np.moveaxis(filled, 0, axis)


def _between(nodes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes before positions, and how far they are to the next."""
    first = np.clip(np.searchsorted(nodes, values, side="right") - 1, 0, max(len(nodes) - 2, 0))
    if len(nodes) == 1:
        return first, np.zeros(len(values))
    return first, (values - nodes[first]) / (nodes[1] - nodes[0])


def _cell_centers(side: Interval, max_cells: int | None) -> np.ndarray:
    """Return the middles of cells of equal size along one side of a box."""
    number = max(1, round(side.size / _SPACING))
    if max_cells is not None:
        number = min(number, max_cells)
    return side.start - 0.5 + (np.arange(number) + 0.5) * side.size / number


def _resample(drawn: PsfSamples, jacobian: np.ndarray, size: int) -> np.ndarray:
    """Sample a PSF at the offsets that other pixels have from its middle."""
    kernel = drawn.kernel.array
    if np.sum(kernel, dtype=float) < _LEAST_NET_LIGHT * np.sum(np.abs(kernel), dtype=float):
        raise InputError("A PSF with more than a third as much light below zero as above cannot be used.")
    if np.max(kernel) > _MOST_IN_ONE_PIXEL * np.sum(kernel, dtype=float) > 0:
        raise InputError("A PSF with nearly all its light in one pixel is cut, or none, and cannot be used.")
    r = np.arange(size) - size // 2
    sampled = drawn.at(jacobian @ np.stack([axis.ravel() for axis in np.meshgrid(r, r, indexing="ij")]))
    total = float(sampled.sum())
    if not (math.isfinite(total) and total > 0):
        raise InputError(f"A PSF with sum {total} cannot be used.")
    return sampled.reshape(size, size) / total
