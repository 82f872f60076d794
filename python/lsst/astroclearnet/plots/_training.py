# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of the training of a network."""

from __future__ import annotations

__all__ = ("training_figure",)

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ._style import _COLORS, _STYLE, _new_figure, _plain


def training_figure(
    *,
    step: Sequence[int],
    loss: Sequence[float],
    validation_loss: Sequence[float | None],
    title: str,
) -> Figure:
    """Draw the losses of a training against the step.

    Parameters
    ----------
    step
        Numbers of steps, rising.
    loss
        Mean loss of the steps up to each of them.
    validation_loss
        Loss on samples that are not trained on, at each; `None` without any.
    title
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure with an Agg canvas.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(7.0, 4.6, 0.09)
        axes = figure.subplots()
        axes.set(xlabel="step", ylabel="loss of held-out exposures", title=_plain(title))
        axes.plot(step, loss, color=_COLORS[1], label="patches trained on")
        held = np.array([np.nan if value is None else value for value in validation_loss], dtype=float)
        if np.isfinite(held).any():
            axes.plot(step, held, color=_COLORS[0], label="patches set aside")
        axes.margins(x=0.0)
        axes.legend(loc="upper right")
    return figure
