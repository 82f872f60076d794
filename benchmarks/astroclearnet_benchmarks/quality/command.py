# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Quality of the restoration beside that of other methods."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import dataclasses
import datetime
import itertools
import json
import logging
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ..processes import FAILURES, make_pool, start_logging
from ..record import commit, make_parser, package_version, processor
from ..scenes import SCENE_KINDS, SceneOptions, simulate_scene
from .measure import run_method
from .methods import GROUPS, METHODS
from .table import make_report

_LOG = logging.getLogger(__name__)

_FIRST_SEED = 9000
"""Seeds from here on are for the table, and were used for nothing else."""

_NUM_SCENES = {"field": 5, "stars": 48, "galaxies": 16, "pairs": 12, "blank": 5}
_NUM_SLOW_SCENES = {"field": 5, "stars": 6, "galaxies": 3, "pairs": 6}
_NUM_QUICK_SCENES = {"field": 1, "stars": 2, "galaxies": 1, "pairs": 2, "blank": 1}
_NUM_OTHER_SCENES = 5
_SHAPE, _QUICK_SHAPE = (256, 256), (128, 128)


@dataclasses.dataclass(frozen=True)
class Task:
    """One run of one method.

    Attributes
    ----------
    method
        Name of the method.
    scene
        What to simulate.
    target
        FWHM of the target PSF in pixels.
    """

    method: str
    scene: SceneOptions
    target: float

    @property
    def key(self) -> dict[str, Any]:
        """What tells this run from others, for the records (`dict`)."""
        return {
            "method": self.method,
            "kind": self.scene.kind,
            "seed": self.scene.seed,
            "target": self.target,
            "num_exposures": self.scene.num_exposures,
            "shape": list(self.scene.shape),
        }


def main(words: Sequence[str]) -> int:
    """Run what is missing and write the table; 1 if a method failed."""
    start_logging()
    options = _parse(words)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.only_table:
        shape = list(_QUICK_SHAPE if options.quick else _SHAPE)
        return _write([record for record in _read(options.work) if record["shape"] == shape], options)
    tasks = list(_plan(options))
    done = {json.dumps(_key_of(record)) for record in _read(options.work)}
    missing = [task for task in tasks if json.dumps(task.key) not in done]
    _LOG.info("%d runs, %d of them done before", len(tasks), len(tasks) - len(missing))
    code = {"version": package_version("lsst-astroclearnet"), "commit": commit()}
    failures = 0
    for task, record in _run_all(missing, options.jobs):
        if record is None:
            failures += 1
            continue
        with (options.work / f"{task.method}.jsonl").open("a") as file:
            file.write(json.dumps({**task.key, **code, **record}) + "\n")
    wanted = {json.dumps(task.key) for task in tasks}
    records = [record for record in _read(options.work) if json.dumps(_key_of(record)) in wanted]
    return _write(records, options) or int(failures > 0)


def _write(records: Sequence[dict[str, Any]], options: argparse.Namespace) -> int:
    """Write the table of some records; return 1 if there are none."""
    if not records:
        return 1
    options.output.write_text(make_report(records, _header(options, records)))
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("quality", __doc__, work="records of runs")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[name for name, method in METHODS.items() if method.is_installed],
        choices=[*GROUPS, *METHODS],
        metavar="METHOD",
        help=f"groups ({', '.join(GROUPS)}) or methods ({', '.join(METHODS)}); those installed by default",
    )
    parser.add_argument(
        "--kinds", nargs="+", default=list(_NUM_SCENES), choices=SCENE_KINDS, metavar="KIND", help="scenes"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds of all scenes, instead of those planned")
    parser.add_argument(
        "--count",
        nargs="+",
        type=_read_count,
        default=[],
        metavar="KIND=N[/M]",
        help="number of scenes of a kind, instead of that planned; M of them for slow methods",
    )
    parser.add_argument("--targets", nargs="+", type=float, default=[3.0], help="target FWHM in pixels")
    parser.add_argument("--exposures", nargs="+", type=int, default=[12], help="numbers of exposures")
    parser.add_argument("--quick", action="store_true", help="a few small scenes, to see that all works")
    parser.add_argument(
        "--only-table", action="store_true", help="run nothing; write the table of all that is recorded"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    options = parser.parse_args(words)
    options.words = list(words)
    chosen = set(options.methods)
    options.methods = [name for name, method in METHODS.items() if chosen & {name, method.group}]
    return options


def _read_count(text: str) -> tuple[str, int, int | None]:
    """Read ``KIND=N`` or ``KIND=N/M``."""
    kind, _, numbers = text.partition("=")
    number, _, slow = numbers.partition("/")
    if kind not in SCENE_KINDS:
        raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(SCENE_KINDS)}")
    return kind, int(number), int(slow) if slow else None


def _plan(options: argparse.Namespace) -> Iterator[Task]:
    """Yield the runs, scene by scene."""
    for kind in options.kinds:
        indices = {index for slow in (False, True) for index in _seeds(options, kind, slow=slow)}
        for index in sorted(indices):
            for name in options.methods:
                method = METHODS[name]
                seeds = _seeds(options, kind, slow=method.is_slow)
                if index not in seeds or (method.kinds is not None and kind not in method.kinds):
                    continue
                for number, target in itertools.product(options.exposures, options.targets):
                    scene = SceneOptions(
                        seed=seeds[index],
                        kind=kind,
                        num_exposures=number,
                        shape=_QUICK_SHAPE if options.quick else _SHAPE,
                    )
                    yield Task(name, scene, target)


def _seeds(options: argparse.Namespace, kind: str, *, slow: bool) -> dict[int, int]:
    """Return the seeds of a kind by index."""
    if options.seeds:
        return dict(enumerate(options.seeds))
    numbers = _NUM_QUICK_SCENES if options.quick else _NUM_SLOW_SCENES if slow else _NUM_SCENES
    number = numbers.get(kind, 0 if slow else _NUM_OTHER_SCENES)
    for other, count, slow_count in options.count:
        if other == kind and slow:
            number = min(number, count) if slow_count is None else slow_count
        elif other == kind:
            number = count
    first = 0 if options.quick else _FIRST_SEED
    return {index: first + index for index in range(number)}


def _run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, dict[str, Any] | None]]:
    if jobs == 1:
        yield from ((task, _run(task)) for task in tasks)
        return
    # A process that dies takes its pool with it: each has one of its own.
    waiting = iter(tasks)
    running: dict[Future[dict[str, Any] | None], tuple[Task, ProcessPoolExecutor]] = {}
    for task in itertools.islice(waiting, jobs):
        pool = make_pool()
        running[pool.submit(_run, task)] = (task, pool)
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task, pool = running.pop(future)
            try:
                record = future.result()
            except BrokenProcessPool:
                _LOG.exception("%s died on %s %d", task.method, task.scene.kind, task.scene.seed)
                record = None
                pool.shutdown()
                pool = make_pool()
            following = next(waiting, None)
            if following is None:
                pool.shutdown()
            else:
                running[pool.submit(_run, following)] = (following, pool)
            yield task, record


def _run(task: Task) -> dict[str, Any] | None:
    """Run a method on a scene; `None` if it fails."""
    scene = simulate_scene(task.scene)
    try:
        record = run_method(METHODS[task.method], scene, task.target, task.scene.seed)
    except FAILURES:
        _LOG.exception("%s failed on %s %d", task.method, task.scene.kind, task.scene.seed)
        return None
    _LOG.info("%s %s %d: %.1f s", task.method, task.scene.kind, task.scene.seed, record["seconds"])
    return record


def _read(work: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of all methods, in their order."""
    for name in METHODS:
        path = work / f"{name}.jsonl"
        if path.exists():
            yield from (json.loads(line) for line in path.read_text().splitlines())


def _key_of(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("method", "kind", "seed", "target", "num_exposures", "shape")}


def _header(options: argparse.Namespace, records: Sequence[dict[str, Any]]) -> list[str]:
    """Return seeds, versions, settings and machine."""
    packages = ["torch", "numpy", "scipy", "galsim", "sep"]
    if any(METHODS[record["method"]].group == "peers" for record in records):
        packages += ["starred-astro", "jolideco", "pyimcom"]
    seeds: dict[str, set[int]] = {}
    for record in records:
        seeds.setdefault(record["kind"], set()).add(record["seed"])
    described = ", ".join(f"{kind} {min(chosen)}-{max(chosen)}" for kind, chosen in sorted(seeds.items()))
    shapes = sorted({tuple(record["shape"]) for record in records})
    codes = Counter(_code_of(record) for record in records)
    return [
        f"- Made {datetime.date.today().isoformat()} on {processor()}, "
        f"{os.environ.get('OMP_NUM_THREADS', 'default')} threads; Python {platform.python_version()}, "
        + ", ".join(f"{name} {package_version(name)}" for name in packages)
        + ".",
        "- Runs by version of lsst-astroclearnet and commit: "
        + ", ".join(f"{number} by {code}" for code, number in sorted(codes.items()))
        + ".",
        f"- Exposures of {', '.join(f'{rows}x{columns}' for rows, columns in shapes)} pixels, seeing 0.50 to "
        f"0.95 arcsec; seeds: {described} (slow methods see the first of them).",
        f"- Command: `python -m astroclearnet_benchmarks quality {' '.join(options.words)}`.",
    ]


def _code_of(record: dict[str, Any]) -> str:
    """Say which code made a record."""
    if "version" not in record:
        return "unrecorded"
    commit = record["commit"]
    return f"{record['version']} ({commit})" if commit else str(record["version"])
