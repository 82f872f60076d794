# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Any method is measured: as a function, as files, and by the command."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astroclearnet_benchmarks.baselines import InverseVarianceCoadd
from astroclearnet_benchmarks.truth import Case, expose, make_rows, measure_all
from astroclearnet_benchmarks.truth.api import as_run
from astroclearnet_benchmarks.truth.command import main
from astroclearnet_benchmarks.truth.files import read_products, write_exposures
from astroclearnet_benchmarks.truth.measure import measure_case, restore_case
from astroclearnet_benchmarks.truth.table import make_tables

PAGE = Path(__file__).parents[1] / "doc" / "lsst.astroclearnet" / "benchmark.rst"
SETTING = {"num_exposures": 2, "shape": (96, 104)}
PLACES = {"num_exposures": 2, "shape": (192, 160)}


def test_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a stranger's first attempt ends with an error."""
    (block,) = re.findall(r"code-block:: python\n\n((?: {3}.*\n|\n)+)", PAGE.read_text())
    small = "seeds=[0], suites=['injections'], num_exposures=2, shape=(192, 160)"
    code = textwrap.dedent(block).replace("seeds=range(3)", small)
    assert small in code
    exec(compile(code, str(PAGE), "exec"), {})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"median \| bias, star 20-100 \| -?[\d.]+ \| \d stars", line) for line in lines)


def test_a_coadd_keeps_the_light_of_stars_but_not_the_resolution() -> None:
    """If this fails, measures from one call are those of another image."""
    rows = measure_all(InverseVarianceCoadd(), [0, 1], suites=["injections"], **PLACES)  # type: ignore[arg-type]
    values = {row.measure: row for row in rows}
    assert {row.product for row in rows} == {"inverse-variance coadd"}
    # It declares the width of its PSF, whose wings are not Gaussian.
    assert abs(values["bias, star 20-100"].value) < 0.04
    assert values["bias, star 20-100"].number >= 2


def test_images_in_files_are_measured_like_those_in_memory(tmp_path: Path) -> None:
    """If this fails, a method that writes files is judged differently."""
    case = Case("field", 4, **SETTING)  # type: ignore[arg-type]
    exposures = expose(case)

    def coadd(images: np.ndarray, variances: np.ndarray, good: np.ndarray, *_: object, **__: object) -> Image:
        psfs = np.broadcast_to(psf, (len(images), *psf.shape))
        (restoration,) = InverseVarianceCoadd().restore(images, variances, good, psfs, target_fwhm=3.0)
        return Image(restoration.image, restoration.variance)

    psf = exposures.scenes["plain"].psfs[0]
    products, cpu = restore_case(as_run(coadd, "mine"), case, exposures)
    assert cpu >= 0.0
    in_memory = measure_case(case, exposures, products)
    files = write_exposures(case, exposures, tmp_path / "in")
    assert [file.name for file in files] == [f"{case.name}-{name}.npz" for name in ("plain", "bad")]
    (tmp_path / "out").mkdir()
    for file in files:
        with np.load(file) as arrays:
            np.testing.assert_array_equal(arrays["psfs"][0], psf)
            made = coadd(arrays["images"], arrays["variances"], arrays["good"])
            assert arrays["target_fwhm"] == 3.0
        if "plain" in file.name:
            layers = [fits.PrimaryHDU(made.image), fits.ImageHDU(made.variance, name="VARIANCE")]
            fits.HDUList(layers).writeto(tmp_path / "out" / f"{file.stem}.fits")
        else:
            np.savez(tmp_path / "out" / file.name, image=made.image)
    from_files = measure_case(case, exposures, read_products(case, tmp_path / "out", "mine"))
    in_memory["mine"].pop("difference")
    assert json.dumps(from_files) == json.dumps(in_memory)
    with pytest.raises(FileNotFoundError, match="field-5"):
        read_products(Case("field", 5), tmp_path / "out", "mine")
    np.savez(tmp_path / "out" / f"{Case('field', 5).name}-plain.npz", image=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        read_products(Case("field", 5), tmp_path / "out", "mine")


class Image:
    """Stands for what a stranger's function returns."""

    def __init__(self, image: np.ndarray, variance: np.ndarray | None) -> None:
        self.image, self.variance = image, variance


def test_command_writes_tables_and_resumes(tmp_path: Path) -> None:
    """If this fails, the table cannot be made, or an interrupted run starts
    again from nothing.
    """
    words = ["--quick", "--exposures", "2", "--suites", "crowded", "injections", "--jobs", "0"]
    words += ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "truth.md")]
    export = [*words, "--export", str(tmp_path / "exposures"), "--suites", "crowded"]
    assert main(export) == 0
    (plain,) = (tmp_path / "exposures").glob("crowded-*-plain.npz")
    folder = tmp_path / "images"
    folder.mkdir()
    np.savez(folder / plain.name, image=np.load(plain)["images"][0])
    assert main([*words, "--methods", "inverse_variance"]) == 0
    records = (tmp_path / "work" / "records.jsonl").read_text()
    assert len(records.splitlines()) == 2
    # Of the injections there is no image: they are left out.
    assert main([*words, "--methods", "inverse_variance", "--images", f"mine={folder}"]) == 0
    assert (tmp_path / "work" / "records.jsonl").read_text() == records
    page = (tmp_path / "truth.md").read_text()
    assert "| measure | objects | inverse-variance coadd | mine |" in page
    assert "### Limits of" not in page
    assert "Development seeds" in page
    with pytest.raises(SystemExit, match="no image of mine"):
        main([*words, "--methods", "inverse_variance", "--images", f"mine={tmp_path}"])


def test_limits_stand_beside_the_values() -> None:
    """If this fails, a reader cannot see what is met."""
    records = [{"restored_coadd": {"difference": value}} for value in (0.11, 0.12, 0.13)]
    rows = make_rows({"field": records})
    comparison, limits = make_tables(rows, ["restored_coadd"], with_limits=True)
    (row,) = comparison.rows
    assert row["objects"] == "3 scenes"
    assert row["restored_coadd"].startswith("0.1200 ± 0.00")
    assert limits.rows[0]["verdict"] == "met"
    assert limits.rows[0]["required"] == "0.15"
