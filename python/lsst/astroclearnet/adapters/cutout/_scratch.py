# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arrays that need not be in memory."""

from __future__ import annotations

__all__ = ("Scratch",)

import mmap
import tempfile

import numpy as np


class Scratch:
    """Keeps arrays in memory up to a limit, and in temporary files beyond it.

    The files have no name: they go with the arrays, however the process ends.

    Parameters
    ----------
    max_bytes
        Bytes to keep in memory; no limit by default.
    folder
        Directory for the files; by default the system's.
    """

    def __init__(self, max_bytes: float = float("inf"), folder: str | None = None) -> None:
        self._left = max_bytes
        self._folder = folder
        self.resident_bytes = 0
        """Bytes of the arrays that are in memory (`int`)."""
        self.file_bytes = 0
        """Bytes of the arrays that are in files (`int`)."""

    def keep(self, array: np.ndarray) -> np.ndarray:
        """Return an array that is kept.

        Parameters
        ----------
        array
            An array, not to be used any more.

        Returns
        -------
        kept : `numpy.ndarray`
            The same values: the array itself, or read-only from a file.

        Raises
        ------
        OSError
            If there is no room for the file.
        """
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            self.resident_bytes += array.nbytes
            return array
        with tempfile.TemporaryFile(dir=self._folder) as file:
            # Written, and not mapped: a full disk is an error, and no signal.
            array.tofile(file)
            file.flush()
            self.file_bytes += array.nbytes
            return np.memmap(file, dtype=array.dtype, mode="r", shape=array.shape)

    @staticmethod
    def forget(*arrays: np.ndarray) -> None:
        """Let the memory go that arrays in files took as they were read.

        Parameters
        ----------
        *arrays
            Arrays from `keep`; those in memory stay as they are.
        """
        for array in arrays:
            if isinstance(array, np.memmap):
                # The only way to the mapping that NumPy has.
                array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
