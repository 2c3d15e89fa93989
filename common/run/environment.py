"""Where a result comes from: versions, commit, command, processor, threads."""

import platform
import shlex
import subprocess
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from common.run import distributed

PACKAGES = ("numpy", "scipy", "scikit-learn", "matplotlib", "pandas")
NOT_HISTORY = ("command", "seconds", "matplotlib", "pandas")  # what changes no number


def environment(device: torch.device, seconds: float) -> dict[str, Any]:
    """Where a result comes from: versions, commit, command, processor, threads and seconds of training."""
    return {
        "command": shlex.join(["python", _script(), *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{package: metadata.version(package) for package in PACKAGES},
        "system": platform.platform(),
        "device": str(device),
        **_accelerator(device),
        "processor": _processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **({"processes": distributed.size()} if distributed.size() > 1 else {}),
        "seconds": round(seconds, 1),
    }


def history(former: list[dict[str, Any]], now: dict[str, Any], step: int) -> list[dict[str, Any]]:
    """What made a run from which step on: code, versions, device, processor, threads; an entry for each change.

    Args:
        former: the history so far.
        now: today's `environment`.
        step: the first step that it makes.
    """
    made_by = {name: value for name, value in now.items() if name not in NOT_HISTORY}
    if former and {"from_step": former[-1]["from_step"], **made_by} == former[-1]:
        return former
    return [*former, {"from_step": step, **made_by}]


def _script() -> str:
    """The script that runs, from the repository's root on."""
    path, root = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parents[2]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _accelerator(device: torch.device) -> dict[str, Any]:
    """The GPU and the libraries that decide its arithmetic; nothing elsewhere."""
    if device.type != "cuda":
        return {}
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"gpu": torch.cuda.get_device_name(device), **versions}


def _commit() -> str:
    """The commit of the code, with a digest of what Python files were changed to since; empty outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        run = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "diff", "HEAD", "--", ":/*.py"], capture_output=True, check=True).stdout
        return run.stdout.strip() + (f" with changes {sha256(changes).hexdigest()[:8]}" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
