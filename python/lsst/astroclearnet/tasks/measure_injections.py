# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compare restorations with and without injected sources."""

from __future__ import annotations

__all__ = ("MeasureInjectionsConfig", "MeasureInjectionsConnections", "MeasureInjectionsTask")

from collections.abc import Sequence

from astropy.table import Table

import lsst.pipe.base.connectionTypes as cT
from lsst.images.cells import CellCoadd
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

from ..adapters import CoaddArrays, PatchGeometry, unusable_pixels
from ..metrics import injection_bins
from ._injections import (
    CoaddPair,
    combine_catalogues,
    find_injections,
    injection_metrics,
    measure_injections,
)

_PATCH = ("skymap", "tract", "patch", "band")


class MeasureInjectionsConnections(
    PipelineTaskConnections,
    dimensions=_PATCH,
    defaultTemplates={
        "output_name": "restored_coadd",
        "injection_prefix": "injection_",
        "injected_prefix": "injected_",
    },
):
    """Inputs and outputs of `MeasureInjectionsTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    injection_catalogs = cT.PrerequisiteInput(
        doc="Sources that were injected, as the source_injection package stores them.",
        name="{injection_prefix}catalog",
        storageClass="ArrowAstropy",
        dimensions=("htm7", "band"),
        multiple=True,
        minimum=0,
    )
    restored_coadd = cT.Input(
        doc="Restored coadd without them.", name="{output_name}", storageClass="CellCoadd", dimensions=_PATCH
    )
    injected_coadd = cT.Input(
        doc="Restored coadd with them.",
        name="{injected_prefix}{output_name}",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_linear = cT.Input(
        doc="Linear coadd without them.",
        name="{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    injected_coadd_linear = cT.Input(
        doc="Linear coadd with them.",
        name="{injected_prefix}{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_injections = cT.Output(
        doc="Each injected source, and what became of it.",
        name="{output_name}_injections",
        storageClass="ArrowAstropy",
        dimensions=_PATCH,
    )
    restored_coadd_injection_metrics = cT.Output(
        doc="Completeness and fluxes of injected sources by magnitude and surface brightness.",
        name="{output_name}_injection_metrics",
        storageClass="StructuredDataDict",
        dimensions=_PATCH,
    )
    restored_coadd_injection_plot = cT.Output(
        doc="The same as a figure.",
        name="{output_name}_injection_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )

    def __init__(self, *, config: MeasureInjectionsConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        if not config.do_linear:
            del self.restored_coadd_linear
            del self.injected_coadd_linear
        if not config.do_plot:
            del self.restored_coadd_injection_plot


class MeasureInjectionsConfig(PipelineTaskConfig, pipelineConnections=MeasureInjectionsConnections):
    """Configuration of `MeasureInjectionsTask`."""

    do_linear = Field[bool](
        doc="Measure the linear coadds too?  They must be there: see do_linear of restoreCoadd.", default=True
    )
    threshold = RangeField(
        dtype=float,
        doc="Detection threshold: signal-to-noise ratio of a point source in a matched filter, relative to "
        "the rms of this filter on the noise realisations of each coadd.",
        default=5.0,
        min=0.0,
        inclusiveMin=False,
    )
    match_radius = RangeField(
        dtype=float,
        doc="Distance, in FWHM of the PSF, up to which a detection is that of an injected source.",
        default=1.0,
        min=0.0,
        inclusiveMin=False,
    )
    bin_step = RangeField(
        dtype=float,
        doc="Width of the bins of magnitude and surface brightness.",
        default=1.0,
        min=0.0,
        inclusiveMin=False,
    )
    do_plot = Field[bool](doc="Write a figure?  It needs matplotlib.", default=True)


class MeasureInjectionsTask(PipelineTask):
    """Measure what a restoration makes of sources that were injected.

    The flux of each is fitted to the difference of the coadds with and
    without it; it is detected if a source is found at its place.  It needs
    GalSim, which draws the sources at the PSF of the coadds.
    """

    ConfigClass = MeasureInjectionsConfig
    _DefaultName = "measureInjections"
    config: MeasureInjectionsConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        inputs = butlerQC.get(inputRefs)
        outputs = self.run(
            injection_catalogs=inputs.get("injection_catalogs", []),
            restored=inputs["restored_coadd"],
            injected=inputs["injected_coadd"],
            linear=inputs.get("restored_coadd_linear"),
            injected_linear=inputs.get("injected_coadd_linear"),
        )
        butlerQC.put(outputs, outputRefs)

    @timeMethod
    def run(
        self,
        *,
        injection_catalogs: Sequence[Table],
        restored: CellCoadd,
        injected: CellCoadd,
        linear: CellCoadd | None = None,
        injected_linear: CellCoadd | None = None,
    ) -> Struct:
        """Compare the coadds of one patch in one band.

        Parameters
        ----------
        injection_catalogs
            Tables of sources, as of
            `~lsst.astroclearnet.simulation.draw_injections`.
        restored, injected
            Restored coadds of the same exposures without and with the
            sources.
        linear, injected_linear
            The linear coadds, both or none.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_coadd_injections`` (`astropy.table.Table`),
            ``restored_coadd_injection_metrics`` (`dict`) and, if configured,
            ``restored_coadd_injection_plot`` (`matplotlib.figure.Figure`).

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no source lies on pixels with a value in the inner region of
            the patch.
        ValueError
            If the coadds differ in box or PSF, or a source cannot be drawn.
        """
        pairs = {"restored": self._make_pair(restored, injected)}
        if linear is not None and injected_linear is not None:
            pairs["linear"] = self._make_pair(linear, injected_linear)
        catalogue = combine_catalogues(injection_catalogs)
        sources, templates = find_injections(catalogue, restored, pairs["restored"])
        if not sources["is_measured"].any():
            raise NoWorkFound("No injected source lies in the inner region of the patch.")
        geometry = PatchGeometry(projection=restored.sky_projection, definition=restored.patch)
        counts = measure_injections(
            sources,
            templates,
            pairs,
            restored.bbox,
            threshold=self.config.threshold,
            match_radius=self.config.match_radius,
        )
        sources = sources[sources["is_measured"]]
        sources.remove_column("is_measured")
        bins = injection_bins(sources, list(pairs), step=self.config.bin_step)
        metrics = {
            "patch": {
                "skymap": geometry.skymap,
                "tract": geometry.tract,
                "patch": int(restored.patch.id),
                "band": str(restored.band),
            },
            **injection_metrics(sources, counts),
            "threshold": float(self.config.threshold),
            "bins": bins,
        }
        self.log.info("Measured %d injected sources.", len(sources))
        outputs = Struct(restored_coadd_injections=sources, restored_coadd_injection_metrics=metrics)
        if self.config.do_plot:
            from ..plots import completeness_figure

            name = f"{geometry.skymap}, tract {geometry.tract}, patch {restored.patch.id}, {restored.band}"
            outputs.restored_coadd_injection_plot = completeness_figure(bins, title=name)
        return outputs

    def _make_pair(self, plain: CellCoadd, injected: CellCoadd) -> CoaddPair:
        """Return coadds without and with sources as arrays."""
        if plain.bbox != injected.bbox:
            raise ValueError(f"The coadds cover different boxes: {plain.bbox} and {injected.bbox}.")
        bad = unusable_pixels(plain) | unusable_pixels(injected)
        if bad.all():
            raise NoWorkFound("No pixel has a value in both coadds.")
        return CoaddPair(*(CoaddArrays.from_coadd(coadd, bad) for coadd in (plain, injected)))
