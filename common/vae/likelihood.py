"""The likelihood of images under a VAE, by importance sampling from its posterior."""

import math

import torch

from common.losses import gaussian_reconstruction, reparameterize
from common.vae.network import VAE

DECODED = 2000  # images decoded at once


def log_normal(z: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """log N(z; mean, exp(log_variance)), summed over the last dimension [nats]."""
    squared = (z - mean).square() * (-log_variance).exp()
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)


@torch.no_grad()
def log_likelihood(vae: VAE, x: torch.Tensor, sigma: float, samples: int, rng: torch.Generator) -> torch.Tensor:
    """log (1/k) sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), of each image [nats]: Burda et al. 2016, equation 8.

    Its mean is a lower bound of log p(x) that rises with k and is the ELBO for k = 1 (arXiv 1509.00519, theorem 1). The
    density of grey pixels in [0, 1], so it may be positive.

    Args:
        x: images in [0, 1], [B, 1, 28, 28].
        sigma: standard deviation of a pixel given z.
        samples: k.
        rng: on the device of x.

    Returns:
        float64 [B] on the CPU; the network is evaluated in evaluation mode and left as it was.
    """
    was_training = vae.training
    vae.eval()
    found = []
    for image in x.unsqueeze(1):  # [1, 1, 28, 28]
        mean, log_variance = vae.encode(image)
        weights = []
        for start in range(0, samples, DECODED):
            k = min(DECODED, samples - start)
            noise = torch.randn(k, mean.shape[1], generator=rng, device=x.device, dtype=x.dtype)
            z = reparameterize(mean, log_variance, noise)  # [k, d]
            log_p_x = -gaussian_reconstruction(image, vae.decode(z), sigma)
            log_p_z = log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
            weights.append((log_p_x + log_p_z - log_normal(z, mean, log_variance)).cpu().double())
        found.append(torch.cat(weights).logsumexp(0) - math.log(samples))
    vae.train(was_training)
    return torch.stack(found)
