"""Files that survive a kill at any byte: written beside their final name, flushed, read back and renamed."""

import contextlib
import os
import re
from pathlib import Path


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
