# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures as files, for methods that are not written in Python."""

from __future__ import annotations

__all__ = ("has_products", "read_products", "write_exposures")

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ..quality.product import Product
from .cases import Case, Exposures
from .measure import Products

_SUFFIXES = (".fits", ".npz")


def write_exposures(case: Case, exposures: Exposures, folder: Path) -> list[Path]:
    """Write the exposures of a case.

    Parameters
    ----------
    case
        The case.
    exposures
        Its scenes.
    folder
        Folder to write to, made if it is not there.

    Returns
    -------
    files : `list` [`~pathlib.Path`]
        ``CASE-VARIANT.npz`` for each variant but ``again``, with ``images``,
        ``variances``, ``good`` (n, H, W), ``psfs`` (n, P, P), ``target_fwhm``
        and, for exposures on their own grids, ``offsets`` (n, 2): row and
        column of their first pixels on the grid wanted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for variant, scene in exposures.scenes.items():
        if variant == "again":
            continue
        arrays: dict[str, Any] = {"images": scene.images, "variances": scene.variances, "good": scene.good}
        if scene.positions is not None:
            arrays["offsets"] = np.array([c.offset for c in scene.conditions])
        files.append(folder / f"{case.name}-{variant}.npz")
        np.savez_compressed(files[-1], psfs=scene.psfs, target_fwhm=case.target_fwhm, **arrays)
    return files


def has_products(case: Case, folder: Path) -> bool:
    """Tell whether a method has restored the plain exposures of a case.

    Parameters
    ----------
    case
        The case.
    folder
        Folder of the images, see `read_products`.
    """
    return any((folder / f"{case.name}-plain{suffix}").exists() for suffix in _SUFFIXES)


def read_products(case: Case, folder: Path, name: str) -> Products:
    """Read the images that a method made of the exposures of a case.

    Parameters
    ----------
    case
        The case.
    folder
        Folder of ``CASE-VARIANT.fits``, the image at the target PSF in the
        primary extension and its variance, if there is one, in ``VARIANCE``;
        or of ``CASE-VARIANT.npz`` with ``image`` and perhaps ``variance``.
        ``CASE-again`` is a second image of the plain exposures, if the method
        depends on chance.
    name
        Name of the row.

    Returns
    -------
    products : `dict` [`str`, `dict` [`str`, `Product`]]
        By variant and name; variants without a file are left out.

    Raises
    ------
    FileNotFoundError
        If there is no image of the plain exposures.
    ValueError
        If an image does not have the shape of the scene.
    """
    products: Products = {}
    for variant in ("plain", "again", "injected", "bad"):
        for suffix in _SUFFIXES:
            path = folder / f"{case.name}-{variant}{suffix}"
            if path.exists():
                products[variant] = {name: _read(path, case, name)}
    if "plain" not in products:
        raise FileNotFoundError(f"There is neither {case.name}-plain.fits nor .npz in {folder}.")
    return products


def _read(path: Path, case: Case, name: str) -> Product:
    """Read an image and its variance."""
    variance = None
    if path.suffix == ".fits":
        with fits.open(path) as extensions:
            image = np.asarray(extensions[0].data, dtype=float)
            if "VARIANCE" in extensions:
                variance = np.asarray(extensions["VARIANCE"].data, dtype=float)
    else:
        with np.load(path) as arrays:
            image = np.asarray(arrays["image"], dtype=float)
            if "variance" in arrays:
                variance = np.asarray(arrays["variance"], dtype=float)
    for plane in (image, variance):
        if plane is not None and plane.shape != case.shape:
            raise ValueError(f"{path} has shape {plane.shape}, not {case.shape}.")
    return Product(name, image, case.target_fwhm, variance)
