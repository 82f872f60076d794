# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Files that end too early, or hold something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsst.astroclearnet.commands import CommandError, ingest_files
from lsst.astroclearnet.repository import create_repository, put_visit_image, read_visit_image
from lsst.astroclearnet.tasks import PrepareExposuresTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import VisitImage
from lsst.images.serialization import write_archive

SHAPE = (60, 90)
GEOMETRY = make_patch_geometry(cells=(1, 1), cell_shape=(24, 20)).patch(3, 0)


def observe(visit: int) -> VisitImage:
    """Return a visit image of noise."""
    rng = np.random.default_rng(visit)
    projection = make_projection(SHAPE, visit=visit)
    return make_visit_image(rng.normal(size=SHAPE), projection, variance=rng.uniform(1.0, 2.0, SHAPE))


def shortened(data: bytes, share: float) -> bytes:
    """Return the beginning of a file."""
    return data[: int(share * len(data))]


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Butler:
    """A repository of two visits."""
    butler = create_repository(str(tmp_path_factory.mktemp("files") / "repo"))
    for visit in (1, 2):
        put_visit_image(butler, observe(visit), "visits")
    return butler


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_dropped(butler: Butler, share: float) -> None:
    """If it fails, the end of an image is missing in the coadd, or one file
    costs the patch.
    """
    refs = butler.query_datasets("visit_image", collections="visits", order_by=["visit"])
    path = Path(butler.getURI(refs[1]).ospath)
    data = path.read_bytes()
    try:
        path.write_bytes(shortened(data, share))
        handles = [butler.getDeferred(ref) for ref in refs]
        result = PrepareExposuresTask().run(visit_images=handles, geometry=GEOMETRY)
    finally:
        path.write_bytes(data)
    assert [exposure.identity.visit for exposure in result.source.cutouts] == [1]
    assert result.dropped["TestCam visit 2, detector 0"].startswith("unreadable: ")


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@pytest.mark.parametrize("content", [None, b"", b"SIMPLE  =  F", bytes(20000), b"<html>" * 999])
def test_file_of_something_else_is_dropped(butler: Butler, content: bytes | None) -> None:
    """If it fails, a lost file or a page of errors stops the patch."""
    refs = butler.query_datasets("visit_image", collections="visits", order_by=["visit"])
    path = Path(butler.getURI(refs[1]).ospath)
    data = path.read_bytes()
    try:
        path.unlink()
        if content is not None:
            # Of the right size: that it is another one is known at once.
            path.write_bytes((content * len(data))[: len(data)])
        handles = [butler.getDeferred(ref) for ref in refs]
        result = PrepareExposuresTask().run(visit_images=handles, geometry=GEOMETRY)
    finally:
        path.write_bytes(data)
    assert [exposure.identity.visit for exposure in result.source.cutouts] == [1]
    assert result.dropped["TestCam visit 2, detector 0"].startswith("unreadable: ")


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
def test_blocks_that_are_lost_are_noticed_or_do_not_matter(butler: Butler) -> None:
    """If it fails, zeros in place of pixels pass for data.

    A header in which END is lost is not noticed: FITS does not protect it.
    """
    (ref,) = butler.query_datasets("visit_image", collections="visits", where="visit=2", instrument="TestCam")
    path = Path(butler.getURI(ref).ospath)
    data = path.read_bytes()

    def prepare() -> list[np.ndarray]:
        task = PrepareExposuresTask()
        result = task.run(visit_images=[butler.getDeferred(ref)], geometry=GEOMETRY)
        names = "image", "variance", "y", "x", "psfs"
        exposures = [cutout.within(result.source.bbox) for cutout in result.source.cutouts]
        return [getattr(exposure, name) for exposure in exposures for name in names]

    whole = prepare()
    noticed = 0
    try:
        # Pages of a disk, from the first behind the headers of the image.
        for start in range(4096 * 3, len(data), 4096):
            path.write_bytes(data[:start] + bytes(len(data[start : start + 4096])) + data[start + 4096 :])
            found = prepare()
            noticed += not found
            for one, other in zip(found, whole, strict=False):
                np.testing.assert_array_equal(one, other)
    finally:
        path.write_bytes(data)
    assert noticed > 3


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_file_is_not_ingested(tmp_path: Path, share: float) -> None:
    """If it fails, the user is told about an object b'' instead of a file,
    or finds half of the files ingested.
    """
    files = [tmp_path / f"{visit}.fits" for visit in (1, 2)]
    for visit, path in enumerate(files, 1):
        write_archive(observe(visit), str(path))
    files[1].write_bytes(shortened(files[1].read_bytes(), share))
    with pytest.raises(OSError, match=r"2\.fits cannot be read as a visit image"):
        [read_visit_image(path) for path in files]
    repo = tmp_path / "repo"
    with pytest.raises((OSError, CommandError), match=r"2\.fits cannot be read"):
        ingest_files(repo, [str(path) for path in files], skymap="around")
    assert not repo.exists()
