"""Figures of a GAN in the plane: samples, surface and arrows, the generator's manifold, curves with floors, playback.

Real is green and fake purple throughout, as in GAN Lab (Kahng et al. 2018).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, hsv_to_rgb, to_rgba
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from common import animation
from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, save
from common.plane import player

ARROW = 0.15  # length of a long arrow (95th percentile over training) [units of the plane]
SURFACE = LinearSegmentedColormap.from_list("fake-real", ["#b795e8", "#f7f7f7", "#84cb9c"])
LOSS_COLOURS = {"gan": BLUE, "least-squares": ORANGE, "wgan-gp": INK}


@dataclass(frozen=True)
class Frames:
    """What training looked like at F moments.

    Attributes:
        iterations: [F].
        real: samples of the target [n, 2], the same in every frame.
        fakes: the generator's image of the same n noise vectors [F, n, 2].
        arrows: minus the gradient of the generator's loss at each fake [F, n, 2].
        surface: the discriminator on a square grid over the window, rows along y [F, S, S], 0 fake to 1 real.
        surface_label: what the surface shows.
    """

    iterations: np.ndarray
    real: np.ndarray
    fakes: np.ndarray
    arrows: np.ndarray
    surface: np.ndarray
    surface_label: str

    @property
    def long(self) -> float:
        """The length of a long gradient: the 95th percentile over all fakes and frames; 1 if all are zero."""
        return float(np.quantile(np.linalg.norm(self.arrows, axis=2), 0.95)) or 1.0


WINDOW = (-0.1, 1.1)
MOMENTS = (0, 100, 600)  # iterations of the snapshot, before the last


class _Scene:
    """Samples, surface and arrows on one pair of axes, to be moved from frame to frame."""

    def __init__(self, axes: Axes, frames: Frames) -> None:
        self.frames = frames
        box = (*WINDOW, *WINDOW)
        self.surface = axes.imshow(frames.surface[0], cmap=SURFACE, vmin=0, vmax=1, extent=box, origin="lower")
        self.surface.set_interpolation("bilinear")
        axes.scatter(frames.real[:, 0], frames.real[:, 1], s=7, color=GREEN, linewidths=0, alpha=0.7, label="real")
        x, y = frames.fakes[0].T
        self.fakes = axes.scatter(x, y, s=7, color=PURPLE, linewidths=0, alpha=0.8, label="fake")
        zero = np.zeros(len(frames.real))
        self.arrows = axes.quiver(
            *frames.fakes[0].T, zero, zero, angles="xy", scale_units="xy", scale=1, width=0.0025, color=INK, alpha=0.55
        )
        axes.set(xlim=WINDOW, ylim=WINDOW, xlabel="x", ylabel="y", aspect="equal")
        axes.grid(False)

    def show(self, index: int) -> None:
        """Move to frame `index`; an arrow is at most 2 `ARROW` long, and none starts outside the window."""
        frames = self.frames
        steps = short_arrows(frames.fakes[index], frames.arrows[index], frames.long)
        self.surface.set_data(frames.surface[index])
        self.fakes.set_offsets(frames.fakes[index])
        self.arrows.set_offsets(frames.fakes[index])
        self.arrows.set_UVC(*steps.T)


def short_arrows(fakes: np.ndarray, arrows: np.ndarray, long: float) -> np.ndarray:
    """Arrows as they are drawn [n, 2]: `long` becomes `ARROW`, none is above twice that, none starts outside."""
    steps = arrows * ARROW / long
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    steps = steps * np.minimum(1, 2 * ARROW / np.maximum(length, 1e-12))
    inside = ((fakes > WINDOW[0]) & (fakes < WINDOW[1])).all(1, keepdims=True)
    return np.where(inside, steps, 0)


def snapshots(frames: Frames, path: Path) -> None:
    """Real and fake samples, discriminator surface and arrows at or just after each of `MOMENTS`, and at the end."""
    last = len(frames.iterations) - 1
    found = np.searchsorted(frames.iterations, [moment for moment in MOMENTS if moment < frames.iterations[-1]])
    chosen = np.unique(np.append(found, last))
    figure, axes = plt.subplots(1, len(chosen), figsize=(3.4 * len(chosen) + 1, 4.2), sharey=True, squeeze=False)
    axes = axes[0]
    for axis, index in zip(axes, chosen, strict=True):
        scene = _Scene(axis, frames)
        scene.show(index)
        length = np.linalg.norm(frames.arrows[index], axis=1).mean()
        axis.set_title(f"iteration {frames.iterations[index]:,}, mean gradient {length:.2g}", fontsize=10)
        axis.label_outer()
    figure.colorbar(scene.surface, ax=axes, label=frames.surface_label, shrink=0.8, aspect=30)
    note = f"arrows: minus the gradient of the generator's loss; one {ARROW:g} long stands for {frames.long:.2g}"
    handles = [*axes[0].get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, markerscale=2.5)
    figure.text(0.99, 0.015, f"{note}, longer than {2 * ARROW:g} is cut", ha="right", color=GREY)
    save(figure, path)


def manifold(noise_edges: np.ndarray, images: np.ndarray, real: np.ndarray, path: Path) -> None:
    """The generator's image of a noise grid whose cells hold equal probability, each cell in its colour of the noise.

    Args:
        noise_edges: cumulative probability of the grid lines along each noise dimension [m].
        images: where the grid points go: [m, 2] for noise in one dimension, [m, m, 2] in two.
        real: samples of the target [n, 2].
    """
    figure, (before, after) = plt.subplots(1, 2, figsize=(11, 5.6), layout="compressed")
    middle = (noise_edges[:-1] + noise_edges[1:]) / 2
    if images.ndim == 3:
        square = np.stack(np.meshgrid(noise_edges, noise_edges, indexing="ij"), 2)
        colours = _colours(*np.meshgrid(middle, middle, indexing="ij"))
        before.add_collection(PolyCollection(list(_quads(square)), facecolors=colours, edgecolors=colours, lw=0.3))
        opaque = np.append(colours, _opacity(_densities(images))[:, None], 1)
        after.add_collection(PolyCollection(list(_quads(images)), facecolors=opaque, edgecolors="none", zorder=2))
        before.set(ylabel="noise, second coordinate (cumulative probability)")
    else:
        line = np.stack([noise_edges, np.full_like(noise_edges, 0.5)], 1)
        colours = _colours(middle, np.full_like(middle, 0.5))
        before.add_collection(LineCollection(list(np.stack([line[:-1], line[1:]], 1)), colors=colours, lw=6))
        parts = np.stack([images[:-1], images[1:]], 1)
        density = 1 / np.maximum(np.linalg.norm(parts[:, 1] - parts[:, 0], axis=1), 1e-9)
        opaque = np.append(colours, _opacity(density)[:, None], 1)
        after.add_collection(LineCollection(list(parts), colors=opaque, lw=3, zorder=2))
        before.set(yticks=[])
    before.set(xlim=(0, 1), ylim=(0, 1), xlabel="noise, first coordinate (cumulative probability)", aspect="equal")
    before.set_title("the noise, in cells of equal probability")
    after.scatter(*real.T, s=6, color=GREY, linewidths=0, alpha=0.4, label="real samples", zorder=1)
    after.set(xlim=WINDOW, ylim=WINDOW, xlabel="x", ylabel="y", aspect="equal")
    after.set_title("where the generator puts them (fainter: sparser)")
    after.legend(loc="upper right", markerscale=2)
    save(figure, path)


def _colours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A colour for each place in the unit square, hue by its direction from the middle, pale there: RGB [N, 3]."""
    dx, dy = x.ravel() - 0.5, y.ravel() - 0.5
    hue = np.arctan2(dy, dx) / (2 * np.pi) % 1
    saturation = 0.15 + 0.75 * np.maximum(abs(dx), abs(dy)) / 0.5
    return hsv_to_rgb(np.stack([hue, saturation, np.full_like(hue, 0.85)], 1))


def _quads(grid: np.ndarray) -> np.ndarray:
    """The cells of a grid [m, m, 2] as quadrilaterals [(m - 1)^2, 4, 2]."""
    corners = [grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]]
    return np.stack(corners, 2).reshape(-1, 4, 2)


def _densities(grid: np.ndarray) -> np.ndarray:
    """One over the area of each cell of a grid [m, m, 2]: [(m - 1)^2]."""
    quads = _quads(grid)
    diagonal, other = quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]
    area = np.abs(diagonal[:, 0] * other[:, 1] - diagonal[:, 1] * other[:, 0]) / 2
    return 1 / np.maximum(area, 1e-9)


def _opacity(density: np.ndarray) -> np.ndarray:
    """An opacity [N] that grows with the square root of the density."""
    return np.clip(np.sqrt(density / np.quantile(density, 0.9)), 0.06, 1) * 0.9


def _band(axis: Axes, floors: pd.DataFrame, name: str, colour: str, label: str) -> None:
    """The floor: its mean over the draws as a line, ± 2 standard deviations as a band."""
    mean, spread = floors[name].mean(), floors[name].std(ddof=1)
    axis.axhspan(mean - 2 * spread, mean + 2 * spread, color=colour, alpha=0.22, lw=0)
    axis.axhline(mean, color=colour, lw=0.8, ls=":", label=label)


def _log(axis: Axes) -> None:
    """A logarithmic y axis with ticks at 1, 2 and 5 written out, which a short range needs."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def divergences(metrics: pd.DataFrame, floors: pd.DataFrame, n: int, n_transport: int, path: Path) -> None:
    """KL, JS and W1 of real and fake along training, each with its floor, and what the discriminator can tell.

    Thick: the mean over the seeds; thin: each seed; dashed: the generator with averaged weights, mean over the seeds.
    """
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.8), sharex=True)

    def curve(axis: Axes, name: str, colour: str, label: str) -> None:
        table = metrics.pivot(index="iteration", columns="seed", values=name)
        if len(table.columns) > 1:
            axis.plot(table.index, table, color=colour, lw=0.5, alpha=0.5)
        axis.plot(table.index, table.mean(axis=1), color=colour, label=label)
        if f"{name}_averaged" in metrics:
            mean = metrics.groupby("iteration")[f"{name}_averaged"].mean()
            axis.plot(mean.index, mean, color=colour, ls="--", lw=1.2, label=f"{label}, averaged weights")

    for name, label, colour in (("kl", "KL(real || fake)", BLUE), ("js", "JS", ORANGE)):
        curve(axes[0], name, colour, label)
        _band(axes[0], floors, name, colour, f"{label}, real against real (band: ± 2 std)")
    axes[0].axhline(math.log(2), color=GREY, lw=0.8, ls="--", label="log 2, the most JS can be")
    _log(axes[0])
    axes[0].set(ylabel="divergence [nats]")
    axes[0].set_title(f"on a grid, {n:,} samples each")
    curve(axes[1], "w1", BLUE, "W1")
    _band(axes[1], floors, "w1", BLUE, "real against real (band: ± 2 std)")
    _log(axes[1])
    axes[1].set(ylabel="W1 [units of the plane]")
    axes[1].set_title(f"exact transport, {n_transport:,} samples each")
    curve(axes[2], "accuracy", PURPLE, "the discriminator")
    curve(axes[2], "optimal_accuracy", GREEN, "the best that sees the cell only")
    _band(axes[2], floors, "optimal_accuracy", GREEN, "the same, real against real")
    axes[2].axhline(0.5, color=GREY, lw=0.8, ls="--", label="a coin")
    axes[2].set(ylim=(min(0.45, metrics["accuracy"].min() - 0.01), 1.01), ylabel="accuracy on fresh samples")
    axes[2].set_title("telling real from fake")
    for axis in axes:
        axis.set_xlabel("iteration")
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.14))
    save(figure, path)


def losses(curves: np.ndarray, metrics: pd.DataFrame, equilibrium: tuple[float, float] | None, path: Path) -> None:
    """Both losses at every iteration with their running means, and the norms of the generator's gradients.

    Args:
        curves: discriminator's and generator's loss [iterations, 2].
        equilibrium: their values where real = fake and D is optimal, or None where there is no such value.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
    window = max(1, len(curves) // 50)
    kernel = np.hanning(window + 2)[1:-1]  # smooth: a moving box would turn every spike into a rectangle
    for column, (name, colour) in enumerate((("discriminator", GREEN), ("generator", PURPLE))):
        values = curves[:, column]
        left.plot(np.arange(1, len(values) + 1), values, color=colour, lw=0.4, alpha=0.25)
        mean = np.convolve(values, kernel / kernel.sum(), "valid")
        left.plot(np.arange(len(mean)) + (window + 1) / 2, mean, color=colour, label=f"{name} (smoothed over {window})")
        if equilibrium:
            left.axhline(equilibrium[column], color=colour, lw=1, ls=":", label=f"{name} at equilibrium")
    low, high = np.quantile(curves, [0.002, 0.998])
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    left.set(xlabel="iteration", ylabel="loss", ylim=(low, high))
    beyond = ((curves < low) | (curves > high)).any(1).mean()
    left.set_title(f"losses ({beyond:.1%} of the iterations reach beyond the frame)")
    left.legend(fontsize=8)
    right.plot(metrics["iteration"], metrics["gradient_at_fakes"], color=PURPLE, label="at the fakes (mean arrow)")
    right.plot(metrics["iteration"], metrics["generator_gradient"], color=INK, label="in the generator's weights")
    right.set(xlabel="iteration", ylabel="norm of the gradient of the generator's loss", yscale="log")
    right.set_title("gradients that the generator gets")
    right.legend(fontsize=8)
    save(figure, path)


def playback(frames: Frames, metrics: pd.DataFrame, floors: pd.DataFrame, title: str, text: str, folder: Path) -> None:
    """Training as `training.html` and `training.gif`: samples, surface and arrows beside the curves with a marker."""
    figure, axes = plt.subplot_mosaic(
        [["scene", "divergence"], ["scene", "w1"], ["scene", "loss"]], figsize=(10.4, 5.2), width_ratios=[1.55, 1]
    )
    scene = _Scene(axes["scene"], frames)
    axes["scene"].legend(loc="upper right", markerscale=2.5, frameon=True, framealpha=0.8)
    colours = ScalarMappable(Normalize(0, 1), SURFACE)
    figure.colorbar(colours, ax=axes["scene"], label=frames.surface_label, shrink=0.8, aspect=30)
    x = metrics["iteration"]
    for name, label, colour in (("kl", "KL", BLUE), ("js", "JS", ORANGE)):
        axes["divergence"].plot(x, metrics[name], color=colour, label=label)
        _band(axes["divergence"], floors, name, colour, "")
    _log(axes["divergence"])
    axes["divergence"].yaxis.set_major_locator(LogLocator())
    axes["divergence"].set(ylabel="nats")
    axes["w1"].plot(x, metrics["w1"], color=BLUE, label="W1")
    _band(axes["w1"], floors, "w1", BLUE, "floor")
    _log(axes["w1"])
    axes["w1"].set(ylabel="W1 [plane]")
    axes["loss"].plot(x, metrics["discriminator_loss"], color=GREEN, label="discriminator")
    axes["loss"].plot(x, metrics["generator_loss"], color=PURPLE, label="generator")
    axes["loss"].set(ylabel="loss", xlabel="iteration")
    markers = []
    for name in ("divergence", "w1", "loss"):
        axes[name].set_xlim(axes["w1"].get_xlim())
        markers.append(axes[name].axvline(0, color=INK, lw=1))
        axes[name].legend(fontsize=8, ncols=2, loc="center right" if name == "loss" else "upper right")
    pictures, canvas = [], FigureCanvasAgg(figure)
    figure.set_dpi(120)
    for index, iteration in enumerate(frames.iterations):
        scene.show(index)
        axes["scene"].set_title(f"iteration {iteration:,}")
        for marker in markers:
            marker.set_xdata([iteration, iteration])
        canvas.draw()
        figure.set_layout_engine("none")  # after the first drawing nothing moves any more
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    plt.close(figure)
    labels = [f"iteration {iteration:,}" for iteration in frames.iterations]
    fills = [_bytes(SURFACE(level)) for level in np.linspace(0, 1, 96)]
    inks = [_bytes(to_rgba(colour)) for colour in (INK, GREY, GREEN, PURPLE, BLUE, ORANGE)]
    palette = animation.palette_of(inks, fills)
    player.write_page(pictures, palette, labels, title, text, folder / "training.html")
    animation.write_gif(pictures, palette, 800, folder / "training.gif")


def _bytes(colour: tuple[float, ...]) -> animation.Colour:
    red, green, blue = (round(255 * channel) for channel in colour[:3])
    return red, green, blue


def comparison(table: pd.DataFrame, runs: pd.DataFrame, path: Path) -> None:
    """Each loss on each target: W1, JS, coverage and quality, a dot for each seed, a bar at their mean.

    Args:
        table: a row for each target and loss, with the columns of `comparison.csv`.
        runs: a row for each target, loss and seed, with the columns of `runs.csv`.
    """
    panels = {
        "w1": "W1 [units of the plane]",
        "js": "JS [nats]",
        "covered": "fraction of modes covered",
        "quality": "fraction of high-quality samples",
    }
    targets = list(dict.fromkeys(table["target"]))
    runs = runs.assign(covered=runs["modes"] / runs["target"].map(table.groupby("target")["parts"].first()))
    kinds = list(dict.fromkeys(table["loss"]))
    figure, axes = plt.subplots(1, 4, figsize=(14, 0.75 * len(targets) + 1.4), sharey=True)
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        for kind, offset in zip(kinds, np.linspace(0.22, -0.22, len(kinds)) if len(kinds) > 1 else [0], strict=True):
            rows, dots = table[table["loss"] == kind], runs[runs["loss"] == kind]
            y, heights = (len(targets) - 1 - r["target"].map(targets.index) + offset for r in (rows, dots))
            axis.plot(dots[name], heights, ".", color=LOSS_COLOURS[kind], ms=6, mew=0, alpha=0.6, label=kind)
            axis.vlines(rows[f"{name}_mean"], y - 0.1, y + 0.1, color=LOSS_COLOURS[kind], lw=2)
        rows = table.drop_duplicates("target")
        y = np.array([len(targets) - 1 - targets.index(target) for target in rows["target"]])
        axis.vlines(rows[f"{name}_floor"], y - 0.38, y + 0.38, color=GREEN, lw=2, label="real against real")
        axis.set(xlabel=label, yticks=range(len(targets)), yticklabels=targets[::-1])
        if name in ("w1", "js"):
            axis.set_xscale("log")
        else:
            axis.set_xlim(-0.05, 1.05)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, path)
