# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images of stars in exposures."""

from __future__ import annotations

__all__ = ("draw_stars", "stars_in_exposures")

import math

import torch

from ..exposures import ExposureStack, Tile, fwhm_to_sigma
from ..forward import ForwardModel
from ._star_list import StarList

_SPILL = 8
"""Radius in pixels of the kernel that shifts stamps by a fraction of a pixel.
The sinc function without a window takes light of stamps that are not quite
well sampled far away: 2e-6 of that of a star under 3 pixels FWHM."""

_KAISER = 12.0
"""Shape of its window: shifted Moffat profiles of 3.6 pixels FWHM are right to
0.3 % of their light everywhere within 22 pixels; with 8 to 3 % of it."""

_STEP = 1e-3
"""Shift in pixels with which it is differentiated."""


_LIGHT = 6.0
"""Radius in sigma of the target PSF beyond which it has no light: 2e-8 of a
star."""


def stars_in_exposures(
    stars: StarList, stack: ExposureStack, model: ForwardModel, origin: tuple[int, int]
) -> torch.Tensor:
    """Return the light of stars in exposures, (n, h, w).

    A star is the PSF at its position, as far as its stamp reaches.

    Parameters
    ----------
    stars
        The stars.
    stack
        The exposures of a tile.
    model
        Their forward model.
    origin
        First row and column of the tile.
    """
    size, device = stack.psfs.shape[-1], stack.device
    if not len(stars):
        return torch.zeros_like(stack.images)
    images = torch.zeros(stack.num_exposures, *model.latent_shape, device=device)
    local = [(y - origin[0], x - origin[1]) for y, x in stars.positions.tolist()]
    # A GPU is sent all of them at once.
    shifts = [[_shifts(p - round(p), size)[0] for p in place] for place in local]
    matrices = torch.stack([torch.stack(pair) for pair in shifts]).to(device).unbind()
    for place, flux, (rows, columns) in zip(local, stars.flux.tolist(), matrices, strict=True):
        stamps = rows @ psfs_at(stack, place).double() @ columns.T
        add_stamps(images, flux * stamps.to(torch.float32), place, model.grid.margin)
    return observe(images, model)


def draw_stars(
    stars: StarList, tile: Tile, model: ForwardModel, changes: torch.Tensor | None = None
) -> torch.Tensor:
    """Return stars at the target PSF, shape latent_shape, float32, on the CPU.

    Parameters
    ----------
    stars
        The stars.
    tile
        The tile.
    model
        Its forward model.
    changes
        Shape (m, 3), small changes of flux, row and column, of which the image
        is drawn instead.
    """
    sigma, margin = fwhm_to_sigma(model.target_fwhm), model.grid.margin
    reach = math.ceil(_LIGHT * sigma)
    image = torch.zeros(model.latent_shape, dtype=torch.float64)
    first = tile.rows.start - margin, tile.columns.start - margin
    for number, (place, flux) in enumerate(zip(stars.positions.tolist(), stars.flux.tolist(), strict=True)):
        local = [p - start for p, start in zip(place, first, strict=True)]
        ranges = [
            range(max(round(p) - reach, 0), min(round(p) + reach + 1, length))
            for p, length in zip(local, model.latent_shape, strict=True)
        ]
        if not all(ranges):
            continue
        y, x = (
            (torch.arange(r.start, r.stop, dtype=torch.float64) - p) / sigma
            for r, p in zip(ranges, local, strict=True)
        )
        stamp = torch.exp(-0.5 * (y[:, None] ** 2 + x**2)) / (2.0 * math.pi * sigma**2)
        if changes is None:
            stamp *= flux
        else:
            light, row, column = changes[number].tolist()
            stamp *= light + flux / sigma * (row * y[:, None] + column * x)
        rows, columns = (slice(r.start, r.stop) for r in ranges)
        image[rows, columns] += stamp
    return image.to(torch.float32)


def star_templates(stack: ExposureStack, model: ForwardModel, position: tuple[float, float]) -> torch.Tensor:
    """Return a star of unit flux in exposures, and its derivatives with
    respect to row and column.

    Parameters
    ----------
    stack
        The exposures of a box.
    model
        Their forward model.
    position
        Row and column of the star in the box.

    Returns
    -------
    templates : `torch.Tensor`
        Shape (3, n, h, w).
    """
    stamps = _shifted_stamps(psfs_at(stack, position), position)
    images = torch.zeros(*stamps.shape[:2], *model.latent_shape, device=stack.device)
    for image, stamp in zip(images, stamps, strict=True):
        add_stamps(image, stamp, position, model.grid.margin)
    return torch.stack([observe(image, model) for image in images])


def psfs_at(stack: ExposureStack, position: tuple[float, float]) -> torch.Tensor:
    """Interpolate the PSFs to a position, (n, P, P).

    Parameters
    ----------
    stack
        The exposures.
    position
        Row and column; off the patch the PSF is that of its edge.
    """
    psfs = stack.psfs
    for place, length in zip(position, stack.shape, strict=True):
        number = psfs.shape[1]
        if number == 1:
            psfs = psfs[:, 0]
            continue
        place = min(max(place, 0.0), length - 1.0)
        node = (place + 0.5) * number / length - 0.5
        first = min(max(math.floor(node), 0), number - 2)
        share = node - first
        psfs = (1.0 - share) * psfs[:, first] + share * psfs[:, first + 1]
    return psfs


def _shifted_stamps(psfs: torch.Tensor, position: tuple[float, float]) -> torch.Tensor:
    """Shift PSFs by the fraction of a position, and differentiate them.

    Parameters
    ----------
    psfs
        Shape (n, P, P).
    position
        Row and column.

    Returns
    -------
    stamps : `torch.Tensor`
        Shape (3, n, Q, Q), float32, around the nearest pixel.
    """
    rows, columns = (_shifts(p - round(p), psfs.shape[-1]) for p in position)
    stamps = [rows[y] @ psfs.double() @ columns[x].T for y, x in ((0, 0), (1, 0), (0, 1))]
    return torch.stack(stamps).to(torch.float32)


def _shifts(fraction: float, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrices, (Q, P), that shift stamps along an axis by a fraction
    of a pixel, and that differentiate with respect to it, on the CPU.
    """
    offset = torch.arange(-size - _SPILL, size + _SPILL, dtype=torch.float64) - fraction
    before, after = (_windowed_sinc(offset + step) for step in (_STEP, -_STEP))
    place = size + torch.arange(size + 2 * _SPILL)[:, None] - torch.arange(size)
    return _windowed_sinc(offset)[place], ((after - before) / (2.0 * _STEP))[place]


def _windowed_sinc(x: torch.Tensor) -> torch.Tensor:
    """Return the sinc function in the window of Kaiser."""
    inside = (1.0 - (x / _SPILL) ** 2).clamp(min=0.0).sqrt()
    window = torch.special.i0(_KAISER * inside) / torch.special.i0(x.new_tensor(_KAISER))
    return torch.where(x.abs() < _SPILL, torch.sinc(x) * window, 0.0)


def add_stamps(
    images: torch.Tensor, stamps: torch.Tensor, position: tuple[float, float], margin: int
) -> None:
    """Add stamps to images on the latent grid, (n, Hl, Wl), as far as it
    reaches.

    Parameters
    ----------
    images
        Shape (n, Hl, Wl), changed.
    stamps
        Shape (n, Q, Q).
    position
        Row and column on the patch.
    margin
        Pixels of the latent grid before the patch.
    """
    size = stamps.shape[-1]
    to, of = [], []
    for place, length in zip(position, images.shape[1:], strict=True):
        start = round(place) + margin - size // 2
        first, last = max(start, 0), min(start + size, length)
        if first >= last:
            return
        to.append(slice(first, last))
        of.append(slice(first - start, last - start))
    images[:, to[0], to[1]] += stamps[:, of[0], of[1]]


def observe(images: torch.Tensor, model: ForwardModel) -> torch.Tensor:
    """Sample images on the latent grid, one for each exposure.

    Parameters
    ----------
    images
        Shape (n, Hl, Wl).
    model
        Forward model of the exposures.
    """
    sampling = model.sampling
    if sampling.prefilter is None:
        return sampling.observe(images)
    sampled = [
        sampling.observe(model.inverse_transform(model.filtered(model.transform(image)))[None], [t])[0]
        for t, image in enumerate(images)
    ]
    return torch.stack(sampled)
