# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""A stand-in for a GPU: counts launches, waits and transfers, on the CPU."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
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
            device=DEVICE,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        """Return the values, of which the host waits."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the mode that counts.")


class CountingMode(TorchDispatchMode):
    """Runs what is asked of the stand-in on the CPU, and counts.

    Attributes
    ----------
    launches, waits
        Numbers of calls by the name of the function.
    to_device, to_host
        Numbers of bytes that were transferred.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.to_device = self.to_host = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        values, _ = tree_flatten((args, kwargs))
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        there = [value for value in tensors if isinstance(value, StandIn)]
        name = func._schema.name.split("::")[-1].rstrip("_") if hasattr(func, "_schema") else str(func)
        asked = kwargs.get("device")
        to_device = asked is not None and torch.device(asked) == DEVICE
        if name in ("_to_copy", "copy"):
            return self._copy(func, name, args, kwargs)
        if not there and not to_device:
            return func(*args, **kwargs)
        mixed = [t for t in tensors if not isinstance(t, StandIn) and t.ndim]
        if mixed and name not in ("index", "index_put"):
            raise RuntimeError(f"{name} of tensors on the device and on the host.")
        if mixed:
            self.to_device += sum(t.numel() * t.element_size() for t in mixed)
        if to_device:
            kwargs["device"] = torch.device("cpu")
        plain_args, plain_kwargs = tree_map_only(StandIn, lambda t: t.held, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if name in _WAITS or (name in ("index", "index_put") and _has_mask(args)):
            self.waits[name] += 1
        if name not in _VIEWS:
            self.launches[name] += 1
        if name == "_local_scalar_dense":
            return result
        return self._wrap(func, result, args, kwargs)

    def _wrap(self, func: Any, result: Any, args: Any, kwargs: Any) -> Any:
        """Wrap results; one that was changed in place is the argument."""
        given = {id(t.held): t for t in tree_flatten((args, kwargs))[0] if isinstance(t, StandIn)}
        return tree_map_only(torch.Tensor, lambda t: given[id(t)] if id(t) in given else StandIn(t), result)

    def _copy(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Copy, perhaps between host and device."""
        if name == "copy":
            target, source = args[:2]
            self._count(isinstance(source, StandIn), isinstance(target, StandIn), source)
            pair = [t.held if isinstance(t, StandIn) else t for t in (target, source)]
            func(*pair, *args[2:], **kwargs)
            return target
        source = args[0]
        was = isinstance(source, StandIn)
        device = kwargs.pop("device", None)
        stays = was if device is None else torch.device(device) == DEVICE
        self._count(was, stays, source)
        result = func(source.held if was else source, **kwargs, device=torch.device("cpu"))
        return StandIn(result) if stays else result

    def _count(self, was: bool, stays: bool, source: torch.Tensor) -> None:
        size = source.numel() * source.element_size()
        if was and stays:
            self.launches["copy"] += 1
        elif was:
            self.waits["to host"] += 1
            self.to_host += size
        elif stays:
            self.to_device += size


def _has_mask(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in indices)


class _ListsMode(TorchFunctionMode):
    """Makes tensors of lists on the host, and transfers them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], StandIn):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(i).to(DEVICE) if isinstance(i, list) else i for i in index)
            return func(args[0], index, *args[2:])
        if func is torch.Tensor.new_tensor and isinstance(args[0], StandIn):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(DEVICE)
        if func not in (torch.tensor, torch.as_tensor):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


@contextlib.contextmanager
def counted() -> Iterator[CountingMode]:
    """Run the stand-in, and count."""
    with CountingMode() as mode, _ListsMode():
        yield mode
