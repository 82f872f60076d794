# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Time and error beside those of another version of this package."""

from __future__ import annotations

__all__ = ("Case", "make_cases", "measure_reference", "rms_error")

import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import numpy as np

from lsst.astroclearnet.core import ExposureStack, PixelPositions

from ..record import Table
from ..scaling.consistency import render
from ..scaling.run import TARGET
from ..scaling.source import SyntheticSource
from ..scenes import SceneOptions, simulate_scene

_LOG = logging.getLogger(__name__)

_BORDER = 16
_EXPOSURES = ("images", "variances", "good", "psfs")

_SCRIPT = """
import json, os, sys, time
import numpy as np
import torch
torch.set_num_threads(1)
from lsst.astroclearnet.core import FitOptions, PixelPositions, RestoreOptions, restore
path, options = sys.argv[1], json.loads(sys.argv[2])
fit = RestoreOptions(fit=FitOptions(**options))
data = np.load(path)
def run(part):
    images, variances, good, psfs = (data[name][part] for name in ("images", "variances", "good", "psfs"))
    positions = None
    if "y" in data:
        size = tuple(int(n) for n in data["shape"])
        y, x, area = (data[name][part] for name in ("y", "x", "area"))
        positions = PixelPositions.from_arrays(size, y=y, x=x, area=area)
    start = time.process_time()
    result = restore(images, variances, good, psfs, positions=positions,
                     target_fwhm=float(data["target"]), device="cpu", seed=1, options=fit)
    return result, time.process_time() - start
# What is loaded and compiled for a first patch is not counted.
run(slice(0, 3))
result, seconds = run(slice(None))
np.savez(sys.argv[3], image=result.image, linear_image=result.linear_image, seconds=seconds)
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """Exposures of a known sky.

    Attributes
    ----------
    name
        Words for the table.
    arrays
        Arguments of `lsst.astroclearnet.core.restore`, ``target``, and rows,
        columns and areas of the pixels if they are not those of the patch.
    truth
        Shape (H, W), the sky at the target PSF.
    sky_sigma
        Sky noise of the coadd.
    """

    name: str
    arrays: dict[str, np.ndarray]
    truth: np.ndarray
    sky_sigma: float

    @property
    def stack(self) -> ExposureStack:
        """The exposures (`lsst.astroclearnet.core.ExposureStack`)."""
        arrays, positions = self.arrays, None
        if "y" in arrays:
            height, width = arrays["shape"].tolist()
            positions = PixelPositions.from_arrays(
                (height, width), y=arrays["y"], x=arrays["x"], area=arrays["area"]
            )
        return ExposureStack.from_arrays(*(arrays[name] for name in _EXPOSURES), positions=positions)


def make_cases(*, quick: bool) -> list[Case]:
    """Return the same number of exposures on one grid and on their own."""
    size, number = (96, 4) if quick else (256, 12)
    scene = simulate_scene(SceneOptions(seed=31, kind="field", shape=(size, size), num_exposures=number))
    grid = {name: np.asarray(getattr(scene, name)) for name in _EXPOSURES}
    source = SyntheticSource((size, size), number)
    whole = slice(0, size)
    stack = source.read(whole, whole).stack
    own = {name: getattr(stack, name).numpy() for name in _EXPOSURES}
    positions = cast(PixelPositions, stack.positions)
    own |= {name: getattr(positions, name).numpy() for name in ("y", "x", "area")}
    own["shape"] = np.array(positions.shape)
    return [
        Case("co-registered, field", _with_target(grid), scene.truth(TARGET), scene.sky_sigma),
        Case(
            "own pixels, stars, varying PSF",
            _with_target(own),
            render(source, whole, whole),
            number**-0.5,
        ),
    ]


def _with_target(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**arrays, "target": np.array(TARGET)}


def rms_error(image: np.ndarray, case: Case) -> float:
    """Return the rms error of an image in sky sigma of the coadd.

    Parameters
    ----------
    image
        Shape (H, W).
    case
        What it was made from.
    """
    inside = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return float(np.sqrt(np.nanmean(((image - case.truth)[inside] / case.sky_sigma) ** 2)))


def measure_reference(checkout: Path | None, *, quick: bool) -> Table:
    """Restore the same exposures with this version and another one.

    Parameters
    ----------
    checkout
        A checkout of the other version; without it there is only this one.
    quick
        Whether tiny cases will do.
    """
    here = Path(sys.modules["lsst.astroclearnet"].__path__[0]).parents[1]
    ways: list[tuple[str, Path, dict[str, int]]] = [("this version", here, {})]
    if checkout is not None:
        ways.append(("reference", checkout / "python", {}))
        ways.append(("reference without its fit", checkout / "python", {"max_epochs": 1}))
    rows = []
    for case in make_cases(quick=quick):
        ours = float("nan")
        for name, code, options in ways:
            seconds, restored, linear = _run(case, code, options)
            ours = seconds if name == "this version" else ours
            rows.append(
                {
                    "exposures": case.name,
                    "version": name,
                    "time (s)": f"{seconds:.1f}",
                    "over this version": f"{seconds / ours:.1f}",
                    "error, restored (sky sigma)": f"{restored:.3f}",
                    "error, linear (sky sigma)": f"{linear:.3f}",
                }
            )
            _LOG.info("%s", rows[-1])
    legend = (
        "Whole restorations from arrays to the result with default options, each in a process of its own "
        "that has restored three of the exposures before. The reference fits its network to the patch; "
        "without its fit it makes one epoch. The error is the rms against the sky at the target PSF, "
        f"{_BORDER} pixels and more from the border."
    )
    return Table("Beside the reference", legend, rows)


def _run(case: Case, code: Path, options: dict[str, int]) -> tuple[float, float, float]:
    """Return seconds, and errors of the restored and the linear image."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder) / "data.npz", Path(folder) / "result.npz"
        np.savez(data, allow_pickle=False, **case.arrays)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(code)}
        subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(data), json.dumps(options), str(result)],
            env=environment,
            check=True,
        )
        found = np.load(result)
        restored, linear = (rms_error(found[name], case) for name in ("image", "linear_image"))
        return float(found["seconds"]), restored, linear
