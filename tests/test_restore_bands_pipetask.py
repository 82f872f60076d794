# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The joint restoration of bands in a real repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsst.astroclearnet.cli import main
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler

SHAPE = (140, 150)
PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddBandsWithoutStack.yaml"
RUN = "u/test/joint"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with stars in g and i, and a visit in r that is all bad."""
    root = tmp_path_factory.mktemp("bands") / "repo"
    butler = create_repository(str(root))
    sky_map = make_patch_geometry(cell_shape=(24, 20))
    register_sky_map(butler, sky_map, "skymaps")
    rng = np.random.default_rng(9)
    field = StarField(
        geometry=sky_map.patch(3, 0),
        x=rng.uniform(12.0, 88.0, 5),
        y=rng.uniform(12.0, 84.0, 5),
        flux=rng.uniform(500.0, 4000.0, 5),
    )
    for number, band in enumerate("gi"):
        for n, (rotation, offset) in enumerate([(0.0, (3.3, 30.2)), (9.0, (1.0, 26.0)), (-7.0, (0, 35.5))]):
            visit = 1 + 10 * number + n
            projection = make_projection(SHAPE, rotation=rotation, offset=offset, visit=visit)
            image = field.render(projection, SHAPE, 4.0 + 0.4 * n) + rng.normal(0.0, 1.0, SHAPE)
            exposure = make_visit_image(image, projection, fwhm=4.0 + 0.4 * n, band=band)
            put_visit_image(butler, exposure, "TestCam/visits")
    bad = make_projection(SHAPE, offset=(0.0, 30.0), visit=90)
    planes = {"BAD": np.ones(SHAPE, dtype=bool)}
    put_visit_image(butler, make_visit_image(np.ones(SHAPE), bad, planes=planes, band="r"), "TestCam/visits")
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    return root


@pytest.fixture(scope="module")
def restored(repo: Path) -> Path:
    """The repository after a run of the whole pipeline."""
    words: list[str | Path] = [
        Path(sys.executable).with_name("pipetask"),
        *("run", "-b", repo, "-p", PIPELINE, "-i", "TestCam/defaults", "-o", RUN),
        *("-d", "skymap='test_map' AND tract=3 AND patch=0", "--register-dataset-types"),
        *("-c", "restoreCoaddBands:target_fwhm=0.7", "-c", "restoreCoaddBands:restoration.noise.num_draws=2"),
        *("-c", "makeJointColorPictures:bands=['i','g']"),
    ]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    # A band without coadds has no work in the tasks that follow.
    assert "0 failed" in output
    assert "Left band r out" in output
    return repo


def test_products_are_those_of_the_bands_that_have_data(restored: Path) -> None:
    """If it fails, a band without data costs the others."""
    butler = Butler.from_config(str(restored), collections=[RUN])
    for suffix in ("", "_demand", "_linear", "_linear_noise", "_metrics", "_plot", "_quality"):
        refs = butler.query_datasets(f"restored_coadd_joint{suffix}", skymap="test_map")
        assert sorted(str(ref.dataId["band"]) for ref in refs) == ["g", "i"], suffix
    (log,) = butler.query_datasets("restoreCoaddBands_log", skymap="test_map")
    assert set(log.dataId.required) == {"skymap", "tract", "patch"}


def test_detection_coadd_reads_whole_and_by_parts(restored: Path) -> None:
    """If it fails, a coadd without band or provenance cannot be stored."""
    butler = Butler.from_config(str(restored), collections=[RUN])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0}
    detection = butler.get("restored_coadd_joint_detection", data_id)
    assert detection.band is None
    assert detection.metadata["joint_bands"] == "g,i"
    image = butler.get("restored_coadd_joint_detection.image", data_id)
    np.testing.assert_array_equal(image.array, detection.image.array)
    assert detection.psf.compute_kernel_image(x=50, y=40).array.sum() == pytest.approx(1.0)


def test_coadds_restored_together_are_judged_drawn_and_measured(restored: Path) -> None:
    """If it fails, the diagnosis of single coadds does not take joint ones."""
    butler = Butler.from_config(str(restored), collections=[RUN])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0}
    quality = butler.get("restored_coadd_joint_quality", data_id, band="g")
    assert quality["verdict"] in ("good", "check", "bad")
    assert quality["metrics"]["fwhm_out"] == pytest.approx(0.7, rel=0.01)
    assert butler.getURI("restored_coadd_joint_color_plot", data_id).exists()
    table = butler.get("restored_coadd_joint_quality_table", skymap="test_map", tract=3, band="i")
    assert list(table["patch"]) == [0]
    objects = butler.get("restored_object_joint_patch", data_id)
    assert (objects["i_acn_psfFlux"] > 100.0).any()
    assert np.isnan(objects["r_acn_psfFlux"]).all()


def test_status_is_by_patch(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a campaign of joint coadds cannot be followed, or its time
    is counted for each band.
    """
    arguments = ["status", str(restored), RUN, "--task", "restoreCoaddBands", "--where", "patch=0"]
    assert main([*arguments, "--check"]) == 0
    counts, usage = (line.split() for line in capsys.readouterr().out.splitlines() if " joint " in line)
    # One patch is expected and done, from six exposures.
    assert [word for word in counts if word.isdigit()][:2] == ["1", "1"]
    assert usage[3] == "6"


def test_report_of_joint_coadds(restored: Path, tmp_path: Path) -> None:
    """If it fails, joint coadds have no web pages."""
    names = ["--dataset-type", "restored_coadd_joint", "--task", "restoreCoaddBands"]
    assert main(["report", str(restored), RUN, "--output", str(tmp_path / "report"), *names]) == 0
    text = (tmp_path / "report" / "index.html").read_text()
    assert "Restored coadds in u/test/joint" in text
