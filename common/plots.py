"""Figures: one style, curves, image grids. Every file is written whole or not at all.

Figures that only one question draws are in `plots_<question>.py`; no other module imports matplotlib.
"""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import PillowWriter  # noqa: F401
from matplotlib.figure import Figure

from common.checkpoints import write_file

INK, GREY = "#222222", "#8a8a8a"
BLUE, ORANGE, GREEN, RED, PURPLE = "#2867b2", "#dd7b1f", "#2e9151", "#c63d4f", "#7d4cc2"

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


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and close it; a kill leaves the old file or the new one, whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    write_file(path, buffer.getvalue())
