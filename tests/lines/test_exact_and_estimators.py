"""Closed forms, relaxations and estimators of the divergences of two parallel lines, each against another way to it."""

import time
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.spatial.distance import cdist, jensenshannon
from scipy.stats import norm, wasserstein_distance

from common.lines import estimators, exact

LOG_2 = np.log(2)
CLOSED_FORMS = {
    exact.total_variation: 1.0,
    exact.kl: np.inf,
    exact.reverse_kl: np.inf,
    exact.js: LOG_2,
}
RELAXED = [function for name, function in vars(exact).items() if name.startswith(("strips_", "blurred_"))]


def line(x, y):
    return np.column_stack([np.full_like(y, x), y])


# Closed forms.


@pytest.mark.parametrize(("function", "apart"), CLOSED_FORMS.items())
def test_lines_that_differ_are_told_apart_however_near(function, apart):
    assert function(0) == 0
    assert function(1e-12) == function(-1e-12) == function(0.3) == apart
    values = function([[0.0, -0.5], [1.0, -0.0]])
    np.testing.assert_array_equal(values, [[0, apart], [apart, 0]])


def test_wasserstein_is_the_distance_of_the_lines():
    np.testing.assert_array_equal(exact.wasserstein([-1, 0, 1e-12, 0.3]), [1, 0, 1e-12, 0.3])


@pytest.mark.parametrize("theta", [np.nan, np.inf, -np.inf, [0.1, np.nan]])
@pytest.mark.parametrize("function", [*CLOSED_FORMS, exact.wasserstein])
def test_theta_that_is_not_finite_is_refused(function, theta):
    with pytest.raises(ValueError, match="theta must be finite"):
        function(theta)


def test_scipy_returns_the_square_root_of_js():
    disjoint = jensenshannon([1, 0], [0, 1])
    assert disjoint == pytest.approx(np.sqrt(exact.js(1.0)))
    assert disjoint**2 == pytest.approx(exact.js(1.0))


# Relaxations.


@pytest.mark.parametrize("function", RELAXED)
def test_relaxations_are_even_zero_at_zero_and_refuse_impossible_input(function):
    assert function(0, 0.2) == 0
    np.testing.assert_array_equal(function([-0.1, -3], 0.2), function([0.1, 3], 0.2))
    for width in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="must be positive and finite"):
            function(0.1, width)
    with pytest.raises(ValueError, match="theta must be finite"):
        function(np.nan, 0.2)


@pytest.mark.parametrize("theta", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_blurred_lines_match_numerical_integration(theta, sigma):
    def p(x):
        return norm.pdf(x, 0, sigma)

    def q(x):
        return norm.pdf(x, theta, sigma)

    def integral(function):
        points = [0, theta / 2, theta]
        return quad(function, -9 * sigma, theta + 9 * sigma, points=points, limit=500, epsabs=1e-12)[0]

    def log_ratio(x):
        return norm.logpdf(x, 0, sigma) - norm.logpdf(x, theta, sigma)

    kl = integral(lambda x: p(x) * log_ratio(x))
    js = integral(lambda x: p(x) * (LOG_2 - np.logaddexp(0, -log_ratio(x))))
    assert exact.blurred_kl(theta, sigma) == pytest.approx(kl, rel=1e-9)
    assert exact.blurred_js(theta, sigma) == pytest.approx(js, abs=1e-10)
    variation = integral(lambda x: abs(p(x) - q(x))) / 2
    assert exact.blurred_total_variation(theta, sigma) == pytest.approx(variation, abs=1e-7)


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.25, 0.7])
def test_strips_match_a_histogram(theta):
    cells, width = 1000, 0.25  # cells of 0.001, whose edges are those of the strips
    p, q = np.zeros(cells), np.zeros(cells)
    p[:250] = 1 / 250
    q[round(1000 * theta) : round(1000 * theta) + 250] = 1 / 250
    assert exact.strips_js(theta, width) == pytest.approx(jensenshannon(p, q) ** 2)
    assert exact.strips_total_variation(theta, width) == pytest.approx(abs(p - q).sum() / 2)
    x = np.arange(cells) / 1000
    assert exact.strips_wasserstein(theta, width) == pytest.approx(wasserstein_distance(x, x, p, q))
    assert exact.strips_kl(theta, width) == (np.inf if theta else 0)


@pytest.mark.parametrize("theta", [0.01, 0.2, 1.0])
def test_relaxations_converge_monotonically_to_the_lines(theta):
    widths = [3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4]
    for relaxed in (exact.strips_js, exact.blurred_js):
        values = np.array([relaxed(theta, width) for width in widths])
        moving = values < LOG_2
        assert (np.diff(values)[moving[1:]] > 0).all()
        assert (values[moving.argmin() :] == LOG_2).all()
        assert values[-1] == exact.js(theta)
    kl = np.array([exact.blurred_kl(theta, sigma) for sigma in widths])
    assert (np.diff(kl) > 0).all()
    assert kl[-1] > 1000
    for same in (exact.strips_wasserstein, exact.blurred_wasserstein):
        assert {same(theta, width) for width in widths} == {theta}


# Wasserstein distance of samples.

heights = st.integers(1, 30).flatmap(lambda n: arrays(np.float64, (2, n), elements=st.floats(-3, 3, width=32)))


@given(heights, st.floats(-2, 2))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_sorted_matching_is_optimal(y, theta):
    points, others = line(0, y[0]), line(theta, y[1])
    matched = estimators.matched_wasserstein(*y, theta)
    assert matched == pytest.approx(estimators.transport_wasserstein(points, others), abs=1e-9)
    assert matched == pytest.approx(estimators.assignment_wasserstein(points, others), abs=1e-9)


def test_sorted_matching_is_optimal_for_a_thousand_points():
    y = np.random.default_rng(0).random((2, 1000))
    for theta in (0.0, 0.01, 1.0):
        points, others = line(0, y[0]), line(theta, y[1])
        matched = estimators.matched_wasserstein(*y, theta)
        assert matched == pytest.approx(estimators.transport_wasserstein(points, others), abs=1e-9)
        assert matched == pytest.approx(estimators.assignment_wasserstein(points, others), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_metric_on_samples(seed):
    rng = np.random.default_rng(seed)
    w1 = estimators.matched_wasserstein
    first, second, third = rng.random((3, 50))
    a, b = rng.uniform(-1, 1, 2)  # lines at 0, a and b
    assert w1(first, second, a) == w1(second, first, -a) > abs(a)
    assert w1(first, rng.permutation(first), 0) == 0
    assert w1(first, rng.permutation(first), a) == pytest.approx(abs(a), abs=1e-15)  # common heights: no bias
    assert w1(first, third, b) <= w1(first, second, a) + w1(second, third, b - a)


def test_a_million_points_take_little_longer_than_to_sort_them():
    """A ratio, the best of several, since machines are of all speeds and busy."""
    y = np.random.default_rng(0).random((2, 1_000_000))
    sorting, matching = [], []
    for _ in range(5):
        start = time.perf_counter()
        np.sort(y)
        sorted_at = time.perf_counter()
        assert estimators.matched_wasserstein(*y, 0.5) == pytest.approx(0.5, abs=1e-5)
        sorting.append(sorted_at - start)
        matching.append(time.perf_counter() - sorted_at)
    assert min(matching) < 4 * min(sorting)


@pytest.mark.parametrize(
    ("y", "other", "theta", "said"),
    [
        ([], [], 0.5, "same size"),
        ([0.1], [0.1, 0.2], 0.5, "same size"),
        ([[0.1]], [[0.2]], 0.5, "same size"),
        ([np.nan], [0.1], 0.5, "finite"),
        ([0.1], [np.inf], 0.5, "finite"),
        ([0.1], [0.1], np.nan, "finite"),
    ],
)
def test_impossible_samples_are_refused(y, other, theta, said):
    with pytest.raises(ValueError, match=said):
        estimators.matched_wasserstein(np.array(y), np.array(other), theta)


# The finite-sample laws.


def test_the_law_on_one_line_is_exact():
    # Every order in which n heights of each sample can alternate is equally likely, and the gaps have equal means.
    for n in (1, 2, 3, 4, 5):
        orders = [[(k >> i) & 1 for i in range(2 * n)] for k in range(4**n)]
        areas = [abs(np.cumsum([2 * s - 1 for s in order])).sum() for order in orders if sum(order) == n]
        assert len(areas) == comb(2 * n, n)
        expected = np.mean(areas) / n / (2 * n + 1)
        assert estimators.expected_wasserstein_same_line(n) == pytest.approx(expected, rel=1e-12)
    large = estimators.expected_wasserstein_same_line(np.array([1e4, 1e8]))
    np.testing.assert_allclose(large, np.sqrt(np.pi) / 4 / np.sqrt([1e4, 1e8]), rtol=1e-4)


@pytest.mark.parametrize("n", [3, 30, 300])
def test_the_laws_hold_within_their_sampling_error(n):
    rng, repeats = np.random.default_rng(n), 4000
    pairs = rng.random((repeats, 2, n))

    def mean(theta):
        values = np.array([estimators.matched_wasserstein(*pair, theta) - theta for pair in pairs])
        return values.mean(), values.std(ddof=1) / np.sqrt(repeats)

    value, error = mean(0.0)
    assert abs(value - estimators.expected_wasserstein_same_line(n)) < 4 * error
    assert error < 0.02 * value
    for theta in (0.05, 1.0, 30.0):
        value, error = mean(theta)
        bound = estimators.wasserstein_bias(theta, n)
        assert value - 4 * error < bound  # an upper bound for every n and theta
        assert estimators.wasserstein_bias(-theta, n) == bound
        if theta == 30:  # far apart, where it is tight
            assert abs(value - bound) < 4 * error


# Nearest neighbours.


def knn_kl_by_hand(points, others, k):
    within = np.sort(cdist(points, points), axis=1)[:, k]
    across = np.sort(cdist(points, others), axis=1)[:, k - 1]
    ratio = len(others) * across ** points.shape[1] / ((len(points) - 1) * within ** points.shape[1])
    return np.log(ratio).mean()


def test_knn_kl_is_its_formula():
    rng = np.random.default_rng(1)
    for d, k in ((1, 1), (2, 5), (3, 2)):
        points, others = rng.normal(size=(40, d)), rng.normal(size=(60, d))
        assert estimators.knn_kl(points, others, k) == pytest.approx(knn_kl_by_hand(points, others, k))


def test_knn_kl_finds_that_of_two_normal_laws():
    rng = np.random.default_rng(2)
    values = []
    for _ in range(10):
        points, others = rng.normal(size=(2, 2000, 2))
        values.append(estimators.knn_kl(points, others + np.array([1.0, 0.0])))
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)


def test_knn_kl_of_two_lines_grows_without_limit():
    def estimate(n, theta):
        y = np.random.default_rng(n).random((2, n))
        return estimators.knn_kl(line(0, y[0]), line(theta, y[1]))

    for theta in (0.1, 1.0):
        growth = np.diff([estimate(n, theta) for n in (1000, 10_000, 100_000)])
        np.testing.assert_allclose(growth, 2 * np.log(10), atol=0.15)
    assert estimate(10_000, 0.0) == pytest.approx(0, abs=0.1)


def test_knn_kl_refuses_what_has_no_estimate():
    y = np.arange(10.0)
    with pytest.raises(ValueError, match="needs more than k points"):
        estimators.knn_kl(line(0, y), line(1, y), k=10)
    with pytest.raises(ValueError, match="needs more than k points"):
        estimators.knn_kl(line(0, y), line(1, y[:2]), k=3)
    with pytest.raises(ValueError, match="more than k times"):
        estimators.knn_kl(line(0, 0 * y), line(1, y), k=3)
    with pytest.raises(ValueError, match="more than k times"):
        estimators.knn_kl(line(0, y), line(0, y), k=1)
