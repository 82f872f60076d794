# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Inject sources into visit images."""

from __future__ import annotations

__all__ = ("InjectSourcesConfig", "InjectSourcesConnections", "InjectSourcesTask")

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

import lsst.pipe.base.connectionTypes as cT
from lsst.images import VisitImage
from lsst.pex.config import Field, RangeField
from lsst.pipe.base import (
    InputQuantizedConnection,
    InvalidQuantumError,
    NoWorkFound,
    OutputQuantizedConnection,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantaAdjuster,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from ..adapters import ExposureId, UnusableExposureError
from ..adapters.read import read_visit_image
from ._injections import combine_catalogues


class InjectSourcesConnections(
    PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={
        "visit_image_name": "visit_image",
        "injection_prefix": "injection_",
        "injected_prefix": "injected_",
    },
):
    """Inputs and outputs of `InjectSourcesTask`."""

    injection_catalogs = cT.PrerequisiteInput(
        doc="Sources to inject, as the source_injection package stores them.",
        name="{injection_prefix}catalog",
        storageClass="ArrowAstropy",
        dimensions=("htm7", "band"),
        multiple=True,
        minimum=0,
    )
    visit_image = cT.Input(
        doc="Calibrated, background-subtracted visit image.",
        name="{visit_image_name}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        deferLoad=True,
    )
    injected_image = cT.Output(
        doc="The visit image with the sources, in nJy.",
        name="{injected_prefix}{visit_image_name}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
    )

    def adjust_all_quanta(self, adjuster: QuantaAdjuster) -> None:
        """Refuse a graph in which no image gets a source.

        Parameters
        ----------
        adjuster
            The quanta.

        Raises
        ------
        FileNotFoundError
            If no injection catalogue overlaps any image.
        """
        found = (
            adjuster.get_prerequisite_inputs(data_id)["injection_catalogs"]
            for data_id in adjuster.iter_data_ids()
        )
        if not any(found):
            raise FileNotFoundError(
                f"No {self.injection_catalogs.name} overlaps the visit images: add its collection to the "
                "input collections."
            )


class InjectSourcesConfig(PipelineTaskConfig, pipelineConnections=InjectSourcesConnections):
    """Configuration of `InjectSourcesTask`."""

    njy_per_electron = RangeField(
        dtype=float,
        doc="Flux of an electron (nJy), from which photon noise is drawn.  Without a value it is the rise of "
        "the variance plane with the light of the image; where there is none, no noise is added.",
        default=None,
        optional=True,
        min=0.0,
        inclusiveMin=False,
    )
    seed = Field[int](doc="Number mixed into the seed of the noise, with visit and detector.", default=0)


class InjectSourcesTask(PipelineTask):
    """Inject stars and galaxies into a visit image, with its PSF.

    It takes the catalogues of the ``source_injection`` package where that is
    not installed; it needs GalSim.  An image on which no source falls is
    written too, so that the same exposures are restored.
    """

    ConfigClass = InjectSourcesConfig
    _DefaultName = "injectSources"
    config: InjectSourcesConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        data_id = butlerQC.quantum.dataId
        if data_id is None:
            raise InvalidQuantumError("A quantum of injectSources needs a data ID.")
        try:
            outputs = self.run(
                visit_image=read_visit_image(butlerQC.get(inputRefs.visit_image)),
                injection_catalogs=butlerQC.get(inputRefs.injection_catalogs),
                identity=ExposureId(
                    visit=int(data_id["visit"]),
                    detector=int(data_id["detector"]),
                    instrument=str(data_id["instrument"]),
                ),
            )
        except UnusableExposureError as exc:
            # The restoration leaves it out, too.
            raise NoWorkFound(f"Left out ({exc.reason}): {exc}") from exc
        butlerQC.put(outputs, outputRefs)

    @timeMethod
    def run(
        self,
        *,
        visit_image: VisitImage,
        injection_catalogs: Sequence[Table],
        identity: ExposureId | None = None,
    ) -> Struct:
        """Inject sources into one visit image.

        Parameters
        ----------
        visit_image
            The image; it is not changed.
        injection_catalogs
            Tables of sources, as of
            `~lsst.astroclearnet.simulation.draw_injections`.
        identity
            Which exposure it is, for the seed of the noise; by default that
            of the image.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``injected_image`` (`lsst.images.VisitImage`).

        Raises
        ------
        lsst.astroclearnet.adapters.UnusableExposureError
            If the image is not calibrated.
        ValueError
            If a source cannot be drawn.
        """
        from ..simulation import inject_sources

        if identity is None:
            identity = ExposureId.from_visit_image(visit_image)
        injected = inject_sources(
            visit_image,
            combine_catalogues(injection_catalogs),
            rng=np.random.default_rng([self.config.seed, identity.visit, identity.detector]),
            njy_per_electron=self.config.njy_per_electron,
        )
        self.log.info("Injected %d sources into %s.", injected.num_sources, identity)
        if np.isnan(injected.njy_per_electron):
            self.log.warning(
                "The variance of %s does not follow its light: sources have no photon noise.  Set "
                "njy_per_electron to add it.",
                identity,
            )
        self.metadata["num_sources"] = injected.num_sources
        self.metadata["njy_per_electron"] = injected.njy_per_electron
        return Struct(injected_image=injected.visit_image)
