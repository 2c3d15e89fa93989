"""Killed at any moment, the same command again ends as if nothing had happened, bit for bit (times aside).

And after the first checkpoint there is never a moment without a valid one.
"""

import os
import random
import signal
import stat

import pytest
from conftest import REAL
from driver import Fault, cut_power, kill, left_over, outcome, valid_checkpoints

from common.run import checkpoints, files
from common.run import run as run_module
from common.run.tables import Tables

# The moment: operation, file, share of it done. A checkpoint is written at steps 5, 10 and 15.
MOMENTS = {
    "before the folder": ("mkdir", r"run$", 0),
    "before the holder is named": ("open", r"holder", 0),
    "holder not yet written": ("write", r"holder", 0),
    "before the settings": ("open", r"config\.json", 0),
    "amid the settings": ("write", r"config\.json", 0.5),
    "before the checkpoints' folder": ("mkdir", r"checkpoints", 0),
    "while the state is serialised": ("torch.save", r"", 0),
    "before the temporary file": ("open", r"\.pt\.", 0),
    "temporary file empty": ("open", r"\.pt\.", 1),
    "amid the temporary file": ("write", r"\.pt\.", 0.5),
    "written, not flushed": ("fsync", r"\.pt\.", 0),
    "before the rename": ("replace", r"\.pt$", 0),
    "after the rename": ("replace", r"\.pt$", 1),
    "amid the metrics": ("write", r"metrics\.csv", 0.5),
    "before the metrics' rename": ("replace", r"metrics\.csv", 0),
    "amid the environment": ("write", r"environment\.json", 0.5),
}
REMOVALS = {"before the old one is removed": 0, "after the old one is removed": 1}
KILLS = [
    pytest.param(Fault(operation, file, kill, nth, done), id=f"{moment}, {nth}")
    for moment, (operation, file, done) in MOMENTS.items()
    for nth in ((1,) if file in (r"run$", r"holder", r"config\.json") else (1, 2, 3))
] + [
    pytest.param(Fault("unlink", r"^0.*\.pt$", kill, done=done), id=moment) for moment, done in REMOVALS.items()
]  # fmt: skip


@pytest.mark.parametrize("fault", KILLS)
def test_killed_run_continues_to_the_same_end(tiny, unbroken, tmp_path, fault):
    whole, _ = unbroken("toy_script")
    out = tmp_path / "run"
    assert tiny("toy_script", out, fault=fault).code == -signal.SIGKILL
    assert valid_checkpoints(out) or fault.nth == 1
    ended = tiny("toy_script", out)
    assert (ended.code, ended.err) == (0, ""), ended
    assert outcome(out) == whole
    assert not left_over(out)


def sweep(tiny, tmp_path, journal, chosen, prepare=None):
    """Cut the power before each chosen file operation, amid it where it is a write; yields number and folder."""
    reached = False
    for nth, operation in list(enumerate(journal, 1))[chosen]:
        out = tmp_path / str(nth)
        done = 0.5 if operation.startswith("write") else 0
        ended = tiny("toy_script", out, fault=Fault("", "", cut_power, nth, done), prepare=prepare)
        assert ended.code == -signal.SIGKILL, ended
        steps = valid_checkpoints(out)
        assert steps or not reached, f"no valid checkpoint after a power cut at operation {nth}, {operation}"
        reached = reached or bool(steps)
        yield nth, out
    assert reached, "no valid checkpoint after any power cut"


@pytest.mark.parametrize(
    "chosen", [slice(1, None, 4), pytest.param(slice(None), marks=pytest.mark.slow)], ids=["every fourth", "every"]
)
def test_power_cut_at_any_file_operation_loses_nothing(tiny, unbroken, tmp_path, chosen):
    """Harder than a kill: what was not flushed to disk, contents or names, is gone."""
    whole, journal = unbroken("toy_script")
    assert len(journal) > 60
    for nth, out in sweep(tiny, tmp_path, journal, chosen):
        ended = tiny("toy_script", out)
        assert (ended.code, ended.err) == (0, ""), (nth, ended)
        assert outcome(out) == whole, nth
        assert not left_over(out)


@pytest.mark.parametrize("unflushed", ["files", "folders"])
def test_control_without_flushing_a_power_cut_does_lose_a_checkpoint(tiny, tmp_path, unflushed):
    """The sweep above sees a product that renames what it has not flushed, or does not flush the rename."""

    class Careless:
        def __getattr__(self, name):
            return self.flush if name == "fsync" else getattr(os, name)

        def flush(self, handle):
            if stat.S_ISDIR(os.fstat(handle).st_mode) != (unflushed == "folders"):
                os.fsync(handle)

    def careless(_):
        files.os = Careless()

    journal = tiny("toy_script", tmp_path / "whole", prepare=careless).journal
    with pytest.raises((ValueError, AssertionError), match=r"truncated or altered|no valid checkpoint"):
        list(sweep(tiny, tmp_path, journal, slice(-14, None), careless))


@pytest.mark.parametrize("left_out", ["optimizer", "network", "step", "tables"])
def test_control_a_checkpoint_that_leaves_something_out_is_seen(tiny, unbroken, tmp_path, left_out):
    load = checkpoints.load

    def incomplete(path):
        content = load(path)
        if left_out == "step":
            content["step"] -= 1
        elif left_out == "tables":
            content["tables"]["losses"].pop()
        elif left_out == "network":
            content["state"]["network"]["weight"] += 1e-7
        else:
            content["state"]["optimizer"]["state"] = {}
        return content

    tiny("toy_script", tmp_path, fault=Fault("write", r"\.pt\.", kill, 2, 0.5))
    ended = tiny("toy_script", tmp_path, prepare=lambda _: setattr(checkpoints, "load", incomplete))
    assert ended.code == 0, ended
    assert outcome(tmp_path) != unbroken("toy_script")[0]


@pytest.mark.parametrize("name", REAL)
def test_each_script_survives_one_kill_after_another(tiny, unbroken, tmp_path, name):
    """One run, killed in its first checkpoint, then after a rename, then while a figure is written."""
    whole, _ = unbroken(name)
    faults = [
        Fault("write", r"\.pt\.", kill, 1, 0.5),
        Fault("replace", r"^0.*\.pt$", kill, 1, 1),
        Fault("write", r"metrics\.csv", kill, 1, 0.5),
        Fault("write", r"\.png", kill, 2, 0.5),
    ]
    for fault in faults:
        ended = tiny(name, tmp_path, fault=fault)
        assert (ended.code, ended.err) == (-signal.SIGKILL, ""), (fault, ended)
        assert valid_checkpoints(tmp_path) or fault is faults[0]
    ended = tiny(name, tmp_path)
    assert (ended.code, ended.err) == (0, ""), ended
    assert outcome(tmp_path) == whole
    assert not left_over(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_twenty_kills_at_random_times(tiny, unbroken, tmp_path, name):
    """Killed from outside after a random time, again and again, until the run is done."""
    whole, _ = unbroken(name)
    random_time, kills, runs = random.Random(0), 0, 0
    while kills < 20:
        out = tmp_path / str(runs)
        runs += 1
        code, lives = None, 0
        while code != 0:
            life = random_time.uniform(0.05, 0.5) * 1.25**lives  # longer each time, so that the figures get done
            lives += 1
            ended = tiny(name, out, prepare=save_every_step, life=life)
            assert ended.err == "", ended
            assert ended.code in (0, -signal.SIGKILL), ended
            code = ended.code
            kills += code != 0
        assert outcome(out) == whole
        assert not left_over(out)
    print(f"{name}: {kills} kills, {runs} runs")


def save_every_step(_):
    """So that every life gets somewhere."""
    run_module.CHECKPOINT_SECONDS = -1.0


COMPARISON = ["--loss", "all", "--comparison-seeds", 1, "--iterations", 4, "--evaluate-every", 2]


def test_comparison_survives_kills_and_a_signal_between_its_runs(tiny, tmp_path):
    """Q2 with `--loss all`: runs inside a run."""
    assert tiny("q2_gan_lab", tmp_path / "whole", *COMPARISON).code == 0

    def signal_after_training(_):
        rows, sent = Tables.rows, []

        def signalled(tables, table):
            if table == "floors" and not sent:  # the inner run has done its last step
                sent.append(os.kill(os.getpid(), signal.SIGTERM))
            return rows(tables, table)

        Tables.rows = signalled

    out = tmp_path / "run"
    for nth in (1, 2, 3):
        assert tiny("q2_gan_lab", out, *COMPARISON, fault=Fault("write", r"\.pt\.", kill, nth, 0.5)).code == -9
    ended = tiny("q2_gan_lab", out, *COMPARISON, prepare=signal_after_training)
    assert (ended.code, ended.err) == (143, ""), ended
    assert tiny("q2_gan_lab", out, *COMPARISON).code == 0
    assert outcome(out) == outcome(tmp_path / "whole")
    inner = sorted((tmp_path / "whole" / "runs").iterdir())
    assert len(inner) == 3
    assert all(outcome(out / "runs" / part.name) == outcome(part) for part in inner)
    assert not left_over(out)
