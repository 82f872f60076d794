# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The task in a real repository, through the commands that a user types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsst.astroclearnet.measurement import object_columns
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import Box
from lsst.pipe.base import Pipeline

SHAPE = (140, 150)
PIPELINES = "resource://lsst.astroclearnet/resources/pipelines"
RUN = "u/test/restored"


def command(name: str, *arguments: str | Path, expect: int = 0) -> str:
    """Run a command of the environment and return what it printed."""
    executable = Path(sys.executable).with_name(name)
    result = subprocess.run(
        [executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=280
    )
    output = result.stdout + result.stderr
    assert result.returncode == expect, output
    return output


def pipetask(
    repo: Path, where: str, *arguments: str, pipeline: str = "RestoreCoaddWithoutStack.yaml#restore"
) -> list[str]:
    """Return the arguments of `pipetask run`, set for small fits."""
    return [
        *("run", "-b", str(repo), "-p", f"{PIPELINES}/{pipeline}"),
        *("-i", "TestCam/defaults", "-d", f"skymap='test_map' AND {where}"),
        *("-c", "restoreCoadd:target_fwhm=0.55", "-c", "restoreCoadd:restoration.fit.max_epochs=2"),
        *("-c", "restoreCoadd:restoration.noise.num_draws=2"),
        *arguments,
    ]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with stars in i, where one file is truncated, and one
    visit in r that is all bad.
    """
    root = tmp_path_factory.mktemp("pipetask") / "repo"
    butler = create_repository(str(root))
    sky_map = make_patch_geometry(cell_shape=(24, 20))
    register_sky_map(butler, sky_map, "skymaps")
    geometry = sky_map.patch(3, 0)
    rng = np.random.default_rng(9)
    field = StarField(
        geometry=geometry,
        x=rng.uniform(12.0, 88.0, 5),
        y=rng.uniform(12.0, 84.0, 5),
        flux=rng.uniform(500.0, 4000.0, 5),
    )
    for visit, (rotation, offset) in enumerate(
        [(0.0, (3.3, 30.2)), (9.0, (1.0, 26.0)), (-7.0, (0, 35.5))], 1
    ):
        projection = make_projection(SHAPE, rotation=rotation, offset=offset, visit=visit)
        image = field.render(projection, SHAPE, 3.3 + 0.4 * visit) + rng.normal(0.0, 1.0, SHAPE)
        put_visit_image(butler, make_visit_image(image, projection, fwhm=3.3 + 0.4 * visit), "TestCam/visits")
    bad = make_projection(SHAPE, offset=(0.0, 30.0), visit=4)
    planes = {"BAD": np.ones(SHAPE, dtype=bool)}
    put_visit_image(butler, make_visit_image(np.ones(SHAPE), bad, planes=planes, band="r"), "TestCam/visits")
    broken = make_projection(SHAPE, offset=(0.0, 30.0), visit=5)
    ref = put_visit_image(butler, make_visit_image(np.ones(SHAPE), broken), "TestCam/visits")
    path = Path(butler.getURI(ref).ospath)
    path.write_bytes(path.read_bytes()[:20000])
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    return root


@pytest.fixture(scope="module")
def restored(repo: Path) -> Path:
    """The repository after a run of both bands with two processes."""
    arguments = ("-o", RUN, "--register-dataset-types", "-j", "2")
    output = command("pipetask", *pipetask(repo, "tract=3 AND patch=0", *arguments))
    assert "Executed 2 quanta successfully, 0 failed" in output
    assert "Dropped TestCam visit 5, detector 0 (unreadable)" in output
    return repo


@pytest.mark.parametrize("name", ["RestoreCoadd", "RestoreCoaddWithoutStack"])
def test_pipelines_expand(name: str) -> None:
    graph = Pipeline.from_uri(f"{PIPELINES}/{name}.yaml").to_graph()
    assert set(graph.task_subsets["restore"]) == {"restoreCoadd"}
    diagnosing = {"measureRestoration", "summarizeRestoration", "makeColorPictures"}
    assert set(graph.task_subsets["diagnose"]) == diagnosing
    catalog = {"measureObjects"} if name == "RestoreCoaddWithoutStack" else set()
    assert set(graph.tasks) == {"restoreCoadd", *diagnosing, *catalog}
    assert graph.tasks["restoreCoadd"].outputs.keys() == {
        "restored_coadd",
        "restored_coadd_demand",
        "restored_coadd_linear",
        "restored_coadd_linear_noise",
        "restored_coadd_metrics",
        "restored_coadd_plot",
    }


def test_queries_find_what_was_restored(restored: Path) -> None:
    output = command("butler", "query-datasets", restored, "restored_coadd*", "--collections", RUN)
    for name in ("", "_demand", "_linear", "_linear_noise", "_metrics", "_plot"):
        assert f"restored_coadd{name} " in output
    butler = Butler.from_config(str(restored), collections=[RUN])
    refs = butler.query_datasets("restored_coadd", where="patch=0", tract=3, skymap="test_map")
    # In r there is no usable exposure: the quantum ends without work.
    assert [ref.dataId["band"] for ref in refs] == ["i"]
    assert butler.query_datasets("restoreCoadd_log", skymap="test_map", where="band='r'")


def test_restored_coadds_are_measured_and_drawn(restored: Path) -> None:
    """If it fails, users have no verdicts, or only those with direct coadds
    have.
    """
    output = command(
        "pipetask",
        *("run", "-b", restored, "-p", f"{PIPELINES}/RestoreCoaddWithoutStack.yaml#diagnose", "-i", RUN),
        *("-o", "u/test/diagnosed", "-d", "skymap='test_map' AND tract=3 AND patch=0"),
        *("--register-dataset-types", "-c", "makeColorPictures:bands=['i','r']"),
    )
    # In r nothing was restored, so that there are no two bands to draw.
    assert "Executed 2 quanta successfully, 0 failed" in output
    butler = Butler.from_config(str(restored), collections=["u/test/diagnosed"])
    (ref,) = butler.query_datasets("restored_coadd_quality", skymap="test_map")
    quality = butler.get(ref)
    assert quality["verdict"] in ("good", "check", "bad")
    assert quality["metrics"]["fwhm_out"] == pytest.approx(0.55, rel=0.01)
    assert "flux_offset" not in quality["metrics"]
    table = butler.get("restored_coadd_quality_table", skymap="test_map", tract=3, band="i")
    assert list(table["patch"]) == [0]
    assert butler.getURI("restored_coadd_quality_map", skymap="test_map", tract=3, band="i").exists()


@pytest.mark.slow
def test_picture_of_a_tract(restored: Path) -> None:
    """If it fails, the graph of the picture is empty."""
    output = command(
        "pipetask",
        *("run", "-b", restored, "-p", f"{PIPELINES}/MakeTractPicture.yaml", "-i", RUN),
        *("-o", "u/test/picture", "-d", "skymap='test_map' AND tract=3", "--register-dataset-types"),
    )
    # One band alone gives no picture.
    assert "has a restored coadd in each of i, r, g" in output


@pytest.mark.slow
def test_property_maps_of_a_tract(restored: Path) -> None:
    """If it fails, the survey has no maps of depth of what was restored."""
    output = command(
        "pipetask",
        *("run", "-b", restored, "-p", f"{PIPELINES}/MakePropertyMaps.yaml", "-i", RUN, "-o", "u/test/maps"),
        *("-d", "skymap='test_map' AND tract=3", "--register-dataset-types"),
        *("-c", "makePropertyMaps:nside=131072"),
    )
    # In r nothing was restored.
    assert "Executed 1 quanta successfully, 0 failed" in output
    butler = Butler.from_config(str(restored), collections=["u/test/maps", RUN])
    data_id = {"skymap": "test_map", "tract": 3, "band": "i"}
    depth = butler.get("restoredCoadd_correlated_psf_maglim_map_weighted_mean", data_id)
    linear = butler.get("restored_coadd_linear", data_id, patch=0)
    inner = linear.patch.inner_bbox
    sky = linear.sky_projection.pixel_to_sky(x=inner.x.center, y=inner.y.center)
    assert 22.0 < depth.get_values_pos(sky.ra.deg, sky.dec.deg) < 32.0
    exposures = butler.get("restoredCoadd_n_exposure_map_sum", data_id)
    values = exposures[exposures.valid_pixels]
    assert 0.0 < values.min() <= values.max() <= 3.0


def test_sources_are_measured(restored: Path) -> None:
    """If it fails, there is no catalogue without the full stack, or a band
    without a coadd costs it.
    """
    output = command(
        "pipetask",
        *("run", "-b", restored, "-p", f"{PIPELINES}/RestoreCoaddWithoutStack.yaml#catalog", "-i", RUN),
        *("-o", "u/test/catalog", "-d", "skymap='test_map' AND tract=3 AND patch=0"),
        "--register-dataset-types",
    )
    assert "Executed 1 quanta successfully, 0 failed" in output
    assert "Columns of r are empty" in output
    butler = Butler.from_config(str(restored), collections=["u/test/catalog"])
    objects = butler.get("restored_object_patch", skymap="test_map", tract=3, patch=0)
    assert objects.colnames == [column.name for column in object_columns()]
    assert objects["coord_ra"].unit == "deg"
    assert len(objects) > 0
    assert (objects["i_acn_psfFlux"] > 100.0).any()
    assert np.isnan(objects["r_acn_psfFlux"]).all()
    assert butler.getURI("restored_object_patch", skymap="test_map", tract=3, patch=0).ospath.endswith(
        ".parq"
    )


def test_products_read_whole_and_by_parts(restored: Path) -> None:
    butler = Butler.from_config(str(restored), collections=[RUN])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    coadd = butler.get("restored_coadd", data_id)
    image = butler.get("restored_coadd.image", data_id)
    np.testing.assert_array_equal(image.array, coadd.image.array)
    assert butler.get("restored_coadd.bbox", data_id) == coadd.bbox
    box = Box.factory[40:90, 35:70]
    part = butler.get("restored_coadd", data_id, parameters={"bbox": box})
    np.testing.assert_array_equal(part.image.array, coadd[box].image.array)
    assert len(butler.get("restored_coadd.provenance", data_id).inputs) == 3
    metrics = butler.get("restored_coadd_metrics", data_id)
    assert metrics["patch"]["num_exposures"] == 3
    metadata = butler.get("restoreCoadd_metadata", data_id)
    assert metadata["restoreCoadd"]["network_source"] == "packaged"
    assert metadata["restoreCoadd"]["network_identity"] == metrics["network"]["identity"]
    assert butler.getURI("restored_coadd_plot", data_id).exists()


def test_demanded_light_is_stored(restored: Path) -> None:
    """If it fails, a feature cannot be defended from what is kept."""
    butler = Butler.from_config(str(restored), collections=[RUN])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    coadd, demand = (butler.get(f"restored_coadd{name}", data_id) for name in ("", "_demand"))
    assert demand.bbox == coadd.bbox
    assert demand.sky_projection == coadd.sky_projection
    np.testing.assert_array_equal(demand.mask.array, coadd.mask.array)
    share, variance = demand.image.array, demand.variance.array
    known = np.isfinite(share)
    assert 0 < known.sum() < known.size
    assert not np.isfinite(variance[~known]).any()
    box = Box.factory[40:90, 35:70]
    part = butler.get("restored_coadd_demand", data_id, parameters={"bbox": box})
    np.testing.assert_array_equal(part.image.array, demand[box].image.array)
    image = butler.get("restored_coadd_metrics", data_id)["image"]
    assert image["supplied_fraction"] == coadd.mask.get("SUPPLIED").mean()
    assert image["withheld_fraction"] == coadd.mask.get("WITHHELD").mean()
    assert 0.9 < image["demanded_fraction"] <= 1.0


def test_unreadable_image_is_dropped(restored: Path) -> None:
    # One truncated file must not cost the patch.
    butler = Butler.from_config(str(restored), collections=[RUN])
    metrics = butler.get("restored_coadd_metrics", skymap="test_map", tract=3, patch=0, band="i")
    assert metrics["dropped"].keys() == {"TestCam visit 5, detector 0"}
    assert metrics["dropped"]["TestCam visit 5, detector 0"].startswith("unreadable")
    assert metrics["patch"]["num_exposures"] == 3


def test_linear_coadd_and_its_noise_are_stored(restored: Path) -> None:
    # What a user needs to measure with the right errors, months later.
    butler = Butler.from_config(str(restored), collections=[RUN])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    linear = butler.get("restored_coadd_linear", data_id)
    coadd = butler.get("restored_coadd", data_id)
    assert linear.bbox == coadd.bbox
    assert np.median(linear.variance.array) > np.median(coadd.variance.array)
    assert linear.metadata["linear_penalty_weight"] > 0
    table = butler.get("restored_coadd_linear_noise", data_id)
    assert table.colnames == ["cell_i", "cell_j", "num_pixels", "correlation"]
    assert table["correlation"].shape == (20, 31, 31)
    assert table["correlation"].dtype == np.float32
    assert "sqrt(V_p V_q)" in table["correlation"].description
    np.testing.assert_allclose(table["correlation"][:, 15, 15], 1.0)
    np.testing.assert_allclose(table["correlation"], table["correlation"][:, ::-1, ::-1], atol=1e-3)
    cell = linear.patch.cells.index_of(x=linear.bbox.x.max, y=linear.bbox.y.max)
    assert (table["cell_i"][-1], table["cell_j"][-1]) == (cell.i, cell.j)
    columns = {"columns": ["cell_j", "correlation"]}
    assert butler.get("restored_coadd_linear_noise", data_id, parameters=columns).colnames == [
        "cell_j",
        "correlation",
    ]


def test_rerun_adds_what_is_missing(restored: Path) -> None:
    # As after a crash: some outputs of a quantum are there, its metadata is
    # not.  The rerun must do it again, and nothing that is done.
    butler = Butler.from_config(str(restored), writeable=True)
    lost = [
        ref
        for name in ("restored_coadd_metrics", "restoreCoadd_metadata")
        for ref in butler.query_datasets(name, collections=[RUN], where="band='i'", skymap="test_map")
    ]
    assert len(lost) == 2
    butler.pruneDatasets(lost, unstore=True, purge=True, disassociate=True)
    rerun = ("-o", RUN, "--extend-run", "--skip-existing", "--clobber-outputs")
    output = command("pipetask", *pipetask(restored, "tract=3 AND patch=0", *rerun))
    assert "Executed 1 quanta successfully, 0 failed" in output
    for ref in lost:
        assert Butler.from_config(str(restored)).query_datasets(
            ref.datasetType, collections=[RUN], data_id=ref.dataId
        )
    # A third time there is nothing left to do, which the command says.
    output = command("pipetask", *pipetask(restored, "tract=3 AND patch=0", *rerun), expect=1)
    assert "QuantumGraph was empty" in output


@pytest.mark.slow
def test_geometry_from_an_existing_coadd(restored: Path) -> None:
    # Users of a data release have coadds, but not the sky map's code.
    arguments = (
        *("-o", "u/test/from_coadd", "--register-dataset-types"),
        *("-c", "restoreCoadd:geometry_source=coadd"),
        *("-c", "restoreCoadd:connections.reference_name=restored_coadd"),
        *("-c", "restoreCoadd:connections.output_name=restored_again"),
        *("-c", "restoreCoadd:do_linear=False"),
    )
    typed = pipetask(restored, "tract=3 AND patch=0 AND band='i'", *arguments)
    typed[typed.index("TestCam/defaults")] = f"TestCam/defaults,{RUN}"
    command("pipetask", *typed)
    butler = Butler.from_config(str(restored), collections=["u/test/from_coadd", RUN])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    first, second = butler.get("restored_coadd", data_id), butler.get("restored_again", data_id)
    assert second.patch == first.patch
    assert second.sky_projection == first.sky_projection
    np.testing.assert_array_equal(second.image.array, first.image.array)
    # Without the linear coadd there is none, nor a type of it.
    assert [t.name for t in butler.registry.queryDatasetTypes("restored_again*")] == [
        "restored_again",
        "restored_again_demand",
        "restored_again_metrics",
        "restored_again_plot",
    ]


def test_wrong_configuration_is_refused_by_name(repo: Path) -> None:
    typed = pipetask(repo, "tract=3 AND patch=0", "-o", "u/test/wrong", "-c", "restoreCoadd:max_noise=-1")
    output = command("pipetask", *typed, expect=1)
    assert "max_noise" in output
