"""Question 4b: a Wasserstein GAN with gradient penalty on Fashion-MNIST.

Gulrajani et al. 2017, "Improved Training of Wasserstein GANs" (arXiv 1704.00028), Algorithm 1, with the networks and
settings of its MNIST experiment: the critic learns f to maximise mean f(real) - mean f(fake), kept near 1-Lipschitz by
a penalty on its gradient's norm between real and fake images; after some critic steps the generator takes one.

    python q4_wgan_gp.py --epochs 15
    python q4_wgan_gp.py --lr 1e-4 --decay-from 1 --critic-steps 5 --out outputs/q4_seeds/wgan_gp_paper_0
    python q4_wgan_gp.py --sample 1000 --out outputs/q4_wgan_gp

The second command trains with the paper's values; the defaults reach better images in the same time.

Writes to --out: losses.csv (a row per generator iteration), metrics.csv (a row per epoch), loss_curves.png, real.png,
fake_epoch_*.png, progress.png, progress.gif, interpolation.png, quality.csv, quality.png, memorisation.csv,
memorisation.png, generator.pt, samples.npz, config.json, environment.json and checkpoints/.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from common.data import load_fashion_mnist, to_unit_range
from common.gan import figures as gan_figures
from common.gan.averages import MovingAverage
from common.gan.critic_gradients import critic_gradients
from common.gan.networks import PRECISIONS, Critic, Generator, initialize
from common.gan.results import (
    check_config,
    held_out_values,
    keep_samples,
    measure_quality,
    sample_finished_run,
    write_results,
)
from common.run import Run, require_finite
from common.run.batches import batch_indices
from common.run.cli import launch, require_range, resolve_device
from common.schedule import linear_decay


@dataclass(frozen=True)
class Config:
    """Settings of a run; where a default is not the paper's, the paper's value is named."""

    epochs: int = 15
    """Passes of the critic over the 60,000 training images [epochs]."""
    batch_size: int = 50
    """Images per step; arXiv 1704.00028, MNIST experiment."""
    lr: float = 1e-3
    """Adam's step size at its peak, both networks; the paper's is 1e-4, see REPORT.md."""
    beta1: float = 0.5
    """Adam's first decay; the MNIST experiment's value."""
    beta2: float = 0.9
    """Adam's second decay; arXiv 1704.00028, Algorithm 1."""
    critic_steps: int = 2
    """Critic steps for each generator step; the paper's are 5, see REPORT.md."""
    penalty_weight: float = 10.0
    """Weight lambda of the gradient penalty; arXiv 1704.00028, Algorithm 1."""
    decay_from: float = 0.5
    """Share of training after which the learning rate falls linearly to 0; 1 is never, as in the paper."""
    width: int = 64
    """Channels of the critic's first layer and of the generator's last inner one; the MNIST experiment's value."""
    latent_dim: int = 128
    """Dimensions of the noise z ~ N(0, I); the MNIST experiment's value."""
    ema_decay: float = 0.999
    """Decay of the generator's moving average per generator iteration; ours, the paper has none."""
    sample_epochs: tuple[int, ...] = ()
    """Epochs whose grids are drawn [epochs]; empty: 1, 5, 10, 15 and the last, as far as the run goes."""
    quality_samples: int = 10_000
    """Images in each of the three sets that quality.csv measures at those epochs and the last [images]; 0 is never."""
    sample: int = 0
    """Draw so many new images from the finished run in --out, without training [images]."""
    seed: int = 0
    """Decides every random number of the run."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks run; auto takes an accelerator where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the convolutions in training; bfloat16 is faster on accelerators and on processors with AMX."""
    out: Path = Path("outputs/q4_wgan_gp")
    """Folder of the run; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""

    def __post_init__(self) -> None:
        check_config(self)
        require_range("--critic-steps", self.critic_steps, 1, 1000, "a whole number")
        require_range("--penalty-weight", self.penalty_weight, 0, 1e6)


def critic_step(
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    real: torch.Tensor,
    fake: torch.Tensor,
    rng: torch.Generator,
    step: int,
    config: Config,
) -> dict[str, torch.Tensor]:
    """Algorithm 1, lines 4-9, for a batch of real and one of fake images, each [B, 1, 28, 28]."""
    weight = torch.rand(len(real), generator=rng, device=real.device)  # one epsilon per image
    parts = critic_gradients(critic, real, fake, weight, config.penalty_weight)
    require_finite(critic.parameters(), **parts)
    optimizer.step()
    return parts


def generator_step(
    generator: Generator, critic: Critic, optimizer: torch.optim.Optimizer, noise: torch.Tensor, step: int
) -> torch.Tensor:
    """Algorithm 1, lines 11-12: one step on -mean f(G(z)) for noise [B, latent_dim]; the critic gets no gradient."""
    critic.requires_grad_(False)
    loss = -critic(generator(noise)).mean()
    optimizer.zero_grad()
    loss.backward()
    critic.requires_grad_(True)
    require_finite(generator.parameters(), generator=loss)
    optimizer.step()
    return loss


def fakes_for(generator: Generator, run: Run, step: int) -> tuple[torch.Tensor, ...]:
    """The fake batches of the critic steps until the generator moves, from one pass of the frozen generator.

    The noise belongs to the group of steps, so a run that continues inside a group draws the same images again.
    """
    config = run.config
    group = step // config.critic_steps
    n = config.critic_steps * config.batch_size
    noise = torch.randn(n, config.latent_dim, generator=run.rng("critic noise", group), device=run.device)
    with torch.no_grad():
        return generator(noise).split(config.batch_size)  # critic_steps x [B, 1, 28, 28]


def train(run: Run, generator: Generator, critic: Critic, optimizers: tuple, average: MovingAverage) -> None:
    """Train to the end of `--epochs`; one run step is one critic step."""
    config = run.config
    train_images = load_fashion_mnist("train", run.device).images
    test_images = load_fashion_mnist("test", run.device).images
    n, steps = len(train_images), config.critic_steps
    per_epoch = -(-n // config.batch_size)
    batches = batch_indices(n, config.batch_size, config.seed, run.step, run.device)
    fakes: tuple[torch.Tensor, ...] = ()
    total = config.epochs * per_epoch
    for step in run.steps(total, per_epoch, config.batch_size):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = linear_decay(step, total, config.lr, config.decay_from)
        rng = run.rng("train", step)
        if step % steps == 0 or not fakes:
            fakes = fakes_for(generator, run, step)
        real = to_unit_range(train_images[next(batches)])  # [B, 1, 28, 28]
        fake = fakes[step % steps][: len(real)]
        parts = critic_step(critic, optimizers[1], real, fake, rng, step, config)

        if (step + 1) % steps == 0:
            noise = torch.randn(config.batch_size, config.latent_dim, generator=rng, device=run.device)
            loss = generator_step(generator, critic, optimizers[0], noise, step)
            average.update(generator)
            run.record("losses", iteration=(step + 1) // steps, **parts, generator=loss)

        if (step + 1) % per_epoch == 0:
            epoch = (step + 1) // per_epoch
            keep_samples(run, epoch, generator, average)
            measure_quality(run, epoch, generator, average)
            record_epoch(run, epoch, critic, generator, train_images, test_images)


def record_epoch(
    run: Run, epoch: int, critic: Critic, generator: Generator, train_images: torch.Tensor, test_images: torch.Tensor
) -> None:
    """A row of `metrics.csv`: the critic's Wasserstein estimate on training and on held-out images, and its line."""
    on_train, on_test, on_fake = (v.mean() for v in held_out_values(run, critic, generator, train_images, test_images))
    estimates = {"wasserstein_train": float(on_train - on_fake), "wasserstein_test": float(on_test - on_fake)}
    run.record("metrics", epoch=epoch, seconds=run.seconds, **estimates, gap=float(on_train - on_test))
    recent = run.rows("losses").tail(100).mean()
    shown = {name: recent[name] for name in ("critic", "generator", "penalty")} if len(recent) else {}
    run.report(epoch, run.config.epochs, **shown, **estimates)


def main(config: Config) -> None:
    """Train, then write the results; with --sample, only draw."""
    shape = (config.width, config.latent_dim, False)
    if config.sample:
        return sample_finished_run(config, *shape)

    # Networks and optimizers.
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    generator = Generator(*shape)
    critic = Critic(config.width)
    for network in (generator, critic):
        initialize(network)
        network.precision = PRECISIONS[config.precision]
        network.to(device, memory_format=torch.channels_last)
    average = MovingAverage(generator, config.ema_decay)
    optimizers = tuple(
        torch.optim.Adam(network.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
        for network in (generator, critic)
    )
    parts = {"generator": generator, "critic": critic, "average": average}
    moments = {"generator_optimizer": optimizers[0], "critic_optimizer": optimizers[1]}

    with Run(config, "q4_wgan_gp", **parts, **moments) as run:
        train(run, generator, critic, optimizers, average)
        write_results(run, generator, average)
        gan_figures.wgan_curves(run.rows("losses"), run.rows("metrics"), run.folder / "loss_curves.png")


if __name__ == "__main__":
    launch(Config, main, __doc__)
