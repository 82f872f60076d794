# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What errors of PSFs do to fluxes, without and with their refinement."""

from __future__ import annotations

__all__ = ("main", "measure_field")

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from lsst.astroclearnet.core import CalibrationOptions, RestoreOptions, gaussian_kernel, kernel_fwhm
from lsst.astroclearnet.core.calibration import ExposureCalibration, PsfRefinement, calibrate_exposures
from lsst.astroclearnet.core.estimate import Debiaser
from lsst.astroclearnet.core.exposures import ExposureStack, StackSource, TileGrid
from lsst.astroclearnet.core.forward import TileReader
from lsst.astroclearnet.metrics import psf_flux

from ..processes import make_pool, start_logging
from ..record import Table, format_value, make_page, make_parser, measure_sections, read_sections
from .cases import ERRORS, Array, Field, make_field
from .declared import measure_declared

_LOG = logging.getLogger(__name__)

_SECTIONS = ("refined", "declared")
_MODES = ("off", "apply", "stars")
_TARGET_FWHM = 3.2
_FIRST_SEED = 1000
"""Seeds below it were looked at while the refinement was written."""

_EXACT: dict[str, dict[str, Any]] = {
    "12 exposures": {},
    "4 exposures": {"number": 4},
    "3 exposures": {"number": 3},
    "galaxies only": {"only_galaxies": True},
    "with a masked saturated star": {"saturated": True},
}
"""Fields whose PSFs are exact, with arguments of `make_field`."""

_INTRODUCTION = (
    "PSFs that are given with errors. Fields have 128x128 pixels, 12 exposures of 3.2 to 4.6 pixels FWHM "
    "(Moffat, integrated over pixels) and noise from 0.8 to 1.3, and 64 sources, 4 of them galaxies; stars "
    "have S/N of 50 to 1000 in all exposures together. The seeing is wider than the PSF given by the error. "
    "Fluxes are fits of the target PSF (3.2 pixels) to stars in the linear image; their error is the "
    "flux-weighted mean over the stars of a field, over that from the same pixels and weights with the true "
    "PSFs. `off` is the product without refinement, `apply` the refinement against the other exposures, "
    "`stars` also that of what all exposures share. Nothing was adjusted to these seeds."
)


def measure_field(field: Field, modes: Sequence[str] = _MODES) -> dict[str, Any]:
    """Measure a field in some modes, and with the true PSFs."""
    start = time.monotonic()
    calibration, reader, unit = _calibrate(field, "apply")
    off = dataclasses.replace(calibration, refinement=PsfRefinement.unknown(len(field.given)))
    truth = _fluxes(field, off, reader, unit, torch.from_numpy(field.true))
    record: dict[str, Any] = {}
    for mode in modes:
        if mode == "stars":
            calibration, reader, unit = _calibrate(field, mode)
        one = off if mode == "off" else calibration
        change = (_fluxes(field, one, reader, unit) - truth) / truth
        refinement = one.refinement
        record[mode] = {
            "flux": float(np.average(change, weights=truth)) if len(truth) else float("nan"),
            "systematic": refinement.flux_systematic,
            "flux_error": refinement.flux_error,
            "width": refinement.changes[:, 0].tolist(),
            "sigma": refinement.sigmas[:, 0].tolist(),
            "shared": [refinement.shared.value, refinement.shared.sigma],
            "removed": _removed(field, refinement),
        }
    return record | {"seconds": time.monotonic() - start}


def _calibrate(field: Field, mode: str) -> tuple[ExposureCalibration, TileReader, float]:
    """Return the calibration of a field, its tile, and its unit of flux."""
    options = RestoreOptions(calibration=CalibrationOptions(psf_refinement=mode))
    stack = ExposureStack.from_arrays(
        field.images, field.variances, field.good, field.given, in_noise_units=True
    )
    tiles = TileGrid.cover(stack.shape, 1024).tiles
    reader = TileReader(StackSource(stack), tiles, _TARGET_FWHM, torch.device("cpu"))
    with torch.no_grad():
        return calibrate_exposures(reader, options), reader, stack.unit


def _fluxes(
    field: Field,
    calibration: ExposureCalibration,
    reader: TileReader,
    unit: float,
    psfs: torch.Tensor | None = None,
) -> Array:
    """Return the fluxes of stars in the linear image, with other PSFs if they
    are given.
    """
    with torch.no_grad():
        clean = calibration.clean(next(iter(reader)))
        model, images = clean.tile_data.model, clean.tile_data.stack.images
        if psfs is not None:
            model = model.with_psfs(psfs[:, None, None])
        weights = clean.tile_data.stack.good / clean.variances
        debiaser = Debiaser(model, weights, calibration.options.debiasing)
        right = debiaser.linear.right_side(images)
        linear = model.crop(debiaser.linear_image(right, debiaser.linear.solve(right, (1e-3,))[0]))
    image = linear.double().numpy() * unit
    kernel = gaussian_kernel(_TARGET_FWHM, 21)
    fluxes, _ = psf_flux(image, np.ones_like(image), kernel, field.stars[:, 1], field.stars[:, 0])
    return fluxes


def _removed(field: Field, refinement: PsfRefinement) -> float:
    """Return which part of the deviation of the first exposure from the others
    in FWHM is removed.
    """
    psfs = torch.from_numpy(field.given)[:, None, None]
    corrected = refinement.correct(psfs, torch.arange(len(psfs)))[:, 0, 0].numpy()
    before, after = (
        [kernel_fwhm(one) / kernel_fwhm(true) - 1.0 for one, true in zip(given, field.true, strict=True)]
        for given in (field.given, corrected)
    )
    deviation = before[0] - np.mean(before[1:])
    return float(1.0 - (after[0] - np.mean(after[1:])) / deviation) if abs(deviation) > 1e-6 else float("nan")


def main(words: Sequence[str]) -> int:
    """Measure fields and write the page."""
    start_logging()
    options = _parse(words)
    options.work.mkdir(parents=True, exist_ok=True)
    seeds = range(_FIRST_SEED, _FIRST_SEED + options.scenes)
    every: dict[str, Callable[[], list[Table]]] = {
        "refined": lambda: _measure_refined(options),
        "declared": lambda: [measure_declared(seeds, quick=options.quick)],
    }
    measures = {name: every[name] for name in options.sections}
    settings = f"--fields {options.fields} --random {options.random} --scenes {options.scenes}"
    flags = settings + " --quick" * options.quick

    def write() -> None:
        sections = read_sections(options.work, _SECTIONS)
        options.output.write_text(make_page(sections, title="Errors of PSFs", introduction=_INTRODUCTION))

    command = f"{options.program} --sections {{}} {flags}"
    return int(measure_sections(measures, command.format, options.work, write) > 0)


def _measure_refined(options: argparse.Namespace) -> list[Table]:
    """Measure what refining PSFs does."""
    jobs = [(name, "", seed) for name in ERRORS if name != "none" for seed in range(_number(options, name))]
    # A run that is stopped then has some of all.
    jobs.sort(key=lambda job: job[2])
    jobs += [("none", name, seed) for name in _EXACT for seed in range(options.fields)]
    records: dict[str, list[dict[str, Any]]] = {}
    with make_pool(options.jobs) as pool:
        for (error, kind, _), record in zip(jobs, pool.map(_run, jobs), strict=True):
            records.setdefault(error + kind, []).append(record)
            fluxes = {mode: record[mode]["flux"] for mode in _MODES if mode in record}
            _LOG.info("%s %s: %s", error, kind, json.dumps(fluxes))
            (options.work / "records.json").write_text(json.dumps(records))
    tables = [_tabulate_one(records), _tabulate_random(records), _tabulate_shared(records)]
    tables.append(_tabulate_exact(records))
    return tables


def _run(job: tuple[str, str, int]) -> dict[str, Any]:
    torch.set_num_threads(1)
    error, kind, seed = job
    field = make_field(error, _FIRST_SEED + seed, **_EXACT.get(kind, {}))
    return measure_field(field, _MODES if error.startswith(("random", "shared")) else _MODES[:2])


def _number(options: argparse.Namespace, error: str) -> int:
    return int(options.random if error.startswith("random") else options.fields)


def _values(records: Sequence[dict[str, Any]], mode: str, name: str) -> Array:
    return np.array([record[mode][name] for record in records])


def _mean(values: Array, factor: float = 100.0) -> str:
    """Write a mean with its standard error."""
    return format_value(
        (float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))), factor
    )


def _tabulate_one(records: dict[str, list[dict[str, Any]]]) -> Table:
    rows = [
        {
            "error": name.removeprefix("one, "),
            "refinement": mode,
            "fields": str(len(found)),
            "deviation removed [%]": _mean(_values(found, mode, "removed")),
            "error of fluxes [%]": _mean(_values(found, mode, "flux")),
            "rms [%]": f"{100.0 * np.sqrt(np.mean(_values(found, mode, 'flux') ** 2)):.2f}",
            "declared [%]": _declared(found, mode),
        }
        for name, found in records.items()
        if name.startswith("one")
        for mode in _MODES[:2]
    ]
    legend = (
        "Part of the deviation in FWHM of the wrong exposure from the others that is removed; error of "
        "fluxes with its standard error, and root mean square; systematic that is declared."
    )
    return Table("One exposure of twelve is wrong", legend, rows)


def _declared(records: Sequence[dict[str, Any]], mode: str) -> str:
    return f"{100.0 * np.mean(_values(records, mode, 'systematic')):.2f}" if mode != "off" else "none"


def _tabulate_random(records: dict[str, list[dict[str, Any]]]) -> Table:
    rows = []
    for mode in _MODES:
        found = records["random, 1 %"]
        fluxes, systematic = _values(found, mode, "flux"), _values(found, mode, "systematic")
        rows.append(
            {
                "refinement": mode,
                "fields": str(len(found)),
                "mean error of fluxes [%]": _mean(fluxes),
                "scatter [%]": f"{100.0 * np.std(fluxes, ddof=1):.2f}",
                "declared [%]": _declared(found, mode),
                "rms pull": "-" if mode == "off" else f"{np.sqrt(np.mean((fluxes / systematic) ** 2)):.2f}",
            }
        )
    legend = (
        "Errors of 1 % (standard deviation) in the widths of all PSFs: mean over fields of the error of "
        "fluxes, its scatter from field to field, the systematic that is declared, and errors over it."
    )
    return Table("Random errors in all exposures", legend, rows)


def _tabulate_shared(records: dict[str, list[dict[str, Any]]]) -> Table:
    rows = []
    for name, found in records.items():
        if not name.startswith("shared"):
            continue
        for mode in _MODES:
            shared = np.array([record[mode]["shared"][0] for record in found])
            rows.append(
                {
                    "error": name.removeprefix("shared, "),
                    "refinement": mode,
                    "fields": str(len(found)),
                    "error of fluxes [%]": _mean(_values(found, mode, "flux")),
                    "reported width [%]": "none" if mode == "off" else _mean(shared),
                    "reported error of fluxes [%]": "none"
                    if mode == "off"
                    else _mean(_values(found, mode, "flux_error")),
                }
            )
    legend = (
        "Error of fluxes, and what the metrics report: excess of the width of stars, and error of fluxes."
    )
    return Table("All exposures share an error", legend, rows)


def _tabulate_exact(records: dict[str, list[dict[str, Any]]]) -> Table:
    rows = []
    for kind in _EXACT:
        found = records["none" + kind]
        widths, sigmas = (np.concatenate([r["apply"][key] for r in found]) for key in ("width", "sigma"))
        fluxes = _values(found, "apply", "flux")
        rows.append(
            {
                "fields": f"{len(found)}, {kind}",
                "rms width [%]": f"{100.0 * np.sqrt(np.mean(widths**2)):.2f}",
                "declared [%]": f"{100.0 * np.mean(sigmas):.2f}",
                "largest over declared": f"{np.max(np.abs(widths / sigmas)):.1f}",
                "error of fluxes, rms [%]": format_value(100.0 * float(np.sqrt(np.mean(fluxes**2)))),
                "declared systematic [%]": _declared(found, "apply"),
            }
        )
    legend = "What `apply` changes where all PSFs are right: widths, and fluxes of stars."
    return Table("Exact PSFs", legend, rows)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("psf_errors", __doc__, work="what was measured")
    parser.set_defaults(program=parser.prog)
    parser.add_argument("--sections", nargs="+", default=_SECTIONS, choices=_SECTIONS)
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--fields", type=int, default=2, help="number of fields of each error")
    parser.add_argument("--random", type=int, default=30, help="number of fields with random errors")
    parser.add_argument("--scenes", type=int, default=4, help="number of scenes of declared errors")
    parser.add_argument("--quick", action="store_true", help="tiny scenes, to see that all works")
    return parser.parse_args(words)
