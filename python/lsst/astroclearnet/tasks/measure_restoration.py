# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measure the quality of a restored coadd, without a truth."""

from __future__ import annotations

__all__ = ("MeasureRestorationConfig", "MeasureRestorationConnections", "MeasureRestorationTask")

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from astropy.table import Table

import lsst.pipe.base.connectionTypes as cT
from lsst.images.cells import CellCoadd
from lsst.pex.config import ChoiceField, ConfigField, Field, RangeField
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

from ..adapters import (
    CoaddArrays,
    PatchGeometry,
    coadd_from_exposure,
    direct_storage_class,
    place_on_patch,
    unusable_pixels,
)
from ._quality_limits import QualityLimitsConfig, Verdict, judge
from ._quality_metrics import CoaddImages, exposure_metrics, image_metrics
from ._quality_units import QUALITY_UNITS


class MeasureRestorationConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch", "band"),
    defaultTemplates={"reference_name": "deep_coadd", "output_name": "restored_coadd"},
):
    """Inputs and outputs of `MeasureRestorationTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    restored_coadd = cT.Input(
        doc="Restored coadd.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_metrics = cT.Input(
        doc="Metrics of the restoration and its exposures.",
        name="{output_name}_metrics",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_linear = cT.Input(
        doc="Restored coadd to measure on.",
        name="{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_linear_noise = cT.Input(
        doc="Correlation of its noise.",
        name="{output_name}_linear_noise",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    direct_coadd = cT.Input(
        doc="Coadd of the same patch made without restoration, where there is one, to compare fluxes with.",
        name="{reference_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        minimum=0,
        deferGraphConstraint=True,
    )
    restored_coadd_quality = cT.Output(
        doc="Quality metrics of the restored coadd, checks and a verdict.",
        name="{output_name}_quality",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch", "band"),
    )

    def __init__(self, *, config: MeasureRestorationConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        if not config.do_linear:
            del self.restored_coadd_linear
            del self.restored_coadd_linear_noise
        if config.do_compare_direct:
            chosen = config.direct_storage_class
            self.direct_coadd = dataclasses.replace(
                self.direct_coadd, storageClass=direct_storage_class() if chosen == "auto" else chosen
            )
        else:
            del self.direct_coadd


class MeasureRestorationConfig(PipelineTaskConfig, pipelineConnections=MeasureRestorationConnections):
    """Configuration of `MeasureRestorationTask`."""

    do_linear = Field[bool](
        doc="Measure the linear coadd too?  It must be there: see do_linear of restoreCoadd.", default=True
    )
    do_compare_direct = Field[bool](
        doc="Compare with a direct coadd where there is one (connections.reference_name)?", default=True
    )
    min_star_signal_to_noise = RangeField(
        dtype=float,
        doc="Signal-to-noise ratio from which on stars are compared.",
        default=100.0,
        min=5.0,
    )
    min_exposures = RangeField(
        dtype=int,
        doc="Number of exposures below which artefacts cannot be told from sources.",
        default=3,
        min=1,
    )
    direct_storage_class = ChoiceField[str](
        doc="Storage class that direct coadds are read as.",
        allowed={
            "auto": "ExposureF where afw is installed, else CellCoadd.",
            "CellCoadd": "A coadd of lsst.images.",
            "ExposureF": "An exposure of afw, which any coadd of the full stack can be read as.",
        },
        default="auto",
        optional=False,
    )
    limits = ConfigField[QualityLimitsConfig](doc="Limits of the verdict.")


class MeasureRestorationTask(PipelineTask):
    """Measure the quality of a restored coadd, without a truth.

    Resolution, depth, correlation of the noise, chi-square of the exposures
    and fluxes of stars, relative to the direct coadd, are compared with
    limits.  The verdict is ``good``, ``check`` or ``bad``, with reasons.
    """

    ConfigClass = MeasureRestorationConfig
    _DefaultName = "measureRestoration"
    config: MeasureRestorationConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        inputs = butlerQC.get(inputRefs)
        outputs = self.run(
            restored=inputs["restored_coadd"],
            metrics=inputs["restored_coadd_metrics"],
            linear=inputs.get("restored_coadd_linear"),
            linear_noise=inputs.get("restored_coadd_linear_noise"),
            direct=inputs.get("direct_coadd"),
        )
        butlerQC.put(outputs, outputRefs)

    @timeMethod
    def run(
        self,
        *,
        restored: CellCoadd,
        metrics: Mapping[str, Any],
        linear: CellCoadd | None = None,
        linear_noise: Table | None = None,
        direct: Any = None,
    ) -> Struct:
        """Measure the coadds of one patch in one band.

        Parameters
        ----------
        restored
            The restored coadd.
        metrics
            The dataset ``restored_coadd_metrics``.
        linear
            The linear coadd.
        linear_noise
            Correlation of its noise by cell.
        direct
            Coadd of the same patch made without restoration: a coadd in nJy,
            or a ``lsst.afw.image.ExposureF``.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_coadd_quality`` (`dict`): plain Python values in
            ``patch``, ``network`` (``source`` and ``identity``), ``metrics``,
            ``exposures``, ``checks`` (see `judge`),
            ``verdict``, ``warnings`` (words of the checks that are not good)
            and ``details`` (what the restoration warned of).

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no pixel of the restored coadd has a value.
        """
        bad = unusable_pixels(restored)
        if bad.all():
            raise NoWorkFound("No pixel of the restored coadd has a value to measure.")
        if direct is not None and not isinstance(direct, CellCoadd):
            direct = coadd_from_exposure(direct, restored)
        images = CoaddImages(
            restored=CoaddArrays.from_coadd(restored, bad),
            linear=None if linear is None else CoaddArrays.from_coadd(linear, bad, linear_noise),
            direct=None if direct is None else place_on_patch(direct, restored, bad),
            pixel_scale=PatchGeometry(
                projection=restored.sky_projection, definition=restored.patch
            ).pixel_scale,
        )
        found = exposure_metrics(metrics, self.config.min_exposures) | image_metrics(
            images, self.config.min_star_signal_to_noise
        )
        verdict, checks = judge(found, self.config.limits)
        warnings = [str(check["words"]) for check in checks if check["words"]]
        for warning in warnings:
            self.log.warning("%s", warning)
        inner, outer = restored.patch.inner_bbox, restored.bbox
        quality = {
            "patch": {
                **metrics["patch"],
                "index_x": int(restored.patch.index.x),
                "index_y": int(restored.patch.index.y),
                "inner_x": [int(inner.x.start), int(inner.x.stop)],
                "inner_y": [int(inner.y.start), int(inner.y.stop)],
                "outer_x": [int(outer.x.start), int(outer.x.stop)],
                "outer_y": [int(outer.y.start), int(outer.y.stop)],
            },
            "network": {key: metrics["network"][key] for key in ("source", "identity")},
            "verdict": str(verdict),
            "warnings": warnings,
            "details": list(metrics.get("warnings", [])),
            "metrics": found,
            "checks": checks,
            "exposures": list(metrics["exposures"]),
        }
        self.metadata["verdict"] = str(verdict)
        self.metadata["verdict_level"] = list(Verdict).index(verdict)
        # All of them, as dashboards fail for one that is missing.
        for name in QUALITY_UNITS:
            self.metadata[name] = found.get(name, math.nan)
        return Struct(restored_coadd_quality=quality)
