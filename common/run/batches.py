"""The order of the training images: a pure function of (seed, epoch), so that a resumed run sees the same batches."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from common.run.rng import rng_for


class Batch(NamedTuple):
    """One step of a training loop.

    Attributes:
        step: steps done before this one.
        indices: of its images, int64 [B]; the last batch of an epoch may be shorter.
        epoch: the epoch it belongs to, from 1.
        ends_epoch: whether it is the last of its epoch.
        progress: fraction of all steps done before this one, in [0, 1).
    """

    step: int
    indices: torch.Tensor
    epoch: int
    ends_epoch: bool
    progress: float


def epoch_order(n: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The order of `n` images in an epoch, int64 [n]: a permutation that is a pure function of `(seed, epoch)`."""
    return torch.randperm(n, generator=rng_for(seed, "order", epoch)).to(device)


def batch_indices(n: int, batch_size: int, seed: int, first_step: int, device: torch.device | str = "cpu") -> Iterator:
    """Index tensors of one batch after another, from `first_step` on without end; the last of an epoch may be shorter.

    Step `s` is batch `s % ceil(n / batch_size)` of epoch `s // ceil(n / batch_size)`.
    """
    per_epoch = -(-n // batch_size)
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        yield from epoch_order(n, seed, epoch, device).split(batch_size)[skip:]
        epoch, skip = epoch + 1, 0
