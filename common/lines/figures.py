"""Figures of Q1: two parallel lines, their distances, what samples and networks say of them, the descent on theta."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from common.animation import palette_of, write_gif
from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, plt, save

COLOURS = {"minimax": RED, "non-saturating": ORANGE, "wasserstein": BLUE}
NAMES = {"minimax": "JS, minimax", "non-saturating": "JS, non-saturating", "wasserstein": "Wasserstein"}
LOG_2 = np.log(2)
BARS: dict[str, Any] = {"fmt": "o", "markersize": 4, "capsize": 3, "linewidth": 1.2}
THEORY: dict[str, Any] = {"linewidth": 1, "linestyle": "--"}


def _bars(axes: Axes, rows: pd.DataFrame, x: str, value: str, **style: Any) -> None:
    """Mean and standard deviation of `value` over the rows that share `x`, as points with bars."""
    by = rows.groupby(x)[value]
    axes.errorbar(by.mean().index, by.mean(), by.std(), **BARS, **style)


def _band(axes: Axes, rows: pd.DataFrame, x: str, value: str, **style: Any) -> None:
    """Mean of `value` over the rows that share `x` as a line, plus and minus a standard deviation as a band."""
    by = rows.groupby(x)[value]
    mean, std = by.mean(), by.std()
    axes.plot(mean.index, mean, **style)
    axes.fill_between(mean.index, mean - std, mean + std, color=style["color"], alpha=0.2, linewidth=0)


def setup(y: np.ndarray, y_other: np.ndarray, theta: float, path: Path) -> None:
    """The two lines, a small sample of each, and the plan that moves one sample onto the other at least cost."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 4.2), sharey=True)
    for axes, width in ((left, 3), (right, 1)):
        axes.plot([0, 0], [0, 1], color=BLUE, linewidth=width)
        axes.plot([theta, theta], [0, 1], color=ORANGE, linewidth=width)
        axes.set(xlim=(-0.25, 1.25), ylim=(-0.05, 1.2), xlabel="x", aspect="equal")
    left.set(title="Two uniform laws on parallel lines", ylabel="y")
    left.text(-0.04, 0.5, "P:  x = 0", color=BLUE, rotation=90, ha="right", va="center")
    left.text(theta + 0.04, 0.5, f"Q:  x = θ = {theta:g}", color=ORANGE, rotation=90, ha="left", va="center")
    left.annotate("", (theta, 1.06), (0, 1.06), arrowprops={"arrowstyle": "<->", "color": INK})
    left.text(theta / 2, 1.08, "θ", ha="center", va="bottom")

    low, high = np.sort(y), np.sort(y_other)
    right.plot([0 * low, 0 * high + theta], [low, high], color=GREY, linewidth=0.8)
    right.plot(0 * low, low, "o", color=BLUE, markersize=4)
    right.plot(0 * high + theta, high, "o", color=ORANGE, markersize=4)
    distance = np.hypot(theta, low - high).mean()
    right.set_title(f"Cheapest plan, {len(low)} points each: W1 = {distance:.4f}")
    save(figure, path)


def divergences(table: pd.DataFrame, n_samples: int, path: Path) -> None:
    """KL, JS and W1 against theta: exact, with theta = 0 an isolated point where they jump, and estimated."""
    figure, (kl, js, wasserstein) = plt.subplots(1, 3, figsize=(10, 3.8))
    exact = {"color": INK, "linewidth": 1.6}
    point = {
        "marker": "o",
        "color": INK,
        "linestyle": "none",
        "markersize": 8,
        "markeredgewidth": 1.6,
        "clip_on": False,
    }
    hole = point | {"markerfacecolor": "white"}

    def estimate(axes: Axes, column: str, colour: str, label: str, size: float = 4) -> None:
        values, std = table[column], table[f"{column}_std"]
        axes.errorbar(table["theta"], values, std, color=colour, label=label, **BARS | {"markersize": size}, zorder=5)

    # KL: infinity is a level of its own, above a break in the axis.
    highest = table["kl_neighbours"].max()
    top, gap = 1.3 * highest, [1.13 * highest, 1.17 * highest]
    ticks = [tick for tick in np.arange(0, 200, 5.0) if tick <= highest]
    kl.set_yticks([*ticks, top], [*(f"{tick:g}" for tick in ticks), "∞"])
    kl.plot([-0.05, -0.05], gap, color="white", linewidth=4, clip_on=False, zorder=5)
    kl.axhspan(*gap, color="white", zorder=2)
    kl.plot([0, 1], [top, top], label="exact", **exact)
    kl.plot(0, top, **hole)
    kl.plot(0, 0, **point)
    estimate(kl, "kl_neighbours", RED, f"neighbours, n = {n_samples:,}")
    kl.set(title="KL(P‖Q), KL(Q‖P)", ylabel="nats", ylim=(-0.05 * top, 1.08 * top))

    js.set_yticks([0, 0.2, 0.4, 0.6, LOG_2], ["0", "0.2", "0.4", "0.6", "log 2"])
    js.plot([0, 1], [LOG_2, LOG_2], label="exact", **exact)
    js.plot(0, LOG_2, **hole)
    js.plot(0, 0, **point)
    estimate(js, "js_discriminator", ORANGE, "discriminator")
    js.set(title="Jensen–Shannon", ylabel="nats", ylim=(-0.04, 0.78))

    wasserstein.plot([0, 1], [0, 1], label="exact", **exact)
    wasserstein.plot(0, 0, **point)
    estimate(wasserstein, "wasserstein_critic", BLUE, "critic")
    estimate(wasserstein, "wasserstein_samples", GREEN, f"samples, n = {n_samples:,}", size=2)
    wasserstein.set(title="Wasserstein-1", ylabel="distance", ylim=(-0.06, 1.15))
    for axes, place in ((kl, (0.17, 0.16)), (js, "center right"), (wasserstein, "upper left")):
        axes.set(xlabel="θ", xlim=(-0.05, 1.05))
        axes.legend(loc=place)
    save(figure, path)


def relaxations(table: pd.DataFrame, path: Path) -> None:
    """KL, JS and W1 of strips and blurred lines against theta, for several widths, converging to the lines' own."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex=True)
    for row, (kind, symbol, name) in zip(axes, (("strips", "w", "Strips"), ("blur", "σ", "Blur")), strict=True):
        groups = table[table["kind"] == kind].groupby("width", sort=False)
        for i, (width, rows) in enumerate(groups):
            style = {
                "color": plt.get_cmap("viridis_r")(0.2 + 0.8 * i / (len(groups) - 1)),
                "label": f"{symbol} = {width:g}",
            }
            positive = rows[rows["theta"] > 0]  # KL has a logarithmic axis
            row[0].plot(positive["theta"], positive["kl"], **style)
            row[1].plot(rows["theta"], rows["js"], **style)
            row[2].plot(rows["theta"], rows["wasserstein"], linewidth=8 - 2 * i, **style)  # all the same line
        row[0].set(ylabel="nats", title=f"{name}: KL")
        row[1].set(ylabel="nats", title=f"{name}: Jensen–Shannon", ylim=(-0.03, 0.76))
        row[1].axhline(LOG_2, color=INK, linestyle=":", linewidth=1)
        row[1].text(1, LOG_2 + 0.01, "log 2", ha="right", va="bottom")
        row[2].set(ylabel="distance", title=f"{name}: Wasserstein-1 = θ")
        row[2].legend(loc="lower right")
    axes[0, 0].clear()
    axes[0, 0].set(title="Strips: KL", yticks=[], ylim=(0, 1))
    axes[0, 0].text(0.5, 0.5, "∞ for every θ > 0\nand every width", ha="center", va="center", fontsize=12)
    axes[1, 0].set(yscale="log")
    for ax in axes[1]:
        ax.set(xlabel="θ")
    save(figure, path)


def finite_samples(laws: pd.DataFrame, knn: pd.DataFrame, costs: pd.DataFrame, path: Path) -> None:
    """Against n: the bias of empirical W1 with its laws, the estimate of KL, the time of three exact ways to W1."""
    figure, (error, growth, cost) = plt.subplots(1, 3, figsize=(10.4, 4))
    for (theta, rows), colour in zip(laws.groupby("theta"), (INK, RED, ORANGE, BLUE), strict=True):
        error.plot(rows["n"], rows["law"], color=colour, **THEORY)
        error.errorbar(rows["n"], rows["error"], rows["standard_error"], color=colour, label=f"θ = {theta:g}", **BARS)
    error.plot([], [], color=GREY, label="theory", **THEORY)
    error.set(title="W1 of samples: bias", ylabel="W1(samples) − θ ± standard error", yscale="log")

    for (theta, rows), colour in zip(knn.groupby("theta"), (INK, RED, BLUE), strict=True):
        _bars(growth, rows, "n", "kl", color=colour, label=f"θ = {theta:g}")
        if theta > 0:
            n, last = np.unique(rows["n"]), rows.groupby("n")["kl"].mean().iloc[-1]
            growth.plot(n, last + 2 * np.log(n / n[-1]), color=colour, **THEORY)
    growth.plot([], [], color=GREY, label="slope 2 ln 10 per decade", **THEORY)
    growth.set(title="KL by nearest neighbours", ylabel="nats")

    for (way, rows), colour in zip(costs.groupby("way", sort=False), (BLUE, RED, PURPLE), strict=True):
        bars = [rows["seconds"] - rows["low"], rows["high"] - rows["seconds"]]
        cost.errorbar(rows["n"], rows["seconds"], bars, color=colour, label=way, **BARS | {"fmt": "o-"})
    cost.set(title="Time for the exact W1", ylabel="seconds (median, range of 5)", yscale="log")
    for axes in (error, growth, cost):
        axes.set(xlabel="n", xscale="log")
        axes.legend()
    save(figure, path)


def learned(table: pd.DataFrame, best: pd.DataFrame, profiles: dict[str, np.ndarray], theta: float, path: Path) -> None:
    """What trained networks say of JS and W1, the functions they learned, and the slopes they give a generator.

    Args:
        table: rows with theta, seed, discriminator, critic and the slopes.
        best: rows with theta, mesh, difference and x_difference of the best penalised critics.
        profiles: profile_x [points]; discriminators (logits) and critics [seeds, points], along y = 1/2 at theta.
        theta: that of the profiles.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7))
    js, wasserstein, along, slopes = axes.flat

    js.plot([0, 1], [LOG_2, LOG_2], color=INK, linewidth=1.2, label="exact, θ > 0: log 2")
    js.plot(0, 0, "o", color=INK, markersize=7, markerfacecolor="none", label="exact, θ = 0")
    _bars(js, table, "theta", "discriminator", color=ORANGE, label="discriminator, fresh points")
    js.set(title="Bound on JS", xlabel="θ", ylabel="nats", ylim=(-0.04, 0.76))
    js.legend()

    finest = best[best["mesh"] == best["mesh"].max()]
    thetas = np.array([0.0, *finest["theta"]])
    wasserstein.plot([0, 1], [0, 0], color=INK, linewidth=1.2, label="exact")
    for column, colour, style, label in (
        ("difference", BLUE, "--", "best penalised critic"),
        ("x_difference", GREY, ":", "the best that ignores y, θ²/(2λ)"),
    ):
        excess = np.array([0.0, *(finest[column] - finest["theta"])])
        wasserstein.plot(thetas, excess, color=colour, linewidth=1.2, linestyle=style, label=label)
    errors = table.assign(error=table["critic"] - table["theta"])
    _bars(wasserstein, errors, "theta", "error", color=BLUE, label="critic, fresh points")
    wasserstein.set(title="Critic's W1 minus θ", xlabel="θ", ylabel="error")
    wasserstein.legend(loc="upper left")

    x, at = profiles["profile_x"], np.abs(profiles["profile_x"] - theta).argmin()
    for logits, values in zip(profiles["discriminators"], profiles["critics"], strict=True):
        along.plot(x, 1 / (1 + np.exp(-logits.astype(np.float64))), color=ORANGE, linewidth=1)
        along.plot(x, values - values[at], color=BLUE, linewidth=1)
    along.plot([], [], color=ORANGE, label="discriminator D(x, ½)")
    along.plot([], [], color=BLUE, label="critic f(x, ½) − f(θ, ½)")
    for place, name in ((0, "P"), (theta, "Q")):
        along.axvline(place, color=GREY, linestyle=":", linewidth=1.2)
        along.text(place + 0.02, 0.03, name, transform=along.get_xaxis_transform())
    along.set(title=f"What they learned at θ = {theta:g}", xlabel="x", ylabel="output, one line per seed")
    along.legend()

    apart = table[table["theta"] > 0]
    for loss, colour in COLOURS.items():
        size = apart[f"slope_{loss}"].abs()
        slopes.plot(apart["theta"], size, ".", color=colour, markersize=4, alpha=0.6)
        slopes.plot(size.groupby(apart["theta"]).median(), color=colour, linewidth=1.2, label=NAMES[loss])
    slopes.set(
        title="Slope for the generator, θ > 0", xlabel="θ", ylabel="|d loss / d θ|, seeds and median", yscale="log"
    )
    slopes.set(xlim=js.get_xlim())
    slopes.legend()
    save(figure, path)


def descent(table: pd.DataFrame, path: Path) -> None:
    """theta and the slope it follows, against the step of gradient descent, for each loss."""
    figure, (place, slope) = plt.subplots(1, 2, figsize=(9.6, 3.9))
    for loss, rows in table.groupby("loss", sort=False):
        _band(place, rows, "step", "theta", color=COLOURS[loss], label=NAMES[loss])
        sizes = rows["slope"].abs().groupby(rows["step"])
        slope.plot(sizes.median(), color=COLOURS[loss], linewidth=1.2)
        slope.fill_between(sizes.min().index, sizes.min(), sizes.max(), color=COLOURS[loss], alpha=0.2, linewidth=0)
    place.axhline(0, color=INK, linewidth=1, linestyle=":")
    place.set(title="θ, mean ± standard deviation over seeds", xlabel="step on θ", ylabel="θ")
    place.legend()
    slope.set(title="Slope, median and range over seeds", xlabel="step on θ", ylabel="|d loss / d θ|", yscale="log")
    save(figure, path)


def descent_animation(table: pd.DataFrame, path: Path, frames: int = 50) -> None:
    """A GIF of the descent: the generated lines of each loss, one a seed, beside theta so far, mean over seeds."""
    paths = {
        k: rows.pivot(index="step", columns="seed", values="theta") for k, rows in table.groupby("loss", sort=False)
    }
    last = int(table["step"].max())
    low, high = min(table["theta"].min(), 0) - 0.1, max(table["theta"].max(), 1) + 0.1
    figure, (plane, curve) = plt.subplots(1, 2, figsize=(8.4, 3.6), dpi=100)
    plane.axvline(0, color=INK, linewidth=3)
    plane.set(xlim=(low, high), ylim=(0, 3), xlabel="x", title="Black: data; coloured: generator")
    plane.set_yticks([2.5, 1.5, 0.5], [NAMES[loss] for loss in paths])
    plane.grid(False)
    curve.axhline(0, color=INK, linewidth=1, linestyle=":")
    curve.set(xlim=(0, last), ylim=(low, high), xlabel="step on θ", ylabel="θ, mean over seeds")
    canvas = FigureCanvasAgg(figure)
    lines, curves = {}, {}
    for row, (loss, theta) in enumerate(paths.items()):
        lines[loss] = plane.vlines(theta.iloc[0], 2.1 - row, 2.9 - row, color=COLOURS[loss], linewidth=1.5)
        (curves[loss],) = curve.plot([], [], color=COLOURS[loss], label=NAMES[loss])

    images = []
    for step in np.unique(np.linspace(0, last, frames).astype(int)):
        for row, (loss, theta) in enumerate(paths.items()):
            now = theta.iloc[step]
            lines[loss].set_segments([[(x, 2.1 - row), (x, 2.9 - row)] for x in now])
            curves[loss].set_data(theta.index[: step + 1], theta.iloc[: step + 1].mean(axis=1))
        curve.set_title(f"Step {step}")
        canvas.draw()
        figure.set_layout_engine("none")  # after the first drawing nothing moves any more
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    plt.close(figure)

    def rgb(colour: str) -> tuple[int, int, int]:
        red, green, blue = (round(255 * channel) for channel in to_rgb(colour))
        return red, green, blue

    palette = palette_of([rgb(colour) for colour in (INK, *COLOURS.values())], [(230, 230, 230)])
    write_gif(images, palette, 672, path)
