# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Jolideco: maximum a posteriori deconvolution of Poisson counts."""

from __future__ import annotations

__all__ = ("Jolideco",)

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.core import ExposureStack, InputError, fwhm_to_sigma

from ..baselines import Restoration, Restorer

_LIBRARY = "JOLIDECO_GMM_LIBRARY"
_MASKED = 1e12
"""Background and counts of a masked pixel: no light of the sky changes the
likelihood of such a number, which serves for the masks the package lacks."""

_FEWEST = 1e-3
"""Smallest photon in units of the sky sigma; a variance plane without photon
noise becomes counts so many that their distribution is Gaussian."""

_BRIGHT, _FAINT = 0.98, 0.5
"""Quantiles of brightness above and below which the photon noise is read off
the variance plane."""


@dataclass(frozen=True)
class Jolideco(Restorer):
    """Jolideco of the package of that name, without its patch prior.

    Donath, Siemiginowska, Kashyap, van Dyk & Burke (2024, AJ 168, 182).
    Maximises the Poisson likelihood of all exposures over the logarithm of an
    image of point-like pixels, by Adam with one step for each exposure in
    turn.  Photon noise and sky are found from the variance planes as v = m (y
    + b), so that (y + b) / m are counts; b enters as the known background.
    The image is convolved with the Gaussian of the target last.

    It gives at each stop the image convolved with the target, without a
    variance.

    Attributes
    ----------
    stops
        Numbers of epochs at which to hand over an image; each is a run of its
        own from the start.
    learning_rate
        Step size of Adam.
    name
        Words that name the method in a table.

    Notes
    -----
    Epochs and learning rate are those of the package's examples (250 and
    1000; 0.1), and its uniform prior that of the first one.  The patch prior
    needs mixtures trained on other images, which are not in the package.
    Departures: it starts from an even image, at the sky sigma, and the sky
    level is not fitted.
    """

    stops: tuple[int, ...] = (100, 250, 1000)
    learning_rate: float = 0.1
    name: str = "Jolideco"

    def __post_init__(self) -> None:
        if not self.stops or min(self.stops) < 1 or list(self.stops) != sorted(set(self.stops)):
            raise InputError(f"stops={self.stops} must be positive numbers of epochs in rising order.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate={self.learning_rate} must be positive.")

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        if not target_fwhm > 0:
            raise InputError(f"target_fwhm={target_fwhm} must be a positive number of pixels.")
        stack = ExposureStack.from_arrays(images, variances, good, psfs)
        jolideco = _import_package()
        sigma = fwhm_to_sigma(target_fwhm)
        datasets = _make_counts(stack)
        level = float(np.sqrt(np.median(stack.variances.numpy()[stack.good.numpy()])))
        for stop in self.stops:
            flux = np.full(stack.shape, level, dtype=np.float32)
            fit = jolideco.MAPDeconvolver(
                n_epochs=stop, learning_rate=self.learning_rate, display_progress=False
            )
            result = fit.run(
                datasets=datasets, components=jolideco.models.SpatialFluxComponent.from_numpy(flux=flux)
            )
            latent = result.components["flux"].flux_numpy.astype(float)
            shown = gaussian_filter(latent, sigma, mode="constant", truncate=6.0)
            yield Restoration(image=shown, fwhm=target_fwhm, iteration=stop)


def _import_package() -> ModuleType:
    """Import the package, which wants to read a list of trained priors."""
    if _LIBRARY in os.environ:
        import jolideco.models

        return jolideco
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "jolideco-gmm-library-index.json").write_text("{}")
        os.environ[_LIBRARY] = folder
        try:
            import jolideco.models
        finally:
            del os.environ[_LIBRARY]
    return jolideco


def _make_counts(stack: ExposureStack) -> dict[str, dict[str, Any]]:
    """Return the exposures as the package's datasets."""
    datasets = {}
    for t in range(stack.num_exposures):
        image, variance, good = (plane[t].numpy() for plane in (stack.images, stack.variances, stack.good))
        if not good.any():
            continue
        photon, sky = _read_photon_noise(image[good], variance[good])
        counts = np.where(good, np.clip((image + sky) / photon, 0.0, None), _MASKED)
        datasets[f"exposure-{t}"] = {
            "counts": counts.astype(np.float32),
            "psf": {"flux": stack.psfs[t, 0, 0].numpy().astype(np.float32)},
            "exposure": np.full(good.shape, 1.0 / photon, dtype=np.float32),
            "background": np.where(good, sky / photon, _MASKED).astype(np.float32),
        }
    return datasets


def _read_photon_noise(image: NDArray[Any], variance: NDArray[Any]) -> tuple[float, float]:
    """Return the brightness m of one count and the sky b, v = m (y + b).

    Medians of bright and of faint pixels are compared, which the few pixels
    of cosmic rays do not change.
    """
    bright, faint = image >= np.quantile(image, _BRIGHT), image <= np.quantile(image, _FAINT)
    level, base = float(np.median(image[faint])), float(np.median(variance[faint]))
    rise = float(np.median(image[bright])) - level
    photon = (float(np.median(variance[bright])) - base) / rise if rise > 0 else 0.0
    photon = max(photon, _FEWEST * float(np.sqrt(base)))
    return photon, max(base / photon - level, 0.0)
