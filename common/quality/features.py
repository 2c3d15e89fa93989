"""Features of N images, and what the distances need of them."""

import functools
from dataclasses import dataclass

import torch

NEIGHBOUR = 3  # whose distance is an image's reach


@dataclass(frozen=True)
class Features:
    """What a network sees in N images: float64 [N, d]."""

    features: torch.Tensor

    @functools.cached_property
    def reach(self) -> torch.Tensor:
        """The distance of each image to its third nearest neighbour, [N]; the nearest of all is itself."""
        x = self.features.float()
        nearest = [torch.cdist(part, x).topk(NEIGHBOUR + 1, largest=False).values[:, -1] for part in x.split(1000)]
        return torch.cat(nearest)

    @functools.cached_property
    def mean_kernel(self) -> float:
        """The mean of the kernel of KID over all pairs of different images."""
        n, d = self.features.shape
        with_itself = float((self.features.square().sum(1) / d + 1).pow(3).sum())
        return (kernel_sum(self.features, self.features) - with_itself) / (n * (n - 1))


def kernel_sum(x: torch.Tensor, y: torch.Tensor) -> float:
    """The sum of (x_i . y_j / d + 1)^3 over all pairs of features [N, d] and [M, d], in float32, blocks in float64."""
    x, y = x.float() / x.shape[1], y.float()
    blocks = (torch.addmm(x.new_ones(()), part, y.T) for part in x.split(500))
    return float(sum((k * k).mul_(k).sum(1).double().sum() for k in blocks))
