# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a report shows, read from a Butler."""

from __future__ import annotations

__all__ = ("ReportContents", "ReportError", "read_contents")

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from astropy.table import Table, vstack

from lsst.daf.butler import (
    Butler,
    DatasetNotFoundError,
    DatasetRef,
    DeferredDatasetHandle,
    MissingDatasetTypeError,
)
from lsst.resources import ResourcePath

from ..metrics import injection_bins
from ._bands import band_order

_BIN_STEP = 1.0
"""Width of the bins of injected sources in magnitudes: that of
`~lsst.astroclearnet.tasks.MeasureInjectionsTask`."""

_COADDS = ("", "_demand", "_linear", "_linear_noise", "_metrics")
"""Ends of the names of the datasets that a band of a patch links to."""

_PLANES = (("image", "", "image"), ("share", "_demand", "image"), ("mask", "_demand", "mask"))
"""Planes of the map of demanded light: name, end of the name of the dataset,
and component."""


class ReportError(RuntimeError):
    """A report cannot be made."""


@dataclasses.dataclass(frozen=True)
class _BandContents:
    """A patch in one band."""

    band: str
    data_id: Mapping[str, Any]
    quality: Mapping[str, Any]
    plot: ResourcePath | None
    injection_plot: ResourcePath | None
    planes: Mapping[str, DeferredDatasetHandle]
    datasets: Mapping[str, ResourcePath]

    @property
    def anchor(self) -> str:
        """Name for files and places on a page (`str`)."""
        return _file_name(self.band)

    @property
    def verdict(self) -> str:
        """``good``, ``check`` or ``bad`` (`str`)."""
        return str(self.quality["verdict"])

    @property
    def network(self) -> str:
        """Where its network comes from, and its identity (`str`)."""
        network = self.quality["network"]
        return "fitted to the patch" if network["source"] == "fit" else " ".join(network.values())

    @property
    def failed_checks(self) -> list[Mapping[str, Any]]:
        """Checks that are not good (`list`)."""
        return [check for check in self.quality["checks"] if check["verdict"] != "good"]


@dataclasses.dataclass(frozen=True)
class _PatchContents:
    """A patch."""

    skymap: str
    tract: int
    patch: int
    bands: Sequence[_BandContents]
    color_plot: ResourcePath | None

    @property
    def name(self) -> str:
        """Name for files (`str`)."""
        return _file_name(self.skymap, self.tract, self.patch)


@dataclasses.dataclass(frozen=True)
class _TractContents:
    """A tract."""

    skymap: str
    tract: int
    patches: Sequence[_PatchContents]
    color_plot: ResourcePath | None
    injections: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def name(self) -> str:
        """Name for files (`str`)."""
        return _file_name(self.skymap, self.tract)

    @property
    def bands_without_injections(self) -> list[str]:
        """Bands in which no injected source was measured (`list`)."""
        return [band for band in self.qualities() if band not in self.injections]

    def worst_first(self) -> list[tuple[_PatchContents, _BandContents]]:
        """Return every band of every patch, the bad ones first."""
        order = ("bad", "check", "good")
        rows = [(patch, band) for patch in self.patches for band in patch.bands]
        return sorted(rows, key=lambda row: order.index(row[1].verdict))

    def qualities(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the quality of all patches, by band."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for patch in self.patches:
            for band in patch.bands:
                found.setdefault(band.band, []).append(band.quality)
        return dict(sorted(found.items(), key=lambda item: band_order(item[0])))


@dataclasses.dataclass(frozen=True)
class ReportContents:
    """Contents of a report.

    Attributes
    ----------
    title
        Title of the report.
    repository
        Where the repository is.
    collections
        Collections it was read from.
    tracts
        Tracts, in order.
    """

    title: str
    repository: str
    collections: Sequence[str]
    tracts: Sequence[_TractContents]

    @cached_property
    def counts(self) -> dict[str, Counter[str]]:
        """Numbers of patches by band and verdict (`dict`)."""
        counts: dict[str, Counter[str]] = {}
        for tract in self.tracts:
            for _, band in tract.worst_first():
                counts.setdefault(band.band, Counter())[band.verdict] += 1
        return dict(sorted(counts.items(), key=lambda item: band_order(item[0])))


def read_contents(
    butler: Butler,
    *,
    title: str,
    repository: str = "REPO",
    name: str = "restored_coadd",
    where: str = "",
    progress: Callable[[int, int, str], None] | None = None,
) -> ReportContents:
    """Read what a report shows.

    Parameters
    ----------
    butler
        A Butler with default collections.
    title
        Title of the report.
    repository
        Where the repository is, for the lines that read from it.
    name
        Dataset type of the restored coadds, with which those of the others
        begin.
    where
        Constraint on the data IDs, in the language of Butler queries.
    progress
        Function called before each patch and band with the number done, the
        number to do, and its name.

    Returns
    -------
    contents : `ReportContents`
        What was found.

    Raises
    ------
    ReportError
        If there is no dataset about quality.
    """
    qualities = _find(butler, f"{name}_quality", where)
    if not qualities:
        raise ReportError(
            f"There is no {name}_quality in {', '.join(butler.collections.defaults)}"
            f"{' where ' + where if where else ''}: run the tasks of the pipeline's subset 'diagnose' first."
        )
    plots = {_key(ref): _uri(butler, ref) for ref in _find(butler, f"{name}_plot", where)}
    colors = {_key(ref): _uri(butler, ref) for ref in _find(butler, f"{name}_color_plot", where)}
    injected = {_key(ref): _uri(butler, ref) for ref in _find(butler, f"{name}_injection_plot", where)}
    tract_colors = {
        _key(ref)[:2]: _uri(butler, ref) for ref in _find(butler, f"{name}_tract_color_plot", where)
    }
    injections = _read_injections(butler, _find(butler, f"{name}_injections", where))
    coadds = {suffix: {_key(r): r for r in _find(butler, name + suffix, where)} for suffix in _COADDS}
    bands: dict[tuple[str, int, int], list[_BandContents]] = {}
    for done, ref in enumerate(qualities):
        key = _key(ref)
        if progress is not None:
            progress(done, len(qualities), f"patch {ref.dataId['patch']}, {ref.dataId['band']}")
        planes = {
            plane: butler.getDeferred(found[key].makeComponentRef(component))
            for plane, suffix, component in _PLANES
            if key in (found := coadds[suffix])
        }
        datasets = {
            name + suffix: uri
            for suffix, found in coadds.items()
            if key in found and (uri := _uri(butler, found[key])) is not None
        }
        contents = _BandContents(
            band=str(ref.dataId["band"]),
            data_id=dict(ref.dataId.required),
            quality=butler.get(ref),
            plot=plots.get(key),
            injection_plot=injected.get(key),
            planes=planes,
            datasets=datasets,
        )
        bands.setdefault(key[:3], []).append(contents)
    patches = [
        _PatchContents(*key, sorted(found, key=lambda band: band_order(band.band)), colors.get((*key, None)))
        for key, found in sorted(bands.items())
    ]
    tracts = [
        _TractContents(
            *key,
            [patch for patch in patches if (patch.skymap, patch.tract) == key],
            tract_colors.get(key),
            injections.get(key, {}),
        )
        for key in dict.fromkeys((patch.skymap, patch.tract) for patch in patches)
    ]
    return ReportContents(title, repository, list(butler.collections.defaults), tracts)


def _read_injections(
    butler: Butler, refs: Sequence[DatasetRef]
) -> dict[tuple[str, int], dict[str, list[dict[str, Any]]]]:
    """Return completeness and fluxes of injected sources by tract and band."""
    tables: dict[tuple[Any, ...], list[Table]] = {}
    for ref in refs:
        skymap, tract, _, band = _key(ref)
        with contextlib.suppress(FileNotFoundError):
            tables.setdefault((skymap, tract, band), []).append(butler.get(ref))
    found: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    for skymap, tract, band in sorted(tables, key=lambda key: (*key[:2], band_order(key[2]))):
        sources = vstack(tables[skymap, tract, band], metadata_conflicts="silent")
        end = "_is_detected"
        images = [column.removesuffix(end) for column in sources.colnames if column.endswith(end)]
        bins = injection_bins(sources, images, step=_BIN_STEP)
        if bins:
            found.setdefault((skymap, tract), {})[band] = bins
    return found


def _file_name(*parts: object) -> str:
    """Return a unique name for files and URLs made of values of a data ID."""
    words = [re.sub(r"[^A-Za-z0-9_.+-]", lambda match: f"={ord(match[0]):x}=", str(part)) for part in parts]
    name = "-".join(words)
    return f"={name}" if name.startswith(".") else name


def _find(butler: Butler, dataset_type: str, where: str) -> list[DatasetRef]:
    """Find the datasets of a type; a constraint on dimensions that it does
    not have finds those of the dimensions that it has.
    """
    try:
        # Without a limit, beyond which datasets would be left out.
        refs = butler.query_datasets(dataset_type, where=where, limit=None, explain=False)
        return sorted(refs, key=lambda ref: str(_key(ref)))
    except MissingDatasetTypeError:
        return []


def _key(ref: DatasetRef) -> tuple[Any, ...]:
    """Return sky map, tract, patch and band; `None` for what is not given."""
    values = ref.dataId.required
    return tuple(values.get(name) for name in ("skymap", "tract", "patch", "band"))


def _uri(butler: Butler, ref: DatasetRef) -> ResourcePath | None:
    try:
        return butler.getURI(ref)
    except (DatasetNotFoundError, FileNotFoundError, LookupError, RuntimeError):
        # Not written, or not as one file.
        return None
