"""Q2: a GAN in two dimensions under the microscope.

Question: what happens while a GAN learns a distribution in the plane? Do real and fake end up close, how long are the
generator's gradients and what does that mean, and can the discriminator still tell the two apart? The assignment
looked at it in GAN Lab (Kahng et al. 2018, arXiv 1809.01587), a web page; here the same is run headless or in a page.

Losses: the GAN of Goodfellow et al. 2014 (arXiv 1406.2661) with the non-saturating generator, least squares (Mao et al.
2017, arXiv 1611.04076), WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028).

Examples:
    python q2_gan_lab.py
    python q2_gan_lab.py --target all --loss all --out outputs/q2_gan_lab/comparison
    python q2_gan_lab.py --live

The first trains three seeds side by side and writes to outputs/q2_gan_lab: training.html and .gif (training played
back), metrics.csv (a row per seed and evaluation), floors.csv (real against real), answers.csv (the last
tenth against the floors), snapshot.png, manifold.png, divergences.png, losses.png. The second: comparison.*, runs.csv.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses import gradient_penalty
from common.plane import comparison, results
from common.plane.networks import Discriminator, Generator
from common.plane.recipes import RECIPES, SIZES, check, training_bytes
from common.plane.results import Players, draw_noise
from common.plane.targets import target_of
from common.run import Run, require_finite, rng_for
from common.run.cli import launch, resolve_device
from common.run.memory import require_memory
from common.schedule import linear_decay


@dataclass(frozen=True)
class Config:
    # Game
    target: str = "ring"
    """The distribution: line, gaussians, ring, disjoint, eight, grid, all, or a CSV file of points x,y (0 to 1)."""
    loss: Literal["gan", "least-squares", "wgan-gp", "all"] = "gan"
    """The pair of losses. With `all` here or as target: every such run, and a table that compares them."""
    recipe: Literal["ours", "ganlab"] = "ours"
    """A set of defaults: ours, or what GAN Lab's page loads for the target."""
    # Training
    iterations: int = 5_000
    """Iterations; in each the discriminator makes its steps, then the generator one."""
    batch_size: int = 256
    """Samples per step."""
    lr: float = 2e-3
    """Learning rate of the discriminator."""
    generator_lr: float = 1e-3
    """Learning rate of the generator; half the discriminator's, which then keeps ahead."""
    decay_from: float = 0.5
    """Fraction of training after which both learning rates fall linearly to 0; 1 is never."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of both networks."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's averaging constants; no momentum, as in Karras et al. 2018 (arXiv 1710.10196)."""
    average_decay: float = 0.998
    """Decay per iteration of the moving average of the generator's weights, which is measured beside the generator."""
    discriminator_steps: int = 3
    """Discriminator steps per iteration."""
    generator_steps: int = 1
    """Generator steps per iteration."""
    real_weight: float = 1.0
    """Weight of the real term in the discriminator's loss `gan`."""
    penalty: float = 0.1
    """Weight lambda of the gradient penalty of wgan-gp (Gulrajani et al. 2017's public code for toy data)."""
    # Networks
    noise: Literal["gaussian", "uniform", "truncated"] = "gaussian"
    """Noise of the generator in each coordinate: N(0, 1), U[0, 1), or N(0.5, 0.25^2) within two deviations."""
    noise_dim: Literal[1, 2] = 2
    """Number of noise coordinates."""
    generator_width: int = 64
    """Units in a hidden layer of the generator."""
    generator_depth: int = 3
    """Hidden layers of the generator."""
    discriminator_width: int = 64
    """Units in a hidden layer of the discriminator."""
    discriminator_depth: int = 3
    """Hidden layers of the discriminator."""
    leak: float = 0.2
    """Slope of the discriminator's ReLU below 0, so that no unit dies."""
    coordinates: Literal["centred", "raw"] = "centred"
    """What the networks see: 4 (x - 1/2), or x itself, with tanh at the generator's end."""
    # Evaluation
    evaluate_every: int = 100
    """Iterations between two evaluations (rows, frames); it changes no weight. A comparison evaluates at the ends."""
    eval_samples: int = 20_000
    """Fresh real and fresh fake samples of an evaluation."""
    transport_samples: int = 1_000
    """How many of them go into exact transport (its time grows with the square at least)."""
    # Run
    seed: int = 0
    """The first seed; each decides every random number of its networks and samples."""
    seeds: int = 3
    """How many seeds train side by side, from `--seed` upwards; figures of samples show the first."""
    comparison_seeds: int = 10
    """How many in a comparison."""
    device: str = "cpu"
    """cpu, cuda, mps or auto; for networks as small as these the cpu is the fastest."""
    out: Path = Path("outputs/q2_gan_lab")
    """Folder of the run."""
    fresh: bool = False
    """Start over, dropping the checkpoints in the folder."""
    tensorboard: bool = False
    """Also write the tables for TensorBoard, to the folder tensorboard in --out."""
    live: bool = False
    """Train in a page of the browser, served from this machine to itself, where these settings can be turned."""
    no_browser: bool = False
    """With --live: print the page's address instead of opening it."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def is_comparison(self) -> bool:
        return "all" in (self.target, self.loss)


# The losses. A score f(x) is the discriminator's raw output; D(x) is its sigmoid for `gan`, f itself otherwise.


def discriminator_loss(loss: str, real: Tensor, fake: Tensor, real_weight: float = 1.0) -> Tensor:
    """What the discriminator minimises but for the gradient penalty, from its scores on real and fake [..., B]."""
    if loss == "gan":  # -E log D(x) - E log(1 - D(G(z))): Goodfellow 2014, eq. 1
        return real_weight * F.softplus(-real).mean(-1) + F.softplus(fake).mean(-1)
    if loss == "least-squares":  # 1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2: Mao 2017, eq. 9
        return ((real - 1) ** 2).mean(-1) / 2 + (fake**2).mean(-1) / 2
    return fake.mean(-1) - real.mean(-1)  # Gulrajani 2017, eq. 3


def generator_loss(loss: str, fake: Tensor) -> Tensor:
    """What the generator minimises in the mean, for each fake [...], from the discriminator's scores."""
    if loss == "gan":  # -log D(G(z)): Goodfellow 2014, section 3
        return F.softplus(-fake)
    if loss == "least-squares":
        return (fake - 1) ** 2 / 2
    return -fake


# Training (Goodfellow 2014, algorithm 1), S seeds side by side.


def discriminator_step(config: Config, players: Players, real: Tensor, fake: Tensor, weight: Tensor | None) -> Tensor:
    """One step of the discriminator on real and fake [S, B, 2] -> its loss [S]; `weight` U(0, 1) [S, B] for wgan-gp."""
    discriminator, optimizer = players.discriminator, players.discriminator_optimizer
    f_real, f_fake = discriminator(torch.cat([real, fake], 1)).split(real.shape[1], 1)  # [S, B] both
    loss = discriminator_loss(config.loss, f_real, f_fake, config.real_weight)  # [S]
    if weight is not None:
        flat = (lambda x: discriminator(x.view_as(real)).flatten(), real.flatten(0, 1), fake.flatten(0, 1))
        loss = loss + config.penalty * gradient_penalty(*flat, weight.flatten()).view_as(weight).mean(1)
    optimizer.zero_grad()
    loss.sum().backward()
    require_finite(discriminator.parameters(), discriminator_loss=loss.sum())
    optimizer.step()
    return loss.detach()


def generator_step(config: Config, players: Players, z: Tensor) -> Tensor:
    """One step of the generator on noise [S, B, noise_dim] -> its loss [S]."""
    loss = generator_loss(config.loss, players.discriminator(players.generator(z))).mean(1)
    players.generator_optimizer.zero_grad()
    loss.sum().backward()
    require_finite(players.generator.parameters(), generator_loss=loss.sum())
    players.generator_optimizer.step()
    return loss.detach()


def set_learning_rates(config: Config, players: Players, step: int) -> None:
    """The learning rates of one iteration."""
    peaks = ((players.generator_optimizer, config.generator_lr), (players.discriminator_optimizer, config.lr))
    for optimizer, peak in peaks:
        optimizer.param_groups[0]["lr"] = linear_decay(step, config.iterations, peak, config.decay_from)


def discriminator_turn(config: Config, players: Players, rngs: Sequence[torch.Generator]) -> Tensor:
    """The discriminator's steps of one iteration -> its last loss [S]; the generator rests: one pass for all steps."""
    n = config.batch_size * config.discriminator_steps
    with torch.no_grad():
        fakes = results.in_chunks(players.generator, draw_noise(config, n, rngs))
    reals = torch.stack([target_of(config.target).sample(n, rng) for rng in rngs])  # [S, n, 2]
    for real, fake in zip(reals.split(config.batch_size, 1), fakes.split(config.batch_size, 1), strict=True):
        weight = None
        if config.loss == "wgan-gp":
            weight = torch.stack([torch.rand(config.batch_size, generator=rng, device=rng.device) for rng in rngs])
        loss = discriminator_step(config, players, real, fake, weight)
    return loss


def generator_turn(config: Config, players: Players, rngs: Sequence[torch.Generator]) -> Tensor:
    """The generator's steps of one iteration and its average's -> its last loss [S]."""
    for _ in range(config.generator_steps):
        loss = generator_step(config, players, draw_noise(config, config.batch_size, rngs))
    players.average.update_parameters(players.generator)
    return loss


def players(config: Config) -> Players:
    """Both networks of every seed, their optimizers and the generator's average; weights are functions of the seed."""
    rngs = [rng_for(config.seed + k, "weights", 0) for k in range(config.seeds)]
    centred, device = config.coordinates == "centred", resolve_device(config.device)
    generator = Generator(config.noise_dim, config.generator_width, config.generator_depth, centred, rngs)
    discriminator = Discriminator(config.discriminator_width, config.discriminator_depth, config.leak, centred, rngs)
    of_g, of_d = (results.optimizer_of(config, network.to(device)) for network in (generator, discriminator))
    return Players(generator, discriminator, of_g, of_d, results.moving_average(generator, config.average_decay))


def train(run: Run, config: Config, networks: Players) -> None:
    """All iterations still to do, with an evaluation before the first, at every interval and after the last."""
    fake_loss = partial(generator_loss, config.loss)
    if not run.tables.get("floors"):
        results.prepare(run, config)
        results.evaluate(run, config, networks, fake_loss, 0)
    for step in run.steps(config.iterations, config.evaluate_every):
        rngs = [rng_for(config.seed + k, "train", step, run.device) for k in range(config.seeds)]
        set_learning_rates(config, networks, step)
        turns = [turn(config, networks, rngs) for turn in (discriminator_turn, generator_turn)]
        run.tensors["losses"][step] = torch.stack(turns, 1)  # [S, 2]
        done = step + 1
        if done % config.evaluate_every == 0 or done == config.iterations:
            results.evaluate(run, config, networks, fake_loss, done)


def main(config: Config) -> None:
    """Train one GAN and draw it, or compare many."""
    torch.set_num_threads(1)  # the networks are too small to share
    require_memory(config, training_bytes, SIZES, resolve_device(config.device))
    if config.live:
        from common.plane import live_server  # here, for Bokeh would slow every other start

        live_server.serve(config, (players, set_learning_rates, discriminator_turn, generator_turn, generator_loss))
    elif config.is_comparison:
        comparison.compare(config, RECIPES, players, train)
    else:  # the same command continues where the last checkpoint stood
        networks = players(config)
        with Run(config, "q2_gan_lab", **networks._asdict()) as run:
            train(run, config, networks)
            results.report(run, config, networks)


if __name__ == "__main__":
    launch(Config, main, __doc__, recipes=RECIPES)
