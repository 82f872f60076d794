# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the grid of the patch to the pixels of the exposures, and back."""

from __future__ import annotations

__all__ = ("Sampling",)

from abc import ABC, abstractmethod

import torch

from ._latent_grid import LatentGrid


class Sampling(ABC):
    """Takes images on the latent grid to the pixels of the exposures.

    "Data" are arrays of shape (n, h, w) on the pixels of the exposures,
    "maps" have shape (n, H, W) on the grid of the patch, and "images" the
    shape of the latent image, which has a margin around the patch.
    """

    grid: LatentGrid
    """Grid of the patch and the latent image."""

    @property
    @abstractmethod
    def prefilter(self) -> torch.Tensor | None:
        """What the transform of an image is to be multiplied with before it
        is observed, shape (Hl, Wl // 2 + 1); `None` for one.
        """

    @property
    @abstractmethod
    def area(self) -> torch.Tensor:
        """Area of the pixels of the exposures in pixels of the patch, of
        shape (n, h, w) or one that broadcasts to it.
        """

    @abstractmethod
    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the pixels of the exposures lie on the patch.

        Returns
        -------
        y, x : `torch.Tensor`
            Rows and columns of the patch, of shapes that broadcast to
            (n, h, w); NaN for a pixel that is not on the patch.
        """

    @abstractmethod
    def observe(self, images: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Sample one image for each exposure on its pixels.

        Parameters
        ----------
        images
            Shape ``(n, *latent_shape)``, light per pixel of the patch,
            multiplied with the prefilter.
        exposures
            Indices of the exposures that ``images`` belong to; all by
            default.

        Returns
        -------
        data : `torch.Tensor`
            Shape (n, h, w), light per pixel of the exposures.
        """

    @abstractmethod
    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the adjoint of `observe`.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures that ``data`` belong to; all by default.

        Returns
        -------
        images : `torch.Tensor`
            Shape ``(n, *latent_shape)``.
        """

    @abstractmethod
    def normal(
        self, images: torch.Tensor, weights: torch.Tensor, exposure: int, scratch: torch.Tensor
    ) -> None:
        """Sample images on one exposure, weight the data and go back.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, contiguous, replaced by the adjoint
            of their weighted data.
        weights
            Shape (h, w).
        exposure
            Index of the exposure.
        scratch
            Shape (m,), float32, with m at least the `scratch_size` of b
            images; overwritten.
        """

    @abstractmethod
    def scratch_size(self, number: int) -> int:
        """Return how much memory `normal` needs.

        Parameters
        ----------
        number
            Number of images at once.

        Returns
        -------
        size : `int`
            Number of float32 elements.
        """

    @abstractmethod
    def mean(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Return local means of data, 0 where there are none.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures that ``data`` belong to; all by default.

        Returns
        -------
        maps : `torch.Tensor`
            Shape (n, H, W).
        """

    @abstractmethod
    def total(self, data: torch.Tensor) -> torch.Tensor:
        """Add all data to the pixels of the patch in which they lie.

        Parameters
        ----------
        data
            Shape (n, h, w).

        Returns
        -------
        total : `torch.Tensor`
            Shape (H, W).
        """

    @abstractmethod
    def largest(self, data: torch.Tensor) -> torch.Tensor:
        """Return the largest datum in each pixel of the patch.

        Parameters
        ----------
        data
            Shape (n, h, w), not negative, or boolean.

        Returns
        -------
        maps : `torch.Tensor`
            Shape (n, H, W), new; 0 where there are none.
        """

    @abstractmethod
    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the values of maps in the pixels in which the data lie.

        Parameters
        ----------
        maps
            Shape (n, H, W) or (H, W).

        Returns
        -------
        data : `torch.Tensor`
            Shape (n, h, w), or one that broadcasts to it; 0 off the patch.
        """

    @abstractmethod
    def window(self, rows: slice, columns: slice) -> Sampling:
        """Return the sampling of a window of the patch.

        Parameters
        ----------
        rows
            Rows of the window, with a start and a stop.
        columns
            Columns of the window, with a start and a stop.

        Returns
        -------
        sampling : `Sampling`
            Sampling on the pixels that lie in the window.
        """

    @abstractmethod
    def cut(self, data: torch.Tensor) -> torch.Tensor:
        """Cut data of the whole patch to those of this window.

        Parameters
        ----------
        data
            Shape (n, h, w), on the pixels of the sampling that this is a
            window of.

        Returns
        -------
        cut : `torch.Tensor`
            Shape (n, h', w'); 0 for pixels that do not lie in the window.
        """


class CropSampling(Sampling):
    """Sampling of exposures that lie on the grid of the patch.

    Parameters
    ----------
    grid
        Grid of the patch and the latent image.
    device
        Where the data are.
    window
        Rows and columns of a window of the patch, where it is one.
    """

    prefilter = None

    def __init__(
        self, grid: LatentGrid, device: torch.device, window: tuple[slice, slice] | None = None
    ) -> None:
        self.grid = grid
        self._device = device
        self._window = window if window is not None else (slice(None), slice(None))

    @property
    def area(self) -> torch.Tensor:
        return torch.ones((), device=self._device)

    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = self.grid.shape
        rows, columns = (torch.arange(n, dtype=torch.float64, device=self._device) for n in (height, width))
        return rows[:, None], columns[None, :]

    def observe(self, images: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return self.grid.crop(images)

    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return self.grid.embed(data)

    def normal(
        self, images: torch.Tensor, weights: torch.Tensor, exposure: int, scratch: torch.Tensor
    ) -> None:
        m, (height, width) = self.grid.margin, self.grid.shape
        self.grid.crop(images).mul_(weights)
        for rows in (slice(None, m), slice(m + height, None)):
            images[:, rows].zero_()
        for columns in (slice(None, m), slice(m + width, None)):
            images[:, m : m + height, columns].zero_()

    def scratch_size(self, number: int) -> int:
        return 0

    def mean(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return data

    def total(self, data: torch.Tensor) -> torch.Tensor:
        return data.sum(dim=0)

    def largest(self, data: torch.Tensor) -> torch.Tensor:
        return data.clone()

    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        return maps

    def window(self, rows: slice, columns: slice) -> CropSampling:
        return CropSampling(self.grid.window(rows, columns), self._device, (rows, columns))

    def cut(self, data: torch.Tensor) -> torch.Tensor:
        return data[..., self._window[0], self._window[1]]
