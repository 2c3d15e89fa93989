"""Many runs as a queue on a shared disk: whoever is free takes the next folder that is neither finished nor in use.

Every run is a command of its own in a process of its own, and the lock of its folder is the queue's only means of
agreement, so the same study started on several machines shares the work, and a killed one loses what it had not saved.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from tqdm import tqdm

from common.run import checkpoints
from common.run.cli import Recipes
from common.run.faults import BadInput, TrainingFailed
from common.run.files import read_file, write_file
from common.run.folder import CHECKPOINTS, LOCK

MARK = ".finished.json"  # in a run's folder: the command that finished there, and the checkpoint that it left
LOOK_SECONDS, WAIT_SECONDS = 0.2, 5.0  # between looks at the jobs; between looks at folders that others hold
GRACE = 70.0  # seconds that a job has to save; a run ends itself before
ROOT = Path(__file__).resolve().parent.parent.parent


class Task(NamedTuple):
    """One run: its folder, whose name is unique, and the script's file name with all its flags."""

    folder: Path
    command: list[str]


class _Job(NamedTuple):
    task: Task
    process: subprocess.Popen
    began: float


def task(script: str, config: Any, recipes: Recipes | None = None) -> Task:
    """The task that runs a script, `q4_dcgan` say, with these settings."""
    return Task(Path(config.out), [f"{script}.py", *flags_of(config, recipes)])


def flags_of(config: Any, recipes: Recipes | None = None) -> list[str]:
    """The flags that `parse` reads as this config: those that differ from the defaults, or from the recipe's."""
    defaults = type(config)(**recipes[config.recipe](config)) if recipes else type(config)()
    flags = ["--recipe", config.recipe] if recipes else []
    for name in (f.name for f in fields(config) if not (recipes and f.name == "recipe")):
        value, default = getattr(config, name), getattr(defaults, name)
        if value == default:
            continue
        flags.append("--" + name.replace("_", "-"))
        if value is not True:  # a flag that is off by default takes no value
            flags += [str(part) for part in (value if isinstance(value, tuple) else (value,))]
    return flags


def is_finished(task: Task) -> bool:
    """Whether this very command ended well in the folder, and what it left has not changed since."""
    try:
        return json.loads(read_file(task.folder / MARK)) == _mark(task)
    except (OSError, ValueError, RecursionError):
        return False


def is_in_use(folder: Path) -> bool:
    """Whether a process holds the folder's lock, on any machine that shares the disk."""
    lock = filelock.FileLock(folder / LOCK)
    if not (folder / LOCK).is_file():
        return False
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def work(tasks: Sequence[Task], jobs: int) -> None:
    """Bring all tasks to their end, at most `jobs` at once here, each with one thread where there are several.

    What a job prints goes to `<folder>.log` beside its folder. Where others hold what is left, it waits for them and
    takes over what they leave. SIGINT and SIGTERM are passed on to the jobs, which save; the same command continues.

    Raises:
        TrainingFailed: a job failed; the others were brought to their end.
        SystemExit: 130 or 143 after a signal.
    """
    waiting, running, failed = list(tasks), list[_Job](), list[str]()
    bars = [tqdm(bar_format="{desc}", position=i, leave=False, disable=not sys.stderr.isatty()) for i in range(jobs)]
    told: set[Path] = set()
    looked = -WAIT_SECONDS
    with _signals() as asked:
        try:
            while waiting or running:
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    looked = -WAIT_SECONDS
                    if line := _ended(job):
                        if ": in use by " in line:  # another machine was faster
                            waiting.append(job.task)
                        else:
                            failed.append(job.task.folder.name)
                if asked:
                    _stop(running, asked[0])
                    raise SystemExit(128 + asked[0])
                if len(running) < jobs and time.monotonic() - looked >= WAIT_SECONDS:
                    looked = time.monotonic()
                    waiting = [task for task in waiting if not _say_if_finished(task)]
                    free = [task for task in waiting if not is_in_use(task.folder)][: jobs - len(running)]
                    for chosen in free:
                        waiting.remove(chosen)
                        running.append(_start(chosen, jobs))
                    if not running:
                        _say_who_is_waited_for(waiting, told)
                for bar, shown in zip(bars, [*running, *[None] * jobs], strict=False):
                    bar.set_description_str(f"{shown.task.folder.name}: {_last_line(shown.task)}" if shown else "")
                time.sleep(LOOK_SECONDS)
        finally:
            for bar in bars:
                bar.close()
            _stop(running, signal.SIGTERM)
    if failed:
        raise TrainingFailed(f"{len(failed)} of {len(tasks)} runs failed: {', '.join(failed)}; the others are finished")


def _start(task: Task, jobs: int) -> _Job:
    """Start a task in a session of its own, since a signal from the keyboard would reach it twice otherwise."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})}
    task.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / task.command[0]), *task.command[1:]]
    with open(_log(task), "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    tqdm.write(f"{task.folder.name}: started, see {_log(task)}")
    sys.stdout.flush()
    return _Job(task, process, time.monotonic())


def _ended(job: _Job) -> str:
    """Say how a job ended; its last line if it failed."""
    task, code, minutes = job.task, job.process.returncode, (time.monotonic() - job.began) / 60
    line = _last_line(task) or f"exit code {code}"
    if code == 0:
        write_file(task.folder / MARK, json.dumps(_mark(task)).encode())
    tqdm.write(f"{task.folder.name}: " + (f"{line} (exit code {code})" if code else f"finished in {minutes:.1f} min"))
    sys.stdout.flush()
    return line if code else ""


def _say_if_finished(task: Task) -> bool:
    if finished := is_finished(task):
        tqdm.write(f"{task.folder.name}: finished before")
    return finished


def _say_who_is_waited_for(waiting: Sequence[Task], told: set[Path]) -> None:
    for task in waiting:
        if task.folder not in told:
            told.add(task.folder)
            tqdm.write(f"{task.folder.name}: in use by another process, which is waited for")


def _mark(task: Task) -> dict[str, Any]:
    newest = [path.name for path in checkpoints.listing(task.folder / CHECKPOINTS)][-1:]
    if not newest:
        raise ValueError("no checkpoint")
    return {"command": task.command, "checkpoint": newest[0]}


def _log(task: Task) -> Path:
    return task.folder.with_name(task.folder.name + ".log")


def _last_line(task: Task) -> str:
    with contextlib.suppress(OSError):
        with open(_log(task), "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 2000, 0))
            lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _stop(running: Sequence[_Job], number: int) -> None:
    """Pass a signal on and wait for the jobs to save."""
    for job in running:
        if job.process.poll() is None:
            job.process.send_signal(number)
    until = time.monotonic() + GRACE
    for job in running:
        try:
            job.process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            job.process.kill()


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that asked this process to stop, noted while the context lasts."""
    asked: list[int] = []
    former = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def require_folders_of_their_own(tasks: Sequence[Task]) -> None:
    """Raise `BadInput` where two tasks would share a folder."""
    folders = [task.folder for task in tasks]
    if len(set(folders)) < len(folders):
        raise BadInput("--seeds: one is named twice; name each once")
