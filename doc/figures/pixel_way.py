# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw the way of a pixel: ``python doc/figures/pixel_way.py``."""

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from lsst.astroclearnet.core import PixelPositions, fwhm_to_sigma, gaussian_kernel
from lsst.astroclearnet.core.forward import ForwardModel

SIZE = 33
TARGET = 3.0
PSF = 4.6
ANGLE, SCALE = math.radians(25.0), 1.15
STARS = ((13.3, 12.4, 1.0), (20.6, 21.2, 0.5))
PIXEL = (17, 15)


def pixel_positions(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where pixels of a rotated exposure lie on the patch."""
    c, s = SCALE * math.cos(ANGLE), SCALE * math.sin(ANGLE)
    y, x = rows - 14.0, columns - 14.0
    return c * y - s * x + 16.2, s * y + c * x + 15.7


def star_image(shape: tuple[int, int], margin: int) -> torch.Tensor:
    """Return stars at the target PSF on the latent grid."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] - margin
    sigma = fwhm_to_sigma(TARGET)
    stars = [f * np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / sigma**2) for y, x, f in STARS]
    return torch.from_numpy(np.sum(stars, axis=0)).float()


def draw_patch(axes: Axes, image: np.ndarray, title: str) -> None:
    """Draw an image on the grid of the patch."""
    axes.imshow(image, origin="lower", cmap="magma", vmin=-0.02, vmax=0.7)
    axes.set_xticks(np.arange(-0.5, SIZE), minor=True)
    axes.set_yticks(np.arange(-0.5, SIZE), minor=True)
    axes.grid(which="minor", color="white", alpha=0.12, linewidth=0.5)
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    axes.set_title(title, fontsize=9)


def main() -> None:
    """Draw the figure beside this file."""
    rows, columns = np.mgrid[:28, :28].astype(float)
    y, x = pixel_positions(rows, columns)
    area = np.full(y.shape, SCALE**2)
    positions = PixelPositions.from_arrays((SIZE, SIZE), y[None], x[None], area[None])
    psf = torch.from_numpy(gaussian_kernel(PSF, 25))[None, None, None]
    model = ForwardModel(psf, (SIZE, SIZE), TARGET, positions)
    latent = star_image(model.latent_shape, model.sampling.grid.margin)
    blurred = model.inverse_transform(model.transform(latent) * model.mean_otfs[0])
    predicted = model.predict(latent)[0].numpy()
    center = [float(c) for c in pixel_positions(np.array(PIXEL[0]), np.array(PIXEL[1]))]
    corners = [
        pixel_positions(np.array(PIXEL[0] + dy), np.array(PIXEL[1] + dx))
        for dy, dx in ((-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))
    ]
    outline = [(float(cx), float(cy)) for cy, cx in corners]

    figure = Figure(figsize=(10.0, 3.1), layout="constrained")
    axes = figure.subplots(1, 4)
    draw_patch(
        axes[0], model.crop(latent).numpy(), "1  latent image: the sky\nat the target PSF, on the patch"
    )
    draw_patch(
        axes[1], model.crop(blurred).numpy(), "2  convolved with the\ndifference kernel of the exposure"
    )
    draw_patch(
        axes[2], model.crop(blurred).numpy(), "3  interpolated at the centre of\na pixel, times its area"
    )
    axes[2].add_patch(Polygon(outline, fill=False, edgecolor="cyan", linewidth=1.5))
    taps = [np.ceil(c - 2.5) + np.arange(5) for c in center]
    tap_y, tap_x = np.meshgrid(*taps, indexing="ij")
    axes[2].plot(tap_x.ravel(), tap_y.ravel(), "o", color="white", markersize=1.6)
    axes[2].plot(center[1], center[0], "+", color="cyan", markersize=6)
    axes[2].set_xlim(center[1] - 6.5, center[1] + 6.5)
    axes[2].set_ylim(center[0] - 6.5, center[0] + 6.5)
    noise = np.random.default_rng(3).normal(0.0, 0.02, predicted.shape)
    axes[3].imshow(predicted + noise, origin="lower", cmap="magma", vmin=-0.02, vmax=0.7 * SCALE**2)
    square = [
        (PIXEL[1] + dx, PIXEL[0] + dy) for dy, dx in ((-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))
    ]
    axes[3].add_patch(Polygon(square, fill=False, edgecolor="cyan", linewidth=1.5))
    axes[3].set_xticks([])
    axes[3].set_yticks([])
    axes[3].set_title("4  compared with the exposure,\npixel by pixel as measured", fontsize=9)
    figure.savefig(Path(__file__).with_name("pixel-way.png"), dpi=130)


if __name__ == "__main__":
    mpl.use("Agg")
    main()
