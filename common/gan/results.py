"""What both GAN scripts do around their training steps: samples, held-out estimates, files, figures."""

import time
from typing import Any, NamedTuple

import torch
from torch import nn

from common import own_data
from common.data import load_fashion_mnist, to_unit_range
from common.gan import figures as gan_figures
from common.gan import recipes
from common.gan.averages import MovingAverage
from common.gan.generators import GRID, draw, write_generator, write_npz
from common.gan.networks import Critic, Generator, prepare
from common.quality import copies, distances
from common.quality import figures as quality_figures
from common.run import Run
from common.run.graphs import adam
from common.run.reference import beside, read_reference

HELD_OUT, STORED = 4000, 10_000


class Players(NamedTuple):
    """Both networks of a GAN and their optimizers; `critic` is a DCGAN's discriminator."""

    generator: Generator
    critic: Critic
    generator_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer


def make_players(generator: Generator, critic: Critic, config: Any, device: torch.device) -> Players:
    """Both networks on the device, their weights drawn, and Adam for each with the settings of the run."""
    for network in (generator, critic):
        prepare(network, device, config.precision)
    settings = {"lr": config.lr, "betas": (config.beta1, config.beta2)}
    return Players(generator, critic, *(adam(network.parameters(), **settings) for network in (generator, critic)))


class Data(NamedTuple):
    """Images uint8 [N, 1, 28, 28]: those to train on, on the run's device, and others that are held out."""

    train: torch.Tensor
    held_out: torch.Tensor


def load_data(config: Any, device: torch.device) -> Data:
    """The training and the test images; with `--selection` parts of the training images take the place of both."""
    splits = ("fit", "validation") if config.selection else ("train", "test")
    return Data(*(own_data.load(split, device, config.data).images for split in splits))


def sample_epochs(config: Any) -> list[int]:
    """The epochs whose grids are drawn: those asked for, or 1, 5, 10, 15 and the last as far as the run goes."""
    wanted = config.sample_epochs or (*(e for e in (1, 5, 10, 15) if e <= config.epochs), config.epochs)
    return sorted(set(wanted))


def noise_for(run: Run, stream: str, n: int) -> torch.Tensor:
    """Standard normal noise [n, latent_dim], a function of the run's seed and the stream's name."""
    return torch.randn(n, run.config.latent_dim, generator=run.rng(stream, 0), device=run.device)


def keep_samples(run: Run, epoch: int, generator: Generator, average: MovingAverage) -> None:
    """Keep this epoch's images of the same fixed noise with the run: of the raw and of the averaged weights."""
    noise = noise_for(run, "grid", GRID)
    run.keep(f"raw_{epoch:03d}", draw(generator, noise))
    run.keep(f"averaged_{epoch:03d}", draw(average.network, noise))


@torch.no_grad()
def critic_values(critic: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The critic's value of every image [N], in evaluation mode, for images uint8 [N, 1, 28, 28]."""
    was_training = critic.training
    critic.eval()
    values = torch.cat([critic(to_unit_range(x)) for x in images.split(500)])
    critic.train(was_training)
    return values


def after_epoch(run: Run, epoch: int, generator: Generator, average: MovingAverage) -> None:
    """What both scripts do at an epoch's end: keep samples and measure them where that is wanted."""
    keep_samples(run, epoch, generator, average)
    measure_quality(run, epoch, generator, average)


def held_out_values(run: Run, players: Players, data: Data) -> tuple[torch.Tensor, ...]:
    """The critic's values of training images, of as many held-out images, and of fresh fakes, each [4000]."""
    fake = draw(players.generator, noise_for(run, "held out", HELD_OUT)).to(run.device)
    return tuple(critic_values(players.critic, x) for x in (data.train[:HELD_OUT], data.held_out[:HELD_OUT], fake))


def measure_quality(run: Run, epoch: int, generator: Generator, average: MovingAverage) -> None:
    """At sample epochs and at the end, two rows of `quality.csv`: the raw and the averaged weights, over three sets.

    `seconds` is the time spent in training until then, without the measurements themselves.
    """
    n = 0 if run.config.data else run.config.quality_samples
    if not n or epoch not in (*sample_epochs(run.config), run.config.epochs):
        return
    earlier = run.rows("quality")
    seconds = run.seconds - (earlier["measured_in"].sum() if len(earlier) else 0)
    noises = [noise_for(run, f"quality {i}", n) for i in range(distances.SEEDS)]
    for weights, network in (("raw", generator), ("averaged", average.network)):
        began = time.monotonic()
        run.say(f"measuring {distances.SEEDS} x {n:,} images of the {weights} weights")
        against = "validation" if run.config.selection else "test"
        sets = [distances.score(draw(network, noise), run.device, against) for noise in noises]
        found = distances.with_spread(sets)
        measured_in = time.monotonic() - began
        run.record("quality", epoch=epoch, seconds=seconds, weights=weights, **found, measured_in=measured_in)


def compare_with_training_images(run: Run, samples: torch.Tensor) -> None:
    """`copies.csv` and `.png`: the fraction of samples that are called copies, beside that of the test images."""
    sources = copies.training_images()
    found = {"samples": sources.find(samples, run.stop_if_asked)}
    found["test images"] = sources.find(load_fashion_mnist("test").images, run.stop_if_asked)
    run.replace("copies", copies.table(found))
    likest = found["samples"].ratio.argsort()[:10]
    shown = samples[likest], load_fashion_mnist("train").images[found["samples"].nearest[likest]]
    ratios = {name: f.ratio.numpy() for name, f in found.items()}
    path = run.folder / "copies.png"
    quality_figures.copies(to_unit_range(shown[0]), to_unit_range(shown[1]), ratios, copies.THRESHOLD, path)


def write_results(run: Run, generator: Generator, average: MovingAverage, data: Data) -> None:
    """Write the generator, `samples.npz` and every figure that both scripts share, and say where to look."""
    config, folder = run.config, run.folder
    if not run.trained:
        run.say(f"{folder} holds this run, finished; its figures are drawn again")
    write_generator(folder, generator, average.network)
    samples = draw(average.network, noise_for(run, "samples", STORED))
    write_npz(folder / "samples.npz", images=samples)
    if config.data:
        run.say(own_data.NOT_MEASURED)
    elif config.quality_samples:
        if config.epochs not in list(run.rows("quality").get("epoch", [])):
            measure_quality(run, config.epochs, generator, average)  # it was trained with --quality-samples 0
        if not config.selection:
            run.say("comparing samples with the training images")
            compare_with_training_images(run, samples)
        quality_figures.quality(run.rows("quality"), folder / "quality.png")

    # An archive of the images that are drawn, so that `studies/redraw.py` can draw them again without the run.
    grids = {"real": data.train[:GRID].cpu()}
    for epoch in range(1, config.epochs + 1):
        whole = run.tensors[f"averaged_{epoch:03d}"].cpu()
        drawn = epoch in sample_epochs(config)
        grids[f"{'grid' if drawn else 'frame'}_{epoch:02d}"] = whole if drawn else whole[: gan_figures.FRAME]
    grids["paths"] = draw(average.network, interpolation_paths(noise_for(run, "paths", 16)))
    write_npz(folder / "grids.npz", **grids)
    events = recipes.events(config)
    gan_figures.every_figure(folder, run.script, events, run.rows("losses"), run.rows("metrics"), grids)


def summary(run: Run) -> str:
    """The sample quality after the last epoch, beside the reference runs', and which files to open first."""
    rows = run.rows("quality")
    lines = []
    if len(rows):
        rows = rows[rows["epoch"] == run.config.epochs]
        shown = ["weights", "frechet", "frechet_std", "precision", "recall"]
        lines += [f"after epoch {run.config.epochs}:", rows[shown].to_string(index=False, float_format="{:.4g}".format)]
        reference = read_reference(run.identity, "distances.csv", "q4_seeds")
        if len(reference):
            reference = reference[reference["setting"] == run.script.removeprefix("q4_")]
        lines += ["", beside(rows, reference, ["epoch", "weights"], "frechet", "frechet_std")]
    lines += [f"{run.folder}: open first progress.gif, loss_curves.png, fake_epoch_{run.config.epochs:02d}.png"]
    return "\n".join(lines)


def interpolation_paths(ends: torch.Tensor, points: int = 12) -> torch.Tensor:
    """Great-circle paths between pairs of latent points [2k, d]; they keep norms typical of N(0, I): [k * points, d].

    Source: Shoemake 1985, spherical linear interpolation; White 2016, arXiv 1609.04468.
    """
    first, last = ends[0::2].unsqueeze(1), ends[1::2].unsqueeze(1)  # [k, 1, d]
    cosine = torch.nn.functional.cosine_similarity(first, last, dim=2).clamp(-1, 1).unsqueeze(2)
    angle = cosine.acos()
    t = torch.linspace(0, 1, points, device=ends.device).view(1, -1, 1)
    paths = (((1 - t) * angle).sin() * first + (t * angle).sin() * last) / angle.sin()
    return paths.flatten(0, 1)
