"""Where a result comes from: versions, commit, command, processor, threads."""

import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("numpy", "scipy", "scikit-learn", "matplotlib", "pandas")


def environment(device: torch.device, seconds: float) -> dict[str, Any]:
    """Where a result comes from: versions, commit, command, processor, threads and seconds of training."""
    return {
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: metadata.version(package) for package in PACKAGES},
        "system": platform.platform(),
        "device": str(device),
        **_accelerator(device),
        "processor": _processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
    }


def _accelerator(device: torch.device) -> dict[str, Any]:
    """The GPU and the libraries that decide its arithmetic; nothing elsewhere."""
    if device.type != "cuda":
        return {}
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"gpu": torch.cuda.get_device_name(device), **versions}


def _commit() -> str:
    """The commit of the code, marked where a Python file was changed since; empty outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        run = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/*.py"], capture_output=True).returncode
        return run.stdout.strip() + (" with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
