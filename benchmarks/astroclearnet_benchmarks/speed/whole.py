# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A whole restoration beside the transforms and convolutions in it."""

from __future__ import annotations

__all__ = ("CallCounter", "bare_time", "measure_whole")

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from lsst.astroclearnet.core import ExposureStack, restore
from lsst.astroclearnet.core.forward import Sampling

from ..record import Table
from ..scaling.run import TARGET
from .reference import make_cases

_REPEATS = 7

type _Call = tuple[Any, ...]
"""A transform, as its name and the shape of the image; a convolution, as its
name, the shapes of images and weights, its dilation, and whether gradients of
weights and images are asked for."""


def measure_whole(*, quick: bool) -> Table:
    """Compare restorations with what they cannot do without."""
    rows = [_measure(case.name, case.stack, quick) for case in make_cases(quick=quick)]
    legend = (
        "From arrays to the result, with both images, their variances and realisations of the noise. The "
        "floor is the time of the two-dimensional real transforms and of the convolutions of the network "
        "that the restoration makes, counted one by one, each measured alone and again and again on the same "
        "memory. The interpolation of pixels, which is a copy for a co-registered stack, is given beside it; "
        "the last column is the ratio without it."
    )
    return Table("Whole restoration", legend, rows)


def _measure(name: str, stack: ExposureStack, quick: bool) -> dict[str, str]:
    def run() -> None:
        restore(
            stack.images,
            stack.variances,
            stack.good,
            stack.psfs,
            positions=stack.positions,
            target_fwhm=TARGET,
            device="cpu",
            seed=1,
        )

    with CallCounter() as counter:
        run()
    spent = [0.0]
    with _timed_sampling(spent):
        start = time.process_time()
        run()
        seconds = time.process_time() - start
    repeats = 2 if quick else _REPEATS
    transforms = convolutions = 0.0
    for call, count in counter.calls.items():
        bare = count * bare_time(call, repeats)
        if call[0] == "conv2d":
            convolutions += bare
        else:
            transforms += bare
    floor = transforms + convolutions
    return {
        "exposures": name,
        "time (s)": f"{seconds:.1f}",
        "transforms (s)": f"{transforms:.1f}",
        "convolutions (s)": f"{convolutions:.1f}",
        "ratio": f"{seconds / floor:.2f}",
        "interpolation (s)": f"{spent[0]:.1f}",
        "ratio without": f"{(seconds - spent[0]) / floor:.2f}",
    }


class CallCounter(TorchFunctionMode):
    """Counts transforms and convolutions by their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[_Call] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("fft_rfft2", "fft_irfft2"):
            image = args[0] if name == "fft_rfft2" else result
            height, width = image.shape[-2:]
            self.calls[name, height, width] += image.numel() // (height * width)
        elif name == "conv2d" and args[1].shape[1] > 1:
            # Those with one channel smooth maps: they are no layers.
            grad = torch.is_grad_enabled() and args[1].requires_grad
            dilation = args[5] if len(args) > 5 else kwargs.get("dilation", 1)
            image = tuple(args[0].shape), grad and args[0].requires_grad
            self.calls[name, image, tuple(args[1].shape), dilation, grad] += 1
        return result


def bare_time(call: _Call, repeats: int) -> float:
    """Return the seconds that a call takes alone."""
    work = _bare_convolution(*call[1:]) if call[0] == "conv2d" else _bare_transform(*call)
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def _bare_transform(name: str, height: int, width: int) -> Callable[[], object]:
    image = torch.rand(height, width)
    spectrum = torch.fft.rfft2(image)
    if name == "fft_rfft2":
        return lambda: torch.fft.rfft2(image, out=spectrum)
    return lambda: torch.fft.irfft2(spectrum, s=image.shape, out=image)


def _bare_convolution(
    image: tuple[tuple[int, ...], bool], shape: tuple[int, ...], dilation: Any, grad: bool
) -> Callable[[], object]:
    layout = torch.channels_last
    values = torch.rand(image[0]).contiguous(memory_format=layout).requires_grad_(image[1])
    weights = torch.rand(shape).contiguous(memory_format=layout).requires_grad_(grad)

    def work() -> None:
        result = torch.nn.functional.conv2d(values, weights, dilation=dilation)
        if grad:
            torch.autograd.grad(result, [v for v in (values, weights) if v.requires_grad], result)

    return work


@contextlib.contextmanager
def _timed_sampling(spent: list[float]) -> Iterator[None]:
    """Add up the time of the interpolation of exposures on their own grids."""
    names = ("observe", "adjoint", "normal")
    kept = {name: getattr(Sampling, name) for name in names}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.process_time() - start

        return run

    for name, function in kept.items():
        setattr(Sampling, name, timed(function))
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(Sampling, name, function)
