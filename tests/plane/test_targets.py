"""Targets: samplers against densities and closed forms; distances to the centres; networks."""

import math

import pytest
import torch

from common.plane.networks import Discriminator, Generator
from common.plane.targets import TARGETS
from common.run import rng_for

N = 20_000


def plane(target, margin: float = 6.0):
    """Points [n, 2] of a square lattice that covers the target, and the area of a cell.

    At a step of 0.8 of the smallest standard deviation the trapezoidal rule is exact to 1e-12 for Gaussians.
    """
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    centre, spread = target.centre(u), target.spread(u)
    step = 0.8 * float(spread.min())
    low, high = (centre - margin * spread).amin(0), (centre + margin * spread).amax(0)
    axes = [torch.arange(float(a), float(b), step, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes), step**2


@pytest.mark.parametrize("name", TARGETS)
def test_samples_follow_the_density(name):
    target = TARGETS[name]
    x, area = plane(target)
    mass = target.density(x) * area
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    samples = target.sample(N, rng_for(0, "test", 0)).double()

    mean = mass @ x
    covariance = (x - mean).T @ ((x - mean) * mass[:, None])
    for axis in range(2):
        error = math.sqrt(covariance[axis, axis] / N)
        assert float(samples[:, axis].mean()) == pytest.approx(float(mean[axis]), abs=5 * error)
    assert torch.allclose(samples.T.cov(), covariance, rtol=0.05, atol=5e-4)

    # The mean density at the samples is the integral of its square, which sees the shape that moments do not.
    there = target.density(samples)
    assert float(there.mean()) == pytest.approx(float(mass @ mass) / area, abs=5 * float(there.std()) / math.sqrt(N))


@pytest.mark.parametrize("name, mean, variance", [
    ("line", (0.8 - 0.75 / 2, 0.6 + 0.3 / 2), (0.75**2 / 12 + 0.01**2, 0.3**2 / 12 + 0.01**2)),
    ("gaussians", (0.5, 0.55), (0.2**2 + (0.1**2 + 0.05**2) / 2, 0.15**2 + (0.1**2 + 0.2**2) / 2)),
    ("ring", (0.5, 0.45), (0.3**2 / 2 + 0.025**2, 0.25**2 / 2 + 0.025**2)),
    ("disjoint", (1.55 / 3, 1.7 / 3), (0.26 / 9 + 0.025**2, 0.245 / 9 + 0.025**2)),
    ("eight", (0.5, 0.5), (0.4**2 / 2 + 0.004**2, 0.4**2 / 2 + 0.004**2)),
    ("grid", (0.5, 0.5), (0.2**2 * 2 + 0.005**2, 0.2**2 * 2 + 0.005**2)),
])  # fmt: skip
def test_targets_are_those_of_the_papers(name, mean, variance):
    """Moments worked out by hand from GAN Lab's and the mode-collapse papers' formulas."""
    x, area = plane(TARGETS[name])
    mass = TARGETS[name].density(x) * area
    found = mass @ x
    assert found.tolist() == pytest.approx(mean, abs=1e-6)
    assert (mass @ (x - found) ** 2).tolist() == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("name", TARGETS)
def test_nearest_part_and_distance(name):
    target = TARGETS[name]
    u = (torch.arange(target.parts) + 0.5) / target.parts
    direction = torch.tensor([[0.6, 0.8]]) if name == "ring" else torch.tensor([[0.3, 0.75]])  # off the line's own
    direction = direction / direction.norm()
    if name == "ring":  # outwards from the ellipse, along its normal
        angle = 2 * math.pi * u
        direction = torch.stack([0.25 * angle.cos(), 0.3 * angle.sin()], 1)
        direction = direction / direction.norm(dim=1, keepdim=True)
    part, distance = target.nearest(target.centre(u) + 2 * direction * target.spread(u))
    assert part.tolist() == list(range(target.parts))
    assert distance.tolist() == pytest.approx([2.0] * target.parts, rel=0.02)


def test_sampling_is_a_function_of_the_generator():
    first, again, other = (TARGETS["ring"].sample(100, rng_for(0, "test", step)) for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("centred", [True, False])
def test_networks(centred):
    def build(seed):
        rngs = [rng_for(seed, "weights", 0)]
        return Generator(2, 8, 2, centred, rngs), Discriminator(8, 2, 0.2, centred, rngs)

    generator, discriminator = build(0)
    z = 100 * torch.randn(1, 50, 2, generator=rng_for(0, "test", 0))
    x = generator(z)
    assert x.shape == (1, 50, 2)
    assert discriminator(x).shape == (1, 50)
    assert bool((x.abs() <= 1).all()) != centred  # tanh only in raw coordinates
    assert [tuple(weight.shape) for weight in generator.layers.weights] == [(1, 2, 8), (1, 8, 8), (1, 8, 2)]
    assert torch.equal(build(0)[0](z), x)
    assert not torch.equal(build(1)[0](z), x)
