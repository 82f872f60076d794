# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Survey property maps of the restored coadds of a tract."""

from __future__ import annotations

__all__ = ("MakePropertyMapsConfig", "MakePropertyMapsConnections", "MakePropertyMapsTask")

from collections.abc import Mapping
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.pex.config import Field, RangeField
from lsst.pipe.base import (
    InputQuantizedConnection,
    NoWorkFound,
    OutputQuantizedConnection,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from ..metrics import HealpixSums
from ._property_maps import PROPERTY_MAPS, map_properties, sum_properties

_INPUTS = ("restored_coadd_linear", "restored_coadd_linear_noise", "restored_coadd_demand")


class MakePropertyMapsConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "band"),
    defaultTemplates={"output_name": "restored_coadd", "map_prefix": "restoredCoadd"},
):
    """Inputs and outputs of `MakePropertyMapsTask`.

    There is an output for each of `PROPERTY_MAPS`, named as the property maps
    of ``lsst.pipe.tasks``: with a prefix that ends with ``Coadd``, the stock
    tasks that consolidate and plot them take these too.
    """

    restored_coadd_linear = cT.Input(
        doc="Restored coadds to measure on.",
        name="{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    restored_coadd_linear_noise = cT.Input(
        doc="Correlation of their noise.",
        name="{output_name}_linear_noise",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    restored_coadd_demand = cT.Input(
        doc="Share of the restored light that the exposures demand.",
        name="{output_name}_demand",
        storageClass="MaskedImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    for _map in PROPERTY_MAPS:
        vars()[_map.full_name] = cT.Output(
            doc=f"{_map.description}.",
            name=f"{{map_prefix}}_{_map.full_name}",
            storageClass="HealSparseMap",
            dimensions=("skymap", "tract", "band"),
        )
    del _map


class MakePropertyMapsConfig(PipelineTaskConfig, pipelineConnections=MakePropertyMapsConnections):
    """Configuration of `MakePropertyMapsTask`."""

    nside = Field[int](
        doc="Resolution of the maps, a power of two; 32768 is that of Rubin's, with pixels of 6.4 arcsec.",
        default=32768,
        check=lambda nside: nside > 0 and nside & (nside - 1) == 0,
    )
    nside_coverage = Field[int](
        doc="Resolution of the coverage of the maps, a power of two.",
        default=128,
        check=lambda nside: nside > 0 and nside & (nside - 1) == 0,
    )
    min_coverage = RangeField(
        dtype=float,
        doc="Part of the area of a pixel of the map that must have data.",
        default=0.5,
        min=0.0,
        max=1.0,
    )

    def validate(self) -> None:
        super().validate()
        if self.nside_coverage > self.nside:
            raise ValueError(
                f"nside_coverage={self.nside_coverage} is above nside={self.nside}: choose a smaller one."
            )


class MakePropertyMapsTask(PipelineTask):
    """Make maps of depth, number of exposures, PSF and the light that was
    supplied or withheld, of the restored coadds of a tract in one band.

    Each patch counts within its inner box, so that no pixel counts twice.
    """

    ConfigClass = MakePropertyMapsConfig
    _DefaultName = "makePropertyMaps"
    config: MakePropertyMapsConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        inputs = butlerQC.get(inputRefs)
        patches: dict[int, dict[str, Any]] = {}
        for name in _INPUTS:
            for handle in inputs[name]:
                patches.setdefault(int(handle.dataId["patch"]), {})[name] = handle
        outputs = self.run(patches=patches)
        try:
            butlerQC.put(outputs, outputRefs)
        except ImportError as error:
            raise RuntimeError(
                "The repository writes HealSparse maps with lsst.pipe.tasks, which is not installed.  Set "
                "datastore.formatters.HealSparseMap in its butler.yaml to "
                "lsst.astroclearnet.repository.HealSparseMapFormatter."
            ) from error

    @timeMethod
    def run(self, *, patches: Mapping[int, Mapping[str, Any]]) -> Struct:
        """Make the maps of a tract.

        Parameters
        ----------
        patches
            Handles of the datasets ``restored_coadd_linear``,
            ``restored_coadd_linear_noise`` and ``restored_coadd_demand`` by
            their names, for each patch.  One without all of them is left out.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            A `healsparse.HealSparseMap` for each of `PROPERTY_MAPS`, by its
            full name.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no inner pixel of any patch has data.
        """
        parts = []
        for patch, datasets in sorted(patches.items()):
            part = self._sum_patch(patch, datasets)
            if part is not None:
                parts.append(part)
        self.metadata["num_patches"] = len(parts)
        self.metadata["num_left_out"] = len(patches) - len(parts)
        if not parts:
            raise NoWorkFound("No patch of the tract has restored pixels to map.")
        maps = map_properties(
            HealpixSums.combine(parts), self.config.nside_coverage, self.config.min_coverage
        )
        return Struct(**maps)

    def _sum_patch(self, patch: int, datasets: Mapping[str, Any]) -> HealpixSums | None:
        """Read and sum a patch; nothing if it has to be left out."""
        if missing := [name for name in _INPUTS if name not in datasets]:
            self.log.warning("Patch %d is left out of the maps: it has no %s.", patch, ", ".join(missing))
            return None
        try:
            linear, noise, demand = (datasets[name].get() for name in _INPUTS)
        except FileNotFoundError as error:
            self.log.warning("Patch %d is left out of the maps: a file is gone (%s).", patch, error)
            return None
        sums = sum_properties(linear, noise, demand, self.config.nside)
        if sums is None:
            self.log.info("Patch %d is left out of the maps: no inner pixel has data.", patch)
        return sums
