"""Own images in the place of Fashion-MNIST: four archives in MNIST's format (MNIST, KMNIST, EMNIST digits) in a folder.

The archives are `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz` and the same with `t10k` or `test`, whatever
comes before; images of 28 x 28, ten classes. Beside them `classes.txt` may name the classes, one in a line.
Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from common.data import CLASSES, Split, load_fashion_mnist
from common.run.cli import BadInput
from common.run.files import read_file

NAMES = {"train": ("train",), "test": ("t10k", "test")}
NOT_MEASURED = "sample quality and copies are measured for Fashion-MNIST alone and are left out"


def load(split: str, device: torch.device | str = "cpu", folder: str = "") -> Split:
    """A split of Fashion-MNIST, or "train" or "test" of the archives in a folder, which are checked.

    Raises:
        BadInput: an archive is missing, damaged, of another format, or does not fit the others; names the file.
    """
    if not folder:
        return load_fashion_mnist(split, device)
    images_path, labels_path = (archive(folder, split, kind) for kind in ("images-idx3", "labels-idx1"))
    images, labels = _read(images_path, 3), _read(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise BadInput(f"{images_path}: has images of {images.shape[1]} x {images.shape[2]} pixels; 28 x 28 are needed")
    if len(images) != len(labels):
        raise BadInput(f"{labels_path}: has {len(labels):,} labels for {len(images):,} images")
    counts = np.bincount(labels, minlength=10)
    if len(counts) > 10 or counts.min() < 10:
        raise BadInput(f"{labels_path}: needs the classes 0 to 9, each at least ten times, and no other")
    return Split(
        torch.tensor(images[:, None], device=device),
        torch.tensor(labels.astype(np.int64), device=device),
    )


def archive(folder: str, split: str, kind: str) -> Path:
    """The one archive of a folder with the images or the labels of a split.

    Args:
        split: "train" or "test".
        kind: "images-idx3" or "labels-idx1".

    Raises:
        BadInput: there is none, or more than one.
    """
    found = [path for name in NAMES[split] for path in sorted(Path(folder).glob(f"*{name}-{kind}-ubyte.gz"))]
    if len(found) != 1:
        wanted = " or ".join(f"{name}-{kind}-ubyte.gz" for name in NAMES[split])
        raise BadInput(f"--data {folder}: one file {wanted} is needed, {len(found) or 'none'} found")
    return found[0]


def check(folder: str) -> None:
    """Raise `BadInput` where a folder is named that has not all four archives, or not ten names.

    Args:
        folder: the value of `--data`; nothing stands for Fashion-MNIST.
    """
    if folder:
        for split in NAMES:
            for kind in ("images-idx3", "labels-idx1"):
                archive(folder, split, kind)
        classes(folder)


def classes(folder: str = "") -> tuple[str, ...]:
    """The names of the ten classes: Fashion-MNIST's, or those of `classes.txt` in the folder, or the digits.

    Raises:
        BadInput: `classes.txt` cannot be read, or has not ten lines.
    """
    if not folder:
        return CLASSES
    path = Path(folder) / "classes.txt"
    if not path.exists():
        return tuple("0123456789")
    try:
        names = tuple(line.strip() for line in read_file(path).decode().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError):
        names = ()
    if len(names) != 10:
        raise BadInput(f"{path}: needs ten lines, the name of a class in each")
    return names


def _read(path: Path, dimensions: int) -> np.ndarray:
    """The array in an archive: uint8, its shape as the head of the file says."""
    try:
        content = gzip.decompress(read_file(path))
    except (OSError, EOFError, zlib.error):
        raise BadInput(f"{path}: cannot be read or is damaged; fetch it again") from None
    head = np.frombuffer(content[: 4 * (dimensions + 1)], ">u4").tolist()
    values = np.frombuffer(content, np.uint8, offset=min(len(content), 4 * (dimensions + 1)))
    if len(head) != dimensions + 1 or head[0] != 0x800 + dimensions or np.prod(head[1:], dtype=object) != len(values):
        raise BadInput(f"{path}: is not an archive of MNIST's format, or not whole")
    return values.reshape(head[1:])
