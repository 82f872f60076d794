# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Linear maps whose gradient is their adjoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import FunctionCtx

type _Map = Callable[[torch.Tensor], torch.Tensor]


def apply_linear(forward: _Map, adjoint: _Map, argument: torch.Tensor) -> torch.Tensor:
    """Apply a linear map so that gradients go back through its adjoint.

    Parameters
    ----------
    forward, adjoint
        The map and its adjoint.
    argument
        Its argument.
    """
    result: torch.Tensor = _LinearMap.apply(argument, forward, adjoint)
    return result


class _LinearMap(torch.autograd.Function):
    """A linear map and its adjoint."""

    @staticmethod
    def forward(ctx: FunctionCtx, argument: torch.Tensor, forward: _Map, adjoint: _Map) -> torch.Tensor:
        ctx.adjoint = adjoint  # type: ignore[attr-defined]
        return forward(argument)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.adjoint(gradients[0]), None, None
