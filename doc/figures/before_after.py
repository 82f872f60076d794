# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw the picture of the README from the repository of a demonstration.

``astroclearnet demo DEMO``, then
``python doc/figures/before_after.py DEMO/repo``.
"""

import io
import sys
from pathlib import Path

import matplotlib as mpl
from PIL import Image

from lsst.astroclearnet.commands._demonstration._comparison import compare_patches
from lsst.astroclearnet.commands._demonstration._picture import comparison_picture
from lsst.astroclearnet.commands._demonstration._survey import RESTORED, TRUTH
from lsst.daf.butler import Butler

WIDTH = 1100


def main(root: str) -> None:
    """Draw the figure beside this file."""
    butler = Butler.from_config(root, collections=[RESTORED, TRUTH])
    _, patches = compare_patches(butler, progress=lambda done, total, name: None)
    buffer = io.BytesIO()
    comparison_picture(butler, patches).savefig(buffer)
    picture = Image.open(buffer).convert("RGB")
    # Noise does not compress without loss.
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    path = Path(__file__).with_name("before-after.jpg")
    picture.save(path, quality=90, subsampling=0, optimize=True, progressive=True)


if __name__ == "__main__":
    mpl.use("Agg")
    main(*sys.argv[1:])
