"""Figures: one style, curves, image grids. Every file is written whole or not at all.

Figures that only one question draws are in `figures.py` in its room; no other module imports matplotlib.
"""

import io
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from common.run.files import write_file

INK, GREY = "#222222", "#8a8a8a"
BLUE, ORANGE, GREEN, RED, PURPLE = "#2867b2", "#dd7b1f", "#2e9151", "#c63d4f", "#7d4cc2"

matplotlib.rcdefaults()  # whatever a user's matplotlibrc says
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "savefig.dpi": 130,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.edgecolor": GREY,
        "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE]),
        "legend.frameon": False,
    }
)


def tile(images: torch.Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """Images side by side on white, row by row.

    Args:
        images: [N, 1, H, W] or [N, H, W], values in [0, 1]: one fixed range, so that grids can be compared.
        columns: images per row; the last row may be shorter.

    Returns:
        float array [rows * (H + gap) - gap, columns * (W + gap) - gap].
    """
    pictures = images.detach().float().cpu().reshape(len(images), *images.shape[-2:]).numpy()
    n, h, w = pictures.shape
    rows = -(-n // columns)
    canvas = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap), np.float32)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (h + gap), index % columns * (w + gap)
        canvas[top : top + h, left : left + w] = picture
    return canvas


def image_grid(images: torch.Tensor, columns: int, path: Path, title: str) -> None:
    """Draw images [N, 1, H, W] in [0, 1] as a grid below a title, black 0 and white 1 whatever the images hold.

    A pixel of an image is a square of 2 x 2 pixels of the file, so that none is wider than another.
    """
    canvas = np.kron(tile(images, columns), np.ones((2, 2)))
    (height, width), top, dpi = canvas.shape, 40, plt.rcParams["savefig.dpi"]
    figure = plt.figure(figsize=((width + 0.5) / dpi, (height + top + 0.5) / dpi), dpi=dpi)
    figure.figimage(canvas, 0, 0, cmap="gray", vmin=0, vmax=1)
    figure.text(4 / width, 1 - top / 2 / (height + top), title, va="center", fontsize=11, fontweight="bold")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and close it; a kill leaves the old file or the new one, whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    write_file(path, buffer.getvalue())
