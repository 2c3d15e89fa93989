"""Figures of sample quality."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, save, tile

FRECHET = "Fréchet distance on\nFashion-MNIST features"
GROUPS = {"floor": GREEN, "noise": BLUE, "blur": ORANGE, "classes": PURPLE, "repeats": GREY}
GROUPS |= {"ceiling": RED, "models": INK}


def scale(known: pd.DataFrame, models: pd.DataFrame, path: Path) -> None:
    """The Fréchet distance of known images and of trained models on a logarithmic axis, from the nearest on.

    Args:
        known, models: columns group, images, frechet, frechet_std.
    """
    table = pd.concat([known, models]).sort_values("frechet")
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(table) + 1.1))
    for row, (group, value, spread) in enumerate(
        zip(table["group"], table["frechet"], table["frechet_std"], strict=True)
    ):
        shape = "D" if group == "models" else "o"
        axis.errorbar(value, row, xerr=spread, fmt=shape, color=GROUPS[group], ms=7, capsize=3)
        axis.annotate(f"{value:.3g}", (value, row), xytext=(9, 0), textcoords="offset points", va="center", fontsize=9)
    labels = axis.set_yticks(range(len(table)), table["images"])
    for label, group in zip(labels, table["group"], strict=True):
        label.label1.set_fontweight("bold" if group == "models" else "normal")
    axis.invert_yaxis()
    axis.set(xscale="log", xmargin=0.08, xlabel=FRECHET.replace("\n", " ") + " against the 10,000 test images")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title("Known images (dots) and trained models (diamonds)")
    save(figure, path)


def spaces(first: pd.DataFrame, second: pd.DataFrame, path: Path) -> None:
    """The Fréchet distance and the coverage of the same known images in two feature spaces, in the order of the first.

    Args:
        first, second: of the classifier and of ImageNet; columns group, images, frechet, coverage.
    """
    both = first.merge(second, on=["group", "images"], suffixes=("", "_second")).sort_values("frechet")
    figure, axes = plt.subplots(1, 3, figsize=(10, 0.32 * len(both) + 1.3), sharey=True)
    rows, colors = np.arange(len(both)), [GROUPS[group] for group in both["group"]]
    names = ("classifier of Fashion-MNIST", "network of ImageNet")
    for axis, column, name in zip(axes[:2], ("frechet", "frechet_second"), names, strict=True):
        axis.scatter(both[column], rows, c=colors, s=45, zorder=3)
        axis.set(xscale="log", xlabel="Fréchet distance", title=name)
        axis.grid(True, axis="both")
    for column, marker, name in (("coverage", "o", names[0]), ("coverage_second", "D", names[1])):
        axes[2].scatter(both[column], rows, c=colors, s=45, marker=marker, alpha=0.6, zorder=3)
        axes[2].scatter([], [], c=GREY, marker=marker, label=name)
    axes[2].set(xlabel="coverage", title="coverage")
    axes[2].legend(loc="lower right", fontsize=8)
    axes[0].set_yticks(rows, both["images"])
    axes[0].invert_yaxis()
    save(figure, path)


def quality(rows: pd.DataFrame, path: Path) -> None:
    """Fréchet distance of raw and averaged weights against epochs and against minutes of training."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for weights, color in (("raw", ORANGE), ("averaged", BLUE)):
        part = rows[rows["weights"] == weights]
        for axis, x in zip(axes, (part["epoch"], part["seconds"] / 60), strict=True):
            axis.errorbar(
                x, part["frechet"], part["frechet_std"], color=color, marker="o", ms=4, capsize=3, label=weights
            )
    axes[0].set(title="Against epochs", xlabel="epoch")
    axes[1].set(title="Against training time", xlabel="minutes of training")
    _frechet_axis(axes[0])
    for axis in axes:
        axis.set_xlim(left=0)
    axes[1].legend(title="weights")
    save(figure, path)


def _frechet_axis(axis: Axes) -> None:
    """A logarithmic axis of Fréchet distances, for every figure that shares it."""
    axis.set(ylabel=FRECHET, yscale="log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")


def copies(
    samples: torch.Tensor, nearest: torch.Tensor, ratios: dict[str, np.ndarray], threshold: float, path: Path
) -> None:
    """The ten samples that are likest to a training image above that image, and the ratios of all.

    Args:
        samples, nearest: [10, 1, 28, 28] in [0, 1].
        ratios: of samples and of test images, as `common/quality/copies.py` computes them.
    """
    figure, axes = plt.subplots(2, 1, figsize=(8, 5.2), height_ratios=(2, 3))
    axes[0].imshow(tile(torch.cat([samples, nearest]), 10), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0].set_yticks([14, 44], ["sample", "nearest\ntraining image"])
    axes[0].set_xticks([])
    axes[0].tick_params(length=0)
    axes[0].grid(visible=False)
    axes[0].spines[:].set_visible(False)
    axes[0].set_title("The ten samples that are likest to a training image")
    bins = np.linspace(0, 1, 61)
    for (name, values), color in zip(ratios.items(), (BLUE, GREY), strict=True):
        weights = np.full(len(values), 100 / len(values))
        label = f"{name}: {100 * (values < threshold).mean():.2f} % copies"
        axes[1].hist(values, bins, weights=weights, color=color, alpha=0.6, label=label)
    axes[1].axvline(threshold, color=RED, lw=1.2, label=f"threshold {threshold:g}")
    axes[1].set(xlabel="distance to the nearest / to the fifth nearest training image", ylabel="% of the images")
    axes[1].set(xlim=(0, 1), title="Copies have small ratios")
    axes[1].legend(loc="upper left")
    save(figure, path)


def seeds(table: pd.DataFrame, path: Path) -> None:
    """Fréchet distance of the defaults against epochs, beside the papers' settings, with the spread over seeds.

    Args:
        table: columns setting, epoch, weights, frechet, frechet_std, as `studies/gan_seeds.py` writes them.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, name, title in zip(axes, ("dcgan", "wgan_gp"), ("DCGAN", "WGAN-GP"), strict=True):
        for setting, weights, color, dashes, label in (
            (name, "averaged", BLUE, "-", "defaults, averaged weights"),
            (name, "raw", BLUE, ":", "defaults, raw weights"),
            (f"{name}_paper", "averaged", ORANGE, "-", "papers' settings, averaged weights"),
            (f"{name}_paper", "raw", ORANGE, ":", "papers' settings, raw weights"),
        ):
            part = table[(table["setting"] == setting) & (table["weights"] == weights)]
            spread = part["frechet_std"].fillna(0)
            style = {"color": color, "ls": dashes, "marker": "o", "ms": 4, "capsize": 3, "label": label}
            axis.errorbar(part["epoch"], part["frechet"], spread, **style)
        axis.set(title=title, xlabel="epoch")
        axis.set_xlim(left=0)
    _frechet_axis(axes[0])
    axes[1].legend(title="bars: standard deviation over runs", fontsize=8, title_fontsize=8)
    save(figure, path)
