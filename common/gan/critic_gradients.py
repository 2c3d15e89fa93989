"""The critic's step of WGAN-GP with its gradients written out: no second differentiation, two passes less.

The critic is h_0 = x, a_l = W_l * h_(l-1) + b_l, h_l = phi(a_l) for l = 1, 2, 3 and f(x) = w . h_3 + c, with `*` a
convolution and phi = LeakyReLU. It is piecewise linear: phi'(a_l) is constant almost everywhere and phi'' is zero. With

    delta_3 = phi'(a_3) w,  delta_l = phi'(a_l) (W_(l+1)^T delta_(l+1))    the gradient of f at a_l
    g = W_1^T delta_1                                                      the gradient of f at x
    P = lambda / B sum (|g| - 1)^2                                         the penalty
    v = dP/dg = 2 lambda / B (1 - 1/|g|) g                                 its derivative
    u_0 = v,  u_l = phi'(a_l) (W_l * u_(l-1))                              v carried forward, without biases

g is linear in each W_l, so dP/dW_l is the weight gradient of a convolution with input u_(l-1) and output gradient
delta_l, and dP/dw = sum u_3. Real, fake and interpolated images then share one forward pass, one pass of deltas and one
weight gradient per layer: 3 + 3 + 1 + 3 = 10 passes of B images, where automatic differentiation takes 12.
"""

import torch
from torch.nn.functional import leaky_relu_

from common.gan.convolutions import convolve, transpose, weight_gradient
from common.gan.networks import SLOPE, Critic, channels_first, computed_in, pixels_first, weights

TINY = 1e-30  # takes the place of a smaller |g|; its inverse times any factor of the penalty is still a float32


@torch.no_grad()
def critic_gradients(
    critic: Critic,
    real: torch.Tensor,
    fake: torch.Tensor,
    weight: torch.Tensor,
    penalty_weight: float,
    share: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Set `.grad` of every weight of the critic to that of mean f(fake) - mean f(real) + lambda mean (|g| - 1)^2.

    The same numbers as automatic differentiation of arXiv 1704.00028, Algorithm 1, lines 4-9 (tested to rounding).

    Args:
        critic: without batch norm.
        real, fake: [B, 1, 28, 28] in [0, 1].
        weight: U(0, 1) draws, one per image, [B]; x = weight * real + (1 - weight) * fake.
        penalty_weight: lambda.
        share: the fraction of the whole batch that these images are; the rest is with other processes.

    Returns:
        critic (the loss), wasserstein (mean f(real) - mean f(fake)), penalty (lambda times its mean) and
        gradient_norm (mean |g|), 0-d tensors; they and the gradients add up to those of the whole batch.
    """
    b, weight = len(real), weight.view(-1, 1, 1, 1)
    dtype, wide = computed_in(critic, real), real.dtype
    layers = [weights(layer, dtype) for layer in critic.convolutions]
    w = pixels_first(critic.linear.weight)

    # Forward: h[l] of real, fake and interpolated images together, [3B, ...].
    h = [torch.cat([real, fake, weight * real + (1 - weight) * fake]).to(dtype)]
    for kernel, bias in layers:
        h.append(leaky_relu_(convolve(h[-1], kernel, bias), SLOPE))
    flat = h[3].permute(0, 2, 3, 1).flatten(1).to(wide)  # [3B, 16 * 4w], pixels before channels as they lie in memory
    value = flat @ w[0] + critic.linear.bias  # [3B]

    # Backward to the activations: the loss of a real image is -f / B, of a fake one f / B; for the penalty, f itself.
    sign = torch.cat([w.new_full((b, 1), value) for value in (-share / b, share / b, 1.0)])  # [3B, 1]
    delta = (sign * w).to(dtype).view(3 * b, 4, 4, -1).permute(0, 3, 1, 2)
    deltas = [delta] * 3
    for l in (2, 1, 0):
        deltas[l] = _times_leaky_relu_slope_(delta, h[l + 1])
        if l > 0:
            delta = transpose(deltas[l], layers[l][0])
    gradient = transpose(deltas[0][2 * b :], layers[0][0]).to(wide)  # g, [B, 1, 28, 28]

    # The penalty, and its derivative v carried forward; 0 where g is 0.
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # [B]
    factor = 2 * penalty_weight * share / b * (norm - 1) / norm.clamp(min=TINY)
    u = (factor.view(-1, 1, 1, 1) * gradient).to(dtype)
    for l, layer in enumerate(critic.convolutions):
        h[l][2 * b :] = u  # takes the place of the interpolated images' h, which is needed no more
        layer.weight.grad = weight_gradient(deltas[l], h[l]).to(wide)
        layer.bias.grad = deltas[l][: 2 * b].sum((0, 2, 3)).to(wide)
        u = _times_leaky_relu_slope_(convolve(u, layers[l][0]), h[l + 1][2 * b :])
    of_w = sign[: 2 * b].T @ flat[: 2 * b] + u.permute(0, 2, 3, 1).flatten(1).to(wide).sum(0)
    critic.linear.weight.grad = channels_first(of_w)
    critic.linear.bias.grad = torch.zeros_like(critic.linear.bias)  # f(fake) and f(real) cancel it

    wasserstein = share * (value[:b].mean() - value[b : 2 * b].mean())
    penalty = penalty_weight * share * (norm - 1).square().mean()
    return {
        "critic": penalty - wasserstein,
        "wasserstein": wasserstein,
        "penalty": penalty,
        "gradient_norm": share * norm.mean(),
    }


def _times_leaky_relu_slope_(x: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """x becomes phi'(a) x, from h = phi(a), which has the sign of a.

    In place: at width 64 the page faults of 7 MB of fresh memory cost ten times the arithmetic.
    """
    return torch.ops.aten.leaky_relu_backward(x, activation, SLOPE, True, grad_input=x)
