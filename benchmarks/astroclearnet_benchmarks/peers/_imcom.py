# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PyIMCOM: linear combination of pixels to a target PSF."""

from __future__ import annotations

__all__ = ("ImcomSystem", "PyImcom")

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsst.astroclearnet.core import ExposureStack, InputError, fwhm_to_sigma

from ..baselines import Restoration, Restorer

_STAMP = 8
"""Pixels on a side of the output stamps solved at once; the cost is least
where they are about as wide as the padding."""

_SUPPORT = 6
"""Pixels that the package's interpolation reaches."""


@dataclass(frozen=True)
class PyImcom(Restorer):
    """IMCOM by the linear algebra of the package pyimcom.

    Rowe, Hirata & Rhodes (2011, ApJ 741, 46); Cao, Hirata et al. (2025, ApJS
    277, 55).  Each output pixel is the combination of the usable input pixels
    around it that minimises the squared difference between its PSF and the
    target, plus kappa times its noise.

    It gives for each kappa the combination and its noise variance, without the
    photon noise of sources; NaN where no pixel can be used.

    Attributes
    ----------
    kappas
        Lagrange multipliers in units of the target's squared norm; an image
        is handed over for each.
    padding
        Pixels around a stamp of 8x8 output pixels whose data enter it.
    block
        Pixels on a side of the central square to combine, or `None` for all;
        NaN outside.
    name
        Words that name the method in a table.

    Notes
    -----
    The driver of the package reads Roman files.  Used here are its
    correlations of PSFs and their interpolation (``psfutil.PSFGrp``,
    ``OutPSF`` and ``PSFOvl``) and its Cholesky kernel
    (``lakernel.CholKernel``).  Its default values of kappa are 1e-5, 1e-4 and
    1e-3; larger ones leave less noise and a PSF further from the target.  Not
    used are the fading between stamps and its choice of kappa for each pixel.
    The package knows no noise levels; PSFs and data are divided here by the
    median sigma of their exposure, so that the noise is counted as it is.

    A stamp costs the Cholesky factor of a matrix of n (8 + 2 padding)^2 rows,
    about a second for 12 exposures, for each kappa.  Stamps with the same
    masks share it, but where cosmic rays are masked hardly any do: combine a
    block.
    """

    kappas: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    padding: int = 6
    block: int | None = None
    name: str = "PyIMCOM"

    def __post_init__(self) -> None:
        if not self.kappas or not min(self.kappas) > 0:
            raise InputError(f"kappas={self.kappas} must be one or more positive numbers.")
        if self.padding < 0 or (self.block is not None and self.block < 1):
            raise InputError(
                f"padding={self.padding} must not be negative, and block={self.block} positive or None."
            )

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        if not target_fwhm > 0:
            raise InputError(f"target_fwhm={target_fwhm} must be a positive number of pixels.")
        stack = ExposureStack.from_arrays(images, variances, good, psfs)
        usable = stack.good.numpy()
        sigmas = np.array(
            [
                np.sqrt(np.median(v[g])) if g.any() else 1.0
                for v, g in zip(stack.variances.numpy(), usable, strict=True)
            ]
        )
        unit = float(np.median(sigmas))
        relative = sigmas / unit
        span = _STAMP + 2 * self.padding
        y, x = np.mgrid[:span, :span].astype(float) - self.padding
        positions = np.tile(np.stack([y.ravel(), x.ravel()]), (len(sigmas), 1, 1))
        psfs = stack.psfs[:, 0, 0].numpy() / relative[:, None, None]
        system = ImcomSystem(psfs, target_fwhm, positions)
        data = stack.images.numpy() / relative[:, None, None]
        for kappa in self.kappas:
            image, amplification = self._combine(system, data, usable, kappa)
            yield Restoration(image=image, fwhm=target_fwhm, variance=amplification * unit**2)

    def _combine(
        self, system: ImcomSystem, data: NDArray[Any], usable: NDArray[np.bool_], kappa: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the combination and the amplification of noise variance."""
        height, width = data.shape[1:]
        pad = ((0, 0), *((self.padding, self.padding + _STAMP),) * 2)
        data, usable = np.pad(data, pad), np.pad(usable, pad)
        rows, columns = (range(*_limits(size, self.block), _STAMP) for size in (height, width))
        span = _STAMP + 2 * self.padding
        stamps: dict[bytes, list[tuple[int, int]]] = {}
        for y in rows:
            for x in columns:
                key = usable[:, y : y + span, x : x + span].tobytes()
                stamps.setdefault(key, []).append((y, x))
        image = np.full((height + _STAMP, width + _STAMP), np.nan)
        amplification = image.copy()
        for corners in stamps.values():
            y, x = corners[0]
            use = usable[:, y : y + span, x : x + span].ravel()
            if not use.any():
                continue
            weights, noise = system.solve(use, kappa)
            for y, x in corners:
                values = data[:, y : y + span, x : x + span].ravel()[use]
                image[y : y + _STAMP, x : x + _STAMP] = (weights @ values).reshape(_STAMP, _STAMP)
                amplification[y : y + _STAMP, x : x + _STAMP] = noise
        outside = np.ones(image.shape, dtype=bool)
        outside[slice(*_limits(height, self.block)), slice(*_limits(width, self.block))] = False
        image[outside] = amplification[outside] = np.nan
        return image[:height, :width], amplification[:height, :width]


def _limits(size: int, block: int | None) -> tuple[int, int]:
    """Return the first pixel to combine and the one after the last."""
    if block is None or block >= size:
        return 0, size
    first = (size - block) // 2
    return first, first + block


class ImcomSystem:
    """The overlaps of the pixels around a stamp of 8x8 output pixels, as the
    package makes them.

    Parameters
    ----------
    psfs
        Shape (n, P, P), PSFs over relative sigmas, on output pixels.
    target_fwhm
        FWHM of the target in output pixels.
    positions
        Shape (n, 2, m), rows and columns of pixels of each exposure, in output
        pixels from the first of the stamp.
    """

    def __init__(self, psfs: NDArray[Any], target_fwhm: float, positions: NDArray[np.float64]) -> None:
        from pyimcom.config import Settings
        from pyimcom.psfutil import OutPSF, PSFGrp, PSFOvl

        n, _, number = positions.shape
        span = int(np.ceil(np.ptp(positions, axis=(0, 2)).max())) + 1
        size = max(psfs.shape[-1], 2 * (span + _SUPPORT) + 1)
        edge = (size - psfs.shape[-1]) // 2
        # The package keeps its sampling in classes: here one sample and one
        # output pixel for each pixel of the data.
        PSFGrp.setup(npixpsf=size + 1, oversamp=1, dtheta=Settings.pixscale_native / Settings.arcsec / 3600.0)
        PSFOvl.setup(flat_penalty=0.0)
        sigma = fwhm_to_sigma(target_fwhm)
        padded = np.pad(psfs, ((0, 0), (edge, edge), (edge, edge)))
        inputs = SimpleNamespace(
            in_or_out=True,
            n_psf=n,
            idx_blk2grp=np.arange(n),
            psf_rft=PSFGrp.accel_pad_and_rfft2(padded),
        )
        target = SimpleNamespace(
            in_or_out=False,
            n_psf=1,
            psf_rft=PSFGrp.accel_pad_and_rfft2(OutPSF.psf_gaussian(size, sigma, sigma)[None]),
        )
        stamp = SimpleNamespace(
            blk=SimpleNamespace(n_inimage=n),
            x_val=positions[:, 1].ravel(),
            y_val=positions[:, 0].ravel(),
            pix_count=np.full(n, number),
            pix_cumsum=np.arange(n + 1) * number,
            j_st=0,
            i_st=0,
        )
        grid = np.mgrid[:_STAMP, :_STAMP].astype(float)
        every = np.arange(n * number)
        output = SimpleNamespace(yx_val=grid, j_st=0, i_st=0, selections=[every] * 9)
        self._overlaps = PSFOvl(inputs)(stamp)
        self._targets = PSFOvl(inputs, target)(stamp, output)
        self._norm = PSFOvl(target).outovlc

    def solve(self, use: NDArray[np.bool_], kappa: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the weights of usable pixels, and the noise they amplify.

        Parameters
        ----------
        use
            Shape (n m,), bool, the pixels.
        kappa
            Lagrange multiplier.

        Returns
        -------
        weights : `numpy.ndarray`
            Shape (64, k), those of the k pixels used.
        amplification : `numpy.ndarray`
            Shape (8, 8), of the variance.
        """
        from pyimcom.lakernel import CholKernel

        config = SimpleNamespace(
            n_out=1, n2f=_STAMP, kappaC_arr=np.array([kappa]), uctarget=0.0, sigmamax=np.inf
        )
        stamp = SimpleNamespace(
            blk=SimpleNamespace(cfg=config),
            inpix_cumsum=[0, int(use.sum())],
            sysmata=self._overlaps[np.ix_(use, use)],
            mhalfb=self._targets[:, :, use],
            outovlc=self._norm,
        )
        # The kernel prints its timing.
        with contextlib.redirect_stdout(io.StringIO()):
            CholKernel(stamp)()
        return stamp.T[0], stamp.Sigma[0]
