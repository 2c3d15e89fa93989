"""Two-dimensional target distributions with samplers and densities, and networks small enough to look inside.

Every target is a mixture of Gaussians along a path: draw u ~ U[0, 1), then x ~ N(centre(u), diag(spread(u)^2)). Where
the path is a staircase the target has separate modes; where it is a curve (line, ring) its density is an integral.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.run.cli import BadInput
from common.run.files import read_file

CURVE_POINTS = 500  # on a curve: the points of the midpoint rule, at most 0.4 standard deviations apart
CURVE_PARTS = 10
QUALITY_RADIUS = 3.0
CHUNK = 4096
POINTS = (2, 2000)  # of a target from a file
POINT_SPREAD = 0.02  # standard deviation about each of them
PATH_POINTS = 200  # of a drawing, equally far apart along it
MOST_DRAWN = 20_000  # points that a drawing may have before that


@dataclass(frozen=True)
class Target:
    """A distribution in the plane, nearly all of it in the unit square.

    Attributes:
        centre: u [n] in [0, 1) -> [n, 2].
        spread: u [n] -> standard deviations [n, 2] along x and y.
        parts: number of separate modes; for a curve, of the equal stretches by which its coverage is counted.
        is_curve: whether the centres form a curve.
    """

    centre: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    parts: int
    is_curve: bool = False

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """`n` independent samples [n, 2], on the generator's device."""
        u = torch.rand(n, generator=rng, device=rng.device)
        return self.centre(u) + self.spread(u) * torch.randn(n, 2, generator=rng, device=rng.device)

    def density(self, x: Tensor) -> Tensor:
        """The probability density at `x` [n, 2] -> [n], per unit area.

        Exact for a mixture. Along a curve the midpoint rule, whose relative error is below 1e-6 but within two standard
        deviations of a line's ends (there below 0.1 %).
        """
        u = self._points(x)
        spread = self.spread(u)  # [m, 2]
        log_scale = (2 * math.pi * len(u) * spread.prod(1)).log()  # [m]
        return torch.cat([(-0.5 * d - log_scale).exp().sum(1) for d in self._squared_distances(x, u)])

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each `x` [n, 2]: the part it is nearest to (int64 [n]) and how far, in standard deviations ([n])."""
        u = self._points(x)
        found = [d.min(1) for d in self._squared_distances(x, u)]
        part = (u * self.parts).long()[torch.cat([index for _, index in found])]
        return part, torch.cat([squared for squared, _ in found]).sqrt()

    def _points(self, like: Tensor) -> Tensor:
        m = CURVE_POINTS if self.is_curve else self.parts
        return (torch.arange(m, device=like.device, dtype=like.dtype) + 0.5) / m

    def _squared_distances(self, x: Tensor, u: Tensor) -> list[Tensor]:
        """Squared distances [<= CHUNK, m] to the centres, in standard deviations, piece by piece."""
        centre, spread = self.centre(u), self.spread(u)  # [m, 2] both
        return [(((rows[:, None] - centre) / spread) ** 2).sum(2) for rows in x.split(CHUNK)]


def _mixture(centres: list[tuple[float, float]], spreads: list[tuple[float, float]]) -> Target:
    """A mixture with equal weights; one spread for all, or one for each."""

    def staircase(levels: list[tuple[float, float]]) -> Callable[[Tensor], Tensor]:
        table = torch.tensor(levels)
        return lambda u: table.to(u)[(u * len(levels)).long()]

    return Target(staircase(centres), staircase(spreads), parts=len(centres))


def _line(u: Tensor) -> Tensor:
    return torch.stack([0.8 - 0.75 * u, 0.6 + 0.3 * u], 1)


def _ring(u: Tensor) -> Tensor:
    angle = 2 * math.pi * u
    return torch.stack([0.5 + 0.3 * angle.cos(), 0.45 + 0.25 * angle.sin()], 1)


def _constant(spread: float) -> Callable[[Tensor], Tensor]:
    return lambda u: u.new_full((len(u), 2), spread)


_circle = [(0.5 + 0.4 * math.cos(math.pi * k / 4), 0.5 + 0.4 * math.sin(math.pi * k / 4)) for k in range(8)]
_square = [(0.1 + 0.2 * i, 0.1 + 0.2 * j) for i in range(5) for j in range(5)]

# The first four are GAN Lab's. The last two are the usual tests for mode collapse, moved to the unit square: a ring of
# radius 2 with standard deviation 0.02 (Gulrajani et al. 2017) divided by 5; a grid of spacing 2 with standard
# deviation 0.05 (Srivastava et al. 2017, arXiv 1705.07761) divided by 10.
TARGETS = {
    "line": Target(_line, _constant(0.01), CURVE_PARTS, is_curve=True),
    "gaussians": _mixture([(0.3, 0.7), (0.7, 0.4)], [(0.1, 0.1), (0.05, 0.2)]),
    "ring": Target(_ring, _constant(0.025), CURVE_PARTS, is_curve=True),
    "disjoint": _mixture([(0.35, 0.75), (0.75, 0.6), (0.45, 0.35)], [(0.025, 0.025)]),
    "eight": _mixture(_circle, [(0.004, 0.004)]),
    "grid": _mixture(_square, [(0.005, 0.005)]),
}


def target_of(name: str) -> Target:
    """The target of that name, or the one whose points are in a CSV file of that name.

    Raises:
        BadInput: the file cannot be read, or its points cannot be used.
    """
    return TARGETS[name] if name in TARGETS else _from_file(name)


@lru_cache(maxsize=64)
def _from_file(name: str) -> Target:
    return from_points(read_points(Path(name)))


def from_points(points: np.ndarray) -> Target:
    """A Gaussian of `POINT_SPREAD` about each of the points [n, 2], all with the same weight."""
    return _mixture([(float(x), float(y)) for x, y in points], [(POINT_SPREAD, POINT_SPREAD)])


def read_points(path: Path) -> np.ndarray:
    """The points [n, 2] of a CSV file: a line x,y for each, in the unit square; a first line may name the columns.

    Raises:
        BadInput: the file cannot be read, a line is no point, or `require_points` refuses them.
    """
    try:
        lines = read_file(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or "no text"
        raise BadInput(f"--target {path}: {why}; it takes a CSV file with a line x,y for each point") from None
    first = 1 if lines and not any(character.isdigit() for character in lines[0]) else 0
    points = []
    for number, line in enumerate(lines[first:], first + 1):
        try:
            x, y = map(float, line.split(","))
        except ValueError:
            raise BadInput(f"--target {path}: line {number} is no point x,y: {line[:40]!r}") from None
        points.append((x, y))
    return require_points(np.array(points).reshape(-1, 2), f"--target {path}")


def require_points(points: np.ndarray, what: str) -> np.ndarray:
    """The points [n, 2] if a target can be made of them.

    Args:
        what: what they are, for the message.

    Raises:
        BadInput: too few, too many, or not all in the unit square.
    """
    low, high = POINTS
    if not low <= len(points) <= high:
        raise BadInput(f"{what}: {len(points):,} points are not possible; it takes from {low} to {high:,}")
    outside = ~((points >= 0) & (points <= 1)).all(1)  # NaN is outside too
    if outside.any():
        x, y = points[outside][0]
        raise BadInput(f"{what}: the point {x:g}, {y:g} is outside the unit square; scale all into 0 to 1")
    return points


def along(strokes: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """`PATH_POINTS` points [n, 2], equally far apart along all strokes together.

    Raises:
        BadInput: no stroke has a length, there are too many points, or some are outside the unit square.
    """
    what = "the drawing"
    if sum(map(len, strokes)) > MOST_DRAWN:
        raise BadInput(f"{what}: more than {MOST_DRAWN:,} points are not possible; draw less")
    try:
        lines = [np.array(stroke, float).reshape(-1, 2) for stroke in strokes if len(stroke) > 1]
    except (TypeError, ValueError):
        raise BadInput(f"{what}: a stroke is no list of points x, y") from None
    lines = [require_points(line[:: -(-len(line) // 1000)], what) for line in lines]
    starts, ends = (
        np.concatenate([np.empty((0, 2)), *(line[part] for line in lines)]) for part in (slice(-1), slice(1, None))
    )
    lengths = np.linalg.norm(ends - starts, axis=1)
    reached = np.append(0, lengths.cumsum())  # at the start of each piece, and at the end
    if not reached[-1] > 0.01:
        raise BadInput(f"{what}: it has no length; draw a line")
    wanted = (np.arange(PATH_POINTS) + 0.5) / PATH_POINTS * reached[-1]
    piece = np.searchsorted(reached, wanted, "right") - 1
    share = (wanted - reached[piece]) / lengths[piece]
    return starts[piece] + share[:, None] * (ends - starts)[piece]
