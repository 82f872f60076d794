# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measurements of fields, kept in files."""

from __future__ import annotations

__all__ = ("FieldRecord", "measure_or_read")

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .fields import FLUXES, restore_field
from .measure import Shapes, measure_moments
from .responses import has_anacal, measure_responses

type Array = npt.NDArray[np.float64]

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FieldRecord:
    """What was measured of a field.

    Attributes
    ----------
    signal_to_noise
        Of each galaxy in all exposures, shape (n,).
    shapes
        Moments by image.
    responses
        See `measure_responses`; empty where anacal was not installed.
    """

    signal_to_noise: Array
    shapes: dict[str, Shapes]
    responses: dict[tuple[str, str], Array]


def measure_or_read(folder: Path, galaxies: str, seed: int, size: int) -> FieldRecord:
    """Measure a field, or read what was measured of it before.

    Odd seeds have the second component of the shear.  A field that was
    measured without anacal is measured again once it is installed.

    Parameters
    ----------
    folder
        Folder of the measurements.
    galaxies
        Which galaxies, one of `FLUXES`.
    seed
        Seed of the field.
    size
        Its side in pixels.

    Returns
    -------
    record : `FieldRecord`
        What was measured.
    """
    path = folder / f"{galaxies}-{seed}-{size}.npz"
    if path.exists():
        record = _read(path)
        if record.responses or not has_anacal():
            return record
    field = restore_field(seed, size, seed % 2, FLUXES[galaxies])
    responses = measure_responses(field) if has_anacal() else {}
    record = FieldRecord(field.signal_to_noise, measure_moments(field), responses)
    _write(record, path)
    _LOG.info("Measured %s galaxies, seed %d", galaxies, seed)
    return record


def _write(record: FieldRecord, path: Path) -> None:
    """Write a record, complete or not at all."""
    arrays: dict[str, Any] = {"signal_to_noise": record.signal_to_noise}
    for image, shapes in record.shapes.items():
        arrays |= {f"{name} {image}": values for name, values in shapes._asdict().items()}
    for (place, image), values in record.responses.items():
        arrays[f"response {place} {image}"] = values
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)


def _read(path: Path) -> FieldRecord:
    """Read a record."""
    shapes: dict[str, dict[str, Array]] = {}
    responses = {}
    with np.load(path) as arrays:
        for key in arrays:
            kind, *names = key.split()
            if kind == "response":
                responses[names[0], names[1]] = arrays[key]
            elif names:
                shapes.setdefault(names[0], {})[kind] = arrays[key]
        return FieldRecord(
            arrays["signal_to_noise"], {name: Shapes(**each) for name, each in shapes.items()}, responses
        )
