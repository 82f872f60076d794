# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arrays in memory or in temporary files."""

from __future__ import annotations

__all__ = ("Scratch",)

import mmap
import tempfile

import numpy as np


class Scratch:
    """Storage of arrays in memory up to a limit, then in temporary files.

    The files have no name: they go with the arrays, however the process ends.

    Parameters
    ----------
    max_bytes
        Bytes to keep in memory; no limit by default.
    folder
        Directory for the files; the system's temporary one by default.
    """

    def __init__(self, max_bytes: float = float("inf"), folder: str | None = None) -> None:
        self._left = max_bytes
        self._folder = folder
        self.resident_bytes = 0
        """Bytes of the arrays that are in memory (`int`)."""
        self.file_bytes = 0
        """Bytes of the arrays that are in files (`int`)."""

    def store(self, array: np.ndarray) -> np.ndarray:
        """Return the same values: the array itself, or read-only from a file.

        Parameters
        ----------
        array
            An array, not to be used any more.

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
    def release(*arrays: np.ndarray) -> None:
        """Free the memory that arrays in files took as they were read.

        Parameters
        ----------
        *arrays
            Arrays from `store`; those in memory stay as they are.
        """
        for array in arrays:
            if isinstance(array, np.memmap):
                # The only way to the mapping that NumPy has.
                array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
