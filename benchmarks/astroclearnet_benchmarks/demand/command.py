# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Light that is invented or withheld, and whether the map shows it."""

from __future__ import annotations

__all__ = ("main",)

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from .measure import RATIOS, Field, make_field

_LOG = logging.getLogger(__name__)

_FIRST_SEED = 500
"""Seeds below it were looked at while the map was written."""

_INTRODUCTION = (
    "What exposures demand of restored images (`measure_demanded_light`): of those of the packaged network, "
    "and of the same with stars that only the image has (invented), or only the exposures (withheld). "
    "Scenes of 160x160 pixels and 8 exposures, cosmic rays, trails and holes included, target 3 pixels. The "
    "signal-to-noise ratio of a star is that of its flux, without surroundings to subtract."
)


class _Case(NamedTuple):
    """A kind of scenes."""

    name: str
    kind: str
    num_exposures: int = 8
    psf_error: float = 0.0


_CASES = (
    _Case("blank sky", "blank"),
    _Case("field", "field"),
    _Case("field, one exposure", "field", num_exposures=1),
    _Case("isolated stars", "stars"),
    _Case("isolated stars, PSFs 0 to 2 % too wide", "stars", psf_error=0.01),
    _Case("bright galaxies", "hosts"),
    _Case("crowded", "crowded"),
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    start_logging()
    parser = make_parser("demand", __doc__)
    parser.add_argument("--seeds", type=int, default=4, help="number of scenes of each kind")
    options = parser.parse_args(words)
    honest, doctored = [], []
    for case in _CASES:
        fields = [
            make_field(case.kind, _FIRST_SEED + seed, case.num_exposures, case.psf_error)
            for seed in range(options.seeds)
        ]
        honest.append({"scenes": case.name, **_count(fields)})
        doctored.append({"scenes": case.name, **_complete(fields)})
        _LOG.info("%s; %s", honest[-1], doctored[-1])
    tables = [
        Table(
            "Restored images as they are",
            f"{options.seeds} scenes of each kind. Of the pixels that an exposure sees: share in which light "
            "stands out; percentiles of the demanded share there, and the rms deviation from 1 in units of "
            "its standard deviation; pixels flagged SUPPLIED and WITHHELD. In brackets, those that no "
            "exposure sees and are SUPPLIED, which is right.",
            honest,
        ),
        Table(
            "Stars that are invented or withheld",
            "Share that is flagged, by signal-to-noise ratio, on blank sky (light below 0.3 of the noise of "
            "a coadd) and elsewhere: on and beside sources, whose own light counts too.",
            doctored,
        ),
    ]
    section = Section.measured("demand", f"{parser.prog} --seeds {options.seeds}", tables)
    options.output.write_text(make_page([section], title="Demanded light", introduction=_INTRODUCTION))
    return 0


def _count(fields: Sequence[Field]) -> dict[str, str]:
    """Return the cells of honest restorations."""
    shares, pulls, stands_out = [], [], []
    supplied = withheld = holes = 0
    for field in fields:
        found, seen = field.measure(), torch.from_numpy(field.seen)
        known = seen & found.share.isfinite()
        stands_out.append(float(known.sum() / seen.sum()))
        shares.append(found.share[known].numpy())
        pulls.append(((found.share - 1.0) / found.sigma)[known].numpy())
        supplied += int((found.supplied & seen).sum())
        holes += int((found.supplied & ~seen).sum())
        withheld += int((found.withheld & seen).sum())
    share, pull = np.concatenate(shares), np.concatenate(pulls)
    percentiles = np.percentile(share, (1, 16, 50, 84, 99)) if share.size else []
    return {
        "stands out": f"{np.mean(stands_out):.1%}",
        "share at 1, 16, 50, 84, 99 %": " ".join(f"{value:.2f}" for value in percentiles) or "-",
        "rms pull": f"{np.sqrt(np.mean(pull**2)):.2f}" if pull.size else "-",
        "SUPPLIED": f"{supplied} ({holes})",
        "WITHHELD": str(withheld),
        "of pixels": str(sum(int(field.seen.sum()) for field in fields)),
    }


def _complete(fields: Sequence[Field]) -> dict[str, str]:
    """Return the cells of doctored restorations."""
    cells: dict[str, str] = {}
    for ratio in RATIOS:
        pairs = [field.find_doctored(ratio, np.random.default_rng(n)) for n, field in enumerate(fields)]
        for name, flags in zip(("invented", "withheld"), zip(*pairs, strict=True), strict=True):
            found, blank = (np.concatenate([getattr(f, key) for f in flags]) for key in ("found", "blank"))
            cells[f"{name}, S/N {ratio:g}"] = " / ".join(
                f"{found[use].mean():.2f} of {use.sum()}" if use.any() else "-" for use in (blank, ~blank)
            )
    return {key: cells[key] for name in ("invented", "withheld") for key in cells if key.startswith(name)}
