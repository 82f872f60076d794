# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Summarize the quality of the restored coadds of a tract."""

from __future__ import annotations

__all__ = ("SummarizeRestorationConfig", "SummarizeRestorationConnections", "SummarizeRestorationTask")

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
from astropy.table import Table

import lsst.pipe.base.connectionTypes as cT
from lsst.pex.config import Field
from lsst.pipe.base import (
    InputQuantizedConnection,
    OutputQuantizedConnection,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantumContext,
    Struct,
)

from ._quality_limits import Verdict
from ._quality_units import QUALITY_UNITS


class SummarizeRestorationConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "band"),
    defaultTemplates={"output_name": "restored_coadd"},
):
    """Inputs and outputs of `SummarizeRestorationTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    restored_coadd_quality = cT.Input(
        doc="Quality of the restored coadds of the tract.",
        name="{output_name}_quality",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
    )
    restored_coadd_quality_table = cT.Output(
        doc="Quality metrics and verdicts of the patches of a tract.",
        name="{output_name}_quality_table",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "band"),
    )
    restored_coadd_quality_map = cT.Output(
        doc="Map of the verdicts of the patches of a tract.",
        name="{output_name}_quality_map",
        storageClass="Plot",
        dimensions=("skymap", "tract", "band"),
    )

    def __init__(self, *, config: SummarizeRestorationConfig | None = None) -> None:
        super().__init__(config=config)
        if config is not None and not config.do_plot:
            del self.restored_coadd_quality_map


class SummarizeRestorationConfig(PipelineTaskConfig, pipelineConnections=SummarizeRestorationConnections):
    """Configuration of `SummarizeRestorationTask`."""

    do_plot = Field[bool](doc="Write the map of the verdicts?  It needs matplotlib.", default=True)


class SummarizeRestorationTask(PipelineTask):
    """Summarize the quality of the restored coadds of a tract in one band.

    Parameters
    ----------
    **kwargs
        Arguments of `lsst.pipe.base.PipelineTask`.
    """

    ConfigClass = SummarizeRestorationConfig
    _DefaultName = "summarizeRestoration"
    config: SummarizeRestorationConfig

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.config.do_plot and importlib.util.find_spec("matplotlib") is None:
            raise RuntimeError(
                "do_plot=True needs matplotlib: install lsst-astroclearnet[plots], or set do_plot=False."
            )

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        butlerQC.put(self.run(qualities=butlerQC.get(inputRefs.restored_coadd_quality)), outputRefs)

    def run(self, *, qualities: Sequence[Mapping[str, Any]]) -> Struct:
        """Summarize the patches of a tract.

        Parameters
        ----------
        qualities
            The dataset ``restored_coadd_quality`` of each patch, at least
            one, all of one tract and band.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_coadd_quality_table`` (`astropy.table.Table`), a row
            for each patch, in order: ``patch``, ``index_x``, ``index_y``,
            ``verdict``, ``network``, its identity, every metric, NaN where it
            is not known, and ``warnings``, the sentences of the patch; and, if
            configured,
            ``restored_coadd_quality_map`` (`matplotlib.figure.Figure`).
        """
        ordered = sorted(qualities, key=lambda quality: quality["patch"]["patch"])
        outputs = Struct(restored_coadd_quality_table=_make_table(ordered))
        if self.config.do_plot:
            from ..plots import quality_map

            outputs.restored_coadd_quality_map = quality_map(ordered)
        for verdict in Verdict:
            number = sum(quality["verdict"] == verdict for quality in ordered)
            self.metadata[f"num_{verdict}"] = number
        return outputs


def _make_table(qualities: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for quality in qualities for name in quality["metrics"]))
    rows = [
        {
            "patch": quality["patch"]["patch"],
            "index_x": quality["patch"]["index_x"],
            "index_y": quality["patch"]["index_y"],
            "verdict": quality["verdict"],
            "network": quality["network"]["identity"],
            **{name: float(quality["metrics"].get(name, math.nan)) for name in names},
            "warnings": " ".join(quality["warnings"]),
        }
        for quality in qualities
    ]
    table = Table(rows=rows)
    for name in names:
        if unit := QUALITY_UNITS.get(name):
            table[name].unit = u.Unit(unit)
    first = qualities[0]["patch"]
    table.meta.update({key: first[key] for key in ("skymap", "tract", "band")})
    return table
