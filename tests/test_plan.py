# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Planning of a campaign: what is read, proposed and printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from lsst.astroclearnet.adapters import UnusableExposureError, read_visit_psf
from lsst.astroclearnet.cli import main
from lsst.astroclearnet.commands import CommandError
from lsst.astroclearnet.commands._patch_cost import PatchCost
from lsst.astroclearnet.commands._plan import plan_campaign, plan_lines, plan_table
from lsst.astroclearnet.commands._plan_costs import predict_costs
from lsst.astroclearnet.commands._plan_sample import (
    BandSample,
    CampaignSample,
    PatchStack,
    even_sample,
    sample_campaign,
    thin,
)
from lsst.astroclearnet.core import (
    DebiasingOptions,
    fwhm_to_sigma,
    gaussian_kernel,
    kernel_fwhm,
    linear_noise,
)
from lsst.astroclearnet.repository import create_repository, put_visit_image, register_sky_map
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, DeferredDatasetHandle
from lsst.images import VisitImage
from lsst.images.serialization import ArchiveReadError

SHAPE = (230, 340)
SCALE = 0.168
RUN, MAPS = "Test/visits", "skymaps"
SIGHTS = {
    # Visit: band, FWHM and pixel size in pixels of the patches, variance.
    1: ("i", 4.0, 1.0, 1.0),
    2: ("i", 4.0, 1.25, 4.0),
    3: ("i", 4.6, 1.0, 2.0),
    4: ("r", 4.4, 1.0, 3.0),
    5: ("r", 5.2, 1.0, 3.0),
}
SKIPPED = {"no_usable_pixels": 1, "not_calibrated": 1, "unreadable": 1}


def visit_image(visit: int, band: str, fwhm: float, scale: float = 1.0, **options: Any) -> VisitImage:
    """Return an image that covers both patches."""
    offset = options.pop("offset", (0.0, 0.0))
    projection = make_projection(SHAPE, scale=scale, rotation=3.0 * visit, offset=offset, visit=visit)
    return make_visit_image(np.zeros(SHAPE), projection, fwhm=fwhm / scale, band=band, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository of two patches and two bands, with three bad images."""
    folder = str(tmp_path_factory.mktemp("plan") / "repo")
    butler = create_repository(folder)
    register_sky_map(butler, make_patch_geometry(), MAPS)
    for visit, (band, fwhm, scale, variance) in SIGHTS.items():
        # A bright half must not raise the level of the sky.
        plane = np.full(SHAPE, variance)
        plane[:100] = 50.0
        image = visit_image(visit, band, fwhm, scale, variance=plane, planes={"SATURATED": plane > 40.0})
        put_visit_image(butler, image, RUN)
    bad = np.ones(SHAPE, dtype=bool)
    put_visit_image(butler, visit_image(6, "i", 3.0, planes={"NO_DATA": bad}), RUN)
    put_visit_image(butler, visit_image(7, "i", 3.0, unit=u.adu), RUN)
    ref = put_visit_image(butler, visit_image(8, "i", 3.0), RUN)
    Path(butler.getURI(ref).ospath).write_text("no image")
    # At this place it covers no patch.
    put_visit_image(butler, visit_image(9, "i", 3.0, offset=(0.0, 4000.0)), RUN)
    return folder


@pytest.fixture
def butler(root: str) -> Butler:
    return Butler.from_config(root, collections=[RUN, MAPS])


def gaussian_band(band: str, *fwhms: Sequence[float]) -> BandSample:
    """Return patches whose exposures have Gaussian PSFs of equal depth."""
    stacks = [
        PatchStack(np.stack([gaussian_kernel(f, 31) for f in patch]), np.ones(len(patch)), SCALE)
        for patch in fwhms
    ]
    return BandSample(band, tuple(stacks), 5, 7, len(stacks))


def plan_text(sample: CampaignSample, **options: Any) -> str:
    return "\n".join(plan_lines(plan_campaign(sample, **options)))


def test_curve() -> None:
    """If it fails, the table states wrong costs."""
    sample = CampaignSample((gaussian_band("i", [4.0, 4.0]),), "m", {})
    plan = plan_campaign(sample)
    curve = plan.table()
    assert curve["target_fwhm_pixels"][0] == 2.0
    assert curve["target_fwhm_pixels"][-1] == pytest.approx(4.0, abs=0.01)
    np.testing.assert_allclose(curve["target_fwhm"], SCALE * curve["target_fwhm_pixels"])
    # The penalty of the restoration matters to sharper targets.
    rows = curve[curve["target_fwhm_pixels"] > 3.4]
    s = fwhm_to_sigma(4.0)
    t = s * np.asarray(rows["target_fwhm_pixels"]) / 4.0
    scatter = t**2 / (s * np.sqrt(2.0 * t**2 - s**2))
    np.testing.assert_allclose(rows["fit_scatter"], scatter, rtol=2e-3)
    np.testing.assert_allclose(rows["depth_loss"], 2.5 * np.log10(scatter), atol=3e-3)
    np.testing.assert_allclose(rows["pair_limit"], 2.0 * SCALE * t)
    asked = DebiasingOptions().max_psf_residual
    np.testing.assert_allclose(rows["psf_residual"], asked, rtol=0.2)
    assert curve["psf_residual"][0] > 10.0 * asked
    (band,) = plan.bands
    assert band.sample.band == "i"
    assert band.seeing == pytest.approx(4.0 * SCALE, rel=1e-3)
    assert np.flatnonzero(curve["proposed"]) == np.flatnonzero(curve["target_fwhm"] == band.target_fwhm)


def test_seeing_is_the_width_at_half_maximum() -> None:
    """If it fails, the plan has another seeing than status and report."""
    stamp = 0.8 * gaussian_kernel(4.0, 45) + 0.2 * gaussian_kernel(12.0, 45)
    stack = PatchStack(np.stack([stamp, stamp]), np.ones(2), SCALE)
    (band,) = plan_campaign(CampaignSample((BandSample("i", (stack,), 2, 2, 1),), "m", {})).bands
    # The wings have 1 / 37 of the peak: they hardly move its half.
    assert band.seeing == pytest.approx(4.0 * SCALE, rel=0.03)
    assert band.effective_fwhm == pytest.approx(kernel_fwhm(stamp) * SCALE)
    assert band.effective_fwhm > 1.15 * band.seeing


def test_psf_residual_limits_the_target() -> None:
    """If it fails, a target is proposed at which stars have another PSF, or
    the table does not say so.
    """
    sample = CampaignSample((gaussian_band("i", [4.0, 4.0]),), "m", {})
    plan = plan_campaign(sample, max_noise=1e9)
    curve = plan.table()
    (residual,) = curve["psf_residual"][curve["proposed"]]
    assert residual <= 1.05 * DebiasingOptions().max_psf_residual
    assert (curve["psf_residual"][curve["target_fwhm"] < plan.bands[0].target_fwhm - 0.02] > residual).all()
    table = plan_table(plan)
    (cells,) = (column.cells for column in table.columns if "PSF residual" in str(column.header))
    assert list(cells) == [f"{100 * value:.2f}" for value in curve["psf_residual"]]
    assert "above 0.4 % the target is too sharp" in str(table.caption)


@pytest.mark.parametrize("max_noise", [0.8, 2.0, 5.0])
def test_proposed_is_the_sharpest_affordable(max_noise: float) -> None:
    """If it fails, the proposed target is noisier or softer than asked."""
    sample = CampaignSample((gaussian_band("i", [3.6, 4.4, 5.2]),), "m", {})
    (band,) = plan_campaign(sample, max_noise=max_noise).bands
    stack = band.sample.patches[0]
    assert band.noise <= max_noise
    assert band.noise == linear_noise(stack.psfs, stack.levels, band.target_fwhm / SCALE)
    sharper = (band.target_fwhm - 0.01) / SCALE - 0.05
    assert linear_noise(stack.psfs, stack.levels, sharper) > max_noise
    assert band.target_fwhm == round(band.target_fwhm, 2)


@pytest.mark.slow
def test_nearly_all_patches_decide() -> None:
    """If it fails, one bad patch softens a campaign, or many are ignored."""
    good, bad = [3.6, 4.2], [5.0, 5.6]
    targets = [
        plan_campaign(CampaignSample((gaussian_band("i", *patches),), "m", {})).bands[0].target_fwhm
        for patches in ([good], [good] * 19 + [bad], [good] * 18 + [bad] * 2, [bad])
    ]
    assert targets[0] == targets[1] < targets[2] == targets[3]


def test_common() -> None:
    """If it fails, the bands differ, or one of them is too noisy."""
    bands = (gaussian_band("g", [5.0, 5.4]), gaussian_band("i", [3.6, 4.2]))
    sample = CampaignSample(bands, "m", {"no_psf": 3})
    each = plan_campaign(sample)
    g, i = (band.target_fwhm for band in each.bands)
    assert g > i
    common = plan_campaign(sample, common=True)
    assert [band.target_fwhm for band in common.bands] == [g, g]
    assert all(band.noise <= 2.0 for band in common.bands)
    text = plan_text(sample)
    assert text.endswith(
        f"  -c restoreCoadd:target_fwhm={g:.2f} -d \"skymap='m' AND band='g'\"\n"
        f"  -c restoreCoadd:target_fwhm={i:.2f} -d \"skymap='m' AND band='i'\""
    )
    assert "Visit images left out: 3 no_psf" in text
    assert "Band g: 5 of 7 visit images, 1 of 1 patches" in text
    assert plan_text(sample, common=True).endswith(
        f"at most 2, give to pipetask run:\n  -c restoreCoadd:target_fwhm={g:.2f}"
    )


def test_bound_out_of_reach() -> None:
    """If it fails, a bound is broken in silence."""
    sample = CampaignSample((gaussian_band("i", [4.0, 4.0]),), None, {})
    text = plan_text(sample, max_noise=0.01)
    assert "Band i: no target up to the median effective FWHM, " in text
    assert "no sky map" in text
    # The width of the sampled kernel, rounded up.
    assert text.endswith("-c restoreCoadd:target_fwhm=0.68 -d \"band='i'\"")
    assert "keeps the noise" not in plan_text(sample)
    for bad in (0.0, math.nan):
        with pytest.raises(CommandError, match=f"bound on the noise, {bad}, must be positive"):
            plan_campaign(sample, max_noise=bad)


def test_sample(butler: Butler) -> None:
    """If it fails, the curve is that of other exposures."""
    seen: list[tuple[int, int, str]] = []
    sample = sample_campaign(butler, progress=lambda *report: seen.append(report))
    assert seen[0] == (0, 8, "TestCam visit 1, detector 0")
    assert (sample.skymap, sample.skipped) == ("test_map", SKIPPED)
    assert [(b.band, b.num_exposures, b.num_exposures_found, b.num_patches_found) for b in sample.bands] == [
        ("r", 2, 2, 2),
        ("i", 3, 6, 2),
    ]
    for band in sample.bands:
        sights = [sight for sight in SIGHTS.values() if sight[0] == band.band]
        for patch in band.patches:
            assert patch.pixel_scale == pytest.approx(SCALE)
            assert [kernel_fwhm(psf) for psf in patch.psfs] == pytest.approx([s[1] for s in sights], rel=0.01)
            # White noise of equal power per area: larger pixels have more.
            levels = [s[3] / s[2] ** 2 for s in sights]
            assert patch.levels.tolist() == pytest.approx(levels, rel=0.01)


def test_costs_of_bands_alone_and_together(
    root: str, butler: Butler, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, a campaign of joint coadds runs out of what was planned."""
    sample = sample_campaign(butler)
    assert sample.counts == {(3, patch): {"r": 2, "i": 6} for patch in (0, 1)}
    alone, together = predict_costs(butler, sample)
    assert (alone.num_quanta, together.num_quanta) == (4, 2)
    pixels = make_patch_geometry().patch(3, 0).bbox.area
    assert alone.cpu_hours == pytest.approx(36e-6 * pixels * 2 * 8 / 3600.0)
    assert together.cpu_hours > alone.cpu_hours
    # That of i alone; the other band and the joint network come to it.
    assert 1.0 < alone.memory < together.memory < 8.0
    # A coadd for detection beside two of each kind.
    assert 1.1 < together.disk / alone.disk < 1.4
    arguments = ["plan", root, "--input", f"{RUN},{MAPS}", "--joint", "--max-exposures", "2"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "Cost of restoring the bands alone and together" in output
    assert output.rstrip().splitlines()[-1].startswith("  -c restoreCoaddBands:target_fwhm=")


def test_costs_need_a_sky_map(butler: Butler) -> None:
    """If it fails, what is not known is shown as free."""
    with pytest.raises(CommandError, match="no sky map"):
        predict_costs(butler, CampaignSample((gaussian_band("i", [4.0]),), None, {}))
    reader = Butler.from_config(butler=butler, collections=[RUN])
    with pytest.raises(CommandError, match="no skymap_geometry or skyMap of 'test_map'"):
        predict_costs(reader, sample_campaign(reader, max_exposures=2))


def test_cost_of_deep_patches() -> None:
    """If it fails, a plan of a deep survey breaks off, or says what tasks do
    not take.
    """
    patch = make_patch_geometry(cells=(34, 34), cell_shape=(100, 100)).patch(3, 0)
    assert patch.bbox.shape == (3600, 3600)
    shallow, deep = (PatchCost.predict(patch, number, 1.0) for number in (10, 100))
    assert 1.0 < shallow.memory / 2.0**30 < deep.memory / 2.0**30 <= 8.0
    assert 1 < shallow.num_tiles < deep.num_tiles
    assert deep.seconds == pytest.approx(36e-6 * 100 * 3600**2)
    # Cells as large as the patch cannot be divided.
    whole = make_patch_geometry(cells=(1, 1), cell_shape=(4000, 4000)).patch(3, 0)
    assert "more than the 8 GiB of max_host_memory" in PatchCost.predict(whole, 100, 1.0).text


def test_selection(butler: Butler) -> None:
    """If it fails, options of the selection do nothing."""
    sample = sample_campaign(butler, bands=["r"], where="patch = 1 AND visit < 5", skymap="test_map")
    (band,) = sample.bands
    assert (band.band, band.num_exposures, len(band.patches)) == ("r", 1, 1)
    few = sample_campaign(butler, bands=["r"], max_exposures=1)
    assert (few.bands[0].num_exposures, few.bands[0].num_exposures_found) == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "visit ="}, "--where 'visit =': "),
        ({"where": "visit = 77"}, "There is no visit_image in Test/visits, skymaps on .* with visit = 77"),
        ({"where": "visit IN (6, 7)"}, "No visit image can be used: 1 no_usable_pixels, 1 not_calibrated"),
        ({"bands": ["i", "z"]}, "There is no visit_image in band 'z', only in r, i"),
        ({"skymap": "other"}, "There is no sky map 'other'; there is test_map"),
        ({"dataset_type": "calexp"}, "There is no calexp in Test/visits"),
    ],
)
def test_refusals(options: dict[str, Any], message: str, butler: Butler) -> None:
    """If it fails, a slip of the finger gives a plan of something else."""
    with pytest.raises(CommandError, match=message):
        sample_campaign(butler, **options)


def test_partial_coverage(tmp_path: Path) -> None:
    """If it fails, two halves of an exposure count twice."""
    butler = create_repository(str(tmp_path / "repo"))
    register_sky_map(butler, make_patch_geometry(), MAPS)
    # The edge of the detector is 50.5 pixels right of the middle of the
    # tract, on which patch 1 extends from -32 to 128.
    projection = make_projection(SHAPE, offset=(0.0, SHAPE[1] / 2 - 50.5), visit=1)
    put_visit_image(butler, make_visit_image(np.zeros(SHAPE), projection), RUN)
    sample = sample_campaign(Butler.from_config(butler=butler, collections=[RUN, MAPS]))
    levels = [float(patch.levels[0]) for patch in sample.bands[0].patches]
    assert levels == pytest.approx([1.0, 160.0 / 82.5], rel=0.02)


def test_no_sky_map(tmp_path: Path) -> None:
    """If it fails, visits without patches have no plan; with two sky maps the
    wrong patches are looked at.
    """
    butler = create_repository(str(tmp_path / "repo"))
    for visit, scale in ((1, 1.25), (2, 1.0)):
        put_visit_image(butler, visit_image(visit, "i", 4.0, scale), RUN)
    reader = Butler.from_config(butler=butler, collections=[RUN])
    sample = sample_campaign(reader)
    (band,) = sample.bands
    assert (sample.skymap, band.num_exposures, band.num_patches_found) == (None, 2, 0)
    assert band.patches[0].pixel_scale == pytest.approx(SCALE, abs=2e-4)
    assert [kernel_fwhm(psf) for psf in band.patches[0].psfs] == pytest.approx([4.0, 4.0], rel=0.01)
    for name in ("one", "two"):
        register_sky_map(butler, make_patch_geometry(skymap=name), MAPS)
    with pytest.raises(CommandError, match="several sky maps; choose one with --skymap: one, two"):
        sample_campaign(reader)
    # Not every repository describes its sky map by a dataset of ours.
    assert sample_campaign(reader, skymap="two").bands[0].patches[0].pixel_scale == pytest.approx(
        SCALE, abs=2e-4
    )


def test_even_sample() -> None:
    """If it fails, the first visits of a campaign stand for all."""
    assert even_sample(range(10), 3) == [1, 5, 8]
    assert even_sample(range(4), 9) == [0, 1, 2, 3]
    groups = {(0, patch): [("I", visit, patch) for visit in range(100)] for patch in range(50)}
    thinned = thin(groups, 60)
    assert [patch for _, patch in thinned] == [5, 15, 25, 35, 45]
    assert all([visit for _, visit, _ in keys] == even_sample(range(100), 12) for keys in thinned.values())
    assert sum(len(keys) for keys in thin(groups, 5).values()) == 5
    assert thin(groups, 5000) == groups


def handle_of(visit_image: VisitImage) -> DeferredDatasetHandle:
    """Return a handle of an image whose storage has no components."""

    def get(component: str | None = None, **_: object) -> VisitImage:
        if component is not None:
            raise NotImplementedError(component)
        return visit_image

    dataset_type = SimpleNamespace(storageClass_name="VisitImage")
    handle = SimpleNamespace(get=get, dataId={}, ref=SimpleNamespace(datasetType=dataset_type))
    return cast(DeferredDatasetHandle, handle)


def test_read_without_components() -> None:
    """If it fails, images in another storage have no plan, or those without
    a PSF end it.
    """
    visit = read_visit_psf(handle_of(visit_image(3, "i", 4.0, 1.25, variance=4.0, unit=u.uJy)))
    assert visit.level == pytest.approx(4e6)
    assert visit.pixel_scale == pytest.approx(1.25 * SCALE, rel=1e-4)
    broken = cast(Any, ArchiveReadError("no module"))
    for psf in (broken, None):
        with pytest.raises(UnusableExposureError, match="PSF") as caught:
            read_visit_psf(handle_of(visit_image(3, "i", 4.0, psf=psf)))
        assert caught.value.reason == "no_psf"


def test_command(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, the command does not do what its help says."""
    path = tmp_path / "plan.ecsv"
    arguments = ["plan", root, "--input", f"{RUN},{MAPS}", "--max-noise", "3"]
    assert main([*arguments, "--common", "--output", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = Table.read(path)
    assert table.meta["skipped"] == SKIPPED
    assert list(dict.fromkeys(table["band"])) == ["r", "i"]
    targets = {band["target_fwhm"] for band in table.meta["bands"].values()}
    assert lines[-1] == f"  -c restoreCoadd:target_fwhm={targets.pop():.2f}"
    assert not targets
    assert (table["noise_high"][table["proposed"]] <= 3.0).all()
    assert any("left out: 1 no_usable_pixels, 1 not_calibrated, 1 unreadable" in line for line in lines)
    assert main([*arguments, "--bands", "i"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("-d \"skymap='test_map' AND band='i'\"")
    assert main(["plan", root, "--input", "absent"]) == 1
    assert "absent" in capsys.readouterr().err
