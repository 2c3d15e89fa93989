"""Speed of an epoch of VAE training beside the textbook loop, on the same network and the same number of images.

Textbook: torchvision's data set with `ToTensor` behind a `DataLoader`, Adam's default loop, `.item()` at every step.
Ours: images in memory, batches as index slices, fused Adam, cross-entropy on logits, losses read once an epoch. The
networks: the textbook's own (784-400-20, cross-entropy, batch 128) and that of q3_vae_svm.py. Both sides alternate in
one process; the median of the ratios counts.

    python benchmarks/vae_epoch.py
    python benchmarks/vae_epoch.py --repeats 2

The last line is JSON.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.data import RAW, load_fashion_mnist, to_unit_range, torchvision_datasets
from common.losses import kl_to_standard_normal, reparameterize
from common.run.batches import batch_indices
from common.run.cli import launch, require_range
from common.vae.network import VAE
from q3_vae_svm import Config as Q3
from q3_vae_svm import negative_elbo

BATCH = 128


@dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    repeats: int = 5
    """Timed epochs of each side; the median counts."""

    def __post_init__(self) -> None:
        require_range("--repeats", self.repeats, 1, 1000, "a whole number")


class TextbookVAE(nn.Module):
    """784-400-20-400-784 with ReLU and sigmoid, the network of most tutorials; cross-entropy on grey pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def loss(self, x: torch.Tensor, on_logits: bool) -> torch.Tensor:
        """Mean over the batch x [B, 1, 28, 28]; `on_logits` is the same number without a sigmoid and its logarithm."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        logits, target = self.decoder(reparameterize(mean, log_variance, torch.randn_like(mean))), x.flatten(1)
        if on_logits:
            cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        else:
            cross_entropy = nn.functional.binary_cross_entropy(logits.sigmoid(), target, reduction="sum")
        return cross_entropy / len(x) + kl_to_standard_normal(mean, log_variance).mean()


class ScriptVAE(VAE):
    """The network and objective of q3_vae_svm.py."""

    def __init__(self) -> None:
        super().__init__(Q3().latent_dim, Q3().width)

    def loss(self, x: torch.Tensor, on_logits: bool) -> torch.Tensor:
        """Negative ELBO of a batch x [B, 1, 28, 28]; its Gaussian likelihood has no logits."""
        return negative_elbo(self, x, torch.randn(len(x), Q3().latent_dim), Q3().sigma)["negative_elbo"]


def textbook_epoch(vae: nn.Module, loader: torch.utils.data.DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """One epoch the textbook way; returns the mean loss."""
    total = 0.0
    for x, _ in loader:
        optimizer.zero_grad()
        loss = vae.loss(x, on_logits=False)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def fast_epoch(vae: nn.Module, images: torch.Tensor, optimizer: torch.optim.Optimizer, epoch: int) -> float:
    """One epoch as the script does it; returns the mean loss."""
    steps = -(-len(images) // BATCH)
    batches = batch_indices(len(images), BATCH, 0, epoch * steps)
    losses = []
    for _ in range(steps):
        x = to_unit_range(images[next(batches)]).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss = vae.loss(x, on_logits=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def timed(action: Callable[[], float]) -> tuple[float, float]:
    """Seconds and value of a call."""
    start = time.perf_counter()
    value = action()
    return time.perf_counter() - start, value


def textbook_loader(folder: str) -> torch.utils.data.DataLoader:
    """torchvision's data set behind a `DataLoader`; it unpacks the archives into `folder` as it always does."""
    raw = Path(folder) / "FashionMNIST" / "raw"
    shutil.copytree(RAW, raw)
    datasets = torchvision_datasets()
    from torchvision.transforms import ToTensor

    data_set = datasets.FashionMNIST(folder, train=True, transform=ToTensor(), download=True)
    return torch.utils.data.DataLoader(data_set, batch_size=BATCH, shuffle=True)


def main(config: Config) -> None:
    """Measure both networks; print a table and a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        loader = textbook_loader(folder)
    images = load_fashion_mnist("train").images
    result: dict[str, float | int] = {"threads": torch.get_num_threads(), "images": len(images)}
    for name, network in (("textbook_network", TextbookVAE), ("script_network", ScriptVAE)):
        torch.manual_seed(0)
        slow_vae, fast_vae = network(), network().to(memory_format=torch.channels_last)
        slow = torch.optim.Adam(slow_vae.parameters(), lr=1e-3)
        fast = torch.optim.Adam(fast_vae.parameters(), lr=1e-3, fused=True)
        times = []
        for epoch in range(config.repeats):
            a, slow_loss = timed(lambda vae=slow_vae, o=slow: textbook_epoch(vae, loader, o))
            b, fast_loss = timed(lambda vae=fast_vae, o=fast, e=epoch: fast_epoch(vae, images, o, e))
            times.append((a, b))
            print(
                f"{name} epoch {epoch + 1}: textbook {a:.2f} s, loss {slow_loss:.2f}; ours {b:.2f} s, {fast_loss:.2f}"
            )
        ratios = [a / b for a, b in times]
        result |= {
            f"{name}_textbook_s": round(statistics.median(a for a, _ in times), 2),
            f"{name}_s": round(statistics.median(b for _, b in times), 2),
            f"{name}_ratio": round(statistics.median(ratios), 2),
            f"{name}_ratio_min": round(min(ratios), 2),
            f"{name}_ratio_max": round(max(ratios), 2),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    launch(Config, main, __doc__)
