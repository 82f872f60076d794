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

import dataclasses
import functools
from collections.abc import Sequence

import torch

from .._errors import InputError
from ..exposures import ExposureStack, PixelPositions
from ._alike_kernels import find_alike
from ._autograd import apply_linear
from ._convolution import Convolution, ConvolutionMemory
from ._latent_grid import LatentGrid, LatentSpace, psf_margin
from ._normal_operator import NormalOperator
from ._sampling import Sampling
from ._threads import ordered_map
from ._varying_kernels import VaryingKernels

_DECONVOLUTION_FLOOR = 1e-6
"""Power of the target OTF below which the difference kernel fades out."""

_LARGEST_FWHM = 100.0
"""FWHM in pixels of the widest target PSF; memory goes with its square."""


@dataclasses.dataclass(frozen=True)
class LocalKernels:
    """Mean difference kernels in a box of the patch, as transforms.

    Attributes
    ----------
    space
        Grid of the box.
    otfs
        Shape (n, Hl, Wl // 2 + 1), complex64, transforms of the kernels.
    inverse_target_power
        Shape (Hl, Wl // 2 + 1), one over the power of the target PSF.
    """

    space: LatentSpace
    otfs: torch.Tensor
    inverse_target_power: torch.Tensor


class ForwardModel(LatentSpace):
    """The sky at the target PSF, seen through each exposure.

    The latent image R is the sky convolved with the target PSF g, a circular
    Gaussian, so that it is well sampled.  Exposure t is predicted in two
    steps: convolution with its difference kernel k(t), the PSF f(t)
    deconvolved by g (Magain, Courbin & Sohy 1998, ApJ 494, 472), and sampling
    at the centres of the pixels of the exposure, times their area.  Exposures
    stay on their own grids, so that their pixels are compared as they were
    measured, with noise that is independent from pixel to pixel.

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
    sampling
        Sampling at these positions, if it is already there.

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
        sampling: Sampling | None = None,
    ) -> None:
        if not (target_fwhm > 0 and self._least_fwhm <= target_fwhm <= _LARGEST_FWHM):
            raise InputError(
                f"target_fwhm={target_fwhm} pixels cannot be sampled: give at least {self._least_fwhm}, "
                f"better 2.5, and at most {_LARGEST_FWHM:g}.",
                target_fwhm=target_fwhm,
            )
        self.target_fwhm = target_fwhm
        if sampling is None:
            positions = positions if positions is not None else _patch_positions(shape, psfs)
            sampling = Sampling(positions, LatentGrid(shape, psf_margin(psfs, min(shape))))
        super().__init__(sampling.grid)
        self.sampling = sampling
        self._kernels = VaryingKernels.separate(psfs, self.grid)
        target = self.gaussian_transform(target_fwhm, psfs)
        self._convolution = self._convolve_with(self._kernels, self._inverse(target))
        self._operator = NormalOperator(self._convolution, self.sampling)
        self.inverse_target_power, self.target_transform = _inverse_power(target).float(), target.float()

    @classmethod
    def from_stack(cls, stack: ExposureStack, target_fwhm: float) -> ForwardModel:
        """Construct the model of a stack of exposures, on its device.

        Parameters
        ----------
        stack
            The exposures.
        target_fwhm
            FWHM of the target PSF in pixels.
        """
        return cls(stack.psfs, stack.shape, target_fwhm, stack.positions)

    def with_psfs(self, psfs: torch.Tensor) -> ForwardModel:
        """Return the model for other PSFs, on the same latent grid.

        Parameters
        ----------
        psfs
            Shape (n, n_cells_y, n_cells_x, P, P), as given.
        """
        return ForwardModel(psfs, self.shape, self.target_fwhm, sampling=self.sampling)

    def local(self, rows: slice, columns: slice) -> LocalKernels:
        """Return the difference kernels in a box of the patch.

        Parameters
        ----------
        rows
            Rows of the box, with a start and a stop.
        columns
            Columns of the box, with a start and a stop.

        Returns
        -------
        kernels : `LocalKernels`
            Their means over the box.
        """
        shape = rows.stop - rows.start, columns.stop - columns.start
        space = LatentSpace(LatentGrid(shape, self.grid.margin))
        kernels = self._kernels.mean(rows, columns, self.grid)
        target = space.gaussian_transform(self.target_fwhm, kernels)
        otfs = space.transfer(kernels) * self._inverse(target)
        return LocalKernels(space, otfs.to(torch.complex64), _inverse_power(target).float())

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return len(self._convolution.means)

    @property
    def mean_otfs(self) -> torch.Tensor:
        """Transforms of the patch-averaged difference kernels.

        Shape (n, Hl, Wl // 2 + 1), complex64.
        """
        return self._convolution.means

    @functools.cached_property
    def kernel_numbers(self) -> tuple[int, ...]:
        """The same number for exposures whose kernels are much alike."""
        return find_alike(self.mean_otfs, self.inverse_target_power)

    @property
    def memory(self) -> list[ConvolutionMemory]:
        """Memory of its sums, for others on the same grid."""
        return self._operator.memory

    @property
    def psf_varies(self) -> bool:
        """Whether the PSF of an exposure varies over the patch (`bool`)."""
        return any(rank > 0 for rank in self._kernels.ranks)

    def _inverse(self, target: torch.Tensor) -> torch.Tensor:
        """Return what makes difference kernels of PSFs."""
        return target * _inverse_power(target)

    def _convolve_with(self, kernels: VaryingKernels, inverse: torch.Tensor) -> Convolution:
        """Return the convolution with kernels, deconvolved."""
        # One exposure at a time: double precision takes twice the memory.
        otfs = [
            (self.transfer(kernel[: 1 + rank]) * inverse).to(torch.complex64)
            for kernel, rank in zip(kernels.kernels, kernels.ranks, strict=True)
        ]
        return Convolution(
            means=torch.stack([otf[0] for otf in otfs]),
            # A view would keep the transform of the mean a second time.
            components=tuple(otf[1:].clone() for otf in otfs),
            coefficients=tuple(kernels.coefficients(t) for t in range(len(otfs))),
            latent_shape=self.latent_shape,
        )

    def predict(
        self, latent: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Predict exposures from the latent image.

        Parameters
        ----------
        latent
            Shape latent_shape.
        exposures
            Indices of the exposures to predict; all by default.

        Returns
        -------
        prediction : `torch.Tensor`
            Shape (n, h, w), in the pixels of the exposures.
        """
        return apply_linear(
            lambda images: self._predict(images, exposures),
            lambda data: self.adjoint(data, exposures),
            latent,
        )

    def adjoint(
        self,
        data: torch.Tensor,
        exposures: torch.Tensor | Sequence[int] | None = None,
        *,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Apply the adjoint of `predict` for one latent image.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Their indices; all by default.
        weights
            Shape (n, h, w), what data are multiplied with before; 1 by
            default.

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape, the sum over exposures.
        """
        return self._operator.adjoint(data, weights, self.sampling.indices(exposures))

    def normal(
        self,
        latents: torch.Tensor,
        weights: torch.Tensor,
        exposures: torch.Tensor | Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Predict exposures, weight them, and apply the adjoint.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``, several latent images.
        weights
            Shape (n, h, w), in the pixels of the exposures.
        exposures
            Their indices; all by default.

        Returns
        -------
        latents : `torch.Tensor`
            Shape ``(b, *latent_shape)``, sums over exposures.
        """
        return self._operator.normal(latents, weights, self.sampling.indices(exposures))

    def power(self, exposure: int) -> torch.Tensor:
        """Return the power of the mean difference kernel, (Hl, Wl // 2 + 1).

        Parameters
        ----------
        exposure
            Index of the exposure.
        """
        return self._convolution.power(exposure)

    def total_power(
        self, weights: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Return the weighted sum of the powers of exposures.

        Parameters
        ----------
        weights
            Shape (n,), weights of the exposures.
        exposures
            Their indices; all by default.
        """
        return self._convolution.total_power(weights, self.sampling.indices(exposures))

    def filter_images(self, images: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """Multiply the transforms of images with real gains.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``.
        gain
            Shape (Hl, Wl // 2 + 1) or (b, Hl, Wl // 2 + 1).
        """
        return self._convolution.filter_images(images, gain.expand(len(images), -1, -1))

    def filtered(self, transform: torch.Tensor) -> torch.Tensor:
        """Multiply the transform of an image with the prefilter of sampling.

        Parameters
        ----------
        transform
            Shape (..., Hl, Wl // 2 + 1).
        """
        prefilter = self.sampling.prefilter
        return transform if prefilter is None else transform * prefilter

    def _predict(self, latent: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None) -> torch.Tensor:
        chosen = self.sampling.indices(exposures)
        transform = self._convolution.transform(latent[None], self.sampling.prefilter)

        def one(index: int, memory: ConvolutionMemory) -> torch.Tensor:
            self._convolution.convolve(transform, chosen[index], memory)
            return self.sampling.observe(memory.images, chosen[index : index + 1])[0]

        number = len(chosen)
        data = torch.empty(number, *self.sampling.area.shape[1:], device=latent.device)
        memories = self._operator.memories(1, number)
        for index, part in enumerate(ordered_map(one, range(number), memories)):
            data[index] = part
        return data


def _patch_positions(shape: tuple[int, int], psfs: torch.Tensor) -> PixelPositions:
    """Return the positions of exposures on the pixels of the patch."""
    whole = (len(psfs), *shape)
    y, x = (torch.arange(length, dtype=torch.float64, device=psfs.device) for length in shape)
    area = torch.ones((), device=psfs.device)
    return PixelPositions(shape, y[:, None].expand(whole), x.expand(whole), area.expand(whole))


def _inverse_power(target: torch.Tensor) -> torch.Tensor:
    return (1.0 + _DECONVOLUTION_FLOOR) / (target**2 + _DECONVOLUTION_FLOOR)
