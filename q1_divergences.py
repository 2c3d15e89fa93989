"""Q1: which distance tells two parallel lines apart usefully: KL, Jensen-Shannon or Wasserstein?

P = law of (0, Y), Q = law of (theta, Y), Y uniform on [0, 1], 0 <= theta <= 1: example 1 and figure 1 of Arjovsky,
Chintala, Bottou 2017, "Wasserstein GAN", arXiv 1701.07875. The three distances (a) for theta != 0, (b) for theta = 0,
and (c) what makes the Wasserstein distance the better one: exact, estimated from samples, and as networks learn them.

    python q1_divergences.py
    python q1_divergences.py --theta 0.2 --n-samples 2000 --seeds 3 --out outputs/q1_small

Writes answers.csv, conclusions.csv, divergences.csv and the tables behind them (relaxations, samples, laws, knn, costs,
best_critic, learned, descent), the figures setup, divergences, relaxations, finite_samples, learned, descent (.png) and
descent.gif, and prints the answers and the conclusion. The same command again only draws and prints.

On another processor: relaxations, the best critic, samples, laws, knn equal to rounding, as their draws are equal bit
for bit; learned and descent equal in distribution only, as training amplifies rounding; costs are times.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from common.lines import estimators, exact, summary, tables
from common.lines.networks import (
    LOSSES,
    Networks,
    critic_difference,
    critic_loss,
    discriminator_loss,
    draw,
    generator_slope,
    js_bound,
    training_bytes,
)
from common.lines.tables import Rows, line, numpy_rng, pieces
from common.run import Run, require_finite
from common.run.cli import launch, require, require_range, resolve_device
from common.run.memory import require_memory


@dataclass(frozen=True)
class Config:
    # Question
    theta: float = 0.5
    """Distance of the lines at which (a) is answered, in (0, 1]; 0, 0.1, ... 1 are computed besides."""
    n_samples: int = 10_000
    """Points drawn from each line for an estimate [points]."""
    repeats: int = 400
    """Repetitions behind each point of the finite-sample laws."""
    seeds: int = 5
    """Independent repetitions of every other estimate and of every network; spreads are over them."""
    # Networks and training
    width: int = 32
    """Units in each of the two hidden layers of a discriminator or critic."""
    batch_size: int = 128
    """Points of each line per training step [points]."""
    steps: int = 1000
    """Training steps of a network at a fixed theta; a fifth of them precede the descent."""
    lr: float = 2e-3
    """Learning rate of the networks, Adam with betas (0.5, 0.9); 1e-4 and (0, 0.9) in arXiv 1704.00028, algorithm 1."""
    gradient_penalty: float = 10.0
    """Weight lambda of the critic's gradient penalty (arXiv 1704.00028, section 4)."""
    generator_steps: int = 300
    """Steps on theta in the descent, which begins at theta = 1."""
    generator_lr: float = 0.005
    """Learning rate of theta: plain gradient descent, so that the size of the gradient shows."""
    critic_steps: int = 10
    """Network steps per step on theta, for all three losses; 5 in arXiv 1704.00028, algorithm 1."""
    # Run
    seed: int = 0
    """All randomness is a function of it."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: Path = Path("outputs/q1_divergences")
    """Folder of the run."""
    fresh: bool = False
    """Start over, dropping what the folder holds."""

    def __post_init__(self) -> None:
        in_range = math.isfinite(self.theta) and 0 < self.theta <= 1
        require(in_range, "--theta", self.theta, "a number above 0, at most 1 (theta = 0 is always answered)")
        require_range("--n-samples", self.n_samples, 100, 100_000, "an integer")
        require_range("--repeats", self.repeats, 2, 100_000, "an integer")
        require_range("--seeds", self.seeds, 2, 100, "an integer (a spread needs two)")
        require_range("--width", self.width, 1, 4096, "an integer")
        require_range("--batch-size", self.batch_size, 1, 100_000, "an integer")
        require_range("--steps", self.steps, 5, 1_000_000, "an integer")
        require_range("--lr", self.lr, 1e-8, 1)
        require_range("--gradient-penalty", self.gradient_penalty, 1e-3, 1e6)
        require_range("--generator-steps", self.generator_steps, 1, 100_000, "an integer")
        require_range("--generator-lr", self.generator_lr, 1e-8, 1)
        require_range("--critic-steps", self.critic_steps, 1, 1000, "an integer")
        require_range("--seed", self.seed, 0, 2**63 - 1, "an integer")

    @property
    def thetas(self) -> list[float]:
        """0, 0.1, ... 1 and the theta of the question."""
        return sorted({i / 10 for i in range(11)} | {self.theta})


# Estimated from samples, then learned by networks.


def samples(config: Config, run: Run) -> Rows:
    """W1 by sorted matching and KL by nearest neighbours, from n points of each line, for each theta and seed."""
    for seed in pieces(run, "samples, seeds", range(config.seeds)):
        y, y_other = numpy_rng(config.seed, "samples", seed).random((2, config.n_samples))
        for theta in config.thetas:
            run.stop_if_asked()
            wasserstein = estimators.matched_wasserstein(y, y_other, theta)
            kl = estimators.knn_kl(line(0, y), line(theta, y_other))
            reverse_kl = estimators.knn_kl(line(theta, y_other), line(0, y))
            yield {"theta": theta, "seed": seed, "wasserstein": wasserstein, "kl": kl, "reverse_kl": reverse_kl}


def begin(kind: str, count: int, stream: str, config: Config, run: Run) -> tuple[Networks, Callable[..., None]]:
    """`count` new networks of a kind ("discriminator" or "critic"), and the function that trains them by one step."""
    networks = Networks(count, config.width, run.rng(f"{stream} weights", 0))
    optimizer = torch.optim.Adam(networks.parameters(), lr=config.lr, betas=(0.5, 0.9))

    def train_step(theta: torch.Tensor, step: int) -> None:
        """Each network sees fresh points of x = 0 and of x = its theta; theta [count]."""
        rng = run.rng(stream, step)
        real, fake = (draw(x, config.batch_size, rng) for x in (torch.zeros_like(theta), theta))  # [count, B, 2]
        if kind == "critic":
            loss = critic_loss(networks, real, fake, config.gradient_penalty, rng).sum()
        else:
            loss = discriminator_loss(networks, real, fake).sum()
        optimizer.zero_grad()
        loss.backward()
        require_finite(networks.parameters(), loss=loss)
        optimizer.step()

    return networks, train_step


def learned(config: Config, run: Run) -> Rows:
    """For each theta and seed: the discriminator's bound on JS, the critic's W1, the slopes a generator gets of them.

    Keeps both functions along y = 1/2 at the question's theta in `run.tensors`, for a figure.
    """
    theta = torch.tensor(config.thetas, device=run.device).repeat_interleave(config.seeds)  # [thetas * seeds]
    chosen = slice(start := config.thetas.index(config.theta) * config.seeds, start + config.seeds)
    x = torch.linspace(-0.25, 1.25, 151, device=run.device)
    run.keep("profile_x", x)
    profile = torch.stack([x, torch.full_like(x, 0.5)], dim=1)  # [points, 2]
    columns: dict[str, torch.Tensor] = {}
    for kind, measure in (("discriminator", js_bound), ("critic", critic_difference)):
        networks, train_step = begin(kind, len(theta), f"learned {kind}", config, run)
        for step in pieces(run, f"learned, steps of the {kind}s", range(config.steps)):
            train_step(theta, step)
        with torch.no_grad():
            columns[kind] = torch.zeros(len(theta), dtype=torch.float64)
            n_batches = math.ceil(config.n_samples / config.batch_size)
            for step in pieces(run, f"learned, fresh points for the {kind}s", range(n_batches)):
                rng = run.rng(f"fresh for {kind}", step)
                real, fake = (draw(x, config.batch_size, rng) for x in (torch.zeros_like(theta), theta))
                columns[kind] += measure(networks, real, fake).cpu().double() / n_batches
            run.keep(f"{kind}s", networks(profile.expand(len(theta), -1, -1))[chosen])  # [seeds, points]
        for loss in (loss for loss, network in LOSSES.items() if network == kind):
            rng = run.rng(f"slope of {loss}", 0)
            columns[f"slope_{loss}"] = generator_slope(networks, theta, loss, config.batch_size, rng).cpu().double()
    for i, values in enumerate(torch.stack(list(columns.values()), dim=1).tolist()):
        row = {"theta": config.thetas[i // config.seeds], "seed": i % config.seeds}
        yield row | dict(zip(columns, values, strict=True))


def descent(config: Config, run: Run) -> Rows:
    """Gradient descent on theta from 1, through networks trained along with it, for each loss and seed."""
    warm_up = config.steps // 5
    for loss, kind in LOSSES.items():
        theta = torch.ones(config.seeds, dtype=torch.float64)  # a slope of 1e-8 must count
        networks, train_step = begin(kind, config.seeds, f"descent of {loss}", config, run)
        for step in pieces(run, f"descent, {loss}, steps before it", range(warm_up)):
            train_step(theta.float().to(run.device), step)
        path = []
        for step in pieces(run, f"descent, {loss}, steps on theta", range(config.generator_steps + 1)):
            x = theta.float().to(run.device)
            for i in range(config.critic_steps):
                run.stop_if_asked()
                train_step(x, warm_up + step * config.critic_steps + i)
            rng = run.rng(f"slope in the descent of {loss}", step)
            slope = generator_slope(networks, x, loss, config.batch_size, rng).cpu().double()  # [seeds]
            path.append(torch.stack([theta, slope]))
            theta = theta - config.generator_lr * slope
        for step, (thetas, slopes) in enumerate(torch.stack(path).tolist()):
            for seed in range(config.seeds):
                yield {"loss": loss, "step": step, "seed": seed, "theta": thetas[seed], "slope": slopes[seed]}


# (a), (b): exact beside estimated.


def divergences(config: Config, run: Run) -> Rows:
    """Exact values beside every estimate, mean and standard deviation over seeds, for each theta."""
    sampled, trained = run.rows("samples").groupby("theta"), run.rows("learned").groupby("theta")
    for theta in config.thetas:
        points, networks = sampled.get_group(theta), trained.get_group(theta)
        row = {"theta": theta, "total_variation": float(exact.total_variation(theta))}
        for name, function, estimates in (
            ("kl", exact.kl, {"neighbours": points["kl"]}),
            ("reverse_kl", exact.reverse_kl, {"neighbours": points["reverse_kl"]}),
            ("js", exact.js, {"discriminator": networks["discriminator"]}),
            ("wasserstein", exact.wasserstein, {"samples": points["wasserstein"], "critic": networks["critic"]}),
        ):
            row[name] = float(function(theta))
            for way, values in estimates.items():
                row[f"{name}_{way}"], row[f"{name}_{way}_std"] = float(values.mean()), float(values.std())
        yield row


PARTS = (
    *(tables.relaxations, samples, tables.laws, tables.knn, tables.costs, tables.best_critic, learned, descent),
    *(divergences, summary.answers, summary.conclusions),
)


def main(config: Config) -> None:
    """Compute every table, draw every figure, say the answers."""
    torch.set_num_threads(1)  # the networks are so small that more threads mostly wait for each other
    require_memory(config, training_bytes, ("width", "seeds", "batch_size"), resolve_device(config.device))
    with Run(config, "q1_divergences") as run:
        if run.step == len(PARTS):
            run.say(f"{run.folder} holds this run, finished; its figures are drawn again")
        # Compute: one table after another; a part that is stopped leaves no row and begins again.
        for i in run.steps(len(PARTS), per_epoch=1):
            run.say(f"{PARTS[i].__name__} ({i + 1} of {len(PARTS)})")
            start = time.monotonic()
            rows = list(PARTS[i](config, run))
            for row in rows:
                run.record(PARTS[i].__name__, **row)
            run.say(f"  {PARTS[i].__name__}.csv: {len(rows)} rows in {time.monotonic() - start:.1f} s")

        summary.draw_figures(config, run)
        summary.say_answers(config, run)


if __name__ == "__main__":
    launch(Config, main, __doc__)
