# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Patches of two instruments whose visits have the same numbers, and of two
filters of one band.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.table import Column, Table

from lsst.astroclearnet.adapters import VisitCalibration
from lsst.astroclearnet.adapters.coadd._provenance_compat import (
    mend_provenance_columns,
    mend_provenance_parts,
)
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tasks import (
    PrepareExposuresTask,
    RestoreCoaddConfig,
    RestoreCoaddTask,
    gather_inputs,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import DetectorFrame, Image, SkyProjection, VisitImage, fits, json
from lsst.images.cells import CellCoadd, CellIJ, CoaddProvenance, CoaddProvenanceSerializationModel
from lsst.images.serialization import read_archive
from lsst.pipe.base import InMemoryDatasetHandle, InputQuantizedConnection, Struct
from lsst.resources import ResourcePath

SHAPE = (100, 130)
FWHM = 3.6
SKY_MAP = make_patch_geometry(cells=(1, 1), cell_shape=(24, 24))
GEOMETRY = SKY_MAP.patch(3, 0)
FIELD = StarField(
    geometry=GEOMETRY,
    x=np.array([20.2, 50.7, 40.1]),
    y=np.array([20.9, 48.3, 15.7]),
    flux=np.array([4000.0, 3000.0, 3500.0]),
)
# Visits of equal numbers, a number beyond 53 bits, names of unequal lengths.
EXPOSURES = (
    ("HSC", 1, 0, "HSC-I"),
    ("HSC", 2, 0, "HSC-I2"),
    ("HSC", 2**53 + 1, 300, "HSC-I2"),
    ("LSSTComCam", 1, 0, "i_06"),
    ("LSSTComCam", 2, 0, "i_06"),
)


def place(instrument: str, visit: int, detector: int, **changes: Any) -> SkyProjection[DetectorFrame]:
    """Return the projection of an exposure, far from that of any other."""
    rotation = 7.0 * (visit % 100) + 90.0 * (instrument == "HSC")
    options: dict[str, Any] = {"rotation": rotation, "offset": (0.0, 12.0), **changes}
    return make_projection(SHAPE, visit=visit, detector=detector, instrument=instrument, **options)


def observe(
    instrument: str,
    visit: int,
    detector: int,
    physical_filter: str,
    *,
    wrong_wcs: bool = False,
    **changes: Any,
) -> VisitImage:
    """Return a visit image of the stars that covers the patch."""
    projection = place(instrument, visit, detector)
    rng = np.random.default_rng([abs(visit), *instrument.encode()])
    image = FIELD.render(projection, SHAPE, FWHM) + rng.normal(size=SHAPE)
    if wrong_wcs:
        projection = place(instrument, visit, detector, offset=(3.0, 9.0))
    return make_visit_image(image, projection, fwhm=FWHM, physical_filter=physical_filter, **changes)


def handle(content: Any, instrument: str, visit: int, **keys: Any) -> InMemoryDatasetHandle:
    """Return a handle like one of the Butler."""
    return InMemoryDatasetHandle(content, instrument=instrument, visit=visit, **keys)


def make_config(**changes: Any) -> RestoreCoaddConfig:
    """Return a configuration for small, quick fits."""
    config = RestoreCoaddConfig(geometry_source="dict", target_fwhm=0.6, device="cpu", do_plot=False)
    config.restoration.fit.max_epochs = 2
    config.restoration.noise.num_draws = 2
    config.update(**changes)
    return config


def star_ratios(coadd: CellCoadd) -> np.ndarray:
    """Return the peaks of the stars over what they should be."""
    origin, sigma = coadd.bbox.start, 0.6 / 0.168 / 2.3548
    rows, columns = np.mgrid[: coadd.bbox.shape[0], : coadd.bbox.shape[1]]
    ratios = []
    for x, y, flux in zip(FIELD.x - origin.x, FIELD.y - origin.y, FIELD.flux, strict=True):
        psf = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / sigma**2) / (2.0 * np.pi * sigma**2)
        near = np.hypot(rows - y, columns - x) < 8.0
        ratios.append((coadd.image.array * psf)[near].sum() / (psf[near] ** 2).sum() / flux)
    return np.array(ratios)


def inputs_of(coadd: CellCoadd) -> list[tuple[str, int, int, str]]:
    """Return what the provenance says of the inputs."""
    rows = coadd.provenance.inputs["instrument", "visit", "detector", "physical_filter"]
    return sorted((str(i), int(v), int(d), str(f)) for i, v, d, f in rows)


def weights_of(coadd: CellCoadd) -> dict[tuple[str, int, int], float]:
    """Return the weights of the inputs, summed over the cells."""
    found: dict[tuple[str, int, int], float] = {}
    for row in coadd.provenance.contributions:
        key = str(row["instrument"]), int(row["visit"]), int(row["detector"])
        found[key] = found.get(key, 0.0) + float(row["weight"])
    return found


@pytest.fixture(scope="module")
def outputs() -> Struct:
    """A patch restored with the projections that visit summaries give."""
    # They stand in for what a quantum has.
    butler: Any = SimpleNamespace(get=lambda refs: refs)
    inputs: Any = InputQuantizedConnection()
    inputs.visit_images = [
        handle(observe(i, v, d, f, wrong_wcs=True), i, v, detector=d) for i, v, d, f in EXPOSURES
    ]
    inputs.visit_summaries = [
        handle({d: VisitCalibration(projection=place(i, v, d))}, i, v) for i, v, d, _ in EXPOSURES
    ]
    return RestoreCoaddTask(config=make_config(use_visit_summary_wcs=True)).run(
        geometry=GEOMETRY, band="i", **gather_inputs(butler, inputs)
    )


def test_each_image_is_read_with_the_summary_of_its_instrument(outputs: Struct) -> None:
    """If it fails, the calibration of another telescope blurs the coadd."""
    metrics = outputs.restored_coadd_metrics
    assert not metrics["dropped"]
    found = {(e["instrument"], e["visit"], e["detector"]) for e in metrics["exposures"]}
    assert found == {exposure[:3] for exposure in EXPOSURES}
    # Of stars of 100 sigma; the projection of the other instrument leaves less
    # than half of the light.
    np.testing.assert_allclose(star_ratios(outputs.restored_coadd_linear), 1.0, atol=0.02)


def test_sky_corrections_of_two_instruments() -> None:
    """If it fails, the sky of another telescope is subtracted."""
    levels = {"HSC": 3.0, "LSSTComCam": 50.0}
    images = [observe(name, 1, 0, "i") for name in levels]
    corrections = {
        (name, 1, 0): Image(np.full(SHAPE, level, dtype=np.float32)) for name, level in levels.items()
    }
    config = PrepareExposuresTask.ConfigClass()
    config.do_apply_sky_correction = True
    task = PrepareExposuresTask(config=config)
    result = task.run(visit_images=images, geometry=GEOMETRY, sky_corrections=corrections)
    before = PrepareExposuresTask().run(visit_images=images, geometry=GEOMETRY)
    taken = {
        new.identity.instrument: float(np.median((old.image - new.image)[new.image != 0]))
        for new, old in zip(result.source.cutouts, before.source.cutouts, strict=True)
    }
    assert taken == pytest.approx(levels)


def test_reasons_of_two_instruments_do_not_hide_each_other() -> None:
    """If it fails, an exposure is left out and nobody learns of it."""
    good = [observe(i, v, d, f) for i, v, d, f in EXPOSURES]
    bad = [observe(i, 9, 0, "r_filter", band="r") for i in ("HSC", "LSSTComCam")]
    config = make_config()
    config.selection.exclude_detectors = [7]
    excluded = [observe(i, 9, 7, "i") for i in ("HSC", "LSSTComCam")]
    metrics = (
        RestoreCoaddTask(config=config)
        .run(visit_images=[*good, *bad, *excluded], geometry=GEOMETRY, band="i")
        .restored_coadd_metrics
    )
    assert set(metrics["dropped"]) == {f"{i} visit 9, detector 0" for i in ("HSC", "LSSTComCam")}
    assert set(metrics["not_selected"]) == {f"{i} visit 9, detector 7" for i in ("HSC", "LSSTComCam")}
    assert metrics["patch"]["num_dropped"] == metrics["patch"]["num_not_selected"] == 2


@pytest.mark.parametrize("archive", [fits, json])
def test_instrument_and_filter_of_each_input_are_stored(
    outputs: Struct, archive: Any, tmp_path: Path
) -> None:
    """If it fails, a patch with HSC-I and HSC-I2 is restored for nothing."""
    path = tmp_path / f"coadd.{archive.__name__.rpartition('.')[2]}"
    for coadd in (outputs.restored_coadd, outputs.restored_coadd_linear):
        archive.write(coadd, str(path))
        content = read_archive(ResourcePath(str(path)))
        back = getattr(content, "deserialized", content)
        assert inputs_of(back) == inputs_of(coadd) == sorted(EXPOSURES)
        assert weights_of(back) == weights_of(coadd)
        path.unlink()


@pytest.mark.parametrize(
    ("visit", "detector", "words"),
    [(-1, 0, "visit is -1"), (2**64, 0, "visit is 1844"), (1, 65536, "detector")],
)
def test_numbers_that_no_coadd_can_hold_cost_their_exposure(visit: int, detector: int, words: str) -> None:
    """If it fails, the patch is lost after it has been restored."""
    result = PrepareExposuresTask().run(
        visit_images=[observe("HSC", visit, detector, "HSC-I"), observe("HSC", 1, 0, "HSC-I")],
        geometry=GEOMETRY,
    )
    assert [cutout.identity.detector_key for cutout in result.source.cutouts] == [("HSC", 1, 0)]
    ((name, reason),) = result.dropped.items()
    assert name == f"HSC visit {visit}, detector {detector}"
    assert reason.startswith("bad_identity: ")
    assert words in reason


@pytest.fixture
def unmended(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of `lsst.images` that stores the names, to be changed."""
    model: Any = CoaddProvenanceSerializationModel
    for name in ("_fix_str_for_serialization", "_fix_str_for_deserialization"):
        # Put back in the end, whatever the test does.
        monkeypatch.setattr(model, name, staticmethod(getattr(model, name)))
    return model


def test_mend_goes_away_when_upstream_is_right(unmended: Any) -> None:
    """If it fails, a mended `lsst.images` is overridden for ever, or a new
    layout of it breaks every import.
    """

    def write(column: str, *tables: Table) -> str | dict[str, int]:
        codes = {name: code for code, name in enumerate(sorted(set(tables[0][column])))}
        for table in tables:
            table.replace_column(column, Column([codes[name] for name in table[column]], column))
        return codes

    def read(column: str, value: str | dict[str, int], *tables: Table) -> None:
        assert isinstance(value, dict)
        names = {code: name for name, code in value.items()}
        for table in tables:
            table.replace_column(column, Column([names[code] for code in table[column]], column, object))

    unmended._fix_str_for_serialization = staticmethod(write)
    unmended._fix_str_for_deserialization = staticmethod(read)
    assert not mend_provenance_columns()
    assert unmended._fix_str_for_serialization is write

    def refuse(column: str, *tables: Table) -> str | dict[str, int]:
        for table in tables:
            table.columns[column] = table[column]
        return {}

    unmended._fix_str_for_serialization = staticmethod(refuse)
    assert mend_provenance_columns()
    assert not mend_provenance_columns()


def test_part_of_a_coadd_has_each_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a cut-out of four cells claims four times its exposures."""
    inputs = CoaddProvenance.make_empty_input_table(len(EXPOSURES))
    contributions = CoaddProvenance.make_empty_contribution_table(3 * len(EXPOSURES))
    for k, name in enumerate(("instrument", "visit", "detector", "physical_filter")):
        values = [exposure[k] for exposure in EXPOSURES]
        inputs[name][:] = values
        if name in contributions.colnames:
            contributions[name][:] = [value for value in values for _ in range(3)]
    contributions["cell_j"][:] = [0, 1, 2] * len(EXPOSURES)
    cells = [CellIJ(0, 1), CellIJ(0, 2)]
    whole = CoaddProvenance(inputs, contributions)
    part = whole.subset(cells)
    assert part is not None
    rows = part.inputs["instrument", "visit", "detector", "physical_filter"]
    assert sorted(map(tuple, rows)) == sorted(EXPOSURES)
    assert len(part.contributions) == 2 * len(EXPOSURES)
    assert whole.subset([CellIJ(5, 5)]) is None
    # Once is enough, and a mended release is left alone.
    assert not mend_provenance_parts()

    def once(self: CoaddProvenance, cells: Any) -> CoaddProvenance:
        return CoaddProvenance(self.inputs, self.contributions)

    monkeypatch.setattr(CoaddProvenance, "subset", once)
    assert not mend_provenance_parts()
    assert CoaddProvenance.subset is once


def test_two_instruments_in_one_repository(tmp_path: Path) -> None:
    """If it fails, a repository of two instruments mixes up their visits."""
    root = str(tmp_path / "repo")
    butler = create_repository(root)
    register_sky_map(butler, SKY_MAP, "skymaps")
    for exposure in EXPOSURES[:2] + EXPOSURES[3:]:
        put_visit_image(butler, observe(*exposure), "visits")
    # One of each instrument that is left out.
    for instrument in ("HSC", "LSSTComCam"):
        ref = put_visit_image(butler, observe(instrument, 3, 0, "i"), "visits")
        Path(butler.getURI(ref).ospath).write_bytes(b"nothing")
    chain_collections(butler, "defaults", ["visits", "skymaps"])
    quick = ["restoration.fit.max_epochs=2", "restoration.noise.num_draws=2"]
    changes = ["target_fwhm=0.6", "do_plot=False", *quick]
    command = [
        *(str(Path(sys.executable).with_name("pipetask")), "run", "-b", root, "-i", "defaults", "-o", "out"),
        *("-p", "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml#restore"),
        *("-d", "skymap='test_map' AND tract=3 AND patch=0", "--register-dataset-types"),
        *(word for change in changes for word in ("-c", f"restoreCoadd:{change}")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert "Executed 1 quanta successfully" in done.stdout + done.stderr
    found = Butler.from_config(root, collections=["out"])
    data_id = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}
    coadd = found.get("restored_coadd_linear", data_id)
    assert inputs_of(coadd) == sorted(EXPOSURES[:2] + EXPOSURES[3:])
    provenance = found.get("restored_coadd.provenance", data_id)
    assert sorted(map(str, provenance.inputs["physical_filter"])) == ["HSC-I", "HSC-I2", "i_06", "i_06"]
    np.testing.assert_allclose(star_ratios(coadd), 1.0, atol=0.02)
    metrics = found.get("restored_coadd_metrics", data_id)
    assert set(metrics["dropped"]) == {f"{i} visit 3, detector 0" for i in ("HSC", "LSSTComCam")}
    for name in metrics["dropped"]:
        assert f"Dropped {name} (unreadable)" in done.stdout + done.stderr
