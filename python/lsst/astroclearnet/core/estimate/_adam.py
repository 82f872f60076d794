# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stochastic gradient descent with steps scaled by the size of gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch

_FIRST, _SECOND = 0.9, 0.999
"""Shares that the moments keep from step to step."""


class Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980).

    The optimizers of PyTorch take a second to load, with what they need to
    compile themselves.

    Parameters
    ----------
    parameters
        What is fitted, with gradients.
    learning_rate
        Step size.
    epsilon
        Size of gradients below which they count little.
    largest_norm
        Norm to which gradients are cut.

    Attributes
    ----------
    learning_rate
        Step size.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        learning_rate: float,
        *,
        epsilon: float,
        largest_norm: float,
    ) -> None:
        self._parameters = list(parameters)
        self.learning_rate = learning_rate
        self._epsilon, self._largest_norm = epsilon, largest_norm
        self._first, self._second = ([torch.zeros_like(p) for p in self._parameters] for _ in range(2))
        self._number = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        self._number += 1
        first_bias, second_bias = (1.0 - share**self._number for share in (_FIRST, _SECOND))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        norm = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm()
        cut = (self._largest_norm / norm).clamp(max=1.0)
        moments = zip(self._parameters, gradients, self._first, self._second, strict=True)
        for parameter, gradient, first, second in moments:
            gradient = gradient * cut
            first.lerp_(gradient, 1.0 - _FIRST)
            second.mul_(_SECOND).addcmul_(gradient, gradient, value=1.0 - _SECOND)
            scale = (second / second_bias).sqrt_().add_(self._epsilon)
            parameter.addcdiv_(first, scale, value=-self.learning_rate / first_bias)
