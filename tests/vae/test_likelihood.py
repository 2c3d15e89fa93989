"""The importance-weighted likelihood against a model whose likelihood is known."""

import math

import pytest
import torch

from common.vae.likelihood import log_likelihood, log_normal
from common.vae.network import VAE


class Linear(VAE):
    """p(x|z) = N(Wz, sigma^2 I) with 784 pixels; q(z|x) is the true posterior, moved and widened."""

    def __init__(self, d=2, sigma=0.5, shift=0.0, widening=1.0):
        super().__init__(d, 1)
        basis, _ = torch.linalg.qr(torch.randn(784, d, dtype=torch.float64))
        self.basis, self.sigma, self.shift, self.widening = basis, sigma, shift, widening

    def encode(self, x):
        precision = 1 + 1 / self.sigma**2  # orthonormal columns: the posterior's covariance is diagonal
        mean = x.flatten(1) @ self.basis / self.sigma**2 / precision + self.shift
        return mean, torch.full_like(mean, math.log(self.widening / precision))

    def decode(self, z):
        return (z @ self.basis.T).view(-1, 1, 28, 28)

    def exact(self, x):
        covariance = self.basis @ self.basis.T + self.sigma**2 * torch.eye(784)
        return torch.distributions.MultivariateNormal(torch.zeros(784).double(), covariance).log_prob(x.flatten(1))


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(3, 1, 28, 28, dtype=torch.float64)


def test_normal_density_is_that_of_torch():
    torch.manual_seed(0)
    z, mean, log_variance = torch.randn(3, 5, 4)
    expected = torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(z).sum(-1)
    assert torch.allclose(log_normal(z, mean, log_variance), expected, atol=1e-5)


def test_one_sample_of_the_true_posterior_gives_the_exact_likelihood(x):
    vae = Linear()
    assert log_likelihood(vae, x, 0.5, 1, torch.Generator()).tolist() == pytest.approx(vae.exact(x).tolist(), rel=1e-9)


def test_many_samples_of_another_distribution_come_near_it(x):
    vae = Linear(shift=0.3, widening=1.5)
    found = log_likelihood(vae, x, 0.5, 20_000, torch.Generator().manual_seed(0))  # in chunks
    assert found.tolist() == pytest.approx(vae.exact(x).tolist(), abs=0.03)
    assert vae.training


def test_bound_rises_with_the_number_of_samples(x):
    vae, x = Linear(shift=0.5), x[:1].expand(400, -1, -1, -1)
    bounds = [float(log_likelihood(vae, x, 0.5, k, torch.Generator().manual_seed(0)).mean()) for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] < bounds[2] < float(vae.exact(x[:1])) + 0.02
