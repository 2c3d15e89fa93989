"""A run: resume, reuse, refusal, signals, damaged checkpoints, non-finite losses, what a log file sees."""

import contextlib
import errno
import json
import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pandas as pd
import pytest
import torch
import toy_script
from toy_script import PER_EPOCH, Config

from common.run import Run, checkpoints, files, rng_for, run
from common.run.cli import BadInput, TrainingFailed

TOY = "tests/toy_script.py"


class Stop(Exception):
    """Stands in for a kill in tests that stay in one process."""


@pytest.fixture
def every_step(monkeypatch):
    """Save after every step."""
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)


def stop_before(monkeypatch, step):
    """Let the run die in this step, after its loss and before its update, as a kill would make it."""
    original, rng = toy_script.require_finite, Run.rng
    now = []

    def follow(self, stream, at):
        now[:] = [at]
        return rng(self, stream, at)

    def check(*arguments, **losses):
        if now == [step]:
            raise Stop
        original(*arguments, **losses)

    monkeypatch.setattr(Run, "rng", follow)
    monkeypatch.setattr(toy_script, "require_finite", check)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name}


def equal(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.mark.parametrize("step", [0, 1, 7, PER_EPOCH - 1, PER_EPOCH, 3 * PER_EPOCH - 1])
def test_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path, monkeypatch, every_step, step):
    unbroken = toy_script.main(Config(out=tmp_path / "a"))
    config = Config(out=tmp_path / "b")
    with monkeypatch.context() as patch:
        stop_before(patch, step)
        with pytest.raises(Stop):
            toy_script.main(config)
    assert equal(toy_script.main(config), unbroken)
    for name in ("losses.csv", "metrics.csv", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_epoch_ends_are_saved_without_waiting_for_the_clock(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_before(patch, PER_EPOCH + 2)
        with pytest.raises(Stop):
            toy_script.main(Config(out=tmp_path))
    assert [p.name.split("_")[2] for p in checkpoints.listing(tmp_path / "checkpoints")] == [str(PER_EPOCH)]


@pytest.mark.parametrize("left_out", ["optimizer", "step"])
def test_the_comparison_sees_a_checkpoint_that_leaves_something_out(tmp_path, monkeypatch, every_step, left_out):
    """Negative control: with an incomplete checkpoint the resumed run must differ."""
    unbroken = toy_script.main(Config(out=tmp_path / "a"))
    original = checkpoints.load

    def load(path):
        content = original(path)
        if left_out == "step":
            content["step"] -= 1
        else:
            content["state"]["optimizer"]["state"] = {}
        return content

    config = Config(out=tmp_path / "b")
    with monkeypatch.context() as patch:
        stop_before(patch, 7)
        with pytest.raises(Stop):
            toy_script.main(config)
    monkeypatch.setattr(checkpoints, "load", load)
    assert not equal(toy_script.main(config), unbroken)


def test_finished_run_is_reused_without_a_write_to_its_results(tmp_path):
    config = Config(out=tmp_path)
    first = toy_script.main(config)
    before = contents(tmp_path)
    assert equal(toy_script.main(config), first)
    assert contents(tmp_path) == before


def test_fresh_starts_over(tmp_path):
    toy_script.main(Config(out=tmp_path, seed=1))
    again = toy_script.main(Config(out=tmp_path, seed=2, fresh=True))
    assert equal(again, toy_script.main(Config(out=tmp_path / "other", seed=2)))


def test_another_configuration_is_refused_naming_every_field_that_differs(tmp_path):
    toy_script.main(Config(out=tmp_path))
    before = contents(tmp_path)
    with pytest.raises(
        BadInput,
        match=r"epochs 3 \(now 4\), lr 0.1 \(now 0.2\); a run cannot be lengthened .*; choose another --out, or --f",
    ):
        toy_script.main(Config(out=tmp_path, epochs=4, lr=0.2))
    assert contents(tmp_path) == before


def test_reference_results_without_checkpoints_are_no_run_to_reuse_but_guard_their_settings(tmp_path):
    config = Config(out=tmp_path)
    toy_script.main(config)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match=r"seed 0 \(now 1\)"):
        toy_script.main(replace(config, seed=1))
    (tmp_path / "metrics.csv").unlink()
    toy_script.main(config)
    assert (tmp_path / "metrics.csv").exists()


def test_folder_of_other_files_is_refused_even_with_fresh(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(BadInput, match="holds files that no run wrote"):
            toy_script.main(Config(out=tmp_path, fresh=fresh))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_folder_in_use_is_refused_naming_who_holds_it(tmp_path):
    config = Config(out=tmp_path)
    with Run(config, "toy_script"), pytest.raises(BadInput, match=f"in use by process {os.getpid()} on "):
        toy_script.main(config)
    toy_script.main(config)


def damaged(content: bytes, kind: str) -> bytes:
    middle = len(content) // 2
    return {
        "truncated": content[:middle],
        "empty": b"",
        "one bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }[kind]


@pytest.mark.parametrize("kind", ["truncated", "empty", "one bit"])
def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, monkeypatch, capsys, kind):
    unbroken = toy_script.main(Config(out=tmp_path / "a"))
    config = Config(out=tmp_path / "b")
    toy_script.main(config)
    newest = checkpoints.listing(config.out / "checkpoints")[-1]
    newest.write_bytes(damaged(newest.read_bytes(), kind))
    assert equal(toy_script.main(config), unbroken)
    assert f"warning: {newest} is left out: it is truncated or altered" in capsys.readouterr().out
    assert len(checkpoints.listing(config.out / "checkpoints")) == 2


def test_without_a_valid_checkpoint_the_run_is_refused_not_begun_anew(tmp_path):
    config = Config(out=tmp_path)
    toy_script.main(config)
    for path in checkpoints.listing(tmp_path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="no valid checkpoint; --fresh starts over"):
        toy_script.main(config)
    toy_script.main(replace(config, fresh=True))


def test_checkpoint_with_code_in_it_is_left_out_and_not_run(tmp_path, capsys):
    config = Config(out=tmp_path)
    toy_script.main(config)

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    planted = tmp_path / "evil.pt"
    torch.save({"state": Evil()}, planted)
    content = planted.read_bytes()
    planted.unlink()
    target = tmp_path / "checkpoints" / f"000099_step_15_{checkpoints._digest(content)}.pt"
    target.write_bytes(content)
    toy_script.main(config)
    assert f"{target} is left out: it is not a checkpoint" in capsys.readouterr().out
    assert not (tmp_path / "executed").exists()


def test_checkpoint_of_another_run_is_left_out(tmp_path, capsys):
    toy_script.main(Config(out=tmp_path / "a", lr=0.5))
    foreign = checkpoints.listing(tmp_path / "a" / "checkpoints")[-1]
    config = Config(out=tmp_path / "b")
    first = toy_script.main(config)
    target = tmp_path / "b" / "checkpoints" / foreign.name.replace("000003", "000009")
    target.write_bytes(foreign.read_bytes())
    assert equal(toy_script.main(config), first)
    assert "it is of another run: lr 0.5 (now 0.1)" in capsys.readouterr().out


def test_checkpoints_hold_tensors_and_plain_values_only(tmp_path):
    toy_script.main(Config(out=tmp_path))
    content = torch.load(checkpoints.listing(tmp_path / "checkpoints")[-1], weights_only=True)
    assert content["step"] == 3 * PER_EPOCH
    assert set(content["state"]) == {"network", "optimizer"}


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"model": "of somebody"}'])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_config_that_no_run_wrote_is_refused_and_stays(tmp_path, text, fresh):
    for name in ("config.json", "metrics.csv", ".lock"):
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match="holds files that no run wrote"):
        toy_script.main(Config(out=tmp_path, fresh=fresh))
    assert {(tmp_path / name).read_text() for name in ("config.json", "metrics.csv", ".lock")} == {text}


def test_a_new_volume_with_lost_and_found_is_a_new_folder(tmp_path):
    (tmp_path / "lost+found").mkdir()
    toy_script.main(Config(out=tmp_path))
    assert (tmp_path / "lost+found").is_dir()
    assert len(pd.read_csv(tmp_path / "losses.csv")) == 3 * PER_EPOCH


def test_lost_or_altered_views_are_written_again_from_the_checkpoint(tmp_path, capsys):
    config = Config(out=tmp_path)
    toy_script.main(config)
    before = contents(tmp_path)
    (tmp_path / "metrics.csv").write_text("nonsense")
    (tmp_path / "losses.csv").unlink()
    (tmp_path / "config.json").write_text("{")
    toy_script.main(config)
    assert contents(tmp_path) == before
    assert "config.json is not readable; it is written again" in capsys.readouterr().out


def test_non_finite_loss_stops_before_the_weights_are_touched(tmp_path, every_step):
    unbroken = toy_script.main(Config(out=tmp_path / "a", epochs=1))
    config = Config(out=tmp_path / "b", nan_at=PER_EPOCH)
    with pytest.raises(TrainingFailed, match=rf"step {PER_EPOCH}: not finite \(loss nan, gradient norm nan\)"):
        toy_script.main(config)
    content = checkpoints.load(checkpoints.listing(tmp_path / "b" / "checkpoints")[-1])
    assert content["step"] == PER_EPOCH
    assert content["state"]["network"]["weight"].equal(unbroken["weight"])


def test_no_checkpoint_ever_holds_a_non_finite_value(tmp_path):
    network = torch.nn.Linear(2, 1)

    def spoil():
        with Run(Config(out=tmp_path), "toy_script", network=network) as running:
            for _ in running.steps(1, 1):
                network.weight.data[0, 1] = float("inf")

    with pytest.raises(TrainingFailed, match=r"state\.network\.weight is not finite"):
        spoil()
    assert not checkpoints.listing(tmp_path / "checkpoints")


@pytest.mark.posix
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_step_saves_and_the_same_command_continues(tmp_path, script, number, code):
    unbroken = toy_script.main(Config(out=tmp_path / "a"))
    flags = ("--out", tmp_path / "b", "--signal-at", 7, "--signal-number", int(number))
    stopped = script(TOY, *flags)
    assert stopped.returncode == code, stopped
    assert "stopped at step 8; the same command continues" in stopped.stdout
    done = script(TOY, *flags)
    assert done.returncode == 0, done
    content = checkpoints.load(checkpoints.listing(tmp_path / "b" / "checkpoints")[-1])
    assert content["state"]["network"]["weight"].equal(unbroken["weight"])


@pytest.mark.posix
def test_second_signal_ends_at_once_and_the_former_checkpoint_is_intact(tmp_path, script):
    stopped = script(TOY, "--out", tmp_path, "--signal-at", 7, "--signals", 2)
    assert stopped.returncode == 143
    [kept] = checkpoints.listing(tmp_path / "checkpoints")
    assert checkpoints.load(kept)["step"] == PER_EPOCH


def test_log_file_gets_one_line_per_epoch_and_no_carriage_return(tmp_path, script):
    done = script(TOY, "--out", tmp_path)
    assert done.returncode == 0, done
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["epoch", f"{e}/3"] for e in (1, 2, 3)]
    assert "images/s" in done.stdout
    assert "\r" not in done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("flags, said", [
    (["--epochs", "0"], "--epochs: 0 is not possible; it takes a whole number from 1 to 100"),
    (["--epochs", "x"], "--epochs: invalid int value"),
    (["--epoch", "2"], "perhaps --epochs?"),
    (["--out", "pyproject.toml"], "--out pyproject.toml: File exists"),
])  # fmt: skip
def test_bad_input_is_one_line(refuses, flags, said):
    refuses(TOY, flags, said)


def test_environment_and_config_say_what_made_the_result(tmp_path):
    toy_script.main(Config(out=tmp_path))
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["script"] == "toy_script"
    assert settings["lr"] == 0.1
    assert "out" not in settings
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert {"commit", "processor", "seconds", "numpy", "system", "vector_instructions"} <= set(found)


def test_the_command_on_record_names_the_script_from_the_repositorys_root(tmp_path, monkeypatch):
    for path, shown in ((toy_script.__file__, "tests/toy_script.py"), ("/elsewhere/mine.py", "mine.py")):
        monkeypatch.setattr("sys.argv", [path, "--lr", "0.1"])
        toy_script.main(Config(out=tmp_path / shown.replace("/", "_")))
        found = json.loads((tmp_path / shown.replace("/", "_") / "environment.json").read_text())
        assert found["command"] == f"python {shown} --lr 0.1"


def test_streams_and_steps_have_their_own_randomness():
    draws = {
        (seed, stream, step): torch.rand(1, generator=rng_for(seed, stream, step)).item()
        for seed in (0, 1)
        for stream in ("a", "b")
        for step in (0, 1)
    }
    assert len(set(draws.values())) == 8
    assert torch.rand(1, generator=rng_for(1, "b", 1)).item() == draws[1, "b", 1]


def test_rows_keep_device_values_and_plain_values_together(tmp_path):
    with Run(Config(out=tmp_path), "toy_script") as running:
        running.record("t", step=1, loss=torch.tensor(0.5, requires_grad=True), kind="a")
        running.record("t", step=2, loss=torch.tensor(0.25), kind="b")
        frame = running.rows("t")
    assert frame.to_dict("list") == {"step": [1, 2], "loss": [0.5, 0.25], "kind": ["a", "b"]}
    assert pd.read_csv(tmp_path / "t.csv").equals(frame)


def test_thread_change_is_told_on_resume(tmp_path, monkeypatch, every_step, capsys):
    with monkeypatch.context() as patch:
        stop_before(patch, 7)
        with pytest.raises(Stop):
            toy_script.main(Config(out=tmp_path))
    torch.set_num_threads(2)
    try:
        toy_script.main(Config(out=tmp_path))
    finally:
        torch.set_num_threads(1)
    assert capsys.readouterr().out.count("warning: threads 1 before, 2 now") == 1


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folder_ends_no_run(tmp_path, monkeypatch, refusal):
    sync = os.fsync

    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(refusal, os.strerror(refusal))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    toy_script.main(Config(out=tmp_path))
    assert checkpoints.load(checkpoints.listing(tmp_path / "checkpoints")[-1])["step"] == 3 * PER_EPOCH


@pytest.mark.parametrize("refusal", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError()])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, refusal):
    def acquire(*_, **__):
        raise refusal

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(BadInput, match="choose a folder on a local disk"):
        toy_script.main(Config(out=tmp_path))


def test_a_clock_that_stands_still_ends_no_run(tmp_path, monkeypatch):
    unbroken = toy_script.main(Config(out=tmp_path / "moving"))
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    assert equal(toy_script.main(Config(out=tmp_path / "still")), unbroken)


def test_a_run_works_outside_the_main_thread(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        weights = pool.submit(toy_script.main, Config(out=tmp_path / "thread")).result()
    assert equal(weights, toy_script.main(Config(out=tmp_path / "main")))


def test_a_run_continued_by_other_code_says_so_once_and_keeps_both(tmp_path, monkeypatch, every_step, capsys):
    for commit, stop in (("aaa", 8), ("bbb", 9), ("bbb", 12), ("bbb with changes 1f", None)):
        with monkeypatch.context() as patch:
            patch.setattr(run, "environment", lambda *_, c=commit: {"commit": c, "seconds": 1.0})
            if stop:
                stop_before(patch, stop)
            with contextlib.suppress(Stop):
                toy_script.main(Config(out=tmp_path))
    said = capsys.readouterr().out
    assert said.count("warning: commit") == 2
    assert "warning: commit aaa before, bbb now" in said
    kept = json.loads((tmp_path / "environment.json").read_text())
    assert kept["mixed"]
    assert kept["history"] == [
        {"from_step": 0, "commit": "aaa"},
        {"from_step": 8, "commit": "bbb"},
        {"from_step": 12, "commit": "bbb with changes 1f"},
    ]


def test_a_finished_run_started_by_other_code_stays_as_it_is(tmp_path, monkeypatch, capsys):
    toy_script.main(Config(out=tmp_path))
    assert not json.loads((tmp_path / "environment.json").read_text())["mixed"]
    before = contents(tmp_path)
    monkeypatch.setattr(run, "environment", lambda *_: {"commit": "another", "seconds": 1.0})
    toy_script.main(Config(out=tmp_path))
    assert contents(tmp_path) == before
    assert "warning" not in capsys.readouterr().out


# What a run leaves to the next one, and to programs that have its tables open.


def test_fresh_removes_what_the_former_run_wrote_and_nothing_else(tmp_path):
    toy_script.main(Config(out=tmp_path))
    for name in ("picture.png", "changed.png"):
        files.write_file(tmp_path / name, b"of the run")
    with Run(Config(out=tmp_path), "toy_script"):
        pass  # the next time that it is open, it notes its pictures
    (tmp_path / "changed.png").write_bytes(b"by the user")
    (tmp_path / "notes.txt").write_text("of the user")
    (tmp_path / "metrics (copy).csv").write_text("of the user")
    toy_script.main(Config(out=tmp_path, epochs=1, fresh=True))
    assert not (tmp_path / "picture.png").exists()
    assert (tmp_path / "changed.png").read_bytes() == b"by the user"
    assert {"notes.txt", "metrics (copy).csv"} <= {path.name for path in tmp_path.iterdir()}
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 1


@pytest.mark.parametrize("forged", ['{"../precious.txt": "x"}', '["precious.txt"]', "{", '{"a": {"b": 1}}'])
def test_a_forged_list_of_files_removes_nothing_outside(tmp_path, forged):
    (tmp_path / "precious.txt").write_text("x")
    toy_script.main(Config(out=tmp_path / "run"))
    (tmp_path / "run" / ".written.json").write_text(forged)
    toy_script.main(Config(out=tmp_path / "run", fresh=True))
    assert (tmp_path / "precious.txt").read_text() == "x"


def test_a_table_that_another_program_has_open_is_written_at_the_next_save(tmp_path, monkeypatch, capsys):
    replace_file, refused = os.replace, []

    def locked(source, target):
        if str(target).endswith("metrics.csv") and len(refused) < 2:
            refused.append(target)
            raise PermissionError(13, "Permission denied", str(target))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", locked)
    toy_script.main(Config(out=tmp_path))
    assert capsys.readouterr().out.count("metrics.csv: Permission denied; close what has it open") == 2
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 3
