# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which visit images are used, why the others are not, and what is read."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import PatchGeometry, VisitComponents
from lsst.astroclearnet.adapters.read import read_visit_image
from lsst.astroclearnet.core import fwhm_to_sigma, gaussian_kernel
from lsst.astroclearnet.repository import create_repository, put_visit_image
from lsst.astroclearnet.tasks import SelectExposuresConfig, SelectExposuresTask, parse_visit_selections
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import Image, ObservationSummaryStats, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.pipe.base import InMemoryDatasetHandle, Struct

SHAPE = (300, 340)
SCALE = 0.168
FWHM = 4.0

# The patch is 160 pixels wide; its middle is 48 pixels left of the tract's,
# where a detector without an offset has its own.
LEFT = 48.0


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    return make_patch_geometry().patch(3, 0)


def visit_image(
    visit: int = 1, detector: int = 0, *, right: float = 0.0, scale: float = 1.0, **options: Any
) -> VisitImage:
    """Return an image whose middle is some pixels right of the patch's."""
    stats = ObservationSummaryStats(**options.pop("stats", {}))
    fwhm = options.pop("fwhm", FWHM) / scale
    projection = make_projection(
        SHAPE, scale=scale, offset=(0.0, LEFT - right), visit=visit, detector=detector
    )
    return make_visit_image(np.zeros(SHAPE), projection, fwhm=fwhm, summary_stats=stats, **options)


def select(sources: list[Any], geometry: PatchGeometry, selections: Any = None, **limits: Any) -> Struct:
    config = SelectExposuresConfig()
    config.update(**limits)
    config.validate()
    return SelectExposuresTask(config=config).run(
        visit_images=sources, geometry=geometry, selections=selections
    )


def names(sources: list[VisitImage]) -> list[tuple[int, int]]:
    frames = [source.sky_projection.pixel_frame for source in sources]
    return [(int(frame.visit or 0), int(frame.detector)) for frame in frames]


@dataclasses.dataclass
class Handle:
    """A handle that records what is asked for."""

    inner: Any
    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def dataId(self) -> Any:
        return self.inner.dataId

    def get(self, **arguments: Any) -> Any:
        """Return what the handle has for these arguments."""
        self.calls.append(arguments)
        return self.inner.get(**arguments)

    @property
    def components(self) -> set[str]:
        """Names of what was read; empty names stand for the whole."""
        return {
            name
            for call in self.calls
            for name in call.get("parameters", {}).get("components", [call.get("component", "")])
        }


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Butler:
    """A repository of two exposures, of which the second is off the patch."""
    folder: Path = tmp_path_factory.mktemp("select")
    butler = create_repository(str(folder / "repo"))
    # Noisy beyond the patch: the depth must be that of the overlap.
    variance = np.full(SHAPE, 4.0)
    variance[:, :30] = variance[:, -30:] = 1e6
    put_visit_image(butler, visit_image(1, variance=variance), "run")
    put_visit_image(butler, visit_image(2, right=2000.0), "run")
    return butler


@pytest.fixture
def handles(butler: Butler) -> list[Handle]:
    refs = sorted(
        butler.query_datasets("visit_image", collections="run"), key=lambda ref: ref.dataId["visit"]
    )
    return [Handle(butler.getDeferred(ref)) for ref in refs]


def test_nothing_is_read_by_default(handles: list[Handle], geometry: PatchGeometry) -> None:
    """If it fails, every quantum pays for limits that it does not have."""
    result = select(handles, geometry)
    assert result.selected == handles
    assert (result.rejected, result.summaries) == ({}, {})
    assert not any(handle.calls for handle in handles)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"min_overlap": 0.1}, set()),
        ({"max_psf_fwhm": 1.0}, {"psf"}),
        ({"max_star_ellipticity": 0.4}, {"summary_stats"}),
        ({"max_visits": 5}, {"psf", "variance", "mask"}),
    ],
)
def test_only_what_a_limit_needs_is_read(
    handles: list[Handle], geometry: PatchGeometry, limits: dict[str, Any], expected: set[str]
) -> None:
    """If it fails, selecting costs as much as reading the images."""
    result = select(handles, geometry, **limits)
    assert result.selected == handles[:1]
    assert result.rejected["TestCam visit 2, detector 0"].startswith("no_overlap: ")
    assert handles[0].components == {"sky_projection", "bbox"} | expected
    assert handles[1].components <= handles[0].components - {"variance", "mask"}
    for call in handles[0].calls:
        if "variance" in call["parameters"]["components"]:
            # The patch and at most a pixel on either side.
            assert call["parameters"]["bbox"].area == pytest.approx(160 * 160, rel=0.03)


def test_depth_is_that_of_a_faint_star(handles: list[Handle], geometry: PatchGeometry) -> None:
    """If it fails, the depth limit is not in magnitudes that users know."""
    result = select(handles[:1], geometry, min_depth=20.0)
    # A Gaussian has sum f^2 = 1 / (4 pi sigma^2); the variance is 4 nJy^2.
    noise = math.sqrt(4.0 * 4.0 * math.pi * fwhm_to_sigma(FWHM) ** 2)
    depth = (5.0 * noise * u.nJy).to_value(u.ABmag)
    summary = result.summaries["TestCam visit 1, detector 0"]
    assert summary["depth"] == pytest.approx(depth, abs=0.005)
    assert summary["information"] == pytest.approx(1.0 / noise**2, rel=0.01)
    assert summary["overlap"] == pytest.approx(1.0)
    assert select(handles[:1], geometry, min_depth=depth - 0.01).selected == handles[:1]
    result = select(handles[:1], geometry, min_depth=round(depth + 0.01, 2))
    assert result.selected == []
    assert result.rejected["TestCam visit 1, detector 0"] == (
        f"depth: Its depth is {depth:.2f} mag, less than min_depth={round(depth + 0.01, 2):g}."
    )


def test_depth_does_not_depend_on_the_pixels(geometry: PatchGeometry) -> None:
    """If it fails, cameras of other pixels are taken for shallow ones."""
    images = [visit_image(1, variance=2.0), visit_image(2, scale=1.25, variance=2.0 * 1.25**2)]
    images.append(visit_image(3, variance=2e-6, unit=u.uJy))
    result = select(images, geometry, min_depth=0.0)
    depths = [summary["depth"] for summary in result.summaries.values()]
    assert depths[1] == pytest.approx(depths[0], abs=0.01)
    assert depths[2] == pytest.approx(depths[0], abs=1e-3)


class WingedPsf(GaussianPointSpreadFunction):
    """A Gaussian, a fifth of whose light is in wings of three times its
    width.
    """

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        kernel = super().compute_kernel_image(x=x, y=y)
        wings = gaussian_kernel(3.0 * FWHM, kernel.array.shape[0])
        return Image(0.8 * kernel.array + 0.2 * wings, bbox=kernel.bbox)


def test_limit_is_on_the_width_at_half_maximum(geometry: PatchGeometry) -> None:
    """If it fails, a limit means another FWHM than the metrics show."""
    image = visit_image(1)
    psf = WingedPsf(fwhm_to_sigma(FWHM), bounds=image.bbox, stamp_size=45)
    result = select([visit_image(1, psf=psf)], geometry, max_psf_fwhm=1.05 * FWHM * SCALE)
    assert len(result.selected) == 1
    (summary,) = result.summaries.values()
    assert summary["psf_fwhm"] == pytest.approx(FWHM * SCALE, rel=0.03)


@pytest.mark.parametrize("wrap", [False, True], ids=["image", "handle"])
def test_limits(geometry: PatchGeometry, wrap: bool) -> None:
    """If it fails, limits select the wrong exposures or name no value."""
    images = [visit_image(3, fwhm=5.0), visit_image(2, right=202.0), visit_image(1, fwhm=4.0)]
    sources: list[Any] = list(images)
    if wrap:
        sources = [
            InMemoryDatasetHandle(image, instrument="TestCam", visit=visit, detector=0)
            for image, visit in zip(images, (3, 2, 1), strict=True)
        ]
    result = select(sources, geometry, max_psf_fwhm=0.75, min_overlap=0.5)
    assert result.selected == sources[2:]
    assert list(result.rejected) == ["TestCam visit 3, detector 0", "TestCam visit 2, detector 0"]
    assert result.rejected["TestCam visit 3, detector 0"] == (
        "psf_fwhm: Its PSF has a FWHM of 0.840 arcsec, more than max_psf_fwhm=0.75."
    )
    assert result.summaries["TestCam visit 1, detector 0"]["psf_fwhm"] == pytest.approx(
        FWHM * SCALE, rel=0.01
    )
    # The left edge of the image is 202 - 170 pixels right of the middle of
    # the patch, so that 80 - 32 of 160 columns overlap.
    reason = result.rejected["TestCam visit 2, detector 0"]
    assert reason.startswith("small_overlap: It covers 0.3000 ")
    assert reason.endswith("less than min_overlap=0.5.")


@pytest.mark.parametrize(
    ("limits", "stats", "reason"),
    [
        (
            {"max_ellipticity_residual": 0.007},
            {"psfStarDeltaE1Median": 0.006, "psfStarDeltaE2Median": -0.008},
            "ellipticity_residual: The median ellipticity residual of the PSF stars is 0.01, more than "
            "max_ellipticity_residual=0.007.",
        ),
        (
            {"min_psf_stars": 6},
            {"nPsfStar": 5},
            "psf_stars: The number of PSF stars is 5, less than min_psf_stars=6.",
        ),
        ({"max_scaled_size_scatter": 0.019}, {"psfStarScaledDeltaSizeScatter": 0.02}, "scaled_size_scatter"),
        ({"max_psf_trace_radius_delta": 0.7}, {"psfTraceRadiusDelta": 0.8}, "psf_trace_radius_delta"),
        ({"max_psf_ap_flux_delta": 0.24}, {"psfApFluxDelta": 0.25}, "psf_ap_flux_delta"),
        (
            {"max_psf_ap_corr_sigma_scaled_delta": 0.22},
            {"psfApCorrSigmaScaledDelta": 0.23},
            "psf_ap_corr_sigma_scaled_delta",
        ),
        ({"max_star_ellipticity": 0.4}, {"starEMedian": 0.5}, "star_ellipticity"),
        (
            {"max_star_unnormalized_ellipticity": 2.8},
            {"starUnNormalizedEMedian": 3.0},
            "star_unnormalized_ellipticity",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_psf_quality(
    geometry: PatchGeometry, limits: dict[str, Any], stats: dict[str, float], reason: str
) -> None:
    """If it fails, PSF models that cannot be trusted pass, or exposures
    without statistics are lost.
    """
    good = {name: type(value)(100 if name == "nPsfStar" else value / 10) for name, value in stats.items()}
    images = [visit_image(1, stats=stats), visit_image(2, stats=good), visit_image(3)]
    result = select(images, geometry, **limits)
    assert names(result.selected) == [(2, 0), (3, 0)]
    assert result.rejected["TestCam visit 1, detector 0"].startswith(reason)
    # The third has no statistics: NaN, and no star counted.
    (value,) = (v for k, v in result.summaries["TestCam visit 3, detector 0"].items() if k != "overlap")
    assert math.isnan(value)


def test_best_first(geometry: PatchGeometry) -> None:
    """If it fails, the wrong exposures are kept, or in another order."""
    images = [
        # Relative to the first: 1, 1/4, two parts of the patch of which each
        # holds less than all, and 25/16 by the effective area.
        visit_image(5),
        visit_image(4, variance=4.0),
        visit_image(3, 1, right=186.0),
        visit_image(3, 0, right=-122.0),
        visit_image(2, fwhm=3.2),
    ]
    assert select(images, geometry, max_exposures=5).selected == images
    result = select(images, geometry, max_exposures=2)
    assert names(result.selected) == [(5, 0), (2, 0)]
    assert result.rejected["TestCam visit 4, detector 0"] == (
        "not_among_best: It is number 5 of 5 by its information about point sources, beyond max_exposures=2."
    )
    information = {name: summary["information"] for name, summary in result.summaries.items()}
    first = information.pop("TestCam visit 5, detector 0")
    relative = {name: value / first for name, value in information.items()}
    assert relative == pytest.approx(
        {
            "TestCam visit 4, detector 0": 0.25,
            "TestCam visit 3, detector 1": 0.4,
            "TestCam visit 3, detector 0": 0.8,
            "TestCam visit 2, detector 0": 25 / 16,
        },
        rel=0.02,
    )
    # Both detectors of a visit count, and stay together.
    assert names(select(images, geometry, max_visits=2).selected) == [(3, 1), (3, 0), (2, 0)]
    both = select(images, geometry, max_visits=2, max_exposures=2)
    assert names(both.selected) == [(3, 0), (2, 0)]


def test_unusable_pixels_do_not_count(geometry: PatchGeometry) -> None:
    """If it fails, exposures full of flags are taken for the best."""
    flagged = np.zeros(SHAPE, dtype=bool)
    flagged[:, ::2] = True
    images = [visit_image(1, planes={"SATURATED": flagged}), visit_image(2, variance=1.5)]
    result = select(images, geometry, max_exposures=1)
    assert names(result.selected) == [(2, 0)]
    images.append(visit_image(3, planes={"NO_DATA": np.ones(SHAPE, dtype=bool)}))
    images.append(visit_image(4, psf=None))
    images.append(visit_image(5, unit=u.adu))
    rejected = select(images, geometry, max_exposures=9).rejected
    assert {name: reason.split(":")[0] for name, reason in rejected.items()} == {
        "TestCam visit 3, detector 0": "no_usable_pixels",
        "TestCam visit 4, detector 0": "no_psf",
        "TestCam visit 5, detector 0": "not_calibrated",
    }


@pytest.mark.parametrize("key", [int, str], ids=["numbers", "strings"])
def test_visit_selection(handles: list[Handle], geometry: PatchGeometry, key: type) -> None:
    """If it fails, a campaign ignores the visits that were chosen for it, or
    its reading depends on the format in which they were written.
    """
    selections = parse_visit_selections(
        [("TestCam", {key(2): True, key(7): True}), ("Other", {key(1): True})]
    )
    assert selections == {"TestCam": {2, 7}, "Other": {1}}
    result = select(handles, geometry, selections)
    assert result.selected == handles[1:]
    assert result.rejected == {
        "TestCam visit 1, detector 0": (
            "visit_not_selected: Visit 1 is not among the 2 of the visit selection."
        )
    }
    assert not any(handle.calls for handle in handles)
    result = select(handles, geometry, parse_visit_selections([("Other", {key(1): True})]))
    assert result.selected == []
    assert result.rejected["TestCam visit 1, detector 0"] == (
        "visit_not_selected: There is no visit selection of instrument 'TestCam'; there are: Other."
    )


def test_excluded_detectors(geometry: PatchGeometry) -> None:
    """If it fails, detectors that are known to be bad are restored from."""
    sources = [visit_image(visit, detector) for visit in (1, 2) for detector in (0, 3)]
    result = select(sources, geometry, exclude_detectors=[3, 7])
    assert names(result.selected) == [(1, 0), (2, 0)]
    assert result.rejected == {
        f"TestCam visit {visit}, detector 3": "excluded_detector: Detector 3 is in exclude_detectors."
        for visit in (1, 2)
    }
    # Nothing has to be read for it.
    assert not result.summaries


def test_bad_visit_selection() -> None:
    """If it fails, another dictionary is taken for one of visits."""
    with pytest.raises(ValueError, match="visit selection of TestCam has a key that is no visit.*'good'"):
        parse_visit_selections([("TestCam", {"good": [1, 2]})])


def test_unreadable() -> None:
    """If it fails, a broken file has no reason in the records."""

    class Broken:
        dataId = "visit 1"

        def get(self, **arguments: Any) -> Any:
            raise OSError("truncated")

    with pytest.raises(ValueError, match="neither as a VisitImage.*truncated") as caught:
        read_visit_image(Broken())
    assert getattr(caught.value, "reason", None) == "unreadable"
    with pytest.raises(ValueError, match="truncated"):
        VisitComponents(Broken()).read("bbox")
