# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures in several threads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.forward._threads import num_workers, ordered_map
from lsst.astroclearnet.tests import make_exposure_stack


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


@pytest.mark.parametrize("number", [1, 3])
def test_results_come_in_order(number: int) -> None:
    """If it fails, sums depend on which thread is done first, or a result is
    overwritten before it is used.
    """

    def work(item: int, memory: list[int]) -> list[int]:
        time.sleep(0.002 * (item % 3 == 0))
        memory[0] = item
        return memory

    found = [result[0] for result in ordered_map(work, range(11), [[0] for _ in range(number)])]
    assert found == list(range(11))


def test_an_error_is_raised(threads: None) -> None:
    """If it fails, an exposure is left out without a word, or PyTorch keeps to
    one thread ever after.
    """
    torch.set_num_threads(2)

    def work(item: int, memory: int) -> int:
        if item == 3:
            raise ValueError("the fourth")
        return item

    with pytest.raises(ValueError, match="the fourth"):
        list(ordered_map(work, range(8), [0, 1]))
    assert torch.get_num_threads() == 2


def test_threads_do_not_change_the_model(threads: None) -> None:
    """If it fails, a result depends on the number of cores."""
    stack = make_exposure_stack((60, 76), (3.4, 4.2, 5.0))
    model = ForwardModel.from_stack(stack, 3.8)
    latents = torch.randn((3, *model.latent_shape), generator=torch.Generator().manual_seed(4))
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        assert num_workers(torch.device("cpu")) == number
        assert num_workers(torch.device("cuda")) == 1
        predicted = model.predict(latents[0])
        found.append((predicted, model.adjoint(predicted), model.normal(latents, stack.good)))
    for some in found[1:]:
        for one, other in zip(found[0], some, strict=True):
            assert torch.equal(one, other)
