"""Divergences from samples: exact W1 of two parallel lines, its finite-sample laws, k-nearest-neighbour KL."""

import numpy as np
import ot
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import gammaln


def matched_wasserstein(y: NDArray, y_other: NDArray, theta: float) -> float:
    """W1, Euclidean cost, of the samples {(0, y_i)} and {(theta, y'_i)}, exactly, in O(n log n).

    W1 = (1/n) sum_i sqrt(theta^2 + (y_(i) - y'_(i))^2) over the order statistics: with equal weights an optimal plan is
    a permutation, and as the cost is a convex function of y - y', exchanging the partners of a crossing pair never
    costs more, so matching in sorted order is optimal. For theta = 0 it is the W1 of two samples on the real line.

    Args:
        y, y_other: heights, [n] each, in any order.
        theta: horizontal distance of the lines, any sign.

    Returns:
        the distance, at least |theta|.

    Raises:
        ValueError: the samples are empty, differ in size, or hold a NaN or an infinity.
    """
    y, y_other = np.asarray(y, dtype=np.float64), np.asarray(y_other, dtype=np.float64)
    if y.ndim != 1 or y.shape != y_other.shape or not y.size:
        raise ValueError(f"two samples of the same size n >= 1 are needed, not shapes {y.shape} and {y_other.shape}")
    if not (np.isfinite(theta) and np.isfinite(y).all() and np.isfinite(y_other).all()):
        raise ValueError("the samples and theta must be finite")
    return float(np.hypot(theta, np.sort(y) - np.sort(y_other)).mean())


def transport_wasserstein(points: NDArray, others: NDArray) -> float:
    """The same distance from the general linear program, for any points: POT's network simplex `ot.emd2`.

    The distances are not those of `ot.dist`, which lose half of the digits of a short one to cancellation.

    Args:
        points, others: [n, d] and [m, d], equal weights within each.
    """
    return float(ot.emd2([], [], cdist(points, others), numItermax=10_000_000))


def assignment_wasserstein(points: NDArray, others: NDArray) -> float:
    """The same distance as an assignment problem (scipy), for two samples of the same size, [n, d] each."""
    cost = cdist(points, others)
    return float(cost[linear_sum_assignment(cost)].mean())


def expected_wasserstein_same_line(n: ArrayLike) -> NDArray:
    """E W1 of two independent samples of size n of U(0, 1), exactly: 4^n / (2 (2n + 1) binom(2n, n)).

    It tends to (sqrt(pi) / 4) / sqrt(n). Derivation: W1 is the integral of |F_n - G_n|. Merge both samples: the 2n - 1
    inner gaps have mean 1 / (2n + 1) each and are independent of the order in which the two samples alternate; over the
    k-th gap |F_n - G_n| = |S_k| / n, S a simple random walk conditioned to return to 0 after 2n steps, and the mean
    area under |S| is n 4^n / (2 binom(2n, n)).

    Args:
        n: sample sizes, >= 1, any shape.
    """
    n = np.asarray(n, dtype=np.float64)
    log_binomial = gammaln(2 * n + 1) - 2 * gammaln(n + 1)
    return np.exp(n * np.log(4.0) - log_binomial) / (2 * (2 * n + 1))


def wasserstein_bias(theta: ArrayLike, n: ArrayLike) -> NDArray:
    """The leading term of E W1 - |theta| for samples of size n on lines theta != 0 apart: 1 / (6 |theta| (n + 1)).

    It is an upper bound for every n, tight for |theta| >> 1/sqrt(n). Derivation: sqrt(t^2 + e^2) <= t + e^2 / (2 t),
    and e = y_(i) - y'_(i) has E e^2 = 2 i (n + 1 - i) / ((n + 1)^2 (n + 2)), whose mean over i is 1 / (3 (n + 1)).
    """
    return 1 / (6 * np.abs(theta) * (np.asarray(n, dtype=np.float64) + 1))


def knn_kl(points: NDArray, others: NDArray, k: int = 5) -> float:
    """k-nearest-neighbour estimate of KL(P || Q) from a sample of each [nats].

    (d/n) sum_i log(nu_k(i) / rho_k(i)) + log(m / (n - 1)), rho_k(i) the distance of the i-th point of P to its k-th
    neighbour in P, nu_k(i) that to its k-th neighbour in Q (Wang, Kulkarni, Verdú 2009, IEEE Trans. Inf. Theory
    55(5); k = 1: Pérez-Cruz 2008). It is consistent where both laws have densities. On two separate lines nu stays at
    about |theta| while rho shrinks like 1/n, so it grows by d log 10 per decade of n: it has no limit, as KL has none.

    Args:
        points, others: samples of P and Q, [n, d] and [m, d], n > k and m >= k, without repeated points.
        k: which neighbour, >= 1.

    Returns:
        the estimate; it may be negative.

    Raises:
        ValueError: a sample is too small or holds a point more than k times (then the estimate is undefined).
    """
    (n, d), m = points.shape, len(others)
    if k < 1 or n <= k or m < k:
        raise ValueError(f"k = {k} needs more than k points of P and at least k of Q, not {n} and {m}")
    within = cKDTree(points).query(points, k=[k + 1])[0][:, 0]  # the nearest "neighbour" of a point is itself
    across = cKDTree(others).query(points, k=[k])[0][:, 0]
    if not (within.all() and across.all()):
        raise ValueError("a point occurs more than k times, so a distance is 0 and its logarithm undefined")
    return float(d * np.log(across / within).mean() + np.log(m / (n - 1)))
