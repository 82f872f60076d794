# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether a GPU sees the sky that a CPU sees, and sees it twice."""

from __future__ import annotations

__all__ = ("measure_agreement",)

import dataclasses
from typing import Any

import numpy as np

from lsst.astroclearnet.core import ExposureStack, StackResult, restore
from lsst.astroclearnet.core.noise import white_noise

from ..record import Table, compare
from ..scaling.run import TARGET
from ..speed.reference import make_cases
from .run import call_within

_GOAL = 1e-3
"""Largest difference in sigma."""

_PLANES = {
    "image": "variance",
    "linear_image": "linear_variance",
    "noise_realizations": "variance",
    "linear_noise_realizations": "linear_variance",
}
"""Images, and the variances of which their differences are measured."""


def measure_agreement(*, device: str, seconds: float, quick: bool) -> list[Table]:
    """Restore small patches on the CPU and twice on the card."""
    found = call_within(seconds, compare_devices, device=device, quick=quick)
    rows, noise = ([], []) if found is None else found
    legend = (
        "Each patch restored on the CPU, and on the card twice, with the same seed and default options. "
        f"Differences are in units of the declared sigma; none should be above {_GOAL:g}. Both kinds of "
        "noise realisations are differences that noise makes in the images."
        + f" **Not finished within {seconds:.0f} s.**"
        * (found is None)
    )
    noise_legend = (
        "A million numbers of the same counters on the CPU and on the card; they may differ by the "
        "rounding of logarithm, root and cosine."
    )
    return [Table("Agreement with the CPU", legend, rows), Table("The same noise", noise_legend, noise)]


def compare_devices(*, device: str, quick: bool) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return rows of both tables."""
    rows = []
    for case in make_cases(quick=quick):
        here = _restore(case.stack, "cpu")
        there, again = (_restore(case.stack, device) for _ in range(2))
        for name, variance in _PLANES.items():
            sigma = np.sqrt(getattr(here, variance))
            ours, theirs = getattr(here, name), getattr(there, name)
            known = np.isfinite(ours)
            same = np.array_equal(known, np.isfinite(theirs))
            difference = ((theirs - ours) / sigma)[known]
            largest = float(np.abs(difference).max())
            rows.append(
                {
                    "exposures": case.name,
                    "plane": name,
                    "rms difference (sigma)": f"{np.sqrt(np.mean(difference**2)):.2g}",
                    "largest (sigma)": f"{largest:.2g}",
                    "goal": compare(largest if same else np.inf, _GOAL, ""),
                    "masks": "equal" if np.array_equal(here.mask, there.mask) else "**differ**",
                    "two runs": "equal" if _equal(there, again) else "**differ**",
                }
            )
    ours, theirs = (
        white_noise(5, 0, 3, (117, 40), (1000, 1000), where).cpu().numpy() for where in ("cpu", device)
    )
    noise = {
        "equal (%)": f"{100.0 * np.mean(ours == theirs):.3f}",
        "largest difference (sigma)": f"{np.abs(ours - theirs).max():.2g}",
    }
    return rows, [noise]


def _restore(stack: ExposureStack, device: str) -> StackResult:
    arrays = (stack.images, stack.variances, stack.good, stack.psfs)
    return restore(*arrays, positions=stack.positions, target_fwhm=TARGET, device=device, seed=1)


def _equal(one: StackResult, other: StackResult) -> bool:
    """Tell whether all arrays of two results are equal, bit for bit."""
    pairs: list[tuple[Any, Any]] = [
        (getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
    ]
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs if isinstance(a, np.ndarray)
    )
