# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A data release on paper, from the costs of a patch."""

from __future__ import annotations

__all__ = ("main",)

import dataclasses
from collections.abc import Sequence

from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from .costs import COSTS, Cost, PatchCosts
from .plan import RESOURCES, ROUNDS, ReleasePlan, plan_release, rank_bottlenecks
from .surveys import SURVEYS, Survey

_INTRODUCTION = (
    "What the restored coadds of a survey would take, planned from the costs of a patch. Nothing of this "
    "size was run. The costs are measured, predicted from counts, or assumed, as their tables say; they are "
    "edited in `astroclearnet_benchmarks/release/costs.py`, surveys and facilities in `surveys.py` beside it."
)

_REMEDIES = {
    "processors": "a faster engine, then more processors",
    "bandwidth": "overlaps in place of whole files, fewer bytes a pixel, flash near the processors",
    "decoding": "decoding on all cores of a job while its processor computes",
    "overhead of a patch": "keeping network, PSF models and sky map from patch to patch of a process",
    "start of a process": "more patches in a process (`partitionMaxSize`)",
    "submit hosts": "building graphs of more tracts at a time, on more hosts",
    "registry": "fewer datasets for each patch, and registries that are filled apart and merged",
    "failures": "keeping finished tiles for the next attempt",
    "stragglers": "deep patches first, and a second attempt for what takes too long",
}
"""What would remove each bottleneck."""


def main(words: Sequence[str]) -> int:
    """Simulate and write the page."""
    start_logging()
    parser = make_parser("release", __doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few jobs for each worker, to see that all works"
    )
    options = parser.parse_args(words)
    rounds = 2 if options.quick else ROUNDS
    surveys = SURVEYS[-1:] if options.quick else SURVEYS
    tables = [_survey_table(), _cost_table(COSTS[0], None)]
    tables += [_cost_table(costs, COSTS[0]) for costs in COSTS[1:]]
    for survey in surveys:
        plans = {costs.name: plan_release(survey, costs, rounds=rounds) for costs in COSTS}
        tables.append(_plan_table(survey, plans))
    tables += _bottleneck_tables(surveys, rounds)
    section = Section.measured("plan", parser.prog + " --quick" * options.quick, tables)
    options.output.write_text(make_page([section], title="Data release", introduction=_INTRODUCTION))
    return 0


def _survey_table() -> Table:
    """Say what is released, and where."""
    rows = [
        {
            "survey": survey.name,
            "square degrees": f"{survey.area:,.0f}",
            "tracts": f"{survey.num_tracts:,}",
            "patches": f"{survey.num_patches:,}",
            "pixels of a patch": f"{survey.patch_side}x{survey.patch_side} of {survey.pixel_scale} arcsec",
            "exposures by band": ", ".join(f"{band} {depth:.3g}" for band, depth in survey.depths.items()),
            "visit images of a patch and exposure": f"{survey.detectors_per_exposure:.1f}",
            "source": survey.source,
            "site": f"{survey.site.name}: {survey.site.cores:,} cores, {survey.site.gpus} GPUs, "
            f"{survey.site.bandwidth / 1e9:.3g} GB/s, {survey.site.submit_hosts} submit hosts",
            "source of the site": survey.site.source,
        }
        for survey in SURVEYS
    ]
    legend = (
        "Exposures are those that cover a point. Of each, so many visit images overlap a patch in the mean, "
        "for patches and detectors at random places and angles."
    )
    return Table("Surveys and facilities", legend, rows)


def _cost_table(costs: PatchCosts, base: PatchCosts | None) -> Table:
    """List costs, only those that differ from others if there are some."""
    rows = []
    for field in dataclasses.fields(PatchCosts):
        cost = getattr(costs, field.name)
        if not isinstance(cost, Cost) or (base is not None and cost == getattr(base, field.name)):
            continue
        value = f"{cost.value:,.4g}" if cost.value < 1e4 else f"{cost.value:,.0f}"
        rows.append(
            {
                "cost": field.name,
                "value": f"{value} {cost.unit}".strip(),
                "known": cost.kind,
                "source": cost.source,
            }
        )
    rest = "" if base is None else f" Those that are not listed are those of {base.name}."
    legend = "Compute is for a pixel of the patch and an exposure; `PatchCosts` explains all of them." + rest
    return Table(f"Costs: {costs.name}", legend, rows)


def _plan_table(survey: Survey, plans: dict[str, ReleasePlan]) -> Table:
    """Show what a release takes, a column for each set of costs."""
    columns = {costs.name: _describe(survey, costs, plans[costs.name]) for costs in COSTS}
    first = next(iter(columns.values()))
    rows = [{"": key} | {name: values[key] for name, values in columns.items()} for key in first]
    legend = (
        f"{survey.num_quanta:,} quanta, {survey.num_patches:,} patches in {len(survey.depths)} bands, in a "
        f"submission for each of {survey.num_tracts:,} tracts. Hours of workers include starts, transfers "
        "and lost attempts. Utilisation is the share of the time of all workers in which they compute what "
        "is kept."
    )
    return Table(f"Release: {survey.name}", legend, rows)


def _describe(survey: Survey, costs: PatchCosts, plan: ReleasePlan) -> dict[str, str]:
    hours = plan.worker_seconds / 3600
    patch = plan.worker_seconds / survey.num_quanta
    return {
        "workers": f"{plan.workers:,} " + ("GPUs" if costs.on_gpu else f"of {costs.cores.value:.0f} cores"),
        "CPU core-hours": f"{hours * costs.cores.value:,.0f}",
        "GPU-hours": f"{hours:,.0f}" if costs.on_gpu else "-",
        "worker seconds for a quantum": f"{patch:,.0f}",
        "wall time (days)": f"{plan.wall_seconds / 86400:,.1f}",
        "utilisation (%)": f"{100 * plan.utilisation:.0f}",
        "inputs read (TB)": f"{plan.read_bytes / 1e12:,.0f}",
        "coadds written (TB)": f"{plan.write_bytes / 1e12:,.0f}",
        "mean bandwidth (GB/s)": f"{(plan.read_bytes + plan.write_bytes) / plan.wall_seconds / 1e9:.3g}",
        "jobs (1000)": f"{plan.num_jobs / 1e3:,.0f}",
        "jobs started an hour": f"{3600 * plan.num_jobs / plan.wall_seconds:,.0f}",
        "inputs in the graphs (million)": f"{plan.num_inputs / 1e6:,.1f}",
        "graphs (GB)": f"{plan.graph_bytes / 1e9:,.3g}",
        "building graphs (host-hours)": f"{plan.graph_seconds / 3600:,.0f}",
        "datasets registered (million)": f"{plan.num_datasets / 1e6:,.1f}",
        "registering (hours)": f"{plan.register_seconds / 3600:,.0f}",
        "failed attempts": f"{plan.num_failures:,.0f}",
        "losses of workers (expected)": f"{plan.num_losses:,.0f}",
        "worker-hours lost to both": f"{plan.lost_seconds / 3600:,.0f}",
        "quanta given up": f"{plan.num_abandoned:,.0f}",
    }


def _bottleneck_tables(surveys: Sequence[Survey], rounds: int) -> list[Table]:
    """Double each resource in turn, then once more without the first."""
    first_rows, second_rows = [], []
    for survey in surveys:
        for costs in COSTS:
            names = {"survey": survey.name, "costs": costs.name}
            gains = rank_bottlenecks(survey, costs, rounds=rounds)
            first = gains[0][0]
            first_rows.append(names | _gain_cells(gains, {}))
            gains = rank_bottlenecks(survey, costs, removed=first, rounds=rounds)
            second_rows.append(names | _gain_cells(gains, {first: "removed"}))
    legend = (
        "Per cent of the wall time that are saved if a resource is doubled, or its cost halved, and all "
        "others stay. Gains of three per cent or less are within the scatter of the simulation."
    )
    after = "The same, where there is eight times as much of the first bottleneck, or it costs an eighth. "
    return [
        Table("First bottleneck", legend, first_rows),
        Table("Second bottleneck", after + legend, second_rows),
    ]


def _gain_cells(gains: list[tuple[str, float]], others: dict[str, str]) -> dict[str, str]:
    cells = others | {name: f"{100 * gain:.1f}" for name, gain in gains}
    return {name: cells[name] for name in RESOURCES} | {
        "bottleneck": gains[0][0],
        "what would remove it": _REMEDIES[gains[0][0]],
    }
