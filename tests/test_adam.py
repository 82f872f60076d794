# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Steps of Adam."""

from __future__ import annotations

import torch

from lsst.astroclearnet.core.estimate._adam import Adam


def make_parameters() -> list[torch.nn.Parameter]:
    """Return two parameters, of which the second is a number."""
    generator = torch.Generator().manual_seed(3)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), ())]


def loss(parameters: list[torch.nn.Parameter], number: int) -> torch.Tensor:
    """Return a loss that changes from step to step."""
    return ((parameters[0] - number) ** 2).mean() + 3.0 * (parameters[1] + number).abs()


def test_steps_are_those_of_pytorch() -> None:
    """If it fails, the fit takes other steps than the method it names."""
    ours, theirs = make_parameters(), make_parameters()
    one = Adam(ours, 0.05, epsilon=1e-4, largest_norm=1e9)
    other = torch.optim.Adam(theirs, lr=0.05, eps=1e-4)
    for number in range(6):
        for parameters, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            loss(parameters, number % 3).backward()
            optimizer.step()
        one.learning_rate *= 0.9
        other.param_groups[0]["lr"] *= 0.9
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference)


def test_large_gradients_are_cut() -> None:
    """If it fails, one bright star undoes the steps before."""
    found = []
    for size in (1.0, 1e4):
        parameters = make_parameters()
        start = parameters[0].detach().clone()
        optimizer = Adam(parameters, 0.05, epsilon=1e-4, largest_norm=0.5)
        for gradient in (size, 0.01):
            # Larger than allowed in both cases, and then smaller.
            parameters[0].grad = torch.full((3, 4), gradient)
            optimizer.step()
        found.append(parameters[0].detach() - start)
    torch.testing.assert_close(found[0], found[1])
    assert bool((found[0].abs() > 0.05).all())
