"""A run's folder: who may use it, and that nothing in it that a run did not write is touched."""

import contextlib
import errno
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import filelock

from common.run import checkpoints, files
from common.run.cli import BadInput
from common.run.files import read_file, write_file

LOCK, HOLDER, CHECKPOINTS, CONFIG, LIST = ".lock", ".holder.lock", "checkpoints", "config.json", ".written.json"
KEPT = (HOLDER, CONFIG, LIST)
HARMLESS = {
    LOCK,
    HOLDER,
    LIST,
    CHECKPOINTS,
    "lost+found",
    ".DS_Store",
    "runs",
    "target.csv",
}  # what a folder without a run may hold; runs: of its parts; target.csv: points to learn, which a run only reads
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def claim(folder: Path) -> filelock.BaseFileLock:
    """Make the folder if needed and lock it; the lock is released by the caller, or by the system.

    Raises:
        BadInput: it holds somebody's files, is in use, or cannot be used; the message says which and what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_of_a_run(folder) and any(not _is_harmless(path) for path in folder.iterdir()):
            raise BadInput(f"--out {folder}: holds files that no run wrote; choose an empty or a new folder")
        path = folder / LOCK
        if path.is_symlink() or (path.exists() and (not path.is_file() or path.stat().st_nlink > 1)):
            raise BadInput(f"{path}: a link or no regular file; remove it, or choose another --out")
        lock = filelock.FileLock(path)
        lock.acquire(timeout=0)
        write_file(folder / HOLDER, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except filelock.Timeout:
        raise BadInput(f"--out {folder}: in use by {_holder(folder)}; wait for it or choose another --out") from None
    except NotImplementedError:
        raise BadInput(f"--out {folder}: its file system has no locks; choose a folder on a local disk") from None
    except OSError as fault:
        remedy = "choose a folder on a local disk" if fault.errno in NO_LOCKS else "choose a folder you can write to"
        if fault.errno == errno.EMFILE:
            remedy = "raise their limit (ulimit -n)"
        raise BadInput(f"--out {folder}: {fault.strerror or fault}; {remedy}") from None
    return lock


def is_of_a_run(folder: Path) -> bool:
    """Whether a run wrote here: its `config.json` names a script, or there are checkpoints under a run's names."""
    found = checkpoints.listing(folder / CHECKPOINTS)
    if any(checkpoints.NAME.fullmatch(path.name) for path in found):
        return True
    return isinstance(settings_of(folder).get("script"), str)


def settings_of(folder: Path) -> dict[str, Any]:
    """What the `config.json` of a folder holds; nothing where there is none, or one that no run wrote."""
    try:
        config = json.loads(read_file(folder / CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def note_written(folder: Path) -> None:
    """Add to the folder's list what this process wrote there, with checksums, for a later `remove_written`."""
    mine = [path for path in files.WRITTEN if path.parent == folder.absolute() and path.name not in KEPT]
    found = {path.name: _checksum(path) for path in sorted(mine) if path.is_file()}
    with contextlib.suppress(OSError):  # a list that is not written leaves files, no more
        write_file(folder / LIST, json.dumps({**_listed(folder), **found}, indent=1).encode())


def remove_written(folder: Path) -> None:
    """Remove the tables and figures of a former run, as far as they are still as it wrote them."""
    for name, checksum in _listed(folder).items():
        path = folder / name
        if Path(name).name == name and path.is_file() and not path.is_symlink() and _checksum(path) == checksum:
            path.unlink()


def _listed(folder: Path) -> dict[str, str]:
    try:
        found = json.loads(read_file(folder / LIST))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _is_harmless(path: Path) -> bool:
    return path.name in HARMLESS or path.name.endswith(".unfinished")


def _holder(folder: Path) -> str:
    try:
        return read_file(folder / HOLDER).decode(errors="replace")
    except OSError:
        return "another process"
