"""The power of the test for copies: how many planted copies of training images it finds, and its false alarms.

    python studies/copies.py
    python studies/copies.py --images 500 --out outputs/copies_quick

Writes to --out: power.csv (for each kind of images the fraction that is called copies, with its 95 % interval),
config.json and environment.json.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.data import load_fashion_mnist, shift, to_uint8, to_unit_range
from common.quality import copies
from common.run import Run, rng_for
from common.run.cli import launch, require_range
from yardstick import blur

Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Config:
    """Settings of the study."""

    images: int = 3000
    """Images of each kind."""
    seed: int = 0
    """Decides which images are taken and how they are changed."""
    device: str = "cpu"
    """The search runs on the processor."""
    out: Path = Path("outputs/copies")
    """Folder of the study; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""

    def __post_init__(self) -> None:
        require_range("--images", self.images, 10, 10_000, "a whole number")
        require_range("--seed", self.seed, 0, 2**63 - 1, "a whole number")


def noisy(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Gaussian noise of standard deviation 0.05 of the range of pixels."""
    x = to_unit_range(images)
    return to_uint8(x + 0.05 * torch.randn(x.shape, generator=rng))


KINDS: dict[str, Change] = {
    "as they are": lambda images, rng: images,
    "shifted by up to 2 pixels": shift,
    "mirrored": lambda images, rng: images.flip(3),
    "blurred by 0.5 pixels": lambda images, rng: blur(images, 0.5),
    "noise of 0.05": noisy,
    "all of these": lambda images, rng: noisy(blur(shift(images.flip(3), rng), 0.5), rng),
    "blurred by 1 pixel": lambda images, rng: blur(images, 1.0),
}


def main(config: Config) -> None:
    """Plant copies of every kind, and the same changes of test images, which are no copies."""
    with Run(config, "studies.copies") as run:
        splits = {name: load_fashion_mnist(split).images for name, split in (("copies", "train"), ("test", "test"))}
        done = len(run.rows("power"))
        jobs = [(of, kind) for of in splits for kind in KINDS]
        for of, kind in jobs[done:]:
            rng = rng_for(config.seed, f"{of} {kind}", 0)
            taken = torch.randperm(len(splits[of]), generator=rng)[: config.images]
            found = copies.training_images().find(KINDS[kind](splits[of][taken], rng), run.stop_if_asked)
            called, n = int(found.copied.sum()), len(taken)
            low, high = binomtest(called, n).proportion_ci()
            source = float((found.nearest == taken).double().mean()) if of == "copies" else float("nan")
            row = {"images": of, "change": kind, "n": n, "called_copies": called / n, "low": low, "high": high}
            run.record("power", **row, source_found=source)
            run.say(f"{of}, {kind}: {called / n:.4f} called copies")


if __name__ == "__main__":
    launch(Config, main, __doc__)
