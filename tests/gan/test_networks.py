"""Networks: shapes, ranges, initial scales, moving averages."""

import pytest
import torch
from torch import nn

from common.gan.averages import MovingAverage, look_ahead
from common.gan.networks import SLOPE, Critic, Generator, ModulatedBatchNorm, channels_first, initialize, pixels_first
from common.vae.network import VAE


@pytest.mark.parametrize("latent_dim, width", [(2, 1), (64, 16)])
def test_vae_shapes_and_range(latent_dim, width):
    vae = VAE(latent_dim, width)
    mean, log_variance = vae.encode(torch.rand(3, 1, 28, 28))
    assert mean.shape == log_variance.shape == (3, latent_dim)
    decoded = vae.decode(10 * torch.randn(3, latent_dim))
    assert decoded.shape == (3, 1, 28, 28)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


@pytest.mark.parametrize("batch_norm", [False, True])
def test_generator_writes_the_data_range_and_critic_reads_it(batch_norm):
    generator, critic = Generator(4, 16, batch_norm), Critic(4, batch_norm)
    images = generator(100 * torch.randn(5, 16))
    assert images.shape == (5, 1, 28, 28)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.max() - images.min() > 0.5
    assert critic(images).shape == (5,)


def test_networks_of_width_64_are_those_of_the_paper():
    """Layer sizes of the MNIST experiment of arXiv 1704.00028, counted by hand: weights and biases."""
    generator = 128 * 4096 + 4096 + 256 * 128 * 25 + 128 + 128 * 64 * 25 + 64 + 64 * 25 + 1
    critic = 64 * 25 + 64 + 64 * 128 * 25 + 128 + 128 * 256 * 25 + 256 + 4096 + 1
    assert sum(p.numel() for p in Generator(64, 128, batch_norm=False).parameters()) == generator
    assert sum(p.numel() for p in Critic(64).parameters()) == critic


def test_dcgan_has_batch_norm_in_the_generator_and_the_inner_layers_of_the_discriminator():
    def norms(network):
        return [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert norms(Generator(8, 16, batch_norm=True)) == [32, 16, 8]
    assert norms(Generator(8, 16, batch_norm=True, detail=4, modulation=4)) == [32, 16, 8, 4]
    assert norms(Critic(8, batch_norm=True)) == [16, 32]
    assert norms(Generator(8, 16, batch_norm=False)) == norms(Critic(8)) == []


def test_joined_batches_equal_separate_ones_in_values_gradients_and_statistics():
    torch.manual_seed(0)
    together, apart = Critic(4, batch_norm=True).double(), Critic(4, batch_norm=True).double()
    apart.load_state_dict(together.state_dict())
    x, y = torch.rand(2, 6, 1, 28, 28, dtype=torch.float64)
    joined, separate = together(x, y), torch.cat([apart(x), apart(y)])
    torch.testing.assert_close(joined, separate)
    (joined**2).sum().backward()
    (separate**2).sum().backward()
    for p, q in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    for p, q in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(p, q)
    assert not together(torch.cat([x, y])).allclose(joined)


def plain_critic(critic, x):
    """The critic's definition, with PyTorch's own layers."""
    for convolution, norm in zip(critic.convolutions, critic.norms, strict=True):
        x = nn.functional.leaky_relu(norm(convolution(x)), SLOPE)
    return critic.linear(x.flatten(1)).squeeze(1)


def plain_generator(generator, z):
    """The generator's definition, with PyTorch's own layers."""
    x = z
    for layer in generator.layers:
        if isinstance(layer, ModulatedBatchNorm):
            normal = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
            scale, shift = layer.network(z)[:, :, None, None].chunk(2, dim=1)
            x = normal * (1 + scale) + shift
        else:
            x = layer(x)
    return x


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_fast_passes_equal_the_plain_layers_in_values_and_all_gradients(batch_norm, memory_format):
    torch.manual_seed(0)
    for network, plain, inputs in (
        (Generator(3, 5, batch_norm), plain_generator, torch.randn(6, 5)),
        (Generator(3, 5, batch_norm, detail=2), plain_generator, torch.randn(6, 5)),
        (Generator(3, 5, batch_norm, detail=2, modulation=4), plain_generator, torch.randn(6, 5)),
        (Critic(3, batch_norm), plain_critic, torch.rand(6, 1, 28, 28)),
    ):
        network.double().to(memory_format=memory_format)
        for p in network.parameters():
            nn.init.uniform_(p, -0.5, 0.5)
        x = inputs.double().requires_grad_()
        wanted = [x, *network.parameters()]
        fast, slow = network(x), plain(network, x)
        torch.testing.assert_close(fast, slow)
        seed = torch.randn_like(slow)
        gradients = [torch.autograd.grad(y, wanted, seed, retain_graph=True) for y in (fast, slow)]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_fast_critic_can_be_differentiated_twice():
    torch.manual_seed(0)
    critic, x = Critic(3).double(), torch.rand(4, 1, 28, 28, dtype=torch.float64, requires_grad=True)
    found = []
    for value in (critic(x), plain_critic(critic, x)):
        (g,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        weights = [p for name, p in critic.named_parameters() if name.endswith("weight")]
        found.append(torch.autograd.grad(g.square().sum(), weights))
    for a, b in zip(*found, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_bfloat16_is_for_training_only(batch_norm):
    torch.manual_seed(0)
    for network, x in (
        (Generator(8, 16, batch_norm), torch.randn(20, 16)),
        (Generator(8, 16, batch_norm, detail=4, modulation=4), torch.randn(20, 16)),
        (Critic(8, batch_norm), torch.rand(20, 1, 28, 28)),
    ):
        initialize(network)
        exact = {mode: network.train(mode)(x).detach() for mode in (True, False)}
        weights = [p for p in network.parameters() if p.ndim > 1]
        gradients = torch.autograd.grad(network.train()(x).square().sum(), weights)
        network.precision = torch.bfloat16
        trained = network(x)
        assert trained.dtype == torch.float32
        assert 0 < (trained - exact[True]).norm() < 0.02 * exact[True].norm()
        for mine, theirs in zip(torch.autograd.grad(trained.square().sum(), weights), gradients, strict=True):
            assert mine.dtype == torch.float32
            assert torch.nn.functional.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0) > 0.99
        if not batch_norm:  # statistics have moved
            assert network.eval()(x).equal(exact[False])


def test_pixels_first_is_the_order_of_channels_last_memory():
    weight, x = torch.randn(1, 3 * 16), torch.randn(2, 3, 4, 4)
    by_memory = x.permute(0, 2, 3, 1).flatten(1) @ pixels_first(weight)[0]
    torch.testing.assert_close(by_memory, x.flatten(1) @ weight[0])
    assert channels_first(pixels_first(weight)).equal(weight)


def test_seven_by_seven_equals_eight_by_eight_cropped():
    layer = nn.ConvTranspose2d(3, 2, 5, 2, 2)
    wider = nn.ConvTranspose2d(3, 2, 5, 2, 2, output_padding=1)
    wider.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(layer(x), wider(x)[:, :, :7, :7])


def test_initial_weights_have_the_stated_scale_and_keep_signals_alive():
    torch.manual_seed(0)
    critic = Critic(64)
    initialize(critic)
    for layer in critic.convolutions:
        expected = (4 / (layer.in_channels * 25 + layer.out_channels * 25 / 4)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert layer.bias.abs().max() == 0
    assert 0.05 < critic(torch.rand(50, 1, 28, 28)).std() < 5


def test_initial_modulation_is_weak_and_the_last_convolution_has_the_scale_of_stride_1():
    torch.manual_seed(0)
    generator = Generator(8, 16, batch_norm=True, detail=64, modulation=64)
    initialize(generator)
    last = generator.layers[-2].weight
    assert last.std().item() == pytest.approx((4 / (64 * 9 + 9)) ** 0.5, rel=0.1)
    for norm in (layer for layer in generator.layers if isinstance(layer, ModulatedBatchNorm)):
        gain = norm.network[-1].weight
        assert gain.std().item() == pytest.approx(0.3 * (2 / sum(gain.shape)) ** 0.5, rel=0.1)
        x, z = torch.randn(50, gain.shape[0] // 2, 4, 4), torch.randn(50, 16)
        assert 0 < (norm(x, z) - norm.norm(x)).std() < 0.6


def test_lookahead_meets_on_the_way_and_leaves_batch_norm_statistics():
    slow, fast = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    fast(torch.randn(8, 2))
    before, statistics = (
        [[p.detach().clone() for p in network.parameters()] for network in (slow, fast)],
        fast[1].running_mean.clone(),
    )
    look_ahead(slow, fast, 0.25)
    for a, b, mine, theirs in zip(*before, slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.75 * a + 0.25 * b)
        assert theirs.equal(mine)
        assert theirs is not mine
    assert fast[1].running_mean.equal(statistics)
    there = [p.detach().clone().add_(1) for p in fast.parameters()]
    for p in fast.parameters():
        p.data.add_(1)
    look_ahead(slow, fast, 1)
    for mine, theirs, p in zip(slow.parameters(), fast.parameters(), there, strict=True):
        assert mine.equal(p)
        assert theirs.equal(p)


@pytest.mark.parametrize("warm_up", [10, 20])
def test_moving_average_follows_its_recursion_and_survives_a_checkpoint(warm_up):
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, 0.25)
    expected = network[0].weight.detach().clone()
    for n in range(4):
        network[0].weight.data += 1
        network(torch.randn(8, 2))
        decay = min(0.25, (1 + n) / (warm_up + n))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
        average.update(network, warm_up)
    torch.testing.assert_close(average.network[0].weight, expected)
    assert average.network[1].num_batches_tracked == 4
    restored = MovingAverage(network, 0.25)
    restored.load_state_dict(average.state_dict())
    network[0].weight.data += 1
    average.update(network, warm_up)
    restored.update(network, warm_up)
    assert restored.network[0].weight.equal(average.network[0].weight)
