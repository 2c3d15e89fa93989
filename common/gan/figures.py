"""Figures of question 4."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from PIL import Image, ImageDraw

from common import figures
from common.data import to_unit_range
from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, save, tile
from common.run.files import write_file

MODELS = {"q4_dcgan": "DCGAN", "q4_wgan_gp": "WGAN-GP"}
FRAME = 64  # images in a frame of the animation
BINS = 150  # of the iterations, in a loss curve


def every_figure(
    folder: Path,
    script: str,
    events: dict[str, float],
    losses: pd.DataFrame,
    metrics: pd.DataFrame,
    grids: dict[str, torch.Tensor],
) -> None:
    """All figures of a run but those of its measurements, from its tables and its archive of images.

    Args:
        events: what happens in training, at which fraction of it.
        grids: uint8 images [N, 1, 28, 28]: "real", for every epoch either "grid_01", which is drawn, or "frame_01",
            which is in the animation only, and "paths" (rows of 12).
    """
    model, images = MODELS[script], {name: to_unit_range(found) for name, found in grids.items()}
    curves(script, losses, metrics, events, folder / "loss_curves.png")
    epochs = {int(name.partition("_")[2]): name for name in images if name.startswith(("grid", "frame"))}
    drawn = {epoch: images[name] for epoch, name in epochs.items() if name.startswith("grid")}
    figures.image_grid(images["real"], 10, folder / "real.png", "Real training images")
    for epoch, found in drawn.items():
        title = f"{model} after epoch {epoch}, averaged weights"
        figures.image_grid(found, 10, folder / f"fake_epoch_{epoch:02d}.png", title)
    progress({epoch: found[:16] for epoch, found in drawn.items()}, model, folder / "progress.png")
    progress_animation({epoch: images[name][:FRAME] for epoch, name in epochs.items()}, folder / "progress.gif")
    title = f"{model}: rows are paths between two latent points"
    figures.image_grid(images["paths"], 12, folder / "interpolation.png", title)


def curves(script: str, losses: pd.DataFrame, metrics: pd.DataFrame, events: dict[str, float], path: Path) -> None:
    """The losses of a run of either script."""
    (dcgan_curves if script == "q4_dcgan" else wgan_curves)(losses, metrics, events, path)


def _curve(axis: Axes, x: pd.Series, values: pd.Series, color: str, label: str) -> None:
    """A noisy curve as its mean in each of `BINS` equal parts, and a band from its 10 % to its 90 % quantile."""
    parts = values.groupby(np.arange(len(values)) * min(BINS, len(values)) // max(len(values), 1))
    at = x.groupby(parts.ngroup()).mean()
    axis.fill_between(at, parts.quantile(0.1), parts.quantile(0.9), color=color, alpha=0.18, lw=0)
    axis.plot(at, parts.mean(), color=color, lw=1.6, label=label)


def _finish(axes: list[Axes], ends: np.ndarray, events: dict[str, float], unit: str) -> None:
    """The same axis of iterations below all panels; epochs above the first, that end at `ends`; events as lines."""
    fractions = np.arange(len(ends) + 1) / len(ends)
    for axis in axes:
        axis.set_xlim(0, ends[-1])
        for fraction in events.values():
            axis.axvline(np.interp(fraction, fractions, [0, *ends]), color=GREY, lw=0.9, ls="--", zorder=0)
        axis.legend(loc="upper right", ncols=3, fontsize=9)
        axis.xaxis.set_major_formatter("{x:,.0f}")
    for event, fraction in events.items():
        at, foot = np.interp(fraction, fractions, [0, *ends]), axes[0].get_xaxis_transform()
        text = axes[0].annotate(event, (at, 0), (-3, 3), xycoords=foot, textcoords="offset points", fontsize=8)
        text.set(rotation=90, ha="right", color=INK)
    axes[-1].set_xlabel(unit)
    every = -(-len(ends) // 16)
    top = axes[0].secondary_xaxis("top")
    top.set_xticks(ends[every - 1 :: every], [str(epoch) for epoch in range(every, len(ends) + 1, every)])
    top.set_xlabel("epoch")


def wgan_curves(losses: pd.DataFrame, metrics: pd.DataFrame, events: dict[str, float], path: Path) -> None:
    """WGAN-GP: both losses; the Wasserstein estimate; its gap between training and held-out images; gradient norm."""
    figure, axes = plt.subplots(4, 1, figsize=(8.4, 11), sharex=True)
    x = losses["iteration"]
    _curve(axes[0], x, losses["critic"], BLUE, "critic")
    _curve(axes[0], x, losses["generator"], ORANGE, "generator")
    _curve(axes[1], x, losses["wasserstein"], GREEN, "training batches")
    at = (metrics["epoch"] / metrics["epoch"].max() * x.max()).to_numpy()
    axes[1].plot(at, metrics["wasserstein_test"], "s", color=RED, ms=4, label="held-out images, at an epoch's end")
    low, high = losses["wasserstein"].quantile([0.1, 1])
    if min(high, losses["wasserstein"].mean(), metrics["wasserstein_test"].max()) > 0:  # what is below 0 is cut
        axes[1].set(yscale="log", ylim=(max(low, 1e-3 * high) / 2, 1.5 * high))
        axes[1].yaxis.set_major_formatter("{x:g}")
        axes[1].yaxis.set_minor_formatter("")
    axes[2].plot(at, metrics["gap"], "o-", color=PURPLE, ms=4, label="mean f(training) - mean f(held out)")
    axes[2].axhline(0, color=GREY, lw=0.8)
    _curve(axes[3], x, losses["gradient_norm"], RED, "at interpolated images")
    titles = {
        "Losses: mean f(fake) - mean f(real) + penalty, and -mean f(fake)": "critic's unit",
        "Wasserstein estimate: mean f(real) - mean f(fake)": "critic's unit",
        "What the critic knows of its training images": "critic's unit",
        "Mean norm of the critic's gradient": "norm",
    }
    for axis, (title, unit) in zip(axes, titles.items(), strict=True):
        axis.set(title=title, ylabel=unit)
    _finish(list(axes), at, events, "generator iteration (lines: mean; bands: 10 % to 90 %)")
    save(figure, path)


def dcgan_curves(losses: pd.DataFrame, metrics: pd.DataFrame, events: dict[str, float], path: Path) -> None:
    """DCGAN: both losses; what the discriminator calls real at each epoch's end, and the gap to held-out images."""
    figure, axes = plt.subplots(3, 1, figsize=(8.4, 8.4), sharex=True)
    _curve(axes[0], losses["iteration"], losses["discriminator"], BLUE, "discriminator")
    _curve(axes[0], losses["iteration"], losses["generator"], ORANGE, "generator")
    axes[0].set(title="Losses: -log D(real) - log(1 - D(fake)), and -log D(fake)", ylabel="nats")
    at = metrics["iteration"].to_numpy()
    names = {"train_called_real": (GREY, "training images"), "test_called_real": (RED, "held-out images")}
    for name, (color, label) in {**names, "fake_called_real": (PURPLE, "fakes")}.items():
        axes[1].plot(at, 100 * metrics[name], "o-", ms=4, color=color, label=label)
    axes[1].set(title="Images that the discriminator calls real", ylabel="%", ylim=(-3, 116))
    gap = 100 * (metrics["train_called_real"] - metrics["test_called_real"])
    axes[2].plot(at, gap, "o-", ms=4, color=PURPLE, label="training minus held-out images")
    axes[2].axhline(0, color=GREY, lw=0.8)
    axes[2].set(title="What the discriminator knows of its training images", ylabel="percentage points")
    _finish(list(axes), at, events, "discriminator iteration (lines: mean; bands: 10 % to 90 %)")
    save(figure, path)


def progress(samples: dict[int, torch.Tensor], model: str, path: Path) -> None:
    """Rows are epochs, columns the same latent points; samples: epoch -> images [k, 1, 28, 28] in [0, 1]."""
    epochs = ", ".join(map(str, samples))
    columns = len(next(iter(samples.values())))
    title = f"{model}: the same latent points after epochs {epochs}"
    figures.image_grid(torch.cat(list(samples.values())), columns, path, title)


def progress_animation(samples: dict[int, torch.Tensor], path: Path) -> None:
    """A GIF with one frame per epoch: epoch -> images [64, 1, 28, 28] in [0, 1], the same latent points in each."""
    frames = []
    for epoch, images in samples.items():
        pixels = (255 * tile(images, 8)).round().astype(np.uint8)
        picture = Image.fromarray(pixels).resize((2 * pixels.shape[1], 2 * pixels.shape[0]), Image.Resampling.NEAREST)
        frame = Image.new("L", (picture.width, picture.height + 22), 255)
        frame.paste(picture, (0, 22))
        ImageDraw.Draw(frame).text((4, 5), f"epoch {epoch}", fill=0)
        frames.append(frame)
    buffer = io.BytesIO()
    durations = [400] * (len(frames) - 1) + [2000]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_file(path, buffer.getvalue())
