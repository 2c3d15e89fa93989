"""Question 4a: a DCGAN on Fashion-MNIST.

Goodfellow et al. 2014 with the architecture rules of Radford et al. 2016 (DCGAN, arXiv 1511.06434) on the networks of
the MNIST experiment of "Improved Training of Wasserstein GANs" (arXiv 1704.00028): batch norm in the generator and in
the discriminator's inner layers, binary cross-entropy on logits, and the generator's loss that does not saturate.

    python q4_dcgan.py --epochs 15
    python q4_dcgan.py --discriminator-width 64 --detail 0 --modulation 0 --batch-size 50 --lr 2e-4 \\
        --discriminator-lr 2e-4 --beta1 0.5 --decay-from 1 --repeats 1 --shift 0 --lookahead 0
    python q4_dcgan.py --sample 1000 --out outputs/q4_dcgan

The second command trains with the papers' values (give it an --out of its own); the defaults reach better images
sooner.

Writes to --out: losses.csv (a row per discriminator iteration), metrics.csv (a row per epoch), loss_curves.png,
real.png, fake_epoch_*.png, progress.png, progress.gif, interpolation.png, quality.csv, quality.png, memorisation.csv,
memorisation.png, generator.pt, samples.npz, config.json, environment.json and checkpoints/.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from common.data import load_fashion_mnist, shift, to_unit_range
from common.gan import figures as gan_figures
from common.gan.averages import MovingAverage, look_ahead
from common.gan.networks import PRECISIONS, Critic, Generator, initialize
from common.gan.results import (
    check_config,
    held_out_values,
    keep_samples,
    measure_quality,
    sample_finished_run,
    write_results,
)
from common.losses import discriminator_losses, non_saturating_loss
from common.run import Run, require_finite
from common.run.batches import batch_indices
from common.run.cli import launch, require_range, resolve_device
from common.schedule import linear_decay


@dataclass(frozen=True)
class Config:
    """Settings of a run; where a default is not the paper's, the paper's value is named."""

    epochs: int = 15
    """Passes over the 60,000 training images [epochs]; the discriminator sees repeated batches again."""
    batch_size: int = 25
    """Images per step; 50 in the MNIST experiment of arXiv 1704.00028, see REPORT.md."""
    lr: float = 2e-3
    """Adam's step size at its peak; the papers' is 2e-4 (arXiv 1511.06434), see REPORT.md."""
    discriminator_lr: float = 1.5e-3
    """What takes the place of --lr for the discriminator from --discriminator-lr-from on; the papers' is 2e-4."""
    discriminator_lr_from: float = 1 / 3
    """Share of training after which --discriminator-lr holds; before, both networks have the same."""
    beta1: float = 0.0
    """Adam's first decay; 0.5 in arXiv 1511.06434, see REPORT.md."""
    beta2: float = 0.999
    """Adam's second decay; arXiv 1511.06434."""
    decay_from: float = 0.2
    """Share of training after which the learning rate falls linearly to 0; 1 is never, as in the paper."""
    repeats: int = 2
    """Iterations with each batch from --repeats-from on, under other shifts and with other noise; 1 in the papers."""
    repeats_from: float = 1 / 3
    """Share of the epochs after which batches are repeated (data echoing, arXiv 1907.05550); see REPORT.md."""
    shift: int = 1
    """Reach of the random shifts of all that the discriminator sees, real and fake [pixels]; 0 in the papers."""
    shift_from: float = 0.2
    """Share of training after which images are shifted; see REPORT.md for what shifts from the beginning do."""
    lookahead: int = 200
    """Iterations between lookahead steps of the generator (arXiv 1907.08610); 0 in the papers, without."""
    lookahead_from: float = 1 / 15
    """Share of training after which the generator looks ahead; see REPORT.md for what it does from the beginning."""
    width: int = 64
    """Channels of the generator's last inner layer at 14 x 14; the MNIST experiment's value."""
    discriminator_width: int = 32
    """Channels of the discriminator's first layer; 64 in the MNIST experiment."""
    detail: int = 16
    """Channels of the generator's layer at 28 x 28, before the last convolution; 0 in the MNIST experiment, without."""
    modulation: int = 32
    """Hidden units that give the scales of the generator's batch norm from the noise; 0 in the papers, without."""
    latent_dim: int = 128
    """Dimensions of the noise z ~ N(0, I); the MNIST experiment's value."""
    ema_decay: float = 0.9998
    """Decay of the generator's moving average per iteration at most; ours, the paper has none."""
    ema_warm_up: int = 20
    """The average remembers about this fraction of the iterations so far: the last 1 / --ema-warm-up."""
    ema_warm_up_late: int = 10
    """What takes the place of --ema-warm-up for the last third of training; see REPORT.md."""
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
    out: Path = Path("outputs/q4_dcgan")
    """Folder of the run; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""

    def __post_init__(self) -> None:
        check_config(self)
        require_range("--discriminator-lr", self.discriminator_lr, 1e-9, 1)
        require_range("--discriminator-lr-from", self.discriminator_lr_from, 0, 1)
        require_range("--repeats", self.repeats, 1, 100, "a whole number of iterations")
        require_range("--repeats-from", self.repeats_from, 0, 1)
        require_range("--shift", self.shift, 0, 14, "a whole number of pixels")
        require_range("--shift-from", self.shift_from, 0, 1)
        require_range("--ema-warm-up", self.ema_warm_up, 1, 1_000_000, "a whole number")
        require_range("--ema-warm-up-late", self.ema_warm_up_late, 1, 1_000_000, "a whole number")
        require_range("--lookahead", self.lookahead, 0, 1_000_000, "a whole number of iterations")
        require_range("--lookahead-from", self.lookahead_from, 0, 1)
        require_range("--discriminator-width", self.discriminator_width, 1, 1024, "a whole number")
        require_range("--detail", self.detail, 0, 1024, "a whole number")
        require_range("--modulation", self.modulation, 0, 4096, "a whole number")


def train_step(
    generator: Generator,
    discriminator: Critic,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    real: torch.Tensor,
    noise: torch.Tensor,
    rng: torch.Generator,
    step: int,
    reach: int = 0,
) -> dict[str, torch.Tensor]:
    """One step of the discriminator on real [B, 1, 28, 28] and G(noise), then one of the generator on the same noise.

    The discriminator sees every image, real or fake, moved by up to `reach` pixels each way (a differentiable
    augmentation, arXiv 2006.10738). Real and fake images have batch statistics of their own. The generator's loss
    differentiates through the images that the discriminator has just seen. Returns the losses.
    """
    fake = generator(noise)  # [B, 1, 28, 28]
    if reach:
        real, fake = shift(real, rng, reach), shift(fake, rng, reach)
    parts = discriminator_losses(*discriminator(real, fake.detach()).chunk(2))
    optimizers[1].zero_grad()
    parts["discriminator"].backward()
    require_finite(discriminator.parameters(), **parts)
    optimizers[1].step()

    discriminator.requires_grad_(False)
    loss = non_saturating_loss(discriminator(fake))
    discriminator.requires_grad_(True)
    optimizers[0].zero_grad()
    loss.backward()
    require_finite(generator.parameters(), generator=loss)
    optimizers[0].step()
    return {**parts, "generator": loss}


def train(
    run: Run,
    generator: Generator,
    discriminator: Critic,
    optimizers: tuple,
    average: MovingAverage,
    slow: Generator,
) -> None:
    """Train to the end of `--epochs`; one run step is all iterations with one batch. `slow` is lookahead's copy."""
    config = run.config
    train_images = load_fashion_mnist("train", run.device).images
    test_images = load_fashion_mnist("test", run.device).images
    n = len(train_images)
    per_epoch = -(-n // config.batch_size)
    batches = batch_indices(n, config.batch_size, config.seed, run.step, run.device)
    total = config.epochs * per_epoch
    for step in run.steps(total, per_epoch, config.batch_size):
        later = step >= config.discriminator_lr_from * total
        peaks = config.lr, config.discriminator_lr if later else config.lr
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = linear_decay(step, total, peak, config.decay_from)
        rng = run.rng("train", step)
        real = to_unit_range(train_images[next(batches)])  # [B, 1, 28, 28]
        reach = config.shift if step >= config.shift_from * total else 0
        for _ in range(config.repeats if step >= config.repeats_from * total else 1):
            noise = torch.randn(len(real), config.latent_dim, generator=rng, device=run.device)
            losses = train_step(generator, discriminator, optimizers, real, noise, rng, step, reach)
            iteration = average.updates + 1
            if config.lookahead and iteration % config.lookahead == 0:
                look_ahead(slow, generator, 0.5 if step >= config.lookahead_from * total else 1)
            average.warm_up = config.ema_warm_up_late if 3 * step >= 2 * total else config.ema_warm_up
            average.update(generator)
            run.record("losses", iteration=iteration, **losses)

        if (step + 1) % per_epoch == 0:
            epoch = (step + 1) // per_epoch
            keep_samples(run, epoch, generator, average)
            measure_quality(run, epoch, generator, average)
            record_epoch(run, epoch, iteration, discriminator, generator, train_images, test_images)


def record_epoch(
    run: Run,
    epoch: int,
    iteration: int,
    discriminator: Critic,
    generator: Generator,
    train_images: torch.Tensor,
    test_images: torch.Tensor,
) -> None:
    """A row of `metrics.csv`: shares of training, held-out and fake images that the discriminator calls real."""
    values = held_out_values(run, discriminator, generator, train_images, test_images)
    names = ("train_called_real", "test_called_real", "fake_called_real")
    shares = {name: float((v > 0).float().mean()) for name, v in zip(names, values, strict=True)}
    run.record("metrics", epoch=epoch, iteration=iteration, seconds=run.seconds, **shares)
    recent = run.rows("losses").tail(500).mean()
    shown = {name: recent[name] for name in ("discriminator", "generator")}
    run.report(epoch, run.config.epochs, **shown, **shares)


def main(config: Config) -> None:
    """Train, then write the results; with --sample, only draw."""
    shape = (config.width, config.latent_dim, True, config.detail, config.modulation)
    if config.sample:
        return sample_finished_run(config, *shape)

    # Networks and optimizers.
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    generator = Generator(*shape)
    discriminator = Critic(config.discriminator_width, batch_norm=True)
    for network in (generator, discriminator):
        initialize(network)
        network.precision = PRECISIONS[config.precision]
        network.to(device, memory_format=torch.channels_last)
    average, slow = MovingAverage(generator, config.ema_decay), copy.deepcopy(generator)
    optimizers = tuple(
        torch.optim.Adam(network.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
        for network in (generator, discriminator)
    )
    parts = {"generator": generator, "discriminator": discriminator, "average": average, "slow": slow}
    moments = {"generator_optimizer": optimizers[0], "discriminator_optimizer": optimizers[1]}

    with Run(config, "q4_dcgan", **parts, **moments) as run:
        train(run, generator, discriminator, optimizers, average, slow)
        write_results(run, generator, average)
        gan_figures.dcgan_curves(run.rows("losses"), run.rows("metrics"), run.folder / "loss_curves.png")


if __name__ == "__main__":
    launch(Config, main, __doc__)
