# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Iterations at which a method hands over its image."""

from __future__ import annotations

from lsst.astroclearnet.core import InputError


def check_stops(stops: tuple[int, ...]) -> None:
    """Raise unless stops are positive and rising.

    Parameters
    ----------
    stops
        Numbers of iterations.

    Raises
    ------
    InputError
        If there is none, or they are not positive and strictly rising.
    """
    if not stops or stops[0] < 1 or any(a >= b for a, b in zip(stops, stops[1:], strict=False)):
        raise InputError(f"stops={stops} must be positive numbers of iterations in rising order.")


def check_positive(**options: float) -> None:
    """Raise unless options are positive.

    Parameters
    ----------
    **options
        Values by name.

    Raises
    ------
    InputError
        If one is not positive.
    """
    for name, value in options.items():
        if not value > 0:
            raise InputError(f"{name}={value} must be positive.")
