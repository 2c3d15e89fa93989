"""Limits of the settings of question 2, and its sets of defaults: ours and those of GAN Lab's page."""

from typing import Any, NamedTuple

from common.plane.targets import TARGETS, target_of
from common.run.cli import require, require_range
from common.run.memory import KEPT

FRAME, ROW = 91_000, 3_000  # bytes that an evaluation keeps: a frame, and a row for each seed

LIMITS = {
    "iterations": (1, 10_000_000),
    "batch_size": (2, 1_000_000),
    "lr": (1e-9, 100),
    "generator_lr": (1e-9, 100),
    "decay_from": (0, 1),
    "average_decay": (0, 1),
    "discriminator_steps": (1, 1000),
    "generator_steps": (1, 1000),
    "real_weight": (0, 10),
    "penalty": (0, 1e6),
    "generator_width": (1, 4096),
    "generator_depth": (1, 50),
    "discriminator_width": (1, 4096),
    "discriminator_depth": (1, 50),
    "leak": (0, 1),
    "evaluate_every": (1, 10_000_000),
    "eval_samples": (1_000, 10_000_000),
    "transport_samples": (10, 10_000),
    "seed": (0, 2**31),
    "seeds": (1, 1000),
    "comparison_seeds": (1, 1000),
}
"""The lowest and the highest value of each number."""


def check(config: Any) -> None:
    """Raise `BadInput`, naming the flag, for a setting that is not possible."""
    for name, (low, high) in LIMITS.items():
        require_range("--" + name.replace("_", "-"), getattr(config, name), low, high)
    for beta in config.betas:
        require(0 <= beta < 1, "--betas", beta, "numbers from 0, below 1")
    wanted = f"at most --eval-samples, {config.eval_samples}"
    require(config.transport_samples <= config.eval_samples, "--transport-samples", config.transport_samples, wanted)
    if config.target.endswith(".csv"):
        target_of(config.target)
    else:
        choices = f"{', '.join(TARGETS)}, all, or a CSV file of points"
        require(config.target in (*TARGETS, "all"), "--target", config.target, choices)


SIZES = ("batch_size", "discriminator_steps", "iterations", "generator_width", "discriminator_width", "seeds")


def training_bytes(config: Any) -> float:
    """Memory [bytes] of an iteration and of what evaluations keep: an estimate, measured within 30 % on the CPU.

    Of its `SIZES` a larger --evaluate-every can take the place of fewer iterations.
    """
    weights, units = 0, {}
    for name in ("generator", "discriminator"):
        width, depth = getattr(config, f"{name}_width"), getattr(config, f"{name}_depth")
        weights, units[name] = weights + depth * width * width, depth * width
    largest = max(11 * units["discriminator"], 6 * sum(units.values()))
    step = config.batch_size * (largest + 8 * config.discriminator_steps)
    frames = 2 + config.iterations / config.evaluate_every
    kept = frames * (FRAME + ROW * config.seeds) + 40 * config.iterations * config.seeds
    return 4.0 * config.seeds * (KEPT * weights + step) + kept


class Lab(NamedTuple):
    """A configuration of GAN Lab, in its terms but for the depths, which count every hidden layer.

    Its `numGeneratorLayers` and `numDiscriminatorLayers` count the layers between the first hidden one and the output
    (src/ganlab_models.ts:47-56, 77-86).
    """

    noise: str
    generator_width: int
    generator_depth: int
    discriminator_width: int
    discriminator_depth: int
    lr: float
    generator_lr: float
    discriminator_steps: int


# github.com/poloclub/ganlab, the field `config` in line 1 of pretrained_models/pretrained_<target>.json, which the page
# loads whenever a distribution is chosen.
LABS = {
    "line": Lab("uniform", 5, 2, 6, 2, 0.03, 0.01, 2),
    "gaussians": Lab("truncated", 8, 2, 8, 2, 0.1, 0.03, 2),
    "ring": Lab("uniform", 10, 2, 9, 3, 0.1, 0.03, 3),
    "disjoint": Lab("truncated", 10, 3, 11, 3, 0.1, 0.03, 1),
}


def ganlab(config: Any) -> dict[str, Any]:
    """The page's settings for the config's target; for a target that it does not have, those of its Gaussians.

    Its least squares lack the factor 1/2 (src/ganlab_models.ts:166-169, 180); for SGD this is twice the learning
    rate. A comparison asks again for each of its targets and losses.
    """
    lab = LABS.get(config.target, LABS["gaussians"])._asdict()
    factor = 2 if config.loss == "least-squares" else 1
    lab["lr"], lab["generator_lr"] = factor * lab["lr"], factor * lab["generator_lr"]
    common = {"optimizer": "sgd", "decay_from": 1.0, "batch_size": 150, "real_weight": 0.95, "leak": 0.0}
    return {**lab, **common, "coordinates": "raw", "noise_dim": 2, "generator_steps": 1}


RECIPES = {"ours": lambda _: {}, "ganlab": ganlab}
