"""The best penalised critic: its value against an independent computation and networks, its optimality, its dual."""

import doctest

import numpy as np
import pytest
from scipy.optimize import minimize

from common.lines import best_critic as best
from common.lines import exact

ANCHORS = {0.1: (0.10097, 0.10050), 0.5: (0.51766, 0.50916), 1.0: (1.0601, 1.0312)}  # computed apart from this code


@pytest.mark.parametrize("theta", ANCHORS)
def test_value_on_converging_meshes(theta):
    found = [best.solve(theta, 10.0, n) for n in (8, 16, 32)]
    differences, objectives = np.array([(f.difference, f.objective) for f in found]).T
    for values, expected in zip((differences, objectives), ANCHORS[theta], strict=True):
        steps = np.diff(values)
        assert 0 < steps[1] < 0.6 * steps[0]  # a finer mesh holds more functions
        assert values[2] == pytest.approx(expected, abs=1.5e-4 * theta)
    assert all(f.residual < 1e-8 for f in found)


@pytest.mark.parametrize("weight", [1e-3, 0.1, 10.0, 1e6])
def test_it_is_at_least_the_best_function_of_x(weight):
    for theta in (0.01, 1.0):
        found = best.solve(theta, weight, 12)
        assert found.objective >= best.functions_of_x(theta, weight)[1] - 1e-12
        assert found.residual < 1e-6
    with pytest.raises(ValueError, match="positive"):
        best.solve(0.0, weight)


def test_gradient_and_curvature_are_the_derivatives():
    rng = np.random.default_rng(0)
    mesh, theta, weight = best.Mesh(6), 0.7, 3.0
    values, direction = (np.repeat(np.linspace(0, 0.8, 7), 7) + 0.05 * rng.normal(size=49), rng.normal(size=49))
    step = 1e-6
    above, below = (best.objective(values + sign * step * direction, mesh, theta, weight) for sign in (1, -1))
    gradient = best.objective(values, mesh, theta, weight)[1]
    assert gradient @ direction == pytest.approx((above[0] - below[0]) / (2 * step), rel=1e-6)
    curvature = best.hessian(values, mesh, theta, weight) @ direction
    np.testing.assert_allclose(curvature, (below[1] - above[1]) / (2 * step), rtol=1e-4, atol=1e-4)


def test_quadrature_of_the_density_and_of_sampled_points_between():
    mesh = best.Mesh(64)
    assert mesh.rho.sum() == pytest.approx(1, abs=3e-4)
    rng = np.random.default_rng(1)
    s, y, y_other = rng.random((3, 1_000_000))
    h = (1 - s) * y + s * y_other
    inside = (np.arange(50) + 0.5) / 50
    centres = np.add.outer(np.arange(8), inside).ravel() / 8
    expected = best.density(centres[:, None], centres[None]).reshape(8, 50, 8, 50).mean((1, 3)) / 64
    np.testing.assert_allclose(np.histogram2d(s, h, 8, [[0, 1], [0, 1]])[0] / len(s), expected, atol=7e-4)


def test_the_flow_of_the_dual_costs_the_same():
    """Congested transport: the least of |sigma| + |sigma|^2 / (4 lambda rho) over flows across, as sigma = 1 + curl."""
    theta, weight, n = 1.0, 10.0, 16
    mesh, inner = best.Mesh(n), np.zeros((n + 1, n + 1), bool)
    inner[1:-1, 1:-1] = True
    inner = inner.ravel()
    area, rho = 1 / (4 * n * n), mesh.rho * 4 * n * n

    def cost(potential):
        psi = np.zeros(inner.size)
        psi[inner] = potential
        x, y = 1 + mesh.d_h @ psi, -(mesh.d_s @ psi) / theta
        size = np.hypot(x, y)
        pull = theta * area * (1 / np.maximum(size, 1e-12) + theta / (2 * weight * rho))
        total = theta * area * (size + theta * size**2 / (4 * weight * rho)).sum()
        return total, (mesh.d_h.T @ (pull * x) - mesh.d_s.T @ (pull * y) / theta)[inner]

    flow = minimize(cost, np.zeros(inner.sum()), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    assert flow.fun == pytest.approx(best.solve(theta, weight, n).objective, abs=2e-3)
    assert flow.fun < cost(np.zeros(inner.sum()))[0] - 5e-3  # straight across is dearer


def test_examples_in_docstrings():
    for module in (best, exact):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed
