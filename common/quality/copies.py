"""Which images are copies of training images: exact, shifted by up to two pixels, mirrored, slightly blurred or noisy.

A copy is far nearer to its source than to any other training image; an honest image, sharp or smooth, is about as near
to several. The statistic is the ratio of the distances to the nearest and to the fifth nearest training image, related
to the ratio of Lowe 2004 (doi 10.1023/B:VISI.0000029664.99615.94) and to the authenticity of Alaa et al. 2022 (arXiv
2102.08921). Distances are between lightly blurred pixels, the least over shifts and mirroring, of the window that every
shift leaves inside. Candidates for them come from a descriptor that neither a shift nor mirroring changes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from scipy.stats import binomtest

from common.data import load_fashion_mnist, to_unit_range

MAX_SHIFT, CANDIDATES, AT_ONCE, NEIGHBOUR = 2, 100, 250, 5
INSIDE = 28 - 2 * MAX_SHIFT  # pixels of the window's side
DARK = 0.1  # what is darker counts as black: noise on black is cut off at 0 and would leave a haze
BLUR = 0.7  # standard deviation of the Gaussian [pixels], which damps noise and what a blur takes away
FREQUENCIES = 9  # lowest frequencies of each direction in the descriptor
# A ratio below this is a copy. The 0.5 % quantile of the validation images against the other training images.
THRESHOLD = 0.458


class Found(NamedTuple):
    """Of N images: the ratio, float32 [N], small for copies, and the index of the nearest training image, int64 [N]."""

    ratio: torch.Tensor
    nearest: torch.Tensor

    @property
    def copied(self) -> torch.Tensor:
        """Which are called copies, bool [N]."""
        return self.ratio < THRESHOLD


def softened(images: torch.Tensor) -> torch.Tensor:
    """uint8 images [N, 1, 28, 28] -> float32 [N, 28, 28], without dark pixels, convolved with a Gaussian."""
    offsets = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-offsets.square() / (2 * BLUR**2))
    kernel = kernel / kernel.sum()
    x = (to_unit_range(images) - DARK).clamp_min(0)
    for weight, padding in ((kernel.view(1, 1, 5, 1), (2, 0)), (kernel.view(1, 1, 1, 5), (0, 2))):
        x = torch.nn.functional.conv2d(x, weight, padding=padding)
    return x.squeeze(1)


def descriptor(x: torch.Tensor) -> torch.Tensor:
    """Moduli of the lowest frequencies of images [N, 28, 28], of each and its mirror image together: [N, 153].

    With zeros around the image a shift changes phases alone, but for what it moves out.
    """
    k = FREQUENCIES
    power = torch.fft.fft2(x, s=(32, 32)).abs().square()
    rows = torch.cat([power[:, :k], power[:, -k + 1 :]], 1)  # [N, 2k - 1, 32]
    both = rows[..., :k] + torch.cat([rows[..., :1], rows[..., -k + 1 :].flip(2)], 2)
    return both.sqrt().flatten(1)


def windows(x: torch.Tensor) -> torch.Tensor:
    """Every window of images [B, 28, 28] that a shift may bring to the middle, [B, (2 MAX_SHIFT + 1)^2, INSIDE^2]."""
    return x.unfold(1, INSIDE, 1).unfold(2, INSIDE, 1).flatten(1, 2).flatten(2)


class Sources:
    """Images uint8 [N, 1, 28, 28] that others may be copies of, prepared to be searched."""

    def __init__(self, images: torch.Tensor) -> None:
        x = torch.cat([softened(part) for part in images.split(5000)])
        self.descriptors = torch.cat([descriptor(part) for part in x.split(5000)])
        self.squares = self.descriptors.square().sum(1)
        self.inside = x[:, MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT].flatten(1).contiguous()  # [N, INSIDE^2]

    def find(self, images: torch.Tensor, pace: Callable[[], object] = lambda: None) -> Found:
        """Compare images uint8 [M, 1, 28, 28] with the sources; `pace` is called now and then and may stop the work."""
        found = []
        for part in images.cpu().split(AT_ONCE):
            pace()
            found.append(self._find(part))
        return Found(*map(torch.cat, zip(*found, strict=True)))

    def _find(self, images: torch.Tensor) -> Found:
        x = softened(images)
        apart = torch.addmm(self.squares, descriptor(x), self.descriptors.T, alpha=-2)  # squares but for a constant
        candidates = apart.topk(CANDIDATES, largest=False).indices  # [B, K]
        views = torch.cat([windows(x), windows(x.flip(2))], 1)  # [B, V, INSIDE^2]
        theirs = self.inside[candidates]  # [B, K, INSIDE^2]
        squares = theirs.square().sum(2).unsqueeze(1) - 2 * views @ theirs.mT + views.square().sum(2).unsqueeze(2)
        least = squares.amin(1).clamp_min(0).sqrt().topk(NEIGHBOUR, largest=False)  # of each candidate, then [B, 5]
        nearest = candidates.gather(1, least.indices[:, :1]).squeeze(1)
        return Found(least.values[:, 0] / least.values[:, -1].clamp_min(1e-9), nearest)


@functools.cache
def training_images() -> Sources:
    """All training images; prepared once in a process (about 15 s)."""
    return Sources(load_fashion_mnist("train").images)


@functools.cache
def false_alarms() -> float:
    """The fraction of the test images, none of which is a copy, that are called copies."""
    return float(training_images().find(load_fashion_mnist("test").images).copied.double().mean())


def table(found: dict[str, Found]) -> pd.DataFrame:
    """A row for each set of images: how many, the fraction called copies with its 95 % interval, the median ratio."""
    rows = []
    for name, (ratio, _) in found.items():
        called, n = int((ratio < THRESHOLD).sum()), len(ratio)
        low, high = binomtest(called, n).proportion_ci()
        row = {"images": name, "n": n, "called_copies": called / n, "low": low, "high": high}
        rows.append({**row, "median_ratio": float(ratio.median())})
    return pd.DataFrame(rows)
