"""Objectives against closed forms, Monte Carlo and finite differences."""

import math

import pytest
import torch

from common.losses import (
    discriminator_losses,
    gaussian_reconstruction,
    gradient_penalty,
    kl_to_standard_normal,
    non_saturating_loss,
    reparameterize,
)


def test_reconstruction_is_the_normal_log_density():
    x, mean = torch.rand(2, 5, 1, 4, 4, dtype=torch.float64)
    density = torch.distributions.Normal(mean, 0.3).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_reconstruction(x, mean, 0.3), -density, rtol=1e-12, atol=0)


def test_kl_equals_the_library_closed_form_and_is_zero_at_the_prior():
    mean, log_variance = torch.randn(2, 7, 3, dtype=torch.float64)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected, rtol=1e-12, atol=1e-12)
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_kl_equals_its_monte_carlo_estimate():
    mean, log_variance = torch.tensor([[0.7, -1.2]]).double(), torch.tensor([[-0.5, 0.3]]).double()
    noise = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = reparameterize(mean, log_variance, noise)
    log_q = torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(z).sum(1)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    samples = log_q - log_p
    error = samples.std() / len(samples) ** 0.5
    assert abs(samples.mean() - kl_to_standard_normal(mean, log_variance)[0]) < 4 * error


def test_reparameterized_samples_have_the_posterior_moments():
    mean, log_variance = torch.tensor([[1.5]]), torch.tensor([[math.log(0.25)]])
    z = reparameterize(mean, log_variance, torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1)))
    assert z.mean().item() == pytest.approx(1.5, abs=4 * 0.5 / 200_000**0.5)
    assert z.std().item() == pytest.approx(0.5, abs=4 * 0.5 / (2 * 200_000) ** 0.5)


def test_discriminator_losses_are_cross_entropies_and_stay_finite_where_a_sigmoid_saturates():
    real, fake = torch.randn(2, 9, dtype=torch.float64)
    parts = discriminator_losses(real, fake)
    torch.testing.assert_close(parts["real"], -torch.sigmoid(real).log().mean())
    torch.testing.assert_close(parts["fake"], -(1 - torch.sigmoid(fake)).log().mean())
    torch.testing.assert_close(parts["discriminator"], parts["real"] + parts["fake"])
    torch.testing.assert_close(non_saturating_loss(fake), -torch.sigmoid(fake).log().mean())
    logits = torch.tensor([-200.0], requires_grad=True)
    loss = non_saturating_loss(logits)
    loss.backward()
    assert loss.item() == 200
    assert logits.grad.item() == -1


# The gradient penalty: each fault seen in public code is a test.


@pytest.fixture
def images():
    return torch.rand(2, 6, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def linear_critic(w):
    return lambda x: x.flatten(1) @ w


def smooth_critic(dtype=torch.float64):
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(25, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1), torch.nn.Flatten(0)]
    return torch.nn.Sequential(*layers).to(dtype)


def test_penalty_of_a_linear_critic_is_its_norm_less_one_squared(images):
    w = torch.randn(25, dtype=torch.float64)
    penalty = gradient_penalty(linear_critic(w), *images, torch.rand(6, dtype=torch.float64))
    torch.testing.assert_close(penalty, ((w.norm() - 1) ** 2).expand(6))


def test_penalty_takes_one_norm_per_image_not_per_batch_or_pixel(images):
    critic, weight = smooth_critic(), torch.rand(6, dtype=torch.float64)
    together = gradient_penalty(critic, *images, weight)
    alone = [gradient_penalty(critic, images[0][i : i + 1], images[1][i : i + 1], weight[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert together.shape == (6,)
    assert together.unique().numel() == 6


def test_penalty_is_taken_where_the_weights_say(images):
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).square().sum(1)

    weight = torch.tensor([0.0, 1.0, 0.5, 0.25, 0.1, 0.9], dtype=torch.float64)
    gradient_penalty(critic, *images, weight)
    for i, share in enumerate(weight):
        torch.testing.assert_close(seen[0][i], share * images[0][i] + (1 - share) * images[1][i])


def test_flat_critic_gives_a_finite_penalty_and_gradient(images):
    w = torch.zeros(25, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(linear_critic(w), *images, torch.rand(6, dtype=torch.float64)).mean()
    penalty.backward()
    assert penalty.item() == 1
    assert w.grad.isfinite().all()


def test_gradient_of_the_penalty_alone_agrees_with_finite_differences(images):
    critic, weight = smooth_critic(), torch.rand(6, dtype=torch.float64)
    gradient_penalty(critic, *images, weight).mean().backward()
    for parameter in (critic[1].weight, critic[3].weight):
        assert parameter.grad.abs().max() > 1e-4
        for index in [(0, 0), (0, 3)]:
            h, values = 1e-6, []
            for shift in (h, -2 * h):
                with torch.no_grad():
                    parameter[index] += shift
                values.append(gradient_penalty(critic, *images, weight).mean().item())
            with torch.no_grad():
                parameter[index] += h
            assert parameter.grad[index].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6, abs=1e-9)


def test_penalty_reaches_neither_real_nor_fake_images(images):
    real, fake = images[0].clone().requires_grad_(), images[1].clone().requires_grad_()
    gradient_penalty(smooth_critic(), real, fake, torch.rand(6, dtype=torch.float64)).mean().backward()
    assert real.grad is None
    assert fake.grad is None
