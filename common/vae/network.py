"""The network of question 3: a convolutional variational autoencoder for 28 x 28 grey images."""

from functools import partial
from typing import Any

import torch
from torch import nn

from common.run.distributed import BatchNorm1d, BatchNorm2d
from common.run.memory import KEPT, parameters


class VAE(nn.Module):
    """Convolutional variational autoencoder, Kingma and Welling 2014 (arXiv 1312.6114), Gaussian posterior.

    Args:
        latent_dim: dimensions of z.
        width: channels of the first layer; the next two have twice and four times as many.
    """

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__()
        w, n = width, 4 * width * 16

        def down(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), BatchNorm2d(outputs), nn.SiLU()]

        def up(inputs: int, outputs: int, extra: int) -> list[nn.Module]:
            convolution = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=extra, bias=False)
            return [convolution, BatchNorm2d(outputs), nn.SiLU()]

        self.encoder = nn.Sequential(
            *down(1, w),  # [B, w, 14, 14]
            *down(w, 2 * w),  # [B, 2w, 7, 7]
            *down(2 * w, 4 * w),  # [B, 4w, 4, 4]
            nn.Flatten(),
            nn.Linear(n, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, n, bias=False),
            BatchNorm1d(n),
            nn.SiLU(),
            nn.Unflatten(1, (4 * w, 4, 4)),
            *up(4 * w, 2 * w, 0),  # [B, 2w, 7, 7]
            *up(2 * w, w, 1),  # [B, w, 14, 14]
            nn.ConvTranspose2d(w, 1, 3, 2, 1, output_padding=1),  # [B, 1, 28, 28]
            nn.Sigmoid(),
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log variance of q(z|x), each [B, latent_dim], for x [B, 1, 28, 28] in [0, 1]."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Mean of p(x|z), [B, 1, 28, 28] in [0, 1], for z [B, latent_dim]."""
        return self.decoder(z)


def training_bytes(config: Any) -> float:
    """Memory [bytes] of weights and of a training step: an estimate, measured within 30 % on the CPU."""
    weights = parameters(partial(VAE, config.latent_dim, config.width))
    return 4.0 * KEPT * weights + config.batch_size * (67e3 + 8.8e3 * config.width)
