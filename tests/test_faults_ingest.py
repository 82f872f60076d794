# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What can be wrong with files to be ingested, and with the commands."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astro_metadata_translator import ObservationInfo

from lsst.astroclearnet.cli import main
from lsst.astroclearnet.commands import CommandError, ingest_files
from lsst.astroclearnet.commands._demonstration import _survey
from lsst.astroclearnet.repository import create_repository, ingest_visit_image
from lsst.astroclearnet.repository._records import _register_visit_detector
from lsst.astroclearnet.simulation import SurveyOptions
from lsst.astroclearnet.tests import make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.daf.butler.direct_butler import DirectButler
from lsst.images.serialization import write_archive

SHAPE = (60, 70)


def write(
    path: Path,
    level: float = 1.0,
    *,
    band: str = "i",
    detector: int = 0,
    offset: tuple[float, float] = (0.0, 0.0),
    **info: Any,
) -> str:
    """Write a visit image of one level, and return its path."""
    projection = make_projection(SHAPE, detector=detector, offset=offset)
    values: dict[str, Any] = {
        "instrument": "TestCam",
        "physical_filter": "i_test",
        "visit_id": 1,
        "exposure_id": 1,
        "detector_num": detector,
    } | info
    image = make_visit_image(np.full(SHAPE, level), projection, band=band, obs_info=ObservationInfo(**values))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_archive(image, str(path))
    return str(path)


def held(root: Path, detector: int = 0) -> float:
    """Return the level of an image in a repository."""
    butler = Butler.from_config(str(root), collections="TestCam/defaults")
    image = butler.get("visit_image", instrument="TestCam", visit=1, detector=detector)
    butler.close()
    return float(image.image.array.mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"band": ""}, "names no band"),
        ({"band": "../i"}, r"name of the band is '\.\./i'"),
        ({"band": "i" * 33}, "name of the band is 'iii"),
        ({"physical_filter": ""}, "names no physical filter"),
        ({"physical_filter": "i/../../x"}, "name of the physical filter is 'i/"),
        ({"instrument": "../../../../elsewhere"}, r"name of the instrument is '\.\./"),
        ({"instrument": ".hidden"}, r"name of the instrument is '\.hidden'"),
        ({"visit_id": -1}, "visit is -1: it must be an integer from 0"),
        ({"visit_id": 2**63}, f"visit is {2**63}: it must be an integer from 0 to {2**63 - 1}"),
        ({"observing_day": 10**9}, "observing day is 1000000000"),
        ({"offset": (np.nan, 0.0)}, "cannot be read|sky projection gives its corners no positions"),
    ],
)
def test_file_that_lacks_something_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """If it fails, the error is one of a database, a name in the file writes
    outside the repository, or remains are in the way of the corrected command.
    """
    path = tmp_path / "visit.fits"
    root = tmp_path / "deep" / "repo"
    root.parent.mkdir()
    try:
        write(path, **changes)
    except ValueError:
        pytest.skip("such an image cannot be made")
    before = {*tmp_path.rglob("*")}
    with pytest.raises(CommandError, match=rf"visit\.fits.*{message}"):
        ingest_files(root, [str(path)], skymap="m", cell_size=25)
    assert {*tmp_path.rglob("*")} == before


def test_largest_numbers_are_kept(tmp_path: Path) -> None:
    """If it fails, numbers are refused that a registry holds."""
    path = write(tmp_path / "visit.fits", visit_id=2**63 - 1, object="x" * 99 + "\n", science_program="\0")
    ingest_files(tmp_path / "repo", [path], skymap="m", cell_size=25)
    butler = Butler.from_config(str(tmp_path / "repo"))
    (record,) = butler.query_dimension_records("visit", instrument="TestCam")
    assert (record.id, record.target_name) == (2**63 - 1, "x" * 64)


@pytest.mark.parametrize("words", [["--skymap", "../m"], ["--skymap", "m", "--pixel-scale", "-1"]])
def test_wrong_argument_makes_nothing(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, the corrected command finds the remains."""
    path = write(tmp_path / "visit.fits")
    assert main(["ingest", str(tmp_path / "repo"), path, *words]) == 1
    assert capsys.readouterr().err.startswith("astroclearnet: error: ")
    assert [found.name for found in tmp_path.iterdir()] == ["visit.fits"]


@pytest.mark.parametrize(
    "options",
    [{"pixel_scale": 0.0}, {"pixel_scale": float("nan")}, {"pixel_scale": 1e-9}, {"num_patches": 10**6}],
)
def test_senseless_sky_map_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """If it fails, a slip of the hand writes a million patches."""
    path = write(tmp_path / "visit.fits")
    with pytest.raises(CommandError, match="pixel_scale=|num_patches="):
        ingest_files(tmp_path / "repo", [path], skymap="m", cell_size=25, **options)
    assert not (tmp_path / "repo").exists()


def test_changed_file_is_told_or_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, coadds are made of pixels that were reprocessed since."""
    root, path = tmp_path / "repo", tmp_path / "visit.fits"
    words = ["ingest", str(root), str(path), "--skymap", "m", "--cell-size", "25"]
    write(path)
    assert main(words) == 0
    assert "1 of TestCam (1 new)" in capsys.readouterr().out
    # Another date, and the same content.
    write(path)
    assert main(words) == 0
    assert "1 of TestCam (1 there already)" in capsys.readouterr().out
    assert not caplog.records

    write(path, 2.0)
    assert main(words) == 0
    assert "0 of TestCam (1 there already with other content" in capsys.readouterr().out
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for word in (str(path), "visit 1, detector 0 of TestCam", "image pixels differ", "--replace"):
        assert word in record.getMessage()
    assert held(root) == 1.0

    assert main([*words, "--replace"]) == 0
    assert "1 of TestCam (1 replaced)" in capsys.readouterr().out
    assert held(root) == 2.0
    assert main([*words, "--replace"]) == 0
    assert "1 of TestCam (1 there already)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Butler:
    """A repository."""
    return create_repository(str(tmp_path_factory.mktemp("changes") / "repo"))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"offset": (3.0, 0.0)}, "description"),
        ({"physical_filter": "i2_test"}, "description"),
        ({"exposure_time": 30.0 * u.s}, "description"),
        ({"level": float("nan")}, "image pixels"),
    ],
)
def test_any_change_is_noticed(
    butler: Butler,
    tmp_path: Path,
    changes: dict[str, Any],
    part: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If it fails, a new sky projection or filter is taken for the old."""
    path, run = tmp_path / "visit.fits", f"visits/{tmp_path.name}"
    name: dict[str, Any] = {"instrument": tmp_path.name[-30:]}
    ingest_visit_image(butler, write(path, **name), run)
    write(path, **name, **changes)
    left = ingest_visit_image(butler, path, run).ref
    assert part in caplog.text
    taken = ingest_visit_image(butler, path, run, replace=True).ref
    assert taken != left
    assert butler.query_datasets("visit_image", collections=run) == [taken]
    # The records are those of the new file.
    _register_visit_detector(butler, butler.get(taken))
    caplog.clear()
    assert ingest_visit_image(butler, path, run).ref == taken
    assert not caplog.records


def test_what_the_repository_lost_is_told(
    butler: Butler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a lost file of the repository passes for ingested."""
    path = write(tmp_path / "visit.fits")
    ref = ingest_visit_image(butler, path, "lost").ref
    Path(butler.getURI(ref).ospath).unlink()
    ingest_visit_image(butler, path, "lost")
    assert "cannot be read" in caplog.text
    ref = ingest_visit_image(butler, path, "lost", replace=True).ref
    assert butler.get(ref).bbox.shape == SHAPE


def test_one_file_by_several_names_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, links and relative paths are taken for other images."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "visit.fits")
    Path("link.fits").symlink_to("visit.fits")
    names = ["visit.fits", path, "./visit.fits", "link.fits", f"{tmp_path}/../{tmp_path.name}/visit.fits"]
    assert ingest_files("repo", names, skymap="m", cell_size=25).states == {"new": 1}
    for name in names:
        assert ingest_files("repo", [name], skymap="m", cell_size=25).states == {"unchanged": 1}
    os.unlink(path)
    with pytest.raises(CommandError, match=r"There is no file link\.fits"):
        ingest_files("repo", ["link.fits"], skymap="m", cell_size=25)
    # A copy does not need what it was made of.
    assert held(tmp_path / "repo") == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 2.0}, "a.fits and .*b.fits are both of visit 1, detector 0 of TestCam"),
        ({"detector": 1, "band": "r"}, "Filter 'i_test' is of band 'i' in .*a.fits, but 'r' in .*b.fits"),
        ({"detector": 1, "physical_filter": "i2"}, "has physical_filter i_test in .*a.fits, but i2 in"),
        ({"detector": 1, "instrument": "OtherCam"}, "several instruments .OtherCam, TestCam"),
    ],
)
def test_files_that_contradict_each_other_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """If it fails, one of them is left out in silence."""
    files = [write(tmp_path / "a.fits"), write(tmp_path / "b.fits", **changes)]
    with pytest.raises(CommandError, match=message):
        ingest_files(tmp_path / "repo", files, skymap="m", cell_size=25)
    assert not (tmp_path / "repo").exists()


def test_band_of_a_filter_is_that_of_the_repository(tmp_path: Path) -> None:
    """If it fails, an image counts among those of another band."""
    root = tmp_path / "repo"
    ingest_files(root, [write(tmp_path / "a.fits")], skymap="m", cell_size=25)
    other = write(tmp_path / "b.fits", band="r", visit_id=2)
    with pytest.raises(CommandError, match=r"b\.fits: filter 'i_test' is of band 'i', and not 'r'"):
        ingest_files(root, [other], skymap="n", cell_size=25)
    # Nothing of it is there.
    butler = Butler.from_config(str(root))
    assert [record.id for record in butler.query_dimension_records("visit", instrument="TestCam")] == [1]
    assert [record.name for record in butler.query_dimension_records("skymap")] == ["m"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_what_failed_can_be_run_again(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a half-made repository is in the way."""
    root = tmp_path / "repo.dot"
    if isinstance(error, OSError):
        # As a disk is mounted.
        root.mkdir()
    files = [write(tmp_path / f"{detector}.fits", detector=detector) for detector in (0, 1)]
    put, calls = DirectButler.put, []

    def fail(self: DirectButler, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return put(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(DirectButler, "put", fail)
        with pytest.raises((CommandError, KeyboardInterrupt)):
            ingest_files(root, files, skymap="m", cell_size=25)
    assert (root.exists() and any(root.iterdir())) is isinstance(error, KeyboardInterrupt)
    assert not list(tmp_path.glob(".repo*"))
    # As the corrected command may.
    ingest_files(root, files, skymap="m", cell_size=20)
    assert held(root, 0) == held(root, 1) == 1.0


@pytest.mark.parametrize("words", ["--stars -5", "--stars nan", "--seed -1", "--bands i,i", "--bands ../i"])
@pytest.mark.parametrize("command", ["simulate", "demo"])
def test_survey_without_sense_makes_nothing(
    tmp_path: Path, command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, the corrected command says that the repository exists."""
    assert main([command, str(tmp_path / "made"), *words.split()]) == 1
    assert capsys.readouterr().err.startswith("astroclearnet: error: SurveyOptions.")
    assert not list(tmp_path.iterdir())


def test_simulation_that_fails_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, if it fails later."""

    def make(root: Path, options: SurveyOptions, **_: object) -> None:
        create_repository(str(root)).close()
        raise ValueError("lam value too large")

    monkeypatch.setattr(_survey, "make_survey", make)
    assert main(["simulate", str(tmp_path / "repo.dot")]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["absent/table.ecsv", "", "."])
@pytest.mark.parametrize(
    "words", [["plan", "--input", "TestCam/visits"], ["compare", "--collection", "c"], ["status", "c"]]
)
def test_output_that_cannot_be_written_is_told_first(
    tmp_path: Path, words: list[str], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, minutes of work end in an error about a folder."""
    place = f"{tmp_path}/{output}"
    command, *rest = words
    arguments = [command, str(tmp_path / "none"), *rest, "--output", place]
    assert main(arguments) == 1
    assert f"{place} " in capsys.readouterr().err
