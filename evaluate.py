"""Score images on the scale of this repository: a finished run, an .npz file or a folder of images.

Anybody's generator of 28 x 28 grey images can be put on the same scale; README.md says what the numbers mean.

    python evaluate.py outputs/q4_wgan_gp
    python evaluate.py images.npz --extractor inception

Prints every metric against the 10,000 test images and the fraction of images that are copies of training images;
writes nothing but the table that --csv names.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image

from common.gan.generators import HALF, WHOLE, draw, generator_in, load_generator
from common.quality import copies, distances
from common.run import rng_for
from common.run.cli import BadInput, launch, require_range
from common.run.files import write_file
from common.run.folder import is_of_a_run, settings_of

PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Config:
    """What to score, and how."""

    path: Path
    """A run's folder (its generator draws three sets of 10,000), an .npz with uint8 images [N, 28, 28], or a folder of
    grey 8-bit PNG or JPEG images of 28 x 28, or of such folders, one per class."""
    extractor: Literal["classifier", "imagenet", "inception"] = "classifier"
    """Whose features: this repository's classifier, EfficientNet-Lite0's of ImageNet, or Inception's for the standard
    FID, whose weights torch-fidelity fetches over the network."""
    seed: int = 0
    """Decides the noise of a run's generator."""
    csv: Path | None = None
    """Write the metrics to this file, too."""

    def __post_init__(self) -> None:
        require_range("--seed", self.seed, 0, 2**63 - 1, "a whole number")


def image_sets(config: Config) -> list[torch.Tensor]:
    """The sets of uint8 images [N, 1, 28, 28] to score: of 10,000 each, the rest left out; fewer are one set.

    Raises:
        BadInput: there is nothing at the path that can be scored.
    """
    path = config.path
    if settings_of(path).get("data"):
        raise BadInput(f"{path}: a run on other images (--data); what is measured here is for Fashion-MNIST")
    if stored := generator_in(path):
        generator = load_generator(stored)
        seeds = range(distances.SEEDS)
        return [
            draw(generator, torch.randn(distances.N_SAMPLES, generator.latent_dim, generator=rng))
            for rng in (rng_for(config.seed, "evaluate", i) for i in seeds)
        ]
    if is_of_a_run(path):
        raise BadInput(f"{path}: a run without generator.pt; finish it, or name a run of question 4")
    if path.name in (WHOLE, HALF):
        raise BadInput(f"{path}: name the run's folder, {path.parent}, instead of the file in it")
    if path.is_file():
        images = images_of_npz(path)
    elif path.is_dir():
        images = images_of_folder(path)
    else:
        raise BadInput(f"{path}: is not there; name a run's folder, an .npz file or a folder of PNG images")
    if len(images) < distances.FEWEST:
        raise BadInput(f"{path}: {len(images)} images are too few to score; 10,000 are wanted")
    sets = images.split(distances.N_SAMPLES)
    return [s for s in sets if len(s) == distances.N_SAMPLES] or [images]


def images_of_npz(path: Path) -> torch.Tensor:
    """The only array of an .npz file, or the one called `images`, as uint8 [N, 1, 28, 28]."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            names = stored.files
            if len(names) > 1 and "images" not in names and path.suffix == ".npz":
                raise BadInput(f"{path}: holds the arrays {', '.join(names)}; name the one to score 'images'")
            images = np.asarray(stored["images" if len(names) > 1 else names[0]])
    except BadInput:
        raise
    except Exception:  # np.load raises many kinds for a damaged or another file
        raise BadInput(f"{path}: not an .npz file with one array, or one called images; see --help") from None
    if images.dtype != np.uint8 or images.shape[1:] not in ((28, 28), (1, 28, 28), (28, 28, 1)):
        found = f"{images.dtype} {list(images.shape)}"
        raise BadInput(f"{path}: holds {found}; store uint8 images [N, 28, 28] with values from 0 to 255")
    return torch.from_numpy(images.reshape(-1, 1, 28, 28))


def images_of_folder(path: Path) -> torch.Tensor:
    """The PNG and JPEG images of a folder and of its folders (one per class, say), as uint8 [N, 1, 28, 28].

    Those of its folders are shuffled by a fixed seed, so that each set of 10,000 holds every class.
    """
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in PICTURES)
    if not files:
        files = sorted(file for file in path.glob("*/*") if file.suffix.lower() in PICTURES)
        files = [files[i] for i in torch.randperm(len(files), generator=torch.Generator().manual_seed(0))]
    if not files:
        raise BadInput(f"{path}: holds neither generator.pt nor PNG or JPEG images; name another folder, see --help")
    return torch.from_numpy(np.stack([grey_pixels(file) for file in files])).unsqueeze(1)


def grey_pixels(file: Path) -> np.ndarray:
    """One picture as uint8 [28, 28]: grey, opaque and of 8 bits, in whichever of the format's ways it is stored.

    Raises:
        BadInput: it is not; nothing is guessed about colours or transparency, which would change the score.
    """
    if not file.is_file():
        raise BadInput(f"{file}: not a regular file; remove or replace it")
    try:
        with warnings.catch_warnings(), Image.open(file, formats=("PNG", "JPEG")) as picture:
            warnings.simplefilter("ignore")  # ours is the one line
            size, mode = picture.size, picture.mode
            pixels = np.array(picture.convert("RGBA")) if size == (28, 28) and mode[0] not in "IF" else None
    except Exception as fault:  # Pillow raises many kinds for a damaged file
        raise BadInput(f"{file}: not a PNG or JPEG image ({type(fault).__name__}); remove or replace it") from None
    if size != (28, 28):
        raise BadInput(f"{file}: is {size[0]} x {size[1]} pixels; scale the images to 28 x 28")
    if pixels is None:
        raise BadInput(f"{file}: has more than 8 bits per pixel; store grey values from 0 to 255")
    if (pixels[..., 3] != 255).any():
        raise BadInput(f"{file}: is partly transparent; store opaque grey images")
    if (pixels[..., :3] != pixels[..., :1]).any():
        raise BadInput(f"{file}: has colours; store grey images")
    return pixels[..., 0]


def main(config: Config) -> None:
    """Score the images and print the metrics."""
    table = config.csv
    if table and (table.is_dir() or not table.parent.is_dir() or not os.access(table.parent, os.W_OK)):
        raise BadInput(f"--csv {table}: cannot be written; name a file in a folder that is there and writable")
    sets = image_sets(config)
    number = f"{len(sets)} x {len(sets[0]):,} images"
    if len(sets[0]) < distances.N_SAMPLES:
        number += " (the Fréchet distance is too large for fewer than 10,000)"
    if config.extractor == "inception":
        found = distances.with_spread([distances.score_inception(images) for images in sets])
    else:
        found = distances.with_spread([distances.score(images, extractor=config.extractor) for images in sets])
    print(f"{config.path}: {number}, {config.extractor} features")
    for name, value in found.items():
        if not name.endswith("_std"):
            spread = found.get(f"{name}_std", float("nan"))
            print(f"{name:>18} {value:9.4f}" + (f" ± {spread:.4f}" if spread == spread else ""))
    called = copies.training_images().find(torch.cat(sets)).copied.double().mean()
    print(f"copies of training images {called:.4f} (false alarms on test images {copies.false_alarms():.4f})")
    found["copies_of_training_images"] = float(called)
    if table:
        write_file(table, pd.DataFrame([found]).to_csv(index=False, float_format="%.7g").encode())


if __name__ == "__main__":
    launch(Config, main, __doc__)
