"""Objectives, written as in their papers."""

import math
from collections.abc import Callable

import torch
from torch.nn.functional import softplus


def gaussian_reconstruction(x: torch.Tensor, mean: torch.Tensor, sigma: float) -> torch.Tensor:
    """-log N(x; mean, sigma^2 I) of each image [nats]: a density, so it may be negative.

    Args:
        x, mean: [B, ...] in [0, 1].
        sigma: standard deviation of a pixel; the smaller, the more the latents have to tell.

    Returns:
        [B].
    """
    squared_error = (x - mean).square().flatten(1).sum(1)
    pixels = x[0].numel()
    return squared_error / (2 * sigma**2) + pixels * (math.log(sigma) + 0.5 * math.log(2 * math.pi))


def kl_to_standard_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) of each row [nats], [B, d] -> [B]; arXiv 1312.6114, appendix B."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def reparameterize(mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """z = mean + sigma * noise with noise ~ N(0, I); all [B, d]."""
    return mean + (0.5 * log_variance).exp() * noise


def gradient_penalty(critic: Callable, real: torch.Tensor, fake: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(|grad critic(x)|_2 - 1)^2 at x = weight * real + (1 - weight) * fake, for each x; arXiv 1704.00028, Algorithm 1.

    Written with automatic differentiation, for any critic; differentiable with respect to the critic's weights. The
    norm's derivative at 0 is taken as 0, so a flat critic gives a finite gradient.

    Args:
        critic: [B, ...] -> [B]; must treat each image by itself (no batch norm).
        real, fake: [B, ...].
        weight: U(0, 1) draws, one per image, [B].

    Returns:
        [B]; one norm per image.
    """
    weight = weight.view(-1, *(1,) * (real.ndim - 1))
    x = (weight * real + (1 - weight) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square()


def discriminator_losses(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Binary cross-entropy of a discriminator on logits, Goodfellow et al. 2014; its two parts and their sum [nats]."""
    real, fake = softplus(-real_logits).mean(), softplus(fake_logits).mean()
    return {"discriminator": real + fake, "real": real, "fake": fake}


def non_saturating_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """-log D(G(z)), mean [nats]: the generator's loss that does not saturate where the discriminator is sure."""
    return softplus(-fake_logits).mean()
