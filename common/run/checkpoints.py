"""Files that survive a kill at any byte, and checkpoints made of them.

A file is written beside its final name, flushed to disk, read back and renamed. A checkpoint's name holds its serial
number, its step and the start of its SHA-256, so one rename publishes contents and checksum. The one before is kept.
"""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch

from common.run.files import write_file

NAME = re.compile(r"(\d{6})_step_(\d+)_([0-9a-f]{16})\.pt")
PARTS = {"script": str, "config": dict, "step": int, "seconds": float, "threads": int}
PARTS |= {"tables": dict, "tensors": dict, "state": dict}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def listing(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that could be checkpoints, oldest first."""
    return sorted(path for path in folder.glob("*.pt") if not path.name.startswith("."))


def save(folder: Path, step: int, state: dict[str, Any], trusted: Path | None) -> Path:
    """Write a checkpoint; then remove the others but `trusted`, the valid one before it, and files of other names.

    Args:
        state: tensors and plain values, finite, so that `torch.load(weights_only=True)` reads it.

    Returns:
        the new file.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    known = listing(folder)
    serial = 1 + max((int(m[1]) for p in known if (m := NAME.fullmatch(p.name))), default=0)
    path = folder / f"{serial:06d}_step_{step}_{_digest(content)}.pt"
    write_file(path, content)
    for old in known:
        if old != trusted and NAME.fullmatch(old.name):
            old.unlink(missing_ok=True)
    return path


def remove_all(folder: Path) -> None:
    """Remove every checkpoint, so that a run starts over; files of other names stay."""
    for path in listing(folder):
        if NAME.fullmatch(path.name):
            path.unlink()


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint, never executing code from it.

    Raises:
        ValueError: the file is not a whole, unaltered checkpoint; the message says what is wrong.
    """
    named = NAME.fullmatch(path.name)
    if not named:
        raise ValueError("its name holds no checksum")
    content = path.read_bytes()
    if _digest(content) != named[3]:
        raise ValueError("it is truncated or altered (its checksum differs)")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as fault:  # torch.load raises many kinds for a damaged file
        raise ValueError(f"it is not a checkpoint ({type(fault).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in PARTS.items()):
        raise ValueError("it is not a checkpoint of a run")
    return state
