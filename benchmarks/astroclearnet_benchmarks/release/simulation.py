# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The queue of patches, simulated event by event."""

from __future__ import annotations

__all__ = ("Facility", "Outcome", "Quantum", "Submission", "simulate")

import dataclasses
import math
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
import simpy


class Quantum(NamedTuple):
    """The work on one patch and band.

    Attributes
    ----------
    size
        Bytes that are read and written.
    seconds
        Seconds of a worker without accident.
    """

    size: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Submission:
    """A workflow that is submitted as one: a quantum graph and its jobs.

    Attributes
    ----------
    build_seconds
        Seconds to build the graph, before the first job can run.
    jobs
        The quanta of each job, which is one process.
    register_seconds
        Seconds to bring the outputs into the registry, after the last job.
    """

    build_seconds: float
    jobs: Sequence[Sequence[Quantum]]
    register_seconds: float


@dataclasses.dataclass(frozen=True)
class Facility:
    """Where the jobs run.

    Attributes
    ----------
    workers
        Jobs at a time.
    streams
        Transfers at a time; others wait.
    stream_rate
        Bytes a second of a transfer, with decoding.
    start_seconds
        Seconds from the dispatch of a job to its first transfer.
    prefetch
        Whether a quantum is read while the one before it is computed.
    failure
        Probability that a quantum fails, at any moment of its computation.
    retries
        How often a failed quantum is tried again, each time by another job.
    loss_seconds
        Mean time of computation between two losses of a worker.
    repair_seconds
        Seconds until a lost worker is replaced.
    straggler_share
        Share of the quanta that take longer.
    straggler_factor
        How many times longer they take.
    """

    workers: int
    streams: int = 1
    stream_rate: float = math.inf
    start_seconds: float = 0.0
    prefetch: bool = False
    failure: float = 0.0
    retries: int = 3
    loss_seconds: float = math.inf
    repair_seconds: float = 0.0
    straggler_share: float = 0.0
    straggler_factor: float = 1.0


@dataclasses.dataclass
class Outcome:
    """What became of the jobs.

    Attributes
    ----------
    first_ready
        When the first job could run (s).
    last_taken
        When the last job began that had not been tried before (s).
    computed
        When the last quantum ended (s).
    registered
        When the last submission was in the registry (s).
    useful_seconds
        Computation that led to a result, over all workers.
    lost_seconds
        Computation that did not, for a failure or loss.
    start_seconds
        Seconds of workers for starts of processes.
    wait_seconds
        Seconds of workers for transfers.
    repair_seconds
        Seconds that lost workers were away.
    num_jobs
        Processes that were started.
    num_done
        Quanta with a result.
    num_abandoned
        Quanta without one after all retries.
    num_failures
        Failed attempts.
    num_losses
        Losses of a worker.
    """

    first_ready: float = 0.0
    last_taken: float = 0.0
    computed: float = 0.0
    registered: float = 0.0
    useful_seconds: float = 0.0
    lost_seconds: float = 0.0
    start_seconds: float = 0.0
    wait_seconds: float = 0.0
    repair_seconds: float = 0.0
    num_jobs: int = 0
    num_done: int = 0
    num_abandoned: int = 0
    num_failures: int = 0
    num_losses: int = 0

    @property
    def occupied_seconds(self) -> float:
        """Seconds of workers with a job (`float`)."""
        return self.useful_seconds + self.lost_seconds + self.start_seconds + self.wait_seconds


def simulate(submissions: Sequence[Submission], facility: Facility, seed: int) -> Outcome:
    """Run submissions through a facility.

    Graphs are built one after the other, and their jobs wait in one queue for
    the next free worker.  A process goes on after the failure of a quantum;
    those that failed are one more job.  After the loss of a worker, the quanta
    of its job that have no result are one more job.  Losses are drawn by
    seconds of computation, so that none falls into a start or a transfer.

    Parameters
    ----------
    submissions
        What is submitted, in the order in which graphs are built.
    facility
        Where it runs.
    seed
        Seed of the accidents.

    Returns
    -------
    outcome : `Outcome`
        Times, in seconds from the beginning, and counts.
    """
    return _Queue(submissions, facility, seed).run()


class _Task(NamedTuple):
    """A quantum, and random numbers of its next attempt."""

    size: float
    seconds: float
    draws: Sequence[float]


@dataclasses.dataclass
class _Job:
    quanta: Sequence[_Task]
    submission: int
    attempt: int = 0
    is_new: bool = True


type _Process = Generator[simpy.Event, Any, None]


class _Queue:
    """The processes of a simulation and what they share."""

    def __init__(self, submissions: Sequence[Submission], facility: Facility, seed: int) -> None:
        self._submissions = submissions
        self._facility = facility
        self._rng = np.random.default_rng(seed)
        self._environment = simpy.Environment()
        self._link = simpy.Resource(self._environment, facility.streams)
        self._registry = simpy.Resource(self._environment)
        self._ready = simpy.Store(self._environment)
        self._waiting = [sum(map(len, submission.jobs)) for submission in submissions]
        self._unregistered = len(submissions)
        self._finished = self._environment.event()
        self._outcome = Outcome()

    def run(self) -> Outcome:
        self._environment.process(self._build())
        for _ in range(self._facility.workers):
            self._environment.process(self._work())
        self._environment.run(until=self._finished)
        return self._outcome

    def _build(self) -> _Process:
        for index, submission in enumerate(self._submissions):
            yield self._environment.timeout(submission.build_seconds)
            if index == 0:
                self._outcome.first_ready = self._environment.now
            for quanta in submission.jobs:
                self._ready.put(_Job([self._draw(quantum) for quantum in quanta], index))

    def _draw(self, quantum: Quantum | _Task) -> _Task:
        return _Task(quantum.size, quantum.seconds, self._rng.random(4).tolist())

    def _register(self, index: int) -> _Process:
        with self._registry.request() as request:
            yield request
            yield self._environment.timeout(self._submissions[index].register_seconds)
        self._outcome.registered = self._environment.now
        self._unregistered -= 1
        if not self._unregistered:
            self._finished.succeed()

    def _work(self) -> _Process:
        while True:
            job: _Job = yield self._ready.get()
            if job.is_new:
                self._outcome.last_taken = self._environment.now
            yield from self._run_job(job)

    def _run_job(self, job: _Job) -> _Process:
        now, facility, outcome = self._environment, self._facility, self._outcome
        outcome.num_jobs += 1
        outcome.start_seconds += facility.start_seconds
        yield now.timeout(facility.start_seconds)
        failed: list[_Task] = []
        transfer = now.process(self._transfer(job.quanta[0]))
        for position, quantum in enumerate(job.quanta):
            rest = job.quanta[position + 1 :]
            waits_since = now.now
            yield transfer
            outcome.wait_seconds += now.now - waits_since
            if rest and facility.prefetch:
                transfer = now.process(self._transfer(rest[0]))
            seconds, fate = self._attempt(quantum)
            yield now.timeout(seconds)
            if fate == "lost":
                outcome.num_losses += 1
                outcome.lost_seconds += seconds
                self._ready.put(
                    _Job([*failed, self._draw(quantum), *rest], job.submission, job.attempt, is_new=False)
                )
                outcome.repair_seconds += facility.repair_seconds
                yield now.timeout(facility.repair_seconds)
                return
            if fate == "failed":
                outcome.num_failures += 1
                outcome.lost_seconds += seconds
                failed.append(self._draw(quantum))
            else:
                outcome.useful_seconds += seconds
                outcome.num_done += 1
                self._end(1, job.submission)
            if rest and not facility.prefetch:
                transfer = now.process(self._transfer(rest[0]))
        if failed and job.attempt < facility.retries:
            self._ready.put(_Job(failed, job.submission, job.attempt + 1, is_new=False))
        elif failed:
            outcome.num_abandoned += len(failed)
            self._end(len(failed), job.submission)

    def _end(self, number: int, index: int) -> None:
        self._outcome.computed = self._environment.now
        self._waiting[index] -= number
        if not self._waiting[index]:
            self._environment.process(self._register(index))

    def _transfer(self, quantum: _Task) -> _Process:
        with self._link.request() as request:
            yield request
            yield self._environment.timeout(quantum.size / self._facility.stream_rate)

    def _attempt(self, quantum: _Task) -> tuple[float, str]:
        facility, fate, seconds = self._facility, "done", quantum.seconds
        straggles, fails, breaks_at, survives = quantum.draws
        if straggles < facility.straggler_share:
            seconds *= facility.straggler_factor
        if fails < facility.failure:
            fate, seconds = "failed", seconds * breaks_at
        survival = -math.log1p(-survives) * facility.loss_seconds
        return (survival, "lost") if survival < seconds else (seconds, fate)
