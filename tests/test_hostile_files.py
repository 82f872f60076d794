# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Strings that Piff would run, and names that would become paths."""

from __future__ import annotations

from typing import Any

import galsim
import pytest

from lsst.astroclearnet.adapters.read import _piff_compat
from lsst.astroclearnet.repository import require_name
from lsst.astroclearnet.repository._names import _require_collection
from lsst.images.serialization import ArchiveReadError

RUN = "__import__('os').abort()"
"""What would end the tests if it were run."""

HOSTILE = (
    RUN,
    f"galsim.Lanczos({RUN})",
    f"galsim.Lanczos(*{RUN})",
    f"galsim.Lanczos(**{RUN})",
    f"Lanczos(n={RUN})",
    f"galsim.Lanczos(3, gsparams={RUN})",
    f"galsim.Lanczos(3) if {RUN} else 1",
    f"galsim.Lanczos(3) and {RUN}",
    f"[{RUN}, 3]",
    f"({RUN}, 3)",
    f"[3 for i in {RUN}]",
    f"lambda: {RUN}",
    f"f'{{{RUN}}}'",
    f"(a := {RUN})",
    f"-{RUN}",
    f"{RUN} * 2",
    "galsim.Lanczos.__init__.__globals__",
    "galsim.utilities.eval_str('1')",
    "galsim._utilities.math_eval('1')",
    "galsim.fits.read('x')",
    "galsim.Lanczos(3).__class__()",
    "os.Lanczos(3)",
    "galsim.des.DES_PSFEx('x')",
    "galsim.Lanczos('x')",
    "galsim.Lanczos(10**9)",
    "galsim.Lanczos(1e9)",
    "9**9**9**9",
    "[0] * 99999999",
    "(" * 900 + "3" + ")" * 900,
    "-" * 1900 + "3",
    "galsim.Lanczos(3) # " + "x" * 3000,
    "yield 3",
    "a\0b",
    "3\n3",
    "/etc/passwd",
    "../x.fits",
)


@pytest.mark.parametrize("key", ["interp", "gsobj", "kernel", "init", "PARAMS_LENS", "poly_type", "scale"])
@pytest.mark.parametrize("text", HOSTILE)
def test_strings_that_run_code_are_refused(key: str, text: str) -> None:
    """If it fails, a file of a visit image runs what it likes."""
    for value in (text, [text], [1, [text]]):
        with pytest.raises(ArchiveReadError, match=f"model of its Piff model holds {key} = "):
            _piff_compat.require_harmless("piff/model", {"type": "PixelGrid", key: value})


@pytest.mark.parametrize(
    "struct",
    [
        {"type": "Optical"},
        {"type": "PSF"},
        {"type": "RomanOptics"},
        {"type": ["Simple"]},
        {"type": 3},
        {"type": None},
    ],
)
def test_unknown_classes_are_refused(struct: dict[str, Any]) -> None:
    """If it fails, a file chooses a class that reads other files."""
    with pytest.raises(ArchiveReadError, match="which is not known"):
        _piff_compat.require_harmless("piff", struct)


def test_methods_are_not_replaced() -> None:
    """If it fails, a file replaces the methods of the PSF: Piff makes
    attributes of what it reads.
    """
    with pytest.raises(ArchiveReadError, match="unknown keys"):
        _piff_compat.require_harmless("piff/chisq", {"chisq": 1.0, "draw": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("interp", repr(kind())) for kind in (galsim.Nearest, galsim.Quintic, galsim.SincInterpolant)),
        ("interp", repr(galsim.Lanczos(11, gsparams=galsim.GSParams(kvalue_accuracy=1e-4)))),
        ("interp", "Lanczos(5)"),
        ("gsobj", repr(galsim.Kolmogorov(fwhm=0.7).shear(g1=0.1, g2=-0.2))),
        ("gsobj", repr(galsim.Moffat(beta=2.5, fwhm=0.7))),
        ("gsobj", repr(galsim.VonKarman(lam=700.0, r0=0.2))),
        ("kernel", "1.5 * RBF(0.7) + WhiteKernel(noise_level=1e-4)"),
        ("kernel", ["AnisotropicRBF(invLam=array([[1., 0.], [0., 2.]]))"]),
        ("PARAMS_LENS", "[9, 9]"),
        ("init", "(1.0, 0.5)"),
        ("init", "hsm"),
        ("keys", ["u", "v"]),
        ("piff_version", "1.7.0"),
        ("order", 2),
        ("type", "SimplePSF"),
    ],
)
def test_what_piff_writes_is_read(key: str, value: Any) -> None:
    """If it fails, good PSFs are refused."""
    _piff_compat.require_harmless("piff", {key: value})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "+x",
        "a/b",
        "../a",
        "a b",
        "a\n",
        "a\0",
        "\N{LATIN SMALL LETTER E}\u0301",
    ]
    + ["a" * 33, "~", "$HOME", "a;b", "'", None, 3, b"a"],
)
def test_names_that_are_none_are_refused(name: Any) -> None:
    """If it fails, a name writes outside the repository, or nobody can type
    it.
    """
    with pytest.raises(ValueError, match=r"^The name of the band is "):
        require_name("band", name)
    if name != "a/b" and name != "a" * 33:
        with pytest.raises(ValueError, match=r"^The name of the collection is "):
            _require_collection(name)
    with pytest.raises(ValueError, match=r"^The name of the collection is "):
        _require_collection(f"u/{name}/../x")


def test_names_in_use_are_accepted() -> None:
    """If it fails, the data of an observatory cannot be ingested."""
    for name in ("HSC-Sim", "LSSTCam-imSim", "HSC-I2", "N921", "i.MP9702", "1_53", "hsc_rings_v1", "i_06"):
        assert require_name("band", name) == name
    for name in ("u/user.name/run_1", "HSC/runs/RC2/w_2026_40/DM-1", "skymaps"):
        assert _require_collection(name) == name
