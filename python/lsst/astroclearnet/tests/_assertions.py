# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Assertions about linear operators and images."""

from __future__ import annotations

__all__ = ("assert_adjoint", "measure_star")

from collections.abc import Callable

import numpy as np
import torch


def assert_adjoint(
    operator: Callable[[torch.Tensor], torch.Tensor],
    adjoint: Callable[[torch.Tensor], torch.Tensor],
    domain: tuple[int, ...],
    image: tuple[int, ...],
    *,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> None:
    """Check that <K x, y> equals <x, K' y> for random x and y.

    Parameters
    ----------
    operator
        Linear map K of tensors of shape ``domain`` to shape ``image``.
    adjoint
        The map K' that is claimed to be its adjoint.
    domain
        Shape of x.
    image
        Shape of y.
    tolerance
        Largest difference, relative to the norms of K x and y.
    seed
        Seed of x and y.

    Raises
    ------
    AssertionError
        If the two scalar products differ, or a shape is wrong.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(shape, generator=generator) for shape in (domain, image))
    forward, backward = operator(x), adjoint(y)
    if forward.shape != y.shape or backward.shape != x.shape:
        raise AssertionError(
            f"Shapes {tuple(forward.shape)}, {tuple(backward.shape)}: not {image}, {domain}."
        )
    left = float((forward.double() * y.double()).sum())
    right = float((x.double() * backward.double()).sum())
    scale = float(torch.linalg.vector_norm(forward) * torch.linalg.vector_norm(y))
    if abs(left - right) > tolerance * scale:
        raise AssertionError(f"<K x, y> = {left} but <x, K' y> = {right}; |K x| |y| = {scale}.")


def measure_star(image: np.ndarray) -> tuple[float, float, float]:
    """Return row, column and flux of the only source of an image.

    Parameters
    ----------
    image
        Shape (H, W), without background and noise.

    Returns
    -------
    y : `float`
        Row of the centroid in pixels.
    x : `float`
        Column of the centroid in pixels.
    flux : `float`
        Sum of the pixels.
    """
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    flux = float(image.sum())
    return float((rows * image).sum()) / flux, float((columns * image).sum()) / flux, flux
