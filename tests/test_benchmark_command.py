# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command of the benchmark: what it runs, and what it writes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from astroclearnet_benchmarks.__main__ import BENCHMARKS
from astroclearnet_benchmarks.__main__ import main as run_benchmark
from astroclearnet_benchmarks.quality import command as quality
from astroclearnet_benchmarks.quality.command import Task, main
from astroclearnet_benchmarks.quality.methods import METHODS
from astroclearnet_benchmarks.quality.table import make_report
from astroclearnet_benchmarks.scenes import SceneOptions


def test_command_writes_a_table_and_resumes(tmp_path: Path) -> None:
    """If this fails, the table cannot be made, or an interrupted run starts
    again from nothing.
    """
    arguments = ["--quick", "--methods", "inverse_variance", "--output", str(tmp_path / "table.md")]
    arguments += ["--work", str(tmp_path / "work"), "--exposures", "3"]
    assert main(arguments) == 0
    (records,) = (tmp_path / "work").iterdir()
    before = records.read_text()
    assert {json.loads(line)["kind"] for line in before.splitlines()} >= {"field", "stars", "pairs"}
    assert main(arguments) == 0
    assert records.read_text() == before
    table = (tmp_path / "table.md").read_text()
    assert "| inverse-variance coadd |" in table
    assert "field 0-0" in table


def test_settings_share_a_folder_and_have_sections(tmp_path: Path) -> None:
    """If this fails, results for several targets or depths are mixed up."""
    arguments = ["--quick", "--kinds", "blank", "--methods", "inverse_variance", "--count", "blank=2"]
    arguments += ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "table.md")]
    assert main([*arguments, "--targets", "3", "3.5", "--exposures", "2"]) == 0
    assert main([*arguments, "--targets", "3.5", "--exposures", "3", "2"]) == 0
    (records,) = (tmp_path / "work").iterdir()
    assert len(records.read_text().splitlines()) == 6
    table = (tmp_path / "table.md").read_text()
    sections = [line for line in table.splitlines() if line.startswith("## ")]
    assert sections == [f"## Target FWHM 3.5 pixels, {number} exposures" for number in (2, 3)]


def test_ablations_are_compared_on_common_scenes() -> None:
    """If this fails, an ablation may look good for having seen easy scenes."""
    setting = {"kind": "blank", "target": 3.0, "num_exposures": 12, "cpu_seconds": 1.0}
    report = make_report(
        [
            {**setting, "method": method, "seed": seed, "products": {method: {"rms": {"sky": float(seed)}}}}
            for method, seeds in {"restore": (1, 2, 9), "no_debiasing": (1, 2)}.items()
            for seed in seeds
        ],
        [],
    )
    ablations = report[report.index("### Ablations") :]
    assert "| restore |" in ablations
    assert "| no_debiasing |" in ablations
    assert "| no_debiasing |" not in report[: report.index("### Ablations")]


def test_a_failing_method_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, one broken peer costs the results of a night."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setitem(METHODS, "psf_matched", type(METHODS["psf_matched"])(fail))  # type: ignore[arg-type]
    arguments = ["--quick", "--kinds", "blank", "--methods", "psf_matched", "inverse_variance"]
    arguments += [
        "--work",
        str(tmp_path / "work"),
        "--output",
        str(tmp_path / "table.md"),
        "--exposures",
        "2",
    ]
    assert main(arguments) == 1
    assert "inverse-variance coadd" in (tmp_path / "table.md").read_text()


@dataclasses.dataclass(frozen=True)
class DeadlyRun:
    """Stands for `_run`: a method whose process dies, others that do not."""

    deadly: str

    def __call__(self, task: Task) -> dict[str, Any]:
        if task.method == self.deadly:
            os._exit(1)
        return {"cpu_seconds": 1.0, "products": {task.method: {}}}


def test_a_process_that_dies_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a method that runs out of memory costs the results of a
    night.
    """
    monkeypatch.setattr(quality, "_run", DeadlyRun("psf_matched"))
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(quality, "make_pool", lambda: ProcessPoolExecutor(1, mp_context=fork))
    tasks = [
        Task(method, SceneOptions(kind="blank", seed=seed), 3.0)
        for seed in (1, 2)
        for method in ("psf_matched", "wiener")
    ]
    records = {(task.method, task.scene.seed): record for task, record in quality._run_all(tasks, 2)}
    assert len(records) == 4
    assert all((record is None) == (method == "psf_matched") for (method, _), record in records.items())


def test_counts_of_slow_methods_may_be_larger(tmp_path: Path) -> None:
    """If this fails, runs that were asked for are dropped in silence."""
    methods = ["--methods", "wiener", "image_mm", "--kinds", "field", "--work", str(tmp_path)]
    for count, expected in {"1/3": (1, 3), "3/1": (3, 1), "0/2": (0, 2), "4": (4, 4)}.items():
        tasks = list(quality._plan(quality._parse([*methods, "--count", f"field={count}"])))
        numbers = tuple(sum(task.method == name for task in tasks) for name in ("wiener", "image_mm"))
        assert numbers == expected


def test_records_name_the_code_that_made_them(tmp_path: Path) -> None:
    """If this fails, nobody knows which results an older version made."""
    arguments = ["--quick", "--kinds", "blank", "--methods", "inverse_variance", "--exposures", "2"]
    arguments += ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "table.md")]
    assert main(arguments) == 0
    (path,) = (tmp_path / "work").iterdir()
    (record,) = (json.loads(line) for line in path.read_text().splitlines())
    code = f"{record['version']} ({record['commit']})" if record["commit"] else record["version"]
    assert f"commit: 1 by {code}." in (tmp_path / "table.md").read_text()
    old = {key: value for key, value in record.items() if key not in ("version", "commit")} | {"seed": 77}
    other = old | {"shape": [256, 256]}
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in (old, other))
    assert main([*arguments, "--only-table"]) == 0
    assert f"commit: 1 by {code}, 1 by unrecorded." in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a benchmark of the documentation cannot be started."""
    with pytest.raises(SystemExit, match="0"):
        run_benchmark([name, "--help"])
    assert f"python -m astroclearnet_benchmarks {name}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["other"]])
def test_unknown_benchmark_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a typing error ends with a traceback."""
    assert run_benchmark(words) == 2
    assert "quality" in capsys.readouterr().err
