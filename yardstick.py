"""The yardstick of sample quality: a classifier of Fashion-MNIST, and the scale of the distances on its features.

Trains the classifier whose features `common/quality/distances.py` uses, then measures known images with the committed
weights: training images (the floor), damaged ones, and images that no generator should draw (the ceilings), so that a
Fréchet distance can be read. The same images are measured in a second feature space, that of a network of ImageNet.

    python yardstick.py
    python yardstick.py --epochs 0 --out outputs/scale

Writes to --out: metrics.csv (a row per epoch), classifier.pt, scale.csv, scale.png, scale_imagenet.csv, spaces.csv
(whether both spaces order the images alike), spaces.png, config.json, environment.json and checkpoints/. The weights in
use are those of common/quality/fashion_classifier.pt; another machine trains slightly other ones.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch.nn.functional import conv2d, cross_entropy

from common.data import Split, load_fashion_mnist, shift, to_uint8, to_unit_range
from common.quality import figures as quality_figures
from common.quality.classifier import FashionClassifier
from common.quality.distances import N_SAMPLES, SEEDS, Extractor, score, with_spread
from common.quality.models import reference_models
from common.run import Run, require_finite, rng_for
from common.run.cli import launch, require_range, resolve_device
from common.run.device import place
from common.run.files import write_file
from common.schedule import one_cycle

SHOWN = ["images", "frechet", "frechet_std", "kid", "precision", "recall", "density", "coverage"]


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    # Training
    epochs: int = 12
    """Passes over the 60,000 training images [epochs]; 0 trains nothing and measures the scale."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 4e-3
    """AdamW's step size at its peak; it rises for 30 % of training, then falls as a cosine."""
    weight_decay: float = 0.05
    """AdamW's weight decay."""
    # Run
    seed: int = 0
    """Decides every random number of the run."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the classifier is trained; auto takes an accelerator where there is one."""
    out: Path = Path("outputs/yardstick")
    """Folder of the run; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""

    def __post_init__(self) -> None:
        require_range("--epochs", self.epochs, 0, 10_000, "a whole number")
        require_range("--batch-size", self.batch_size, 2, 60_000, "a whole number")
        require_range("--lr", self.lr, 1e-9, 10)
        require_range("--weight-decay", self.weight_decay, 0, 10)
        require_range("--seed", self.seed, 0, 2**63 - 1, "a whole number")


@torch.no_grad()
def accuracy(classifier: FashionClassifier, split: Split) -> float:
    """Share of images whose most probable class is the label, in evaluation mode."""
    classifier.eval()
    predicted = torch.cat([classifier(to_unit_range(x)).argmax(1) for x in split.images.split(500)])
    classifier.train()
    return float((predicted == split.labels).float().mean())


def train(run: Run, classifier: FashionClassifier, optimizer: torch.optim.Optimizer, data: Split, test: Split) -> None:
    """Train on shifted images to the end of `--epochs`; mirrored ones stay out: all shoes point to the left."""
    config, n = run.config, len(data.images)
    per_epoch = -(-n // config.batch_size)
    for step, indices, epoch, ends_epoch, _ in run.batches(n, config.batch_size, config.epochs):
        optimizer.param_groups[0]["lr"] = one_cycle(step, config.epochs * per_epoch, config.lr)
        x = to_unit_range(shift(data.images[indices], run.rng("train", step)))
        loss = cross_entropy(classifier(x), data.labels[indices])
        optimizer.zero_grad()
        loss.backward()
        require_finite(classifier.parameters(), loss=loss)
        optimizer.step()
        run.record("losses", step=step, loss=loss)

        if ends_epoch:
            row = {
                "loss": run.rows("losses")["loss"].tail(per_epoch).mean(),
                "test_accuracy": accuracy(classifier, test),
            }
            run.record("metrics", epoch=epoch, seconds=run.seconds, **row)
            run.report(epoch, config.epochs, **row)


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """uint8 images [N, 1, 28, 28] after a Gaussian blur of `sigma` [pixels], zeros outside."""
    at = torch.arange(-9.0, 10.0)
    kernel = torch.softmax(-at.square() / (2 * sigma**2), 0)
    x = to_unit_range(images)
    for shape in ((1, 1, 1, 19), (1, 1, 19, 1)):
        x = conv2d(x, kernel.view(shape), padding="same")
    return to_uint8(x)


def known_images(data: Split) -> Iterator[tuple[str, str, Callable[[torch.Generator], torch.Tensor]]]:
    """Images whose place on the scale is known: group, name, and how to draw 10,000 of them, uint8 [N, 1, 28, 28].

    All are made of training images, since the test images are what they are compared with.
    """
    images, labels, n = data.images.cpu(), data.labels.cpu(), N_SAMPLES

    def real(rng: torch.Generator, classes: int = 10) -> torch.Tensor:
        """10,000 different training images of the last `classes` classes."""
        members = (labels >= 10 - classes).nonzero().squeeze(1)
        return images[members[torch.randperm(len(members), generator=rng)[:n]]]

    def noisy(rng: torch.Generator, sigma: float) -> torch.Tensor:
        x = to_unit_range(real(rng))
        return to_uint8(x + sigma * torch.randn(x.shape, generator=rng))

    def blurred(rng: torch.Generator, sigma: float) -> torch.Tensor:
        return blur(real(rng), sigma)

    yield "floor", "training images", real
    for sigma in (0.05, 0.1, 0.2):
        yield "noise", f"noise, standard deviation {sigma}", partial(noisy, sigma=sigma)
    for sigma in (0.5, 1.0, 2.0):
        yield "blur", f"blur of {sigma} pixels", partial(blurred, sigma=sigma)
    for classes, name in ((9, "one class missing"), (5, "half the classes missing")):
        yield "classes", name, partial(real, classes=classes)
    mean = images.float().mean(0, keepdim=True).round().to(torch.uint8)
    yield "ceiling", "pixel-wise mean image", lambda rng: mean.expand(n, -1, -1, -1)
    yield "repeats", "1,000 images, each ten times", lambda rng: real(rng)[: n // 10].repeat(10, 1, 1, 1)
    yield "ceiling", "one image repeated", lambda rng: real(rng)[:1].expand(n, -1, -1, -1)
    yield "ceiling", "uniform noise", lambda rng: torch.randint(256, (n, 1, 28, 28), generator=rng).to(torch.uint8)


def measure_scale(run: Run, data: Split, table: str, extractor: Extractor, sets: int) -> None:
    """A row of a table for each kind of known images that has none yet, in one feature space, over several sets."""
    done = {row["images"] for row in run.tables.get(table, [])}
    for group, name, draw in known_images(data):
        if name not in done:
            drawn = (draw(rng_for(run.config.seed, f"scale {name}", i)) for i in range(sets))
            found = with_spread([score(images, extractor=extractor) for images in drawn])
            run.record(table, group=group, images=name, **found)
            run.stop_if_asked()


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of each metric between two spaces, over the kinds of images in both tables.

    Args:
        first, second: columns images and the metrics.
    """
    both = first.merge(second, on="images", suffixes=("", "_second"))
    metrics = ("frechet", "kid", "precision", "recall", "density", "coverage")
    found = [both[metric].corr(both[f"{metric}_second"], method="spearman") for metric in metrics]
    return pd.DataFrame({"metric": metrics, "rank_correlation": found, "images": len(both)})


def main(config: Config) -> None:
    """Train the classifier, then measure the scale with the committed one."""
    # Network and optimizer.
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    classifier = FashionClassifier()
    place(classifier, device)
    parameters = classifier.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    with Run(config, "yardstick", classifier=classifier, optimizer=optimizer) as run:
        data, test = load_fashion_mnist("train", device), load_fashion_mnist("test", device)
        if config.epochs:
            train(run, classifier, optimizer, data, test)
            buffer = io.BytesIO()
            torch.save(classifier.state_dict(), buffer)
            write_file(run.folder / "classifier.pt", buffer.getvalue())

        # The scale, measured with the committed weights, and in the second space.
        measure_scale(run, data, "scale", "classifier", SEEDS)
        run.say("measuring in the features of ImageNet")
        measure_scale(run, data, "scale_imagenet", "imagenet", 1)  # takes five times as long for each set
        table, second = run.rows("scale"), run.rows("scale_imagenet")
        run.replace("spaces", agreement(table, second))
        quality_figures.scale(table, reference_models(), run.folder / "scale.png")
        quality_figures.spaces(table, second, run.folder / "spaces.png")
        for rows in (table[SHOWN], second[SHOWN], run.rows("spaces")):
            run.say(rows.to_string(index=False, float_format="{:.4g}".format) + "\n")


if __name__ == "__main__":
    launch(Config, main, __doc__)
