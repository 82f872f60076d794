# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which artefacts are rejected, and what only looks like one."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation

from lsst.astroclearnet.core import ExposureStack, RejectionOptions
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.outliers import reject_outliers

from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from .scenes import (
    CHANGES,
    GROUNDS,
    RejectionScene,
    add_change,
    add_cosmic_rays,
    add_trail,
    make_scene,
)

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_LOG = logging.getLogger(__name__)

_TARGET = 3.2
_TRAIL_HEIGHT = 10.0
_NEAR = 3
"""Pixels around an artefact in which rejected pixels are not false."""

_INTRODUCTION = (
    "What is rejected of artefacts, by what lies below them, and of what only looks like one. Exposures of "
    f"{_TARGET:g} to 4.6 pixels FWHM (Kolmogorov, elliptical by a few percent, exact PSFs), sky of 10^4 "
    "electrons, variances estimated from the noisy pixels; stars reach 10 to 1000 sigma of the sky."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    start_logging()
    parser = make_parser("rejection", __doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of scenes of each kind")
    parser.add_argument("--exposures", type=int, nargs="+", default=[8], help="numbers of exposures")
    parser.add_argument(
        "--heights", type=float, nargs="+", default=[10.0], help="light of cosmic rays, sigma"
    )
    parser.add_argument("--grounds", nargs="+", default=list(GROUNDS), choices=GROUNDS, metavar="GROUND")
    options = parser.parse_args(words)
    tables = [
        make(number, options)
        for number in options.exposures
        for make in (_measure_artefacts, _measure_changes)
    ]
    numbers, heights = (" ".join(f"{x:g}" for x in words) for words in (options.exposures, options.heights))
    command = f"{parser.prog} --seeds {options.seeds} --exposures {numbers} --heights {heights}"
    section = Section.measured("rejection", command, tables)
    page = make_page([section], title="Rejection of artefacts", introduction=_INTRODUCTION)
    options.output.write_text(page)
    return 0


def _find(scene: RejectionScene, added: Array, rng: np.random.Generator) -> Mask:
    """Return what is rejected, (n, H, W)."""
    images, variances = scene.observe(added, rng)
    stack = ExposureStack.from_arrays(images, variances, np.ones(images.shape, dtype=bool), scene.psfs)
    model = ForwardModel.from_stack(stack, _TARGET)
    with torch.no_grad():
        return np.asarray(reject_outliers(stack, model, RejectionOptions()).rejected.numpy())


@dataclasses.dataclass
class _Count:
    """Pixels of artefacts, those found, those rejected and those in vain."""

    hit: int = 0
    found: int = 0
    rejected: int = 0
    false: int = 0

    def add(self, hit: Mask, near: Mask, rejected: Mask) -> None:
        """Count one scene."""
        self.hit += int(hit.sum())
        self.found += int((hit & rejected).sum())
        self.rejected += int(rejected.sum())
        self.false += int((rejected & ~near).sum())

    @property
    def text(self) -> str:
        """Completeness and purity."""
        purity = 1.0 - self.false / self.rejected if self.rejected else float("nan")
        return f"{self.found / max(1, self.hit):.3f} / {purity:.3f}"


def _measure_artefacts(number: int, options: argparse.Namespace) -> Table:
    """Measure completeness and purity on all grounds."""
    rows = []
    for ground in options.grounds:
        row = {"below": ground}
        kinds: dict[str, tuple[float, Callable[[RejectionScene, float, np.random.Generator], Array]]] = {
            f"cosmic rays, {height:g} sigma": (height, add_cosmic_rays) for height in options.heights
        }
        kinds[f"trail, {_TRAIL_HEIGHT:g} sigma"] = (_TRAIL_HEIGHT, add_trail)
        for name, (height, add) in kinds.items():
            count = _Count()
            for seed in range(options.seeds):
                rng = np.random.default_rng([seed, GROUNDS.index(ground), number])
                scene = make_scene(ground, number, rng)
                added = add(scene, height, rng)
                hit = added > (0.5 * added.max() if add is add_trail else 0.0)
                light = added > 0.3
                near = binary_dilation(light, np.ones((1, 2 * _NEAR + 1, 2 * _NEAR + 1)))
                count.add(hit, near, _find(scene, added, rng))
            row[name] = count.text
        clean = []
        for seed in range(options.seeds):
            rng = np.random.default_rng([seed, GROUNDS.index(ground), number, 1])
            scene = make_scene(ground, number, rng)
            clean.append(float(_find(scene, np.zeros(scene.light.shape), rng).mean()))
        row["no artefacts, rejected by million"] = f"{1e6 * np.mean(clean):.0f}"
        rows.append(row)
        _LOG.info("%d exposures, %s", number, row)
    return Table(
        title=f"Artefacts in one of {number} exposures",
        legend=(
            "Completeness / purity. Completeness is the share of the pixels of a track (of a trail, of those "
            "above half of its crest) that are rejected; purity the share of rejected pixels that lie within "
            f"{_NEAR} pixels of an artefact, in the same exposure. Heights in sigma of the noise of the "
            "pixel, of a trail in sigma of the noise of the median pixel."
        ),
        rows=rows,
    )


def _measure_changes(number: int, options: argparse.Namespace) -> Table:
    """Measure how many stars lose pixels that are no artefacts."""
    rows = []
    for name, change in CHANGES.items():
        row = {"in one exposure": name}
        for ground in ("star peak", "globular core"):
            touched, others, stars = 0, 0, 0
            for seed in range(options.seeds):
                rng = np.random.default_rng([seed, GROUNDS.index(ground), number, 2])
                scene = make_scene(ground, number, rng)
                added = add_change(scene, change, rng)
                rejected = _find(scene, added, rng)
                changed = int(np.abs(added).sum(axis=(1, 2)).argmax())
                near = binary_dilation(rejected[changed], np.ones((7, 7)))
                inside = [
                    (y, x) for y, x, _ in scene.stars if 0 <= y < near.shape[0] and 0 <= x < near.shape[1]
                ]
                touched += sum(bool(near[int(y), int(x)]) for y, x in inside)
                stars += len(inside)
                others += int(np.delete(rejected, changed, axis=0).sum())
            row[f"{ground}: stars that lose pixels"] = f"{touched} of {stars}"
            row[f"{ground}: pixels lost elsewhere"] = f"{others}"
        rows.append(row)
        _LOG.info("%d exposures, %s", number, row)
    return Table(
        title=f"Changes of all stars in one of {number} exposures",
        legend="What differs in one exposure, and stars with a rejected pixel within 3 pixels.",
        rows=rows,
    )
