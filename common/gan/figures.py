"""Figures of question 4."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from PIL import Image, ImageDraw

from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, save, tile
from common.run.files import write_file


def _curve(axis: Axes, losses: pd.DataFrame, name: str, color: str, label: str) -> None:
    """One loss against the iteration: raw thin, its centred moving average on top."""
    window = max(1, len(losses) // 100)
    smooth = losses[name].rolling(window, center=True, min_periods=1).mean()
    axis.plot(losses["iteration"], losses[name], color=color, lw=0.4, alpha=0.3)
    axis.plot(losses["iteration"], smooth, color=color, lw=1.6, label=label)


def _finish(axes: list[Axes], ends: np.ndarray, unit: str) -> None:
    """Marks where epochs end, at iterations `ends`; limits that hold 99.8 % of the raw values; legends."""
    for axis in axes:
        for end in ends[:-1]:
            axis.axvline(end, color=GREY, lw=0.5, ls=":", zorder=0)
        raw = np.concatenate([line.get_ydata() for line in axis.lines if line.get_linewidth() < 0.45])
        low, high = np.quantile(raw, [0.001, 0.999])
        room = 0.08 * (high - low + 1e-9)
        axis.set(ylim=(low - room, high + room), xlim=(0, ends[-1]), xlabel=unit)
        axis.legend(loc="best")
    every = -(-len(ends) // 16)
    top = axes[0].secondary_xaxis("top")
    top.set_xticks(ends[every - 1 :: every], [str(epoch) for epoch in range(every, len(ends) + 1, every)])
    top.set_xlabel("epoch")


def wgan_curves(losses: pd.DataFrame, metrics: pd.DataFrame, path: Path) -> None:
    """WGAN-GP: critic and generator loss; Wasserstein estimate with its held-out values; penalty and gradient norm."""
    figure, axes = plt.subplots(4, 1, figsize=(9, 12))
    _curve(axes[0], losses, "critic", BLUE, "critic loss: mean f(fake) - mean f(real) + penalty")
    _curve(axes[0], losses, "generator", ORANGE, "generator loss: -mean f(fake)")
    _curve(axes[1], losses, "wasserstein", GREEN, "training batches: mean f(real) - mean f(fake)")
    at = (metrics["epoch"] / metrics["epoch"].max() * losses["iteration"].max()).to_numpy()
    axes[1].plot(at, metrics["wasserstein_train"], "o", color=GREY, ms=4, label="4,000 training images, epoch's end")
    axes[1].plot(at, metrics["wasserstein_test"], "s", color=RED, ms=4, label="4,000 held-out test images, epoch's end")
    _curve(axes[2], losses, "penalty", PURPLE, "gradient penalty (weighted)")
    _curve(axes[3], losses, "gradient_norm", RED, "mean norm of the critic's gradient (1 is wanted)")
    titles = ("Losses", "Wasserstein estimate", "Gradient penalty", "Gradient norm")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, ylabel="critic's unit" if title != "Gradient norm" else "norm")
    _finish(list(axes), at, "generator iteration")
    save(figure, path)


def dcgan_curves(losses: pd.DataFrame, metrics: pd.DataFrame, path: Path) -> None:
    """DCGAN: discriminator and generator loss; its two parts; what the discriminator calls real at each epoch's end."""
    figure, axes = plt.subplots(3, 1, figsize=(9, 9.5))
    _curve(axes[0], losses, "discriminator", BLUE, "discriminator loss, real + fake part")
    _curve(axes[0], losses, "generator", ORANGE, "generator loss: -log D(fake)")
    _curve(axes[1], losses, "real", GREEN, "discriminator on real images: -log D(real)")
    _curve(axes[1], losses, "fake", PURPLE, "discriminator on fakes: -log(1 - D(fake))")
    axes[0].set(title="Losses", ylabel="nats")
    axes[1].set(title="Parts of the discriminator's loss", ylabel="nats")
    _finish(list(axes[:2]), metrics["iteration"].to_numpy(), "discriminator iteration")
    names = {"train_called_real": (GREY, "training images"), "test_called_real": (RED, "held-out test images")}
    for name, (color, label) in {**names, "fake_called_real": (PURPLE, "fakes")}.items():
        axes[2].plot(metrics["epoch"], 100 * metrics[name], "o-", ms=4, color=color, label=label)
    axes[2].set(title="Share that the discriminator calls real", xlabel="epoch", ylabel="%", ylim=(-3, 116))
    axes[2].legend(loc="upper center", ncols=3)
    save(figure, path)


def progress(samples: dict[int, torch.Tensor], path: Path) -> None:
    """Rows are epochs, columns the same latent points; samples: epoch -> images [k, 1, 28, 28] in [0, 1]."""
    columns = len(next(iter(samples.values())))
    figure, axis = plt.subplots(figsize=(columns * 0.6 + 1, len(samples) * 0.6 + 0.7))
    axis.imshow(tile(torch.cat(list(samples.values())), columns), cmap="gray", vmin=0, vmax=1)
    axis.set_yticks(30 * np.arange(len(samples)) + 14, [f"epoch {epoch}" for epoch in samples])
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title("The same latent points as training goes on, averaged weights")
    save(figure, path)


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
