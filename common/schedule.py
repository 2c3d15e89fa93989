"""Learning rates as functions of the step."""

import math


def one_cycle(step: int, total: int, peak: float) -> float:
    """One cycle (arXiv 1708.07120): linear from peak/25 for 30 % of `total` steps, then a cosine to 0."""
    rise = 0.3 * total
    if step < rise:
        return peak * (0.04 + 0.96 * step / rise)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def linear_decay(step: float, total: float, peak: float, decay_from: float) -> float:
    """`peak` until the fraction `decay_from` of `total` steps, then linear to 0 at `total`; 1 never falls."""
    left = 1 - step / total
    return peak * (min(1.0, left / (1 - decay_from)) if decay_from < 1 else 1.0)
