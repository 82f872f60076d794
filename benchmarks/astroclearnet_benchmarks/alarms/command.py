# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which exposures are called wrong: good ones, and those with a fault."""

from __future__ import annotations

__all__ = ("main", "measure_case")

import argparse
import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsst.astroclearnet.core import RestoreOptions
from lsst.astroclearnet.core.calibration import calibrate_exposures
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.forward import TileReader

from ..processes import make_pool, start_logging
from ..record import Section, Table, data_folder, make_page, make_parser
from .cases import FAULTS, Case, make_case, make_night_case

_LOG = logging.getLogger(__name__)

_NIGHT_FAULTS = ("none", "flux")
"""Faults of real cases."""

_FIRST_SEED = 1000
"""Seeds below it were looked at while the comparison was written."""

_WARNINGS = {"flux": 0.02, "shift": 0.2, "width": 0.015}
"""Sizes from which on an exposure is named: relative, in pixels, relative."""

_SIGNIFICANCE = 5.0

_INTRODUCTION = (
    "Which exposures are called wrong. Simulated ones (180x190 pixels, 3 to 12 exposures, rotated and "
    "dithered on their own pixels, seeing from 0.8 to 1.35 of the mean, noise from 0.6 to 1.6, 3 to 90 stars "
    "of which 5 % vary by 30 %, up to 15 galaxies, up to 2 saturated stars, up to 25 cosmic rays in each, of "
    "which 60 % are flagged) have flux scales that scatter by 1 %, positions by 0.05 pixels and, in half of "
    "the cases, widths of PSFs by 0.7 %; one may have half or twice the flux, be shifted by 1.5 to 8 pixels, "
    "or have a PSF that is wrong by 5 to 10 %. Real ones are cut-outs of five exposures of a night."
)


def measure_case(case: Case) -> dict[str, Any]:
    """Compare the exposures of a case."""
    start = time.monotonic()
    tiles = TileGrid.cover(case.stack.shape, 1024).tiles
    reader = TileReader(StackSource(case.stack), tiles, case.target_fwhm, torch.device("cpu"))
    with torch.no_grad():
        calibration = calibrate_exposures(reader, RestoreOptions())
    return {
        "name": case.name,
        "fault": case.fault,
        "culprit": case.culprit,
        "num_stars": case.num_stars,
        "truth": case.truth.tolist(),
        "values": calibration.offsets.values.tolist(),
        "sigmas": calibration.offsets.sigmas.tolist(),
        "dropped": {str(t): words for t, words in calibration.dropped.items()},
        "suspect": {str(t): words for t, words in calibration.suspect.items()},
        "seconds": time.monotonic() - start,
    }


def main(words: Sequence[str]) -> int:
    """Measure cases and write the page.

    Returns 1 if a good exposure is dropped or a wrong flux scale missed.
    """
    start_logging()
    options = _parse(words)
    options.work.mkdir(parents=True, exist_ok=True)
    jobs = _list_jobs(options)
    _LOG.info("%d cases in %d processes", len(jobs), options.jobs)
    records = []
    end = time.time() + 60.0 * options.minutes
    with make_pool(options.jobs) as pool:
        for record in pool.map(_run, jobs, itertools.repeat(end)):
            if record is None:
                continue
            records.append(record)
            if len(records) % 20 == 0:
                _LOG.info("%d done", len(records))
    (options.work / "cases.json").write_text(json.dumps(records))
    tables, failed = _tabulate(records)
    counts = " ".join(
        f"--{name} {' '.join(str(n) for n in numbers)}"
        for name, numbers in (("simulated", options.simulated), ("real", options.real))
    )
    command = f"{options.program} --jobs {options.jobs} {counts} --minutes {options.minutes:g}"
    section = Section.measured("alarms", command, tables)
    (options.work / "alarms.json").write_text(json.dumps(dataclasses.asdict(section)))
    options.output.write_text(make_page([section], title="Alarms", introduction=_INTRODUCTION))
    for table in tables:
        for row in table.rows:
            _LOG.info("%s", "; ".join(f"{name}: {value}" for name, value in row.items()))
    return int(failed)


def _list_jobs(options: argparse.Namespace) -> list[tuple[str, int, Path | None]]:
    """Return fault, seed and file, mixed so that any first part has all."""
    night = options.data / "decam_night" / "night.npz"
    kinds: list[tuple[str, int, Path | None]] = [
        (fault, count, None) for fault, count in zip(FAULTS, options.simulated, strict=True)
    ]
    if night.exists():
        kinds += [(fault, count, night) for fault, count in zip(_NIGHT_FAULTS, options.real, strict=True)]
    else:
        _LOG.warning("No real exposures in %s: see --data.", night)
    jobs = [
        ((index + 0.5) / count, (fault, _FIRST_SEED + index, file))
        for fault, count, file in kinds
        for index in range(count)
    ]
    return [job for _, job in sorted(jobs, key=lambda job: job[0])]


def _run(job: tuple[str, int, Path | None], end: float) -> dict[str, Any] | None:
    """Return the record of a case, or None if it is too late to begin it."""
    if time.time() > end:
        return None
    torch.set_num_threads(1)
    fault, seed, night = job
    return measure_case(make_case(fault, seed) if night is None else make_night_case(night, fault, seed))


def _tabulate(records: Sequence[dict[str, Any]]) -> tuple[list[Table], bool]:
    """Return tables, and whether any good exposure is dropped or any wrong
    flux scale is missed.
    """
    groups = [
        (f"{kind}, {fault}", [r for r in records if r["fault"] == fault and (r["num_stars"] < 0) == real])
        for (kind, real), fault in itertools.product((("simulated", False), ("real", True)), FAULTS)
    ]
    groups = [(name, found) for name, found in groups if found]
    rows = [{"exposures": name, **_count(found)} for name, found in groups]
    failed = any(row["good, dropped"] != "0" for row in rows) or any(
        row["missed"] != "0" for row in rows if row["exposures"].endswith("flux")
    )
    errors = [row for name, found in groups if name.startswith("simulated") for row in _errors(name, found)]
    return [
        Table(
            "Exposures that are called wrong",
            "Good exposures that were dropped or named (beyond 2 % of flux, 0.2 pixels, 1.5 % of width and "
            "5 sigma, and further from the truth than that), and wrong ones that were dropped, only named "
            "or missed. With too few sources nothing is known; those wrong ones are counted apart.",
            rows,
        ),
        Table(
            "Errors of the figures of good exposures",
            "Relative to the truth, in the median over exposures of the case as the figures are: 16th and "
            "84th percentile, largest, and root mean square in units of the standard deviation.",
            errors,
        ),
    ], failed


def _count(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    counts = dict.fromkeys(
        (
            "good",
            "good, dropped",
            "good, suspect",
            "good, named",
            "wrong",
            "dropped",
            "named",
            "unknown",
            "missed",
        ),
        0,
    )
    for record in records:
        named = _named(record)
        for t in range(len(record["values"][0])):
            is_dropped, is_named = str(t) in record["dropped"], str(t) in record["suspect"] or t in named
            if t != record["culprit"]:
                counts["good"] += 1
                counts["good, dropped"] += is_dropped
                counts["good, suspect"] += str(t) in record["suspect"]
                counts["good, named"] += t in _falsely_named(record)
            else:
                known = np.isfinite(record["sigmas"][0][t])
                counts["wrong"] += 1
                result = (
                    "dropped" if is_dropped else "named" if is_named else "missed" if known else "unknown"
                )
                counts[result] += 1
    seconds = np.median([record["seconds"] for record in records])
    return {
        "cases": str(len(records)),
        **{k: str(v) for k, v in counts.items()},
        "s a case": f"{seconds:.1f}",
    }


def _sizes(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"flux": np.abs(values[0]), "shift": np.hypot(*values[1:3]), "width": np.abs(values[3])}


def _named(record: dict[str, Any]) -> set[int]:
    sigmas = np.array(record["sigmas"])
    limits = {"flux": sigmas[0], "shift": sigmas[1:3].max(axis=0), "width": sigmas[3]}
    return {
        int(t)
        for name, sizes in _sizes(np.array(record["values"])).items()
        for t in np.flatnonzero(sizes > np.maximum(_WARNINGS[name], _SIGNIFICANCE * limits[name]))
    }


def _relative_truth(record: dict[str, Any]) -> np.ndarray:
    """Return true offsets relative to the median, as they are measured."""
    truth, known = np.array(record["truth"]), np.isfinite(record["sigmas"])
    truth = np.where(known, truth, np.nan)
    medians = [[np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan] for row in truth]
    relative = truth - medians
    relative[0] /= 1.0 + medians[0][0]
    return relative


def _falsely_named(record: dict[str, Any]) -> set[int]:
    """Return exposures that are named, and less wrong than is said."""
    error = _sizes(np.nan_to_num(np.array(record["values"]) - _relative_truth(record)))
    if record["num_stars"] < 0:
        error = _sizes(np.array(record["values"]))
        error["shift"][:] = 0.0
    wrong = {int(t) for name, sizes in error.items() for t in np.flatnonzero(sizes > _WARNINGS[name])}
    return _named(record) & wrong


def _errors(name: str, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    for index, label in ((0, "flux scale"), (1, "shift, rows"), (3, "PSF width")):
        errors, pulls = [], []
        for record in records:
            found, sigma = (np.array(record[key])[index] for key in ("values", "sigmas"))
            error = found - _relative_truth(record)[index]
            use = np.isfinite(sigma) & np.isfinite(error) & (np.arange(len(error)) != record["culprit"])
            errors += error[use].tolist()
            pulls += (error[use] / sigma[use]).tolist()
        if not errors:
            continue
        low, high = np.percentile(errors, (16, 84))
        yield {
            "exposures": name,
            "figure": label,
            "number": str(len(errors)),
            "16 %": f"{low:+.4f}",
            "84 %": f"{high:+.4f}",
            "largest": f"{np.max(np.abs(errors)):.3f}",
            "rms pull": f"{np.sqrt(np.mean(np.square(pulls))):.2f}",
            "largest pull": f"{np.max(np.abs(pulls)):.1f}",
        }


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("alarms", __doc__, work="what was measured")
    parser.set_defaults(program=parser.prog)
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the real exposures")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument(
        "--simulated",
        type=int,
        nargs=len(FAULTS),
        default=[80, 80, 40, 40],
        metavar="N",
        help="numbers of simulated cases, by fault: " + ", ".join(FAULTS),
    )
    parser.add_argument(
        "--real",
        type=int,
        nargs=len(_NIGHT_FAULTS),
        default=[20, 20],
        metavar="N",
        help="numbers of real cases, by fault: " + ", ".join(_NIGHT_FAULTS),
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=1e4,
        help="no case is begun after this time; those left are not counted",
    )
    return parser.parse_args(words)
