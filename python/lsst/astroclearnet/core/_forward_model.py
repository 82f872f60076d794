# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What each exposure should look like, given the sky at the target PSF."""

from __future__ import annotations

__all__ = ("ForwardModel",)

import copy
import math

import torch

from ._errors import InputError
from ._exposure_stack import ExposureStack
from ._kernels import fwhm_to_sigma
from ._latent_grid import LatentGrid
from ._positions import PixelPositions
from ._sampling import CropSampling, NativeSampling, Sampling

_DECONVOLUTION_FLOOR = 1e-6
"""Power of the target OTF below which the difference kernel fades out."""

_LIGHT_BEYOND = 1e-3
"""Share of the light of a PSF that may lie beyond the margin."""

_PSF_RANK_TOLERANCE = 1e-3
"""Change of a PSF over a patch, relative to its norm, worth a component."""


class ForwardModel:
    """The sky at the target PSF, seen through each exposure.

    The latent image R is the sky convolved with the target PSF g, a circular
    Gaussian, so that it is well sampled.  Exposure t is predicted in two
    steps: convolution with its difference kernel k(t), the PSF f(t)
    deconvolved by g (Magain, Courbin & Sohy 1998, ApJ 494, 472), and sampling
    at the centres of the pixels of the exposure, times their area.  Exposures
    stay on their own grids, so that their pixels are compared as they were
    measured, with noise that is independent from pixel to pixel; of a
    co-registered stack the sampling is a crop of the margin that R has around
    the data.

    A PSF that varies over the patch is a sum of a few kernels with
    coefficients that change smoothly from cell centre to cell centre, so that
    there is no step at the border of a cell.

    Parameters
    ----------
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P), float64, sum 1, on pixels of
        the patch.
    shape
        Height and width of the patch in pixels.
    target_fwhm
        FWHM of the target PSF in pixels.
    positions
        Where the pixels of the exposures lie on the patch; by default they
        are those of the patch.

    Attributes
    ----------
    sampling
        From the latent image to the pixels of the exposures.
    inverse_target_power
        Shape (Hl, Wl // 2 + 1), one over the power of the target PSF.
    target_transform
        Shape (Hl, Wl // 2 + 1), real, transform of the target PSF.
    """

    _least_fwhm = 1.5

    def __init__(
        self,
        psfs: torch.Tensor,
        shape: tuple[int, int],
        target_fwhm: float,
        positions: PixelPositions | None = None,
    ) -> None:
        if not (math.isfinite(target_fwhm) and target_fwhm > 0 and target_fwhm >= self._least_fwhm):
            raise InputError(
                f"target_fwhm={target_fwhm} pixels cannot be sampled: give at least {self._least_fwhm}, "
                "better 2.5.",
                target_fwhm=target_fwhm,
            )
        self.target_fwhm = target_fwhm
        grid = LatentGrid(shape, _margin(psfs, min(shape)))
        self.sampling: Sampling = (
            CropSampling(grid, psfs.device) if positions is None else NativeSampling(positions, grid)
        )
        self._kernels, self._coefficients = _separate(psfs, grid)
        self._otfs, self.inverse_target_power, self.target_transform = self._difference_otfs()

    @classmethod
    def from_stack(cls, stack: ExposureStack, target_fwhm: float) -> ForwardModel:
        """Construct the model of a stack of exposures.

        Parameters
        ----------
        stack
            The exposures.
        target_fwhm
            FWHM of the target PSF in pixels.

        Returns
        -------
        model : `ForwardModel`
            The model, on the device of the stack.
        """
        return cls(stack.psfs, stack.shape, target_fwhm, stack.positions)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch in pixels."""
        return self.sampling.grid.shape

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Height and width of the latent image in pixels."""
        return self.sampling.grid.latent_shape

    def window(self, rows: slice, columns: slice) -> ForwardModel:
        """Return the model of a window of the patch.

        Parameters
        ----------
        rows
            Rows of the window, with a start and a stop.
        columns
            Columns of the window, with a start and a stop.

        Returns
        -------
        model : `ForwardModel`
            Model of the exposures cut to the window; its sampling cuts their
            data.
        """
        cut = copy.copy(self)
        cut.sampling = self.sampling.window(rows, columns)
        if self._coefficients is not None:
            within = self.sampling.grid.crop(self._coefficients)[..., rows, columns]
            cut._coefficients = _extend(within, cut.sampling.grid)
        if cut.shape != self.shape:
            cut._otfs, cut.inverse_target_power, cut.target_transform = cut._difference_otfs()
        return cut

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return self._otfs.shape[0]

    @property
    def mean_otfs(self) -> torch.Tensor:
        """Transforms of the patch-averaged difference kernels.

        Shape (n, Hl, Wl // 2 + 1), complex64.
        """
        return self._otfs[:, 0]

    @property
    def local_otfs(self) -> torch.Tensor:
        """Transforms of the difference kernels averaged over the patch.

        They differ from `mean_otfs` in a window.  Shape (n, Hl, Wl // 2 + 1),
        complex64.
        """
        if self._coefficients is None:
            return self.mean_otfs
        coefficients = self.crop(self._coefficients).mean(dim=(-1, -2))[:, :, None, None]
        return self._otfs[:, 0] + (coefficients * self._otfs[:, 1:]).sum(dim=1)

    def _difference_otfs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kernels = self._kernels
        height, width = self.latent_shape
        ky = torch.fft.fftfreq(height, dtype=kernels.dtype, device=kernels.device)[:, None]
        kx = torch.fft.rfftfreq(width, dtype=kernels.dtype, device=kernels.device)[None, :]
        sigma = fwhm_to_sigma(self.target_fwhm)
        target = torch.exp(-2.0 * (math.pi * sigma) ** 2 * (ky**2 + kx**2))
        inverse = self._inverse(target)
        inverse_power = (1.0 + _DECONVOLUTION_FLOOR) / (target**2 + _DECONVOLUTION_FLOOR)
        otfs = torch.empty((*kernels.shape[:2], *inverse.shape), dtype=torch.complex64, device=kernels.device)
        # One exposure at a time: double precision takes four times the memory.
        for t in range(len(kernels)):
            otfs[t] = self.transfer(kernels[t]) * inverse
        return otfs, inverse_power.float(), target.float()

    def _inverse(self, target: torch.Tensor) -> torch.Tensor:
        """Return what makes difference kernels of PSFs."""
        return target * (1.0 + _DECONVOLUTION_FLOOR) / (target**2 + _DECONVOLUTION_FLOOR)

    def transfer(self, kernels: torch.Tensor) -> torch.Tensor:
        """Return the transforms of kernels with their centre at the origin.

        Parameters
        ----------
        kernels
            Shape (..., K, K), K odd, at most the size of the latent image.

        Returns
        -------
        otfs : `torch.Tensor`
            Shape (..., Hl, Wl // 2 + 1), complex, of the precision of the
            kernels.
        """
        size = kernels.shape[-1]
        rows, columns = self.latent_shape
        padded = torch.nn.functional.pad(kernels, (0, columns - size, 0, rows - size))
        return torch.fft.rfft2(torch.roll(padded, (-(size // 2), -(size // 2)), dims=(-2, -1)))

    def transform(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the real Fourier transform of latent images.

        Parameters
        ----------
        latent
            Shape (..., *latent_shape).

        Returns
        -------
        transform : `torch.Tensor`
            Shape (..., Hl, Wl // 2 + 1), complex.
        """
        return torch.fft.rfft2(latent)

    def inverse_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Return latent images from their Fourier transforms.

        Parameters
        ----------
        transform
            Shape (..., Hl, Wl // 2 + 1), complex.

        Returns
        -------
        latent : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return torch.fft.irfft2(transform, s=self.latent_shape)

    def fold_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Return the mean over all frequencies of a real half-plane array.

        Parameters
        ----------
        transform
            Shape (..., Hl, Wl // 2 + 1), real, of an array that is symmetric
            in frequency.

        Returns
        -------
        mean : `torch.Tensor`
            Shape (...), the mean over the whole frequency plane, which is
            what a power spectrum contributes to the variance of one pixel.
        """
        columns = transform.mean(dim=-2)
        width = self.latent_shape[1]
        return (2.0 * columns.sum(dim=-1) - columns[..., 0] - columns[..., -1]) / width

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """Place maps of the patch on the latent grid, zeros in the margin.

        Parameters
        ----------
        maps
            Shape (..., H, W).

        Returns
        -------
        embedded : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return self.sampling.grid.embed(maps)

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """Cut the margin off images on the latent grid.

        Parameters
        ----------
        images
            Shape (..., *latent_shape).

        Returns
        -------
        maps : `torch.Tensor`
            Shape (..., H, W).
        """
        return self.sampling.grid.crop(images)

    def predict(self, latent: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Predict exposures from the latent image.

        Parameters
        ----------
        latent
            Shape latent_shape for one image, or (n, *latent_shape) for an
            image of its own for each exposure.
        exposures
            Indices of the exposures to predict; all by default.

        Returns
        -------
        prediction : `torch.Tensor`
            Shape (n, h, w), in the pixels of the exposures.
        """
        otfs = self._otfs if exposures is None else self._otfs[exposures]
        transform = self.filtered(self.transform(latent))
        images = self.inverse_transform(transform * otfs[:, 0])
        if self._coefficients is not None:
            coefficients = self._coefficients if exposures is None else self._coefficients[exposures]
            for b in range(coefficients.shape[1]):
                term = self.inverse_transform(transform * otfs[:, b + 1])
                images = images + coefficients[:, b] * term
        return self.sampling.observe(images, exposures)

    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the adjoint of `predict` for one latent image.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures that ``data`` belong to; all by default.

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape, the sum over exposures.
        """
        otfs = self._otfs if exposures is None else self._otfs[exposures]
        images = self.sampling.adjoint(data, exposures)
        total = (self.transform(images) * otfs[:, 0].conj()).sum(dim=0)
        if self._coefficients is not None:
            coefficients = self._coefficients if exposures is None else self._coefficients[exposures]
            for b in range(coefficients.shape[1]):
                term = self.transform(coefficients[:, b] * images)
                total = total + (term * otfs[:, b + 1].conj()).sum(dim=0)
        return self.inverse_transform(self.filtered(total))

    def filtered(self, transform: torch.Tensor) -> torch.Tensor:
        """Multiply the transform of an image with what its sampling needs.

        Parameters
        ----------
        transform
            Shape (..., Hl, Wl // 2 + 1).

        Returns
        -------
        filtered : `torch.Tensor`
            Shape (..., Hl, Wl // 2 + 1).
        """
        prefilter = self.sampling.prefilter
        return transform if prefilter is None else transform * prefilter


def _margin(psfs: torch.Tensor, length: int) -> int:
    """Return the distance beyond which PSFs have hardly any light.

    What lies further wraps around; the latent image holds a whole PSF.
    """
    mean = psfs.mean(dim=(1, 2)).abs()
    radius = psfs.shape[-1] // 2
    for margin in range(max(0, radius + 1 - length // 2), radius):
        inner = slice(radius - margin, radius + margin + 1)
        beyond = 1.0 - mean[:, inner, inner].sum(dim=(1, 2)) / mean.sum(dim=(1, 2))
        if float(beyond.max()) < _LIGHT_BEYOND:
            return margin
    return radius


def _separate(psfs: torch.Tensor, grid: LatentGrid) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Split PSFs into a mean kernel and components with coefficient maps.

    Returns kernels of shape (n, 1 + B, P, P) and, where the PSF of any
    exposure varies, coefficients of shape (n, B, *latent_shape).
    """
    n, cells_y, cells_x = psfs.shape[:3]
    mean = psfs.mean(dim=(1, 2))
    deviation = (psfs - mean[:, None, None]).reshape(n, cells_y * cells_x, -1)
    left, values, right = torch.linalg.svd(deviation, full_matrices=False)
    scale = _PSF_RANK_TOLERANCE * torch.linalg.vector_norm(mean, dim=(1, 2)) * math.sqrt(cells_y * cells_x)
    rank = int((values > scale[:, None]).sum(dim=1).max())
    if rank == 0:
        return mean[:, None], None
    kernels = torch.cat([mean[:, None], right[:, :rank].reshape(n, rank, *mean.shape[1:])], dim=1)
    nodes = (left[:, :, :rank] * values[:, None, :rank]).transpose(1, 2).reshape(n, rank, cells_y, cells_x)
    for dim in (-2, -1):
        nodes = _interpolate_nodes(nodes, grid.shape[dim], dim)
    return kernels, _extend(nodes.to(torch.float32), grid)


def _interpolate_nodes(nodes: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """Interpolate linearly between the centres of cells, and beyond them."""
    number = nodes.shape[dim]
    if number == 1:
        sizes = list(nodes.shape)
        sizes[dim] = length
        return nodes.expand(sizes)
    pixels = torch.arange(length, dtype=nodes.dtype, device=nodes.device)
    position = (pixels + 0.5) * number / length - 0.5
    first = position.floor().long().clamp(0, number - 2)
    shape = [1] * nodes.ndim
    shape[dim] = length
    share = (position - first).reshape(shape)
    return (1.0 - share) * nodes.index_select(dim, first) + share * nodes.index_select(dim, first + 1)


def _extend(maps: torch.Tensor, grid: LatentGrid) -> torch.Tensor:
    """Continue maps of the patch into the margin with their edges."""
    m = grid.margin
    bottom, right = (full - size - m for full, size in zip(grid.latent_shape, grid.shape, strict=True))
    rows = [
        torch.arange(-before, size + after, device=maps.device).clamp(0, size - 1)
        for before, after, size in ((m, bottom, grid.shape[0]), (m, right, grid.shape[1]))
    ]
    return maps[..., rows[0], :][..., rows[1]]
