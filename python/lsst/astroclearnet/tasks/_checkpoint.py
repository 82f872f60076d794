# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A file from which an interrupted training goes on."""

from __future__ import annotations

__all__ = ("Checkpoint",)

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger(__name__)


class Checkpoint:
    """A file with the state of a computation, replaced from time to time.

    Parameters
    ----------
    folder
        Directory of the file, made where it is missing; without one nothing
        is written or read.
    name
        What is computed, such as the data ID.
    key
        Digest of all that the result follows from: the file of another key is
        not read.
    interval
        Seconds between two states that are saved.
    """

    def __init__(self, folder: str | None, name: str, key: str, interval: float) -> None:
        self._key = key
        self._interval = interval
        self._saved = time.monotonic()
        self._path: Path | None = None
        if folder is not None:
            self._path = Path(folder) / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}_{key}.checkpoint"
            self._path.parent.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved last, if there is one.

        A file that cannot be read counts as none, which is logged.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            content = torch.load(self._path, map_location="cpu", weights_only=True)
            if content["key"] != self._key:
                raise ValueError("it is of another training")
            state: dict[str, Any] = content["state"]
        except MemoryError:
            raise
        except Exception as exc:
            # A damaged file may fail in any way of the library that reads it.
            _LOG.warning("Left a checkpoint aside that cannot be read: %s: %s", type(exc).__name__, exc)
            return None
        return state

    def save_if_due(self, get_state: Callable[[], dict[str, Any]]) -> None:
        """Save the state if the last time is longer ago than the interval.

        Parameters
        ----------
        get_state
            Function that returns the state, of tensors and plain types.
        """
        if time.monotonic() - self._saved >= self._interval:
            self.save(get_state())

    def save(self, state: dict[str, Any]) -> None:
        """Save a state in the place of the last one.

        Parameters
        ----------
        state
            Tensors and plain types.

        Raises
        ------
        OSError
            If there is no room for the file.
        """
        if self._path is not None:
            prefix = f"{self._path.name}."
            with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=prefix, delete=False) as file:
                try:
                    torch.save({"key": self._key, "state": state}, file)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(file.name, self._path)
                except BaseException:
                    os.unlink(file.name)
                    raise
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove the file, when the result is safe."""
        if self._path is not None:
            # With what was being written when a process was killed.
            for path in self._path.parent.glob(f"{self._path.name}*"):
                path.unlink(missing_ok=True)
