"""Whether a run fits into memory, asked before it begins: Linux ends a process that takes too much without a word."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from common.run.cli import require

LEAST = {"seeds": 2, "batch_size": 2}  # of a setting; others may fall to 1
KEPT = 12  # of each weight: gradient, two moments, an average, and copies while a checkpoint is written; measured


def free_bytes(device: torch.device) -> float:
    """Free memory [bytes] of a device; of the CPU, the least of what is available and a cgroup's or ulimit's limit.

    Infinity where the system does not tell.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [float("inf")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024.0 * int(next(row for row in lines if row.startswith("MemAvailable")).split()[1]))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(float(Path("/sys/fs/cgroup", limit).read_text()))
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        limit_as = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit_as != resource.RLIM_INFINITY:
            found.append(float(limit_as))
    return min(found)


def require_memory(config: Any, needed: Callable[[Any], float], flags: Sequence[str], device: torch.device) -> None:
    """Refuse settings that need more than the free memory, and name sizes that fit.

    Args:
        config: a dataclass; of its `flags` the one that stands out most beside its default is halved first.
        needed: an estimate of the memory [bytes] that settings need.

    Raises:
        BadInput: they do not fit.
    """
    free, asked = free_bytes(device), vars(config)
    usual = {f.name: f.default for f in fields(config) if f.name in flags}
    fitting = dict(asked)
    while needed(SimpleNamespace(**fitting)) > free:
        larger = [name for name in flags if fitting[name] > LEAST.get(name, 1)]
        if not larger:
            break
        name = max(larger, key=lambda name: fitting[name] / usual[name])
        fitting[name] = max(fitting[name] // 2, LEAST.get(name, 1))
    changed = [name for name in flags if asked[name] != fitting[name]]
    named = [f"--{name.replace('_', '-')}" for name in changed]
    require(
        not changed,
        ", ".join(named),
        f"{', '.join(str(asked[name]) for name in changed)} (about {needed(config) / 1e9:,.1f} GB of memory needed, "
        f"{free / 1e9:,.1f} GB free)",
        "at most about " + " ".join(f"{flag} {fitting[name]}" for flag, name in zip(named, changed, strict=True)),
    )


def parameters(build: Callable[[], torch.nn.Module]) -> int:
    """How many weights a network has, without memory for them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build().parameters())
