"""KL, JS and W1 of samples in the plane against closed forms, quadrature and their floors; coverage."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr, xlogy

from common.plane import measures
from common.plane.measures import CELLS, counts, coverage, discriminator_gap, exact_w1, js, kl, optimal_accuracy
from common.plane.targets import TARGETS
from common.run import rng_for

N = 20_000


def gaussian(mean, spread, n=N, step=0):
    return torch.tensor(mean) + spread * torch.randn(n, 2, generator=rng_for(0, "test", step))


def cell_masses(mean, spread):
    """The exact mass of N(mean, spread^2 I) in every cell and outside."""
    edges = np.linspace(0, 1, CELLS + 1)
    x, y = (np.diff(ndtr((edges - m) / spread)) for m in mean)
    inside = np.outer(y, x).ravel()
    return np.append(inside, 1 - inside.sum())


def test_cells_hold_the_whole_mass():
    x = torch.tensor([[0.0, 0.0], [0.999, 0.0], [0.0, 0.04], [1.0, 0.5], [-1e-6, 0.5], [0.5, 40.0], [math.inf, 0.5]])
    table = counts(x)
    assert len(table) == CELLS**2 + 1
    assert float(table.sum()) == len(x)
    assert table[[0, CELLS - 1, CELLS]].tolist() == [1, 1, 1]
    assert float(table[-1]) == 4  # GAN Lab loses what leaves the square


def test_divergence_of_one_distribution_is_at_the_floor_of_its_sample_size():
    """With K cells of equal mass JS of two samples of size n has mean (K - 1) / (4 n) to first order."""
    first, other = (counts(torch.rand(N, 2, generator=rng_for(0, "test", step))) for step in range(2))
    assert js(first, other) == pytest.approx((CELLS**2 - 1) / (4 * N), rel=0.15)
    assert js(first, first) == kl(first, first) == 0
    assert optimal_accuracy(first, first) == 0.5


def test_divergence_of_disjoint_samples_is_log_2():
    first, other = counts(gaussian((0.2, 0.2), 0.02)), counts(gaussian((0.8, 0.8), 0.02))
    assert js(first, other) == pytest.approx(math.log(2), abs=1e-12)
    assert optimal_accuracy(first, other) == 1
    assert 5 < kl(first, other) < math.log(2 * N)  # infinite in truth: large, yet finite
    outside = counts(gaussian((5.0, 5.0), 0.1))
    assert js(first, outside) == pytest.approx(math.log(2), abs=1e-12)


def test_divergences_of_two_gaussians_match_quadrature():
    first, other = ((0.42, 0.5), 0.1), ((0.58, 0.55), 0.12)
    p, q = cell_masses(*first), cell_masses(*other)
    middle = (p + q) / 2
    quadrature_js = (xlogy(p, p / middle) + xlogy(q, q / middle)).sum() / 2
    quadrature_kl = (p * np.log(p / q)).sum()
    ratio, shift = 0.1**2 / 0.12**2, 0.16**2 + 0.05**2
    closed_kl = ratio - 1 + shift / (2 * 0.12**2) - math.log(ratio)
    assert quadrature_kl == pytest.approx(closed_kl, rel=0.02)  # the cells hide little

    n = 400_000
    a, b = counts(gaussian(*first, n, 0)), counts(gaussian(*other, n, 1))
    assert kl(a, b) == pytest.approx(quadrature_kl, rel=0.02)
    assert js(a, b) == pytest.approx(quadrature_js, rel=0.02)
    assert optimal_accuracy(a, b) == pytest.approx(0.5 + np.abs(p - q).sum() / 4, abs=0.003)


def test_divergences_are_of_normalised_mass():
    """GAN Lab adds mass and never normalises again; here the size of a sample does not matter to JS, and KL >= 0."""
    first, other = counts(gaussian((0.4, 0.5), 0.1)), counts(gaussian((0.6, 0.5), 0.1, step=1))
    assert js(first, 3 * other) == pytest.approx(js(first, other), rel=1e-12)
    assert js(first, other) == js(other, first)
    assert kl(first, torch.zeros_like(first)) > 0
    assert kl(torch.zeros_like(first), torch.ones_like(first)) == pytest.approx(0, abs=1e-12)


def test_gap_to_the_optimal_discriminator():
    real, fake = gaussian((0.4, 0.5), 0.1), gaussian((0.6, 0.5), 0.1, step=1)
    p, q = counts(real), counts(fake)
    optimal = [(p / (p + q))[measures.cell_of(x)] for x in (real, fake)]
    assert discriminator_gap(real, fake, *optimal) == 0
    assert discriminator_gap(real, fake, *[o + 0.1 for o in optimal]) == pytest.approx(0.1)
    assert discriminator_gap(real, fake, *[1 - o for o in optimal]) > 0.5
    far = gaussian((0.9, 0.1), 0.01)
    assert discriminator_gap(real, far, 1.0, 0.0) == 0
    assert discriminator_gap(real, far, 0.5, 0.5) == 0.5


def test_exact_transport():
    x = torch.rand(300, 2, generator=rng_for(0, "test", 0))
    assert exact_w1(x, x + torch.tensor([0.3, -0.4])) == pytest.approx(0.5, rel=1e-6)
    line = torch.zeros(200, 2)
    line[:, 0] = torch.rand(200, generator=rng_for(0, "test", 1))
    other = line.clone()
    other[:, 0] = torch.rand(200, generator=rng_for(0, "test", 2))
    in_order = (line[:, 0].sort().values - other[:, 0].sort().values).abs().double().mean()
    assert exact_w1(line, other) == pytest.approx(float(in_order), rel=1e-5)


@pytest.mark.parametrize("name, within", [
    ("gaussians", 1 - math.exp(-4.5)), ("disjoint", 1 - math.exp(-4.5)), ("eight", 1 - math.exp(-4.5)),
    ("grid", 1 - math.exp(-4.5)), ("line", math.erf(3 / math.sqrt(2))), ("ring", math.erf(3 / math.sqrt(2))),
])  # fmt: skip
def test_coverage_of_real_samples(name, within):
    target = TARGETS[name]
    modes, quality = coverage(target, target.sample(N, rng_for(0, "test", 0)))
    assert modes == target.parts
    assert quality == pytest.approx(within, abs=0.004)


def test_coverage_sees_collapse():
    target = TARGETS["grid"]
    x = target.sample(N, rng_for(0, "test", 0))
    part, _ = target.nearest(x)
    assert coverage(target, x[part == 7])[0] == 1
    assert coverage(target, x[part < 5])[0] == 5
    few = torch.cat([x[part == 7], x[part == 8][:40]])  # 5 % of a fair share is not yet a mode
    assert coverage(target, few[:800])[0] == 1
    assert coverage(target, x + 0.05)[0] == 0


def test_floor_is_that_of_two_fresh_samples():
    rows = measures.floor(TARGETS["ring"], 5000, 200, 4, lambda draw: rng_for(0, "floors", draw))
    assert [row["draw"] for row in rows] == [0, 1, 2, 3]
    assert len({row["w1"] for row in rows}) == 4
    for row in rows:
        assert 0 < row["js"] < 0.05
        assert 0 < row["w1"] < 0.1
        assert row["modes"] == 10
        assert 0 < row["discriminator_gap"] < 0.15
