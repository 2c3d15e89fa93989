"""The critic's gradients written out against plain automatic differentiation of the paper's loss."""

import pytest
import torch
from torch import nn

from common.gan.critic_gradients import critic_gradients
from common.gan.networks import Critic, initialize
from common.losses import gradient_penalty


def setting(dtype=torch.float64, width=4, b=6):
    torch.manual_seed(0)
    critic = Critic(width).to(dtype)
    initialize(critic)
    for layer in critic.convolutions:
        nn.init.uniform_(layer.bias, -0.1, 0.1)
    real, fake = torch.rand(2, b, 1, 28, 28, dtype=dtype)
    return critic, real, fake, torch.rand(b, dtype=dtype)


def autograd_step(critic, real, fake, weight, penalty_weight):
    """Algorithm 1, lines 4-9, the way it is written everywhere: three terms, double differentiation."""
    critic.zero_grad()
    wasserstein = critic(real).mean() - critic(fake).mean()
    penalty = penalty_weight * gradient_penalty(critic, real, fake, weight).mean()
    (penalty - wasserstein).backward()
    return {"critic": penalty - wasserstein, "wasserstein": wasserstein, "penalty": penalty}


@pytest.mark.parametrize("penalty_weight", [0.0, 10.0])
@pytest.mark.parametrize("width", [1, 4])
def test_losses_and_gradients_equal_those_of_automatic_differentiation(width, penalty_weight):
    critic, real, fake, weight = setting(width=width)
    expected = autograd_step(critic, real, fake, weight, penalty_weight)
    gradients = {name: p.grad.clone() for name, p in critic.named_parameters()}
    critic.zero_grad()
    parts = critic_gradients(critic, real, fake, weight, penalty_weight)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach(), rtol=1e-12, atol=1e-12)
    for name, parameter in critic.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-13, msg=name)


def test_float32_and_channels_last_agree_to_rounding():
    critic, real, fake, weight = setting(torch.float32, width=16, b=50)
    autograd_step(critic, real, fake, weight, 10.0)
    gradients = {name: p.grad.clone() for name, p in critic.named_parameters()}
    critic.to(memory_format=torch.channels_last)
    critic_gradients(critic, real, fake, weight, 10.0)
    for name, parameter in critic.named_parameters():
        if name != "linear.bias":  # exactly 0 here, rounding noise there
            difference = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
            # Biases sum 10^5 terms that nearly cancel.
            assert difference < (1e-4 if name.endswith("bias") else 1e-5), name


def test_bfloat16_gives_nearly_the_same_gradients_and_losses():
    critic, real, fake, weight = setting(torch.float32, width=16, b=50)
    exact = critic_gradients(critic, real, fake, weight, 10.0)
    gradients = {name: p.grad for name, p in critic.named_parameters()}
    critic.precision = torch.bfloat16
    parts = critic_gradients(critic, real, fake, weight, 10.0)
    for name, value in exact.items():
        torch.testing.assert_close(parts[name], value, rtol=0.02, atol=0.02, msg=name)
    for name, parameter in critic.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        # Real and fake images nearly cancel, above all in a bias.
        allowed = 0.3 if name.endswith("bias") else 0.1
        assert (parameter.grad - gradients[name]).norm() <= allowed * gradients[name].norm(), name


def test_penalty_alone_gives_gradients_that_agree_with_finite_differences():
    critic, real, fake, weight = setting()

    def penalty():
        return critic_gradients(critic, real, fake, weight, 10.0)

    def wasserstein_gradient(parameter):
        critic.zero_grad()
        (critic(fake).mean() - critic(real).mean()).backward()
        return parameter.grad.clone()

    for parameter in (critic.convolutions[0].weight, critic.convolutions[2].weight, critic.linear.weight):
        of_wasserstein = wasserstein_gradient(parameter)
        critic_gradients(critic, real, fake, weight, 10.0)
        of_penalty = (parameter.grad - of_wasserstein).flatten()
        assert of_penalty.abs().max() > 1e-2
        index, h, values = int(of_penalty.abs().argmax()), 1e-6, []
        flat = parameter.data.view(-1)
        for shift in (h, -2 * h):
            flat[index] += shift
            values.append(penalty()["penalty"].item())
        flat[index] += h
        assert of_penalty[index].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_flat_critic_has_finite_values_and_gradients():
    critic, real, fake, weight = setting()
    nn.init.zeros_(critic.linear.weight)
    parts = critic_gradients(critic, real, fake, weight, 10.0)
    assert parts["penalty"].item() == 10
    assert all(p.grad.isfinite().all() for p in critic.parameters())


def test_each_image_has_its_own_weight_and_norm():
    critic, real, fake, weight = setting()
    whole = critic_gradients(critic, real, fake, weight, 10.0)
    each = [critic_gradients(critic, real[i : i + 1], fake[i : i + 1], weight[i : i + 1], 10.0) for i in range(6)]
    for name in ("penalty", "gradient_norm", "wasserstein"):
        torch.testing.assert_close(whole[name], torch.stack([e[name] for e in each]).mean())
    assert len({e["gradient_norm"].item() for e in each}) == 6


def test_critic_has_neither_batch_norm_nor_a_bounded_output():
    critic, real, *_ = setting()
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Sigmoid | nn.Tanh) for m in critic.modules())
    together, alone = critic(real), torch.cat([critic(real[i : i + 1]) for i in range(len(real))])
    torch.testing.assert_close(together, alone)
    critic.linear.bias.data += 1000
    assert critic(real).min() > 500


@pytest.mark.parametrize("b", [2, 5, 50])
@pytest.mark.parametrize("penalty_weight", [1.0, 10.0, 100.0, 1e6])
def test_a_flat_critic_has_finite_gradients_at_every_batch_size_and_weight(b, penalty_weight):
    critic = Critic(2)
    for parameter in critic.parameters():
        torch.nn.init.zeros_(parameter)
    images = torch.rand(2, b, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    parts = critic_gradients(critic, *images, torch.rand(b), penalty_weight)
    assert float(parts["penalty"]) == penalty_weight
    assert all(parameter.grad.isfinite().all() for parameter in critic.parameters())
