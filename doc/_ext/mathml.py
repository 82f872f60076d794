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

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

_ACCENTED = re.compile(
    r'<munderover>\s*(<mi>[^<]*</mi>)(.*?)(<mo stretchy="false">[^<]*</mo>)\s*</munderover>', re.DOTALL
)
"""Letter, index and accent as docutils writes them: the index would stand
below the letter."""


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
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
