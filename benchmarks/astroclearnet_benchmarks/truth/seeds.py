# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Seeds of the scenes of the published table, and of those before it."""

from __future__ import annotations

__all__ = ("FINAL_SENTENCE", "development_seeds", "final_seeds")

import hashlib

FINAL_SENTENCE = "What the network has not seen is what the sky will show."
"""The sentence that the final seeds follow from."""

_FIRST_FINAL = 2**24
"""Seeds below are for development."""


def final_seeds(suite: str, number: int) -> list[int]:
    """Return the seeds of the published table.

    Nobody can choose them: they are the first bytes of SHA-256 of the
    sentence, the suite and their index, and are measured once, at the end.

    Parameters
    ----------
    suite
        Name of the suite.
    number
        How many seeds.

    Returns
    -------
    seeds : `list` [`int`]
        The seeds, of which the first are the same for any number.
    """
    digests = (hashlib.sha256(f"{FINAL_SENTENCE} {suite} {i}".encode()).digest() for i in range(number))
    return [_FIRST_FINAL + int.from_bytes(digest[:3]) for digest in digests]


def development_seeds(number: int) -> list[int]:
    """Return seeds that may be looked at as often as needed.

    Parameters
    ----------
    number
        How many seeds.

    Returns
    -------
    seeds : `list` [`int`]
        The first seeds, none of them a final one.
    """
    return list(range(number))
