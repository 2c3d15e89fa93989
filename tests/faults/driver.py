"""Run a script in a process of its own, with one fault in it: a kill, a power cut, a signal or an error of the disk.

The process is a fork, so torch is imported once; it dies by a real SIGKILL and nothing of it is cleaned up. Every fault
is put in from here by wrapping the file operations of that process; the product knows nothing of it.
"""

import builtins
import importlib
import io
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch._dynamo  # Adam imports it at its first step; here it is done once for all forks

from common.run import checkpoints
from common.run.cli import launch

TIMES = ("seconds",)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        operation: torch.save, open (for writing), write, fsync, replace, unlink or mkdir; empty for any.
        file: a regular expression that the file's name matches; of a rename, the new name.
        act: what happens, with the `Disk` as its argument.
        nth: at which such operation.
        done: the share of the operation that is done before: 0, 0.5 (of a write) or 1.
        lasting: whether all later ones fail too.
    """

    operation: str
    file: str
    act: Callable[["Disk"], None]
    nth: int = 1
    done: float = 0
    lasting: bool = False


def kill(disk: "Disk") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut_power(disk: "Disk") -> None:
    """Everything that was not flushed to disk is lost: contents of files, and names in folders."""
    for target, former in reversed(disk.loose_names):
        disk.real["replace"](former, target) if former else disk.real["unlink"](target)
    for path in disk.loose_contents:
        if os.path.exists(path):
            os.truncate(path, 0)
    kill(disk)


def send(number: int) -> Callable[["Disk"], None]:
    return lambda disk: os.kill(os.getpid(), number)


def fail(number: int) -> Callable[["Disk"], None]:
    def act(disk: "Disk") -> None:
        raise OSError(number, os.strerror(number))  # as the write of a file does it: without its name

    return act


class Disk:
    """The file operations of this process inside one folder: counted, watched, with a fault at one of them."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.folder, self.fault, self.seen = str(folder.resolve()), fault, 0
        self.journal: list[str] = []
        self.handles: dict[int, str] = {}
        self.loose_contents: set[str] = set()
        self.loose_names: list[tuple[str, str | None]] = []  # new name, and a copy of what it stood for before
        self.real = {name: getattr(os, name) for name in ("replace", "unlink", "mkdir", "open")}
        self.real |= {"write": io.open, "save": torch.save}

    def install(self) -> None:
        """Put the wrappers in place, for the rest of this process."""
        builtins.open = io.open = self.open
        os.open, os.fsync, torch.save = self.open_handle, self.fsync, self.save
        os.replace, os.unlink, os.mkdir = self.replace, self.unlink, self.mkdir

    def reach(self, operation: str, path: Any, work: Callable, halves: tuple[Callable, Callable] | None = None) -> Any:
        """Do the work; before, amid or after it the fault, if this is its moment."""
        path, fault = os.path.realpath(path), self.fault
        if not path.startswith(self.folder):
            return work()
        self.journal.append(f"{operation} {os.path.relpath(path, self.folder)}")
        if fault is None or fault.operation not in ("", operation) or not re.search(fault.file, os.path.basename(path)):
            return work()
        self.seen += 1
        if self.seen < fault.nth or (self.seen > fault.nth and not fault.lasting):
            return work()
        if fault.done == 1:
            result = work()
            fault.act(self)
            return result
        if fault.done:
            halves[0]()
        fault.act(self)
        return halves[1]() if fault.done else work()

    def open(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        def work() -> Any:
            return self.real["write"](path, mode, *arguments, **options)

        if isinstance(path, int) or "r" in mode:
            return work()
        file = self.reach("open", path, work)
        self.handles[file.fileno()] = os.path.realpath(path)
        return Written(file, os.path.realpath(path), self)

    def open_handle(self, path: Any, *arguments: Any, **options: Any) -> int:
        handle = self.real["open"](path, *arguments, **options)
        self.handles[handle] = os.path.realpath(path)
        return handle

    def fsync(self, handle: int) -> None:
        path = self.handles[handle]
        self.reach("fsync", path, lambda: None)  # a kill leaves the system's memory as it is; a power cut is played
        self.loose_contents.discard(path)
        self.loose_names = [(target, former) for target, former in self.loose_names if os.path.dirname(target) != path]

    def replace(self, source: Any, target: Any) -> None:
        old, new = os.path.realpath(source), os.path.realpath(target)

        def work() -> None:
            copy = None
            if os.path.exists(new):
                copy = tempfile.mkstemp()[1]
                Path(copy).write_bytes(Path(new).read_bytes())
            self.real["replace"](source, target)
            self.loose_names.append((new, copy))
            if old in self.loose_contents:
                self.loose_contents.add(new)

        self.reach("replace", target, work)

    def save(self, *arguments: Any, **options: Any) -> None:
        self.reach("torch.save", self.folder, lambda: self.real["save"](*arguments, **options))

    def unlink(self, path: Any, **options: Any) -> None:
        self.reach("unlink", path, lambda: self.real["unlink"](path, **options))
        gone = os.path.realpath(path)
        self.loose_names = [(target, former) for target, former in self.loose_names if target != gone]

    def mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:
        self.reach("mkdir", path, lambda: self.real["mkdir"](path, *arguments, **options))


class Written:
    """A file open for writing."""

    def __init__(self, file: Any, path: str, disk: Disk) -> None:
        self.file, self.path, self.disk = file, path, disk

    def write(self, content: Any) -> int:
        middle = len(content) // 2

        def first() -> None:
            self.file.write(content[:middle])
            self.file.flush()

        self.disk.loose_contents.add(self.path)
        halves = (first, lambda: self.file.write(content[middle:]))
        return self.disk.reach("write", self.path, lambda: self.file.write(content), halves)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *fault: Any) -> None:
        self.file.close()


@dataclass
class Ended:
    """How a process ended: its exit code (negative: the signal that killed it), what it said, what it did on disk."""

    code: int
    out: str
    err: str
    journal: list[str] = field(default_factory=list)


def start(
    script: str,
    flags: list,
    out: Path,
    fault: Fault | None = None,
    prepare: Callable | None = None,
    life: float | None = None,
) -> Ended:
    """Run `script --out OUT FLAGS` in a fork, with a fault in it.

    Args:
        prepare: called with the script's module in the new process, before it starts.
        life: kill the process after so many seconds, wherever it is.
    """
    module = importlib.import_module(script)
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong, tempfile.TemporaryFile() as done:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = _in_child(module, flags, out, fault, prepare, said, wrong, done)
            finally:
                os._exit(code)
        if life is not None:
            time.sleep(life)
            os.kill(child, signal.SIGKILL)  # one that has ended waits for us and keeps its exit code
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (said, wrong, done):
            file.seek(0)
            texts.append(file.read())
    return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], texts[2].decode().splitlines())


def _in_child(module: Any, flags: list, out: Path, fault: Any, prepare: Any, said: Any, wrong: Any, done: Any) -> int:
    signal.alarm(120)  # a process that hangs dies
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in ((1, said), (2, wrong)):
        os.dup2(file.fileno(), number)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, encoding="utf-8", errors="strict")
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace")
    sys.argv = [f"{module.__name__}.py", "--out", str(out), *map(str, flags)]
    code, disk = 0, Disk(out, fault)
    try:
        if prepare:
            prepare(module)
        disk.install()
        launch(module.Config, module.main, module.__doc__)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    done.write("\n".join(disk.journal).encode())
    done.flush()
    return code


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nest of dicts, lists, tensors and values as name -> bytes, times aside: equal only if equal bit for bit."""
    if isinstance(value, torch.Tensor):
        return {name: (value.dtype, tuple(value.shape), value.contiguous().view(-1).numpy().tobytes())}
    if not isinstance(value, dict | list | tuple):
        return {name: repr(value)}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {n: v for key, inner in items if key not in TIMES for n, v in flat(inner, f"{name}/{key}").items()}


def outcome(out: Path) -> dict[str, Any]:
    """All that a run leaves: weights, optimizer states, averages, kept tensors, rows; and the files made of them."""
    newest = checkpoints.listing(out / "checkpoints")[-1]
    result = flat(checkpoints.load(newest), "checkpoint")
    for path in sorted(out.glob("*.csv")):
        table = pd.read_csv(path, dtype=str)
        result[path.name] = table.drop(columns=[c for c in TIMES if c in table]).to_csv()
    for path in sorted({*out.glob("*.pt"), *out.glob("*.npz"), *out.glob("*.png"), out / "config.json"}):
        result[path.name] = path.read_bytes()
    return result


def valid_checkpoints(out: Path) -> list[int]:
    """Steps of the checkpoints in the folder; fails if one of them is not valid."""
    return [checkpoints.load(path)["step"] for path in checkpoints.listing(out / "checkpoints")]


def left_over(out: Path) -> list[Path]:
    """Temporary files in the folder."""
    return list(out.rglob("*.unfinished"))
