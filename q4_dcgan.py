"""Question 4a: a DCGAN on Fashion-MNIST.

Goodfellow et al. 2014 with the architecture rules of Radford et al. 2016 (DCGAN, arXiv 1511.06434) on the networks of
the MNIST experiment of "Improved Training of Wasserstein GANs" (arXiv 1704.00028): batch norm in the generator and in
the discriminator's inner layers, binary cross-entropy on logits, and the generator's loss that does not saturate.

    python q4_dcgan.py --epochs 15
    python q4_dcgan.py --recipe papers --out outputs/q4_dcgan_papers
    torchrun --standalone --nproc-per-node 2 q4_dcgan.py --epochs 15

Writes to --out: losses.csv (a row per discriminator iteration), metrics.csv (a row per epoch), loss_curves.png,
real.png, fake_epoch_*.png, progress.png, progress.gif, interpolation.png, quality.csv, quality.png, copies.csv,
copies.png, generator.pt, generator_float16.pt, samples.npz, grids.npz, config.json, environment.json and checkpoints/.
"""

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from common.data import draw_offsets, to_unit_range, translate
from common.gan import generators, memory, recipes, results
from common.gan.averages import MovingAverage, look_ahead
from common.gan.networks import Critic, Generator
from common.gan.recipes import moment
from common.losses import discriminator_losses, non_saturating_loss
from common.run import Guard, Run
from common.run.cli import launch, require_range
from common.run.distributed import mine, require_shares
from common.run.graphs import Graphed, set_learning_rate


@dataclass(frozen=True)
class Config(recipes.Common):
    """Settings of a run; where a default is not the papers', the papers' value is named."""

    # Training
    batch_size: int = 25
    """Images per step; 50 in the MNIST experiment of arXiv 1704.00028, see REPORT.md."""
    lr: float = 2e-3
    """Adam's learning rate at its peak; the papers' is 2e-4 (arXiv 1511.06434), see REPORT.md."""
    discriminator_lr: float = 1.5e-3
    """What takes the place of --lr for the discriminator from --discriminator-lr-from on; the papers' is 2e-4."""
    discriminator_lr_from: float = 1 / 3
    """Fraction of training after which --discriminator-lr holds; before, both networks have the same."""
    beta1: float = 0.0
    """Adam's beta1; 0.5 in arXiv 1511.06434, see REPORT.md."""
    beta2: float = 0.999
    """Adam's beta2; arXiv 1511.06434."""
    # Schedule, in fractions of training
    decay_from: float = 0.2
    """Fraction of training after which the learning rate falls linearly to 0; 1 is never, as in the paper."""
    echo: int = 2
    """Iterations with each batch from --echo-from on, with other shifts and noise (data echoing, arXiv 1907.05550)."""
    echo_from: float = 1 / 3
    """Fraction of training after which batches are repeated; 1 iteration with each batch in the papers."""
    max_shift: int = 1
    """Largest random shift of all that the discriminator sees, real and fake [pixels]; 0 in the papers."""
    shift_from: float = 0.2
    """Fraction of training after which images are shifted; see REPORT.md for what shifts from the beginning do."""
    lookahead: int = 200
    """Iterations between lookahead steps of the generator (arXiv 1907.08610); 0 in the papers, without."""
    lookahead_from: float = 1 / 15
    """Fraction of training after which the generator looks ahead."""
    # Networks
    discriminator_width: int = 32
    """Channels of the discriminator's first layer; 64 in the MNIST experiment."""
    detail: int = 16
    """Channels of the generator's layer at 28 x 28, before the last convolution; 0 in the MNIST experiment, without."""
    self_modulation: int = 32
    """Hidden units that give the scales of the generator's batch norm from the noise; 0 in the papers, without."""
    # Average of the generator's weights
    ema_decay: float = 0.9998
    """Largest decay of the generator's moving average per iteration; ours, the paper has none."""
    ema_warm_up: int = 20
    """The average remembers about this fraction of the iterations so far: the last 1 / --ema-warm-up."""
    ema_warm_up_late: int = 10
    """What takes the place of --ema-warm-up from --ema-late-from on."""
    ema_late_from: float = 2 / 3
    """Fraction of training after which --ema-warm-up-late holds."""
    out: Path = Path("outputs/q4_dcgan")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("--discriminator-lr", self.discriminator_lr, 1e-9, 1)
        require_range("--echo", self.echo, 1, 100, "a whole number of iterations")
        require_range("--max-shift", self.max_shift, 0, 14, "a whole number of pixels")
        require_range("--lookahead", self.lookahead, 0, 1_000_000, "a whole number of iterations")
        for name in ("discriminator_lr_from", "echo_from", "shift_from", "lookahead_from", "ema_late_from"):
            require_range(f"--{name.replace('_', '-')}", getattr(self, name), 0, 1)
        for name in ("ema_warm_up", "ema_warm_up_late"):
            require_range(f"--{name.replace('_', '-')}", getattr(self, name), 1, 1_000_000, "a whole number")
        require_range("--detail", self.detail, 0, recipes.LARGEST["detail"], "a whole number")
        require_range("--discriminator-width", self.discriminator_width, 1, 1024, "a whole number")


RECIPES = {"ours": recipes.ours, "papers": recipes.dcgan_papers}


def train_step(
    players: results.Players,
    guard: Guard,
    images: torch.Tensor,
    noise: torch.Tensor,
    real_offsets: torch.Tensor,
    fake_offsets: torch.Tensor,
    max_shift: int,
    share: float = 1.0,
) -> dict[str, torch.Tensor]:
    """One step of the discriminator on real images and G(noise), then one of the generator on the same noise.

    The discriminator sees every image, real or fake, moved by its offsets (a differentiable augmentation, arXiv
    2006.10738). Real and fake images have batch statistics of their own. The generator's loss differentiates through
    the images that the discriminator has just seen.

    Args:
        images: uint8 [B, 1, 28, 28]; noise: [B, latent_dim]; offsets: int64 [2, B], for `translate`.
        share: the fraction of the step's batch that these images are; the rest is with other processes.

    Returns:
        the losses for the whole batch, 0-d.
    """
    generator, discriminator = players.generator, players.critic
    real, fake = to_unit_range(images), generator(noise)  # [B, 1, 28, 28]
    if max_shift:
        real, fake = translate(real, real_offsets, max_shift), translate(fake, fake_offsets, max_shift)
    logits = discriminator(real, fake.detach()).chunk(2)
    parts = {name: share * loss for name, loss in discriminator_losses(*logits).items()}
    players.critic_optimizer.zero_grad()
    parts["discriminator"].backward()
    parts = guard.step(players.critic_optimizer, **parts)

    discriminator.requires_grad_(False)
    loss = share * non_saturating_loss(discriminator(fake))
    discriminator.requires_grad_(True)
    players.generator_optimizer.zero_grad()
    loss.backward()
    return parts | guard.step(players.generator_optimizer, generator=loss)


def train(run: Run, players: results.Players, average: MovingAverage, slow: Generator, data: results.Data) -> None:
    """Train to the end of `--epochs`; one run step is all iterations with one batch. `slow` is lookahead's copy."""
    config = run.config
    step_on = Graphed(partial(train_step, players, run.guard), players, run.guard)
    for step, indices, epoch, ends_epoch, progress in run.batches(len(data.train), config.batch_size, config.epochs):
        now = moment(config, progress)
        set_learning_rate(players.generator_optimizer, now.generator_lr)
        set_learning_rate(players.critic_optimizer, now.discriminator_lr)
        rng = run.rng("train", step)
        images = data.train[mine(indices)]  # [B, 1, 28, 28]
        share = len(images) / len(indices)  # 1 unless other processes have the rest
        for _ in range(now.echo):
            noise = mine(torch.randn(len(indices), config.latent_dim, generator=rng, device=run.device))
            offsets = (mine(draw_offsets(len(indices), rng, now.max_shift).T).T for _ in ("real", "fake"))
            losses = step_on(images, noise, *offsets, max_shift=now.max_shift, share=share)
            iteration = average.updates + 1
            if config.lookahead and iteration % config.lookahead == 0:
                look_ahead(slow, players.generator, now.lookahead)
            average.update(players.generator, now.ema_warm_up)
            run.record("losses", iteration=iteration, **losses)

        if ends_epoch and run.is_first:
            results.after_epoch(run, epoch, players.generator, average)
            record_epoch(run, epoch, iteration, players, data)


def record_epoch(run: Run, epoch: int, iteration: int, players: results.Players, data: results.Data) -> None:
    """A row of `metrics.csv`: fractions of training, held-out and fake images that the discriminator calls real."""
    names = ("train_called_real", "test_called_real", "fake_called_real")
    values = results.held_out_values(run, players, data)
    called = {name: float((v > 0).float().mean()) for name, v in zip(names, values, strict=True)}
    run.record("metrics", epoch=epoch, iteration=iteration, seconds=run.seconds, **called)
    recent = run.rows("losses").tail(500).mean()
    run.report(epoch, run.config.epochs, **{name: recent[name] for name in ("discriminator", "generator")}, **called)


def main(config: Config, data: results.Data | None = None) -> None:
    """Train, then write the results; with --sample, only draw new images from the finished run in --out."""
    if config.sample:
        return generators.sample_finished_run(config, "q4_dcgan")

    # Networks and optimizers.
    shape = (config.width, config.latent_dim, True, config.detail, config.self_modulation)
    config, device = recipes.on_device(config, memory.dcgan_bytes)
    torch.manual_seed(config.seed)
    generator, discriminator = Generator(*shape), Critic(config.discriminator_width, batch_norm=True)
    players = results.make_players(generator, discriminator, config, device)
    average, slow = MovingAverage(generator, config.ema_decay), copy.deepcopy(generator)
    state = {"generator": generator, "discriminator": discriminator, "average": average, "slow": slow}
    moments = {"generator_optimizer": players.generator_optimizer, "discriminator_optimizer": players.critic_optimizer}
    data = data or results.load_data(config, device)
    require_shares(len(data.train), config.batch_size)

    with Run(config, "q4_dcgan", **state, **moments) as run:
        train(run, players, average, slow, data)
        results.write_results(run, generator, average, data)
        run.say("\n" + results.summary(run))


if __name__ == "__main__":
    launch(Config, main, __doc__, recipes=RECIPES, several=True)
