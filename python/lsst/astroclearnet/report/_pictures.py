# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pictures of a report, and the numbers beside them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lsst.resources import ResourcePath

from ._contents import _PLANES, _BandContents, _file_name, _PatchContents, _TractContents

_DASH = "\N{EN DASH}"


def _draw_maps(tract: _TractContents, root: Path) -> dict[str, str]:
    """Draw the verdicts of a tract in each band, and return the files."""
    from ..plots import quality_map

    paths = {}
    for band, qualities in tract.qualities().items():
        paths[band] = f"images/{tract.name}-{_file_name(band)}-map.png"
        quality_map(qualities).savefig(root / paths[band])
    return paths


def _draw_completeness(tract: _TractContents, root: Path) -> dict[str, str]:
    """Draw the injected sources of a tract in each band, and return the
    files.
    """
    from ..plots import completeness_figure

    paths = {}
    for band, bins in tract.injections.items():
        paths[band] = f"images/{tract.name}-{_file_name(band)}-completeness.png"
        title = f"{tract.skymap}, tract {tract.tract}, {band}"
        completeness_figure(bins, title=title).savefig(root / paths[band])
    return paths


def _injection_rows(tract: _TractContents) -> dict[str, list[dict[str, Any]]]:
    """Return, for each band, what a table says of injected sources by
    magnitude.
    """
    rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for band, bins in tract.injections.items():
        found = rows.setdefault(band, {})
        for each in bins:
            if each["property"] != "magnitude":
                continue
            kind = "Stars" if each["kind"] == "star" else "Galaxies"
            row = found.setdefault(
                (each["kind"], each["low"]),
                {
                    "sources": f"{kind}, {each['low']:g} to {each['high']:g}",
                    "number": each["num_sources"],
                    "completeness": {},
                    "flux_ratio": {},
                },
            )
            row["completeness"][each["image"]] = f"{each['completeness']:.2f}"
            row["flux_ratio"][each["image"]] = _with_error(each["flux_ratio"], each["flux_ratio_error"])
    return {band: list(found.values()) for band, found in rows.items()}


def _with_error(value: float, error: float) -> str:
    """Return a value with its error; a dash if it is not known."""
    if not math.isfinite(value):
        return _DASH
    return f"{value:.3f}" + (f" \N{PLUS-MINUS SIGN} {error:.3f}" if math.isfinite(error) else "")


def _draw_demand(patch: _PatchContents, band: _BandContents, root: Path) -> str | None:
    """Draw which light of a patch the exposures demand, and return the
    file; nothing where a dataset is missing.
    """
    from ..plots import demand_figure

    if len(band.planes) < len(_PLANES):
        return None
    try:
        planes = {name: handle.get() for name, handle in band.planes.items()}
    except FileNotFoundError:
        return None
    mask, box = planes["mask"], planes["image"].bbox
    supplied, withheld = (mask.get(plane) for plane in ("SUPPLIED", "WITHHELD"))
    figure = demand_figure(
        planes["image"].array,
        planes["share"].array,
        supplied,
        withheld,
        origin=(box.y.start, box.x.start),
        title=f"{patch.skymap}, tract {patch.tract}, patch {patch.patch}, {band.band}",
    )
    path = f"images/{patch.name}-{band.anchor}-demand.png"
    figure.savefig(root / path)
    return path


def _copy_picture(uri: ResourcePath | None, root: Path, name: str) -> str | None:
    """Copy a picture into the report and return its path there."""
    if uri is None:
        return None
    try:
        content = uri.read()
    except FileNotFoundError:
        return None
    path = f"images/{name}{uri.getExtension() or '.png'}"
    (root / path).write_bytes(content)
    return path
