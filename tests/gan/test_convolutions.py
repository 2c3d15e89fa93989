"""The convolution of question 4, its adjoint and its weight gradient against the library's and against each other."""

import pytest
import torch
from torch.nn.functional import conv2d

from common.gan.convolutions import Convolve, Transpose, WeightGradient, convolve, transpose, weight_gradient

# Channels in and out, sizes in and out; from 128 channels on, 7 x 7 to 4 x 4 is done by products of our own.
LAYERS = [(1, 3, 28, 14), (2, 3, 14, 7), (2, 3, 7, 4), (1, 1, 7, 4), (128, 3, 7, 4)]


def arguments(inputs, outputs, size, half, dtype=torch.float64, b=3):
    torch.manual_seed(0)
    x = torch.randn(b, inputs, size, size, dtype=dtype)
    weight = torch.randn(outputs, inputs, 5, 5, dtype=dtype)
    return x, weight, torch.randn(b, outputs, half, half, dtype=dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", LAYERS)
def test_all_three_equal_the_library(layer, memory_format):
    x, weight, g = (t.to(memory_format=memory_format) for t in arguments(*layer))
    bias = torch.randn(layer[1], dtype=torch.float64)
    x.requires_grad_()
    weight.requires_grad_()
    expected = conv2d(x, weight, bias, 2, 2)
    of_x, of_weight = torch.autograd.grad(expected, (x, weight), g)
    torch.testing.assert_close(convolve(x, weight, bias), expected)
    torch.testing.assert_close(convolve(x, weight), expected - bias.view(-1, 1, 1))
    torch.testing.assert_close(transpose(g, weight), of_x)
    torch.testing.assert_close(weight_gradient(g, x), of_weight)


@pytest.mark.parametrize("layer", LAYERS)
def test_all_three_are_one_trilinear_form(layer):
    x, weight, g = arguments(*layer)
    value = (g * convolve(x, weight)).sum()
    torch.testing.assert_close((transpose(g, weight) * x).sum(), value)
    torch.testing.assert_close((weight_gradient(g, x) * weight).sum(), value)


@pytest.mark.parametrize("layer", [(1, 2, 28, 14), (2, 1, 7, 4), (128, 1, 7, 4)])
def test_gradients_and_their_gradients_agree_with_finite_differences(layer):
    x, weight, g = (t.requires_grad_() for t in arguments(*layer, b=1))
    of_c, of_1 = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (layer[1], layer[0]))
    for function, inputs in (
        (Convolve, (x, weight, of_c)),
        (Transpose, (g, weight, of_1)),
        (WeightGradient, (g, x)),
    ):
        assert torch.autograd.gradcheck(function.apply, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function.apply, inputs, fast_mode=True)


@pytest.mark.parametrize("layer", [(1, 8, 28, 14), (8, 16, 14, 7), (16, 32, 7, 4), (128, 32, 7, 4)])
def test_bfloat16_is_near_and_stays_bfloat16(layer):
    x, weight, g = arguments(*layer, b=8)
    small = [t.bfloat16() for t in (x, weight, g)]
    for function, chosen in ((convolve, (0, 1)), (transpose, (2, 1)), (weight_gradient, (2, 0))):
        exact = function(*(t.to(x.dtype) for t in (small[i] for i in chosen)))
        found = function(*(small[i] for i in chosen))
        assert found.dtype == torch.bfloat16
        assert (found.to(x.dtype) - exact).norm() < 0.01 * exact.norm()
