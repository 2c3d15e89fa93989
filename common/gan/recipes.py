"""Settings of question 4: what both scripts share, the papers' values, and the DCGAN's schedule."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from common import own_data
from common.gan import memory
from common.quality import distances
from common.run.cli import require, require_range, resolve_device
from common.run.device import resolve_precision
from common.run.memory import require_memory
from common.schedule import linear_decay

T = TypeVar("T", bound="Common")
LARGEST = {"width": 1024, "latent_dim": 4096, "detail": 1024, "modulation": 4096}  # of a generator's shape


@dataclass(frozen=True)
class Common:
    """Settings that mean the same in both scripts: what is measured, where networks run, what is written where."""

    # Run
    epochs: int = 15
    """Passes over the 60,000 training images [epochs], whatever each batch is used for."""
    recipe: Literal["ours", "papers"] = "ours"
    """Set of defaults, which any flag overrides: this repository's, or those of the papers."""
    seed: int = 0
    """Decides every random number of the run."""
    out: Path = Path()
    """Folder of the run; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""
    tensorboard: bool = False
    """Also write the tables for TensorBoard, to the folder tensorboard in --out."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks run; auto takes an accelerator where there is one."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """Number format of the convolutions in training; auto: tf32 on CUDA, float32 elsewhere. bfloat16 is faster on
    processors with AMX."""
    # Networks
    width: int = 64
    """Channels of the generator's last inner layer at 14 x 14 and, in WGAN-GP, of the critic's first; the value of the
    MNIST experiment of arXiv 1704.00028."""
    latent_dim: int = 128
    """Dimensions of the noise z ~ N(0, I); the MNIST experiment's value."""
    # Measurement and samples
    sample_epochs: tuple[int, ...] = ()
    """Epochs whose grids are drawn [epochs]; empty: 1, 5, 10, 15 and the last, as far as the run goes."""
    quality_samples: int = 10_000
    """Images in each of the three sets that quality.csv measures at those epochs and the last [images]; 0 is never."""
    data: str = ""
    """Folder of own images, four archives in the format of MNIST (MNIST, KMNIST, EMNIST digits), in the place of
    Fashion-MNIST; classes.txt in it may name the ten classes. Sample quality is not measured then."""
    selection: bool = False
    """Choose settings: train on 50,000 of the training images and measure on the other 10,000, never on test images."""
    sample: int = 0
    """Draw so many new images from the finished run in --out, without training [images]."""

    def __post_init__(self) -> None:
        """Raises `BadInput` for what both scripts check."""
        distances.check_sample_size(self.quality_samples)
        require_range("--sample", self.sample, 0, 100_000, "a whole number")
        require_range("--seed", self.seed, 0, 2**63 - 1, "a whole number")
        own_data.check(self.data)
        require(
            not (self.data and self.selection),
            "--selection",
            "--data",
            "Fashion-MNIST, whose validation images are known",
        )
        check_training(self)


def on_device(config: T, needed: Callable[[Any], float]) -> tuple[T, torch.device]:
    """The settings with their `auto` resolved, and the device.

    Args:
        needed: an estimate of the memory [bytes] that they need.

    Raises:
        BadInput: the device is not there, or has less.
    """
    device = resolve_device(config.device)
    require_memory(config, needed, [name for name in memory.FLAGS if hasattr(config, name)], device)
    return replace(config, precision=resolve_precision(config.precision, device)), device


def check_training(config: Any) -> None:
    """The checks of the training settings that both scripts have; raises `BadInput`."""
    require_range("--epochs", config.epochs, 1, 10_000, "a whole number")
    require_range("--batch-size", config.batch_size, 2, 60_000, "a whole number")
    require_range("--lr", config.lr, 1e-9, 1)
    require_range("--beta1", config.beta1, 0, 0.9999)
    require_range("--beta2", config.beta2, 0, 0.999999)
    require_range("--decay-from", config.decay_from, 0, 1)
    require_range("--width", config.width, 1, LARGEST["width"], "a whole number")
    require_range("--latent-dim", config.latent_dim, 1, LARGEST["latent_dim"], "a whole number")
    require_range("--ema-decay", config.ema_decay, 0, 0.999999)
    require_range("--self-modulation", config.self_modulation, 0, LARGEST["modulation"], "a whole number")
    for epoch in config.sample_epochs:
        wanted = f"epochs from 1 to --epochs, here {config.epochs}"
        require(1 <= epoch <= config.epochs, "--sample-epochs", epoch, wanted)


def ours(config: Any) -> dict[str, Any]:
    """The defaults as they stand."""
    return {}


def dcgan_papers(config: Any) -> dict[str, Any]:
    """The DCGAN of arXiv 1511.06434 with the networks and batch size of the MNIST experiment of arXiv 1704.00028."""
    networks = {"discriminator_width": 64, "detail": 0, "self_modulation": 0}
    adam = {"lr": 2e-4, "discriminator_lr": 2e-4, "beta1": 0.5, "decay_from": 1.0}
    return {**networks, **adam, "batch_size": 50, "echo": 1, "max_shift": 0, "lookahead": 0}


def wgan_gp_papers(config: Any) -> dict[str, Any]:
    """The MNIST experiment of arXiv 1704.00028."""
    return {"batch_norm": False, "self_modulation": 0, "lr": 1e-4, "decay_from": 1.0, "critic_steps": 5}


def events(config: Any) -> dict[str, float]:
    """What happens in training, at which fraction of it; what never happens is left out."""
    found = {"learning rates fall": config.decay_from}
    if getattr(config, "max_shift", 0):
        found["images are shifted"] = config.shift_from
    if getattr(config, "echo", 1) > 1:
        found["each batch twice" if config.echo == 2 else f"each batch {config.echo} times"] = config.echo_from
    together: dict[float, list[str]] = {}
    for event, fraction in found.items():
        together.setdefault(fraction, []).append(event)
    return {", ".join(names): fraction for fraction, names in together.items() if 0 < fraction < 1}


class Moment(NamedTuple):
    """The DCGAN's settings at one moment of training.

    Attributes:
        generator_lr, discriminator_lr: learning rates.
        max_shift: largest shift of what the discriminator sees [pixels].
        echo: iterations with each batch.
        lookahead: fraction of the way that the slow weights go at a lookahead step; at 1 the fast weights stay.
        ema_warm_up: the average remembers the last 1 / ema_warm_up of the iterations.
    """

    generator_lr: float
    discriminator_lr: float
    max_shift: int
    echo: int
    lookahead: float
    ema_warm_up: int


def moment(config: Any, progress: float) -> Moment:
    """The schedule of the DCGAN: a pure function of its settings and the fraction of training done, in [0, 1)."""
    discriminator_peak = config.discriminator_lr if progress >= config.discriminator_lr_from else config.lr
    return Moment(
        generator_lr=linear_decay(progress, 1, config.lr, config.decay_from),
        discriminator_lr=linear_decay(progress, 1, discriminator_peak, config.decay_from),
        max_shift=config.max_shift if progress >= config.shift_from else 0,
        echo=config.echo if progress >= config.echo_from else 1,
        lookahead=0.5 if progress >= config.lookahead_from else 1.0,
        ema_warm_up=config.ema_warm_up_late if progress >= config.ema_late_from else config.ema_warm_up,
    )
