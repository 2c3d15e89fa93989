"""Question 4b: a Wasserstein GAN with gradient penalty on Fashion-MNIST.

Gulrajani et al. 2017, "Improved Training of Wasserstein GANs" (arXiv 1704.00028), Algorithm 1, with the networks and
settings of its MNIST experiment: the critic learns f to maximise mean f(real) - mean f(fake), kept near 1-Lipschitz by
a penalty on its gradient's norm between real and fake images; after some critic steps the generator takes one. The
generator has batch norm, as in the paper's other experiments; the critic has none, since the penalty is for each image.

    python q4_wgan_gp.py --epochs 15
    python q4_wgan_gp.py --recipe papers --out outputs/q4_wgan_gp_papers
    torchrun --standalone --nproc-per-node 2 q4_wgan_gp.py --epochs 15

Writes to --out: losses.csv (a row per generator iteration), metrics.csv (a row per epoch), loss_curves.png, real.png,
fake_epoch_*.png, progress.png, progress.gif, interpolation.png, quality.csv, quality.png, copies.csv,
copies.png, generator.pt, generator_float16.pt, samples.npz, grids.npz, config.json, environment.json and checkpoints/.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from common.data import to_unit_range
from common.gan import generators, memory, recipes, results
from common.gan.averages import MovingAverage
from common.gan.critic_gradients import critic_gradients
from common.gan.networks import Critic, Generator, running_statistics_kept
from common.run import Guard, Run
from common.run.cli import launch, require_range
from common.run.distributed import mine, require_shares
from common.run.graphs import Graphed, set_learning_rate
from common.schedule import linear_decay

FAKES = 4096  # about as many pass the generator at once for the critic


@dataclass(frozen=True)
class Config(recipes.Common):
    """Settings of a run; where a default is not the paper's, the paper's value is named."""

    # Training
    batch_size: int = 50
    """Images per step; arXiv 1704.00028, MNIST experiment."""
    lr: float = 1e-3
    """Adam's learning rate at its peak, both networks; the paper's is 1e-4, see REPORT.md."""
    beta1: float = 0.5
    """Adam's beta1; the MNIST experiment's value."""
    beta2: float = 0.9
    """Adam's beta2; arXiv 1704.00028, Algorithm 1."""
    critic_steps: int = 2
    """Critic steps for each generator step; the paper's are 5, see REPORT.md."""
    penalty_weight: float = 10.0
    """Weight lambda of the gradient penalty; arXiv 1704.00028, Algorithm 1."""
    decay_from: float = 0.5
    """Fraction of training after which the learning rate falls linearly to 0; 1 is never, as in the paper."""
    # Networks
    batch_norm: bool = True
    """Batch norm in the generator, as in the paper's generators for larger images; its MNIST generator has none."""
    self_modulation: int = 32
    """Hidden units that give the scales of the generator's batch norm from the noise; 0 in the paper, without."""
    # Average of the generator's weights
    ema_decay: float = 0.999
    """Largest decay of the generator's moving average per generator iteration; ours, the paper has none."""
    out: Path = Path("outputs/q4_wgan_gp")

    def __post_init__(self) -> None:
        super().__post_init__()
        batches = self.epochs * -(-60_000 // self.batch_size)  # with fewer the generator never moves
        require_range("--critic-steps", self.critic_steps, 1, min(1000, batches), "a whole number")
        require_range("--penalty-weight", self.penalty_weight, 0, 1e6)


RECIPES = {"ours": recipes.ours, "papers": recipes.wgan_gp_papers}


def critic_step(
    players: results.Players,
    guard: Guard,
    penalty_weight: float,
    images: torch.Tensor,
    fake: torch.Tensor,
    epsilon: torch.Tensor,
    share: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Algorithm 1, lines 4-9.

    Args:
        images: uint8, real; fake: in [0, 1]; each [B, 1, 28, 28].
        epsilon: U(0, 1) draws, one per image, [B].
        share: the fraction of the step's batch that these images are; the rest is with other processes.

    Returns:
        the losses of `critic_gradients` for the whole batch, 0-d.
    """
    parts = critic_gradients(players.critic, to_unit_range(images), fake, epsilon, penalty_weight, share)
    return guard.step(players.critic_optimizer, **parts)


def generator_step(
    players: results.Players, guard: Guard, noise: torch.Tensor, share: float = 1.0
) -> dict[str, torch.Tensor]:
    """Algorithm 1, lines 11-12: one step on -mean f(G(z)) for noise [B, latent_dim]; the critic gets no gradient.

    `share` and the loss that is returned are those of `critic_step`.
    """
    players.critic.requires_grad_(False)
    loss = -share * players.critic(players.generator(noise)).mean()
    players.generator_optimizer.zero_grad()
    loss.backward()
    players.critic.requires_grad_(True)
    return guard.step(players.generator_optimizer, generator=loss)


@torch.no_grad()
def fakes_for_the_critic(generator: Generator, noise: torch.Tensor) -> torch.Tensor:
    """Fakes of noise [N, latent_dim]; the running statistics of batch norm follow the generator's own steps alone."""
    with running_statistics_kept(generator):
        return generator(noise)


def train(run: Run, players: results.Players, average: MovingAverage, data: results.Data) -> None:
    """Train to the end of `--epochs`; one run step is one critic step."""
    config, k, b = run.config, run.config.critic_steps, run.config.batch_size
    critic_step_on = Graphed(partial(critic_step, players, run.guard, config.penalty_weight), players, run.guard)
    generator_step_on = Graphed(partial(generator_step, players, run.guard), players, run.guard)
    generate = Graphed(partial(fakes_for_the_critic, players.generator), (), run.guard)
    fakes: tuple[torch.Tensor, ...] = ()
    own = len(mine(range(b)))  # images of a batch, all unless other processes share it
    at_once = max(FAKES // b, 1) * own
    for step, indices, epoch, ends_epoch, progress in run.batches(len(data.train), b, config.epochs):
        for optimizer in (players.generator_optimizer, players.critic_optimizer):
            set_learning_rate(optimizer, linear_decay(progress, 1, config.lr, config.decay_from))
        group, position = divmod(step, k)
        if position == 0 or not fakes:  # one pass for the critic steps until the generator moves
            rng = run.rng("critic noise", group)  # of the group, so a run that continues inside it draws the same again
            noise = torch.randn(k * b, config.latent_dim, generator=rng, device=run.device)
            noise = torch.cat([mine(z) for z in noise.split(b)])
            fakes = tuple(x for z in noise.split(at_once) for x in generate(z).clone().split(own))
        rng = run.rng("train", step)
        images = data.train[mine(indices)]  # [B, 1, 28, 28]
        epsilon = mine(torch.rand(len(indices), generator=rng, device=run.device))
        share = len(images) / len(indices)
        parts = critic_step_on(images, fakes[position][: len(images)], epsilon, share=share)

        if position == k - 1:
            noise = torch.randn(b, config.latent_dim, generator=rng, device=run.device)
            losses = generator_step_on(mine(noise), share=own / b)
            average.update(players.generator)
            run.record("losses", iteration=group + 1, **parts, **losses)

        if ends_epoch and run.is_first:
            results.after_epoch(run, epoch, players.generator, average)
            record_epoch(run, epoch, players, data)


def record_epoch(run: Run, epoch: int, players: results.Players, data: results.Data) -> None:
    """A row of `metrics.csv`: the critic's Wasserstein estimate on training and on held-out images, and its line."""
    on_train, on_test, on_fake = (values.mean() for values in results.held_out_values(run, players, data))
    estimates = {"wasserstein_train": float(on_train - on_fake), "wasserstein_test": float(on_test - on_fake)}
    run.record("metrics", epoch=epoch, seconds=run.seconds, **estimates, gap=float(on_train - on_test))
    recent = run.rows("losses").tail(100).mean()
    shown = {name: recent[name] for name in ("critic", "generator", "penalty")} if len(recent) else {}
    run.report(epoch, run.config.epochs, **shown, **estimates)


def main(config: Config, data: results.Data | None = None) -> None:
    """Train, then write the results; with --sample, only draw new images from the finished run in --out."""
    if config.sample:
        return generators.sample_finished_run(config, "q4_wgan_gp")

    # Networks and optimizers.
    config, device = recipes.on_device(config, memory.wgan_gp_bytes)
    torch.manual_seed(config.seed)
    generator = Generator(config.width, config.latent_dim, config.batch_norm, modulation=config.self_modulation)
    critic = Critic(config.width)
    players = results.make_players(generator, critic, config, device)
    average = MovingAverage(generator, config.ema_decay)
    moments = {"generator_optimizer": players.generator_optimizer, "critic_optimizer": players.critic_optimizer}
    data = data or results.load_data(config, device)
    require_shares(len(data.train), config.batch_size)

    with Run(config, "q4_wgan_gp", generator=generator, critic=critic, average=average, **moments) as run:
        train(run, players, average, data)
        results.write_results(run, generator, average, data)
        run.say("\n" + results.summary(run))


if __name__ == "__main__":
    launch(Config, main, __doc__, recipes=RECIPES, several=True)
