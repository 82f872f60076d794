# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Files of HealSparse maps in repositories without the full stack."""

from __future__ import annotations

__all__ = ("HealSparseMapFormatter",)

from typing import Any

from healsparse import HealSparseCoverage, HealSparseMap

from lsst.daf.butler import FormatterV2
from lsst.resources import ResourcePath


class HealSparseMapFormatter(FormatterV2):
    """Read and write HealSparse maps.

    The formatter that the Butler is configured with is in
    ``lsst.pipe.tasks``, which only the full stack has; the files are the
    same.
    """

    default_extension = ".hsp"
    supported_extensions = frozenset({".hsp", ".fit", ".fits"})
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read a map or its coverage.

        Parameters
        ----------
        path
            The file.
        component
            ``coverage`` or nothing.
        expected_size
            Size of the file.

        Returns
        -------
        content : `healsparse.HealSparseMap` or `healsparse.HealSparseCoverage`
            The map, restricted by the parameters of the read.
        """
        if component == "coverage":
            return HealSparseCoverage.read(path)
        return HealSparseMap.read(path, **(self.file_descriptor.parameters or {}))

    def write_local_file(self, in_memory_dataset: HealSparseMap, uri: ResourcePath) -> None:
        """Write a map.

        Parameters
        ----------
        in_memory_dataset
            The map.
        uri
            The file.
        """
        in_memory_dataset.write(uri.ospath, clobber=True)
