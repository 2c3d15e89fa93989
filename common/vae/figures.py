"""Figures of question 3."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, save, tile

METHOD_COLORS = (BLUE, GREY, GREEN, PURPLE, RED)


def elbo(metrics: pd.DataFrame, latent_dim: int, path: Path) -> None:
    """Negative ELBO and its two parts against the epoch; training and test in each panel; active units in the title."""
    figure, axes = plt.subplots(1, 3, figsize=(8, 3.2))
    metrics = metrics[metrics["epoch"] > 1] if len(metrics) > 1 else metrics  # the first is far above all that follow
    names = {
        "negative_elbo": "Negative ELBO",
        "reconstruction": "Reconstruction, $-\\log p(x|z)$",
        "kl": "KL to the prior",
    }
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        axis.plot(metrics["epoch"], metrics[name], "o-", ms=3, color=GREY, label="training (augmented)")
        axis.plot(metrics["epoch"], metrics[f"test_{name}"], "o-", ms=3, color=BLUE, label="test")
        axis.set_title(title)
        axis.margins(y=0.15)
    axes[0].set_ylabel("nats per image")
    axes[0].legend(title="from epoch 2 on", loc="upper right")
    units = int(metrics["active_units"].iloc[-1])
    figure.suptitle(f"{units} of {latent_dim} latent units are active at the end", fontsize=10, x=0.01, ha="left")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def accuracy(table: pd.DataFrame, path: Path) -> None:
    """Test accuracy of each method against the number of labels (log axis), with intervals, and the reference.

    Bars are 95 % confidence intervals of the mean; the band of the first method is mean ± std over random subsets.
    """
    figure, axis = plt.subplots(figsize=(6.8, 4.4))
    ours = table["method"].iloc[0]
    for (method, rows), color in zip(table.groupby("method", sort=False), METHOD_COLORS, strict=False):
        bars = axis.errorbar(rows["size"], rows["mean"], rows["ci95"], fmt="o-", color=color, capsize=4, ms=4)
        bars.set_label(f"SVM on {method}: mean of {int(rows['n'].max())} random subsets")
        if method == ours:
            band = (rows["mean"] - rows["std"], rows["mean"] + rows["std"])
            axis.fill_between(rows["size"], *band, color=color, alpha=0.15, lw=0, label="± std over subsets")
            for _, row in rows.iterrows():
                top = (row["size"], row["mean"] + row["std"])
                text = f"{row['mean']:.3f}"
                axis.annotate(text, top, (0, 5), textcoords="offset points", ha="center", fontsize=9, color=INK)
    known = table[table["method"] == ours].dropna(subset="reference")
    if len(known):
        axis.plot(known["size"], known["reference"], "s--", color=ORANGE, ms=5, label="reference: one subset")
    sizes = sorted(table["size"].unique())
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_major_formatter(FixedFormatter([f"{size:,.0f}" for size in sizes]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.margins(y=0.12)
    axis.set(xlabel="labelled training images", ylabel="accuracy on the test images")
    axis.set_title("Accuracy with few labels (bars: 95 % confidence intervals)")
    axis.legend(loc="lower right")
    save(figure, path)


def confusion(counts: np.ndarray, classes: Sequence[str], size: int, path: Path) -> None:
    """Confusion counts [true, predicted] as per cent of each true class."""
    share = 100 * counts / counts.sum(1, keepdims=True)
    figure, axis = plt.subplots(figsize=(7, 6))
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            color = "white" if value > 55 else INK
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=9)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.grid(False)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(f"Test images by class [% of the row], {size:,} labels, all draws")
    save(figure, path)


def reconstructions(pairs: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Test images above their reconstructions: pairs [2k, 10, 28, 28], rows original, decoded, original, ..."""
    rows, columns = pairs.shape[:2]
    figure, axis = plt.subplots(figsize=(columns * 0.95 + 1.1, rows * 0.9 + 0.6))
    axis.imshow(tile(torch.from_numpy(pairs).flatten(0, 1), columns), cmap="gray", vmin=0, vmax=1)
    axis.set_xticks(30 * np.arange(columns) + 14, classes)
    axis.set_yticks(30 * np.arange(rows) + 14, ["original", "decoded"] * (rows // 2))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title("Test images and their reconstructions from the posterior mean", pad=24)
    save(figure, path)


def latents(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], method: str, path: Path) -> None:
    """Posterior means of the test images in two dimensions [N, 2], coloured by class."""
    figure, axis = plt.subplots(figsize=(8.2, 6))
    for label, name in enumerate(classes):
        mine = points[labels == label]
        axis.scatter(mine[:, 0], mine[:, 1], s=3, lw=0, alpha=0.7, color=plt.cm.tab10(label), label=name)
    axis.legend(markerscale=5, loc="center left", bbox_to_anchor=(1, 0.5))
    name = {"tsne": "t-SNE", "pca": "principal component"}[method]
    axis.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2")
    axis.set_title(f"Posterior means of {len(points):,} test images, placed without their labels")
    save(figure, path)


def benchmark(table: pd.DataFrame, path: Path) -> None:
    """Accuracy of each method, a panel for each number of labels, with 95 % confidence intervals."""
    sizes = [size for size, rows in table.groupby("size") if len(rows) > 1]
    methods = list(table["method"].unique())[::-1]
    figure, axes = plt.subplots(1, len(sizes), figsize=(3.2 + 1.9 * len(sizes), 0.6 + 0.34 * len(methods)), sharey=True)
    for axis, size in zip(np.atleast_1d(axes), sizes, strict=True):
        rows = table[table["size"] == size].set_index("method").loc[methods]
        places, colors = range(len(methods)), [GREY] * (len(methods) - 1) + [BLUE]
        axis.errorbar(rows["mean"], places, xerr=rows["ci95"], fmt="none", ecolor=INK, elinewidth=1, capsize=3)
        axis.scatter(rows["mean"], places, c=colors, s=22, zorder=3)
        axis.axvline(rows["mean"].iloc[-1], color=BLUE, lw=0.8, ls=":")
        axis.set_title(f"{size:,} labels")
        axis.set_yticks(list(places), methods)
        axis.margins(x=0.1)
    figure.supxlabel("accuracy on the test images, mean over random subsets", fontsize=10)
    save(figure, path)
