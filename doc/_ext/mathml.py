# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Formulae as MathML, which browsers draw without any script."""

from __future__ import annotations

__all__ = ("setup",)

import re
from pathlib import Path

import matplotlib
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

_ACCENTED = re.compile(
    r'<munderover>\s*(<mi>[^<]*</mi>)(.*?)(<mo stretchy="false">[^<]*</mo>)\s*</munderover>', re.DOTALL
)
"""Letter, index and accent as docutils writes them: the index would stand
below the letter."""


_SHIFTS = {
    "SubscriptShiftDown": 0.21,
    "SubscriptBaselineDropMin": 0.16,
    "SuperscriptShiftUp": 0.36,
    "SuperscriptShiftUpCramped": 0.25,
    "SuperscriptBaselineDropMax": 0.23,
}
"""By how much indices and exponents are off the line in em, as in STIX Two
Math."""


def write_font(app: Sphinx, exception: Exception | None) -> None:
    """Write the font of the formulae, which ``site.css`` names.

    It is the DejaVu Serif of matplotlib, which says of indices and exponents
    that they stand on the line; so do browsers that go by it.
    """
    if exception is not None or app.builder.format != "html":
        return
    font = TTFont(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf")
    constants, em = font["MATH"].table.MathConstants, font["head"].unitsPerEm
    for name, shift in _SHIFTS.items():
        getattr(constants, name).Value = round(shift * em)
    for record in font["name"].names:
        if record.nameID in (1, 4, 6, 16):
            record.string = "Formulae"
    font.flavor = "woff"
    font.save(Path(app.outdir) / "_static" / "formulae.woff")


def _translate(node: nodes.math | nodes.math_block, *, as_block: bool) -> str:
    """Return the MathML of a formula, or stop the build with its text."""
    text = node.astext()
    try:
        return _ACCENTED.sub(r"<msub><mover>\1\3</mover>\2</msub>", tex2mathml(text, as_block=as_block))
    except MathError as exc:
        raise SphinxError(f"No MathML for the formula {text!r}: {exc}") from exc


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(_translate(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula of its own."""
    self.body.append(self.starttag(node, "div", CLASS="formula"))
    self.body.append(_translate(node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer, which ``html_math_renderer`` chooses."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("build-finished", write_font)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
