# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images that would spoil a patch, or stop it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.adapters import FEW_EXPOSURES
from lsst.astroclearnet.core import fwhm_to_sigma, gaussian_kernel
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tasks import PrepareExposuresTask, RestoreCoaddConfig, RestoreCoaddTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import Box, Image, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.pipe.base import Struct, UpstreamFailureNoWorkFound
from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor

SKY_MAP = make_patch_geometry(cells=(1, 1), cell_shape=(24, 24))
GEOMETRY = SKY_MAP.patch(3, 0)
SHAPE = (100, 130)
FWHM = 3.6
FIELD = StarField(
    geometry=GEOMETRY,
    x=np.array([14.2, 35.7, 58.1, 20.4, 50.3]),
    y=np.array([12.9, 40.3, 20.6, 60.2, 61.7]),
    flux=np.array([4000.0, 2500.0, 3000.0, 2000.0, 3500.0]),
)


def make_config(**changes: Any) -> RestoreCoaddConfig:
    """Return a configuration for small, quick fits."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = 0.6
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 2
    config.restoration.network.hidden_channels = 8
    config.restoration.network.penalty_weights = [1e-5, 1e-3, 1e-1]
    config.restoration.noise.num_draws = 2
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return config


def observe(visit: int, **changes: Any) -> VisitImage:
    """Return a visit image of the stars that covers the patch."""
    projection = make_projection(SHAPE, rotation=4.0 * visit, offset=(0.0, 12.0), visit=visit)
    rng = np.random.default_rng(visit)
    image = FIELD.render(projection, SHAPE, FWHM) + rng.normal(size=SHAPE)
    return make_visit_image(image, projection, **{"fwhm": FWHM, **changes})


def run(visit_images: list[VisitImage], **changes: Any) -> Struct:
    """Restore the patch in i."""
    task = RestoreCoaddTask(config=make_config(**changes))
    return task.run(visit_images=visit_images, geometry=GEOMETRY, band="i")


class OddPsf(GaussianPointSpreadFunction):
    """A PSF with any pixels in any box.

    Parameters
    ----------
    kernel
        Its pixels.
    bbox
        Their box.
    """

    def __init__(self, kernel: np.ndarray, bbox: Box) -> None:
        super().__init__(1.5, bounds=Box.from_shape(SHAPE), stamp_size=3)
        self._kernel, self._box = kernel, bbox

    @property
    def kernel_bbox(self) -> Box:  # type: ignore[override]
        return self._box

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        return Image(self._kernel, bbox=self._box)


KERNEL = gaussian_kernel(FWHM, 25)
CENTERED = Box.factory[-12:13, -12:13]


def with_pixel(value: float) -> np.ndarray:
    """Return a PSF with one odd pixel."""
    kernel = KERNEL.copy()
    kernel[3, 5] = value
    return kernel


@pytest.mark.parametrize("factor", [7.0, 1e-30])
def test_sum_of_a_psf_does_not_matter(factor: float) -> None:
    """If it fails, fluxes follow the norm of the PSF images of a visit."""
    images = [observe(1, psf=OddPsf(KERNEL * f, CENTERED)) for f in (1.0, factor)]
    task = PrepareExposuresTask()
    one, other = (task.run(visit_images=[image], geometry=GEOMETRY).source.cutouts[0] for image in images)
    np.testing.assert_allclose(other.mean_psf, one.mean_psf, rtol=1e-12, atol=1e-18)
    np.testing.assert_array_equal(other.image, one.image)


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (OddPsf(with_pixel(np.nan), CENTERED), "sum nan"),
        (OddPsf(with_pixel(-np.inf), CENTERED), "sum nan|below zero"),
        (OddPsf(-KERNEL, CENTERED), "below zero"),
        (OddPsf(KERNEL - KERNEL.mean(), CENTERED), "below zero"),
        (OddPsf(KERNEL * 0.0, CENTERED), "sum 0.0"),
        (OddPsf(KERNEL[12:13, 12:13], Box.factory[:1, :1]), "in one pixel"),
        (OddPsf(KERNEL[:24, :24], Box.factory[-12:12, -12:12]), "not a square around"),
        (OddPsf(KERNEL[1:24], Box.factory[-11:12, -12:13]), "not a square around"),
        (OddPsf(KERNEL, Box.factory[:25, :25]), "not a square around"),
        (OddPsf(np.pad(KERNEL, 150), Box.factory[-162:163, -162:163]), "more than 255"),
    ],
)
def test_senseless_psf_drops_its_exposure(
    psf: OddPsf, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, stars are moved or blurred by a PSF that is none, or one
    broken PSF costs the patch.
    """
    with caplog.at_level(logging.WARNING):
        result = PrepareExposuresTask().run(visit_images=[observe(1), observe(2, psf=psf)], geometry=GEOMETRY)
    assert [exposure.identity.visit for exposure in result.source.cutouts] == [1]
    reason = result.dropped["TestCam visit 2, detector 0"]
    assert reason.startswith("bad_psf: ")
    assert re.search(message, reason)
    assert "Dropped TestCam visit 2, detector 0 (bad_psf)" in caplog.text


@pytest.mark.parametrize("size", [1, 5])
def test_cut_psf_is_named(size: int, caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, a PSF without its wings biases the coadd in silence."""
    cut = GaussianPointSpreadFunction(fwhm_to_sigma(FWHM), bounds=Box.from_shape(SHAPE), stamp_size=size)
    with caplog.at_level(logging.WARNING):
        metrics = run(
            [observe(1), observe(2, psf=cut), observe(3), observe(4)], do_linear=False
        ).restored_coadd_metrics
    consistent = {exposure["visit"]: exposure["psf_consistent"] for exposure in metrics["exposures"]}
    assert "TestCam visit 2, detector 0" in metrics["dropped"] or not consistent[2]
    warnings = [record.getMessage() for record in caplog.records if "visit 2" in record.getMessage()]
    assert any("do not fit their stars" in text or "Dropped" in text for text in warnings)


@pytest.mark.parametrize("factor", [1e-2, 0.2, 1e2])
def test_wrong_variance_is_named(factor: float, caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, an exposure gets a hundred times its weight, or none, and
    nobody hears of it.
    """
    images = [observe(visit, variance=factor if visit == 2 else 1.0) for visit in (1, 2, 3, 4)]
    with caplog.at_level(logging.WARNING):
        metrics = run(images, do_linear=False).restored_coadd_metrics
    exposure = metrics["exposures"][1]
    # What blank sky calls for, within its error in a patch this small.
    assert exposure["variance_factor_max"] == pytest.approx(1.0 / factor, rel=0.25)
    assert 0.5 < exposure["chi_square"] < 2.0
    assert "variances of some exposures do not fit their blank sky" in caplog.text
    assert "TestCam visit 2, detector 0: multiplied by" in caplog.text
    assert all(e["variance_factor_max"] == 1.0 for e in metrics["exposures"] if e is not exposure)


def test_other_band_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, two bands are mixed into one coadd."""
    images = [observe(1), observe(2, band="r"), observe(3), observe(4, band="")]
    with caplog.at_level(logging.WARNING):
        metrics = run(images, do_linear=False).restored_coadd_metrics
    # One that does not know its band is taken at the word of the query.
    assert [exposure["visit"] for exposure in metrics["exposures"]] == [1, 3, 4]
    assert metrics["dropped"] == {"TestCam visit 2, detector 0": "wrong_band: It is of band 'r', not 'i'."}
    assert "Dropped TestCam visit 2, detector 0 (wrong_band)" in caplog.text
    with pytest.raises(UpstreamFailureNoWorkFound, match="wrong_band: It is of band 'r', not 'i'"):
        run([observe(2, band="r")])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_exposures_are_flagged(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, nobody knows that no outlier could be rejected."""
    with caplog.at_level(logging.WARNING):
        outputs = run([observe(visit + 1) for visit in range(number)])
    words = f"With {number} exposure(s) no pixel can be rejected as an outlier"
    assert (words in caplog.text) == (number < 3)
    for coadd in (outputs.restored_coadd, outputs.restored_coadd_linear):
        assert (coadd.mask.get(FEW_EXPOSURES) == (number < 3)).all()
        assert np.isfinite(coadd.image.array).all()


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A repository of two visits of the patch."""
    folder = str(tmp_path / "repo")
    butler = create_repository(folder)
    register_sky_map(butler, SKY_MAP, "skymaps")
    for visit in (1, 2):
        put_visit_image(butler, observe(visit), "TestCam/visits")
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    return folder


def test_device_that_vanishes_leaves_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a lost GPU leaves products, or a patch that is never tried
    again.
    """

    def restore_in_butler(output: str) -> Butler:
        butler = SimplePipelineExecutor.prep_butler(root, ["TestCam/defaults"], output)
        executor = SimplePipelineExecutor.from_task_class(
            RestoreCoaddTask, config=make_config(), where="skymap='test_map' AND patch=0", butler=butler
        )
        executor.run(register_dataset_types=True)
        return butler

    def vanish(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with monkeypatch.context() as context:
        # Noise is drawn after the fit, in any restoration.
        context.setattr(torch, "randn", vanish)
        with pytest.raises(torch.AcceleratorError, match="unspecified launch failure"):
            restore_in_butler("u/test/lost")
    with Butler.from_config(root) as butler:
        types = ["restored_coadd", "restored_coadd_linear", "restored_coadd_metrics", "restoreCoadd_metadata"]
        for name in types:
            assert not butler.query_datasets(name, collections="u/test/lost", explain=False)
    again = restore_in_butler("u/test/again")
    assert len(again.query_datasets("restored_coadd", collections="u/test/again")) == 1
