# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command line: what it does, says and refuses."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.adapters import PatchGeometry, make_cell_coadd
from lsst.astroclearnet.cli import main
from lsst.astroclearnet.commands import CommandError
from lsst.astroclearnet.commands._demonstration import _demo, _survey
from lsst.astroclearnet.commands._demonstration._comparison import compare_patches
from lsst.astroclearnet.commands._demonstration._patch import read_patch
from lsst.astroclearnet.commands._demonstration._picture import comparison_picture
from lsst.astroclearnet.commands._demonstration._survey import DEFAULTS, RESTORED, TRUTH
from lsst.astroclearnet.commands._pipetask import format_command
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.repository import create_repository
from lsst.astroclearnet.simulation import PIXEL_SCALE, SurveyOptions, SurveySummary, make_survey, render_truth
from lsst.daf.butler import Butler, CollectionType, DatasetType
from lsst.images.serialization import write_archive

# Twice as many cells along the inner region as along both borders.
OPTIONS = SurveyOptions(
    seed=4,
    bands=("i",),
    visits_per_band=2,
    cell_size=30,
    patch_cells=4,
    num_patches=(1, 1),
    detector_grid=(1, 2),
    detector_shape=(200, 110),
    dither_arcsec=2.0,
    stars_per_patch=90.0,
    galaxies_per_arcmin2=20.0,
)
TARGET_FWHM = 3.2
SIGMA = 3.0
BLUR = 0.7


def make_quality(keys: dict[str, Any], geometry: PatchGeometry) -> dict[str, Any]:
    """Return the quality of a patch without warnings."""
    inner = geometry.definition.inner_bbox
    return {
        "patch": {
            **{name: keys[name] for name in ("skymap", "tract", "patch", "band")},
            "inner_x": [inner.x.start, inner.x.stop],
            "inner_y": [inner.y.start, inner.y.stop],
        },
        "network": {"source": "packaged", "identity": "0a1b"},
        "verdict": "good",
        "warnings": [],
        "details": [],
        "metrics": {"fwhm_in": 0.7, "fwhm_out": 0.54, "depth_linear": 26.5},
        "checks": [],
        "exposures": [],
    }


def put_restored(root: str, number: int | None = None) -> None:
    """Put what a perfect restoration with white noise would be.

    The noise has a standard deviation of SIGMA nJy at the PSF TARGET_FWHM;
    that of the linear coadd is blurred by a Gaussian of BLUR pixels.
    """
    butler = Butler.from_config(root, collections=[DEFAULTS, TRUTH], run=f"{RESTORED}/run")
    dimensions = ["skymap", "tract", "patch", "band"]
    types = {
        name: DatasetType(name, dimensions, storage, universe=butler.dimensions)
        for name, storage in (
            ("restored_coadd", "CellCoadd"),
            ("restored_coadd_linear", "CellCoadd"),
            ("restored_coadd_linear_noise", "ArrowAstropy"),
            ("restored_coadd_metrics", "StructuredDataDict"),
            ("restored_coadd_quality", "StructuredDataDict"),
        )
    }
    for dataset_type in types.values():
        butler.registry.registerDatasetType(dataset_type)
    rng = np.random.default_rng(8)
    refs = butler.query_datasets("deep_coadd")
    visits = sorted(butler.query_datasets("visit_image"), key=lambda ref: ref.dataId["visit"])
    for ref in refs[:number]:
        keys = dict(ref.dataId.required)
        plain = butler.get(ref)
        geometry = OPTIONS.geometry.patch(int(keys["tract"]), int(keys["patch"]))
        catalogue = butler.get("truth_catalogue", skymap=keys["skymap"], tract=keys["tract"])
        truth = render_truth(catalogue, geometry, str(keys["band"]), psf_fwhm=TARGET_FWHM)
        white = rng.normal(0.0, SIGMA, size=(3, *truth.shape))
        # The variance is multiplied by the sum of the squares of the kernel,
        # in two dimensions 1 / (4 pi BLUR^2) for one that is well sampled.
        blurred = gaussian_filter(white, (0.0, BLUR, BLUR), mode="wrap") * np.sqrt(4.0 * np.pi) * BLUR
        coadd, linear = (
            make_cell_coadd(
                geometry=geometry,
                band=str(keys["band"]),
                image=truth + noise[0],
                variance=np.full(truth.shape, SIGMA**2),
                mask_planes={},
                psf=gaussian_kernel(TARGET_FWHM, 17),
                provenance=plain.provenance,
                noise_realizations=noise[1:],
            )
            for noise in (white, blurred)
        )
        y, x = np.mgrid[-15:16, -15:16]
        stamp = np.exp(-(x**2 + y**2) / (4.0 * BLUR**2)).astype(np.float32)
        cells = geometry.definition.cells.grid_size
        i, j = (axis.ravel() for axis in np.indices((cells.i, cells.j)))
        table = Table({"cell_i": i, "cell_j": j, "correlation": np.array([stamp] * i.size)})
        exposures = [
            {**visit.dataId.required, "psf_fwhm": 0.5 + 0.01 * index, "used_fraction": 0.5}
            for index, visit in enumerate(visits)
        ]
        metrics = {
            "patch": {"num_exposures": len(exposures), "num_dropped": 1},
            "image": {"chi_square": 1.25, "target_fwhm": TARGET_FWHM * PIXEL_SCALE},
            "exposures": exposures,
        }
        butler.put(coadd, types["restored_coadd"], keys)
        butler.put(linear, types["restored_coadd_linear"], keys)
        butler.put(table, types["restored_coadd_linear_noise"], keys)
        butler.put(metrics, types["restored_coadd_metrics"], keys)
        butler.put(make_quality(keys, geometry), types["restored_coadd_quality"], keys)
    writer = Butler.from_config(root, writeable=True)
    writer.collections.register(RESTORED, CollectionType.CHAINED)
    writer.collections.redefine_chain(RESTORED, [f"{RESTORED}/run", DEFAULTS])


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> SurveySummary:
    """A survey of one patch whose restored coadd is there."""
    summary = make_survey(tmp_path_factory.mktemp("cli") / "repo", OPTIONS)
    put_restored(summary.root)
    return summary


@pytest.fixture(scope="module")
def files(survey: SurveySummary, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The visit images of the survey as files."""
    folder = tmp_path_factory.mktemp("files")
    butler = Butler.from_config(survey.root, collections=[survey.defaults])
    paths = []
    for number, ref in enumerate(butler.query_datasets("visit_image")):
        paths.append(str(folder / f"{number}.fits"))
        write_archive(butler.get(ref), paths[-1])
    return paths


def error_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of a command that fails."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    return line.removeprefix("astroclearnet: error: ")


def test_errors(tmp_path: Path, survey: SurveySummary, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a failure shows a traceback, or exits with status 0."""
    text = tmp_path / "text.fits"
    text.write_text("no image")
    repo, absent = str(tmp_path / "repo"), str(tmp_path / "absent.fits")
    missing = error_of(["ingest", repo, absent, "--skymap", "m"], capsys)
    assert missing == f"There is no file {absent}."
    assert error_of(["ingest", repo, str(text), "--skymap", "m"], capsys)
    assert not Path(repo).exists()
    assert "exists already" in error_of(["simulate", survey.root], capsys)
    assert "bands=('q',)" in error_of(["simulate", repo, "--bands", "q"], capsys)
    assert "not a Butler repository" in error_of(["compare", repo, "--collection", "c"], capsys)
    arguments = ["compare", survey.root, "--collection"]
    assert "no restored_coadd in HSC-Sim/visits" in error_of([*arguments, survey.visits_run], capsys)
    assert "absent" in error_of([*arguments, "absent"], capsys)
    no_truth = error_of([*arguments, RESTORED, "--truth", survey.visits_run], capsys)
    assert no_truth.endswith("Only simulated surveys can be compared with the truth.")
    with pytest.raises(CommandError, match="There is no file"):
        main(["--debug", "ingest", repo, absent, "--skymap", "m"])


def test_simulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, the options of the command are not those of the survey."""
    made: list[SurveyOptions] = []
    registries: list[str | None] = []

    def make(root: Path, options: SurveyOptions, *, registry: str | None, **_: object) -> SurveySummary:
        made.append(options)
        registries.append(registry)
        root.mkdir()
        return SurveySummary(str(root), "I", "m", 3, ("g",), (0, 1), "v", "s", "c", "t", "d", 5)

    monkeypatch.setattr(_survey, "make_survey", make)
    root = str(tmp_path / "repo")
    words = "--seed 5 --bands g --visits 3 --patches 4,3 --patch-cells 6 --stars 7.5"
    assert main(["simulate", root, *words.split(), "--registry", "postgresql://u@h/d"]) == 0
    assert registries == ["postgresql://u@h/d"]
    (options,) = made
    assert (options.seed, options.bands, options.visits_per_band) == (5, ("g",), 3)
    assert (options.num_patches, options.patch_cells, options.stars_per_patch) == ((3, 4), 6, 7.5)
    output = capsys.readouterr().out
    assert f"run -b {root} " in output
    assert "-i d " in output


def test_ingest(
    survey: SurveySummary, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, pipetask finds no quanta in what was ingested."""
    root = str(tmp_path / "repo")
    arguments = ["ingest", root, *files, "--skymap", "field", "--cell-size", "25", "--pixel-scale", "0.2"]
    registry = f"sqlite:///{tmp_path}/registry.sqlite3"
    assert main([*arguments, "--registry", registry]) == 0
    assert (tmp_path / "registry.sqlite3").exists()
    assert not list(Path(root).glob("*.sqlite3"))
    output = capsys.readouterr().out
    assert "Visit images:    4 of HSC-Sim" in output
    assert f"run -b {root} " in output
    assert "-i HSC-Sim/defaults -o u/" in output
    assert "-d \"skymap='field'\" --register-dataset-types" in output
    butler = Butler.from_config(root, collections=["HSC-Sim/defaults"])
    (tract,) = butler.get("skymap_geometry", skymap="field")["tracts"]
    assert (tract["cell_shape"], tract["pixel_scale_arcsec"]) == ([25, 25], 0.2)
    with butler.query() as query:
        joined = query.where("skymap = 'field' AND instrument = 'HSC-Sim' AND band = 'i'")
        found = joined.join_dataset_search("visit_image", ["HSC-Sim/defaults"])
        assert len(list(found.data_ids(["patch", "visit", "detector"]))) == 4
    assert main(arguments) == 0
    assert len(butler.query_datasets("visit_image")) == 4
    capsys.readouterr()
    other = error_of(["ingest", root, files[0], "--skymap", "field"], capsys)
    assert other == f"{root} has a sky map 'field' with another geometry; choose another name."
    again = error_of([*arguments, "--registry", registry], capsys)
    assert again == f"{root} has a registry already; --registry is for a new repository."
    folder = str(Path(files[0]).parent)
    assert "not a Butler repository" in error_of(["ingest", folder, files[0], "--skymap", "m"], capsys)


def test_ingest_in_patches(files: list[str], tmp_path: Path) -> None:
    """If it fails, a wide field becomes one patch that fits no memory."""
    root = str(tmp_path / "repo")
    assert main(["ingest", root, *files, "--skymap", "field", "--patches", "2"]) == 0
    butler = Butler.from_config(root, collections=["HSC-Sim/defaults"])
    assert len(butler.query_dimension_records("patch")) == 4


def test_compare(survey: SurveySummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, the table that judges the method cannot be trusted."""
    path = tmp_path / "table.ecsv"
    assert main(["compare", survey.root, "--collection", RESTORED, "--output", str(path)]) == 0
    output = capsys.readouterr().out
    assert "Star fluxes against the truth" in output
    assert "|S/N" not in output
    table = Table.read(path)
    assert list(table["patch"]) == ["0"] * 3 + ["all"] * 3
    assert list(table["image"]) == ["coadd", "restored", "linear"] * 2
    coadd, restored, linear = table[0], table[1], table[2]
    assert restored["psf_fwhm"] == pytest.approx(TARGET_FWHM * PIXEL_SCALE, rel=0.01)
    assert restored["fwhm"] == pytest.approx(TARGET_FWHM * PIXEL_SCALE, rel=0.02)
    # White noise: sigma / sqrt(sum psf^2), which is 1 / (4 pi s^2) for a
    # Gaussian of standard deviation s.
    width = TARGET_FWHM / 2.3548
    depth = 31.4 - 2.5 * np.log10(5.0 * SIGMA * np.sqrt(4.0 * np.pi) * width)
    assert restored["depth_claimed"] == pytest.approx(depth, abs=0.01)
    assert restored["depth_noise"] == pytest.approx(depth, abs=0.1)
    assert restored["depth_measured"] == pytest.approx(depth, abs=0.15)
    # The relative error of a robust scatter is 1.17 / sqrt(n).
    error = 1.086 * 1.17 / np.sqrt(restored["num_stars_snr_5_20"])
    assert restored["depth_stars"] == pytest.approx(depth, abs=3.0 * error)
    assert abs(restored["noise_correlation"]) < 0.05
    assert (restored["chi_square"], restored["num_exposures"], restored["num_dropped"]) == (1.25, 4, 1)
    assert coadd["num_exposures"] == 4
    assert coadd["psf_fwhm"] > restored["psf_fwhm"]
    for suffix in ("snr_5_20", "snr_20_100"):
        number = restored[f"num_stars_{suffix}"]
        assert number == coadd[f"num_stars_{suffix}"] > 8
        assert abs(restored[f"bias_percent_{suffix}"]) < 4.0 * restored[f"bias_percent_error_{suffix}"]
        assert restored[f"pull_width_{suffix}"] == pytest.approx(1.0, abs=4.0 * 1.17 / np.sqrt(number))
    for name in table.colnames:
        if "_snr_" in name:
            # A single patch pools to itself.
            np.testing.assert_allclose(table[name][:3], table[name][3:], rtol=1e-6)
    # Fluxes of the linear coadd are weighted with the covariance: blurred by
    # less than the PSF, the noise costs what the blur of the noise does, and
    # the claimed errors are true.
    assert (linear["num_exposures"], linear["num_dropped"]) == (4, 1)
    assert np.isnan(linear["chi_square"])
    assert linear["noise_correlation"] == pytest.approx(np.exp(-1.0 / (4.0 * BLUR**2)), abs=0.1)
    for suffix in ("snr_5_20", "snr_20_100"):
        number = linear[f"num_stars_{suffix}"]
        assert number == restored[f"num_stars_{suffix}"]
        assert abs(linear[f"bias_percent_{suffix}"]) < 4.0 * linear[f"bias_percent_error_{suffix}"]
        assert linear[f"pull_width_{suffix}"] == pytest.approx(1.0, abs=4.0 * 1.17 / np.sqrt(number))


def test_compare_without_the_linear_coadd(survey: SurveySummary, tmp_path: Path) -> None:
    """If it fails, runs with do_linear=False cannot be compared."""
    root = tmp_path / "repo"
    shutil.copytree(survey.root, root)
    writer = Butler.from_config(str(root), writeable=True)
    refs = writer.query_datasets("restored_coadd_linear", collections=f"{RESTORED}/run")
    writer.pruneDatasets(refs, unstore=True, purge=True)
    table, _ = compare_patches(Butler.from_config(str(root), collections=[RESTORED, TRUTH]))
    assert list(table["image"]) == ["coadd", "restored"] * 2


def test_render_with_any_psf(survey: SurveySummary) -> None:
    """If it fails, galaxies are subtracted from the coadd at the wrong PSF."""
    butler = Butler.from_config(survey.root, collections=[RESTORED, TRUTH])
    (ref,) = butler.query_datasets("restored_coadd")
    catalogue = butler.get("truth_catalogue", skymap=survey.skymap, tract=survey.tract)
    patch = read_patch(butler, ref.dataId.required, catalogue)
    expected = render_truth(catalogue, patch.geometry, "i", psf_fwhm=4.5)
    rendered = patch.render(patch.sources, gaussian_kernel(4.5, 31))
    middle = np.s_[25:-25, 25:-25]
    assert np.abs(rendered - expected)[middle].max() < 1e-3 * expected[middle].max()


def test_picture(survey: SurveySummary) -> None:
    """If it fails, the picture shows another place or PSF than it says."""
    butler = Butler.from_config(survey.root, collections=[RESTORED, TRUTH])
    _, patches = compare_patches(butler)
    figure = comparison_picture(butler, patches)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Best exposure", "Coadd", "Restored coadd", "Truth at 0.54\N{DOUBLE PRIME} FWHM"]
    images = [np.ma.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(images) % 4 == 0
    restored, truth = np.ma.filled(images[2], np.nan), np.ma.filled(images[3], np.nan)
    assert np.nanstd(restored - truth) == pytest.approx(SIGMA, rel=0.03)
    with pytest.raises(CommandError, match="no patch to draw"):
        comparison_picture(butler, [])


def test_demo(
    survey: SurveySummary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If it fails, the demo does work again, or destroys what is there."""
    commands: list[list[str]] = []

    def simulate(root: Path, options: SurveyOptions, **_: object) -> SurveySummary:
        # A copy of the survey, without what was put into it by hand.
        shutil.copytree(survey.root, root)
        writer = Butler.from_config(str(root), writeable=True)
        writer.collections.redefine_chain(RESTORED, [])
        writer.collections.x_remove(RESTORED)
        writer.removeRuns([f"{RESTORED}/run"])
        return survey

    def restore(command: list[str]) -> None:
        commands.append(command)
        put_restored(command[command.index("-b") + 1])

    monkeypatch.setattr(_survey, "make_survey", simulate)
    monkeypatch.setattr(_demo, "run_command", restore)
    monkeypatch.setattr(_survey, "make_options", lambda **_: dataclasses.replace(OPTIONS))
    folder = tmp_path / "demo"
    assert main(["demo", str(folder), "--jobs", "3"]) == 0
    output = capsys.readouterr().out
    (command,) = commands
    assert command[command.index("-j") + 1] == "3"
    assert output.count(f"$ {format_command(command)}\n") == 2
    for name in ("repo", "comparison.ecsv", "comparison.png", "report/index.html"):
        assert str(folder / name) in output
        assert (folder / name).exists()
    assert "Row all" in output
    assert "query-datasets" in output

    assert main(["demo", str(folder)]) == 0
    assert len(commands) == 1
    assert "already" in capsys.readouterr().out
    other = dataclasses.replace(OPTIONS, seed=5)
    monkeypatch.setattr(_survey, "make_options", lambda **_: other)
    assert "survey with other options" in error_of(["demo", str(folder)], capsys)
    (folder / "survey.json").unlink()
    assert "holds no survey of the demo" in error_of(["demo", str(folder)], capsys)
    assert len(commands) == 1
    assert main(["demo", str(folder), "--overwrite"]) == 0
    assert len(commands) == 2
    capsys.readouterr()
    shutil.rmtree(folder / "repo")
    (folder / "repo").mkdir()
    assert "will not be deleted" in error_of(["demo", str(folder), "--overwrite"], capsys)


def test_interrupted_simulation(
    survey: SurveySummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a demo stopped while simulating never starts again."""
    root, options_file = tmp_path / "repo", tmp_path / "survey.json"
    partial = tmp_path / "repo_partial"
    lines: list[str] = []

    def simulate(options: SurveyOptions) -> None:
        _demo._simulate(root, options_file, options, lines.append, lambda: nullcontext(lambda *_: None))

    def interrupted(place: Path, options: SurveyOptions, **_: object) -> None:
        create_repository(str(place))
        raise KeyboardInterrupt("stopped")

    monkeypatch.setattr(_survey, "make_survey", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        simulate(dataclasses.replace(OPTIONS, seed=5))
    assert partial.exists()
    assert not root.exists()
    assert not options_file.exists()

    # The next one may have other options.
    def copy(place: Path, options: SurveyOptions, **_: object) -> SurveySummary:
        shutil.copytree(survey.root, place)
        return survey

    monkeypatch.setattr(_survey, "make_survey", copy)
    lines.clear()
    simulate(OPTIONS)
    assert lines[1].startswith(f"Deleted {partial}")
    assert not partial.exists()
    butler = Butler.from_config(str(root), collections=[DEFAULTS])
    refs = butler.query_datasets("visit_image")
    assert len(refs) == survey.num_visit_images
    assert all(butler.getURI(ref).ospath.startswith(f"{root}/") for ref in refs)
    assert butler.get(refs[0].makeComponentRef("bbox")).shape == OPTIONS.detector_shape
    simulate(OPTIONS)
    assert lines[-1] == f"The simulated survey is in {root} already."

    # Whatever else has the name is not ours to delete.
    shutil.rmtree(root)
    partial.mkdir()
    (partial / "notes.txt").touch()
    with pytest.raises(CommandError, match="repo_partial is not a Butler repository and will not be"):
        simulate(OPTIONS)
    assert (partial / "notes.txt").exists()


def test_demo_resumes(survey: SurveySummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, an interrupted demo ends in an error of pipetask."""
    root = tmp_path / "repo"
    shutil.copytree(survey.root, root)
    writer = Butler.from_config(str(root), writeable=True)
    writer.pruneDatasets(
        writer.query_datasets("restored_coadd", collections=f"{RESTORED}/run"),
        unstore=True,
        purge=True,
    )
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(_demo, "run_command", commands.append)
    _demo._restore(root, ["first"], ["again"], lambda line: None)
    assert commands == [["again"]]


@pytest.mark.slow
def test_whole_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If it fails, ``make demo`` does."""
    words = "--bands i --visits 3 --patches 1 --patch-cells 2 --stars 40 --jobs 1"
    assert main(["demo", str(tmp_path), *words.split()]) == 0
    table = Table.read(tmp_path / "comparison.ecsv")
    assert list(table["image"]) == ["coadd", "restored", "linear"] * 2
    assert table["psf_fwhm"][1] == pytest.approx(_survey.TARGET_FWHM, rel=0.01)
    assert (tmp_path / "comparison.png").stat().st_size > 50_000
    assert "Executed 4 quanta successfully" in capfd.readouterr().err
    assert "tract 0" in (tmp_path / "report" / "index.html").read_text()
    assert main(["demo", str(tmp_path), *words.split()]) == 0
    assert "already" in capfd.readouterr().out
