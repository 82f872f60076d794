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

import numpy as np
import torch

from lsst.astroclearnet.core import ExposureStack, RestoreOptions, restore
from lsst.astroclearnet.core.estimate import FilterBank, LinearEstimator, MixingNetwork
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.tiles import make_generator

from ..baselines import ImageMM, Restorer, RichardsonLucy
from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from ..scaling.source import SyntheticSource
from ..scenes import Scene, SceneOptions, simulate_scene
from .start import measure_start
from .whole import CallCounter, measure_whole, on_patch_grid

_TARGET = 3.0
_BORDER = 16
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
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    tables = [
        _measure_floor(options.quick),
        measure_whole(quick=options.quick),
        _measure_peers(options.quick),
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
    size, number = (96, 3) if quick else (256, 12)
    native = SyntheticSource((size, size), number).read(slice(0, size), slice(0, size)).stack
    grid = on_patch_grid(native, size)
    for name, stack in (("co-registered, one PSF", grid), ("own pixels, varying PSF", native)):
        model = ForwardModel.from_stack(stack, _TARGET)
        weights = stack.good / stack.variances
        latent = torch.rand(model.latent_shape)
        with torch.no_grad():
            with CallCounter() as counter:
                model.normal(latent[None], weights)
            transforms = sum(count for call, count in counter.calls.items() if call[0] == "fft_rfft2")
            step = _median_time(lambda m=model, w=weights, x=latent: m.normal(x[None], w))  # type: ignore[misc]
            floor = _median_time(lambda x=latent, n=transforms: _transforms(x, n))  # type: ignore[misc]
        rows.append(_row(f"normal operator, {name}", step, floor))
        if stack is grid:
            rows.append(_network_row(model, stack, weights))
    legend = (
        f"{number} exposures of {size}x{size} pixels. The normal operator is a step of the conjugate "
        "gradients without the preconditioner; its floor is the real transforms of the latent image, and "
        "for each exposure and each component of its PSF one inverse and one forward transform. What is "
        "above it on own pixels is their interpolation, which a co-registered stack does without. The floor "
        "of the network is its bare convolutions, forward and backward."
    )
    return Table("Floor", legend, rows)


def _transforms(image: torch.Tensor, number: int) -> None:
    spectrum = torch.fft.rfft2(image)
    for _ in range(number - 1):
        torch.fft.rfft2(torch.fft.irfft2(spectrum, s=image.shape))
    torch.fft.irfft2(spectrum, s=image.shape)


def _network_row(model: ForwardModel, stack: ExposureStack, weights: torch.Tensor) -> dict[str, str]:
    options = RestoreOptions().network
    network = MixingNetwork(options)
    network.initialize(make_generator(1))
    with torch.no_grad():
        estimator = LinearEstimator(model, weights)
        estimates = estimator.solve(estimator.right_side(stack.images), options.penalty_weights)
        bank = FilterBank.build(estimator, estimates, options.penalty_weights)
    convolutions = [layer for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]

    def step() -> None:
        network.zero_grad()
        network(bank).square().sum().backward()

    def floor() -> None:
        network.zero_grad()
        values = bank.features[None]
        for layer in convolutions:
            values = layer(values)
        values.sum().backward()

    return _row("network, forward and backward", _median_time(step), _median_time(floor))


def _row(name: str, step: float, floor: float) -> dict[str, str]:
    return {
        "step": name,
        "time (ms)": f"{1e3 * step:.1f}",
        "floor (ms)": f"{1e3 * floor:.1f}",
        "ratio": f"{step / floor:.2f}",
    }


def _measure_peers(quick: bool) -> Table:
    """Compare with the time that others take to their best error."""
    shape, number = ((64, 72), 4) if quick else ((160, 160), 12)
    stops = (5, 10, 20) if quick else (10, 20, 50, 100, 200, 400, 800)
    scene = simulate_scene(SceneOptions(seed=31, kind="field", shape=shape, num_exposures=number))
    start = time.process_time()
    result = restore(
        scene.images, scene.variances, scene.good, scene.psfs, target_fwhm=_TARGET, device="cpu", seed=1
    )
    seconds = time.process_time() - start
    rows = [
        _peer_row(name, seconds, seconds, _error(image, scene, _TARGET), "")
        for name, image in (("restored_coadd", result.image), ("restored_coadd_linear", result.linear_image))
    ]
    for peer in (ImageMM(stops=stops), RichardsonLucy(stops=stops)):
        rows.append(_run_peer(peer, scene, seconds))
    legend = (
        f"A field of {number} exposures of {shape[0]}x{shape[1]} pixels. The error is the rms against the "
        "sky at the PSF of the image, in sky sigma of the coadd. Iterative methods are stopped where their "
        "error is smallest, which takes the truth; the time is that until then. Ours has no such "
        "choice; both "
        "images, their variances and the realisations of the noise are of the same time."
    )
    return Table("Others", legend, rows)


def _run_peer(peer: Restorer, scene: Scene, ours: float) -> dict[str, str]:
    best, at, seconds = np.inf, 0, 0.0
    start = time.process_time()
    for stop in peer.restore(
        scene.images, scene.variances, scene.good, scene.psfs, target_fwhm=_TARGET, seed=1
    ):
        elapsed = time.process_time() - start
        error = _error(stop.image, scene, stop.fwhm)
        if error < best:
            best, at, seconds = error, stop.iteration or 0, elapsed
    return _peer_row(peer.name, seconds, ours, best, str(at))


def _peer_row(name: str, seconds: float, ours: float, error: float, iteration: str) -> dict[str, str]:
    return {
        "method": name,
        "time (s)": f"{seconds:.1f}",
        "over ours": f"{seconds / ours:.2f}",
        "error (sky sigma)": f"{error:.2f}",
        "iteration": iteration,
    }


def _error(image: np.ndarray, scene: Scene, fwhm: float) -> float:
    inside = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
    difference = (image - scene.truth(fwhm))[inside] / scene.sky_sigma
    return float(np.sqrt(np.nanmean(difference**2)))
