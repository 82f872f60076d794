# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cut-outs of equal size from exposures."""

from __future__ import annotations

import torch


def bounding_boxes(inside: torch.Tensor) -> list[tuple[slice, slice]]:
    """Return boxes of equal size that bound the pixels inside of each image.

    Parameters
    ----------
    inside
        Shape (n, h, w), bool.

    Returns
    -------
    boxes : `list` [`tuple` [`slice`, `slice`]]
        Rows and columns, two pixels at least.
    """
    corners: list[list[int]] = []
    # Two pixels are the least that has a gradient.
    sizes = [2, 2]
    for image in inside:
        corner = []
        for axis in (0, 1):
            found = image.any(dim=1 - axis).nonzero()[:, 0]
            first, last = (int(found[0]), int(found[-1])) if len(found) else (0, 0)
            sizes[axis] = max(sizes[axis], last - first + 1)
            corner.append(first)
        corners.append(corner)
    boxes = []
    for corner in corners:
        starts = [min(c, full - s) for c, full, s in zip(corner, inside.shape[1:], sizes, strict=True)]
        rows, columns = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        boxes.append((rows, columns))
    return boxes


def cut_out(data: torch.Tensor, boxes: list[tuple[slice, slice]]) -> torch.Tensor:
    """Cut a box out of each image.

    Parameters
    ----------
    data
        Shape (n, h, w).
    boxes
        Rows and columns, all of one size.

    Returns
    -------
    cut : `torch.Tensor`
        Shape (n, box height, box width).
    """
    return torch.stack([image[rows, columns] for image, (rows, columns) in zip(data, boxes, strict=True)])
