"""Disks that are full or read-only, handles that run out, two runs at once, signals at bad moments, damaged files.

Each ends with its exit code and one line; the former checkpoint is intact and the same command continues from it.
"""

import errno
import os
import signal
from pathlib import Path

import pytest
from conftest import REAL
from driver import Fault, fail, kill, left_over, outcome, send, valid_checkpoints

from common import own_data
from common.run import checkpoints

fcntl, resource = pytest.importorskip("fcntl"), pytest.importorskip("resource")
ERRORS = [
    pytest.param(Fault(operation, file, fail(number), nth, done, lasting=True), said, id=f"{name}, {file}, {nth}")
    for name, number, operation, done in (
        ("full while opening", errno.ENOSPC, "open", 0),
        ("full amid a write", errno.ENOSPC, "write", 0.5),
        ("full while flushing", errno.ENOSPC, "fsync", 0),
        ("read-only", errno.EROFS, "open", 0),
        ("read-only, rename", errno.EROFS, "replace", 0),
        ("quota", errno.EDQUOT, "write", 0.5),
        ("broken disk", errno.EIO, "fsync", 0),
        ("no handles", errno.EMFILE, "open", 0),
    )
    for file, nth, said in (
        (r"\.pt", 1, r"00001_step_5_"),
        (r"\.pt", 2, r"00002_step_10_"),
        (r"metrics\.csv", 2, "metrics.csv"),
        (r"config\.json", 1, "config.json"),
    )
]


@pytest.mark.parametrize("fault, said", ERRORS)
def test_disk_that_fails_is_one_line_and_the_former_checkpoint_intact(tiny, unbroken, tmp_path, fault, said):
    ended = tiny("toy_script", tmp_path, fault=fault)
    assert ended.code == 1, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert "the same command continues" in ended.err
    steps = valid_checkpoints(tmp_path)
    assert len(steps) == {r"\.pt": fault.nth - 1, r"metrics\.csv": 2, r"config\.json": 0}[fault.file]
    assert not left_over(tmp_path)
    assert tiny("toy_script", tmp_path).code == 0
    assert outcome(tmp_path) == unbroken("toy_script")[0]


@pytest.mark.parametrize("file", ["holder", r"run$"])
def test_folder_that_cannot_be_written_is_refused(tiny, tmp_path, file):
    fault = Fault("", file, fail(errno.EROFS), lasting=True)
    ended = tiny("toy_script", tmp_path / "run", fault=fault)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: --out {tmp_path / 'run'}: Read-only file system; choose a folder you can write to\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts handles in /proc")
@pytest.mark.parametrize("handles", range(3, 14))
def test_too_few_file_handles_are_one_line(tiny, unbroken, tmp_path, handles):
    """Whatever the number left, the run ends well or with a line, and goes on when there are enough."""

    def poor(_):
        taken = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (taken - 4 + handles - 3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )

    ended = tiny("toy_script", tmp_path, prepare=poor)
    if ended.code:
        assert ended.code in (1, 2), ended
        assert ended.err.startswith("error: "), ended
        assert ended.err.count("\n") == 1, ended
        assert "Too many open files; raise their limit (ulimit -n)" in ended.err
    assert tiny("toy_script", tmp_path).code == 0
    assert outcome(tmp_path) == unbroken("toy_script")[0]


@pytest.mark.parametrize("name", REAL)
def test_full_disk_in_each_script(tiny, unbroken, tmp_path, name):
    for fault in (
        Fault("write", r"\.pt\.", fail(errno.ENOSPC), 2, 0.5, lasting=True),
        Fault("write", r"\.png", fail(errno.ENOSPC), 1, 0.5, lasting=True),
    ):
        ended = tiny(name, tmp_path, fault=fault)
        assert ended.code == 1, ended
        assert ended.err.count("\n") == 1
        assert "No space left on device; mend that, and the same command continues" in ended.err
        assert valid_checkpoints(tmp_path)
        assert not left_over(tmp_path)
    assert tiny(name, tmp_path).code == 0
    assert outcome(tmp_path) == unbroken(name)[0]


def test_lock_of_a_killed_process_does_not_block_and_one_that_is_held_does(tiny, tmp_path):
    assert tiny("toy_script", tmp_path, fault=Fault("replace", r"\.pt$", kill, 1, 1)).code == -signal.SIGKILL
    assert (tmp_path / ".holder.lock").exists()
    before = valid_checkpoints(tmp_path)
    with open(tmp_path / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = tiny("toy_script", tmp_path, "--fresh")
        assert (ended.code, ended.out) == (2, "")
        assert "in use by process " in ended.err
        (tmp_path / ".holder.lock").write_bytes(b"\xff\xfe")
        assert "in use by" in tiny("toy_script", tmp_path).err
    assert valid_checkpoints(tmp_path) == before
    assert tiny("toy_script", tmp_path).code == 0


SIGNALLED = {
    "while settings are written": Fault("write", r"config\.json", send(signal.SIGTERM), 1, 0.5),
    "before a checkpoint": Fault("torch.save", r"", send(signal.SIGTERM), 2),
    "amid a checkpoint": Fault("write", r"\.pt\.", send(signal.SIGTERM), 1, 0.5),
    "between checkpoint and metrics": Fault("replace", r"\.pt$", send(signal.SIGTERM), 2, 1),
    "amid the last metrics": Fault("write", r"metrics\.csv", send(signal.SIGTERM), 3, 0.5),
}


@pytest.mark.parametrize("moment", SIGNALLED)
def test_signal_at_any_moment_saves_and_exits(tiny, unbroken, tmp_path, moment):
    fault = SIGNALLED[moment]
    ended = tiny("toy_script", tmp_path, fault=fault)
    if moment == "while settings are written":  # too early for anything to save
        assert ended.code == -signal.SIGTERM
    else:
        assert (ended.code, ended.err) == (143, ""), ended
        assert "the same command continues" in ended.out
        assert valid_checkpoints(tmp_path)
        assert not left_over(tmp_path)
    assert tiny("toy_script", tmp_path).code == 0
    assert outcome(tmp_path) == unbroken("toy_script")[0]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_in_each_script(tiny, unbroken, tmp_path, name, number, code):
    """In the first checkpoint, and while a figure is drawn, after the last step."""
    for fault in (Fault("write", r"\.pt\.", send(number), 1, 0.5), Fault("write", r"\.png", send(number), 1, 0.5)):
        ended = tiny(name, tmp_path, fault=fault)
        assert (ended.code, ended.err) == (code, ""), ended
        assert valid_checkpoints(tmp_path)
    assert tiny(name, tmp_path).code == 0
    assert outcome(tmp_path) == unbroken(name)[0]


@pytest.mark.parametrize("name", ["q3_vae_svm", "q4_dcgan", "q4_wgan_gp"])
def test_signal_while_data_are_read_ends_at_once_and_leaves_nothing(tiny, unbroken, tmp_path, name):
    def interrupt(module):
        own_data.load_fashion_mnist = lambda *_: os.kill(os.getpid(), signal.SIGTERM)

    ended = tiny(name, tmp_path / "run", prepare=interrupt)
    assert (ended.code, ended.err) == (-signal.SIGTERM, ""), ended
    assert not (tmp_path / "run").exists()
    assert tiny(name, tmp_path).code == 0
    assert outcome(tmp_path) == unbroken(name)[0]


def test_second_signal_amid_a_checkpoint_ends_at_once_and_the_former_one_is_intact(tiny, unbroken, tmp_path):
    def twice(disk):
        send(signal.SIGINT)(disk)
        send(signal.SIGINT)(disk)

    ended = tiny("toy_script", tmp_path, fault=Fault("write", r"\.pt\.", twice, 2, 0.5))
    assert ended.code == 130
    assert valid_checkpoints(tmp_path) == [5]
    assert tiny("toy_script", tmp_path).code == 0
    assert outcome(tmp_path) == unbroken("toy_script")[0]
    assert not left_over(tmp_path)


def test_interrupt_outside_a_run_is_one_line(tiny, tmp_path):
    def interrupt(module):
        module.Run = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)

    ended = tiny("toy_script", tmp_path, prepare=interrupt)
    assert (ended.code, ended.err) == (130, "error: interrupted\n")


def test_lost_tables_are_told_and_written_again_from_the_checkpoint(tiny, unbroken, tmp_path):
    tiny("toy_script", tmp_path)
    assert "warning" not in tiny("toy_script", tmp_path).out
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "losses.csv").write_bytes(b"\x00\xff")
    (tmp_path / "config.json").unlink()
    said = tiny("toy_script", tmp_path).out.splitlines()
    assert said == [
        f"warning: {tmp_path / name} is missing or not that of the checkpoint; it is written again"
        for name in ("losses.csv", "metrics.csv")
    ]
    assert outcome(tmp_path) == unbroken("toy_script")[0]


def test_files_that_a_user_keeps_beside_the_checkpoints_stay(tiny, unbroken, tmp_path):
    tiny("toy_script", tmp_path, fault=Fault("replace", r"\.pt$", kill, 2, 1))
    newest = checkpoints.listing(tmp_path / "checkpoints")[-1]
    copy = newest.with_name("before_my_experiment.pt")
    copy.write_bytes(newest.read_bytes())
    (tmp_path / ".notes.tmp").write_text("mine")
    for flags in ((), ("--fresh",)):
        ended = tiny("toy_script", tmp_path, *flags)
        assert ended.code == 0, ended
        assert copy.exists()
        copy_is_all = [p for p in checkpoints.listing(tmp_path / "checkpoints") if p != copy]
        assert checkpoints.load(copy_is_all[-1])["step"] == 15
    assert (tmp_path / ".notes.tmp").exists()


def test_only_a_copy_left_is_no_silent_fresh_start(tiny, tmp_path):
    tiny("toy_script", tmp_path)
    *_, newest = found = checkpoints.listing(tmp_path / "checkpoints")
    newest.rename(newest.with_name("newest.pt"))
    for path in found[:-1]:
        path.unlink()
    ended = tiny("toy_script", tmp_path)
    assert ended.code == 2
    assert "newest.pt is left out: its name holds no checksum" in ended.out
    assert "no valid checkpoint; --fresh starts over" in ended.err


@pytest.mark.parametrize("name", ["q3_vae_svm", "q4_dcgan", "q4_wgan_gp"])
def test_checkpoint_of_another_script_or_width_is_left_out(tiny, unbroken, tmp_path, name):
    other = {"q3_vae_svm": "q4_dcgan", "q4_dcgan": "q4_wgan_gp", "q4_wgan_gp": "q3_vae_svm"}[name]
    tiny(name, tmp_path / "run")
    tiny(name, tmp_path / "wide", "--width", 3)
    tiny(other, tmp_path / "other")
    for serial, place in ((98, "wide"), (99, "other")):
        foreign = checkpoints.listing(tmp_path / place / "checkpoints")[-1]
        target = tmp_path / "run" / "checkpoints" / f"{serial:06}{foreign.name[6:]}"
        target.write_bytes(foreign.read_bytes())
    ended = tiny(name, tmp_path / "run")
    assert (ended.code, ended.err) == (0, ""), ended
    assert "it is of another run: width 3 (now 2)" in ended.out
    assert f"it is of another run: script {other} (now {name})" in ended.out
    for path in (tmp_path / "run" / "checkpoints").glob("00009*"):
        path.unlink()
    assert outcome(tmp_path / "run") == unbroken(name)[0]
