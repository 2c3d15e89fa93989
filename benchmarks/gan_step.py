"""Speed of one generator iteration of WGAN-GP and of DCGAN beside the textbook way, on the same networks and batch.

Textbook: a backward pass for each term of the loss, LeakyReLU through ordinary double differentiation, contiguous
memory, Adam's default loop, fakes made one batch at a time, the critic's weight gradients computed and thrown away in
the generator's step. First losses and gradients are compared; then both sides alternate in one process, medians count.

    python benchmarks/gan_step.py
    python benchmarks/gan_step.py --epoch-images 6000

Then the scripts' steps with the papers' settings and with the defaults alternate, for the time that a pass over the
training images takes with each. With --epoch-images the scripts themselves run too, without quality.csv, for an epoch
of so many images in a temporary folder, and the cost of a whole epoch of 60,000 beside its bare steps is found from
that. The last line is JSON.
"""

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch.nn.functional import leaky_relu

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q4_dcgan
import q4_wgan_gp
from common.data import draw_offsets, to_unit_range
from common.gan import results
from common.gan.critic_gradients import critic_gradients
from common.gan.networks import SLOPE, Critic, Generator, initialize
from common.losses import discriminator_losses, gradient_penalty, non_saturating_loss
from common.run import Guard, Run
from common.run.cli import configured, launch, require_range
from common.run.graphs import Graphed
from common.run.run import CHECKPOINT_SECONDS

BATCH, CRITIC_STEPS, LATENT = 50, 5, 128
GUARD = Guard("cpu")
SCRIPTS = {"wgan_gp": q4_wgan_gp, "dcgan": q4_dcgan}


@dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    repeats: int = 9
    """Timed iterations of each side; the median counts."""
    width: int = 64
    """Width of both networks; 64 is the paper's."""
    epoch_images: int = 0
    """Images of the shortened epoch of each script; 0: the scripts are not run."""

    def __post_init__(self) -> None:
        require_range("--repeats", self.repeats, 1, 1000, "a whole number")
        require_range("--width", self.width, 1, 1024, "a whole number")
        if self.epoch_images:
            require_range("--epoch-images", self.epoch_images, 500, 60_000, "a whole number, or 0")


class Side:
    """Networks, optimizers and inputs of one side; sides of one kind start alike and see the same inputs.

    Args:
        width: of the generator, and of the critic where its width is not given.
        batch_norm: in both networks; in a WGAN-GP self-modulation brings it to the generator alone.
        fast: channels-last memory and fused Adam.
        batch, critic_steps: images of a step, critic steps of an iteration of WGAN-GP.
        max_shift: of the shifts of what a DCGAN's discriminator sees [pixels].
        detail, self_modulation: of the generator.
        critic_width: of the critic.
    """

    def __init__(
        self,
        width: int,
        batch_norm: bool,
        fast: bool,
        batch: int = BATCH,
        critic_steps: int = CRITIC_STEPS,
        max_shift: int = 0,
        detail: int = 0,
        self_modulation: int = 0,
        critic_width: int | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.max_shift = max_shift
        self.generator, self.critic = (
            Generator(width, LATENT, batch_norm or self_modulation > 0, detail, self_modulation),
            Critic(critic_width or width, batch_norm),
        )
        betas = (0.5, 0.999) if batch_norm else (0.5, 0.9)
        for network in (self.generator, self.critic):
            initialize(network)
            if fast:
                network.to(memory_format=torch.channels_last)
        self.g_optimizer, self.c_optimizer = (
            torch.optim.Adam(network.parameters(), lr=1e-4, betas=betas, fused=fast or None)
            for network in (self.generator, self.critic)
        )
        rng = self.rng = torch.Generator().manual_seed(1)
        self.players = results.Players(self.generator, self.critic, self.g_optimizer, self.c_optimizer)
        self.images = torch.randint(256, (critic_steps, batch, 1, 28, 28), generator=rng).to(torch.uint8)
        self.real = to_unit_range(self.images)
        self.noise = torch.randn(critic_steps + 1, batch, LATENT, generator=rng)
        self.weight = torch.rand(critic_steps, batch, generator=rng)


def textbook_value(critic: Critic, x: torch.Tensor) -> torch.Tensor:
    """The critic's value of x [B, 1, 28, 28] by its layers alone; the generator's textbook way is `layers(z)`."""
    for convolution, norm in zip(critic.convolutions, critic.norms, strict=True):
        x = leaky_relu(norm(convolution(x)), SLOPE)
    return critic.linear(x.flatten(1)).squeeze(1)


def textbook_critic_step(side: Side, real: torch.Tensor, fake: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Three forward and backward passes: real, fake, penalty."""
    side.c_optimizer.zero_grad()
    on_real = -textbook_value(side.critic, real).mean()
    on_real.backward()
    on_fake = textbook_value(side.critic, fake).mean()
    on_fake.backward()
    penalty = 10 * gradient_penalty(partial(textbook_value, side.critic), real, fake, weight).mean()
    penalty.backward()
    side.c_optimizer.step()
    return (on_real + on_fake + penalty).detach()


def textbook_wgan(side: Side) -> torch.Tensor:
    """One generator iteration the textbook way; returns the last critic loss and the generator's loss."""
    for i in range(CRITIC_STEPS):
        fake = side.generator.layers(side.noise[i]).detach()
        loss = textbook_critic_step(side, side.real[i], fake, side.weight[i])
    side.g_optimizer.zero_grad()
    generator_loss = -textbook_value(side.critic, side.generator.layers(side.noise[-1])).mean()
    generator_loss.backward()
    side.g_optimizer.step()
    return torch.stack([loss, generator_loss.detach()])


def fast_wgan(side: Side) -> torch.Tensor:
    """The script's iteration: one generator pass for all critic batches, the critic's gradients written out."""
    with torch.no_grad():
        fakes = side.generator(side.noise[:-1].flatten(0, 1)).split(len(side.real[0]))
    for i in range(len(side.real)):
        parts = q4_wgan_gp.critic_step(side.players, GUARD, 10.0, side.images[i], fakes[i], side.weight[i])
    loss = q4_wgan_gp.generator_step(side.players, GUARD, side.noise[-1])["generator"]
    return torch.stack([parts["critic"], loss.detach()])


def textbook_dcgan(side: Side) -> torch.Tensor:
    """One iteration the textbook way."""
    side.c_optimizer.zero_grad()
    on_real = discriminator_losses(textbook_value(side.critic, side.real[0]), torch.zeros(1))["real"]
    on_real.backward()
    fake = side.generator.layers(side.noise[0])
    on_fake = discriminator_losses(torch.zeros(1), textbook_value(side.critic, fake.detach()))["fake"]
    on_fake.backward()
    side.c_optimizer.step()
    side.g_optimizer.zero_grad()
    loss = non_saturating_loss(textbook_value(side.critic, fake))
    loss.backward()
    side.g_optimizer.step()
    return torch.stack([(on_real + on_fake).detach(), loss.detach()])


def fast_dcgan(side: Side) -> torch.Tensor:
    """The script's iteration."""
    offsets = [draw_offsets(len(side.images[0]), side.rng, side.max_shift) for _ in range(2)]
    losses = q4_dcgan.train_step(side.players, GUARD, side.images[0], side.noise[0], *offsets, side.max_shift)
    return torch.stack([losses["discriminator"], losses["generator"]]).detach()


def agreement(width: int) -> dict[str, float]:
    """Largest relative differences, textbook against fast: of an iteration's losses, of a critic step's gradients.

    The losses of WGAN-GP are those after four critic steps of Adam, which enlarges rounding.
    """
    found = {}
    for name, textbook, fast, batch_norm in (
        ("wgan_gp", textbook_wgan, fast_wgan, False),
        ("dcgan", textbook_dcgan, fast_dcgan, True),
    ):
        sides = Side(width, batch_norm, False), Side(width, batch_norm, True)
        values = textbook(sides[0]), fast(sides[1])
        found[f"{name}_loss"] = float(((values[0] - values[1]).abs() / values[0].abs()).max())
    plain, written = Side(width, False, False), Side(width, False, True)
    fake = plain.generator.layers(plain.noise[0]).detach()
    textbook_critic_step(plain, plain.real[0], fake, plain.weight[0])
    critic_gradients(written.critic, written.real[0], fake, written.weight[0], 10.0)
    # The last layer's bias has gradient 0 in one side and rounding noise about 0 in the other.
    pairs = zip(list(plain.critic.parameters())[:-1], written.critic.parameters(), strict=False)
    found["critic_gradient"] = max(float((a.grad - b.grad).norm() / a.grad.norm()) for a, b in pairs)
    return found


def matrix_product_rate() -> float:
    """Float32 matrix-product rate of this machine [GFLOP/s], 2048 x 2048."""
    a = torch.randn(2048, 2048)
    start = time.perf_counter()
    for _ in range(3):
        a @ a
    return 3 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9


def needed_gflop(width: int, padding: bool) -> float:
    """Arithmetic that the mathematics of one WGAN-GP iteration needs [GFLOP], a multiply-add counted as 2.

    Multiply-adds of one image: each layer has output positions x taps x channels in x channels out. A critic step takes
    3 B forward, 3 B backward to the activations, B of v forward and 3 B weight gradients, that is 10 B; the first layer
    needs the gradient at its input for the interpolated images only, 8 B. The generator is run forward for each critic
    batch; its own step takes its forward and two backward passes and the critic's forward and backward to the input.

    Args:
        width: of both networks.
        padding: count all 25 taps at every position, as is usual; otherwise only those that meet a pixel.
    """

    def taps(size: int) -> int:
        """Taps over all output positions of an image of this size."""
        starts = range(-2, size - 2, 2) if size % 2 == 0 else range(-2, size - 1, 2)
        return sum(5 if padding else min(start + 5, size) - max(start, 0) for start in starts) ** 2

    first = taps(28) * width
    inner = taps(14) * width * 2 * width + taps(7) * 2 * width * 4 * width
    linear = 16 * 4 * width
    generator = LATENT * 16 * 4 * width + first + inner
    critic_step = 10 * (inner + linear) + 8 * first
    critic = first + inner + linear
    per_image = CRITIC_STEPS * (critic_step + generator) + 3 * generator + 2 * critic
    return 2 * BATCH * per_image / 1e9


def compare(textbook: Callable, fast: Callable, sides: tuple[Side, ...], repeats: int) -> tuple[list, list, list]:
    """Seconds of each iteration of the two sides in turn, and the matrix-product rate beside each."""
    seconds: tuple[list, list] = ([], [])
    rates = []
    for turn in range(repeats + 1):
        for side, step, kept in zip(sides, (textbook, fast), seconds, strict=True):
            start = time.perf_counter()
            step(side)
            if turn:
                kept.append(time.perf_counter() - start)
        rates.append(matrix_product_rate())
    return *seconds, rates


def settings_cost(name: str, step: Callable, batch_norm: bool, repeats: int) -> dict:
    """Time of a pass over the training images with the papers' settings as a multiple of that with the defaults.

    Of the steps alone, which alternate; those of the defaults are with shifted images, which a run begins without.
    """
    module = SCRIPTS[name]
    configs = configured(module.Config, module.RECIPES, recipe="papers"), module.Config()
    sides, images = [], []
    for config in configs:
        critic_steps = getattr(config, "critic_steps", 1)
        extra = [getattr(config, key, 0) for key in ("max_shift", "detail", "self_modulation", "discriminator_width")]
        sides.append(Side(config.width, batch_norm, True, config.batch_size, critic_steps, *extra))
        images.append(critic_steps * config.batch_size)
    papers, defaults, _ = compare(step, step, tuple(sides), repeats)
    ratios = [(a / images[0]) / (b / images[1]) for a, b in zip(papers, defaults, strict=True)]
    return {
        "defaults_epoch_bare_s": round(60_000 / images[1] * statistics.median(defaults), 1),
        "papers_over_defaults": round(statistics.median(ratios), 2),
        "papers_over_defaults_min": round(min(ratios), 2),
        "papers_over_defaults_max": round(max(ratios), 2),
    }


def clocked(function: Callable, spans: list[tuple[float, float]]) -> Callable:
    """The function, which notes the start and end of each call."""

    def call(*arguments, **constants):
        start = time.perf_counter()
        try:
            return function(*arguments, **constants)
        finally:
            spans.append((start, time.perf_counter()))

    return call


def whole_epoch(module: ModuleType, config: Config) -> dict:
    """Cost of a script's epoch of 60,000 images at its defaults, all included, beside that of its bare steps.

    The script's `main` trains one epoch of `config.epoch_images`. The loop (steps, data, logging, averaging) is scaled
    to a whole epoch, without the first iteration, which prepares kernels. Estimates, kept samples and checkpoints count
    once in each epoch, with the checkpoints of every minute; loading, figures and files once in a run. The bare steps
    are the calls of the step functions in that same loop, so a slow minute of the machine is on both sides.

    Args:
        module: the script.
    """
    n, spans, ends = config.epoch_images, [], []
    defaults = module.Config(quality_samples=0)
    critic_steps = getattr(defaults, "critic_steps", 0)
    load, save = results.load_data, []

    def small(*arguments) -> results.Data:
        return results.Data(*(images[:n] for images in load(*arguments)))

    first = critic_steps + 2 if critic_steps else 1  # calls of the first iteration
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        places = ((Graphed, "__call__", spans), (results, "keep_samples", ends), (module, "record_epoch", ends))
        for place, name, kept in (*places, (Run, "save", save)):
            stack.enter_context(mock.patch.object(place, name, clocked(getattr(place, name), kept)))
        stack.enter_context(mock.patch.object(results, "load_data", small))
        start = time.perf_counter()
        module.main(replace(defaults, epochs=1, out=Path(folder)))
        total = time.perf_counter() - start
    loop = ends[0][0] - spans[first - 1][1]
    each_epoch = sum(end - start for start, end in ends + save)
    once = total - loop - each_epoch
    scale = 60_000 / (n - max(critic_steps, 1) * defaults.batch_size)
    bare = scale * sum(end - start for start, end in spans[first:])
    whole = scale * loop + each_epoch
    whole += whole // CHECKPOINT_SECONDS * max(end - start for start, end in save)
    of_many = whole + once / defaults.epochs
    return {
        "epoch_bare_s": round(bare, 1),
        f"epoch_of_{defaults.epochs}_s": round(of_many, 1),
        f"epoch_of_{defaults.epochs}_over_bare": round(of_many / bare, 3),
        "single_epoch_over_bare": round((whole + once) / bare, 3),
    }


def main(config: Config) -> None:
    """Check agreement, measure, print."""
    found = agreement(config.width)
    print("largest relative differences:", {name: f"{value:.1e}" for name, value in found.items()})
    if max(found.values()) > 1e-3:
        raise SystemExit("the two sides do not compute the same")
    result: dict[str, float | int] = {"threads": torch.get_num_threads(), "width": config.width, **found}
    for name, textbook, fast, batch_norm in (
        ("wgan_gp", textbook_wgan, fast_wgan, False),
        ("dcgan", textbook_dcgan, fast_dcgan, True),
    ):
        sides = Side(config.width, batch_norm, False), Side(config.width, batch_norm, True)
        slow, quick, rates = compare(textbook, fast, sides, config.repeats)
        ratios = [a / b for a, b in zip(slow, quick, strict=True)]
        result |= {
            f"{name}_textbook_ms": round(1000 * statistics.median(slow), 1),
            f"{name}_ms": round(1000 * statistics.median(quick), 1),
            f"{name}_ratio": round(statistics.median(ratios), 3),
            f"{name}_ratio_min": round(min(ratios), 3),
            f"{name}_ratio_max": round(max(ratios), 3),
        }
        result |= {f"{name}_{k}": v for k, v in settings_cost(name, fast, batch_norm, config.repeats).items()}
        if config.epoch_images:
            result |= {f"{name}_{k}": v for k, v in whole_epoch(SCRIPTS[name], config).items()}
        if name == "wgan_gp":
            result["matrix_product_gflops"] = round(statistics.median(rates), 1)
            for padding, counted in ((True, ""), (False, "_without_padding")):
                gflop = needed_gflop(config.width, padding)
                share = gflop / statistics.median(quick) / statistics.median(rates)
                result[f"needed_gflop{counted}"] = round(gflop, 1)
                result[f"wgan_gp_share_of_matrix_product_rate{counted}"] = round(share, 3)
    for name, value in result.items():
        print(f"{name:>40} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    launch(Config, main, __doc__)
