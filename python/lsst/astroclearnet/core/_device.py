# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Choice of the device, and seeded random numbers."""

from __future__ import annotations

__all__ = ("make_generator", "select_device")

import torch

from ._errors import InputError


def select_device(device: str | torch.device) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device
        ``"auto"`` for the GPU when there is one, or anything that
        `torch.device` takes.

    Returns
    -------
    device : `torch.device`
        A device that exists.

    Raises
    ------
    InputError
        If the device is unknown, or a GPU is asked for and there is none:
        there is no silent fall-back.
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
    """Return a seeded generator on the CPU.

    Random numbers are always drawn on the CPU, so that a seed means the same
    on every device.

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
