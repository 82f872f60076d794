# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cost of the restoration beside its floor and other methods."""

from __future__ import annotations

__all__ = ("main",)

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from lsst.astroclearnet.core import ExposureStack
from lsst.astroclearnet.core.estimate import FilterBank, LinearEstimator, load_packaged_model
from lsst.astroclearnet.core.forward import ForwardModel

from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from ..scaling.run import TARGET
from .peers import measure_peers
from .reference import make_cases, measure_reference
from .start import measure_start
from .whole import CallCounter, bare_time, measure_whole

_REPEATS = 7

_INTRODUCTION = (
    "What the restoration takes beside what it cannot do without, and beside other iterative methods, on one "
    "thread, in CPU time, measured in one run."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    start_logging()
    parser = make_parser("speed", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny scenes, to see that all works")
    parser.add_argument("--reference", type=Path, help="checkout of a version to compare with")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    tables = [
        measure_reference(options.reference, quick=options.quick),
        _measure_floor(options.quick),
        measure_whole(quick=options.quick),
        *(measure_peers(number, quick=options.quick) for number in ((4,) if options.quick else (12, 33))),
        measure_start(quick=options.quick),
    ]
    section = Section.measured("cost", parser.prog + " --quick" * options.quick, tables)
    options.output.write_text(make_page([section], title="Speed", introduction=_INTRODUCTION))
    return 0


def _median_time(work: Callable[[], object], repeats: int = _REPEATS) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def _measure_floor(quick: bool) -> Table:
    """Compare steps with the bare transforms and convolutions they need."""
    rows = []
    for case in make_cases(quick=quick):
        stack = case.stack
        model = ForwardModel.from_stack(stack, TARGET)
        weights = stack.good / stack.variances
        latent = torch.rand(model.latent_shape)
        with torch.no_grad():
            with CallCounter() as counter:
                model.normal(latent[None], weights)
            transforms = sum(count for call, count in counter.calls.items() if call[0] == "fft_rfft2")
            step = _median_time(lambda m=model, w=weights, x=latent: m.normal(x[None], w))  # type: ignore[misc]
            floor = _median_time(lambda x=latent, n=transforms: _transforms(x, n))  # type: ignore[misc]
        rows.append(_row(f"normal operator, {case.name}", step, floor))
        if len(rows) == 1:
            rows.append(_network_row(model, stack, weights))
    legend = (
        "Of the same exposures. The normal operator is a step of the conjugate "
        "gradients without the preconditioner; its floor is the real transforms of the latent image, and "
        "for each exposure and each component of its PSF one inverse and one forward transform. What is "
        "above it on own pixels is their interpolation, which a co-registered stack does without. The floor "
        "of the network is its bare convolutions."
    )
    return Table("Floor", legend, rows)


def _transforms(image: torch.Tensor, number: int) -> None:
    spectrum = torch.fft.rfft2(image)
    for _ in range(number - 1):
        torch.fft.rfft2(torch.fft.irfft2(spectrum, s=image.shape))
    torch.fft.irfft2(spectrum, s=image.shape)


def _network_row(model: ForwardModel, stack: ExposureStack, weights: torch.Tensor) -> dict[str, str]:
    network = load_packaged_model().network
    with torch.no_grad():
        estimator = LinearEstimator(model, weights)
        estimates = estimator.solve(estimator.right_side(stack.images), network.penalty_weights)
        bank = FilterBank.build(estimator, estimates, network.penalty_weights)
        with CallCounter() as counter:
            network(bank)
        step = _median_time(lambda: network(bank))
    floor = sum(count * bare_time(call, _REPEATS) for call, count in counter.calls.items())
    return _row("restoration network", step, floor)


def _row(name: str, step: float, floor: float) -> dict[str, str]:
    return {
        "step": name,
        "time (ms)": f"{1e3 * step:.1f}",
        "floor (ms)": f"{1e3 * floor:.1f}",
        "ratio": f"{step / floor:.2f}",
    }
