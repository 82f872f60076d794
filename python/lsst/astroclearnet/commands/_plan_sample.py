# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs and variances of a sample of the visit images of a campaign."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    InvalidQueryError,
    MissingDatasetTypeError,
)
from lsst.sphgeom import ConvexPolygon

from ..adapters import PatchGeometry, UnusableExposureError, VisitPsf, read_visit_psf
from ..report import band_order
from ._butler import choose_sky_map
from ._errors import CommandError
from ._patch_cost import PatchCost
from ._progress import Report
from ._sky_map_patches import TractPatch, read_sky_map

type Array = npt.NDArray[np.float64]

type VisitKey = tuple[str, int, int]
"""Values of `_VISIT_DIMENSIONS`."""

_VISIT_DIMENSIONS = ("instrument", "visit", "detector")

_EVERYWHERE: TractPatch = (-1, -1)
"""Key of all exposures of a band where there is no sky map."""

_MIN_EXPOSURES = 12
"""Exposures that a thinned patch keeps, so that the mean of their power
spectra is like that of all."""

_MIN_FRACTION = 0.05
"""Exposures that cover less of a patch are not counted among its own."""


@dataclasses.dataclass(frozen=True)
class PatchStack:
    """PSFs and variances of the n exposures of a patch."""

    psfs: Array  # (n, P, P), sum 1, on pixels of the patch
    levels: Array  # (n,), variance of blank sky over the fraction covered
    pixel_scale: float  # arcsec
    side: float = 1.0  # of a pixel of the exposures, in pixels of the patch
    cost: PatchCost | None = None  # without a sky map unknown


@dataclasses.dataclass(frozen=True)
class BandSample:
    """Exposures of a band that were read, by patch."""

    band: str
    patches: tuple[PatchStack, ...]
    num_exposures: int
    num_exposures_found: int
    num_patches_found: int  # 0 without a sky map


@dataclasses.dataclass(frozen=True)
class CampaignSample:
    """Exposures of a campaign that were read, by band, bluest first."""

    bands: tuple[BandSample, ...]
    skymap: str | None
    skipped: Mapping[str, int]  # number of unusable visit images by reason
    # Visit images of each band on each patch, not only those that were read.
    counts: Mapping[TractPatch, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def side(self) -> float:
        """Typical side of the pixels of exposures in pixels of the patches."""
        return float(np.median([patch.side for band in self.bands for patch in band.patches]))


def sample_campaign(
    butler: Butler,
    *,
    dataset_type: str = "visit_image",
    skymap: str | None = None,
    where: str = "",
    bands: Sequence[str] = (),
    max_exposures: int = 60,
    progress: Report | None = None,
) -> CampaignSample:
    """Read the PSFs and variances of the visit images of a campaign.

    If a band has more than ``max_exposures``, patches evenly spaced in the
    order of their IDs are looked at, and of each of them visit images evenly
    spaced in the order of instrument, visit and detector: at least 12, so that
    a patch has the mixture of seeing that it has in the campaign.

    Without a sky map, the exposures of a band count as one patch with the
    smallest of their pixels.
    """
    skymap = choose_sky_map(butler, skymap)
    found = _find_exposures(butler, dataset_type, skymap, where)
    if missing := [band for band in bands if band not in found]:
        raise CommandError(f"There is no {dataset_type} in band {missing[0]!r}, only in {', '.join(found)}.")
    chosen = {band: thin(found[band], max_exposures) for band in found if band in bands or not bands}
    reader = _VisitReader(butler, dataset_type)
    reader.read({key for groups in chosen.values() for keys in groups.values() for key in keys}, progress)
    read_patch = read_sky_map(butler, skymap)
    samples = []
    for band, groups in chosen.items():
        used: set[VisitKey] = set()
        stacks = [
            reader.stack(
                keys,
                None if read_patch is None else read_patch(patch),
                _region(butler, skymap, patch),
                len(found[band][patch]),
                used,
            )
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
    counts: dict[TractPatch, dict[str, int]] = defaultdict(dict)
    for sample in samples if skymap is not None else ():
        for patch, keys in found[sample.band].items():
            counts[patch][sample.band] = len(keys)
    return CampaignSample(tuple(samples), skymap, skipped, counts)


def even_sample[T](items: Sequence[T], number: int) -> list[T]:
    """Return the middle items of as many equal parts; all items if there are
    not more.
    """
    number = min(number, len(items))
    return [items[(2 * k + 1) * len(items) // (2 * number)] for k in range(number)]


def thin(groups: Mapping[TractPatch, list[VisitKey]], limit: int) -> dict[TractPatch, list[VisitKey]]:
    """Choose patches and visit images of each, up to a number of these."""
    if len({key for keys in groups.values() for key in keys}) <= limit:
        return dict(groups)
    quota = min(limit, max(_MIN_EXPOSURES, limit // len(groups)))
    patches = even_sample(list(groups), limit // quota)
    return {patch: even_sample(groups[patch], quota) for patch in patches}


def _find_exposures(
    butler: Butler, dataset_type: str, skymap: str | None, where: str
) -> dict[str, dict[TractPatch, list[VisitKey]]]:
    """Find visit images by band, in order of wavelength, and patch."""
    collections = list(butler.collections.defaults)
    try:
        with butler.query() as query:
            query = query.join_dataset_search(dataset_type, collections)
            if skymap is not None:
                query = query.where(skymap=skymap)
            if where:
                query = query.where(where)
            patch_names = ("skymap", "tract", "patch") if skymap is not None else ()
            data_ids: Iterable[DataCoordinate] = list(
                query.data_ids([*_VISIT_DIMENSIONS, "band", *patch_names])
            )
    except MissingDatasetTypeError:
        data_ids = ()
    except InvalidQueryError as exc:
        raise CommandError(f"--where {where!r}: {exc}") from exc
    found: dict[str, dict[TractPatch, set[VisitKey]]] = defaultdict(lambda: defaultdict(set))
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


def _region(butler: Butler, skymap: str | None, patch: TractPatch) -> ConvexPolygon | None:
    """Return the region of a patch on the sky; `None` without a sky map."""
    if skymap is None:
        return None
    (record,) = butler.query_dimension_records("patch", skymap=skymap, tract=patch[0], patch=patch[1])
    return record.region


class _VisitReader:
    """Visit images, each read once for all patches that it covers."""

    def __init__(self, butler: Butler, dataset_type: str) -> None:
        self.skipped: dict[VisitKey, str] = {}
        self._butler = butler
        self._dataset_type = dataset_type
        self._visits: dict[VisitKey, VisitPsf] = {}

    def read(self, keys: set[VisitKey], progress: Report | None) -> None:
        """Read visit images, and note why others cannot be used."""
        for done, key in enumerate(sorted(keys)):
            if progress is not None:
                progress(done, len(keys), "{} visit {}, detector {}".format(*key))
            data_id = dict(zip(_VISIT_DIMENSIONS, key, strict=True))
            try:
                self._visits[key] = read_visit_psf(self._butler.getDeferred(self._dataset_type, data_id))
            except UnusableExposureError as exc:
                self.skipped[key] = exc.reason

    def stack(
        self,
        keys: Iterable[VisitKey],
        geometry: PatchGeometry | None,
        region: ConvexPolygon | None,
        number: int,
        used: set[VisitKey],
    ) -> PatchStack | None:
        """Bring the usable exposures of a patch, which are added to ``used``,
        onto its pixels; ``number`` is that of all which it has.
        """
        visits = {key: self._visits[key] for key in keys if key in self._visits}
        if not visits:
            return None
        own = [visit.pixel_scale for visit in visits.values()]
        scale = round(min(own), 4) if geometry is None else geometry.pixel_scale
        side = float(np.median(own)) / scale
        stamps: list[Array] = []
        levels: list[float] = []
        for key, visit in visits.items():
            overlap = visit.overlap(region)
            if overlap is None or overlap.fraction < _MIN_FRACTION:
                continue
            try:
                stamps.append(visit.psf_stamp(visit.psf, y=overlap.y, x=overlap.x, pixel_scale=scale))
            except UnusableExposureError as exc:
                self.skipped[key] = exc.reason
                continue
            levels.append(visit.resize_variance(visit.level, scale) / overlap.fraction)
            used.add(key)
        if not stamps:
            return None
        size = max(len(stamp) for stamp in stamps)
        psfs = [np.pad(stamp, (size - len(stamp)) // 2) for stamp in stamps]
        cost = None if geometry is None else PatchCost.predict(geometry, number, side)
        return PatchStack(np.stack(psfs), np.array(levels), scale, side, cost)
