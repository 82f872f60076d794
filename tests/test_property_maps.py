# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Survey property maps of restored coadds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pytest
from astropy.table import Table
from healsparse import HealSparseMap

from lsst.astroclearnet.adapters import PatchGeometry, make_cell_coadd, make_demand_image
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.metrics import HealpixSums, depth_of_error, psf_flux_error, shape_of_kernel
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tasks import (
    PROPERTY_MAPS,
    MakePropertyMapsConfig,
    MakePropertyMapsConnections,
    MakePropertyMapsTask,
    map_properties,
    sum_properties,
)
from lsst.astroclearnet.tests import make_patch_geometry
from lsst.daf.butler import DatasetType
from lsst.images.cells import CoaddProvenance
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import InMemoryDatasetHandle, NoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

SKY_MAP = make_patch_geometry(cells=(3, 4))
GEOMETRY = SKY_MAP.patch(3, 0)
NSIDE = 131072
"""Pixels of 1.6 arcsec, which hold 65 of those of the coadds."""

SIGMA = 2.0
PSF = gaussian_kernel(3.2, 17)
USED = (1.0, 0.75, 0.5)
"""Share of the pixels of a cell in which each exposure is used."""


def provenance(geometry: PatchGeometry) -> CoaddProvenance:
    """Return exposures that are used in the same part of each cell."""
    inputs = CoaddProvenance.make_empty_input_table(len(USED))
    size = geometry.definition.cells.grid_size
    i, j = (axis.ravel() for axis in np.indices((size.i, size.j)))
    table = CoaddProvenance.make_empty_contribution_table(len(USED) * i.size)
    inputs["instrument"], inputs["physical_filter"], inputs["day_obs"] = "TestCam", "i_test", 20260101
    inputs["visit"], inputs["detector"] = range(len(USED)), 0
    for n in range(len(USED)):
        inputs["polygon"][n] = geometry.bbox.to_polygon()
    table["instrument"], table["detector"] = "TestCam", 0
    table["visit"], table["unmasked_fraction"] = (np.repeat(a, i.size) for a in (range(len(USED)), USED))
    table["cell_i"], table["cell_j"] = np.tile(i, len(USED)), np.tile(j, len(USED))
    return CoaddProvenance(inputs=inputs, contributions=table)


def make_patch(
    geometry: PatchGeometry = GEOMETRY,
    *,
    sigma: float | np.ndarray = SIGMA,
    correlation: np.ndarray | None = None,
    no_data: np.ndarray | None = None,
    planes: dict[str, np.ndarray] | None = None,
    share: np.ndarray | None = None,
    share_sigma: np.ndarray | float = 0.1,
) -> dict[str, Any]:
    """Return the datasets of a patch, by name."""
    shape = geometry.bbox.shape
    bad = np.zeros(shape, dtype=bool) if no_data is None else no_data
    size = geometry.definition.cells.grid_size
    stamp = np.zeros((31, 31)) if correlation is None else correlation
    stamp[15, 15] = 1.0
    i, j = (axis.ravel() for axis in np.indices((size.i, size.j)))
    noise = Table({"cell_i": i, "cell_j": j, "correlation": np.array([stamp] * i.size)})
    linear = make_cell_coadd(
        geometry=geometry,
        band="i",
        image=np.where(bad, np.nan, 0.0),
        variance=np.where(bad, np.nan, np.square(sigma)),
        mask_planes={"NO_DATA": bad},
        psf=PSF,
        provenance=provenance(geometry),
    )
    demand = make_demand_image(
        geometry=geometry,
        share=np.full(shape, np.nan) if share is None else share,
        sigma=np.broadcast_to(share_sigma, shape),
        mask_planes=planes or {},
    )
    return {
        "restored_coadd_linear": linear,
        "restored_coadd_linear_noise": noise,
        "restored_coadd_demand": demand,
    }


def sums_of(patch: dict[str, Any]) -> HealpixSums:
    linear, noise, demand = patch.values()
    sums = sum_properties(linear, noise, demand, NSIDE)
    assert sums is not None
    return sums


def values_of(patch: dict[str, Any], name: str) -> np.ndarray:
    """Return the values of a map."""
    made = map_properties(sums_of(patch), 128, 0.5)[name]
    return np.asarray(made[made.valid_pixels])


def test_sums_are_those_of_each_pixel() -> None:
    """If it fails, a map shows the mean of other pixels."""
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(10.0, 10.01, 500), rng.uniform(-5.0, -4.99, 500)
    values = {"a": rng.normal(size=500), "b": np.ones(500)}
    sums = HealpixSums.from_positions(NSIDE // 16, ra, dec, values)
    pixels = hpgeom.angle_to_pixel(NSIDE // 16, ra, dec)
    assert 1 < sums.pixels.size < 500
    assert list(sums.pixels) == sorted(set(pixels))
    for n, pixel in enumerate(sums.pixels):
        assert sums.values["a"][n] == pytest.approx(values["a"][pixels == pixel].sum())
    halves = [
        HealpixSums.from_positions(
            sums.nside, ra[part], dec[part], {name: value[part] for name, value in values.items()}
        )
        for part in (slice(200), slice(200, None))
    ]
    again = HealpixSums.combine(halves)
    np.testing.assert_array_equal(again.pixels, sums.pixels)
    np.testing.assert_allclose(again.values["a"], sums.values["a"])
    assert again.values["b"].sum() == 500


@pytest.mark.parametrize("moments", [(4.0, 4.0, 0.0), (5.0, 3.0, 0.7), (2.5, 3.5, -0.6)])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_shape_of_a_gaussian(moments: tuple[float, float, float], shift: float) -> None:
    """If it fails, sizes and ellipticities are not those of Rubin's maps."""
    xx, yy, xy = moments
    inverse = np.linalg.inv([[xx, xy], [xy, yy]])
    y, x = np.mgrid[-15:16, -15:16] - shift
    kernel = np.exp(-0.5 * (inverse[0, 0] * x**2 + 2.0 * inverse[0, 1] * x * y + inverse[1, 1] * y**2))
    size = (xx * yy - xy**2) ** 0.25
    norm = xx + yy + 2.0 * size**2
    expected = (size, (xx - yy) / norm, 2.0 * xy / norm)
    assert shape_of_kernel(kernel) == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(
    "stamp", [np.ones((9, 9)), np.zeros((9, 9)), np.ones((1, 1)), np.full((9, 9), np.nan)]
)
def test_stamps_without_a_shape_are_refused(stamp: np.ndarray) -> None:
    with pytest.raises(ValueError, match="PSF stamp"):
        shape_of_kernel(stamp)


def test_depth_of_white_noise() -> None:
    """If it fails, the depth is not the 5 sigma limit of a PSF flux."""
    expected = depth_of_error(SIGMA / np.sqrt(np.sum(PSF**2)))
    for name in ("psf_maglim", "correlated_psf_maglim"):
        values = values_of(make_patch(), f"{name}_map_weighted_mean")
        assert values.size > 60
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_depth_of_correlated_noise() -> None:
    """If it fails, the correlation of the noise is not in the depth."""
    y, x = np.mgrid[-15:16, -15:16]
    width, sigma = 1.2, 3.2 / 2.3548
    correlation = np.exp(-0.5 * (x**2 + y**2) / width**2)
    # As on the page about the full stack, for Gaussians.
    factor = np.sqrt(2.0 * np.pi / (1.0 / width**2 + 0.5 / sigma**2))
    patch = make_patch(correlation=correlation)
    plain = depth_of_error(factor * SIGMA / np.sqrt(np.sum(PSF**2)))
    np.testing.assert_allclose(values_of(patch, "psf_maglim_map_weighted_mean"), plain, atol=2e-3)
    best = depth_of_error(psf_flux_error(SIGMA**2, correlation, PSF))
    assert best > plain
    found = values_of(patch, "correlated_psf_maglim_map_weighted_mean")
    np.testing.assert_allclose(found, best, atol=1e-5)


def test_depth_is_that_of_the_mean_information() -> None:
    """If it fails, pixels of little weight count as others."""
    sigma = np.where(np.indices(GEOMETRY.bbox.shape)[1] % 2, SIGMA, 3.0 * SIGMA)
    sums = sums_of(make_patch(sigma=sigma))
    odd = sums.values["information"] * SIGMA**2 / np.sum(PSF**2) - sums.values["num_pixels"] / 9.0
    # The number of pixels of the smaller variance, in each pixel of the map.
    number = odd / (1.0 - 1.0 / 9.0)
    np.testing.assert_allclose(number, np.rint(number), atol=1e-3)
    made = map_properties(sums, 128, 0.0)["psf_maglim_map_weighted_mean"]
    mean = (number + (sums.values["num_pixels"] - number) / 9.0) / sums.values["num_pixels"]
    expected = [depth_of_error(SIGMA / np.sqrt(m * np.sum(PSF**2))) for m in mean]
    np.testing.assert_allclose(made[sums.pixels], expected, atol=1e-4)


def test_psf_and_number_of_exposures() -> None:
    """If it fails, the maps of PSF and exposures are those of other cells."""
    patch = make_patch()
    np.testing.assert_allclose(values_of(patch, "psf_size_map_weighted_mean"), 3.2 / 2.35482, rtol=1e-3)
    for name in ("psf_e1", "psf_e2"):
        np.testing.assert_allclose(values_of(patch, f"{name}_map_weighted_mean"), 0.0, atol=1e-9)
    np.testing.assert_allclose(values_of(patch, "n_exposure_map_sum"), sum(USED))
    # A cell that one exposure misses, by its place on the sky.
    linear = patch["restored_coadd_linear"]
    table = linear.provenance.contributions
    table["unmasked_fraction"][(table["cell_i"] == 2) & (table["cell_j"] == 3) & (table["visit"] == 0)] = 0.0
    made = map_properties(sums_of(patch), 128, 0.5)["n_exposure_map_sum"]
    for cell, expected in (((2, 3), sum(USED) - 1.0), ((1, 1), sum(USED))):
        box = next(
            linear.patch.cells.bbox_of(index)
            for index in linear.psf.bounds.cell_indices()
            if (index.i, index.j) == cell
        )
        sky = linear.sky_projection.pixel_to_sky(x=box.x.center, y=box.y.center)
        assert made.get_values_pos(sky.ra.deg, sky.dec.deg) == pytest.approx(expected)


def test_light_that_the_network_supplied_or_withheld() -> None:
    """If it fails, a user cannot leave out where the network erred."""
    shape = GEOMETRY.bbox.shape
    even = np.indices(shape)[1] % 2 == 0
    share = np.where(even, 1.0, 0.4)
    share[:, : shape[1] // 2] = np.nan
    share_sigma = np.where(even, 0.1, 0.3)
    patch = make_patch(
        planes={"SUPPLIED": even, "WITHHELD": np.ones(shape, dtype=bool)},
        share=share,
        share_sigma=share_sigma,
    )
    np.testing.assert_allclose(values_of(patch, "withheld_fraction_map_mean"), 1.0)
    supplied = values_of(patch, "supplied_fraction_map_mean")
    assert supplied.mean() == pytest.approx(0.5, abs=0.02)
    found = values_of(patch, "demanded_share_map_weighted_mean")
    assert 0.4 * supplied.size < found.size < 0.65 * supplied.size
    assert np.median(found) == pytest.approx((1.0 * 9.0 + 0.4) / 10.0, abs=0.02)


def test_no_pixel_counts_twice() -> None:
    """If it fails, the overlap of patches has two depths."""
    patches = [SKY_MAP.patch(3, n) for n in (0, 1)]
    sums = [sums_of(make_patch(g, sigma=s)) for g, s in zip(patches, (1.0, 2.0), strict=True)]
    both = HealpixSums.combine(sums)
    inner = sum(g.definition.inner_bbox.area for g in patches)
    assert both.values["num_pixels"].sum() == inner < sum(g.bbox.area for g in patches)
    assert both.values["area"].sum() == pytest.approx(inner * GEOMETRY.pixel_scale**2, rel=1e-4)
    # Full pixels have the area that they should have.
    full = np.sort(both.values["area"])[both.pixels.size // 2 :]
    np.testing.assert_allclose(full, both.pixel_area, rtol=0.1)
    # One pixel of the map in which both patches have a part.
    shared = np.intersect1d(sums[0].pixels, sums[1].pixels)
    assert 0 < shared.size < 0.2 * both.pixels.size
    depth = map_properties(both, 128, 0.5)["psf_maglim_map_weighted_mean"]
    lowest, highest = (depth_of_error(s / np.sqrt(np.sum(PSF**2))) for s in (2.0, 1.0))
    values = depth[np.intersect1d(shared, depth.valid_pixels)]
    assert values.size > 5
    assert (values < highest + 1e-4).all()
    assert (values > lowest - 1e-4).all()
    assert ((values > lowest + 0.01) & (values < highest - 0.01)).any()


def test_pixels_without_data_do_not_count() -> None:
    """If it fails, the maps reach to where nothing was observed."""
    shape = GEOMETRY.bbox.shape
    hole = np.zeros(shape, dtype=bool)
    hole[: shape[0] // 2] = True
    whole, half = sums_of(make_patch()), sums_of(make_patch(no_data=hole))
    assert half.values["num_pixels"].sum() == whole.values["num_pixels"].sum() / 2
    counts = [map_properties(half, 128, part)["n_exposure_map_sum"].n_valid for part in (0.0, 0.5, 1.0)]
    assert counts[0] > counts[1] > counts[2]
    # Only the border has data.
    hole[:] = False
    hole[GEOMETRY.definition.inner_bbox.slice_within(GEOMETRY.bbox)] = True
    linear, noise, demand = make_patch(no_data=hole).values()
    assert sum_properties(linear, noise, demand, NSIDE) is None


def test_pixels_of_the_map_must_hold_some_of_the_coadd() -> None:
    linear, noise, demand = make_patch().values()
    with pytest.raises(ValueError, match=r"nside=524288 .* 5\.\d pixels .* smaller nside"):
        sum_properties(linear, noise, demand, 524288)


def test_task_leaves_out_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, one patch costs the maps of a tract."""

    class Gone:
        def get(self) -> None:
            raise FileNotFoundError("/there/no/more")

    patches: dict[int, dict[str, Any]] = {
        n: {name: InMemoryDatasetHandle(dataset) for name, dataset in make_patch(SKY_MAP.patch(3, n)).items()}
        for n in (0, 1)
    }
    patches[2] = {"restored_coadd_linear": patches[0]["restored_coadd_linear"]}
    patches[3] = patches[0] | {"restored_coadd_demand": Gone()}
    config = MakePropertyMapsConfig()
    config.nside = NSIDE
    task = MakePropertyMapsTask(config=config)
    outputs = task.run(patches=patches)
    assertValidOutput(task, outputs)
    assert (task.metadata["num_patches"], task.metadata["num_left_out"]) == (2, 2)
    text = caplog.text
    assert (
        "Patch 2 is left out of the maps: it has no restored_coadd_linear_noise, restored_coadd_demand"
        in text
    )
    assert "Patch 3 is left out of the maps: a file is gone (/there/no/more)" in text
    for prop in PROPERTY_MAPS:
        made = getattr(outputs, prop.full_name)
        assert isinstance(made, HealSparseMap)
        assert (made.nside_sparse, made.nside_coverage, made.dtype) == (NSIDE, 128, np.float64)
        assert made.metadata["UNIT"] == prop.unit
        assert made.metadata["OPERATION"] in ("weighted mean", "mean", "sum")
    with pytest.raises(NoWorkFound, match="No patch"):
        task.run(patches={2: patches[2]})


def test_names_are_those_of_rubin() -> None:
    """If it fails, Rubin's tasks that consolidate and draw property maps do
    not take these.
    """
    connections = MakePropertyMapsConnections(config=MakePropertyMapsConfig())
    lintConnections(connections)
    names = {name: getattr(connections, name).name for name in connections.outputs}
    assert names["psf_size_map_weighted_mean"] == "restoredCoadd_psf_size_map_weighted_mean"
    for attribute, name in names.items():
        # How analysis_tools takes the name of a map apart.
        rest, operation = name.split("_map_")
        coadd, prop = rest.split("Coadd_")
        assert (coadd, f"{prop}_map_{operation}") == ("restored", attribute)
        assert operation in ("min", "max", "mean", "weighted_mean", "sum")


@pytest.mark.parametrize(("field", "value"), [("nside", 1000), ("nside_coverage", 0), ("min_coverage", 1.5)])
def test_wrong_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(FieldValidationError, match=field):
        setattr(MakePropertyMapsConfig(), field, value)


def test_coverage_is_not_finer_than_the_map() -> None:
    config = MakePropertyMapsConfig()
    config.nside = 64
    with pytest.raises(ValueError, match="nside_coverage=128 is above nside=64"):
        config.validate()


def test_maps_are_kept_by_a_repository(tmp_path: Path) -> None:
    """If it fails, maps need the full stack."""
    butler = create_repository(str(tmp_path / "repo"))
    register_sky_map(butler, SKY_MAP, "skymaps")
    name = "restoredCoadd_n_exposure_map_sum"
    butler.registry.registerDatasetType(
        DatasetType(name, ("skymap", "tract"), "HealSparseMap", universe=butler.dimensions)
    )
    made = map_properties(sums_of(make_patch()), 128, 0.5)["n_exposure_map_sum"]
    butler.collections.register("maps")
    data_id = {"skymap": SKY_MAP.skymap, "tract": 3}
    butler.put(made, name, data_id, run="maps")
    read = butler.get(name, data_id, collections="maps")
    np.testing.assert_array_equal(read.valid_pixels, made.valid_pixels)
    np.testing.assert_array_equal(read[made.valid_pixels], made[made.valid_pixels])
    assert read.metadata["DESCRIPTION"] == "Number of exposures"
    coverage = butler.get(f"{name}.coverage", data_id, collections="maps")
    assert coverage.coverage_mask.sum() == made.coverage_mask.sum()
    coarse = butler.get(name, data_id, collections="maps", parameters={"degrade_nside": 4096})
    assert coarse.nside_sparse == 4096


def test_repository_that_cannot_keep_maps_says_what_to_do() -> None:
    class Quantum:
        def get(self, refs: Any) -> dict[str, list[Any]]:
            return {name: [InMemoryDatasetHandle(dataset, patch=0)] for name, dataset in make_patch().items()}

        def put(self, *args: Any) -> None:
            raise ImportError("No module named 'lsst.pipe.tasks'")

    config = MakePropertyMapsConfig()
    config.nside = NSIDE
    quantum: Any = Quantum()
    references: Any = None
    with pytest.raises(RuntimeError, match=r"butler.yaml to lsst.astroclearnet.repository.HealSparseMap"):
        MakePropertyMapsTask(config=config).runQuantum(quantum, references, references)
