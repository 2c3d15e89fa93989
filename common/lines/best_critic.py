"""The best critic under the gradient penalty, for two lines theta apart: what `critic_loss` tends to if trained well.

The critic f maximises

    E_P f - E_Q f - lambda E (|grad f| - 1)^2                                  (Gulrajani et al. 2017, equation 3)

where the last mean is over the points between: (theta s, (1 - s) y + s y') with s, y, y' independent, uniform on
[0, 1]. Given s, their height is the sum of two uniform variables, so it has the trapezoidal density

    rho(s, h) = min(h, 1 - h, s, 1 - s) / (s (1 - s)),

which falls to 0 at h = 0 and h = 1: there a large gradient is cheap. Among functions of x alone the best slope is
1 + theta / (2 lambda), for any rho. A critic that depends on the height too does better.

The dual is a problem of congested transport (Carlier, Jimenez, Santambrogio 2008, SIAM J. Control Optim. 47(3)):
mass flows from P to Q along a field sigma with the least total of |sigma| + |sigma|^2 / (4 lambda rho). It is W1 and a
toll that is high where rho is small, so the flow bends towards the middle heights. The best critic falls along the
flow, |grad f| = 1 + |sigma| / (2 lambda rho) wherever sigma != 0. As this is at least 1, the penalty may be replaced by
its convex envelope lambda (|grad f| - 1)_+^2, which makes the problem concave.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

GAUSS = np.array([-1, 1]) / np.sqrt(12) + 0.5  # two nodes on [0, 1], equal weights


@dataclass(frozen=True)
class BestCritic:
    """A maximiser f = -values on an (n + 1) x (n + 1) mesh of (x / theta, y), and what it attains."""

    values: NDArray  # [n + 1, n + 1], first index x / theta, second y; growing from P to Q
    difference: float  # E_P f - E_Q f
    objective: float  # the difference minus the penalty
    slope: float  # mean of -df/dx over the line x = theta: what a generator there feels
    residual: float  # largest entry of the objective's gradient; 0 at the maximum


def density(s: NDArray, h: NDArray) -> NDArray:
    """Density of the points between the lines at (theta s, h), times theta: 0 < s < 1, 0 <= h <= 1."""
    return np.minimum(np.minimum(h, 1 - h), np.minimum(s, 1 - s)) / (s * (1 - s))


def functions_of_x(theta: float, gradient_penalty: float) -> tuple[float, float]:
    """Difference of means and objective of the best critic among the functions of x alone.

    A critic of slope k gains k |theta| and pays lambda (k - 1)^2: largest at k = 1 + |theta| / (2 lambda). As x is
    uniform between the lines, a slope that varies with x does no better. The objective is a lower bound of `solve`'s.

    >>> functions_of_x(1.0, 10.0)
    (1.05, 1.025)
    """
    excess = theta**2 / (2 * gradient_penalty)
    return abs(theta) + excess, abs(theta) + excess / 2


class Mesh:
    """Bilinear elements on [0, 1]^2, n x n squares, with 2 x 2 Gauss points in each (4 n^2 points in all).

    Attributes:
        d_s, d_h: sparse matrices [points, nodes], the two partial derivatives at the Gauss points.
        rho: density at the Gauss points times their weight, [points].
        gain: [nodes], with gain @ F = the mean of F over s = 1 minus that over s = 0.
    """

    def __init__(self, n: int) -> None:
        nodes = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
        corners = [nodes[i : n + i, j : n + j].ravel() for i in (0, 1) for j in (0, 1)]
        derivatives_s: list[sparse.csr_array] = []
        derivatives_h: list[sparse.csr_array] = []
        points = []
        rows = np.arange(n * n)
        for a in GAUSS:
            for b in GAUSS:
                slopes = (
                    [-(1 - b) * n, -b * n, (1 - b) * n, b * n],  # d/ds of the four shape functions
                    [-(1 - a) * n, (1 - a) * n, -a * n, a * n],  # d/dh
                )
                for slope, derivatives in zip(slopes, (derivatives_s, derivatives_h), strict=True):
                    entries = np.repeat(slope, n * n), (np.tile(rows, 4), np.concatenate(corners))
                    derivatives.append(sparse.csr_array(entries, shape=(n * n, nodes.size)))
                points.append([(rows // n + a) / n, (rows % n + b) / n])
        self.d_s, self.d_h = sparse.vstack(derivatives_s).tocsr(), sparse.vstack(derivatives_h).tocsr()
        s, h = np.concatenate(points, axis=1)
        self.rho = density(s, h) / (4 * n * n)
        trapezoid = np.full(n + 1, 1 / n)
        trapezoid[[0, -1]] /= 2
        self.gain = np.concatenate([-trapezoid, np.zeros((n - 1) * (n + 1)), trapezoid])


def objective(values: NDArray, mesh: Mesh, theta: float, gradient_penalty: float) -> tuple[float, NDArray]:
    """gain - lambda E (|grad f| - 1)_+^2 of nodal values [nodes], and its gradient [nodes]."""
    slope_x, slope_y = mesh.d_s @ values / theta, mesh.d_h @ values
    size = np.hypot(slope_x, slope_y)
    excess = np.maximum(size - 1, 0)
    value = mesh.gain @ values - gradient_penalty * (mesh.rho @ excess**2)
    pull = 2 * gradient_penalty * mesh.rho * excess / np.maximum(size, 1)
    return float(value), mesh.gain - mesh.d_s.T @ (pull * slope_x) / theta - mesh.d_h.T @ (pull * slope_y)


def hessian(values: NDArray, mesh: Mesh, theta: float, gradient_penalty: float) -> sparse.csc_array:
    """Minus the second derivative of `objective`, [nodes, nodes], positive semidefinite."""
    slope_x, slope_y = mesh.d_s @ values / theta, mesh.d_h @ values
    size = np.maximum(np.hypot(slope_x, slope_y), 1e-12)
    weight = 2 * gradient_penalty * mesh.rho * (size > 1)
    across = 1 - 1 / size  # curvature across the gradient; along it, it is 1
    along = (1 - across) / size**2
    d_x, d_y = mesh.d_s / theta, mesh.d_h
    xx, yy = weight * (across + along * slope_x**2), weight * (across + along * slope_y**2)
    xy = sparse.diags_array(weight * along * slope_x * slope_y)
    mixed = d_x.T @ xy @ d_y
    return (d_x.T @ sparse.diags_array(xx) @ d_x + d_y.T @ sparse.diags_array(yy) @ d_y + mixed + mixed.T).tocsc()


def solve(theta: float, gradient_penalty: float, n: int = 32, tolerance: float = 1e-9) -> BestCritic:
    """Maximise the objective by Newton's method with halved steps, from the best function of x.

    Args:
        theta: distance of the lines, > 0.
        gradient_penalty: lambda.
        n: squares along each side of the mesh; at n = 32 the difference is within 2e-4 of its limit.
        tolerance: the gradient at which to stop.

    Raises:
        ValueError: theta or lambda is not positive and finite.
    """
    if not (np.isfinite(theta) and theta > 0 and np.isfinite(gradient_penalty) and gradient_penalty > 0):
        raise ValueError(f"theta and lambda must be positive and finite, not {theta} and {gradient_penalty}")
    mesh = Mesh(n)
    s = np.linspace(0, 1, n + 1)
    values = np.repeat(functions_of_x(theta, gradient_penalty)[0] * s, n + 1)
    value, gradient = objective(values, mesh, theta, gradient_penalty)
    for _ in range(100):
        if np.abs(gradient).max() < tolerance:
            break
        curvature = hessian(values, mesh, theta, gradient_penalty)
        ridge = 1e-10 * curvature.diagonal().max()  # constants change nothing, and rho may leave a node almost free
        step = splu((curvature + ridge * sparse.eye_array(len(values))).tocsc()).solve(gradient)
        size = 1.0
        while size > 1e-10:
            candidate = values + size * step
            new_value, new_gradient = objective(candidate, mesh, theta, gradient_penalty)
            if new_value >= value + 1e-4 * size * (gradient @ step) - 1e-14:
                break
            size /= 2
        values, value, gradient = candidate, new_value, new_gradient
    grid = values.reshape(n + 1, n + 1)
    rises = (grid[-1] - grid[-2]) * n / theta
    slope = float((rises[1:] + rises[:-1]).mean() / 2)
    return BestCritic(grid, float(mesh.gain @ values), value, slope, float(np.abs(gradient).max()))
