"""The tables beside the answers of Q1: relaxed lines, laws of finite samples, seconds, the best penalised critic.

Each function yields the rows of one table, `<its name>.csv`, from the script's settings and its run.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from common.lines import best_critic as best
from common.lines import estimators, exact
from common.run import Run, rng_for

Rows = Iterator[dict[str, Any]]
WIDTHS = (0.5, 0.2, 0.05, 0.01)  # widths of strips and standard deviations of blur
MESHES = (16, 32, 64)
TELL_SECONDS = 5.0


def pieces(run: Run, name: str, items: Sequence[Any]) -> Iterator[Any]:
    """Yield the items of a long piece of work; between any two heed signals, every 5 seconds print how far it is."""
    told = time.monotonic()
    for i, item in enumerate(items):
        run.stop_if_asked()
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            run.say(f"{name}: {i:,} of {len(items):,}")
        yield item


def numpy_rng(seed: int, stream: str, step: int) -> np.random.Generator:
    """NumPy's generator for one step, as pure a function of `(seed, stream, step)` as torch's."""
    return np.random.default_rng(rng_for(seed, stream, step).initial_seed())


def line(x: float, y: np.ndarray) -> np.ndarray:
    """The points (x, y_i), [n, 2]."""
    return np.column_stack([np.full_like(y, x), y])


def sizes(low: int, high: int) -> list[int]:
    """Two sizes per decade, 1 and 3 times a power of ten, from low to high."""
    return [n for power in range(8) for n in (10**power, 3 * 10**power) if low <= n <= high]


def relaxations(config: Any, run: Run) -> Rows:
    """KL, JS and W1 of strips and of blurred lines, which have densities, as both shrink to lines."""
    kinds = {
        "strips": (exact.strips_kl, exact.strips_js, exact.strips_wasserstein),
        "blur": (exact.blurred_kl, exact.blurred_js, exact.blurred_wasserstein),
    }
    for kind, functions in kinds.items():
        for width in WIDTHS:
            for theta in np.linspace(0, 1, 101).tolist():
                kl, js, wasserstein = (float(function(theta, width)) for function in functions)
                yield {"kind": kind, "width": width, "theta": theta, "kl": kl, "js": js, "wasserstein": wasserstein}


def laws(config: Any, run: Run) -> Rows:
    """Mean and spread of the error W1(samples) - |theta| over many repetitions, beside what theory expects of it."""
    thetas = (0.0, 0.1, 0.3, 1.0)
    for n in sizes(10, config.n_samples):
        errors = np.empty((config.repeats, len(thetas)))
        for i in pieces(run, f"laws, samples of {n:,} points", range(config.repeats)):
            y, y_other = numpy_rng(config.seed, f"laws of {n}", i).random((2, n))
            errors[i] = [estimators.matched_wasserstein(y, y_other, theta) - theta for theta in thetas]
        for theta, mean, std in zip(thetas, errors.mean(0).tolist(), errors.std(0, ddof=1).tolist(), strict=True):
            law = estimators.wasserstein_bias(theta, n) if theta else estimators.expected_wasserstein_same_line(n)
            row = {"theta": theta, "n": n, "error": mean, "std": std}
            yield row | {"standard_error": std / math.sqrt(config.repeats), "law": float(law)}


def knn(config: Any, run: Run) -> Rows:
    """The nearest-neighbour estimate of KL as n grows, for each theta and seed."""
    for n in sizes(10, config.n_samples):
        for seed in pieces(run, f"knn, samples of {n:,} points, seeds", range(config.seeds)):
            y, y_other = numpy_rng(config.seed, f"knn of {n}", seed).random((2, n))
            for theta in (0.0, 0.1, 1.0):
                yield {"theta": theta, "n": n, "seed": seed, "kl": estimators.knn_kl(line(0, y), line(theta, y_other))}


def costs(config: Any, run: Run) -> Rows:
    """Seconds of three exact ways to W1 of the same samples, median and range of 5, and their distance from sorting."""
    for n in pieces(run, "costs, sizes", [*sizes(100, 2000), 2000, *sizes(2001, 100 * config.n_samples)]):
        y, y_other = numpy_rng(config.seed, "costs", n).random((2, n))
        ways: dict[str, tuple[Callable[..., float], tuple]] = {
            "sorted": (estimators.matched_wasserstein, (y, y_other, config.theta))
        }
        if n <= 2000:
            points = line(0, y), line(config.theta, y_other)
            ways["ot.emd2"] = (estimators.transport_wasserstein, points)
            ways["assignment"] = (estimators.assignment_wasserstein, points)
        values: dict[str, float] = {}
        for way, (function, arguments) in ways.items():
            seconds = []
            for _ in range(5):
                run.stop_if_asked()
                start = time.perf_counter()
                values[way] = function(*arguments)
                seconds.append(time.perf_counter() - start)
            low, _, median, _, high = sorted(seconds)
            difference = values[way] - values["sorted"]
            yield {"way": way, "n": n, "seconds": median, "low": low, "high": high, "difference": difference}


def best_critic(config: Any, run: Run) -> Rows:
    """What the best penalised critic attains, on three meshes, beside the best one that depends on x alone."""
    for theta in pieces(run, "best_critic, thetas", config.thetas[1:]):  # at theta = 0 nothing is to be told apart
        x_difference, x_objective = best.functions_of_x(theta, config.gradient_penalty)
        for mesh in MESHES:
            run.stop_if_asked()
            found = best.solve(theta, config.gradient_penalty, mesh)
            row = {"theta": theta, "mesh": mesh, "difference": found.difference, "objective": found.objective}
            row |= {"slope": found.slope, "residual": found.residual}
            yield row | {"x_difference": x_difference, "x_objective": x_objective}
