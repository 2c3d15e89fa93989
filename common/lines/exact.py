"""Divergences of two parallel unit segments, and of two ways to thicken them, in closed form.

P = law of (0, Y), Q = law of (theta, Y), Y uniform on [0, 1] (Arjovsky et al. 2017, arXiv 1701.07875, example 1).
All of them are in natural units (nats for KL and JS), take arrays, and keep infinity as infinity. They depend on theta
through |theta| only: the reflection x -> theta - x, applied to both laws, exchanges P and Q.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

LOG_2 = np.log(2.0)


def _distance(theta: ArrayLike) -> NDArray:
    """|theta| as float64, any shape."""
    theta = np.asarray(theta, dtype=np.float64)
    if not np.isfinite(theta).all():
        raise ValueError("theta must be finite, it holds a NaN or an infinity")
    return np.abs(theta)


def _positive(name: str, value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, not {value}")
    return float(value)


# The two lines themselves.


def total_variation(theta: ArrayLike) -> NDArray:
    """Total variation sup_A |P(A) - Q(A)|, in [0, 1]: 1 for theta != 0, else 0.

    Derivation: for theta != 0 the set A = {x = 0} has P(A) = 1 and Q(A) = 0, the largest difference there is: P and Q
    are mutually singular. For theta = 0 they are the same law.

    Args:
        theta: any shape, finite.

    Raises:
        ValueError: theta holds a NaN or an infinity (so do all functions of this module).

    >>> total_variation([0.0, 0.2]).tolist()
    [0.0, 1.0]
    """
    return np.where(_distance(theta) > 0, 1.0, 0.0)[()]


def kl(theta: ArrayLike) -> NDArray:
    """Kullback-Leibler divergence KL(P || Q) [nats]: infinity for theta != 0, else 0.

    Derivation: KL(P || Q) is the integral of log(dP/dQ) under P if P is absolutely continuous with respect to Q, and
    infinity by definition if it is not. For theta != 0 the set A = {x = 0} has Q(A) = 0 but P(A) = 1, so it is not.
    (Neither law has a density on the plane, so dividing a density by 0 proves nothing.) For theta = 0, dP/dQ = 1.

    >>> kl([0.0, 0.2]).tolist()
    [0.0, inf]
    """
    return np.where(_distance(theta) > 0, np.inf, 0.0)[()]


def reverse_kl(theta: ArrayLike) -> NDArray:
    """KL(Q || P) [nats]: infinity for theta != 0, else 0.

    Derivation: as for `kl`, with the set {x = theta}, which has P-measure 0 and Q-measure 1.

    >>> reverse_kl([0.0, 0.2]).tolist()
    [0.0, inf]
    """
    return kl(theta)


def js(theta: ArrayLike) -> NDArray:
    """Jensen-Shannon divergence [nats]: log 2 for theta != 0, else 0.

    It is (KL(P || M) + KL(Q || M)) / 2 with M = (P + Q) / 2. Derivation: both laws are absolutely continuous with
    respect to M. For theta != 0, dP/dM = 2 on {x = 0}, which carries all of P, so KL(P || M) = log 2; likewise
    KL(Q || M) on {x = theta}. For theta = 0, P = Q = M.

    It is the divergence, not its square root; `scipy.spatial.distance.jensenshannon` returns the root.

    >>> js([0.0, 0.2, 1.0]).round(4).tolist()
    [0.0, 0.6931, 0.6931]
    """
    return np.where(_distance(theta) > 0, LOG_2, 0.0)[()]


def wasserstein(theta: ArrayLike) -> NDArray:
    """Wasserstein-1 distance with Euclidean cost: |theta|, in the unit of theta.

    Derivation: moving every (0, y) to (theta, y) is a coupling of P and Q of cost |theta|, so W1 <= |theta|. The
    function f(x, y) = x is 1-Lipschitz, so by Kantorovich-Rubinstein duality W1 >= |E_Q f - E_P f| = |theta|.

    >>> wasserstein([0.0, 0.2, -1.0]).tolist()
    [0.0, 0.2, 1.0]
    """
    return _distance(theta)[()]


# Strips: both segments thickened to width w, X uniform on [0, w] and on [theta, theta + w].


def strips_total_variation(theta: ArrayLike, width: float) -> NDArray:
    """Total variation of two strips of the given width: min(|theta| / w, 1).

    Derivation: the densities are 1/w on their strips; the part of each outside the other has mass min(|theta|, w) / w.

    Raises:
        ValueError: the width is not positive and finite (so do the other functions of strips).
    """
    return np.minimum(_distance(theta) / _positive("width", width), 1.0)[()]


def strips_kl(theta: ArrayLike, width: float) -> NDArray:
    """KL of two strips [nats], either way round: infinity for theta != 0, however much they overlap, else 0.

    Derivation: part of P, of mass min(|theta| / w, 1) > 0, lies where Q has none: P is not absolutely continuous.
    """
    _positive("width", width)
    return kl(theta)


def strips_js(theta: ArrayLike, width: float) -> NDArray:
    """JS of two strips [nats]: log 2 * min(|theta| / w, 1), a ramp that becomes the jump as w -> 0.

    Derivation: where both have mass, dP/dM = 1 contributes log 1 = 0; where only P has, dP/dM = 2 contributes log 2
    times the mass min(|theta| / w, 1); Q alike.

    >>> strips_js([0.0, 0.25, 1.0], width=0.5).round(4).tolist()
    [0.0, 0.3466, 0.6931]
    """
    return LOG_2 * strips_total_variation(theta, width)


def strips_wasserstein(theta: ArrayLike, width: float) -> NDArray:
    """W1 of two strips: |theta|, for every width; the derivation of `wasserstein` holds word for word."""
    _positive("width", width)
    return wasserstein(theta)


# Blur: X normal with standard deviation sigma around 0 and around theta.


def blurred_total_variation(theta: ArrayLike, sigma: float) -> NDArray:
    """Total variation of two blurred lines: erf(|theta| / (2 sqrt(2) sigma)).

    Derivation: P is the denser one on its side of the midplane x = theta / 2; the difference of the two masses there is
    2 Phi(|theta| / (2 sigma)) - 1.

    Raises:
        ValueError: sigma is not positive and finite (so do the other functions of blurred lines).

    >>> blurred_total_variation([0.0, 1.0], sigma=0.5).round(4).tolist()
    [0.0, 0.6827]
    """
    return erf(_distance(theta) / (2 * np.sqrt(2.0) * _positive("sigma", sigma)))[()]


def blurred_kl(theta: ArrayLike, sigma: float) -> NDArray:
    """KL of two blurred lines [nats], either way round: theta^2 / (2 sigma^2), which grows to infinity as sigma -> 0.

    Derivation: log(dP/dQ) = (theta^2 - 2 theta x) / (2 sigma^2), and x has mean 0 under P.

    >>> float(blurred_kl(0.5, sigma=0.25))
    2.0
    """
    return ((_distance(theta) / _positive("sigma", sigma)) ** 2 / 2)[()]


def blurred_js(theta: ArrayLike, sigma: float) -> NDArray:
    """JS of two blurred lines [nats]: log 2 - E softplus(d U - d^2 / 2), d = |theta| / sigma, U standard normal.

    Derivation: by symmetry JS = KL(P || M) = -E_P log((1 + dQ/dP) / 2), and log(dQ/dP) at x = sigma U is d U - d^2 / 2.
    The expectation has no closed form; the trapezoid rule on [-12, 12] gives it to 1e-14, as its error falls
    exponentially for an integrand that is smooth and vanishes at both ends.
    """
    d = np.minimum(_distance(theta) / _positive("sigma", sigma), 100.0)[..., None]  # there it is log 2 to the last bit
    u = np.linspace(-12.0, 12.0, 4001)
    weight = np.exp(-(u**2) / 2) * (u[1] - u[0]) / np.sqrt(2 * np.pi)
    expected = (weight * np.logaddexp(0.0, d * u - d**2 / 2)).sum(-1)
    return np.clip(LOG_2 - expected, 0.0, LOG_2)[()]


def blurred_wasserstein(theta: ArrayLike, sigma: float) -> NDArray:
    """W1 of two blurred lines: |theta|, for every sigma; the derivation of `wasserstein` holds word for word."""
    _positive("sigma", sigma)
    return wasserstein(theta)
