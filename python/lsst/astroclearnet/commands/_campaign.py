# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Find the visit images of a campaign and read the PSFs of a sample."""

from __future__ import annotations

__all__ = ("BandSample", "CampaignSample", "choose_sky_map", "even_sample", "sample_campaign")

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    EmptyQueryResultError,
    InvalidQueryError,
    MissingDatasetTypeError,
)
from lsst.sphgeom import ConvexPolygon

from ..adapters import SkyMapGeometry
from ..report import band_order
from ._errors import CommandError
from ._visit_reader import VISIT_DIMENSIONS, PatchStack, Progress, VisitKey, VisitReader

type PatchKey = tuple[int, int]

_PATCH = ("tract", "patch")

_EVERYWHERE: PatchKey = (-1, -1)
"""Key of all exposures of a band where there is no sky map."""

_MIN_EXPOSURES = 12
"""Exposures that a thinned patch keeps, so that the mean of their power
spectra is like that of all."""


@dataclasses.dataclass(frozen=True)
class BandSample:
    """What was read of a band.

    Attributes
    ----------
    band
        Name of the band.
    patches
        At least one patch.
    num_exposures, num_exposures_found
        Visit images read with success, and those that there are.
    num_patches_found
        Patches that there are; 0 without a sky map.
    """

    band: str
    patches: tuple[PatchStack, ...]
    num_exposures: int
    num_exposures_found: int
    num_patches_found: int


@dataclasses.dataclass(frozen=True)
class CampaignSample:
    """What was read of a campaign.

    Attributes
    ----------
    bands
        At least one band, in order of wavelength.
    skymap
        Name of the sky map whose patches were looked at, if any.
    skipped
        Number of visit images that could not be used, by reason.
    """

    bands: tuple[BandSample, ...]
    skymap: str | None
    skipped: Mapping[str, int]


def sample_campaign(
    butler: Butler,
    *,
    dataset_type: str = "visit_image",
    skymap: str | None = None,
    where: str = "",
    bands: Sequence[str] = (),
    max_exposures: int = 60,
    progress: Progress | None = None,
) -> CampaignSample:
    """Read the PSFs and variances of the visit images of a campaign.

    At most ``max_exposures`` visit images of a band are read.  If there are
    more, patches evenly spaced in the order of their IDs are looked at, and
    of each of them visit images evenly spaced in the order of instrument,
    visit and detector: at least 12, so that a patch has the mixture of seeing
    that it has in the campaign.

    Parameters
    ----------
    butler
        A Butler whose default collections hold the visit images.
    dataset_type
        Name of their dataset type.
    skymap
        Sky map whose patches are looked at; by default the only one of the
        repository.  Without any, the exposures of a band count as one patch
        with the smallest of their pixels.
    where
        Expression of the Butler's query language that selects visit images
        and patches.
    bands
        Bands to read; all by default.
    max_exposures
        Number of visit images to read of a band.
    progress
        Function called before each visit image with the number done, the
        number to do, and its name.

    Returns
    -------
    sample : `CampaignSample`
        What could be read.

    Raises
    ------
    CommandError
        If there is nothing to read, nothing read is usable, or an argument
        names what does not exist.
    """
    skymap = choose_sky_map(butler, skymap)
    found = _find_exposures(butler, dataset_type, skymap, where)
    if missing := [band for band in bands if band not in found]:
        raise CommandError(f"There is no {dataset_type} in band {missing[0]!r}, only in {', '.join(found)}.")
    chosen = {band: _thin(found[band], max_exposures) for band in found if band in bands or not bands}
    reader = VisitReader(butler, dataset_type)
    reader.read({key for groups in chosen.values() for keys in groups.values() for key in keys}, progress)
    scales = _pixel_scales(butler, skymap, {patch for groups in chosen.values() for patch in groups})
    samples = []
    for band, groups in chosen.items():
        used: set[VisitKey] = set()
        stacks = [
            reader.stack(keys, _region(butler, skymap, patch), scales.get(patch), used)
            for patch, keys in groups.items()
        ]
        patches = tuple(stack for stack in stacks if stack is not None)
        if patches:
            number = len({key for keys in found[band].values() for key in keys})
            samples.append(BandSample(band, patches, len(used), number, len(found[band]) if skymap else 0))
    skipped = dict(sorted(Counter(reader.skipped.values()).items()))
    if not samples:
        reasons = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
        raise CommandError(f"No visit image can be used: {reasons or 'none covers enough of a patch'}.")
    return CampaignSample(tuple(samples), skymap, skipped)


def even_sample[T](items: Sequence[T], number: int) -> list[T]:
    """Return items that are evenly spaced in a sequence.

    Parameters
    ----------
    items
        The sequence.
    number
        How many to take at most.

    Returns
    -------
    sample : `list`
        The middle items of ``number`` equal parts; all items if there are not
        more.
    """
    number = min(number, len(items))
    return [items[(2 * k + 1) * len(items) // (2 * number)] for k in range(number)]


def _thin(groups: Mapping[PatchKey, list[VisitKey]], limit: int) -> dict[PatchKey, list[VisitKey]]:
    """Choose patches, and visit images of each of them.

    Parameters
    ----------
    groups
        Visit images of each patch.
    limit
        Number of visit images at most.

    Returns
    -------
    thinned : `dict`
        Part of the groups.
    """
    if len({key for keys in groups.values() for key in keys}) <= limit:
        return dict(groups)
    quota = min(limit, max(_MIN_EXPOSURES, limit // len(groups)))
    patches = even_sample(list(groups), limit // quota)
    return {patch: even_sample(groups[patch], quota) for patch in patches}


def choose_sky_map(butler: Butler, name: str | None) -> str | None:
    """Return the sky map to use.

    Parameters
    ----------
    butler
        The Butler.
    name
        What the user asks for.

    Returns
    -------
    skymap : `str` or `None`
        Its name; `None` if the repository has no sky map.

    Raises
    ------
    CommandError
        If there is no such sky map, or a choice.
    """
    records = butler.query_dimension_records("skymap", explain=False)
    names = sorted(str(record.name) for record in records)
    if name is None and len(names) > 1:
        raise CommandError(f"There are several sky maps; choose one with --skymap: {', '.join(names)}.")
    if name is not None and name not in names:
        raise CommandError(f"There is no sky map {name!r}; there is {', '.join(names) or 'none'}.")
    return names[0] if name is None and names else name


def _find_exposures(
    butler: Butler, dataset_type: str, skymap: str | None, where: str
) -> dict[str, dict[PatchKey, list[VisitKey]]]:
    """Find the visit images of each band and patch.

    Parameters
    ----------
    butler
        The Butler.
    dataset_type
        Name of the dataset type.
    skymap
        Name of the sky map, if any.
    where
        Expression that selects among them.

    Returns
    -------
    found : `dict`
        Sorted keys of visit images by band, in order of wavelength, and
        patch, sorted.

    Raises
    ------
    CommandError
        If there is none, or the expression is not understood.
    """
    collections = list(butler.collections.defaults)
    try:
        with butler.query() as query:
            query = query.join_dataset_search(dataset_type, collections)
            if skymap is not None:
                query = query.where(skymap=skymap)
            if where:
                query = query.where(where)
            names = [*VISIT_DIMENSIONS, "band", *(("skymap", *_PATCH) if skymap is not None else ())]
            data_ids: Iterable[DataCoordinate] = list(query.data_ids(names))
    except (EmptyQueryResultError, MissingDatasetTypeError):
        data_ids = ()
    except InvalidQueryError as exc:
        raise CommandError(f"--where {where!r}: {exc}") from exc
    found: dict[str, dict[PatchKey, set[VisitKey]]] = defaultdict(lambda: defaultdict(set))
    for data_id in data_ids:
        patch = (int(data_id["tract"]), int(data_id["patch"])) if skymap is not None else _EVERYWHERE
        key = (str(data_id["instrument"]), int(data_id["visit"]), int(data_id["detector"]))
        found[str(data_id["band"])][patch].add(key)
    if not found:
        place = f" on the patches of sky map {skymap!r}" if skymap is not None else ""
        selected = f" with {where}" if where else ""
        raise CommandError(f"There is no {dataset_type} in {', '.join(collections)}{place}{selected}.")
    return {
        band: {patch: sorted(groups[patch]) for patch in sorted(groups)}
        for band, groups in sorted(found.items(), key=lambda item: band_order(item[0]))
    }


def _pixel_scales(butler: Butler, skymap: str | None, patches: Iterable[PatchKey]) -> dict[PatchKey, float]:
    """Return the size of the pixels of patches.

    Parameters
    ----------
    butler
        The Butler.
    skymap
        Name of the sky map, if any.
    patches
        The patches.

    Returns
    -------
    scales : `dict`
        In arcsec; empty without a dataset ``skymap_geometry``.
    """
    if skymap is None:
        return {}
    try:
        ref = butler.find_dataset("skymap_geometry", skymap=skymap)
    except MissingDatasetTypeError:
        ref = None
    if ref is None:
        return {}
    geometry = SkyMapGeometry.from_dict(butler.get(ref))
    return {patch: geometry.tract(patch[0]).pixel_scale_arcsec for patch in patches}


def _region(butler: Butler, skymap: str | None, patch: PatchKey) -> ConvexPolygon | None:
    """Return the region of a patch on the sky.

    Parameters
    ----------
    butler
        The Butler.
    skymap
        Name of the sky map, if any.
    patch
        The patch.

    Returns
    -------
    region : `lsst.sphgeom.ConvexPolygon` or `None`
        The region.
    """
    if skymap is None:
        return None
    (record,) = butler.query_dimension_records("patch", skymap=skymap, tract=patch[0], patch=patch[1])
    return record.region
