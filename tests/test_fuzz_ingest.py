# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Files of visit images that were damaged, or made to do harm."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import galsim
import numpy as np
import piff
import pytest
from astropy.io import fits

from lsst.astroclearnet.adapters import UnusableExposureError, read_visit_psf
from lsst.astroclearnet.commands import CommandError, ingest_files
from lsst.astroclearnet.repository import create_repository, ingest_visit_image, read_visit_image
from lsst.astroclearnet.tasks import PrepareExposuresTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, DatasetRef, FileDataset
from lsst.images import Box, VisitImage
from lsst.images.psfs import PiffWrapper
from lsst.images.serialization import ArchiveTree, write_archive

SHAPE = (24, 30)
NUMBERS = (-1, 0, 3, 10**6, 10**12, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"), True, None)

pytestmark = pytest.mark.filterwarnings("ignore")


def make_piff_psf() -> PiffWrapper:
    """Return a Piff model of the kind that Rubin uses: a grid of pixels, of
    whose interpolant the file holds the name.
    """
    y, x = np.mgrid[-4:5, -4:5]
    stamp = np.exp(-(x**2 + y**2) / 4.0)
    psf = piff.SimplePSF(piff.PixelGrid(0.2, 9, interp=galsim.Lanczos(3)), piff.Mean())
    psf.interp.mean = (stamp / stamp.sum()).ravel()
    psf.set_context({0: galsim.PixelScale(0.2)}, None)
    psf.chisq, psf.last_delta_chisq, psf.dof, psf.nremoved, psf.niter, psf.stars = 1.0, 1.0, 1, 0, 1, []
    return PiffWrapper(psf, bounds=Box.from_shape(SHAPE), stamp_size=11)


def make_image() -> VisitImage:
    """Return a visit image with a Piff model."""
    pixels = np.random.default_rng(1).normal(size=SHAPE)
    return make_visit_image(pixels, make_projection(SHAPE), psf=make_piff_psf())


def write_tree(path: Path, change: Callable[[Any], None]) -> None:
    """Write a visit image, of which the description has been changed."""
    dump = ArchiveTree.model_dump_json

    def dump_changed(self: ArchiveTree, **options: Any) -> str:
        tree = json.loads(dump(self, **options))
        if self.SCHEMA_NAME == "visit_image":
            change(tree)
        return json.dumps(tree)

    path.unlink(missing_ok=True)
    with mock.patch.object(ArchiveTree, "model_dump_json", dump_changed):
        write_archive(make_image(), str(path))


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the strings and numbers of a tree are, without pixels."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    """Change a leaf, or a branch, of a tree."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@dataclass
class Kitchen:
    """Where damaged files are ingested, and what must not happen there."""

    folder: Path
    template: Path

    @property
    def canary(self) -> Path:
        """File that code in a visit image makes."""
        return self.folder / "canary"

    def hostile(self) -> list[str]:
        """Return strings that do harm where they are run or used as names."""
        run = f"__import__('pathlib').Path({str(self.canary)!r}).touch()"
        return [
            run,
            f"galsim.Lanczos(3 if {run} else 3)",
            f"[x for x in [{run}]] and galsim.Lanczos(3)",
            f"(lambda: {run})()",
            f"f'{{{run}}}'",
            "../../../../canary",
            str(self.folder / "canary"),
            "..",
            "a/../../b",
            "~",
            "a\nb",
            "a\0b",
            "\N{GREEK SMALL LETTER ALPHA}" * 40,
            "x" * 5000,
            "'; DROP TABLE visit; --",
            "%s{0}$HOME",
            "",
            "-rf",
        ]

    def ingest(self, path: Path, *, new: bool = False) -> str:
        """Ingest a file, and check that all is well; return what happened."""
        repo = self.folder / "outer" / "repo"
        shutil.rmtree(self.folder / "outer", ignore_errors=True)
        repo.parent.mkdir()
        if not new:
            shutil.copytree(self.template, repo)
        before = self._outside(repo)
        error = None
        try:
            summary = ingest_files(repo, [str(path)], skymap="m", cell_size=25)
        except CommandError as exc:
            error = str(exc)
        if error is not None:
            assert str(path) in error
            assert repo.exists() is not new
        else:
            assert summary.num_visit_images == 1
            butler = Butler.from_config(str(repo), collections=summary.defaults)
            (ref,) = butler.query_datasets("visit_image")
            assert Path(butler.getURI(ref).ospath).is_relative_to(repo)
            assert butler.get(ref).bbox.area > 0
            butler.close()
        assert not self.canary.exists()
        assert self._outside(repo) == before
        return "ingested" if error is None else "refused"

    def _outside(self, repo: Path) -> set[Path]:
        """Return all files that are not in the repository."""
        return {path for path in self.folder.parent.rglob("*") if repo not in (path, *path.parents)}


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """Folders, and an empty repository to copy."""
    folder = tmp_path_factory.mktemp("kitchen")
    template = folder / "template"
    create_repository(str(template)).close()
    (folder / "work").mkdir()
    return Kitchen(folder / "work", template)


@pytest.fixture(scope="module")
def tree(kitchen: Kitchen) -> dict[str, Any]:
    """The description of the image in its file."""
    found: list[dict[str, Any]] = []
    write_tree(kitchen.folder / "good.fits", lambda tree: found.append(json.loads(json.dumps(tree))))
    return found[0]


def change_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip some bytes, or cut or lengthen a file."""
    content = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        for place in rng.integers(len(content), size=rng.integers(1, 30)):
            content[place] = rng.integers(256)
    elif kind == 1:
        start = int(rng.integers(len(content)))
        content[start : start + int(rng.integers(1, 3000))] = b""
    elif kind == 2:
        start = int(rng.integers(len(content)))
        content[start:start] = rng.bytes(int(rng.integers(1, 3000)))
    else:
        # A header more likely than pixels.
        cards = [i for i in range(0, len(content), 80) if content[i + 8 : i + 10] == b"= "]
        place = int(rng.choice(cards))
        value = str(rng.choice([str(number) for number in NUMBERS] + ["'../../x'", "T", "'(1,1)PB'"]))
        content[place + 10 : place + 80] = value[:70].rjust(20).ljust(70).encode()
    return bytes(content)


def change_headers(data: bytes, rng: np.random.Generator) -> bytes:
    """Change, remove or add cards of headers that stay whole."""
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        header = hdus[int(rng.integers(len(hdus)))].header
        keys = [key for key in header if key]
        key = str(rng.choice(keys))
        value = rng.choice(["../../x", "a" * 60, "", *map(str, range(-2, 3))])
        with warnings.catch_warnings(action="ignore"):
            if rng.random() < 0.3:
                header.remove(key)
            elif key not in ("COMMENT", "HISTORY"):
                header[key] = int(value) if str(value).lstrip("-").isdecimal() else str(value)
            written = io.BytesIO()
            hdus.writeto(written, output_verify="ignore", checksum=bool(rng.integers(2)))
    return written.getvalue()


def change_tree(tree: Any, rng: np.random.Generator, hostile: list[str]) -> None:
    """Change, remove or repeat a leaf or a branch."""
    places = list(leaves(tree))
    place = places[int(rng.integers(len(places)))]
    place = place[: int(rng.integers(1, len(place) + 1))]
    values: list[Any] = [*NUMBERS, *hostile, [], {}, [[1]], {"a": {}}]
    put(tree, place, values[int(rng.integers(len(values)))])


def fuzz(kitchen: Kitchen, seed: int) -> str:
    """Ingest one damaged file."""
    rng = np.random.default_rng(seed)
    path = kitchen.folder / "bad.fits"
    data = (kitchen.folder / "good.fits").read_bytes()
    kind = seed % 3
    if kind == 0:
        path.write_bytes(change_bytes(data, rng))
    elif kind == 1:
        try:
            path.write_bytes(change_headers(data, rng))
        except (OSError, TypeError, ValueError, KeyError, IndexError):
            # What astropy cannot write is no test.
            path.write_bytes(data)
    else:
        write_tree(path, lambda tree: change_tree(tree, rng, kitchen.hostile()))
    return kitchen.ingest(path, new=seed % 20 == 0)


MODEL = ("psf", "piff", "objects", "piff", "structs")
"""Where the dictionaries of the Piff model are in the description."""


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("struct", "key"),
    [("model", "interp"), ("model", "gsobj"), ("model", "type"), ("interp", "kernel"), ("chisq", "chisq")],
)
def test_code_in_a_psf_is_not_run(kitchen: Kitchen, struct: str, key: str) -> None:
    """If it fails, the file of a stranger runs what it likes."""
    path = kitchen.folder / "bad.fits"
    for text in kitchen.hostile()[:5]:
        write_tree(path, partial(put, path=(*MODEL, struct, key), value=text))
        with pytest.raises(OSError, match=rf"bad\.fits.*piff/{struct} of its Piff model"):
            read_visit_image(path)
        assert not kitchen.canary.exists()
    assert kitchen.ingest(path, new=True) == "refused"


@pytest.mark.usefixtures("tree")
def test_code_in_a_stored_psf_costs_the_exposure(kitchen: Kitchen) -> None:
    """If it fails, a repository of a stranger runs what it likes, or one
    exposure fails the patch.
    """
    root = kitchen.folder / "stored"
    shutil.copytree(kitchen.template, root)
    butler = Butler.from_config(str(root), writeable=True)
    ref = ingest_visit_image(butler, kitchen.folder / "good.fits", "visits").ref
    path = kitchen.folder / "bad.fits"
    write_tree(path, lambda tree: put(tree, (*MODEL, "model", "interp"), kitchen.hostile()[0]))
    other = DatasetRef(ref.datasetType, ref.dataId, run="others")
    butler.ingest(FileDataset(str(path), other), transfer="copy")
    handle = butler.getDeferred(other)
    with pytest.raises(UnusableExposureError, match="which Piff might run as code") as caught:
        read_visit_psf(handle)
    assert caught.value.reason == "no_psf"
    geometry = make_patch_geometry(cells=(1, 1), cell_shape=(12, 12)).patch(3, 0)
    result = PrepareExposuresTask().run(visit_images=[handle], geometry=geometry)
    assert not result.source.cutouts
    (reason,) = result.dropped.values()
    assert reason.startswith("no_psf: ")
    assert "which Piff might run as code" in reason
    assert not kitchen.canary.exists()


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("value", [None, {}, [], "Piff", 3])
def test_file_without_a_psf_says_so(kitchen: Kitchen, value: Any) -> None:
    """If it fails, the error is one of the library."""
    path = kitchen.folder / "bad.fits"
    write_tree(path, lambda tree: put(tree, ("psf",), value))
    with pytest.raises(OSError, match=r"bad\.fits .*: its PSF is missing or of no known kind"):
        read_visit_image(path)


@pytest.mark.usefixtures("tree")
def test_some_damaged_files(kitchen: Kitchen) -> None:
    """If it fails, a damaged file ends a command in a traceback, or leaves a
    repository that a corrected command finds in its way.
    """
    outcomes = Counter(fuzz(kitchen, seed) for seed in range(30))
    assert min(outcomes["refused"], outcomes["ingested"]) > 5


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("tree")
def test_many_damaged_files(kitchen: Kitchen) -> None:
    """The same, longer."""
    outcomes = Counter(fuzz(kitchen, seed) for seed in range(1000, 1200))
    assert min(outcomes["refused"], outcomes["ingested"]) > 20
