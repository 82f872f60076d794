# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Time on a GPU, predicted from counts of a stand-in for one."""

from __future__ import annotations

__all__ = ("CaseCounts", "StageModel", "count_case", "measure_prediction", "predict")

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from lsst.astroclearnet.core import FitOptions, RestoreOptions, TilingOptions, plan_memory, restore_exposures
from lsst.astroclearnet.core.forward import ForwardModel, LatentGrid
from lsst.astroclearnet.tests import STAND_IN_DEVICE, DeviceCounts, count_device_work

from ..record import Table
from ..scaling.run import TARGET
from ..scaling.source import SyntheticSource
from .cards import CARDS, LAUNCH_SECONDS, LINK_BANDWIDTH, WAIT_SECONDS, Card

_GIB = 2.0**30

_CASE = (144, (4, 10))
"""Side of the patch that is counted, and its two numbers of exposures."""

_QUICK_CASE = (96, (2, 3))

_GOAL = (4200, 33)

_STAGES = ("reading", "calibration", "network", "tile", "rest")

_TRANSFORMS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
"""Functions that go over images twice: along rows and along columns."""

_SHARE = 0.9
"""Share of the memory of a card that a tile may take."""

_HOST = 64.0
"""Memory of the host in GiB."""


@dataclasses.dataclass(frozen=True)
class CaseCounts:
    """Counts of a patch that was restored on the stand-in.

    Attributes
    ----------
    num_exposures
        Number of its exposures.
    latent_pixels
        Pixels of its latent image.
    margin
        Pixels by which that extends beyond the patch.
    stages
        Counts by stage.
    """

    num_exposures: int
    latent_pixels: int
    margin: int
    stages: Mapping[str, DeviceCounts]

    def numbers(self, stage: str) -> dict[str, float]:
        """Return launches, waits, and bytes of a stage.

        Parameters
        ----------
        stage
            Its name.
        """
        counts = self.stages.get(stage, DeviceCounts())
        twice = sum(counts.moved[name] for name in _TRANSFORMS)
        return {
            "launches": counts.launches.total(),
            "waits": counts.waits.total(),
            "moved": counts.moved.total() + twice,
            "uploaded": counts.to_device.total(),
            "downloaded": counts.to_host.total(),
        }


@dataclasses.dataclass(frozen=True)
class StageModel:
    """A number that grows with the exposures: ``first + each * n``.

    Attributes
    ----------
    first
        What does not.
    each
        What an exposure adds.
    """

    first: float
    each: float

    @classmethod
    def through(cls, few: tuple[int, float], many: tuple[int, float]) -> StageModel:
        """Return the straight line through two numbers of exposures.

        Parameters
        ----------
        few, many
            Number of exposures, and the value.
        """
        each = (many[1] - few[1]) / (many[0] - few[0])
        return cls(few[1] - each * few[0], each)

    def at(self, num_exposures: int) -> float:
        """Return the value for a number of exposures.

        Parameters
        ----------
        num_exposures
            The number.
        """
        return self.first + self.each * num_exposures


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a patch takes on a card.

    Attributes
    ----------
    num_tiles
        Number of tiles.
    launches, waits, moved, uploaded, downloaded
        Numbers and bytes of the whole patch.
    launching, waiting, moving, transferring
        Seconds of each.
    """

    num_tiles: int
    launches: float
    waits: float
    moved: float
    uploaded: float
    downloaded: float
    launching: float
    waiting: float
    moving: float
    transferring: float

    @property
    def least(self) -> float:
        """Seconds if the host launches while the card works (`float`)."""
        return max(self.launching, self.moving) + self.waiting + self.transferring

    @property
    def most(self) -> float:
        """Seconds if one waits for the other (`float`)."""
        return self.launching + self.moving + self.waiting + self.transferring


def count_case(size: int, num_exposures: int) -> CaseCounts:
    """Restore a patch on the stand-in, and count.

    Parameters
    ----------
    size
        Its side in pixels.
    num_exposures
        Number of exposures.
    """
    source = SyntheticSource((size, size), num_exposures)
    whole = slice(0, size)
    grid = ForwardModel.from_stack(source.read(whole, whole).stack, TARGET).grid
    with count_device_work() as mode:
        restore_exposures(
            source, target_fwhm=TARGET, options=RestoreOptions(), device=STAND_IN_DEVICE, seed=1
        )
    height, width = grid.latent_shape
    return CaseCounts(num_exposures, height * width, grid.margin, dict(mode.stages))


def predict(few: CaseCounts, many: CaseCounts, size: int, num_exposures: int, card: Card) -> Prediction:
    """Predict what a patch takes on a card.

    Launches and waits of a tile do not depend on its size, bytes go with the
    pixels of its latent image, and all grow linearly with the exposures.
    Choosing the network is done for one box, whatever the patch.

    Parameters
    ----------
    few, many
        Counts of a small patch with two numbers of exposures.
    size
        Side of the patch in pixels.
    num_exposures
        Number of its exposures.
    card
        The card.
    """
    tiling = TilingOptions(
        max_host_memory=_HOST, max_device_memory=_SHARE * card.memory / _GIB, max_tile_size=size
    )
    options = RestoreOptions(tiling=tiling)
    tiles = plan_memory(SyntheticSource((size, size), num_exposures), options, device="cuda").grid.tiles
    shapes = [LatentGrid(tile.shape, few.margin).latent_shape for tile in tiles]
    growth = sum(height * width for height, width in shapes) / few.latent_pixels
    # The box is cut from the small patch, too.
    side = min(FitOptions.sample_size, size)
    box = LatentGrid((side, side), few.margin).latent_shape
    box_growth = max(1.0, box[0] * box[1] / few.latent_pixels)
    total = dict.fromkeys(("launches", "waits", "moved", "uploaded", "downloaded"), 0.0)
    for stage in _STAGES:
        low, high = few.numbers(stage), many.numbers(stage)
        once = stage == "network"
        for name in total:
            line = StageModel.through((few.num_exposures, low[name]), (many.num_exposures, high[name]))
            if name in ("launches", "waits"):
                factor = 1.0 if once else len(tiles)
            else:
                factor = box_growth if once else growth
            total[name] += factor * line.at(num_exposures)
    return Prediction(
        num_tiles=len(tiles),
        **total,
        launching=total["launches"] * LAUNCH_SECONDS,
        waiting=total["waits"] * WAIT_SECONDS,
        moving=total["moved"] / card.bandwidth,
        transferring=(total["uploaded"] + total["downloaded"]) / LINK_BANDWIDTH,
    )


def measure_prediction(*, device: str, seconds: float, quick: bool) -> list[Table]:
    """Count on the stand-in, whatever the device, and predict for cards."""
    torch.set_num_threads(1)
    size, numbers = _QUICK_CASE if quick else _CASE
    few, many = (count_case(size, number) for number in numbers)
    return [_count_table(size, (few, many)), _function_table(size, many), _prediction_table(size, few, many)]


def _count_table(size: int, cases: Sequence[CaseCounts]) -> Table:
    rows = []
    for case in cases:
        stages = {stage: case.numbers(stage) for stage in _STAGES if stage in case.stages}
        stages["all"] = {name: sum(s[name] for s in stages.values()) for name in stages["tile"]}
        rows += [
            {
                "exposures": str(case.num_exposures),
                "stage": stage,
                "launches": f"{numbers['launches']:,.0f}",
                "waits": f"{numbers['waits']:,.0f}",
                "moved (GB)": f"{numbers['moved'] / 1e9:.2f}",
                "bytes a pixel of the latent image": f"{numbers['moved'] / case.latent_pixels:,.0f}",
                "to the card (MB)": f"{numbers['uploaded'] / 1e6:.2f}",
                "to the host (MB)": f"{numbers['downloaded'] / 1e6:.2f}",
            }
            for stage, numbers in stages.items()
        ]
    legend = (
        f"Counted, not predicted: a patch of {size}x{size} pixels on its own pixels with varying PSFs, "
        "restored as one tile with default options on a stand-in for a GPU, which computes on the CPU and "
        "gives its images to the bit. A launch is a call of a function of PyTorch, or of a kernel for the "
        "interpolation; its bytes are those of its arguments and results, twice for transforms. The host "
        "waits where it needs a value, a number of pixels, or an array."
    )
    return Table("Counts on a stand-in", legend, rows)


def _function_table(size: int, case: CaseCounts) -> Table:
    total = DeviceCounts.total(case.stages.values())
    names = [name for name, _ in total.moved.most_common(12)]
    rows = [
        {
            "function": f"`{name.strip('_')}`",
            "launches": f"{total.launches[name]:,}",
            "bytes (%)": f"{100.0 * total.moved[name] / total.moved.total():.1f}",
            "bytes a launch": f"{total.moved[name] / total.launches[name]:,.0f}",
        }
        for name in names
    ]
    legend = (
        f"Counted: the functions that move most bytes, of {size}x{size} pixels and "
        f"{case.num_exposures} exposures."
    )
    return Table("Functions", legend, rows)


def _prediction_table(size: int, few: CaseCounts, many: CaseCounts) -> Table:
    side, number = _GOAL
    rows = []
    for name, card in CARDS.items():
        found = predict(few, many, side, number, card)
        rows.append(
            {
                "card": name,
                "its memory (GB)": f"{card.memory / 1e9:.0f}",
                "its bandwidth (TB/s)": f"{card.bandwidth / 1e12:.3g}",
                "tiles": str(found.num_tiles),
                "predicted launches": f"{found.launches:,.0f}",
                "predicted waits": f"{found.waits:,.0f}",
                "predicted bytes (TB)": f"{found.moved / 1e12:.1f}",
                "predicted bytes to the card (GB)": f"{found.uploaded / 1e9:.1f}",
                "predicted bytes to the host (GB)": f"{found.downloaded / 1e9:.1f}",
                "predicted launching (s)": f"{found.launching:.1f}",
                "predicted waiting (s)": f"{found.waiting:.2f}",
                "predicted moving (s)": f"{found.moving:.1f}",
                "predicted transfers (s)": f"{found.transferring:.1f}",
                "predicted time (s)": f"{found.least:.0f} to {found.most:.0f}",
                "predicted busy (%)": f"{100 * found.moving / found.most:.0f} to "
                f"{100 * found.moving / found.least:.0f}",
                "source": card.source,
            }
        )
    legend = (
        f"**Nothing here was measured on a card.** A patch of {side}x{side} pixels and {number} exposures on "
        f"their own pixels, predicted from the counts of {size}x{size} pixels with {few.num_exposures} and "
        f"{many.num_exposures} exposures: launches and waits of a tile do not depend on its size, bytes go "
        "with the pixels of its latent image, all grow linearly with the exposures, and the network is "
        f"chosen once. Tiles are planned for {100 * _SHARE:.0f} % of the card. A launch takes "
        f"{1e6 * LAUNCH_SECONDS:.0f} and a wait {1e6 * WAIT_SECONDS:.0f} microseconds, the link carries "
        f"{LINK_BANDWIDTH / 1e9:.0f} GB/s (sources in `gpu/cards.py`), and kernels reach the bandwidth of "
        "the data sheet, which real ones do to 60 to 90 %, while caches serve some. The lower time is that "
        "of a host that launches while the card works, the higher one of both in turn. Not in it: reading "
        "the exposures; what the host computes; arithmetic; and, where there are several tiles, that the "
        "calibration reads them several times."
    )
    return Table(f"Predicted: {side}x{side} pixels with {number} exposures", legend, rows)
