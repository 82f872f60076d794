# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A stand-in for a GPU: counts launches, waits and bytes, on the CPU."""

from __future__ import annotations

__all__ = ("STAND_IN_DEVICE", "CountingMode", "DeviceCounts", "count_device_work")

import contextlib
import dataclasses
import functools
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..core.forward import TileReader
from ..core.forward._interpolation import _CompiledInterpolation
from ..core.tiles import _band_restoration
from ..core.tiles._tile_restorer import TileRestorer

STAND_IN_DEVICE = torch.device("meta")
"""What the stand-in is called: a device that is always there and not a CPU."""

_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave")
"""Functions whose result the host has to know before it goes on."""

_VIEWS = frozenset(
    (
        "_conj",
        "_unsafe_view",
        "alias",
        "as_strided",
        "detach",
        "diagonal",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "imag",
        "lift_fresh",
        "narrow",
        "new_empty",
        "permute",
        "real",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unfold",
        "unsqueeze",
        "view",
        "view_as_complex",
        "view_as_real",
    )
)
"""Functions that launch nothing."""

_WRITERS = frozenset(
    ("arange", "fill", "full", "full_like", "ones", "ones_like", "zero", "zeros", "zeros_like")
)
"""Functions that do not read what they are given."""

_BINNING = 13, 100
"""Launches, and bytes a pixel, of sorting pixels into bins, which the stand-in
leaves out: counted in the source of ``BinnedInterpolation``, a sort of 64-bit
integers being four times its input."""


@dataclasses.dataclass(frozen=True)
class DeviceCounts:
    """Work that the host gave to a device.

    Attributes
    ----------
    launches, waits
        Numbers of functions that were launched, and of those whose result the
        host waited for, by name.
    moved
        Bytes of their arguments and results in the memory of the device.
    to_device, to_host
        Bytes that were transferred, by direction.
    """

    launches: Counter[str] = dataclasses.field(default_factory=Counter)
    waits: Counter[str] = dataclasses.field(default_factory=Counter)
    moved: Counter[str] = dataclasses.field(default_factory=Counter)
    to_device: Counter[str] = dataclasses.field(default_factory=Counter)
    to_host: Counter[str] = dataclasses.field(default_factory=Counter)

    @classmethod
    def total(cls, parts: Iterable[DeviceCounts]) -> DeviceCounts:
        """Return the sum of counts.

        Parameters
        ----------
        parts
            The counts.
        """
        result = cls()
        for part in parts:
            for field in dataclasses.fields(cls):
                getattr(result, field.name).update(getattr(part, field.name))
        return result


class StandIn(torch.Tensor):
    """A tensor of the device, which holds one of the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> StandIn:
        made: StandIn = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=STAND_IN_DEVICE,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        """Return the values, of which the host waits."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} outside of the mode that counts.")


class CountingMode(TorchDispatchMode):
    """Runs what is asked of the stand-in on the CPU, and counts.

    Attributes
    ----------
    stages
        Counts by the part of a restoration: ``"reading"`` tiles and setting up
        their models, ``"calibration"``, ``"network"``, ``"tile"``, and
        ``"rest"``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages: defaultdict[str, DeviceCounts] = defaultdict(DeviceCounts)
        self._stage = "rest"

    @property
    def total(self) -> DeviceCounts:
        """Counts of all stages (`DeviceCounts`)."""
        return DeviceCounts.total(self.stages.values())

    def within(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose work is counted for a stage.

        Parameters
        ----------
        stage
            Name of the stage.
        function
            The function.
        """

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            before, self._stage = self._stage, stage
            try:
                return function(*args, **kwargs)
            finally:
                self._stage = before

        return run

    def launch(self, name: str, num_bytes: float, number: int = 1) -> None:
        """Count launches.

        Parameters
        ----------
        name
            Name of the function.
        num_bytes
            Bytes that it reads and writes.
        number
            How often it is launched.
        """
        self._counts.launches[name] += number
        self._counts.moved[name] += int(num_bytes)

    @property
    def _counts(self) -> DeviceCounts:
        return self.stages[self._stage]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = _find_tensors((args, *kwargs.values()))
        there = [value for value in tensors if isinstance(value, StandIn)]
        name = func._schema.name.split("::")[-1].rstrip("_") if hasattr(func, "_schema") else str(func)
        asked = kwargs.get("device")
        to_device = asked is not None and torch.device(asked) == STAND_IN_DEVICE
        if name in ("_to_copy", "copy"):
            return self._copy(func, name, args, kwargs)
        if not there and not to_device:
            return func(*args, **kwargs)
        mixed = [t for t in tensors if not isinstance(t, StandIn) and t.ndim]
        if mixed and name not in ("index", "index_put"):
            raise RuntimeError(f"{name} of tensors on the device and on the host.")
        if mixed:
            self._counts.to_device[name] += sum(map(_size, mixed))
        if to_device:
            kwargs["device"] = torch.device("cpu")
        result = func(
            *_replace(args, _held), **{key: _replace(value, _held) for key, value in kwargs.items()}
        )
        if name in _WAITS or (name in ("index", "index_put") and _has_mask(args)):
            self._counts.waits[name] += 1
        if name not in _VIEWS:
            out = {id(kwargs.get("out"))}
            read = [] if name in _WRITERS else [t.held for t in there if id(t) not in out]
            self.launch(name, sum(map(_size, (*read, *_find_tensors((result,))))))
        if name == "_local_scalar_dense":
            return result
        # A tensor that was changed in place is the one that was given.
        given = {id(t.held): t for t in there}
        return _replace(result, lambda t: given[id(t)] if id(t) in given else StandIn(t))

    def _copy(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Copy, perhaps between host and device."""
        if name == "copy":
            target, source = args[:2]
            self._count(isinstance(source, StandIn), isinstance(target, StandIn), source)
            func(_held(target), _held(source), *args[2:], **kwargs)
            return target
        source = args[0]
        was = isinstance(source, StandIn)
        device = kwargs.pop("device", None)
        stays = was if device is None else torch.device(device) == STAND_IN_DEVICE
        self._count(was, stays, source)
        result = func(_held(source), **kwargs, device=torch.device("cpu"))
        return StandIn(result) if stays else result

    def _count(self, was: bool, stays: bool, source: torch.Tensor) -> None:
        size = _size(_held(source))
        if was and stays:
            self.launch("copy", 2 * size)
        elif was:
            self._counts.waits["to host"] += 1
            self._counts.to_host["copy"] += size
        elif stays:
            self._counts.to_device["copy"] += size


def _find_tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return tensors, also those in lists."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _find_tensors(value)
    return found


def _replace(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a value with other tensors, also in lists."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_replace(one, change) for one in value])
    return value


def _held(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.held if isinstance(tensor, StandIn) else tensor


def _size(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor, repeated ones once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _has_mask(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in indices)


class _ListsMode(TorchFunctionMode):
    """Makes tensors of lists on the host, and transfers them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], StandIn):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(i).to(STAND_IN_DEVICE) if isinstance(i, list) else i for i in index)
            return func(args[0], index, *args[2:])
        if func is torch.Tensor.new_tensor and isinstance(args[0], StandIn):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(STAND_IN_DEVICE)
        if func not in (torch.tensor, torch.as_tensor):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


def _make_engine(mode: CountingMode) -> type:
    """Return interpolation as on a GPU, computed on the CPU."""

    class Engine(_CompiledInterpolation):
        def __init__(
            self, first: torch.Tensor, ty: torch.Tensor, tx: torch.Tensor, latent_shape: tuple[int, int]
        ) -> None:
            super().__init__(_held(first), _held(ty), _held(tx), latent_shape)
            self._plane = 4 * latent_shape[0] * latent_shape[1]
            mode.launch("bin", _BINNING[1] * len(first), _BINNING[0])

        def observe(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
            self._gather(images, factors)
            # Values are put into the order of the pixels.
            mode.launch("index_put", (8 * len(images) + 4) * len(factors))
            return StandIn(super().observe(_held(images).contiguous(), _held(factors).contiguous()))

        def adjoint(self, values: torch.Tensor) -> torch.Tensor:
            number, pixels = values.shape
            mode.launch("index", (8 * number + 4) * pixels)
            self._collect(number, pixels)
            return StandIn(super().adjoint(_held(values).contiguous()))

        def normal(self, images: torch.Tensor, factors: torch.Tensor) -> None:
            self._gather(images, factors)
            self._collect(len(images), len(factors))
            super().normal(_held(images), _held(factors).contiguous())

        def _gather(self, images: torch.Tensor, factors: torch.Tensor) -> None:
            # First tap, two offsets, order and factor; pixels and a value.
            number, pixels = len(images), len(factors)
            mode.launch("gather", number * (24 * pixels + self._plane))

        def _collect(self, number: int, pixels: int) -> None:
            # Starts of bins; two offsets and values; the image.
            mode.launch("collect", self._plane + 8 * pixels + number * (4 * pixels + self._plane))

    return Engine


def _set_module(name: str, module: ModuleType | None) -> None:
    if module is None:
        del sys.modules[name]
    else:
        sys.modules[name] = module


@contextlib.contextmanager
def count_device_work() -> Iterator[CountingMode]:
    """Run what is asked of the `STAND_IN_DEVICE` on the CPU, and count.

    The device computes what the CPU does, bit for bit.  A function is counted
    as one launch, also where a GPU needs several kernels for it.

    Yields
    ------
    mode : `CountingMode`
        The counts.

    Raises
    ------
    RuntimeError
        In the context, if tensors on the device and on the host are mixed.
    """
    mode = CountingMode()
    # The kernels are written in Triton, which a CPU need not have.
    kernels = ModuleType(f"{_CompiledInterpolation.__module__}_gpu")
    kernels.BinnedInterpolation = _make_engine(mode)  # type: ignore[attr-defined]
    stages = (
        (TileReader, "read", "reading"),
        (_band_restoration, "calibrate_exposures", "calibration"),
        (_band_restoration, "choose_network", "network"),
        (TileRestorer, "restore", "tile"),
    )
    with contextlib.ExitStack() as stack:
        # Modules that are loaded in the context stay.
        stack.callback(_set_module, kernels.__name__, sys.modules.get(kernels.__name__))
        _set_module(kernels.__name__, kernels)
        for place, name, stage in stages:
            counted = mode.within(stage, getattr(place, name))
            stack.enter_context(mock.patch.object(place, name, counted))
        stack.enter_context(mode)
        stack.enter_context(_ListsMode())
        yield mode
