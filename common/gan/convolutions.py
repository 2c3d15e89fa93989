"""The 5 x 5 convolution of stride 2 that halves an image, its adjoint and its weight gradient, fast on a processor.

All three are one trilinear form, sum of g * (W * x), with a different argument left out. Each is therefore the
derivative of the others, which makes every one differentiable as often as needed:

    convolve(x, W)         = W * x       [B, C_in, 28, 28] -> [B, C, 14, 14] -> [B, C, 7, 7] -> [B, C, 4, 4]
    transpose(g, W)        = W^T g       the way back
    weight_gradient(g, x)  = d/dW        [C, C_in, 5, 5]

A transposed layer of a generator is `transpose` itself. Two cases are written as matrix products, on the processor:

* one channel in (28 x 28): the library's way back is slow; a product and a fold take a third of its time.
* 7 x 7 to 4 x 4: of 25 taps at 16 positions, 36 % lie on padding, and the library multiplies those zeros as well.
  A product for each position and row of the kernel takes only the taps inside, at half the time. Below 128 channels
  the products are too small to gain by it, and the library does the work.
"""

from collections.abc import Iterator

import torch
from torch.nn.functional import conv2d, fold

TAPS, STRIDE, PADDING = 5, 2, 2


class Convolve(torch.autograd.Function):
    """`convolve(x, weight, bias)` with gradients."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, g: torch.Tensor) -> tuple:
        """The gradients of x, weight and bias where they are needed."""
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            Transpose.apply(g, weight, None) if of_x else None,
            WeightGradient.apply(g, x) if of_weight else None,
            g.sum((0, 2, 3)) if of_bias else None,
        )


class Transpose(torch.autograd.Function):
    """`transpose(g, weight, bias)` with gradients."""

    @staticmethod
    def forward(ctx, g: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(g, weight)
        x = transpose(g, weight)
        return x if bias is None else x.add_(bias.view(-1, 1, 1))

    @staticmethod
    def backward(ctx, x: torch.Tensor) -> tuple:
        """The gradients of g, weight and bias where they are needed."""
        g, weight = ctx.saved_tensors
        of_g, of_weight, of_bias = ctx.needs_input_grad
        return (
            Convolve.apply(x, weight, None) if of_g else None,
            WeightGradient.apply(g, x) if of_weight else None,
            x.sum((0, 2, 3)) if of_bias else None,
        )


class WeightGradient(torch.autograd.Function):
    """`weight_gradient(g, x)` with gradients."""

    @staticmethod
    def forward(ctx, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(g, x)
        return weight_gradient(g, x)

    @staticmethod
    def backward(ctx, weight: torch.Tensor) -> tuple:
        g, x = ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad
        return Convolve.apply(x, weight, None) if of_g else None, Transpose.apply(g, weight, None) if of_x else None


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """W * x + b: x [B, C_in, 2H or 2H - 1, ...], weight [C, C_in, 5, 5], bias [C] -> [B, C, H, H]."""
    if not _skips_padding(x):
        return conv2d(x, weight, bias, STRIDE, PADDING)
    flat, taps = _by_pixel(x), _by_pixel(weight)
    y = _empty(x, len(x), len(weight), 4)
    y.copy_(x.new_zeros(()) if bias is None else bias.view(-1, 1, 1))
    for i, j, pixels, inside in _taps_inside(x.shape[1]):
        y[:, :, i, j].addmm_(flat[:, pixels], taps[:, inside].T)
    return y


def transpose(g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """W^T g, the adjoint: g [B, C, H, H], weight [C, C_in, 5, 5] -> [B, C_in, 2H, 2H], from H = 4 [B, C_in, 7, 7]."""
    size, channels = 7 if g.shape[2] == 4 else 2 * g.shape[2], weight.shape[1]
    if channels == 1 and g.device.type == "cpu":
        # A row of the product holds what one position of g adds to 25 pixels; fold adds up the overlaps.
        added = g.permute(0, 2, 3, 1).flatten(1, 2) @ weight.flatten(1)  # [B, H H, 25]
        return fold(added.transpose(1, 2), (size, size), TAPS, padding=PADDING, stride=STRIDE)
    x = _empty(g, len(g), channels, size)
    if not _skips_padding(x):
        return _library_gradient(g, x, weight, 0)
    flat, taps = _by_pixel(x.zero_()), _by_pixel(weight)
    for i, j, pixels, inside in _taps_inside(channels):
        flat[:, pixels].addmm_(g[:, :, i, j], taps[:, inside])
    return x


def weight_gradient(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The derivative of sum(g * (W * x)) at W, linear in both: g [B, C, H, H], x [B, C_in, ...] -> [C, C_in, 5, 5]."""
    channels = x.shape[1]
    weight = _empty(g, g.shape[1], channels, TAPS)
    if not _worth_products(x):
        return _library_gradient(g, x, weight, 1)
    flat, taps = _by_pixel(x), _by_pixel(weight.zero_())
    for i, j, pixels, inside in _taps_inside(channels):
        taps[:, inside].addmm_(g[:, :, i, j].T, flat[:, pixels])
    return weight


def _worth_products(x: torch.Tensor) -> bool:
    return x.shape[2] == 7 and x.shape[1] >= 128 and x.device.type == "cpu"


def _skips_padding(x: torch.Tensor) -> bool:
    # In bfloat16 the library is the faster one, but for the weight gradient.
    return _worth_products(x) and x.dtype != torch.bfloat16


def _empty(like: torch.Tensor, n: int, channels: int, size: int) -> torch.Tensor:
    shape = (n, channels, size, size)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _by_pixel(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, H W C], rows of pixels of channels: a view of channels-last memory, otherwise a copy."""
    return x.permute(0, 2, 3, 1).flatten(1)


def _taps_inside(channels: int) -> Iterator[tuple[int, int, slice, slice]]:
    """For each of 4 x 4 positions and each row of the kernel there: (row i, column j, pixels, taps) inside 7 x 7.

    The two slices are of `_by_pixel` of the image and of the kernel.
    """
    spans = [range(max(0, 2 * i - PADDING), min(7, 2 * i - PADDING + TAPS)) for i in range(4)]
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans):
            for row in rows:
                pixel = row * 7 + columns[0]
                tap = (row - 2 * i + PADDING) * TAPS + columns[0] - 2 * j + PADDING
                yield (
                    i,
                    j,
                    slice(pixel * channels, (pixel + len(columns)) * channels),
                    slice(tap * channels, (tap + len(columns)) * channels),
                )


def _library_gradient(g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, of: int) -> torch.Tensor:
    """The library's gradient of sum(g * (W * x)) at x (of = 0) or at W (of = 1); of that argument only the shape."""
    stride, padding, wanted = [STRIDE] * 2, [PADDING] * 2, [of == 0, of == 1, False]
    found = torch.ops.aten.convolution_backward(g, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, wanted)
    return found[of]
