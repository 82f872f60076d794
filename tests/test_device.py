# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Choice of the device, and seeds."""

from __future__ import annotations

import pytest
import torch

from lsst.astroclearnet.core import InputError, make_generator, select_device


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
