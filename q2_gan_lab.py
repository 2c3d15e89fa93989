"""Q2: a GAN in two dimensions under the microscope.

Question: what happens while a GAN learns a distribution in the plane? Do real and fake end up close, how long are the
generator's gradients and what does that mean, and can the discriminator still tell the two apart? The assignment
looked at it in GAN Lab (Kahng et al. 2018, arXiv 1809.01587), a web page; here the same is run headless and measured.

Losses: the GAN of Goodfellow et al. 2014 (arXiv 1406.2661) with the non-saturating generator, least squares (Mao et al.
2017, arXiv 1611.04076), WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028).

Examples:
    python q2_gan_lab.py
    python q2_gan_lab.py --target all --loss all --out outputs/q2_gan_lab/comparison

The first writes to outputs/q2_gan_lab: metrics.csv (a row per evaluation), floors.csv (real against real), answers.csv
(the last tenth of training against the floors), snapshot.png, manifold.png, divergences.png, losses.png, training.html
(a page that plays training back) and training.gif. The second writes comparison.csv and comparison.png (mean and
standard deviation over the seeds), runs.csv (a row per run) and a folder for each run.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.losses import gradient_penalty
from common.plane import figures, measures
from common.plane.networks import Discriminator, Generator
from common.plane.targets import TARGETS
from common.run import Run, require_finite, rng_for
from common.run.cli import launch, require, require_range, resolve_device
from common.run.files import write_file
from common.schedule import linear_decay

LOSSES = ("gan", "least-squares", "wgan-gp")
FLOOR_DRAWS = 10
SHOWN = 400  # samples and arrows in a picture
SURFACE = 64  # grid points per side of the discriminator's surface

# What a preset sets where no flag does. GAN Lab's are the defaults of its page; ours were the better by measurement.
PRESETS: dict[str, dict[str, Any]] = {
    "ours": {
        "optimizer": "adam",
        "lr": 2e-3,
        "generator_lr": 1e-3,
        "decay_from": 0.5,
        "batch_size": 256,
        "discriminator_steps": 3,
        "real_weight": 1.0,
        "width": 64,
        "depth": 3,
        "leak": 0.2,
        "noise": "gaussian",
        "coordinates": "centred",
    },
    "ganlab": {
        "optimizer": "sgd",
        "lr": 0.1,
        "generator_lr": 0.1,
        "decay_from": 1.0,
        "batch_size": 150,
        "discriminator_steps": 2,
        "real_weight": 0.95,
        "width": 8,
        "depth": 2,
        "leak": 0.0,
        "noise": "uniform",
        "coordinates": "raw",
    },
}


@dataclass(frozen=True)
class Config:
    target: Literal["line", "gaussians", "ring", "disjoint", "eight", "grid", "all"] = "ring"
    """The distribution to learn; the first four are GAN Lab's, the last two the usual tests for mode collapse."""
    loss: Literal["gan", "least-squares", "wgan-gp", "all"] = "gan"
    """The pair of losses. With `all` here or as target: every such run, and a table that compares them."""
    preset: Literal["ours", "ganlab"] = "ours"
    """Where the settings come from that are None below: ours, or the defaults of GAN Lab's page."""
    iterations: int = 5_000
    """Iterations; in each the discriminator makes its steps, then the generator one."""
    batch_size: int | None = None
    """Samples per step (ours 256, ganlab 150)."""
    lr: float | None = None
    """Learning rate of the discriminator (ours 0.002, ganlab 0.1)."""
    generator_lr: float | None = None
    """Learning rate of the generator (ours 0.001: a discriminator that keeps ahead says more; ganlab 0.1)."""
    decay_from: float | None = None
    """Share of training after which both learning rates fall linearly to 0 (ours 0.5, ganlab 1, which is never)."""
    optimizer: Literal["adam", "sgd"] | None = None
    """Optimizer of both networks (ours adam, ganlab sgd)."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's averaging constants; no momentum, as in Karras et al. 2018 (arXiv 1710.10196)."""
    discriminator_steps: int | None = None
    """Discriminator steps per iteration (ours 3, ganlab 2)."""
    generator_steps: int = 1
    """Generator steps per iteration."""
    real_weight: float | None = None
    """Weight of the real term in the discriminator's loss `gan` (ours 1; ganlab 0.95)."""
    penalty: float = 0.1
    """Weight lambda of the gradient penalty of wgan-gp (Gulrajani et al. 2017's public code for toy data)."""
    noise: Literal["gaussian", "uniform"] | None = None
    """Noise of the generator: N(0, 1) (ours) or U[0, 1) (ganlab) in each coordinate."""
    noise_dim: Literal[1, 2] = 2
    """Number of noise coordinates."""
    width: int | None = None
    """Units in a hidden layer of either network (ours 64, ganlab 8)."""
    depth: int | None = None
    """Hidden layers of either network (ours 3, ganlab 2)."""
    leak: float | None = None
    """Slope of the discriminator's ReLU below 0 (ours 0.2, so that no unit dies; ganlab 0)."""
    coordinates: Literal["centred", "raw"] | None = None
    """What the networks see: 4 (x - 1/2) (ours), or x itself, with tanh at the generator's end (ganlab)."""
    evaluate_every: int = 100
    """Iterations between two evaluations (rows, frames); it changes no weight. A comparison evaluates at the ends."""
    eval_samples: int = 20_000
    """Fresh real and fresh fake samples of an evaluation."""
    transport_samples: int = 1_000
    """How many of them go into exact transport (its time grows with the square at least)."""
    seed: int = 0
    """Seed of every random number."""
    seeds: int = 3
    """How many seeds a comparison takes, from `--seed` upwards; a single run takes the first."""
    device: str = "cpu"
    """cpu, cuda, mps or auto; for networks as small as these the cpu is the fastest."""
    out: Path = Path("outputs/q2_gan_lab")
    """Folder of the run."""
    fresh: bool = False
    """Start over, dropping the checkpoints in the folder."""

    def __post_init__(self) -> None:
        if not self.is_comparison:
            for name, value in PRESETS[self.preset].items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
        limits = {
            "iterations": (1, 10_000_000),
            "batch_size": (2, 1_000_000),
            "lr": (1e-9, 100),
            "generator_lr": (1e-9, 100),
            "decay_from": (0, 1),
            "discriminator_steps": (1, 1000),
            "generator_steps": (1, 1000),
            "real_weight": (0, 10),
            "penalty": (0, 1e6),
            "width": (1, 4096),
            "depth": (1, 50),
            "leak": (0, 1),
            "evaluate_every": (1, 10_000_000),
            "eval_samples": (1_000, 10_000_000),
            "transport_samples": (10, 10_000),
            "seed": (0, 2**31),
            "seeds": (1, 1000),
        }
        for name, (low, high) in limits.items():
            if (value := getattr(self, name)) is not None:
                require_range("--" + name.replace("_", "-"), value, low, high)
        for beta in self.betas:
            require(0 <= beta < 1, "--betas", beta, "numbers from 0, below 1")
        wanted = f"at most --eval-samples, {self.eval_samples}"
        require(self.transport_samples <= self.eval_samples, "--transport-samples", self.transport_samples, wanted)

    @property
    def is_comparison(self) -> bool:
        return "all" in (self.target, self.loss)


class Players(NamedTuple):
    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer


def players(config: Config) -> Players:
    """Both networks and their optimizers, the weights a function of the seed."""
    rng, centred = rng_for(config.seed, "weights", 0), config.coordinates == "centred"
    device = resolve_device(config.device)
    generator = Generator(config.noise_dim, config.width, config.depth, centred, rng).to(device)
    discriminator = Discriminator(config.width, config.depth, config.leak, centred, rng).to(device)

    def optimizer(network: nn.Module) -> torch.optim.Optimizer:
        if config.optimizer == "adam":
            return torch.optim.Adam(network.parameters(), betas=config.betas, fused=True)
        return torch.optim.SGD(network.parameters(), fused=True)

    return Players(generator, discriminator, optimizer(generator), optimizer(discriminator))


# The losses. A score f(x) is the discriminator's raw output; D(x) is its sigmoid for `gan`, f itself otherwise.


def discriminator_loss(loss: str, real: Tensor, fake: Tensor, real_weight: float = 1.0) -> Tensor:
    """What the discriminator minimises, without the gradient penalty, from its scores [B] on real and fake samples."""
    if loss == "gan":  # -E log D(x) - E log(1 - D(G(z))): Goodfellow 2014, eq. 1
        return real_weight * F.softplus(-real).mean() + F.softplus(fake).mean()
    if loss == "least-squares":  # 1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2: Mao 2017, eq. 9
        return ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2
    return fake.mean() - real.mean()  # Gulrajani 2017, eq. 3


def generator_loss(loss: str, fake: Tensor) -> Tensor:
    """What the generator minimises in the mean, for each fake [B], from the discriminator's scores [B]."""
    if loss == "gan":  # -log D(G(z)): Goodfellow 2014, section 3
        return F.softplus(-fake)
    if loss == "least-squares":
        return (fake - 1) ** 2 / 2
    return -fake


def arrows(discriminator: nn.Module, loss: str, fake: Tensor) -> Tensor:
    """Minus the gradient of the generator's loss at each fake [n, 2]: where the discriminator pushes it [n, 2]."""
    fake = fake.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(generator_loss(loss, discriminator(fake)).sum(), fake)
    return -gradient


# Training.


def draw_noise(config: Config, n: int, rng: torch.Generator) -> Tensor:
    """Noise [n, noise_dim]."""
    draw = torch.randn if config.noise == "gaussian" else torch.rand
    return draw(n, config.noise_dim, generator=rng, device=rng.device)


def iteration(config: Config, players: Players, rng: torch.Generator, step: int) -> Tensor:
    """The discriminator's steps, then the generator's (Goodfellow 2014, algorithm 1): the last loss of each [2]."""
    generator, discriminator, generator_optimizer, discriminator_optimizer = players
    for optimizer, peak in ((generator_optimizer, config.generator_lr), (discriminator_optimizer, config.lr)):
        optimizer.param_groups[0]["lr"] = linear_decay(step, config.iterations, peak, config.decay_from)

    n = config.batch_size * config.discriminator_steps
    with torch.no_grad():
        all_fakes = generator(draw_noise(config, n, rng))  # the generator rests meanwhile: one pass for all steps
    all_reals = TARGETS[config.target].sample(n, rng)
    for real, fake in zip(all_reals.split(config.batch_size), all_fakes.split(config.batch_size), strict=True):
        scores = discriminator(torch.cat([real, fake]))  # [2 B]
        d_loss = discriminator_loss(config.loss, *scores.split(config.batch_size), config.real_weight)
        if config.loss == "wgan-gp":
            share = torch.rand(len(real), generator=rng, device=rng.device)
            d_loss = d_loss + config.penalty * gradient_penalty(discriminator, real, fake, share).mean()
        discriminator_optimizer.zero_grad()
        d_loss.backward()
        require_finite(discriminator.parameters(), discriminator_loss=d_loss)
        discriminator_optimizer.step()

    for _ in range(config.generator_steps):
        fake = generator(draw_noise(config, config.batch_size, rng))
        g_loss = generator_loss(config.loss, discriminator(fake)).mean()
        generator_optimizer.zero_grad()
        g_loss.backward()
        require_finite(generator.parameters(), generator_loss=g_loss)
        generator_optimizer.step()
    return torch.stack([d_loss.detach(), g_loss.detach()])


def train(run: Run, config: Config, players: Players) -> None:
    """All iterations still to do, with an evaluation before the first, at every interval and after the last."""
    frames = 2 + (config.iterations - 1) // config.evaluate_every
    if not run.tables.get("floors"):
        target, sizes = TARGETS[config.target], (config.eval_samples, config.transport_samples)
        for row in measures.floor(target, *sizes, FLOOR_DRAWS, lambda draw: run.rng("floors", draw)):
            run.record("floors", **row)
        shapes = {"losses": (config.iterations, 2), "fakes": (frames, SHOWN, 2), "arrows": (frames, SHOWN, 2)}
        for name, shape in {**shapes, "surface": (frames, SURFACE, SURFACE)}.items():
            run.keep(name, torch.zeros(shape, device=run.device))
        evaluate(run, config, players, 0)
    for step in run.steps(config.iterations, config.evaluate_every):
        run.tensors["losses"][step] = iteration(config, players, run.rng("train", step), step)
        done = step + 1
        if done % config.evaluate_every == 0 or done == config.iterations:
            evaluate(run, config, players, done)


# Measuring.


def as_probability(loss: str, scores: Tensor, middle: Tensor) -> Tensor:
    """Scores as "how real", 0 to 1. A critic has no such unit: its scores about `middle`, relative to the largest."""
    if loss == "gan":
        return scores.sigmoid()
    if loss == "least-squares":
        return scores.clamp(0, 1)
    centred = scores - middle
    return 0.5 + 0.5 * centred / centred.abs().max().clamp_min(1e-12)


def evaluate(run: Run, config: Config, players: Players, done: int) -> None:
    """Record a row of `metrics` and a frame, from fresh samples of a stream of its own."""
    rng, target, discriminator = run.rng("evaluate", done), TARGETS[config.target], players.discriminator
    real, z = target.sample(config.eval_samples, rng), draw_noise(config, config.eval_samples, rng)
    with torch.no_grad():
        fake = players.generator(z)
        f_real, f_fake = discriminator(real), discriminator(fake)  # [n] both
    middle = (f_real.mean() + f_fake.mean()) / 2
    threshold = {"gan": 0.0, "least-squares": 0.5, "wgan-gp": middle}[config.loss]
    row = measures.compare(target, real, fake, config.transport_samples)
    row["accuracy"] = ((f_real > threshold).double().mean() + (f_fake <= threshold).double().mean()) / 2
    if config.loss == "wgan-gp":  # the optimum is the Kantorovich potential, whose difference of means is W1
        row["critic_estimate"] = f_real.mean() - f_fake.mean()
    else:  # the optimum is p / (p + q)
        beliefs = (as_probability(config.loss, f, middle) for f in (f_real, f_fake))
        row["discriminator_gap"] = measures.discriminator_gap(real, fake, *beliefs)

    subset = z[: config.transport_samples]
    mean_loss = generator_loss(config.loss, discriminator(players.generator(subset))).mean()
    gradients = torch.autograd.grad(mean_loss, list(players.generator.parameters()))
    row["gradient_at_fakes"] = arrows(discriminator, config.loss, fake[: len(subset)]).norm(dim=1).mean()
    row["generator_gradient"] = torch.nn.utils.get_total_norm(gradients)

    before = len(run.rows("metrics"))
    first = 0 if before == 0 else int(run.rows("metrics")["iteration"].iloc[-1])
    d_loss, g_loss = run.tensors["losses"][first:done].mean(0) if done else (float("nan"), float("nan"))
    run.record("metrics", iteration=done, discriminator_loss=d_loss, generator_loss=g_loss, **row)

    with torch.no_grad():
        shown = players.generator(draw_noise(config, SHOWN, run.rng("shown", 0)))
        line = torch.linspace(*figures.WINDOW, SURFACE, device=run.device)
        plane = torch.cartesian_prod(line, line).flip(1)  # [S * S, 2], x fastest
        surface = as_probability(config.loss, discriminator(plane), middle)
    run.tensors["fakes"][before] = shown
    run.tensors["arrows"][before] = arrows(discriminator, config.loss, shown)
    run.tensors["surface"][before] = surface.reshape(SURFACE, SURFACE)


# The answers.


def answers(metrics: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """Each measure in the first and in the last tenth of the evaluations, beside its floor: means and deviations."""
    tenth = max(1, len(metrics) // 10)
    early, late = metrics.head(tenth), metrics.tail(tenth)
    columns = {"first_tenth": early.mean(), "last_tenth": late.mean(), "last_tenth_std": late.std(ddof=1)}
    table = pd.DataFrame({**columns, "floor": floors.mean(), "floor_std": floors.std(ddof=1)})
    return table.loc[metrics.columns.drop("iteration")].rename_axis("measure")


def discussion(config: Config, table: pd.DataFrame) -> list[str]:
    """The assignment's three questions, answered with `answers`."""
    value, spread, floor, floor_spread = (table[c] for c in ("last_tenth", "last_tenth_std", "floor", "floor_std"))

    def against_floor(name: str, unit: str) -> str:
        found = f"{name.upper()} {value[name]:.4f} ± {spread[name]:.4f}{unit}"
        return f"{found} ({value[name] / floor[name]:.1f} x its floor {floor[name]:.4f} ± {floor_spread[name]:.4f})"

    distances = ["kl", "js", "w1"]
    if (value[distances] <= floor[distances] + 2 * floor_spread[distances]).all():
        close = "as close as two real samples are"
    else:
        close = "close, not equal" if value["w1"] < 3 * floor["w1"] else "still apart"
    length, before = value["gradient_at_fakes"], table["first_tenth"]["gradient_at_fakes"]
    if length < before / 3:
        meaning = "short: the discriminator is nearly flat where the fakes are, little pushes them on"
    else:
        meaning = "still long: the discriminator keeps pushing, so the fakes keep moving with the learning rate"
    coin = 0.5 / (2 * config.eval_samples) ** 0.5
    can = "hardly can" if value["accuracy"] < 0.55 else "still can"
    first = f"Real and fake are {close}: {against_floor('kl', ' nats')}, {against_floor('js', ' nats')}, "
    return [
        first + against_floor("w1", "") + ".",
        f"The gradient at the fakes is {length:.3g} long, {before:.3g} in the first tenth of training; {meaning}.",
        f"The discriminator {can} tell: right on {value['accuracy']:.1%} of fresh samples (a coin: 50 ± {coin:.1%}). "
        f"The best that sees only the grid cell: {value['optimal_accuracy']:.1%}, and {floor['optimal_accuracy']:.1%} "
        "on real against real.",
        f"Modes covered {value['modes']:.1f} of {TARGETS[config.target].parts}; high-quality samples "
        f"{value['quality']:.1%} (of real ones {floor['quality']:.1%}).",
    ]


def draw(run: Run, config: Config, generator: nn.Module) -> None:
    """Every figure of a run, from its tables and kept tensors."""
    metrics, floors = run.rows("metrics"), run.rows("floors")
    kept = {name: tensor.cpu().numpy() for name, tensor in run.tensors.items()}
    real = TARGETS[config.target].sample(SHOWN, run.rng("shown", 1)).cpu().numpy()
    label = {"wgan-gp": "critic's score, relative to its range (1: most real)"}.get(config.loss, "D(x): 1 real, 0 fake")
    moments = metrics["iteration"].to_numpy()
    frames = figures.Frames(moments, real, kept["fakes"], kept["arrows"], kept["surface"], label)
    figures.snapshots(frames, run.folder / "snapshot.png")

    edges = torch.linspace(0.005, 0.995, 67, device=run.device)
    lines = torch.special.ndtri(edges) if config.noise == "gaussian" else edges
    z = torch.cartesian_prod(lines, lines) if config.noise_dim == 2 else lines[:, None]
    with torch.no_grad():
        images = generator(z).reshape(*[len(lines)] * config.noise_dim, 2)
    figures.manifold(edges.cpu().numpy(), images.cpu().numpy(), real, run.folder / "manifold.png")

    sizes = (config.eval_samples, config.transport_samples)
    figures.divergences(metrics, floors, *sizes, run.folder / "divergences.png")
    # Where real = fake: D = 1/2 everywhere.
    equilibrium = {"gan": ((1 + config.real_weight) * np.log(2), np.log(2)), "least-squares": (0.25, 0.125)}
    figures.losses(kept["losses"], metrics, equilibrium.get(config.loss), run.folder / "losses.png")

    title = f"A GAN in the plane: target {config.target}, loss {config.loss}"
    text = (
        "Real samples are green, fake ones purple; each fake follows one noise vector. The background is the "
        "discriminator, green where it says real; the arrows show where it pushes the fakes. Bands: the values that "
        "real samples reach against other real samples."
    )
    figures.playback(frames, metrics, floors, title, text, run.folder)


# Comparing.


def compare(config: Config) -> None:
    """Train every (target, loss, seed) in a folder of its own, each of them continuable, and tabulate the ends."""
    targets = list(TARGETS) if config.target == "all" else [config.target]
    losses = LOSSES if config.loss == "all" else (config.loss,)
    seeds = range(config.seed, config.seed + config.seeds)
    runs = list(itertools.product(targets, losses, seeds))
    with Run(config, "q2_gan_lab") as whole:
        for step in whole.steps(len(runs), per_epoch=1):
            target, loss, seed = runs[step]
            folder = whole.folder / "runs" / f"{target}_{loss}_{seed}"
            every = config.iterations
            part = replace(config, target=target, loss=loss, seed=seed, evaluate_every=every, out=folder)
            networks = players(part)
            with Run(part, "q2_gan_lab", **networks._asdict()) as run:
                train(run, part, networks)
                end = run.rows("metrics").iloc[-1]
                floors = run.rows("floors").mean().add_suffix("_floor")
            wanted = ["w1", "js", "kl", "modes", "quality", "accuracy"]
            ends = {**end[wanted], **floors[["w1_floor", "js_floor", "quality_floor"]]}
            whole.record("runs", target=target, loss=loss, seed=seed, **ends, seconds=run.seconds)
            whole.say(f"{step + 1}/{len(runs)} {target} {loss} seed {seed}: W1 {end.w1:.4f}, JS {end.js:.4f}")

        table = tabulate(whole.rows("runs"))
        write_file(whole.folder / "comparison.csv", table.to_csv(index=False, float_format="%.5g").encode())
        figures.comparison(table, whole.folder / "comparison.png")
        whole.say(table[["target", "loss", "w1_mean", "w1_std", "js_mean", "modes_mean", "quality_mean"]].to_string())


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds: a row for each target and loss, in the order of the runs."""
    runs = runs.assign(parts=runs["target"].map(lambda target: TARGETS[target].parts))
    runs = runs.assign(covered=runs["modes"] / runs["parts"], covered_floor=1.0)
    groups = runs.groupby(["target", "loss"], sort=False)
    columns: dict[str, pd.Series] = {"seeds": groups["seed"].count(), "parts": groups["parts"].first()}
    for name in ("w1", "js", "modes", "covered", "quality"):
        columns[f"{name}_mean"], columns[f"{name}_std"] = groups[name].mean(), groups[name].std(ddof=1)
        if f"{name}_floor" in runs:
            columns[f"{name}_floor"] = groups[f"{name}_floor"].mean()
    columns["seconds"] = groups["seconds"].mean()
    return pd.DataFrame(columns).reset_index()


def main(config: Config) -> None:
    """Train one GAN and draw it, or compare many."""
    torch.set_num_threads(1)  # the networks are too small to share
    if config.is_comparison:
        compare(config)
        return

    # Networks and run: the same command continues where the last checkpoint stood.
    networks = players(config)
    with Run(config, "q2_gan_lab", **networks._asdict()) as run:
        train(run, config, networks)

        # Figures and answers.
        draw(run, config, networks.generator)
        table = answers(run.rows("metrics"), run.rows("floors"))
        write_file(run.folder / "answers.csv", table.to_csv(float_format="%.5g").encode())
        for line in discussion(config, table):
            run.say(line)


if __name__ == "__main__":
    launch(Config, main, __doc__)
