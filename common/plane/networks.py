"""Generator and discriminator in the plane: networks small enough to look inside."""

import itertools

import torch
from torch import Tensor, nn


def _mlp(inputs: int, width: int, depth: int, outputs: int, leak: float, rng: torch.Generator) -> nn.Sequential:
    """`depth` hidden layers of `width`: ReLU, slope `leak` below 0; weights N(0, 1/fan-in) as GAN Lab, biases zero."""
    sizes = [inputs, *[width] * depth, outputs]
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.normal_(linear.weight, std=fan_in**-0.5, generator=rng)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(leak)]
    return nn.Sequential(*layers[:-1])


class Generator(nn.Module):
    """Noise [n, noise_dim] -> points in the plane [n, 2].

    Args:
        noise_dim: number of noise coordinates.
        width, depth: units of a hidden layer and number of hidden layers.
        centred: whether the last layer is in units of a quarter about the middle of the unit square; otherwise it ends
            in tanh as in GAN Lab.
        rng: draws the weights.
    """

    def __init__(self, noise_dim: int, width: int, depth: int, centred: bool, rng: torch.Generator) -> None:
        super().__init__()
        self.centred = centred
        self.layers = _mlp(noise_dim, width, depth, 2, 0.0, rng)

    def forward(self, z: Tensor) -> Tensor:
        y = self.layers(z)
        return 0.5 + y / 4 if self.centred else y.tanh()


class Discriminator(nn.Module):
    """Points [n, 2] -> scores [n], any real number; arguments as for `Generator`, and the slope `leak`.

    With `centred` the network sees 4 (x - 1/2), which has about unit variance, otherwise x itself.
    """

    def __init__(self, width: int, depth: int, leak: float, centred: bool, rng: torch.Generator) -> None:
        super().__init__()
        self.centred = centred
        self.layers = _mlp(2, width, depth, 1, leak, rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(4 * (x - 0.5) if self.centred else x).squeeze(1)
