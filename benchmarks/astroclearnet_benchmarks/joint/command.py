# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What bands of a patch gain from each other, and what it costs."""

from __future__ import annotations

__all__ = ("main",)

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lsst.astroclearnet.core import load_packaged_joint_model

from ..processes import call_in_process, start_logging
from ..record import Figure, Table, format_value, make_page, make_parser, measure_sections, read_sections
from .detection import PURITY, RATIOS, Found, Peaks, Sources, count_found, find_peaks, make_images
from .fields import KINDS, Field, make_field
from .measure import FAINT_SOURCES, LEVELS, Errors, Injected, measure_errors, measure_injections
from .whole import RANKED_BY, measure_cost, measure_whole

_SECTIONS = ("errors", "guides", "leakage", "outliers", "whole", "detection", "cost")

_ALL_LEVELS = ("sky", FAINT_SOURCES, "faint", "bright")

_LEAKS = (
    ("star", 100.0),
    ("star", 20.0),
    ("star", 5.0),
    ("transient", 60.0),
    ("artefact", 30.0),
    ("dropout", 100.0),
    ("dropout", 20.0),
    ("dropout", 5.0),
)
"""What is injected into one band alone, or into all but one, and its
signal-to-noise ratio."""

_OUTLIERS = (
    ("in one band alone", 10.0, 0.0),
    ("in one band alone", 20.0, 0.0),
    ("in one band alone", 30.0, 0.0),
    ("in one band alone", 100.0, 0.0),
    ("faint in it", 30.0, 200.0),
)
"""What is odd about a source, and its signal-to-noise ratio in the band and in
the others."""

_INTRODUCTION = (
    "Fields of galaxies and stars in several bands, 256x256 pixels and 8 exposures a band, each band with a "
    "seeing, depth and exposures of its own; spectra are those of the training, with sources in one band "
    "alone and dropouts, but no field was trained on. PSFs are exact. Brightness is in units of the peak of "
    "a star of signal-to-noise ratio 1 in the exposures of the band: sky is below 0.1, faint light 1 to 20; "
    "around faint sources nothing is above 12 within the FWHM of the target PSF. "
    "Errors are standard errors over fields and bands."
)


def main(words: Sequence[str]) -> int:
    """Measure some sections, or all, and write the page."""
    start_logging()
    parser = make_parser("joint", __doc__, work="sections")
    parser.add_argument("--fields", type=int, default=6, help="number of fields")
    parser.add_argument("--whole-fields", type=int, default=3, help="number of fields restored whole")
    parser.add_argument("--detection-fields", type=int, default=32, help="number of fields of detection")
    parser.add_argument("--sections", nargs="+", choices=_SECTIONS, default=_SECTIONS)
    options = parser.parse_args(words)
    number = options.fields
    measures: dict[str, Callable[[], list[Table]]] = {
        "errors": lambda: [_errors(kind, number) for kind in KINDS],
        "guides": lambda: [_guides(number)],
        "leakage": lambda: [_leakage(number)],
        "outliers": lambda: [_outliers(number)],
        "whole": lambda: _whole(options.whole_fields),
        "detection": lambda: [_detection(options.detection_fields)],
        "cost": lambda: [_cost()],
    }
    introduction = f"{_INTRODUCTION} The joint network is {load_packaged_joint_model().identity}."

    def write() -> None:
        sections = read_sections(options.work, _SECTIONS)
        options.output.write_text(make_page(sections, title="Joint bands", introduction=introduction))

    def command(section: str) -> str:
        of_section = {
            "whole": f"--whole-fields {options.whole_fields}",
            "detection": f"--detection-fields {options.detection_fields}",
        }
        return f"{parser.prog} {of_section.get(section, f'--fields {number}')} --sections {section}"

    chosen = {name: measures[name] for name in options.sections}
    return min(measure_sections(chosen, command, options.work, write), 1)


def _mean(values: Sequence[float]) -> Figure:
    """Return a mean with its standard error."""
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return (float(known.mean()) if len(known) else math.nan), math.nan
    return float(known.mean()), float(known.std(ddof=1) / math.sqrt(len(known)))


def _ratios(errors: Sequence[Errors], name: str, level: str) -> str:
    """Return the mean ratio of errors to those of the single restoration."""
    return format_value(_mean([getattr(e, name)[level] / e.single[level] for e in errors]))


def _errors(kind: str, number: int) -> Table:
    """Compare errors band by band."""
    found = [measure_errors(make_field(k, kind)) for k in range(number)]
    rows = []
    for band, name in enumerate([*kind.split(", "), "all"]):
        errors = [e for each in found for e in (each if name == "all" else each[band : band + 1])]
        row = {"band": name}
        for level in _ALL_LEVELS:
            row[f"single, {level}"] = format_value(_mean([e.single[level] for e in errors]))
            row[f"joint / single, {level}"] = _ratios(errors, "joint", level)
        rows.append(row)
    legend = (
        "Root mean square errors of the restored image in units of the brightness, and their ratio, mean "
        f"over {number} fields. The narrow band has 4 exposures of 15 % of the time."
        if "N921" in kind
        else f"Root mean square errors of the restored image in units of the brightness, and their ratio, "
        f"mean over {number} fields."
    )
    return Table(f"Errors in {kind}", legend, rows)


def _guides(number: int) -> Table:
    """Compare guides: none of the field, and one to three of it."""
    fields = [make_field(k) for k in range(number)]
    by_guides: dict[str, list[Errors]] = {"bands of another field": []}
    for k, field in enumerate(fields):
        by_guides["bands of another field"] += measure_errors(field, strangers=fields[k - 1])
        for count in range(1, 4):
            by_guides.setdefault(f"{count} of the field", []).extend(measure_errors(field, num_guides=count))
    rows = [
        {"guides": name, **{level: _ratios(errors, "joint", level) for level in _ALL_LEVELS}}
        for name, errors in by_guides.items()
    ]
    errors = by_guides["3 of the field"]
    rows.append(
        {"guides": "network's image, not debiased", **{v: _ratios(errors, "network", v) for v in _ALL_LEVELS}}
    )
    legend = (
        "Error over that of the single restoration, by what guides. Bands of another field tell nothing; the "
        "last row is the image of the single network before debiasing, one of those that are mixed."
    )
    return Table("Guides", legend, rows)


def _leakage(number: int) -> Table:
    """Measure what other bands take of light in one band."""
    fields = [make_field(k) for k in range(number)]
    sky = np.mean([e.joint["sky"] for field in fields for e in measure_errors(field)])
    rows = []
    for kind, ratio in _LEAKS:
        found = [measure_injections(field, kind, ratio, band=k % 4) for k, field in enumerate(fields)]
        leak = np.concatenate([each.leak for each in found], axis=1)
        limit = max(0.05 * sky, 1e-3 * float(np.mean([each.light.mean() for each in found])))
        # The bands see the same source: its mean is one measurement.
        figure = _mean(leak.mean(axis=0).tolist())
        rows.append(
            {
                "injected": f"{kind} of {ratio:g}",
                "number": str(leak.shape[1]),
                "change of bands without it": format_value(figure),
                "largest of a source": format_value(float(np.abs(leak).max())),
                "limit": format_value(limit),
                "within": "yes" if abs(figure[0]) < limit else "**no**",
            }
        )
    legend = (
        "Sources of one band alone, and dropouts of all bands but one: mean change of the bands without it "
        "beneath the source, weighted with a star's profile, in units of the "
        f"peak of a star of signal-to-noise ratio 1. The limit is 0.05 of the error of the sky, {sky:.2f}, "
        "or a thousandth of the light that the source would have there with the same ratio; it is wanted "
        "for stars of one band, transients and artefacts of 20 and more."
    )
    return Table("Leakage", legend, rows)


def _outliers(number: int) -> Table:
    """Measure fluxes of sources of odd colours."""
    fields = [make_field(k) for k in range(number)]
    rows = []
    for name, ratio, elsewhere in _OUTLIERS:
        found: list[Injected] = [
            measure_injections(field, "star", ratio, band=k % 4, elsewhere=elsewhere)
            for k, field in enumerate(fields)
        ]
        single, joint = (np.concatenate([getattr(e, way) for e in found]) for way in ("single", "joint"))
        rows.append(
            {
                "star": f"{name}: {ratio:g}, and {elsewhere:g} in others",
                "number": str(len(single)),
                "bias, single [%]": format_value(_mean((single - 1.0).tolist()), 100.0),
                "bias, joint [%]": format_value(_mean((joint - 1.0).tolist()), 100.0),
                "difference [%]": format_value(_mean((joint - single).tolist()), 100.0),
                "scatter, single [%]": format_value(float(single.std()), 100.0),
                "scatter, joint [%]": format_value(float(joint.std()), 100.0),
            }
        )
    legend = (
        "Flux of injected stars, without the light that is beneath them in the truth, over the true one. "
        "Ratios are signal-to-noise ratios of a star."
    )
    return Table("Sources of odd colours", legend, rows)


def _fields(number: int) -> Iterator[Field]:
    """Yield fields, more than memory holds at a time."""
    for k in range(number):
        yield make_field(k)
        make_field.cache_clear()


def _whole(number: int) -> list[Table]:
    """Restore whole fields."""
    found = [measure_whole(field) for field in _fields(number)]
    bands = [e for each in found for name, e in each.pulls.items() if name != "detection image"]
    rows = [
        {"image": name, **{level: format_value(_mean([e[level] for e in pulls])) for level in LEVELS}}
        for name, pulls in (
            ("bands", bands),
            ("detection image", [each.pulls["detection image"] for each in found]),
        )
    ]
    pulls = Table("Declared errors", "Root mean square error over the declared one.", rows)
    sources = [each.sources for each in found]
    peaks = {name: [each.peaks[name] for each in found] for name in RANKED_BY}
    legend = f"Sources found on the detection image in {number} fields, as in the section on detection."
    rows = [{"ranked by": name, **_found(count_found(peaks[name], sources))} for name in RANKED_BY]
    return [pulls, Table("Rank of detections", legend, rows)]


def _detection(number: int) -> Table:
    """Count what is found on images of all bands."""
    sources: list[Sources] = []
    peaks: dict[str, list[Peaks]] = {}
    for field in _fields(number):
        sources.append(Sources.of_field(field))
        for name, image in make_images(field).items():
            peaks.setdefault(name, []).append(find_peaks(image, sources[-1]))
    rows = [{"image": name, **_found(count_found(each, sources))} for name, each in peaks.items()]
    counts = [
        sum(int(((s.ratios >= low) & (s.ratios < high)).sum()) for s in sources) for low, high in RATIOS
    ]
    legend = (
        f"Share of the sources of {number} fields that are found where {100 * PURITY:.0f} % of detections "
        "are true, by their signal-to-noise ratio S/N in all bands together, that of a star as bright: the "
        f"root of the sum of the squares of those in the bands; there are {counts[0]}, {counts[1]} and "
        f"{counts[2]} of them. Sources are the local maxima of that ratio in the true sky at the target "
        "PSF, in 5x5 pixels; detections are local maxima of an image above a threshold, the same in all "
        "fields, ranked by their height over the noise of a star or, where the image is linear, over its "
        "own, and true within 2 pixels of a source. They are false where the truth has no light (S/N of "
        "1.5) within 2 pixels; others are pieces of sources, and are counted for a field. Matches by "
        "chance, measured with mirrored sources, are taken off. Means have the weights of the detection "
        "image. The matched filters are on the exposures of all bands with their true PSFs: for a star that "
        "is alone nothing is better, and neighbours are blended."
    )
    return Table("Detection", legend, rows)


def _found(found: Found) -> dict[str, str]:
    """Return the cells of what was found."""
    cells = {
        f"S/N {low:g} to {high:g}": format_value(figure)
        for (low, high), figure in zip(RATIOS, found.completeness, strict=True)
    }
    return cells | {"pieces": format_value(found.pieces), "threshold": f"{found.threshold:.2f}"}


def _cost() -> Table:
    """Compare time and memory."""
    (single, single_memory), (joint, joint_memory) = (
        call_in_process(measure_cost, 0, way) for way in ("single", "joint")
    )
    rows = [
        {
            "restoration": name,
            "time [s]": f"{seconds:.0f}",
            "over single": f"{seconds / single:.2f}",
            "peak memory [MiB]": f"{memory:.0f}",
        }
        for name, seconds, memory in (
            ("four bands, each on its own", single, single_memory),
            ("four bands together", joint, joint_memory),
        )
    ]
    return Table("Cost", "Wall-clock time and peak memory of a field, each in a fresh process.", rows)
