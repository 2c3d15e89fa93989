"""Generator and discriminator in the plane: networks small enough to look inside, several seeds side by side."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Layers(nn.Module):
    """`depth` hidden layers of `width`, slope `leak` below 0, for S seeds at once: [S, n, inputs] -> [S, n, outputs].

    No number of one seed meets one of another, so the sum of the seeds' losses trains each as if it were alone.

    Args:
        rngs: draw the weights, one a seed: N(0, 1/fan-in) as in GAN Lab, biases zero.
    """

    def __init__(
        self, inputs: int, width: int, depth: int, outputs: int, leak: float, rngs: Sequence[torch.Generator]
    ) -> None:
        super().__init__()
        self.leak = leak
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise([inputs, *[width] * depth, outputs]):
            drawn = [torch.empty(fan_out, fan_in).normal_(std=fan_in**-0.5, generator=rng) for rng in rngs]
            self.weights.append(nn.Parameter(torch.stack(drawn).mT.contiguous()))  # [S, fan_in, fan_out]
            self.biases.append(nn.Parameter(torch.zeros(len(rngs), 1, fan_out)))

    def forward(self, x: Tensor) -> Tensor:
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, torch.nn.functional.leaky_relu(x, self.leak) if index else x, weight)
        return x


class Generator(nn.Module):
    """Noise [S, n, noise_dim] -> points in the plane [S, n, 2].

    Args:
        noise_dim: number of noise coordinates.
        width, depth: units of a hidden layer and number of hidden layers.
        centred: whether the last layer is in units of a quarter about the middle of the unit square; otherwise it ends
            in tanh as in GAN Lab.
        rngs: draw the weights, one a seed.
    """

    def __init__(self, noise_dim: int, width: int, depth: int, centred: bool, rngs: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.centred = centred
        self.layers = Layers(noise_dim, width, depth, 2, 0.0, rngs)

    def forward(self, z: Tensor) -> Tensor:
        y = self.layers(z)
        return 0.5 + y / 4 if self.centred else y.tanh()


class Discriminator(nn.Module):
    """Points [S, n, 2] -> scores [S, n], any real number; arguments as for `Generator`, and the slope `leak`.

    With `centred` the network sees 4 (x - 1/2), which has about unit variance, otherwise x itself.
    """

    def __init__(self, width: int, depth: int, leak: float, centred: bool, rngs: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.centred = centred
        self.layers = Layers(2, width, depth, 1, leak, rngs)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(4 * (x - 0.5) if self.centred else x).squeeze(2)
