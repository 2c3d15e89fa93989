"""Files that survive a kill at any byte: written beside their final name, flushed, read back and renamed."""

import contextlib
import errno
import os
import re
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNABLE_TO_SYNC = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EBADF,
    errno.EACCES,
)  # what file systems answer that sync no folder
WRITTEN: set[Path] = set()  # absolute paths of every file that this process wrote


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a kill at any moment leaves the old file or the new one, whole.

    Raises:
        OSError: the disk is full, the folder not writable, or what was read back differs.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")  # two processes may write the same file
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            _flush(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError(f"{path}: what was written does not read back")
        os.replace(temporary, path)
    except OSError as fault:
        fault.filename = str(path)  # not the temporary file's name, and a full disk gives none
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)
    WRITTEN.add(path.absolute())


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files of killed processes; for who holds the lock."""
    for path in (path for folder in folders for path in folder.glob(".*.unfinished")):
        if re.fullmatch(r"\..+\.\d+\.unfinished", path.name):
            path.unlink(missing_ok=True)


def read_file(path: Path) -> bytes:
    """The content of a regular file; a pipe or a device would block, or never end.

    Raises:
        OSError: it is missing, of another kind, or not readable.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def _flush(handle: int) -> None:
    """Make a file's content durable; on macOS fsync leaves it in the disk's own memory, and F_FULLFSYNC does not."""
    if fcntl and hasattr(fcntl, "F_FULLFSYNC"):
        with contextlib.suppress(OSError):  # some shares lack it
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot open a folder (Windows) or sync one (some shares) do without."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as fault:
            if fault.errno not in UNABLE_TO_SYNC:
                raise
        finally:
            os.close(handle)
