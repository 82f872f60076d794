# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The Huber likelihood against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core.estimate import huber


@settings(max_examples=30, deadline=None)
@given(deviation=st.floats(-50.0, 50.0), delta=st.floats(0.5, 10.0))
def test_huber(deviation: float, delta: float) -> None:
    """If it fails, good pixels are not weighted as Gaussian noise."""
    loss = huber(torch.tensor([deviation], dtype=torch.float64), delta)
    size = abs(deviation)
    expected = 0.5 * size**2 if size <= delta else delta * (size - 0.5 * delta)
    assert float(loss[0]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_pull_of_an_outlier_is_bounded() -> None:
    """If it fails, one cosmic ray can drag the fit anywhere."""
    deviation = torch.tensor([[1.0, -1e6], [4.0, 0.0]], requires_grad=True)
    huber(deviation, 3.0).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(deviation.grad, torch.tensor([[1.0, -3.0], [3.0, 0.0]]))
