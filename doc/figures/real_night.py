# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw real exposures of a night, restored by two versions.

``python doc/figures/real_night.py night.npz --save before.npz`` with the
former version, ``python doc/figures/real_night.py night.npz before.npz`` with
this one.  ``night.npz`` has arrays ``images``, ``variances``, ``good`` and
``psfs``, as `lsst.astroclearnet.core.restore` takes them.
"""

import argparse
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from lsst.astroclearnet.core import restore
from lsst.astroclearnet.plots import Zoom, comparison_figure

TARGET_FWHM, PIXEL_SCALE = 3.6, 0.2626
WIDTH = 1000
ZOOMS = (Zoom(101.0, 73.0, 64, "bright star"), Zoom(178.0, 202.0, 64, "stars"))


def main() -> None:
    """Restore the night; draw the figure beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("night", type=Path)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    with np.load(options.night) as night:
        arrays = {name: night[name] for name in ("images", "variances", "good", "psfs")}
    result = restore(**arrays, target_fwhm=TARGET_FWHM)
    if options.save:
        np.savez(options.save, image=result.image)
        return
    figure = comparison_figure(
        [
            (f"Coadd of {len(arrays['images'])} exposures", result.coadd),
            ("Restored before", np.load(options.before)["image"]),
            ("Restored now", result.image),
        ],
        zooms=ZOOMS,
        pixel_scale=PIXEL_SCALE,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer)
    picture = Image.open(buffer).convert("RGB")
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    picture = picture.resize(size, Image.Resampling.LANCZOS).quantize(192)
    picture.save(Path(__file__).with_name("real-night.png"), optimize=True)


if __name__ == "__main__":
    mpl.use("Agg")
    main()
