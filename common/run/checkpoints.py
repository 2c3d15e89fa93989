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

from common.run.files import read_file, write_file

NAME = re.compile(r"(\d{6})_step_(\d+)_([0-9a-f]{16})\.pt")
PARTS = {"script": str, "config": dict, "step": int, "seconds": float, "threads": int}
PARTS |= {"tables": dict, "tensors": dict, "state": dict}
PLAIN = (str, int, float, bool, type(None))
TABLE = re.compile(r"\w+")  # a name, never a path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def listing(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that could be checkpoints, oldest first."""
    return sorted(path for path in folder.glob("*.pt") if not path.name.startswith("."))


def save(folder: Path, step: int, state: dict[str, Any], trusted: Path | None) -> Path:
    """Write a checkpoint; then remove the others but `trusted`, the valid one before it, and files of other names.

    Args:
        state: tensors and plain values, finite, so that `torch.load(weights_only=True)` reads it; `tables` as lists of
            rows, which become columns in the file.

    Returns:
        the new file.
    """
    buffer = io.BytesIO()
    torch.save({**state, "tables": {name: _packed(rows) for name, rows in state["tables"].items()}}, buffer)
    content = buffer.getvalue()
    known = listing(folder)
    serial = 1 + max((int(m[1]) for p in known if (m := NAME.fullmatch(p.name))), default=0)
    path = folder / f"{serial:06d}_step_{step}_{_digest(content)}.pt"
    write_file(path, content)
    for old in known:
        if old != trusted and NAME.fullmatch(old.name) and not old.is_dir():
            old.unlink(missing_ok=True)
    return path


def _packed(rows: list[dict[str, Any]]) -> Any:
    """Rows as columns, a tensor where all are float or all are int, which is smaller; other rows stay rows."""
    names = list(rows[0]) if rows else []
    if not names or any(list(row) != names for row in rows):
        return rows
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in names}
    for name, values in columns.items():
        kinds = set(map(type, values))
        if kinds == {float}:
            columns[name] = torch.tensor(values, dtype=torch.float64)
        elif kinds == {int} and max(map(abs, values)) < 2**63:
            columns[name] = torch.tensor(values, dtype=torch.int64)
    return columns


def _unpacked(columns: Any) -> Any:
    """The rows of `_packed`, and of files before 2026-11-27, which hold rows; what is neither stays as it is."""
    if not isinstance(columns, dict):
        return columns
    lists = [column.tolist() if isinstance(column, torch.Tensor) else column for column in columns.values()]
    if not all(isinstance(values, list) and len(values) == len(lists[0]) for values in lists):
        return None
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def remove_all(folder: Path) -> None:
    """Remove every checkpoint, so that a run starts over; files of other names stay."""
    for path in listing(folder):
        if NAME.fullmatch(path.name) and not path.is_dir():
            path.unlink()


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint, never executing code from it.

    Raises:
        ValueError: the file is not a whole, unaltered checkpoint; the message says what is wrong.
    """
    named = NAME.fullmatch(path.name)
    if not named:
        raise ValueError("its name holds no checksum")
    if not path.is_file():
        raise ValueError("it is not a regular file")
    try:
        content = read_file(path)
    except PermissionError:
        raise ValueError("it may not be read by this user") from None
    if _digest(content) != named[3]:
        raise ValueError("it is truncated or altered (its checksum differs)")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as fault:  # torch.load raises many kinds for a damaged file
        raise ValueError(f"it is not a checkpoint ({type(fault).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in PARTS.items()):
        raise ValueError("it is not a checkpoint of a run")
    state["tables"] = {name: _unpacked(table) for name, table in state["tables"].items()}
    state.setdefault("history", [])  # checkpoints before 2026-11-26 have none
    if not _is_table("history", state["history"]) or any("from_step" not in row for row in state["history"]):
        raise ValueError("its history is not that of a run")
    if state["step"] < 0 or not all(_is_table(name, rows) for name, rows in state["tables"].items()):
        raise ValueError("its step or one of its tables is not that of a run")
    if not all(isinstance(tensor, torch.Tensor) for tensor in state["tensors"].values()):
        raise ValueError("it holds something else in place of a tensor")
    return state


def _is_table(name: Any, rows: Any) -> bool:
    """Whether this is a table as a run writes it: a name, not a path, and rows (dicts) of plain values."""
    if not isinstance(name, str) or not TABLE.fullmatch(name) or not isinstance(rows, list):
        return False
    return all(isinstance(row, dict) and all(isinstance(v, PLAIN) for v in (*row, *row.values())) for row in rows)


def require_fit(part: Any, saved: Any, name: str = "state") -> None:
    """Check that a saved state has the structure, shapes and types of the part that it is loaded into.

    Optimizers take moments of any shape without a word and then write outside them, in native code.

    Args:
        part: a module, an optimizer, or an object with `state_dict`.

    Raises:
        ValueError: it has not; the message names the first difference.
    """
    if not isinstance(part, torch.optim.Optimizer):
        return _require_alike(part.state_dict(), saved, name)
    own = part.state_dict()
    _require_alike(own["param_groups"], saved["param_groups"], f"{name}.param_groups")
    parameters = [parameter for group in part.param_groups for parameter in group["params"]]
    for index, moments in saved["state"].items():
        if index not in range(len(parameters)) or set(moments) != set(_moments(part)):
            raise ValueError(f"{name} is not of this optimizer")
        for key, moment in moments.items():
            like = torch.zeros((), dtype=torch.float32) if key == "step" else parameters[index]
            _require_alike(like, moment, f"{name}.{index}.{key}")


def _moments(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """What an optimizer keeps of each parameter."""
    adam = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    return ("step", "exp_avg", "exp_avg_sq") if adam else ("momentum_buffer",)


def _require_alike(own: Any, saved: Any, name: str) -> None:
    """`require_fit` for dicts, lists, tensors and plain values; numbers may be of either kind, None stands for any."""
    if isinstance(own, torch.Tensor):
        if not isinstance(saved, torch.Tensor) or (own.shape, own.dtype) != (saved.shape, saved.dtype):
            raise ValueError(f"{name} has another shape or type")
    elif isinstance(own, dict):
        if not isinstance(saved, dict) or own.keys() != saved.keys():
            raise ValueError(f"{name} has other entries")
        for key, value in own.items():
            _require_alike(value, saved[key], f"{name}.{key}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(saved, (list, tuple)) or len(own) != len(saved):
            raise ValueError(f"{name} has another length")
        for i, (mine, its) in enumerate(zip(own, saved, strict=True)):
            _require_alike(mine, its, f"{name}.{i}")
    elif isinstance(own, (int, float)) and isinstance(saved, (int, float)):
        return
    elif not isinstance(saved, type(own)) and not (own is None or saved is None):
        raise ValueError(f"{name} is of another type")
