"""Score images on the scale of this repository: a finished run, an .npz file or a folder of PNG images.

Anybody's generator of 28 x 28 grey images can be put on the same scale; README.md says what the numbers mean.

    python evaluate.py outputs/q4_wgan_gp
    python evaluate.py images.npz --extractor inception

Prints every metric against the 10,000 test images; writes nothing but the table that --csv names.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from PIL import Image

from common import metrics
from common.checkpoints import write_file
from common.cli import BadInput, launch, require_range
from common.gan import draw, load_generator
from common.run import generator_for


@dataclass(frozen=True)
class Config:
    """What to score, and how."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run's folder (its generator draws three sets of 10,000), an .npz with uint8 images [N, 28, 28], or a folder of
    PNG images of 28 x 28."""
    extractor: Literal["classifier", "inception"] = "classifier"
    """Whose features: this repository's classifier, or Inception's for the standard FID, whose weights torch-fidelity
    fetches over the network."""
    seed: int = 0
    """Decides the noise of a run's generator."""
    csv: Path | None = None
    """Write the metrics to this file, too."""

    def __post_init__(self) -> None:
        require_range("--seed", self.seed, 0, 2**63 - 1, "a whole number")


def image_sets(config: Config) -> list[torch.Tensor]:
    """The sets of uint8 images [N, 1, 28, 28] to score, 10,000 in each but the last.

    Raises:
        BadInput: there is nothing at the path that can be scored.
    """
    path = config.path
    if (path / "generator.pt").is_file():
        generator = load_generator(path / "generator.pt")
        seeds = range(metrics.SEEDS)
        return [
            draw(generator, torch.randn(metrics.N_SAMPLES, generator.latent_dim, generator=rng))
            for rng in (generator_for(config.seed, "evaluate", i) for i in seeds)
        ]
    if path.is_file():
        images = images_of_npz(path)
    elif path.is_dir():
        images = images_of_folder(path)
    else:
        raise BadInput(f"{path}: is not there; name a run's folder, an .npz file or a folder of PNG images")
    if len(images) < 10:
        raise BadInput(f"{path}: {len(images)} images are too few to score; 10,000 are wanted")
    sets = images.split(metrics.N_SAMPLES)
    return [s for s in sets if len(s) == metrics.N_SAMPLES] or [images]


def images_of_npz(path: Path) -> torch.Tensor:
    """The one array of an .npz file as uint8 [N, 1, 28, 28]."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = stored.files
            images = stored["images" if "images" in names else names[0]]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, zipfile.BadZipFile) as fault:
        raise BadInput(f"{path}: not an .npz file of images ({type(fault).__name__}); see --help") from None
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size != len(images) * 784:
        found = f"{images.dtype} {list(images.shape)}"
        raise BadInput(f"{path}: holds {found}; store uint8 images [N, 28, 28] with values from 0 to 255")
    return torch.from_numpy(images.reshape(-1, 1, 28, 28))


def images_of_folder(path: Path) -> torch.Tensor:
    """The PNG images of a folder, in the order of their names, as uint8 [N, 1, 28, 28]."""
    pictures = []
    for file in sorted(path.glob("*.png")):
        try:
            with Image.open(file) as picture:
                pixels = np.array(picture.convert("L"))
        except OSError as fault:
            raise BadInput(f"{file}: not a PNG image ({type(fault).__name__}); remove or replace it") from None
        if pixels.shape != (28, 28):
            raise BadInput(f"{file}: is {pixels.shape[1]} x {pixels.shape[0]} pixels; scale the images to 28 x 28")
        pictures.append(pixels)
    if not pictures:
        raise BadInput(f"{path}: holds neither generator.pt nor PNG images; train first, or name another folder")
    return torch.from_numpy(np.stack(pictures)).unsqueeze(1)


def main(config: Config) -> None:
    """Score the images and print the metrics."""
    sets = image_sets(config)
    number = f"{len(sets)} x {len(sets[0]):,} images"
    if len(sets[0]) < metrics.N_SAMPLES:
        number += " (the Fréchet distance is too large for fewer than 10,000)"
    scored = metrics.score if config.extractor == "classifier" else metrics.score_inception
    found = metrics.with_spread([scored(images) for images in sets])
    print(f"{config.path}: {number}, {config.extractor} features")
    for name, value in found.items():
        if not name.endswith("_std"):
            spread = found.get(f"{name}_std", float("nan"))
            print(f"{name:>18} {value:9.4f}" + (f" ± {spread:.4f}" if spread == spread else ""))
    if config.csv:
        write_file(config.csv, pd.DataFrame([found]).to_csv(index=False, float_format="%.7g").encode())


if __name__ == "__main__":
    launch(Config, main, __doc__)
