"""Discriminators and critics for pairs of lines, many trained side by side, and what they tell a generator.

Every loss is returned for each network, [count]. The networks share no weight, so the gradient of the sum of their
losses holds each network's own gradient.
"""

import math
from typing import Any

import torch
from torch.nn import functional as F

LOSSES = {"minimax": "discriminator", "non-saturating": "discriminator", "wasserstein": "critic"}  # and their network


class Networks(torch.nn.Module):
    """`count` independent networks 2 -> width -> width -> 1 with LeakyReLU(0.2), begun as `torch.nn.Linear` does."""

    def __init__(self, count: int, width: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for inputs, outputs in ((2, width), (width, width), (width, 1)):
            uniform = 2 * torch.rand(count, inputs + 1, outputs, generator=rng, device=rng.device) - 1
            weight, bias = (uniform / math.sqrt(inputs)).split([inputs, 1], dim=1)
            self.weights.append(weight.clone())
            self.biases.append(bias.clone())

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Points [count, B, 2] -> outputs [count, B]: logits of a discriminator, values of a critic."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            points = torch.baddbmm(bias, F.leaky_relu(points, 0.2) if i else points, weight)
        return points[..., 0]


def training_bytes(config: Any) -> float:
    """Memory [bytes] of a critic's training step for networks at up to 12 distances: an estimate, within 30 %.

    Weights, gradients, two moments and their temporaries, and what the penalty's second derivative keeps of a batch.
    """
    width = config.width
    weights = (2 + 1) * width + (width + 1) * width + (width + 1)
    return 4.0 * 12 * config.seeds * (10 * weights + 26 * config.batch_size * width)


def draw(x: torch.Tensor, batch_size: int, rng: torch.Generator) -> torch.Tensor:
    """A batch of points (x, y), y uniform on [0, 1], for each network: x [count] -> [count, B, 2]."""
    y = torch.rand(len(x), batch_size, generator=rng, device=rng.device)
    return torch.stack([x[:, None].expand_as(y), y], dim=-1)


def discriminator_loss(discriminator: Networks, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy -(E_P log D + E_Q log(1 - D)) / 2, [count], D = sigmoid(logit), from points [count, B, 2]."""
    return (F.softplus(-discriminator(real)).mean(1) + F.softplus(discriminator(fake)).mean(1)) / 2


def js_bound(discriminator: Networks, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """log 2 + (E_P log D + E_Q log(1 - D)) / 2 [nats], [count]: at most JS(P, Q), equal to it for D = dP / d(P + Q).

    Goodfellow et al. 2014, arXiv 1406.2661, theorem 1. On fresh points it estimates that bound without bias, so it
    can fall below 0.
    """
    return math.log(2) - discriminator_loss(discriminator, real, fake)


def critic_difference(critic: Networks, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E_P f - E_Q f, without the penalty, [count]: at most W1(P, Q) if f is 1-Lipschitz; it need not be."""
    return critic(real).mean(1) - critic(fake).mean(1)


def critic_loss(
    critic: Networks, real: torch.Tensor, fake: torch.Tensor, gradient_penalty: float, rng: torch.Generator
) -> torch.Tensor:
    """E_Q f - E_P f + lambda E (|grad f| - 1)^2 between real and fake, [count]: arXiv 1704.00028, equation 3."""
    mix = torch.rand(*real.shape[:2], 1, generator=rng, device=rng.device)
    between = (mix * real + (1 - mix) * fake).requires_grad_()  # [count, B, 2]
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (gradient.norm(dim=2) - 1).square().mean(1)
    return gradient_penalty * penalty - critic_difference(critic, real, fake)


def generator_slope(
    networks: Networks, theta: torch.Tensor, loss: str, batch_size: int, rng: torch.Generator
) -> torch.Tensor:
    """d loss / d theta of each generator g(y) = (theta, y) through its network, [count].

    Args:
        theta: [count].
        loss: "minimax", E log(1 - D(g)), the saturating one; "non-saturating", -E log D(g); "wasserstein", -E f(g).
    """
    theta = theta.detach().requires_grad_()
    output = networks(draw(theta, batch_size, rng))
    value = {"minimax": -F.softplus(output), "non-saturating": F.softplus(-output), "wasserstein": -output}[loss]
    return torch.autograd.grad(value.mean(1).sum(), theta)[0]
