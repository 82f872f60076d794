# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Readable and harmless Piff models: Piff evaluates strings of a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from lsst.images.psfs import _piff
from lsst.images.serialization import ArchiveReadError

_TYPES = frozenset(
    ("Simple", "SingleChip", "Sum", "Convolve")
    + ("PixelGrid", "GSObject", "GSObjectModel", "Gaussian", "Kolmogorov", "Moffat")
    + ("Mean", "Polynomial", "BasisPolynomial", "KNN", "KNearestNeighbors", "kNNInterp")
    + ("GP", "GaussianProcess", "GPInterp", "MAD", "Chisq", "Centroid")
)
"""Classes of PSFs, models, interpolations and outliers of Piff; none of them
reads another file."""

_OLD_SUFFIXES = ("PSF", "Outliers")
"""Ends of the names of classes in files of old versions of Piff."""

_CALLS = {
    "interp": frozenset(
        ("Nearest", "Linear", "Cubic", "Quintic", "Lanczos", "SincInterpolant", "Delta", "GSParams")
    ),
    "gsobj": frozenset(
        ("Gaussian", "Kolmogorov", "Moffat", "Airy", "VonKarman", "Exponential", "DeltaFunction")
        + ("Transformation", "PositionD", "GSParams")
    ),
    "kernel": frozenset(
        ("RBF", "WhiteKernel", "ConstantKernel", "AnisotropicRBF", "VonKarman", "AnisotropicVonKarman")
        + ("array",)
    ),
}
"""Allowed calls in strings that Piff evaluates, by the key in the model:
interpolants and profiles of GalSim, kernels of scikit-learn and treegp."""

_CHISQ = frozenset(("chisq", "last_delta_chisq", "dof", "nremoved", "niter"))
"""Keys of the dictionary that Piff turns into attributes of the PSF."""

_WORD = re.compile(r"[A-Za-z0-9_]{0,64}|[0-9]{1,4}(?:\.[0-9a-z+]{1,64}){1,4}")
"""A word, such as the name of a method, or a version."""

_LARGEST_NUMBER = 1e5
"""An interpolant of this order takes 15 s to set up."""

_MAX_LENGTH = 2000
"""Characters of a string; that of a sheared profile of GalSim has 700."""


def require_harmless(name: str, struct: Mapping[str, Any]) -> None:
    """Refuse a dictionary of a Piff model that may run code.

    Strings may call known interpolants, profiles and kernels with plain
    arguments; all others are single words or numbers.

    Parameters
    ----------
    name
        Name of the dictionary in the model.
    struct
        The dictionary.

    Raises
    ------
    lsst.images.serialization.ArchiveReadError
        If it names a class that is not known, or holds anything else.
    """
    if name.rpartition("/")[2] == "chisq" and not _CHISQ.issuperset(struct):
        raise ArchiveReadError(f"{name} of its Piff model has unknown keys {sorted(set(struct) - _CHISQ)}.")
    for key, value in struct.items():
        if key == "type" and not (isinstance(value, str) and _is_known(value)):
            raise ArchiveReadError(f"{name} of its Piff model is of type {value!r:.100}, which is not known.")
        for text in _strings(value):
            if not (_WORD.fullmatch(text) or _is_harmless(text, _CALLS.get(key, frozenset()))):
                raise ArchiveReadError(
                    f"{name} of its Piff model holds {key} = {text!r:.100}, which Piff might run as code."
                )


def _is_known(name: str) -> bool:
    """Check whether Piff may make a class, by its present or old name."""
    return name in _TYPES or any(
        name.endswith(suffix) and name.removesuffix(suffix) in _TYPES for suffix in _OLD_SUFFIXES
    )


def _strings(value: Any) -> list[str]:
    """Return the strings in a value of a model."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list | tuple) else []


def _is_harmless(text: str, calls: frozenset[str]) -> bool:
    """Check for numbers, and calls of given names with them."""
    if len(text) > _MAX_LENGTH:
        return False
    try:
        return _is_plain(ast.parse(text, mode="eval").body, calls)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_plain(node: ast.expr, calls: frozenset[str]) -> bool:
    """Check a node of the syntax tree in the same way."""
    match node:
        case ast.Constant(value=bool() | None):
            return True
        case ast.Constant(value=int() | float() as number):
            return abs(number) <= _LARGEST_NUMBER
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_plain(operand, calls)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult(), right=right):
            # Sums and products of kernels, not of lists.
            return all(not isinstance(n, ast.List | ast.Tuple) and _is_plain(n, calls) for n in (left, right))
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return all(_is_plain(item, calls) for item in items)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id="galsim"), attr=name)):
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            return name in calls and all(_is_plain(value, calls) for value in values)
    return False


def patch_piff_reader() -> None:
    """Mend how `lsst.images` reads Piff models; harmless when repeated.

    Piff evaluates strings, so they are checked before; it removes keys from
    its dictionaries, so it gets copies, or a second read from a cached file
    would fail; and Piff 1.7 asks for a bandpass, which no model here has.
    """
    reader: Any = _piff._ArchivePiffReader
    if getattr(reader, "_astroclearnet_patched", False):
        return
    read_struct, read_table = reader.read_struct, reader.read_table

    def read_harmless(self: Any, name: str) -> dict[str, Any] | None:
        struct = read_struct(self, name)
        if struct is None:
            return None
        require_harmless(self.get_full_name(name), struct)
        return dict(struct)

    def read_harmless_table(self: Any, name: str, metadata: dict[str, Any] | None = None) -> Any:
        found: dict[str, Any] = {}
        table = read_table(self, name, found)
        require_harmless(self.get_full_name(name), found)
        if metadata is not None:
            metadata.update(found)
        return table

    reader.read_struct, reader.read_table = read_harmless, read_harmless_table
    if not hasattr(reader, "read_bandpass"):
        reader.read_bandpass = lambda self, name: None
    reader._astroclearnet_patched = True


patch_piff_reader()
