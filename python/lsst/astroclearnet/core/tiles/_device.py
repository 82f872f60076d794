# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Choice and memory of the device, and seeded random numbers."""

from __future__ import annotations

__all__ = (
    "make_generator",
    "select_device",
)

import gc

import torch

from .._errors import InputError


def select_device(device: str | torch.device) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device
        ``"auto"`` for the GPU if there is one, or anything that `torch.device`
        takes.

    Returns
    -------
    device : `torch.device`
        A device that exists.

    Raises
    ------
    InputError
        If the device is unknown or absent; there is no silent fall-back.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as exc:
        raise InputError(f"Unknown device {device!r}; use 'auto', 'cpu' or 'cuda'.") from exc
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"Device {device!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices; "
            "use 'auto'."
        )
    return chosen


def make_generator(seed: int) -> torch.Generator:
    """Return a seeded generator on the CPU, the same for any device.

    Parameters
    ----------
    seed
        Any non-negative integer below 2**63.

    Returns
    -------
    generator : `torch.Generator`
        A new generator.
    """
    return torch.Generator().manual_seed(seed)


def limit_device_memory(device: torch.device, limit: float) -> None:
    """Limit the GPU memory of this process.

    Parameters
    ----------
    device
        A GPU.
    limit
        Memory in GiB.
    """
    # Only a device with a number has a limit.
    index = torch.cuda.current_device() if str(device) == "cuda" else device.index
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 2.0**30 / total), index)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out.

    Parameters
    ----------
    error
        The error.

    Returns
    -------
    out_of_memory : `bool`
        `True` for such errors of Python, of PyTorch on the CPU and of GPUs.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def release_memory(device: torch.device) -> None:
    """Return cached memory to the system.

    Parameters
    ----------
    device
        Device of the memory.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
