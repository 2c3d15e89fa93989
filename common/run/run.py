"""A run: one folder with its settings, tables, checkpoints and figures, that the same command continues after any stop.

Randomness is a pure function of (seed, stream, step), so nothing of it has to be saved and drawing more often changes
no weight. The newest checkpoint is the one truth about a run: weights, tables, kept tensors; CSV files are views of it.

Of several processes (`common.run.distributed`) the first owns the folder and all but the weights. In `steps` they agree
on signals and saving, at the same step, and the others leave there when training is done.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import torch
from tqdm import tqdm

from common.run import checkpoints, distributed, files, folder
from common.run.batches import Batch, batch_indices
from common.run.cli import resolve_device
from common.run.device import configure
from common.run.environment import environment, history
from common.run.faults import BadInput, TrainingFailed
from common.run.files import read_file, write_file
from common.run.guard import Guard
from common.run.identity import differences, identity
from common.run.numbers import first_non_finite
from common.run.rng import rng_for
from common.run.signals import StopSignals
from common.run.tables import Tables
from common.run.tensorboard import board

CHECKPOINT_SECONDS = 60.0
CHECK_STEPS = 50  # between looks at what the guard deferred


class Run:
    """Open a run's folder, continue from its newest valid checkpoint, save at epoch ends, on signals and every minute.

    Args:
        config: a frozen dataclass with at least `seed`, `device`, `out`, `fresh`.
        script: the script's name without `.py`; a folder belongs to one script.
        state: named objects with `state_dict` and `load_state_dict` (networks, optimizers), restored on entering.

    Attributes:
        identity: the script and the settings that decide the result.
        folder: where everything is written.
        device: the torch device.
        guard: takes optimizers' steps, or stops the run where numbers are not finite.
        step: steps done.
        tables: name -> rows; every table becomes `<name>.csv`. `record`, `rows` and `replace` are those of `Tables`.
        tensors: small tensors to keep with the run (drawn samples, say), on the processor, restored on entering.
        seconds: time spent in `steps` by all processes of this run [s].
        continued: whether a checkpoint was loaded.
        trained: whether this process did any step.
        is_first: whether this process records, measures and writes; of several processes one does.

    Raises:
        BadInput: the folder cannot be used, holds another configuration, is in use, or has no valid checkpoint left.
    """

    def __init__(self, config: Any, script: str, **state: Any) -> None:
        self.config, self.script, self.state = config, script, state
        self.folder = Path(config.out)
        self.device = resolve_device(config.device)
        configure(self.device, getattr(config, "precision", "float32"))
        self.guard = Guard(self.device)
        self.step, self.seconds = 0, 0.0
        self.continued = self.trained = False
        self.tables = Tables()
        self.record, self.rows, self.replace = self.tables.record, self.tables.rows, self.tables.replace
        self.is_first = distributed.is_first()
        if not self.is_first:
            self.record = lambda table, **values: None
        self.tensors: dict[str, torch.Tensor] = {}
        self.identity = {"script": script, **identity(config)}
        self._signals = StopSignals(self.say, patient=distributed.size() > 1)
        self._changed, self._saved = False, time.monotonic()
        self._trusted: Path | None = None
        self._history: list[dict[str, Any]] = []
        self._bar = tqdm(disable=True)
        self._in_step = False
        self._lock: filelock.BaseFileLock | None = None
        self._show: Callable[[Tables], None] = lambda tables: None

    # Entering and leaving.

    def __enter__(self) -> "Run":
        try:
            found = distributed.from_first(self._open)
            if not self.is_first:
                self._receive(found)
            self._signals.watch()
        except BaseException:
            if self._lock:
                self._lock.release()
            raise
        return self

    def __exit__(self, kind: type | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._bar.close()
            if isinstance(fault, TrainingFailed) and self._in_step:
                fault.args = (f"step {self.step}: {fault}",)
            if fault is None:
                self.save()
                self.stop_if_asked()  # a signal that came after the last step
        finally:
            self._signals.close()
            if self._lock:
                folder.note_written(self.folder)
                self._lock.release()

    # What a script does with a run.

    def rng(self, stream: str, step: int) -> torch.Generator:
        """The generator of one step of a stream, on the run's device."""
        return rng_for(self.config.seed, stream, step, self.device)

    def steps(self, total: int, per_epoch: int, images_per_step: int = 0) -> Iterator[int]:
        """Yield the steps still to do, up to `total`; save at each epoch's end, every minute and when asked to stop.

        Of several processes only the first returns from here; the others end, with exit code 0.
        """
        if self.step < total and self.is_first:
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
            self._changed = self.trained = True
            self._bar.update()
            asked, due = distributed.largest(self._signals.asked, self._is_due())
            if asked or due or self.step % per_epoch == 0:
                distributed.require_equal([part.state_dict() for part in self.state.values()])
                self.save()
            if asked:
                self._signals.saving = True  # on the first; as soon as one process ends, torchrun ends all
                distributed.wait_for_all()
                self._stop(asked)
        distributed.leave_the_first_alone()

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
        if self._signals.asked or self._is_due():
            self.save()
        if self._signals.asked:
            self._stop(self._signals.asked)

    def _is_due(self) -> bool:
        return self.is_first and time.monotonic() - self._saved > CHECKPOINT_SECONDS

    def _stop(self, number: int) -> None:
        self.say(f"stopped at step {self.step:,}; the same command continues")
        sys.exit(128 + number)

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        """Keep a small tensor with the run (drawn samples, say): it is in every checkpoint and in `tensors`."""
        self.tensors[name] = tensor.cpu()
        self._changed = True

    def save(self) -> None:
        """Write a checkpoint, the tables and `environment.json`, if anything changed since the last time.

        Raises:
            TrainingFailed: a weight is not finite; no checkpoint ever holds one.
        """
        if not self.is_first or not (self._changed or self.tables.changed):
            return
        self._signals.saving = True
        self.guard.check()
        self.tables.settle()
        made_by = self._note_environment()
        content = {
            "script": self.script,
            "config": {name: value for name, value in self.identity.items() if name != "script"},
            "step": self.step,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "history": self._history,
            "tables": dict(self.tables),
            "tensors": {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()},
            "state": {name: part.state_dict() for name, part in self.state.items()},
        }
        if bad := first_non_finite({"state": content["state"], "tensors": content["tensors"]}):
            raise TrainingFailed(f"step {self.step}: {bad} is not finite; the checkpoint before it is kept")
        self._checkpoint_folder.mkdir(exist_ok=True)
        self._trusted = checkpoints.save(self._checkpoint_folder, self.step, content, self._trusted)
        self.tables.write(self.folder, self.say)
        self._show(self.tables)
        write_file(
            self.folder / "environment.json",
            _json({**made_by, "mixed": len(self._history) > 1, "history": self._history}),
        )
        self._changed = self.tables.changed = self._signals.saving = False
        self._saved = time.monotonic()

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

    def _open(self) -> bytes:
        """Claim the folder and continue from what is in it, or start over; returns what other processes `_receive`."""
        self._lock = folder.claim(self.folder)
        files.remove_leftovers(self.folder, self._checkpoint_folder)
        if self.config.fresh:
            checkpoints.remove_all(self._checkpoint_folder)
            folder.remove_written(self.folder)
        else:
            self._restore()
        recipe = {"recipe": self.config.recipe} if hasattr(self.config, "recipe") else {}
        write_file(self.folder / "config.json", _json({"script": self.script, **recipe, **self.identity}))
        if self.continued:
            self.tables.write(self.folder, self.say, tell=True)
        if getattr(self.config, "tensorboard", False):
            self._show = board(self.folder, self.say)
        if distributed.size() == 1:
            return b""
        buffer = io.BytesIO()
        torch.save((self.step, self.continued, {n: part.state_dict() for n, part in self.state.items()}), buffer)
        return buffer.getvalue()

    def _receive(self, found: bytes) -> None:
        """Begin where the first process begins, with its weights."""
        self.step, self.continued, state = torch.load(io.BytesIO(found), map_location="cpu", weights_only=True)
        for name, part in self.state.items():
            part.load_state_dict(state[name])

    @property
    def _checkpoint_folder(self) -> Path:
        return self.folder / "checkpoints"

    def _restore(self) -> None:
        """Load the newest valid checkpoint that belongs to this run; refuse a folder of another configuration."""
        found = checkpoints.listing(self._checkpoint_folder)
        self._check_config()
        for path in reversed(found):
            try:
                content = checkpoints.load(path)
                if other := differences({"script": content["script"], **content["config"]}, self.identity):
                    raise ValueError(f"it is of another run: {other}")
                for name, part in self.state.items():
                    checkpoints.require_fit(part, content["state"][name], name)
                for name, part in self.state.items():
                    part.load_state_dict(content["state"][name])
                self.tensors = content["tensors"]
            except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as fault:
                self.say(f"warning: {path} is left out: {' '.join(str(fault).split())}")
                continue
            self.step, self.seconds = content["step"], content["seconds"]
            self.tables.update(content["tables"])
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
        if other := differences(found, self.identity):
            raise BadInput(
                f"--out {self.folder}: holds a run with {other}; choose another --out, or --fresh to start over"
            )


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
