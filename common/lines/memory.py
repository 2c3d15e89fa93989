"""Whether the networks fit into memory, asked before a run begins: Linux ends a process that takes too much unsaid."""

import contextlib
from pathlib import Path

import torch

from common.run.cli import require

LEAST = {"width": 1, "seeds": 2, "batch_size": 1}
USUAL = {"width": 32, "seeds": 5, "batch_size": 128}  # what stands out beside these is made smaller first


def training_bytes(count: int, width: int, batch_size: int) -> float:
    """Memory [bytes] of a critic's training step, for `count` networks: an estimate, measured within 30 %.

    Weights, gradients, two moments and their temporaries, and what the penalty's second derivative keeps of a batch.
    """
    parameters = (2 + 1) * width + (width + 1) * width + (width + 1)
    return 4.0 * count * (10 * parameters + 26 * batch_size * width)


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


def require_memory(n_thetas: int, width: int, seeds: int, batch_size: int, device: torch.device) -> None:
    """Refuse sizes of networks that need more than the free memory, and name sizes that fit.

    Raises:
        BadInput: they do not fit.
    """
    sizes = {"width": width, "seeds": seeds, "batch_size": batch_size}

    def needed(sizes: dict[str, int]) -> float:
        return training_bytes(n_thetas * sizes["seeds"], sizes["width"], sizes["batch_size"])

    free, fitting = free_bytes(device), dict(sizes)
    while needed(fitting) > free and (larger := [name for name, least in LEAST.items() if fitting[name] > least]):
        name = max(larger, key=lambda name: fitting[name] / USUAL[name])
        fitting[name] = max(fitting[name] // 2, LEAST[name])
    changed = [name for name in sizes if sizes[name] != fitting[name]]
    flags = [f"--{name.replace('_', '-')}" for name in changed]
    require(
        not changed,
        ", ".join(flags),
        f"{', '.join(str(sizes[name]) for name in changed)} (about {needed(sizes) / 1e9:,.1f} GB of memory needed, "
        f"{free / 1e9:,.1f} GB free)",
        "at most about " + " ".join(f"{flag} {fitting[name]}" for flag, name in zip(flags, changed, strict=True)),
    )
