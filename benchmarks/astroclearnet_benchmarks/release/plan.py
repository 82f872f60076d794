# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a release takes, extrapolated from a simulated slice of it."""

from __future__ import annotations

__all__ = ("RESOURCES", "ROUNDS", "ReleasePlan", "plan_release", "rank_bottlenecks")

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from .costs import Cost, PatchCosts
from .simulation import Facility, Outcome, Quantum, Submission, simulate
from .surveys import Site, Survey

_WORKERS = 64
"""Most workers that are simulated."""

ROUNDS = 12
"""Jobs of each of them."""

_MAX_QUANTA = 20000
"""Most quanta that are simulated."""


@dataclasses.dataclass(frozen=True)
class ReleasePlan:
    """What a release takes.

    Attributes
    ----------
    workers
        Jobs at a time.
    wall_seconds
        From the first submission to the last registration.
    worker_seconds
        Seconds of workers with a job.
    utilisation
        Share of the time of all workers in which they compute.
    read_bytes
        Bytes of visit images that are read.
    write_bytes
        Bytes of coadds that are written.
    num_inputs
        Visit images of all quanta, each counted as often as it is used.
    num_jobs
        Processes.
    num_datasets
        Datasets that are registered.
    graph_bytes
        Size of all quantum graphs.
    graph_seconds
        Seconds of submit hosts to build them.
    register_seconds
        Seconds of the registry.
    num_failures
        Failed attempts.
    num_losses
        Losses of workers that are expected.
    num_abandoned
        Quanta without result after all retries.
    lost_seconds
        Seconds of workers for attempts without result, and for replacements.
    """

    workers: int
    wall_seconds: float
    worker_seconds: float
    utilisation: float
    read_bytes: float
    write_bytes: float
    num_inputs: float
    num_jobs: float
    num_datasets: float
    graph_bytes: float
    graph_seconds: float
    register_seconds: float
    num_failures: float
    num_losses: float
    num_abandoned: float
    lost_seconds: float


def plan_release(survey: Survey, costs: PatchCosts, *, seed: int = 1, rounds: int = ROUNDS) -> ReleasePlan:
    """Simulate a slice of a release, and extrapolate it.

    The slice has a part of the workers, with the same part of the bandwidth,
    of the submit hosts and of the registry, and some jobs for each of them.
    Between the first job and the drain of the queue its rate is that of the
    whole; the drain, when fewer jobs are left than workers, happens once.

    Parameters
    ----------
    survey
        The survey, with its site.
    costs
        Costs of a patch.
    seed
        Seed of depths, times and accidents.
    rounds
        Jobs of each simulated worker.

    Returns
    -------
    plan : `ReleasePlan`
        What the whole takes.
    """
    workers = _count_workers(survey.site, costs)
    quanta_per_job = round(costs.cluster.value) * len(survey.depths)
    least = max(1, min(workers, _WORKERS, _MAX_QUANTA // (rounds * quanta_per_job)))
    share = least / workers
    jobs = min(rounds * least, max(1, round(survey.num_quanta / quanta_per_job * share)))
    inputs = survey.detectors_per_exposure * sum(survey.depths.values()) * survey.patches_per_tract
    per_tract = survey.patches_per_tract * len(survey.depths)
    build = _graph_seconds(costs, per_tract, inputs)
    register = costs.register.value + 1e-3 * costs.register_dataset.value * costs.datasets.value * per_tract
    submissions = _make_submissions(
        survey,
        costs,
        np.random.default_rng(seed),
        jobs=jobs,
        build=build / (survey.site.submit_hosts * share),
        register=register / share,
    )
    outcome = simulate(submissions, _make_facility(survey.site, costs, least, share), seed + 1)
    measured = _Slice(
        workers=workers,
        share=share,
        fraction=jobs * quanta_per_job / survey.num_quanta,
        steady=_ratio_of_steady_parts(survey.num_quanta / quanta_per_job * share, jobs, least),
        build=build,
        register=register,
        inputs=inputs,
    )
    return _extrapolate(survey, costs, outcome, measured)


@dataclasses.dataclass(frozen=True)
class _Slice:
    """What was simulated of the whole, and how long a tract is handled."""

    workers: int
    share: float
    fraction: float
    steady: float
    build: float
    register: float
    inputs: float


def _ratio_of_steady_parts(jobs: float, simulated: int, workers: int) -> float:
    """Return how many times more jobs begin than those that begin at once."""
    if simulated <= workers:
        return 1.0
    return max(1.0, (jobs - workers) / (simulated - workers))


def _count_workers(site: Site, costs: PatchCosts) -> int:
    return site.gpus if costs.on_gpu else max(1, site.cores // round(costs.cores.value))


def _graph_seconds(costs: PatchCosts, quanta: float, inputs: float) -> float:
    return costs.submit.value + 1e-3 * (costs.graph_quantum.value * quanta + costs.graph_input.value * inputs)


def _make_submissions(
    survey: Survey, costs: PatchCosts, rng: np.random.Generator, *, jobs: int, build: float, register: float
) -> list[Submission]:
    """Draw the jobs, and submit them by tracts."""
    patches = round(costs.cluster.value)
    depths = np.tile(list(survey.depths.values()), (jobs, patches, 1))
    exposures = np.maximum(1, rng.poisson(depths)).reshape(jobs, -1)
    scatter = costs.scatter.value
    factors = rng.lognormal(-(scatter**2) / 2, scatter, exposures.shape)
    seconds = 1e-6 * costs.compute.value * survey.patch_pixels * exposures * factors / costs.speedup.value
    seconds += costs.overhead.value
    sizes = costs.read.value * survey.read_pixels_per_exposure * exposures
    sizes += costs.write.value * survey.patch_pixels
    made = [
        [Quantum(*map(float, values)) for values in zip(*rows, strict=True)]
        for rows in zip(sizes, seconds, strict=True)
    ]
    length = max(1, math.ceil(survey.patches_per_tract / patches))
    return [Submission(build, made[start : start + length], register) for start in range(0, jobs, length)]


def _make_facility(site: Site, costs: PatchCosts, workers: int, share: float) -> Facility:
    """Share the bandwidth out among as many transfers as fill it."""
    rate, bandwidth = 1e6 * costs.decode.value, site.bandwidth * share
    streams = math.ceil(bandwidth / rate)
    return Facility(
        workers=workers,
        streams=streams,
        stream_rate=bandwidth / streams,
        start_seconds=costs.start.value,
        prefetch=costs.prefetch.value > 0,
        failure=costs.failure.value,
        loss_seconds=3600 * costs.loss.value,
        repair_seconds=3600 * costs.repair.value,
        straggler_share=costs.straggler_share.value,
        straggler_factor=costs.straggler_factor.value,
    )


def _extrapolate(survey: Survey, costs: PatchCosts, outcome: Outcome, part: _Slice) -> ReleasePlan:
    drain = outcome.computed - outcome.last_taken
    backlog = outcome.registered - part.register / part.share - outcome.computed
    steady = outcome.last_taken + backlog - outcome.first_ready
    wall = part.build + steady * part.steady + drain + part.register
    computed = (outcome.useful_seconds + outcome.lost_seconds) / part.fraction
    num_tracts = survey.num_tracts
    inputs = part.inputs * num_tracts
    exposures = survey.num_patches * sum(survey.depths.values())
    graph = costs.graph_quantum_size.value * survey.num_quanta + costs.graph_input_size.value * inputs
    return ReleasePlan(
        workers=part.workers,
        wall_seconds=wall,
        worker_seconds=outcome.occupied_seconds / part.fraction,
        utilisation=outcome.useful_seconds / part.fraction / (wall * part.workers),
        read_bytes=exposures * survey.read_pixels_per_exposure * costs.read.value,
        write_bytes=survey.num_quanta * survey.patch_pixels * costs.write.value,
        num_inputs=inputs,
        num_jobs=outcome.num_jobs / part.fraction,
        num_datasets=survey.num_quanta * costs.datasets.value,
        graph_bytes=graph,
        graph_seconds=part.build * num_tracts,
        register_seconds=part.register * num_tracts,
        num_failures=outcome.num_failures / part.fraction,
        num_losses=computed / (3600 * costs.loss.value),
        num_abandoned=outcome.num_abandoned / part.fraction,
        lost_seconds=(outcome.lost_seconds + outcome.repair_seconds) / part.fraction,
    )


type _Change = Callable[[Survey, PatchCosts], tuple[Survey, PatchCosts]]


def _scale_site(**factors: float) -> _Change:
    """Return what multiplies resources of the site."""

    def change(survey: Survey, costs: PatchCosts) -> tuple[Survey, PatchCosts]:
        site = survey.site
        values = {name: type(getattr(site, name))(getattr(site, name) * f) for name, f in factors.items()}
        return dataclasses.replace(survey, site=dataclasses.replace(site, **values)), costs

    return change


def _scale_costs(**factors: float) -> _Change:
    """Return what multiplies costs of a patch."""

    def change(survey: Survey, costs: PatchCosts) -> tuple[Survey, PatchCosts]:
        values: dict[str, Cost] = {
            name: dataclasses.replace(getattr(costs, name), value=getattr(costs, name).value * f)
            for name, f in factors.items()
        }
        return survey, dataclasses.replace(costs, **values)  # type: ignore[arg-type]

    return change


RESOURCES: dict[str, _Change] = {
    "processors": _scale_site(cores=2, gpus=2),
    "bandwidth": _scale_site(bandwidth=2.0),
    "decoding": _scale_costs(decode=2.0),
    "overhead of a patch": _scale_costs(overhead=0.5),
    "start of a process": _scale_costs(start=0.5),
    "submit hosts": _scale_site(submit_hosts=2),
    "registry": _scale_costs(register=0.5, register_dataset=0.5),
    "failures": _scale_costs(failure=0.5, loss=2.0),
    "stragglers": _scale_costs(straggler_share=0.5),
}
"""Each resource, and what doubles it or halves its cost."""


def rank_bottlenecks(
    survey: Survey, costs: PatchCosts, *, removed: str | None = None, seed: int = 1, rounds: int = ROUNDS
) -> list[tuple[str, float]]:
    """Double each resource in turn, or halve its cost.

    Parameters
    ----------
    survey
        The survey, with its site.
    costs
        Costs of a patch.
    removed
        Resource of which there is eight times as much, or which costs an
        eighth, so that it does not hide the next one.
    seed
        Seed of all simulations.
    rounds
        Jobs of each simulated worker.

    Returns
    -------
    gains : `list` [`tuple` [`str`, `float`]]
        Names of the other resources and the share of the wall time that they
        save, the largest first.
    """
    if removed is not None:
        for _ in range(3):
            survey, costs = RESOURCES[removed](survey, costs)
    wall = plan_release(survey, costs, seed=seed, rounds=rounds).wall_seconds
    gains = [
        (name, 1.0 - plan_release(*change(survey, costs), seed=seed, rounds=rounds).wall_seconds / wall)
        for name, change in RESOURCES.items()
        if name != removed
    ]
    return sorted(gains, key=lambda gain: -gain[1])
