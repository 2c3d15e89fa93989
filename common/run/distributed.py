"""One run on several processes that torchrun started; the only module that knows of them.

Every process draws the whole batch of a step and takes its share of the rows, so the run is that of one process up to
rounding. Gradients and losses are summed by one all-reduce before an optimizer's step. The first process alone owns
the folder and prints. Without torchrun there is one process, the first, and every function here does nothing.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from common.run.faults import BadInput, TrainingFailed

T = TypeVar("T")
WAIT = timedelta(hours=6)  # for the first process, which measures and saves alone; one that ended is noticed at once
_rank, _size, _alone = 0, 1, False
_store: dist.Store | None = None


def join(supported: bool) -> None:
    """Find the other processes where torchrun started several; what this one prints is lost unless it is the first.

    Signal handlers are installed after this, since it replaces some.

    Args:
        supported: whether the script can run on several processes.

    Raises:
        BadInput: it cannot, or there are more processes than GPUs on a machine that has some.
    """
    global _rank, _size, _store
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return
    _rank, _size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if _rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
    if not supported:
        raise BadInput("torchrun: this script runs on one process; start it with python")
    store, _, _ = next(dist.rendezvous("env://"))
    # The store outlives a restart by torchrun; addresses of ended processes are kept apart from those of today.
    _store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    gpus, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if here < gpus:
        torch.cuda.set_device(here)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=_store, rank=_rank, world_size=_size, timeout=WAIT)


def require_device(device: torch.device) -> None:
    """Raise `BadInput` where several processes cannot use a device: each needs a GPU of its own, and MPS has no way."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if _size > 1 and device.type != "cpu" and (device.type != "cuda" or here > torch.cuda.device_count()):
        raise BadInput(f"--device: {here} processes need a GPU of CUDA each; start fewer, or use --device cpu")


def require_shares(n: int, batch_size: int) -> None:
    """Raise `BadInput` unless every batch of an epoch of `n` images, the last too, has an image for each process."""
    least = min(batch_size, n % batch_size or batch_size)
    if least < _size:
        raise BadInput(
            f"--batch-size: {batch_size} is not possible; a batch of an epoch has {least} images for {_size} processes"
        )


def is_first() -> bool:
    """Whether this process owns the folder, prints and measures."""
    return _rank == 0


def size() -> int:
    """How many processes share the run."""
    return _size


def may_speak() -> bool:
    """Whether this process says why the run ends: of all that ask, the first to ask, so that there is one line."""
    if _store is None:
        return is_first()
    try:
        return _store.add("spoken", 1) == 1
    except RuntimeError:  # the store has ended
        return True


def leave_the_first_alone() -> None:
    """Training is over: of several processes the first goes on alone, and the others end with exit code 0."""
    global _alone
    _alone = _size > 1
    if not is_first():
        sys.exit(0)


def mine(rows: T) -> T:
    """This process's share of a batch's rows, a tensor or a range: every `size()`-th one.

    So the share of a batch's first rows is the first rows of its share. Sizes differ by one at most.
    """
    return rows[_rank::_size]  # type: ignore[index]


@contextmanager
def _others_present() -> Iterator[None]:
    try:
        yield
    except RuntimeError:  # of gloo and NCCL, when a connection breaks
        raise TrainingFailed("another process of this run ended; the same command continues") from None


def sum_up(tensors: Sequence[torch.Tensor]) -> None:
    """Each tensor becomes its sum over the processes, the same bits on all; floating point, of any shapes."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _others_present():
        dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def largest(*values: int) -> tuple[int, ...]:
    """The largest of each value over the processes."""
    if _size == 1:
        return values
    found = torch.tensor(values)
    with _others_present():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(found.tolist())


def from_first(work: Callable[[], T]) -> T:
    """What `work` returns on the first process, where alone it is called; what it raises there, all raise."""
    if _size == 1:
        return work()
    found: list[Any] = [None, None]
    if is_first():
        try:
            found[0] = work()
        except Exception as fault:
            found[1] = fault
    with _others_present():
        dist.broadcast_object_list(found, device=torch.device("cpu"))
    if found[1] is not None:
        raise found[1]
    return found[0]


def wait_for_all() -> None:
    """Return when every process has called this."""
    largest(0)


def require_equal(state: Any) -> None:
    """Raise `TrainingFailed` unless a nest of dicts, lists, tensors and values has the same bits on all processes."""
    if _size == 1:
        return
    digest = hashlib.blake2b(digest_size=7)
    _add(digest, state)
    number = int.from_bytes(digest.digest(), "big")
    highest, lowest = largest(number, -number)
    if highest != -lowest:
        raise TrainingFailed("the weights of its processes differ; the same command continues from the last checkpoint")


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict | list | tuple):
        for inner in value.items() if isinstance(value, dict) else value:
            _add(digest, inner)
    else:
        digest.update(repr(value).encode())


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) for every channel of x [B, C, ...], over the batch of all processes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """x -> normalized, mean [C], biased variance [C], values per channel on all processes."""
        count = x.numel() // x.shape[1]
        # Its statistics take the CPU a tenth of the time of torch.var_mean.
        _, mean, scale = torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)
        parts = x.new_zeros(_size, 2 * len(mean) + 1)  # of each process: mean, squared deviations, count
        parts[_rank] = torch.cat([mean, (scale.pow(-2) - eps).clamp(min=0) * count, x.new_tensor([count])])
        sum_up([parts])
        means, deviations, counts = parts.split([len(mean), len(mean), 1], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (deviations + counts * (means - mean).square()).sum(0) / total
        ctx.save_for_backward(x, mean, variance, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, total)
        return nn.functional.batch_norm(x, mean, variance, eps=eps), mean, variance, total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor, None]:
        """As if mean and variance were constants, less what goes through them."""
        x, mean, variance, total = ctx.saved_tensors
        settings = torch.ones_like(mean), mean, variance, None, None, False, ctx.eps, [True, True, True]
        found, along, plain = torch.ops.aten.native_batch_norm_backward(gradient, x, *settings)
        sums = torch.stack([plain, along])
        sum_up([sums])
        plain, along = sums / total
        scale = (variance + ctx.eps).rsqrt()
        slope = scale.square() * along
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        constant = (scale * plain - slope * mean).view(shape)
        return found.sub_(constant).addcmul_(x, slope.view(shape), value=-1), None


class _OverProcesses:
    """Batch norm that in training takes its statistics over the batch of all processes."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, ...] -> the same shape."""
        if _size == 1 or _alone or not self.training:
            return super().forward(x)  # type: ignore[misc]
        y, mean, variance, count = _Normalize.apply(x.to(self.running_mean.dtype), self.eps)
        if self.track_running_stats:
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        if self.affine:
            shape = [-1 if d == 1 else 1 for d in range(x.dim())]
            y = torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))
        return y.to(x.dtype)


class BatchNorm1d(_OverProcesses, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over the batch of all processes."""


class BatchNorm2d(_OverProcesses, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the batch of all processes."""
