# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Attempts at tiles: failures are recorded, and tiles split that are too
large.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch

from .._errors import NoUsableDataError, RestorationError
from ..exposures import Tile
from ._device import is_out_of_memory
from ._memory_plan import MemoryPlan
from ._result import FailedTile

_LOG = logging.getLogger(__name__)


def attempt[Outcome](
    tile: Tile, compute: Callable[[], Outcome | None], band: str = ""
) -> Outcome | FailedTile | None:
    """Compute something of a tile, unless it has no data or cannot be done.

    Parameters
    ----------
    tile
        The tile.
    compute
        What to compute; `None` without data.
    band
        Which band it is of, for the log.

    Returns
    -------
    outcome
        What was computed, `None` without data, or why it failed.
    """
    try:
        return compute()
    except NoUsableDataError as exc:
        _LOG.info("%s has no data: %s", _name(tile, band), exc)
        return None
    except (RestorationError, torch.linalg.LinAlgError) as exc:
        _LOG.error("%s failed: %s", _name(tile, band), exc)
        return FailedTile(tile.inner_rows, tile.inner_columns, f"{type(exc).__name__}: {exc}")


def restore_in_pieces[Outcome](
    tile: Tile, restore: Callable[[Tile], Outcome], plan: MemoryPlan, release: Callable[[], None]
) -> Iterator[tuple[Tile, Outcome]]:
    """Restore a tile, in smaller ones if memory runs out.

    Parameters
    ----------
    tile
        The tile.
    restore
        What restores one.
    plan
        What splits tiles.
    release
        Called before smaller tiles are tried, to release memory.

    Yields
    ------
    tile
        Tile that was restored.
    outcome
        What became of it.
    """
    try:
        yield tile, restore(tile)
        return
    except (MemoryError, RuntimeError) as exc:
        smaller = plan.split(tile)
        if not is_out_of_memory(exc) or len(smaller) == 1:
            raise
        _LOG.warning(
            "%s ran out of memory (%s); trying again in %d smaller tiles.", _name(tile), exc, len(smaller)
        )
    # Outside the handler, where the exception no longer references tensors.
    release()
    for piece in smaller:
        yield from restore_in_pieces(piece, restore, plan, release)


def _name(tile: Tile, band: str = "") -> str:
    rows, columns = tile.inner_rows, tile.inner_columns
    of_band = f" of band {band}" if band else ""
    return (
        f"The tile{of_band} of rows {rows.start} to {rows.stop} and columns {columns.start} to {columns.stop}"
    )
