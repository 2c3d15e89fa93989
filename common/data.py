"""Fashion-MNIST in memory: read and verified on every load, one uint8 tensor, batches as index slices.

Source of the data: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747; MIT licence, Zalando SE.
Nothing is ever unpacked to disk, so no later run can trust a half-written file.
"""

import gzip
import hashlib
import io
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from common.run.cli import BadInput
from common.run.files import read_file, write_file
from common.run.rng import rng_for

RAW = Path(__file__).resolve().parent.parent / "data" / "FashionMNIST" / "raw"
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MD5 = {  # of the archives, for the download
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
SHA256 = {  # of what is in them, however it was compressed
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 60_000 * 784 + 16  # bytes of an unpacked archive
PREFIX = {"train": "train", "test": "t10k"}
VALIDATION_PER_CLASS, VALIDATION_SEED = 1000, 2026


@dataclass(frozen=True)
class Split:
    """One part of the data set: `images` uint8 [N, 1, 28, 28] with values 0-255, `labels` int64 [N] with values 0-9."""

    images: torch.Tensor
    labels: torch.Tensor


def load_fashion_mnist(split: str, device: torch.device | str = "cpu", raw: Path = RAW) -> Split:
    """Read images and labels, in the order of the archives.

    Args:
        split: "train" (60,000) or "test" (10,000); "validation" (1,000 training images of each class, always the same)
            or "fit" (the other 50,000), for choices, which must not touch the test images.
        device: where the tensors live.
        raw: folder of the four archives; a missing one is fetched into it by torchvision's downloader.

    Raises:
        BadInput: an archive is altered, cannot be fetched or cannot be stored; names the file and the remedy.
    """
    if split in ("fit", "validation"):
        whole = load_fashion_mnist("train", device, raw)
        chosen = validation_indices(whole.labels.cpu())
        inside = torch.zeros(len(whole.labels), dtype=torch.bool)
        inside[chosen] = True
        part = (inside if split == "validation" else ~inside).to(device)
        return Split(whole.images[part], whole.labels[part])
    images = np.frombuffer(_read(raw / f"{PREFIX[split]}-images-idx3-ubyte.gz"), np.uint8, offset=16)
    labels = np.frombuffer(_read(raw / f"{PREFIX[split]}-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    return Split(
        torch.tensor(images.reshape(-1, 1, 28, 28), device=device),
        torch.tensor(labels.astype(np.int64), device=device),
    )


def validation_indices(labels: torch.Tensor) -> torch.Tensor:
    """The indices of the validation images among the training images: a function of their labels, int64 [10,000]."""
    rng = rng_for(VALIDATION_SEED, "validation", 0)
    return draw_labelled(labels, 10 * VALIDATION_PER_CLASS, rng).sort().values


def _read(path: Path) -> bytes:
    """The unpacked content of one archive, its checksum verified."""
    try:
        packed = read_file(path) if path.exists() else _fetch(path)
    except OSError as fault:
        raise BadInput(f"{path}: cannot be read ({fault.strerror or fault}); check the file and its rights") from None
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(LARGEST + 1)
    except (OSError, EOFError, zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        raise BadInput(
            f"{path}: truncated or altered (the SHA-256 sum of its content is not {SHA256[path.name][:16]}...); "
            "delete it and it is fetched again, or restore it with git checkout"
        )
    return content


def _fetch(path: Path) -> bytes:
    """Download one archive beside its place, verify it, move it there whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
            content = _download(path.name, Path(folder))
        write_file(path, content)
        return content
    except PermissionError:
        raise BadInput(
            f"{path}: missing, and {path.parent} is not writable; make it so or put the file there"
        ) from None
    except (OSError, RuntimeError) as fault:
        reason = " ".join(str(fault).split())
        raise BadInput(f"{path}: missing and not fetched ({reason}); connect to the network or put it there") from None


def _download(name: str, folder: Path) -> bytes:
    """Fetch one archive with torchvision; a RuntimeError where every mirror fails."""
    datasets = torchvision_datasets()
    fault: Exception = RuntimeError("no mirror")
    for mirror in datasets.FashionMNIST.mirrors:
        try:
            datasets.utils.download_url(mirror + name, str(folder), filename=name, md5=MD5[name])
            return (folder / name).read_bytes()
        except (OSError, RuntimeError) as failed:
            fault = failed
    raise fault


def torchvision_datasets() -> ModuleType:
    """The module `torchvision.datasets`, imported only where it is needed: to download, and in the benchmarks.

    A torchvision built for CUDA beside a torch built for the CPU lacks its compiled operators, and its import stops
    where it registers their shapes. Nothing here calls them, so declaring them is enough.
    """
    try:
        import torchvision.datasets
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets
    return torchvision.datasets


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Pixels as float32 in [0, 1]; uint8 0-255 in. Generators and decoders write the same range."""
    return images.float() / 255


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1], cut off where they are not, as uint8 0-255: the inverse of `to_unit_range`."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def draw_offsets(n: int, rng: torch.Generator, max_shift: int) -> torch.Tensor:
    """Independent offsets up and left of `n` images, each uniform on -max_shift ... max_shift: int64 [2, n]."""
    return torch.randint(-max_shift, max_shift + 1, (2, n), generator=rng, device=rng.device)


class _Translate(torch.autograd.Function):
    """`translate` with its gradient: what comes in is moved back by the same offsets."""

    @staticmethod
    def forward(ctx, images: torch.Tensor, offsets: torch.Tensor, max_shift: int) -> torch.Tensor:
        ctx.save_for_backward(offsets)
        ctx.max_shift = max_shift
        return _moved(images, offsets, max_shift)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (offsets,) = ctx.saved_tensors
        return _Translate.apply(gradient, -offsets, ctx.max_shift), None, None


def _moved(images: torch.Tensor, offsets: torch.Tensor, max_shift: int) -> torch.Tensor:
    """The window of each padded image [B, 1, H, W] that begins `offsets` [2, B] after its middle one."""
    b, _, h, w = images.shape
    padded = torch.nn.functional.pad(images, (max_shift,) * 4)
    windows = padded.squeeze(1).unfold(1, h, 1).unfold(2, w, 1)  # [B, 2r+1, 2r+1, H, W], a view
    down, right = offsets + max_shift
    return windows[torch.arange(b, device=images.device), down, right].unsqueeze(1)


def translate(images: torch.Tensor, offsets: torch.Tensor, max_shift: int) -> torch.Tensor:
    """Move every image by its offsets, zeros coming in; differentiable as often as needed.

    Args:
        images: [B, 1, H, W], any type.
        offsets: pixels up and left, from `draw_offsets`, int64 [2, B], at most `max_shift` in size.

    Returns:
        the same shape and type.
    """
    return _Translate.apply(images, offsets, max_shift)


def shift(images: torch.Tensor, rng: torch.Generator, max_shift: int = 2) -> torch.Tensor:
    """`translate` with offsets drawn for each image [B, 1, H, W], any type, of up to `max_shift` pixels each way."""
    return translate(images, draw_offsets(len(images), rng, max_shift), max_shift)


def draw_labelled(labels: torch.Tensor, n_labels: int, generator: torch.Generator) -> torch.Tensor:
    """Indices of a random labelled subset with equally many images of each class.

    Args:
        labels: int64 [N] with values 0-9.
        n_labels: size of the subset, a multiple of ten; at most ten times the rarest class.

    Returns:
        int64 [n_labels], grouped by class, without repetition.
    """
    per_class = n_labels // 10
    chosen = []
    for label in range(10):
        members = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator, device=labels.device)
        chosen.append(members[order[:per_class]])
    return torch.cat(chosen)
