# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The plan of a release: truths of its queue, and its record."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astroclearnet_benchmarks.release.command import main
from astroclearnet_benchmarks.release.costs import COSTS, Cost, PatchCosts
from astroclearnet_benchmarks.release.plan import RESOURCES, plan_release, rank_bottlenecks
from astroclearnet_benchmarks.release.simulation import Facility, Quantum, Submission, simulate
from astroclearnet_benchmarks.release.surveys import HSC_WIDE, RUBIN_YEAR_1, SURVEYS


def submit(jobs: list[list[Quantum]], build: float = 0.0, register: float = 0.0) -> list[Submission]:
    return [Submission(build, jobs, register)]


def with_costs(costs: PatchCosts, **values: float) -> PatchCosts:
    """Change values, and leave what is said of them."""
    changed = {name: dataclasses.replace(getattr(costs, name), value=value) for name, value in values.items()}
    return dataclasses.replace(costs, **changed)  # type: ignore[arg-type]


def without_accidents(costs: PatchCosts) -> PatchCosts:
    return with_costs(costs, failure=0.0, loss=math.inf, straggler_share=0.0, scatter=0.0)


def test_one_worker_takes_the_sum_of_all_times() -> None:
    jobs = [[Quantum(20.0, 3.0), Quantum(40.0, 5.0)], [Quantum(10.0, 7.0)]]
    facility = Facility(workers=1, streams=1, stream_rate=10.0, start_seconds=0.5)
    outcome = simulate(submit(jobs, build=100.0, register=11.0), facility, seed=1)
    assert outcome.first_ready == 100.0
    assert outcome.computed == pytest.approx(100.0 + 2 * 0.5 + 7.0 + 15.0)
    assert outcome.registered == pytest.approx(outcome.computed + 11.0)
    assert outcome.occupied_seconds == pytest.approx(outcome.computed - 100.0)
    assert outcome.num_jobs == 2


def test_prefetch_hides_the_shorter_of_transfer_and_computation() -> None:
    job = [Quantum(2.0, 5.0), Quantum(3.0, 1.0), Quantum(4.0, 6.0)]
    outcome = simulate(submit([job]), Facility(workers=1, stream_rate=1.0, prefetch=True), seed=1)
    # The first transfer, two pairs of which the longer counts, and the last
    # computation.
    assert outcome.computed == pytest.approx(2.0 + max(5.0, 3.0) + max(1.0, 4.0) + 6.0)


def test_many_workers_are_as_good_as_any_schedule_of_a_list() -> None:
    """If it fails, workers are idle while jobs wait."""
    seconds = np.random.default_rng(3).exponential(10.0, 200)
    outcome = simulate(submit([[Quantum(1e9, value)] for value in seconds]), Facility(workers=7), seed=1)
    # Graham 1969: the bounds of every list schedule without other limits.
    assert seconds.sum() / 7 <= outcome.computed <= seconds.sum() / 7 + seconds.max()
    assert outcome.wait_seconds == 0.0


def test_full_link_bounds_the_rate() -> None:
    jobs = [[Quantum(6.0, 0.01)] for _ in range(100)]
    outcome = simulate(submit(jobs), Facility(workers=40, streams=2, stream_rate=3.0), seed=1)
    assert outcome.computed == pytest.approx(100 * 6.0 / (2 * 3.0) + 0.01)


def test_link_with_random_transfers_has_the_rate_of_the_closed_queue() -> None:
    """If it fails, workers that wait for the link are counted wrong."""
    number, think, transfer, length = 5, 4.0, 1.0, 4000
    rng = np.random.default_rng(5)
    jobs = [
        [
            Quantum(size, value)
            for size, value in zip(
                rng.exponential(transfer, length), rng.exponential(think, length), strict=True
            )
        ]
        for _ in range(number)
    ]
    outcome = simulate(submit(jobs), Facility(workers=number, stream_rate=1.0), seed=1)
    # M/M/1//N, the machine-repair model: the share of time of an idle link.
    load = transfer / think
    idle = 1.0 / sum(math.perm(number, k) * load**k for k in range(number + 1))
    assert number * length / outcome.computed == pytest.approx((1.0 - idle) / transfer, rel=0.03)


@settings(max_examples=40, deadline=None)
@given(
    failure=st.floats(0.0, 0.9),
    loss=st.floats(2.0, 100.0),
    retries=st.integers(0, 4),
    workers=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    prefetch=st.booleans(),
)
def test_no_patch_is_lost_or_done_twice(
    failure: float, loss: float, retries: int, workers: int, lengths: list[int], prefetch: bool
) -> None:
    jobs = [[Quantum(1.0, 1.0 + n) for n in range(length)] for length in lengths]
    facility = Facility(
        workers,
        stream_rate=1.0,
        prefetch=prefetch,
        failure=failure,
        retries=retries,
        loss_seconds=loss,
        repair_seconds=3.0,
        straggler_share=0.2,
        straggler_factor=2.0,
    )
    outcome = simulate([*submit(jobs), *submit(jobs, build=5.0, register=1.0)], facility, seed=9)
    assert outcome.num_done + outcome.num_abandoned == 2 * sum(lengths)
    assert outcome.num_failures >= outcome.num_abandoned * (retries + 1)
    assert outcome.registered >= outcome.computed


def test_failures_are_as_frequent_as_said() -> None:
    jobs = [[Quantum(0.0, 2.0)] * 10 for _ in range(600)]
    outcome = simulate(submit(jobs), Facility(workers=10, failure=0.2, retries=50), seed=2)
    # Attempts follow a geometric distribution, and break at half of their time
    # in the mean.
    assert outcome.num_failures == pytest.approx(6000 * 0.2 / 0.8, rel=0.08)
    assert outcome.lost_seconds == pytest.approx(outcome.num_failures * 1.0, rel=0.08)


def test_losses_cost_what_restarts_cost() -> None:
    length, between = 10.0, 20.0
    jobs = [[Quantum(0.0, length)] for _ in range(6000)]
    facility = Facility(workers=10, loss_seconds=between, repair_seconds=1.0)
    outcome = simulate(submit(jobs), facility, seed=2)
    # Mean time until an interval without event of a Poisson process.
    expected = 6000 * between * math.expm1(length / between)
    assert outcome.useful_seconds + outcome.lost_seconds == pytest.approx(expected, rel=0.03)
    assert outcome.repair_seconds == outcome.num_losses


def test_detectors_on_a_patch_are_counted_as_they_lie() -> None:
    """If it fails, inputs and graphs of releases are wrong."""
    rng = np.random.default_rng(4)
    side = np.linspace(-0.5, 0.5, 200) * RUBIN_YEAR_1.patch_side
    y, x = np.meshgrid(side, side)
    height, width = RUBIN_YEAR_1.detector_shape
    counts = []
    for angle, shift_x, shift_y in rng.random((500, 3)) * (2 * np.pi, width, height):
        columns = np.floor((x * np.cos(angle) - y * np.sin(angle) + shift_x) / width)
        rows = np.floor((x * np.sin(angle) + y * np.cos(angle) + shift_y) / height)
        counts.append(len(np.unique(1000 * rows + columns)))
    assert np.mean(counts) == pytest.approx(RUBIN_YEAR_1.detectors_per_exposure, rel=0.05)


def test_surveys_have_the_size_that_others_count() -> None:
    # RTN-109, Tables 6 and 7: 14.5 warps a coadd in year 1, edges included.
    depth = np.mean(list(RUBIN_YEAR_1.depths.values()))
    assert depth == pytest.approx(107391908 / 7398852, rel=0.15)
    assert len({survey.name for survey in SURVEYS}) == len(SURVEYS)


def test_plan_without_accidents_is_arithmetic() -> None:
    """If it fails, the slice does not stand for the whole."""
    costs = with_costs(without_accidents(COSTS[0]), decode=1e12, start=0.0)
    survey = dataclasses.replace(HSC_WIDE, site=dataclasses.replace(HSC_WIDE.site, bandwidth=1e18))
    plan = plan_release(survey, costs)
    exposures = np.mean(list(survey.depths.values()))
    quantum = (
        1e-6 * costs.compute.value * survey.patch_pixels * exposures / costs.speedup.value
        + costs.overhead.value
    )
    # A Poisson distribution that does not go below one has a higher mean.
    assert plan.worker_seconds / survey.num_quanta == pytest.approx(quantum, rel=0.03)
    assert plan.wall_seconds == pytest.approx(plan.worker_seconds / plan.workers, rel=0.05)
    assert plan.utilisation == pytest.approx(1.0, abs=0.05)
    assert plan.num_jobs == pytest.approx(survey.num_patches, rel=0.01)


def test_plan_grows_with_the_sky() -> None:
    double = dataclasses.replace(RUBIN_YEAR_1, area=2 * RUBIN_YEAR_1.area)
    one, two = (plan_release(survey, COSTS[-1], rounds=4) for survey in (RUBIN_YEAR_1, double))
    assert two.wall_seconds == pytest.approx(2 * one.wall_seconds, rel=0.02)
    assert two.read_bytes == pytest.approx(2 * one.read_bytes, rel=1e-3)


@pytest.mark.parametrize(
    ("resource", "costs", "bandwidth"),
    [
        ("bandwidth", {}, 1e8),
        ("decoding", {"decode": 0.1}, 1e12),
        ("start of a process", {"start": 1e5}, 1e12),
        ("registry", {"register": 1e5}, 1e12),
        ("submit hosts", {"submit": 1e6}, 1e12),
        ("overhead of a patch", {"overhead": 1e4, "compute": 1e-6, "prefetch": 1.0}, 1e12),
    ],
)
def test_scarce_resource_is_found(resource: str, costs: dict[str, float], bandwidth: float) -> None:
    """If it fails, the page names a bottleneck that is none."""
    site = dataclasses.replace(HSC_WIDE.site, bandwidth=bandwidth, submit_hosts=2)
    survey = dataclasses.replace(HSC_WIDE, site=site)
    gains = dict(rank_bottlenecks(survey, with_costs(without_accidents(COSTS[-1]), **costs), rounds=3))
    assert set(gains) == set(RESOURCES)
    others = [gain for name, gain in gains.items() if name not in (resource, "processors")]
    assert gains[resource] > 0.35 > max(others)


def test_every_cost_says_where_it_is_from() -> None:
    for costs in COSTS:
        for field in dataclasses.fields(costs):
            cost = getattr(costs, field.name)
            assert not isinstance(cost, Cost) or len(cost.source) > 10, (costs.name, field.name)


def test_record_is_written(tmp_path: Path) -> None:
    """If it fails, the record cannot be made again."""
    page = tmp_path / "release.md"
    assert main(["--quick", "--output", str(page)]) == 0
    text = page.read_text()
    for heading in ("### Surveys and", "### Costs: GPU, pred", "### Release: HSC", "### First", "### Second"):
        assert heading in text
    assert "nan" not in text
    assert "| GPU-hours | - |" in text
