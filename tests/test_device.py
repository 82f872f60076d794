# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Choice of the device, and seeds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lsst.astroclearnet.core import InputError, select_device
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.core.tiles._device import is_out_of_memory, limit_device_memory


def test_known_devices() -> None:
    """If it fails, the device that was asked for is not used."""
    assert select_device("cpu") == torch.device("cpu")
    assert select_device(torch.device("cpu")).type == "cpu"


@pytest.mark.parametrize(("available", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, available: bool, expected: str
) -> None:
    """If it fails, a GPU lies idle, or a machine without one fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert select_device("auto").type == expected


def test_no_silent_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a run meant for the GPU crawls on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda' was asked for, but there are 0 CUDA devices"):
        select_device("cuda")
    with pytest.raises(InputError, match="there are 0 CUDA devices"):
        select_device(torch.device("cuda", 1))


def test_unknown_device() -> None:
    """If it fails, a typing error ends in torch's words, not in ours."""
    with pytest.raises(InputError, match="Unknown device 'toaster'; use 'auto', 'cpu' or 'cuda'"):
        select_device("toaster")


def test_seeds() -> None:
    """If it fails, runs cannot be repeated, or seeds do nothing."""
    draws = [torch.rand(5, generator=make_generator(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert make_generator(2**63 - 1).device.type == "cpu"


def _cpu_error() -> Exception:
    """Return what PyTorch raises where memory runs out on the CPU."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as exc:
        return exc
    raise AssertionError("There is no limit to the memory.")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"), True),
        (_cpu_error(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_errors_of_memory(error: Exception, expected: bool) -> None:
    """If it fails, other faults are retried in smaller tiles, or these not."""
    assert is_out_of_memory(error) == expected


def test_share_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, processes on one GPU take each other's memory."""
    shares: list[float] = []

    def set_share(share: float, device: int) -> None:
        assert device == 0
        shares.append(share)

    memory = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_share)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for name, limit in (("cuda:0", 20.0), ("cuda", 200.0)):
        limit_device_memory(torch.device(name), limit)
    assert shares == [0.25, 1.0]
