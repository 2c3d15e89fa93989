"""Files that survive a kill at any byte, and checkpoints made of them.

A file is written beside its final name, flushed to disk, read back and renamed. A checkpoint's name holds its serial
number, its step and the start of its SHA-256, so one rename publishes contents and checksum. The one before is kept.
"""

import contextlib
import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import torch

NAME = re.compile(r"(\d{6})_step_(\d+)_([0-9a-f]{16})\.pt")
PARTS = {"script": str, "config": dict, "step": int, "seconds": float, "threads": int}
PARTS |= {"tables": dict, "tensors": dict, "state": dict}


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a kill at any moment leaves the old file or the new one, whole.

    Raises:
        OSError: the disk is full, the folder not writable, or what was read back differs.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # two processes may write the same file
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError(f"{path}: what was written does not read back")
        os.replace(temporary, path)
    except OSError as fault:
        fault.filename = fault.filename or str(path)  # a full disk does not name the file
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files of killed processes; for who holds the lock."""
    for path in (path for folder in folders for path in folder.glob(".*.tmp")):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot open a folder (Windows) do without."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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


def first_non_finite(value: Any, name: str = "") -> str | None:
    """The name of the first tensor in a nest of dicts and lists that holds a NaN or an infinity, or None."""
    if isinstance(value, torch.Tensor):
        return name if value.is_floating_point() and not value.isfinite().all() else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        if found := first_non_finite(inner, f"{name}.{key}" if name else str(key)):
            return found
    return None
