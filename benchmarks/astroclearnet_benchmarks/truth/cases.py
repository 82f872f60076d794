# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cases of the benchmark: exposures of a scene, and variants of them."""

from __future__ import annotations

__all__ = ("DEFAULT_SUITES", "SUITES", "Case", "Exposures", "expose")

import dataclasses
import logging
from collections.abc import Sequence

from ..record import data_folder
from ..scenes import Scene, SceneOptions, SceneSource, add_exposure, inject, simulate_scene
from .injections import plan_injections, plan_knots

_LOG = logging.getLogger(__name__)

SUITES = {
    "field": "field",
    "injections": "blank",
    "hosts": "hosts",
    "companions": "companions",
    "crowded": "crowded",
    "cluster": "cluster",
    "nebula": "nebula",
    "dithered": "field",
}
"""Kinds of scenes by the suite that is measured on them."""

DEFAULT_SUITES = ("field", "injections", "hosts", "companions")
"""Suites whose measures have limits."""

_MAX_DITHER = 0.5
"""Largest offset in pixels of the grids of exposures that are dithered."""

_BAD_SEEING = 1.5
"""FWHM in arcsec of the exposure that is added."""

_REAL_GALAXIES = "hsc/Cut_HST.fits"


@dataclasses.dataclass(frozen=True)
class Case:
    """What a method is given, and what is measured.

    Attributes
    ----------
    suite
        One of `SUITES`.
    seed
        Seed of everything random in the scene.
    target_fwhm
        FWHM of the target PSF in pixels.
    num_exposures
        Number of exposures.
    shape
        Height and width in pixels.
    """

    suite: str
    seed: int
    target_fwhm: float = 3.0
    num_exposures: int = 12
    shape: tuple[int, int] = (256, 256)

    @property
    def name(self) -> str:
        """Words that tell this case from others, fit for files (`str`)."""
        rows, columns = self.shape
        setting = f"{self.num_exposures}x{rows}x{columns}-{self.target_fwhm:g}"
        return f"{self.suite}-{self.seed}-{setting}"


@dataclasses.dataclass(frozen=True)
class Exposures:
    """The scenes of a case.

    Attributes
    ----------
    scenes
        By variant: ``plain``; ``again``, the same, for another seed of the
        method; ``injected``, with sources at the same noise; ``bad``, with
        one exposure more of 1.5 arcsec.
    sources
        The sources that are injected.
    """

    scenes: dict[str, Scene]
    sources: Sequence[SceneSource] = ()


def expose(case: Case) -> Exposures:
    """Simulate the scenes of a case.

    Real galaxies are injected where their image is among the real exposures
    (see `~astroclearnet_benchmarks.record.data_folder`).

    Parameters
    ----------
    case
        The case.

    Returns
    -------
    exposures : `Exposures`
        Its scenes.
    """
    options = SceneOptions(
        seed=case.seed,
        kind=SUITES[case.suite],
        num_exposures=case.num_exposures,
        shape=case.shape,
        max_dither=_MAX_DITHER if case.suite == "dithered" else 0.0,
    )
    plain = simulate_scene(options)
    match case.suite:
        case "field":
            bad = add_exposure(plain, _BAD_SEEING)
            return Exposures({"plain": plain, "again": plain, "bad": bad})
        case "injections":
            real = data_folder() / _REAL_GALAXIES
            if not real.exists():
                _LOG.warning("No real galaxies are injected: there is no %s", real)
            planned = plan_injections(plain, real if real.exists() else None, case.seed)
        case "hosts":
            planned = plan_knots(plain, case.seed)
        case _:
            return Exposures({"plain": plain})
    injected, sources = inject(plain, planned, case.seed)
    return Exposures({"plain": plain, "injected": injected}, sources)
