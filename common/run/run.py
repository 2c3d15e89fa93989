"""A run: one folder with its settings, tables, checkpoints and figures, that the same command continues after any stop.

Randomness is a pure function of (seed, stream, step), so nothing of it has to be saved and drawing more often changes
no weight. The newest checkpoint is the one truth about a run: weights, tables, kept tensors; CSV files are views of it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from common.run import checkpoints, files, folder
from common.run.batches import Batch, batch_indices
from common.run.cli import BadInput, TrainingFailed, resolve_device
from common.run.device import configure
from common.run.environment import environment, history
from common.run.files import read_file, write_file
from common.run.guard import Guard
from common.run.numbers import first_non_finite
from common.run.rng import rng_for

CHECKPOINT_SECONDS = 60.0
CHECK_STEPS = 50  # between looks at what the guard deferred
# How a run is shown, and what adds rows without a change of those there are.
SHOWN = ("out", "fresh", "device", "sample", "sample_epochs", "quality_samples", "recipe")
NOT_IDENTITY = (*SHOWN, "draws", "classifier", "benchmark")

# What former configurations call otherwise, and what they mean by a setting that they do not have.
FORMER_NAMES = {"repeats": "echo", "repeats_from": "echo_from", "shift": "max_shift", "modulation": "self_modulation"}
NEUTRAL = {"selection": False, "ema_late_from": 2 / 3, "critic_lr": 0.0, "batch_norm": False, "self_modulation": 0}
NEUTRAL["detail"] = 0
FORMER_NAMES |= {"width": "generator_width", "depth": "generator_depth"}  # of question 2
NEUTRAL |= {"discriminator_width": 64, "discriminator_depth": 3, "average_decay": 0.998, "comparison_seeds": 10}


def under_todays_names(found: dict[str, Any], mine: Iterable[str]) -> dict[str, Any]:
    """A configuration as a file holds it, in the names of today; a setting it knows nothing of has its neutral value.

    Args:
        mine: the names of today's settings.
    """
    mine = set(mine)
    former = {old: new for old, new in FORMER_NAMES.items() if new in mine and old not in mine}
    renamed = {former.get(name, name): value for name, value in found.items() if name not in NOT_IDENTITY}
    unknown = {name: value for name, value in NEUTRAL.items() if name in mine and name not in renamed}
    return renamed | unknown


class Run:
    """Open a run's folder, continue from its newest valid checkpoint, save at epoch ends, on signals and every minute.

    Args:
        config: a frozen dataclass with at least `seed`, `device`, `out`, `fresh`.
        script: the script's name without `.py`; a folder belongs to one script.
        state: named objects with `state_dict` and `load_state_dict` (networks, optimizers), restored on entering.

    Attributes:
        folder: where everything is written.
        device: the torch device.
        guard: takes optimizers' steps, or stops the run where numbers are not finite.
        step: steps done.
        tables: table name -> rows (dicts of plain values); every table becomes `<name>.csv`.
        tensors: small tensors to keep with the run (drawn samples, say), on the processor, restored on entering.
        seconds: time spent in `steps` by all processes of this run [s].
        continued: whether a checkpoint was loaded.

    Raises:
        BadInput: the folder cannot be used, holds another configuration, is in use, or has no valid checkpoint left.
    """

    def __init__(self, config: Any, script: str, **state: Any) -> None:
        self.config, self.script, self.state = config, script, state
        self.folder = Path(config.out)
        self.device = resolve_device(config.device)
        configure(self.device, getattr(config, "precision", "float32"))
        self.guard = Guard(self.device)
        self.step, self.seconds, self.continued = 0, 0.0, False
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self._signal, self._changed, self._saved, self._trusted = 0, False, time.monotonic(), None
        self._history: list[dict[str, Any]] = []
        self._pending: list[tuple[dict[str, Any], str]] = []
        self._bar: tqdm | None = None
        self._in_step = False
        self._former_handlers: dict[int, Any] = {}

    # Entering and leaving.

    def __enter__(self) -> "Run":
        self._lock = folder.claim(self.folder)
        try:
            files.remove_leftovers(self.folder, self._checkpoint_folder)
            if self.config.fresh:
                checkpoints.remove_all(self._checkpoint_folder)
            else:
                self._restore()
            recipe = {"recipe": self.config.recipe} if hasattr(self.config, "recipe") else {}
            write_file(self.folder / "config.json", _json({"script": self.script, **recipe, **self._identity}))
            if self.continued:
                self._write_tables(tell=True)
            in_main = threading.current_thread() is threading.main_thread()  # elsewhere no handler can be set
            for number in (signal.SIGINT, signal.SIGTERM) if in_main else ():
                self._former_handlers[number] = signal.signal(number, self._on_signal)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._bar is not None:
                self._bar.close()
            if isinstance(fault, TrainingFailed) and self._in_step:
                fault.args = (f"step {self.step}: {fault}",)
            if fault is None:
                self.save()
                self.stop_if_asked()  # a signal that came after the last step
        finally:
            for number, handler in self._former_handlers.items():
                signal.signal(number, handler)
            self._lock.release()

    # What a script does with a run.

    def rng(self, stream: str, step: int) -> torch.Generator:
        """The generator of one step of a stream, on the run's device."""
        return rng_for(self.config.seed, stream, step, self.device)

    def steps(self, total: int, per_epoch: int, images_per_step: int = 0) -> Iterator[int]:
        """Yield the steps still to do, up to `total`; save at each epoch's end, every minute and when asked to stop."""
        if self.step < total:
            self._note_environment()
            self._bar = tqdm(total=total, initial=self.step, unit="step", disable=not sys.stderr.isatty(), leave=False)
        self._progress = (time.monotonic(), self.step, total, images_per_step)
        while self.step < total:
            start = time.monotonic()
            self._in_step, self.guard.now = True, self.step
            yield self.step
            self._in_step = False
            self.step += 1
            if self.step % CHECK_STEPS == 0:
                self.guard.check()  # waits for the device, which is time of training
            self.seconds += time.monotonic() - start
            self._changed = True
            self._bar.update()
            if self.step % per_epoch == 0:
                self.save()
            self.stop_if_asked()

    def batches(self, n: int, batch_size: int, epochs: int) -> Iterator[Batch]:
        """Yield the batches still to do of `epochs` passes over `n` images, in an order that the seed decides."""
        per_epoch = -(-n // batch_size)
        total = epochs * per_epoch
        indices = batch_indices(n, batch_size, self.config.seed, self.step, self.device)
        for step in self.steps(total, per_epoch, batch_size):
            epoch, position = divmod(step, per_epoch)
            yield Batch(step, next(indices), epoch + 1, position == per_epoch - 1, step / total)

    def stop_if_asked(self) -> None:
        """Between pieces of long work: save every minute; after SIGINT or SIGTERM save and exit with 130 or 143."""
        if self._signal or time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save()
        if self._signal:
            self.say(f"stopped at step {self.step:,}; the same command continues")
            sys.exit(128 + self._signal)

    def record(self, table: str, **values: Any) -> None:
        """Append a row to a table; 0-d tensors stay on their device until the next save or reading."""
        self._pending.append(({name: _plain(value) for name, value in values.items()}, table))
        self._changed = True

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        """Keep a small tensor with the run (drawn samples, say): it is in every checkpoint and in `tensors`."""
        self.tensors[name] = tensor.cpu()
        self._changed = True

    def rows(self, table: str) -> pd.DataFrame:
        """A table so far, one row per record."""
        self._settle()
        return pd.DataFrame(self.tables.get(table, []))

    def replace(self, table: str, rows: pd.DataFrame) -> None:
        """Set a whole table, one that is computed from others."""
        plain = rows.to_dict("records")
        self._changed |= self.tables.get(table) != plain
        self.tables[table] = plain

    def save(self) -> None:
        """Write a checkpoint, the tables and `environment.json`, if anything changed since the last time.

        Raises:
            TrainingFailed: a weight is not finite; no checkpoint ever holds one.
        """
        if not self._changed:
            return
        self.guard.check()
        self._settle()
        made_by = self._note_environment()
        content = {
            "script": self.script,
            "config": self._identity,
            "step": self.step,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "history": self._history,
            "tables": self.tables,
            "tensors": {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()},
            "state": {name: part.state_dict() for name, part in self.state.items()},
        }
        if bad := first_non_finite({"state": content["state"], "tensors": content["tensors"]}):
            raise TrainingFailed(f"step {self.step}: {bad} is not finite; the checkpoint before it is kept")
        self._checkpoint_folder.mkdir(exist_ok=True)
        self._trusted = checkpoints.save(self._checkpoint_folder, self.step, content, self._trusted)
        self._write_tables()
        write_file(self.folder / "environment.json", _json({**made_by, "history": self._history}))
        self._changed, self._saved = False, time.monotonic()

    def say(self, line: str) -> None:
        """Print a line, above the progress bar where there is one."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def report(self, epoch: int, epochs: int, **values: float) -> None:
        """One line per epoch: its figures, images per second since the last line, and the time left at that speed."""
        began, first, total, images = self._progress
        self._progress = (time.monotonic(), self.step + 1, total, images)
        done, seconds = self.step + 1 - first, max(self._progress[0] - began, 1e-9)  # a clock may stand still
        left = (total - self.step - 1) * seconds / done
        figures = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        speed = f"  {images * done / seconds:,.0f} images/s" if images else ""
        self.say(f"epoch {epoch:>3}/{epochs}  {figures}{speed}  {int(left // 60)} min {int(left % 60):02d} s left")

    # The folder.

    @property
    def _checkpoint_folder(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def _identity(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON knows them."""
        settings = {k: v for k, v in asdict(self.config).items() if k not in NOT_IDENTITY}
        return json.loads(json.dumps(settings, default=str))

    def _restore(self) -> None:
        """Load the newest valid checkpoint that belongs to this run; refuse a folder of another configuration."""
        found = checkpoints.listing(self._checkpoint_folder)
        self._check_config()
        for path in reversed(found):
            try:
                content = checkpoints.load(path)
                if other := self._differences({"script": content["script"], **content["config"]}):
                    raise ValueError(f"it is of another run: {other}")
                for name, part in self.state.items():
                    checkpoints.require_fit(part, content["state"][name], name)
                for name, part in self.state.items():
                    part.load_state_dict(content["state"][name])
                self.tensors = content["tensors"]
            except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as fault:
                self.say(f"warning: {path} is left out: {' '.join(str(fault).split())}")
                continue
            self.step, self.seconds, self.tables = content["step"], content["seconds"], content["tables"]
            self.continued, self._trusted, self._history = True, path, content["history"]
            return
        if found:
            raise BadInput(
                f"{self._checkpoint_folder}: no valid checkpoint; --fresh starts over, or choose another --out"
            )

    def _note_environment(self) -> dict[str, Any]:
        """What makes the run now; where that is not what made it before, a line says so, and the history keeps it."""
        now, former = environment(self.device, self.seconds), self._history
        self._history = history(former, now, self.step)
        if former and self._history is not former:
            old, new = former[-1], self._history[-1]
            names = [name for name in {**old, **new} if name != "from_step" and old.get(name) != new.get(name)]
            change = ", ".join(f"{name} {old.get(name, '-')} before, {new.get(name, '-')} now" for name in names)
            self.say(f"warning: {change}: the run may differ from an unbroken one; environment.json keeps both")
        return now

    def _check_config(self) -> None:
        """Compare `config.json` with this run's settings; a lost one is written again where checkpoints can vouch."""
        path = self.folder / "config.json"
        try:
            found = json.loads(read_file(path))
            if not isinstance(found, dict):
                raise ValueError
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError):
            self.say(f"warning: {path} is not readable; it is written again from this command")
            return
        if other := self._differences(found):
            raise BadInput(
                f"--out {self.folder}: holds a run with {other}; choose another --out, or --fresh to start over"
            )

    def _differences(self, found: dict[str, Any]) -> str:
        """Every setting in which a found configuration differs from this run's, as text; empty if none does."""
        missing, mine = object(), {"script": self.script, **self._identity}
        found = under_todays_names(found, mine)
        names = [name for name in {**found, **mine} if found.get(name, missing) != mine.get(name, missing)]
        return ", ".join(f"{n} {_value(found.get(n, '-'))} (now {_value(mine.get(n, '-'))})" for n in names)

    def _settle(self) -> None:
        """Move recorded tensors to the host, all of them in one transfer, and append the rows to their tables."""
        waiting = [(row, key) for row, _ in self._pending for key, v in row.items() if isinstance(v, torch.Tensor)]
        if waiting:
            precision = torch.float64 if self.device.type == "cpu" else torch.float32
            values = torch.stack([row[key].to(precision) for row, key in waiting]).tolist()
            for (row, key), value in zip(waiting, values, strict=True):
                row[key] = value
        for row, table in self._pending:
            self.tables.setdefault(table, []).append(row)
        self._pending.clear()

    def _write_tables(self, tell: bool = False) -> None:
        """Write every table that is not on disk as it should be; `tell` where it is not."""
        for name, rows in self.tables.items():
            path = self.folder / f"{name}.csv"
            content = pd.DataFrame(rows).to_csv(index=False, float_format="%.7g").encode()
            if path.is_file() and path.read_bytes() == content:
                continue
            if tell:
                self.say(f"warning: {path} is missing or not that of the checkpoint; it is written again")
            write_file(path, content)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signal:
            os._exit(128 + number)
        self._signal = number


def _plain(value: Any) -> Any:
    """A value as a checkpoint may hold it: numpy's scalars become Python's, tensors lose their graph."""
    return value.detach() if isinstance(value, torch.Tensor) else value.item() if hasattr(value, "item") else value


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
