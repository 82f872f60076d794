# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Register a sky map with smaller pixels."""

from __future__ import annotations

import dataclasses

from lsst.daf.butler import Butler, DatasetRef, MissingDatasetTypeError
from lsst.daf.butler.registry import ConflictingDefinitionError

from ..adapters import SkyMapGeometry, refine_legacy_sky_map, refine_sky_map
from ..repository import register_sky_map
from ._butler import choose_sky_map, require_repository
from ._errors import CommandError

_GEOMETRY, _LEGACY = "skymap_geometry", "skyMap"
"""Dataset types of sky maps, without and with the full stack."""


@dataclasses.dataclass(frozen=True)
class RefinedSkyMap:
    """A sky map that was registered, and the one that it refines."""

    skymap: str
    original: str
    factor: int
    collection: str

    @property
    def text(self) -> str:
        """What was registered, and how to go on."""
        return (
            f"Sky map {self.skymap!r}: the tracts and patches of {self.original!r}, with pixels smaller by "
            f"{self.factor}, in {self.collection}.\n"
            "Restore it as that one, with the collections of the visit images and the sky map as input and\n"
            f"  -d \"skymap='{self.skymap}'\"\n"
            "What it costs, and a target PSF in arcsec:\n"
            f"  astroclearnet plan REPO --input COLLECTION,... --skymap {self.skymap}\n"
            "The repository has several sky maps now: plan, hips, refine-skymap and, before a run has ended "
            f"patches, status need --skymap {self.original} or --skymap {self.skymap}."
        )


def refine(root: str, *, skymap: str | None, factor: int, name: str | None = None) -> RefinedSkyMap:
    """Register a sky map with the same tracts and patches and smaller pixels.

    What is registered already is left as it is; the same again changes
    nothing.
    """
    require_repository(root)
    butler = Butler.from_config(root, writeable=True)
    original = choose_sky_map(butler, skymap)
    if original is None:
        raise CommandError(f"There is no sky map in {root}.")
    name = f"{original}_x{factor}" if name is None else name
    ref, dataset_type = _find_definition(butler, original)
    try:
        if dataset_type == _GEOMETRY:
            geometry = refine_sky_map(SkyMapGeometry.from_dict(butler.get(ref)), factor, name)
            collection = register_sky_map(butler, geometry, ref.run).run
        else:
            finer = refine_legacy_sky_map(butler.get(ref), factor)
            finer.register(name, butler)
            collection = finer.SKYMAP_RUN_COLLECTION_NAME
    except ConflictingDefinitionError as exc:
        raise CommandError(
            f"{root} has a sky map {name!r} with another definition, or this one by another name; choose "
            "another with --name."
        ) from exc
    return RefinedSkyMap(name, original, factor, collection)


def _find_definition(butler: Butler, skymap: str) -> tuple[DatasetRef, str]:
    """Return the dataset that defines a sky map, and its type."""
    for dataset_type in (_GEOMETRY, _LEGACY):
        try:
            found = butler.query_datasets(dataset_type, "*", find_first=False, explain=False, skymap=skymap)
        except MissingDatasetTypeError:
            continue
        if found:
            return found[0], dataset_type
    raise CommandError(f"No dataset {_GEOMETRY} or {_LEGACY} defines the sky map {skymap!r}.")
