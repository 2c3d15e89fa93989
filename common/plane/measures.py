"""How far apart two samples in the plane are: KL and JS on a grid, exact transport, coverage, and their floors.

The grid covers the unit square; one more cell holds all that lies outside, so the cells always hold the whole mass. Two
samples of one distribution never agree exactly: `floor` says what each figure is when real is compared with real.
"""

from collections.abc import Callable

import ot
import torch
from torch import Tensor

from common.plane.targets import QUALITY_RADIUS, Target

CELLS = 30  # per side, as in GAN Lab
COVERED = 0.1  # a part counts as covered from a tenth of its fair share of good samples on


def cell_of(x: Tensor) -> Tensor:
    """The cell of each `x` [n, 2]: int64 [n], row by row from the origin; `CELLS**2` outside the unit square."""
    column_row = (x * CELLS).floor().clamp(-1, CELLS).long()  # [n, 2]
    inside = ((column_row >= 0) & (column_row < CELLS)).all(1)
    return torch.where(inside, column_row[:, 1] * CELLS + column_row[:, 0], CELLS**2)


def counts(x: Tensor) -> Tensor:
    """How many of `x` [n, 2] fall in each cell: float64 [CELLS**2 + 1], the last outside; the sum is n."""
    return torch.bincount(cell_of(x).cpu(), minlength=CELLS**2 + 1).double()


def kl(p: Tensor, q: Tensor) -> float:
    """KL(P || Q) [nats] of two tables of counts, half a sample added to every cell of both and the mass normalised.

    The half sample (Jeffreys' prior) keeps it finite where Q has no sample: there it says "large", about
    log(2 n p), where the divergence itself may be infinite.
    """
    p, q = ((c + 0.5) / (c + 0.5).sum() for c in (p, q))
    return float((p * (p / q).log()).sum())


def js(p: Tensor, q: Tensor) -> float:
    """JS(P, Q) [nats], from 0 to log 2, of two tables of counts; nothing is added."""
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    return float((torch.xlogy(p, p / m).nansum() + torch.xlogy(q, q / m).nansum()) / 2)


def optimal_accuracy(p: Tensor, q: Tensor) -> float:
    """The accuracy [0.5 to 1] of the best discriminator that sees only the cell: (1 + total variation) / 2."""
    return float(0.5 + 0.25 * (p / p.sum() - q / q.sum()).abs().sum())


def discriminator_gap(real: Tensor, fake: Tensor, p_real: Tensor | float, p_fake: Tensor | float) -> float:
    """Mean |D(x) - p/(p + q)| over real and fake samples: how far D is from the optimal one (Goodfellow 2014, prop. 1).

    Args:
        real, fake: equally many samples [n, 2]; p and q are their shares in the cell of x.
        p_real, p_fake: D at them, as probability of real [n]; or one number for a constant D.

    Returns:
        from 0 to 1.
    """
    p, q = counts(real), counts(fake)
    optimal = p / (p + q)  # NaN only where neither has a sample, and there nobody looks
    gaps = [(optimal[cell_of(x).cpu()] - d).abs().mean() for x, d in ((real, p_real), (fake, p_fake))]
    return float(sum(gaps) / 2)


def exact_w1(x: Tensor, y: Tensor) -> float:
    """Wasserstein-1 distance [units of the plane] of two samples [n, 2], [m, 2]: exact transport, Euclidean cost."""
    cost = ot.dist(x.cpu().double().numpy(), y.cpu().double().numpy(), metric="euclidean")
    return float(ot.emd2([], [], cost, numItermax=10_000_000))


def coverage(target: Target, x: Tensor) -> tuple[int, float]:
    """Parts of the target covered, and the share of high-quality samples.

    A sample has high quality within `QUALITY_RADIUS` standard deviations of the nearest centre (Srivastava et al. 2017,
    arXiv 1705.07761). They call a mode covered from one such sample on; here it takes `COVERED` of its fair share.

    Returns:
        from 0 to `target.parts`, and from 0 to 1; real samples reach 0.989 on separate modes.
    """
    part, distance = target.nearest(x.cpu())
    good = distance <= QUALITY_RADIUS
    in_part = torch.bincount(part[good], minlength=target.parts)
    return int((in_part >= COVERED * len(x) / target.parts).sum()), float(good.double().mean())


def distances(real: Tensor, fake: Tensor, n_transport: int) -> dict[str, float]:
    """KL and JS [nats] on the grid, and W1 [units of the plane] from the first `n_transport` samples."""
    p, q = counts(real), counts(fake)
    return {"kl": kl(p, q), "js": js(p, q), "w1": exact_w1(real[:n_transport], fake[:n_transport])}


def compare(target: Target, real: Tensor, fake: Tensor, n_transport: int) -> dict[str, float]:
    """Every figure that needs no discriminator: `distances`, coverage, mass outside, the best accuracy."""
    p, q = counts(real), counts(fake)
    parts, quality = coverage(target, fake)
    return {
        **distances(real, fake, n_transport),
        "modes": parts,
        "quality": quality,
        "outside": float(q[-1] / q.sum()),
        "optimal_accuracy": optimal_accuracy(p, q),
    }


def floor(
    target: Target, n: int, n_transport: int, draws: int, rng: Callable[[int], torch.Generator]
) -> list[dict[str, float]]:
    """What `compare` says of two fresh samples of the target itself, once per draw.

    Args:
        n, n_transport: sample sizes, those of the comparison whose floor this is.
        rng: draw -> generator.

    Returns:
        a row for each draw; `discriminator_gap` in it is that of the perfect end, D = 1/2 everywhere.
    """
    rows = []
    for draw in range(draws):
        generator = rng(draw)
        one, other = target.sample(n, generator), target.sample(n, generator)
        gap = discriminator_gap(one, other, 0.5, 0.5)
        rows.append({"draw": draw, **compare(target, one, other, n_transport), "discriminator_gap": gap})
    return rows
