# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The methods of the benchmark, by name, each loaded when it is run."""

from __future__ import annotations

__all__ = ("GROUPS", "METHODS", "Method")

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from lsst.astroclearnet.core import DebiasingOptions

from ..baselines import Restorer
from ..scenes import Scene
from .product import Product


@dataclasses.dataclass(frozen=True)
class Method:
    """A method and how much of the benchmark it is given.

    Attributes
    ----------
    run
        Function of the scene, the target FWHM in pixels and the seed, which
        yields the products of each stop.
    group
        Group of methods that it belongs to, one of `GROUPS`.
    is_slow
        Whether it takes minutes for one scene; it then sees fewer of them.
    kinds
        Kinds of scenes that it is given; all by default.
    package
        Name of a package that it needs and that need not be installed.
    """

    run: Callable[[Scene, float, int], Iterator[list[Product]]]
    group: str = "baselines"
    is_slow: bool = False
    kinds: tuple[str, ...] | None = None
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs is there (`bool`)."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


GROUPS = ("ours", "baselines", "peers", "ablations", "wrong_psfs")
"""Groups of methods."""


def _restorer(
    module: str, class_name: str, **options: Any
) -> Callable[[Scene, float, int], Iterator[list[Product]]]:
    """Return a function that runs a `Restorer`."""

    def run(scene: Scene, target_fwhm: float, seed: int) -> Iterator[list[Product]]:
        method: Restorer = getattr(importlib.import_module(module), class_name)(**options)
        stops = method.restore(
            scene.images, scene.variances, scene.good, scene.psfs, target_fwhm=target_fwhm, seed=seed
        )
        for stop in stops:
            yield [Product(method.name, stop.image, stop.fwhm, stop.variance, stop.iteration)]

    return run


def _restore(scene: Scene, target_fwhm: float, seed: int) -> Iterator[list[Product]]:
    """Run the restoration; one run yields both of its products."""
    from lsst.astroclearnet.core import MaskBit, restore

    result = restore(
        scene.images,
        scene.variances,
        scene.good,
        scene.psfs,
        target_fwhm=target_fwhm,
        positions=scene.positions,
        seed=seed,
    )
    flagged = (result.mask & (MaskBit.INPAINTED | MaskBit.NO_DATA)) > 0
    yield [
        Product("restored_coadd", result.image, target_fwhm, result.variance, flagged=flagged),
        Product(
            "restored_coadd_linear",
            result.linear_image,
            target_fwhm,
            result.linear_variance,
            correlation=result.linear_noise.correlation,
            flagged=flagged,
        ),
    ]


def _ablation(name: str) -> Method:
    """Return our method without one of its parts."""

    def run(scene: Scene, target_fwhm: float, seed: int) -> Iterator[list[Product]]:
        from .ablations import ABLATIONS

        yield [ABLATIONS[name](scene, target_fwhm, seed)]

    return Method(run, "ablations", is_slow=True, kinds=_ABLATED_KINDS)


def _wrong_psfs(scene: Scene, target_fwhm: float, seed: int) -> Iterator[list[Product]]:
    """Run the restoration with PSFs of wrong widths."""
    from .psf_error import restore_with_wrong_psfs

    yield from restore_with_wrong_psfs(scene, target_fwhm, seed)


_BASELINES = "astroclearnet_benchmarks.baselines"
_PEERS = "astroclearnet_benchmarks.peers"
_ABLATED_KINDS = ("field", "stars")
_BLOCK = 64
"""Side of the middle of a scene that PyIMCOM combines: the whole would take
an hour."""

METHODS: dict[str, Method] = {
    "inverse_variance": Method(_restorer(_BASELINES, "InverseVarianceCoadd")),
    "psf_matched": Method(_restorer(_BASELINES, "PsfMatchedCoadd")),
    "wiener": Method(_restorer(_BASELINES, "WienerFilter")),
    "gls": Method(
        _restorer(
            _BASELINES,
            "WienerFilter",
            max_psf_residual=DebiasingOptions().max_psf_residual,
            name="GLS of equal PSF residual",
        )
    ),
    "richardson_lucy": Method(_restorer(_BASELINES, "RichardsonLucy"), is_slow=True),
    "image_mm": Method(_restorer(_BASELINES, "ImageMM"), is_slow=True),
    "deep_image_prior": Method(_restorer(_BASELINES, "DeepImagePrior"), is_slow=True),
    "published": Method(_restorer(_BASELINES, "PublishedAstroClearNet"), is_slow=True),
    "starred": Method(_restorer(_PEERS, "Starred"), "peers", is_slow=True, package="starred"),
    "jolideco": Method(_restorer(_PEERS, "Jolideco"), "peers", is_slow=True, package="jolideco"),
    "pyimcom": Method(
        _restorer(_PEERS, "PyImcom", block=_BLOCK),
        "peers",
        is_slow=True,
        kinds=("field", "stars"),
        package="pyimcom",
    ),
    "published_target": Method(
        _restorer("astroclearnet_benchmarks.quality.ablations", "PublishedAtTarget"),
        "ablations",
        is_slow=True,
        kinds=_ABLATED_KINDS,
    ),
    "no_hold_out": _ablation("no_hold_out"),
    "no_robust_loss": _ablation("no_robust_loss"),
    "no_rejection": _ablation("no_rejection"),
    "no_debiasing": _ablation("no_debiasing"),
    "restore": Method(_restore, "ours"),
    "wrong_psfs": Method(_wrong_psfs, "wrong_psfs", is_slow=True, kinds=("stars",)),
}
"""Methods by the name that the command line takes."""
