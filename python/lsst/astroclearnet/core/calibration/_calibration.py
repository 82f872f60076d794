# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Exposures that agree with each other: what does not is left out."""

from __future__ import annotations

__all__ = (
    "Agreement",
    "reach_agreement",
)

import dataclasses
from collections.abc import Iterable, Iterator

import torch

from .._options import BACKGROUND_MODELS, RestoreOptions
from ..exposures import Tile, model_variances
from ..forward import ForwardModel, Part, PartReader, SettledPart, is_covered
from ..outliers import TileOutliers, likelihood_variances, reject_outliers
from ._alignment import align_exposures
from ._background import BackgroundDifferences, BackgroundPart, fit_backgrounds
from ._blank_sky import SkyNoise, log_sky_noise, measure_sky_noise
from ._offsets import Departures, find_contradictions, measure_departures

_NUM_ROUNDS = 3
"""How often variances are measured at most: those of the others have a share
in what is left of an exposure."""


_ROUNDING = 0.03
"""Relative change of a variance that changes nothing."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What makes the exposures of a patch agree.

    Attributes
    ----------
    background
        Differences of background to be removed.
    departures
        By how much exposures departed from the others.
    contradictions
        Why exposures are left out, by their index.
    doubts
        Why exposures that are not left out may be wrong, by their index.
    noise
        What blank sky tells of the variances.
    options
        Settings.
    """

    background: BackgroundDifferences
    departures: Departures
    contradictions: dict[int, str]
    doubts: dict[int, str]
    noise: SkyNoise
    options: RestoreOptions
    _rejected: dict[Tile, TileOutliers]

    @classmethod
    def nothing(cls, num_exposures: int, options: RestoreOptions) -> Agreement:
        """Return what is known before exposures are compared.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.
        options
            Settings.

        Returns
        -------
        agreement : `Agreement`
            One that changes nothing.
        """
        return cls(
            background=BackgroundDifferences.none(num_exposures),
            departures=Departures.nothing(num_exposures),
            contradictions={},
            doubts={},
            noise=SkyNoise.nothing(num_exposures),
            options=options,
            _rejected={},
        )

    def correct(self, part: Part) -> Part:
        """Remove what is wrong with whole exposures.

        Parameters
        ----------
        part
            A tile.

        Returns
        -------
        corrected : `Part`
            Without the exposures that contradict others and the differences
            of background, with variances as blank sky has them, and with flux
            scales and positions corrected if that was asked for.
        """
        stack, model = part.stack, part.model
        out = [k for k, t in enumerate(part.exposures.tolist()) if t in self.contradictions]
        if out:
            stack = stack.replace(good=stack.good.clone())
            stack.good[out] = False
        departures = self.departures.values[:3, part.exposures].to(stack.device)
        departures[:, out] = 0.0
        if self.options.agreement.correct and bool(departures.any()):
            stack = align_exposures(stack, departures)
            model = ForwardModel.from_stack(stack, model.target_fwhm)
        background = self.background.within(part.tile, part.exposures)
        if bool(background.coefficients.any()):
            images = (stack.images - background.evaluate(model)) * stack.good
            stack = stack.replace(images=images)
        return self.noise.rescale(dataclasses.replace(part, stack=stack, model=model))

    def leaves_data(self, part: Part) -> bool:
        """Tell whether a tile has data without the exposures left out.

        Parameters
        ----------
        part
            A tile.

        Returns
        -------
        leaves : `bool`
            Whether the others cover any of its pixels.
        """
        kept = [t not in self.contradictions for t in part.exposures.tolist()]
        if all(kept):
            return True
        good = part.stack.good & torch.tensor(kept, device=part.stack.device)[:, None, None]
        return is_covered(part.model, good)

    def settle(self, part: Part) -> SettledPart:
        """Remove from a tile what exposures do not agree in.

        Parameters
        ----------
        part
            A tile.

        Returns
        -------
        settled : `SettledPart`
            What is left.
        """
        part = self.correct(part)
        rejected = self._find_rejected(part)
        cleaned = part.stack.replace(good=part.stack.good & ~rejected)
        variances = likelihood_variances(cleaned, part.model)
        return SettledPart(dataclasses.replace(part, stack=cleaned), variances, rejected)

    def reject(self, parts: Iterable[Part]) -> Agreement:
        """Find outliers in all tiles.

        Parameters
        ----------
        parts
            The tiles.

        Returns
        -------
        agreement : `Agreement`
            The same, with the pixels that others contradict.
        """
        found = {}
        for part in filter(self.leaves_data, parts):
            corrected = self.correct(part)
            outliers = reject_outliers(corrected.stack, corrected.model, self.options.rejection)
            found[part.tile] = TileOutliers.from_part(part, outliers)
        return dataclasses.replace(self, _rejected=found)

    def _find_rejected(self, part: Part) -> torch.Tensor:
        """Return the pixels of a corrected tile that others contradict."""
        exact = self._rejected.get(part.tile)
        known = [exact] if exact else [one for one in self._rejected.values() if one.covers(part.tile)]
        if not known:
            return reject_outliers(part.stack, part.model, self.options.rejection)
        return known[0].within(part) & part.stack.good


def reach_agreement(reader: PartReader, options: RestoreOptions) -> Agreement:
    """Find out what exposures contradict each other in.

    Parameters
    ----------
    reader
        Tiles that cover the patch; they are gone through several times.
    options
        Settings.

    Returns
    -------
    agreement : `Agreement`
        What makes them agree.
    """
    number = reader.source.num_exposures
    settled = _settle(reader, Agreement.nothing(number, options))
    departures = measure_departures(map(settled.settle, reader), number)
    found = find_contradictions(departures, options.agreement)
    known = dataclasses.replace(
        Agreement.nothing(number, options),
        departures=dataclasses.replace(departures, sources=None),
        contradictions=found.wrong,
        doubts=found.doubtful,
    )
    if found.wrong or options.agreement.correct:
        # Everything was judged by exposures that were wrong.
        return _settle(reader, known)
    return dataclasses.replace(
        known, background=settled.background, noise=settled.noise, _rejected=settled._rejected
    )


def _settle(reader: PartReader, agreement: Agreement) -> Agreement:
    """Remove differences of background, check variances, and find outliers."""
    first = _flatten(reader, agreement)
    agreement = _check_variances(reader, dataclasses.replace(agreement, background=first)).reject(reader)
    # Artefacts that were not flagged had a share in the first backgrounds.
    second = _flatten(reader, agreement)
    total = dataclasses.replace(second, coefficients=first.coefficients + second.coefficients)
    return dataclasses.replace(agreement, background=total)


def _check_variances(reader: PartReader, agreement: Agreement) -> Agreement:
    """Rescale variances until blank sky agrees with them."""
    for _ in range(_NUM_ROUNDS):
        before = agreement.noise
        parts = map(agreement.correct, filter(agreement.leaves_data, reader))
        noise = measure_sky_noise(parts, reader.source.shape, before)
        agreement = dataclasses.replace(agreement, noise=noise)
        if torch.allclose(noise.factor, before.factor.expand_as(noise.factor), rtol=_ROUNDING):
            break
    log_sky_noise(agreement.noise)
    return agreement


def _flatten(reader: PartReader, agreement: Agreement) -> BackgroundDifferences:
    """Return the differences of background that are left."""
    number, options = reader.source.num_exposures, agreement.options.agreement
    if options.background == "none":
        return BackgroundDifferences.none(number)
    order = BACKGROUND_MODELS.index(options.background) - 1
    parts = _BackgroundParts(reader, agreement)
    return fit_backgrounds(parts, reader.source.shape, number, order=order)


class _BackgroundParts:
    """Tiles for the fit of backgrounds; a single one is kept.

    Parameters
    ----------
    reader
        Reads the tiles.
    agreement
        What is known already.
    """

    def __init__(self, reader: PartReader, agreement: Agreement) -> None:
        self._reader = reader
        self._agreement = agreement
        self._kept: list[BackgroundPart] = []

    def __iter__(self) -> Iterator[BackgroundPart]:
        if self._kept:
            yield from self._kept
            return
        for part in filter(self._agreement.leaves_data, self._reader):
            made = self._make(part)
            if len(self._reader.tiles) == 1:
                self._kept = [made]
            yield made

    def _make(self, part: Part) -> BackgroundPart:
        corrected = self._agreement.correct(part)
        stack = corrected.stack
        if part.tile in self._agreement._rejected:
            stack = stack.replace(good=stack.good & ~self._agreement._find_rejected(corrected))
        weights = stack.good / model_variances(stack)
        return BackgroundPart(part.tile, part.exposures, stack.images, corrected.model, weights)
