# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restore the coadds of a patch in all bands together."""

from __future__ import annotations

__all__ = ("RestoreCoaddBandsTask",)

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from lsst.daf.butler import DatasetRef
from lsst.pipe.base import (
    AnnotatedPartialOutputsError,
    InputQuantizedConnection,
    NoWorkFound,
    OutputQuantizedConnection,
    QuantumContext,
    Struct,
    UpstreamFailureNoWorkFound,
)
from lsst.utils.timer import timeMethod

from ..adapters import PatchGeometry, joint_model_from_dict, predict_disk_bytes
from ..core import BandsResult, JointModel, RestoreOptions, plan_bands_memory, restore_bands
from ._band_datasets import describe_missing_bands, list_bands
from ._detection_coadd import make_detection_coadd
from ._errors import RestorationAlgorithmError, translate_error, translate_errors
from ._patch_exposures import BandInputs
from ._products import RestorationInputs
from ._progress import report_progress
from ._quantum_inputs import gather_inputs
from ._restore_patch import RestorePatchTask
from ._used_network import JointRestoration, describe_network
from .restore_coadd_bands_config import RestoreCoaddBandsConfig


class RestoreCoaddBandsTask(RestorePatchTask):
    """Restore the coadds of a patch in all bands, each with the help of the
    others.

    Each band is restored from its own exposures as by `RestoreCoaddTask`, at
    a PSF that all have in common; then the other bands help where light is
    faint and they do not disagree (`lsst.astroclearnet.core.restore_bands`).
    The linear coadds are those of each band alone.
    """

    ConfigClass = RestoreCoaddBandsConfig
    _DefaultName = "restoreCoaddBands"
    config: RestoreCoaddBandsConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        geometry, _ = self.begin_quantum(butlerQC, inputRefs)
        bands = list_bands(outputRefs.restored_coadd)
        model = getattr(inputRefs, "joint_model", None)
        outputs = self.run(
            geometry=geometry,
            bands={band: BandInputs(**gather_inputs(butlerQC, inputRefs, band=band)) for band in bands},
            joint_model=None if model is None else butlerQC.get(model),
        )
        for name, refs in outputRefs:
            found = getattr(outputs, name)
            if isinstance(refs, DatasetRef):
                butlerQC.put(found, refs)
                continue
            for ref in refs:
                # A band without usable exposures has no coadd.
                if ref.dataId["band"] in found:
                    butlerQC.put(found[ref.dataId["band"]], ref)
        if outputs.partial is not None:
            raise AnnotatedPartialOutputsError.annotate(
                outputs.partial, self, log=self.log
            ) from outputs.partial

    @timeMethod
    def run(
        self,
        *,
        geometry: PatchGeometry,
        bands: Mapping[str, BandInputs],
        joint_model: Mapping[str, Any] | None = None,
    ) -> Struct:
        """Restore one patch in all its bands.

        Parameters
        ----------
        geometry
            Geometry of the patch.
        bands
            Datasets of each band, by its name.
        joint_model
            What `~lsst.astroclearnet.adapters.joint_model_to_dict` makes of a
            trained joint network, for ``joint_model_source="dataset"``.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_coadd_detection`` (`lsst.images.cells.CellCoadd`);
            ``partial``, which says what is missing
            (`RestorationAlgorithmError`) or is `None`; and the other outputs
            of `RestoreCoaddTask.run`, each a `dict` by band.  A band without
            usable exposures is in none of them.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no exposure of any band has a usable pixel on the patch.
        RestorationAlgorithmError
            If no band can be restored.
        """
        # Before anything is read.
        device = self.select_device()
        options: RestoreOptions = self.config.restoration.make_options()
        model = self._read_joint_model(joint_model)
        collected = self._collect_bands(geometry, bands, options)
        with translate_errors():
            result = self._restore(collected, options, device, model)
        joint = JointRestoration(tuple(result.results), result.joint_network, result.joint_doubt)
        made, partial = self._make_bands(result, collected, joint)
        outputs = Struct(
            **made, restored_coadd_detection=make_detection_coadd(result, geometry, joint), partial=partial
        )
        self.record_usage(device)
        return outputs

    def _read_joint_model(self, content: Mapping[str, Any] | None) -> JointModel | None:
        """Read a trained joint network, if the configuration asks for one."""
        source = self.config.joint_model_source
        if (content is not None) != (source == "dataset"):
            reason = "needs a joint model" if content is None else "does not go with one that is given"
            raise RestorationAlgorithmError(f"joint_model_source={source!r} {reason}.", {})
        if content is None:
            return None
        with translate_errors():
            return joint_model_from_dict(content, "joint model")

    def _collect_bands(
        self, geometry: PatchGeometry, bands: Mapping[str, BandInputs], options: RestoreOptions
    ) -> dict[str, RestorationInputs]:
        """Read the exposures of all bands, and leave bands without any out."""
        if words := describe_missing_bands(self.config.bands, set(bands), self.getName()):
            self.log.warning("%s", words)
        models = {band: self.read_model(inputs.restoration_model) for band, inputs in bands.items()}
        collected: dict[str, RestorationInputs] = {}
        left_out: list[NoWorkFound] = []
        for band, inputs in sorted(bands.items()):
            try:
                collected[band] = self.collect_inputs(
                    inputs,
                    geometry=geometry,
                    band=band,
                    model=models[band],
                    options=options,
                    num_bands=len(bands),
                )
            except NoWorkFound as exc:
                self.log.warning("Left band %s out: %s", band, exc)
                left_out.append(exc)
        if not collected:
            is_fault = any(isinstance(exc, UpstreamFailureNoWorkFound) for exc in left_out)
            kind = UpstreamFailureNoWorkFound if is_fault else NoWorkFound
            raise kind("\n".join(map(str, left_out)) or "There is no band to restore.")
        return collected

    @timeMethod
    def _restore(
        self,
        collected: Mapping[str, RestorationInputs],
        options: RestoreOptions,
        device: torch.device,
        joint_model: JointModel | None,
    ) -> BandsResult:
        """Plan the memory and restore the patch, tile by tile."""
        sources = {band: inputs.source for band, inputs in collected.items()}
        first = next(iter(collected.values()))
        geometry, layout = first.geometry, first.source.layout
        plan = plan_bands_memory(sources, options, device=device.type, layout=layout)
        disk = predict_disk_bytes(
            geometry.definition,
            num_realizations=options.noise.num_realizations,
            do_linear=self.config.do_linear,
            num_bands=len(sources),
            joint=True,
        )
        self.record_plan(plan, collected.values(), disk)
        target_fwhm = self.choose_target_fwhm(collected.values())
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}"
        self.log.info(
            "Restoring %s in %s together from %s exposures to a PSF of %.3f arcsec.",
            name,
            ", ".join(sources),
            ", ".join(str(source.num_exposures) for source in sources.values()),
            target_fwhm * geometry.pixel_scale,
        )
        models = {band: inputs.model for band, inputs in collected.items() if inputs.model is not None}
        with report_progress(self.log, name, options.fit.max_epochs) as callbacks:
            result = restore_bands(
                sources,
                target_fwhm=target_fwhm,
                options=options,
                models=models or None,
                joint_model=joint_model,
                device=device,
                seeds={band: inputs.seed for band, inputs in collected.items()},
                layout=layout,
                plan=plan,
                maps={band: inputs.summary for band, inputs in collected.items()},
                callback=callbacks.epoch,
                tile_callback=callbacks.tile,
            )
        for band, of_band in result.results.items():
            inputs = collected[band]
            self.log.info(
                "Restored %s on %s with %s.",
                inputs.patch_name,
                of_band.device,
                describe_network(of_band, inputs.model_source),
            )
        return result

    def _make_bands(
        self, result: BandsResult, collected: Mapping[str, RestorationInputs], joint: JointRestoration
    ) -> tuple[dict[str, dict[str, Any]], RestorationAlgorithmError | None]:
        """Make the datasets of each band, by connection and band, and say what
        is missing.
        """
        errors = {
            band: translate_error(error, f"{collected[band].patch_name} could not be restored: ")
            for band, error in result.failed.items()
        }
        made: dict[str, dict[str, Any]] = {}
        for band, of_band in result.results.items():
            inputs = dataclasses.replace(collected[band], joint=joint)
            try:
                error = self.check_failed_tiles(of_band, inputs)
            except RestorationAlgorithmError as exc:
                errors[band] = exc
                continue
            if error is not None:
                errors[band] = error
            for name, dataset in self.make_outputs(of_band, inputs, group=band).getDict().items():
                made.setdefault(name, {})[band] = dataset
        partial = _join_errors(errors)
        if partial is not None and not made:
            raise partial
        return made, partial


def _join_errors(errors: Mapping[str, RestorationAlgorithmError]) -> RestorationAlgorithmError | None:
    """Return one error of the bands that failed, whole or in part."""
    if not errors:
        return None
    diagnostics = {
        f"{band}_{name}": value for band, error in errors.items() for name, value in error.metadata.items()
    }
    return RestorationAlgorithmError("; ".join(map(str, errors.values())), diagnostics)
