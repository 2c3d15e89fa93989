"""What classifiers see of images: posterior means of a VAE, and the floors beside them."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from common.data import to_unit_range
from common.run.device import layout, place
from common.vae.network import VAE

CHUNK = 1000  # images encoded at once


def prepare(images: torch.Tensor) -> torch.Tensor:
    """uint8 images as the networks read them: float32 in [0, 1], in the network's memory layout."""
    return to_unit_range(images).contiguous(memory_format=layout(images.device))


@torch.no_grad()
def posterior_means(vae: VAE, images: torch.Tensor) -> torch.Tensor:
    """Features of uint8 images [N, 1, 28, 28]: the means of q(z|x), [N, latent_dim], in evaluation mode."""
    vae.eval()
    means = torch.cat([vae.encode(prepare(chunk))[0] for chunk in images.split(CHUNK)])
    vae.train()
    return means


def active_units(means: torch.Tensor) -> int:
    """Latents whose posterior mean varies over the data: variance above 0.01 (Burda et al. 2016, arXiv 1509.00519)."""
    return int((means.var(0) > 0.01).sum())


def pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 images [N, 1, 28, 28] as rows of float32 in [0, 1], [N, 784], on the CPU."""
    return to_unit_range(images).flatten(1).cpu()


def principal_components(train: torch.Tensor, others: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `n` principal components of `train` [N, d], and `others` [M, d] in them: [N, n] and [M, n]."""
    centre = train.mean(0)
    covariance = torch.cov((train - centre).T.double())
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -n:].flip(1).to(train.dtype)  # largest first
    return (train - centre) @ directions, (others - centre) @ directions


@torch.no_grad()
def untrained(latent_dim: int, width: int, images: torch.Tensor, seed: int) -> VAE:
    """A VAE with random weights whose batch-norm statistics are those of uint8 images [N, 1, 28, 28].

    Its posterior means are random convolutional features of the encoder's shape: what the network is worth without
    training.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        vae = VAE(latent_dim, width)
    place(vae, images.device)
    for module in vae.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    for chunk in images.split(CHUNK):
        vae.encode(prepare(chunk))
    return vae


def project(means: np.ndarray, method: str) -> np.ndarray:
    """Posterior means [N, d] in two dimensions, float32 [N, 2]; `method` is "tsne" or "pca"."""
    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(means)
    return TSNE(init="pca", random_state=0).fit_transform(means)
