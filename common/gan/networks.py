"""Networks for 28 x 28 grey images: the VAE of question 3, generator and critic of question 4."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import conv2d, leaky_relu_, linear, relu_

from common.gan.convolutions import Convolve, Transpose
from common.run.device import place
from common.run.distributed import BatchNorm2d

SLOPE = 0.2  # of LeakyReLU below zero
PRECISIONS = {"float32": None, "tf32": None, "bfloat16": torch.bfloat16}  # of convolutions; None: that of the input


class ModulatedBatchNorm(nn.Module):
    """Batch norm whose scale and shift of every channel follow from the noise z: self-modulation, arXiv 1810.01365.

    Args:
        channels: of the layer.
        latent_dim: dimensions of z.
        hidden: units of the network with one ReLU layer that gives scale - 1 and shift.
    """

    def __init__(self, channels: int, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels, affine=False)
        self.network = nn.Sequential(nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, 2 * channels))

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W], z [B, latent_dim] -> [B, C, H, W]."""
        scale, shift = self.network(z)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class Generator(nn.Module):
    """Images from noise: the generator of the MNIST experiment of arXiv 1704.00028, output in [0, 1].

    Args:
        width: channels of the last inner layer at 14 x 14; 64 in the paper's code.
        latent_dim: dimensions of the noise z; 128 in the paper's code.
        batch_norm: after every inner layer, as DCGAN asks (arXiv 1511.06434); the paper's WGAN-GP has none here.
        detail: channels of one more inner layer, at 28 x 28, before a last convolution 3 x 3 of stride 1; 0 in the
            paper's code, where the layer that doubles the image to 28 x 28 is the last.
        modulation: hidden units of `ModulatedBatchNorm` in place of batch norm; 0 is batch norm as it is.

    In training mode convolutions compute in `precision`, where that is not None; weights keep theirs.
    """

    precision: torch.dtype | None = None

    def __init__(self, width: int, latent_dim: int, batch_norm: bool, detail: int = 0, modulation: int = 0) -> None:
        super().__init__()
        self.latent_dim, w = latent_dim, width
        self.shape = {"width": width, "latent_dim": latent_dim, "batch_norm": batch_norm}
        self.shape |= {"detail": detail, "modulation": modulation}

        def inner(channels: int) -> list[nn.Module]:
            if not batch_norm:
                return [nn.ReLU()]
            modulated = ModulatedBatchNorm(channels, latent_dim, modulation) if modulation else BatchNorm2d(channels)
            return [modulated, nn.ReLU()]

        last = [*inner(detail), nn.Conv2d(detail, 1, 3, 1, 1)] if detail else []
        # A kernel of 5 and stride 2; without output padding 4 x 4 becomes 7 x 7, which equals 8 x 8 cropped.
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 16 * 4 * w),
            nn.Unflatten(1, (4 * w, 4, 4)),
            *inner(4 * w),
            nn.ConvTranspose2d(4 * w, 2 * w, 5, 2, 2),  # [B, 2w, 7, 7]
            *inner(2 * w),
            nn.ConvTranspose2d(2 * w, w, 5, 2, 2, output_padding=1),  # [B, w, 14, 14]
            *inner(w),
            nn.ConvTranspose2d(w, detail or 1, 5, 2, 2, output_padding=1),  # [B, detail or 1, 28, 28]
            *last,  # [B, 1, 28, 28]
            nn.Sigmoid(),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """z [B, latent_dim] -> images [B, 1, 28, 28] in [0, 1]; each layer after the other, faster."""
        first, unflatten, *rest, sigmoid = self.layers
        dtype = computed_in(self, z)
        x = unflatten(first(z)).to(dtype, memory_format=torch.channels_last)
        for layer in rest:  # [B, 4w, 4, 4] to [B, 1, 28, 28]
            if isinstance(layer, nn.ConvTranspose2d):
                x = Transpose.apply(x, *weights(layer, dtype))
            elif isinstance(layer, nn.Conv2d):
                x = conv2d(x, *weights(layer, dtype), padding=layer.padding)
            elif isinstance(layer, ModulatedBatchNorm):
                x = layer(x, z)
            else:
                x = relu_(x) if isinstance(layer, nn.ReLU) else layer(x)
        return sigmoid(x.to(z.dtype))


class Critic(nn.Module):
    """A number for every image, unbounded: the critic of the MNIST experiment of arXiv 1704.00028.

    Args:
        width: channels of the first layer; 64 in the paper's code.
        batch_norm: in the inner layers but the first, for a DCGAN discriminator; a WGAN-GP critic must not have it,
            since its penalty is on the gradient at one image.

    In training mode convolutions compute in `precision`, where that is not None; weights keep theirs.
    """

    precision: torch.dtype | None = None

    def __init__(self, width: int, batch_norm: bool = False) -> None:
        super().__init__()
        w = width
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 5, 2, 2) for inputs, outputs in ((1, w), (w, 2 * w), (2 * w, 4 * w))
        )
        norms = (nn.Identity(), BatchNorm2d(2 * w), BatchNorm2d(4 * w))
        self.norms = nn.ModuleList(norms if batch_norm else (nn.Identity() for _ in range(3)))
        self.linear = nn.Linear(16 * 4 * w, 1)

    def forward(self, *batches: torch.Tensor) -> torch.Tensor:
        """x [B, 1, 28, 28] in [0, 1] -> [B]; a logit for a discriminator, a critic's value for WGAN-GP.

        Several batches of one size pass the convolutions together, which is faster, and batch norm one after another,
        so that each has its own statistics: the same as one call for each, joined.
        """
        x = torch.cat(batches)
        wide, dtype = x.dtype, computed_in(self, x)
        x = x.to(dtype)
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            # [B, w, 14, 14], [B, 2w, 7, 7], [B, 4w, 4, 4]
            x = Convolve.apply(x, *weights(layer, dtype))
            if isinstance(norm, nn.BatchNorm2d):
                x = torch.cat([norm(part) for part in x.chunk(len(batches))])
            x = leaky_relu_(x, SLOPE)
        flat = x.permute(0, 2, 3, 1).flatten(1).to(wide)
        return linear(flat, pixels_first(self.linear.weight), self.linear.bias).squeeze(1)


def computed_in(network: Generator | Critic, x: torch.Tensor) -> torch.dtype:
    """The number format of the network's convolutions for input x: its `precision` in training, otherwise that of x."""
    return network.precision if network.training and network.precision else x.dtype


def weights(layer: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias of a convolution in the number format that it computes in."""
    assert isinstance(layer.weight, torch.Tensor)
    assert isinstance(layer.bias, torch.Tensor)
    return layer.weight.to(dtype), layer.bias.to(dtype)


def pixels_first(weight: torch.Tensor) -> torch.Tensor:
    """The last layer's weights [1, 4w * 16] for values that lie channels-last in memory: [1, 16 * 4w]."""
    return weight.view(-1, 16).T.reshape(1, -1)


def channels_first(weight: torch.Tensor) -> torch.Tensor:
    """The inverse of `pixels_first`."""
    return weight.view(16, -1).T.reshape(1, -1)


def prepare(network: Generator | Critic, device: torch.device, precision: str) -> None:
    """Draw the weights and move the network to its device; `precision` is of training."""
    initialize(network)
    network.precision = PRECISIONS[precision]
    place(network, device)


@contextlib.contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norm in the network uses the statistics of the batch inside, and leaves its running ones as they are."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def initialize(network: nn.Module) -> None:
    """Draw weights as the code of arXiv 1704.00028 does; biases 0.

    Uniform with standard deviation sqrt(4 / (fan_in + fan_out)) for a convolution, where stride 2 divides the fan of
    its output (transposed: input) by 4, since that has a quarter of the positions, and sqrt(2 / (fan_in + fan_out)) for
    a linear layer. The last layer of what modulates a batch norm starts at 0.3 of that, so near a plain one.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            taps = layer.kernel_size[0] * layer.kernel_size[1]
            fans: list[float] = [layer.in_channels * taps, layer.out_channels * taps]
            fans[1 if isinstance(layer, nn.Conv2d) else 0] /= layer.stride[0] * layer.stride[1]
            bound = (3 * 4 / sum(fans)) ** 0.5
        elif isinstance(layer, nn.Linear):
            bound = (3 * 2 / (layer.in_features + layer.out_features)) ** 0.5
        else:
            continue
        nn.init.uniform_(layer.weight, -bound, bound)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, ModulatedBatchNorm):
                layer.network[-1].weight.mul_(0.3)  # type: ignore[operator,union-attr]
