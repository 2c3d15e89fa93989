"""Many runs as a queue: what is taken, what is left, and what a signal does to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

import q2_gan_lab
import q4_dcgan
from common.run import queue
from common.run.cli import TrainingFailed, configured, parse
from common.run.queue import Task, flags_of, is_finished, is_in_use, work
from studies import seeds

ROOT = Path(__file__).resolve().parent.parent.parent
TOY = str(ROOT / "tests" / "toy_script.py")


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(queue, "WAIT_SECONDS", 0.2)


def toy(folder, *flags):
    return Task(folder, [TOY, "--out", str(folder), *map(str, flags)])


def test_flags_give_back_the_settings():
    config = configured(
        q4_dcgan.Config, q4_dcgan.RECIPES, "papers", lr=1 / 3, selection=True, sample_epochs=(1, 2), echo=3
    )
    assert parse(q4_dcgan.Config, "", flags_of(config, q4_dcgan.RECIPES), q4_dcgan.RECIPES) == config


def test_parts_of_the_comparison_are_the_runs_that_it_looks_for(tmp_path):
    study = seeds.Config("q2_comparison", out=tmp_path, flags="--iterations 40 --comparison-seeds 2")
    parts, whole = seeds.tasks_of_comparison(study)
    assert len({task.folder for task in parts}) == len(parts) >= 9
    assert whole.folder == tmp_path
    one = parse(q2_gan_lab.Config, "", parts[0].command[1:], q2_gan_lab.RECIPES)
    assert (one.seeds, one.evaluate_every, one.iterations, one.out) == (2, 40, 40, parts[0].folder)
    assert not one.is_comparison


def test_all_are_finished_once_and_what_changed_since_is_not(tmp_path, capsys):
    tasks = [toy(tmp_path / name, "--seed", i) for i, name in enumerate("ab")]
    work(tasks, 2)
    assert all(is_finished(task) for task in tasks)
    assert (tmp_path / "a" / "metrics.csv").read_bytes() != (tmp_path / "b" / "metrics.csv").read_bytes()
    assert capsys.readouterr().out.count("finished in") == 2
    work(tasks, 2)
    assert capsys.readouterr().out.split("\n")[:2] == ["a: finished before", "b: finished before"]
    assert not is_finished(toy(tmp_path / "a", "--seed", 7))  # another command
    max((tmp_path / "a" / "checkpoints").iterdir()).unlink()
    assert not is_finished(tasks[0])


def test_a_folder_in_use_is_waited_for_and_taken_over(tmp_path, monkeypatch, capsys):
    (tmp_path / "a").mkdir()
    lock = filelock.FileLock(tmp_path / "a" / ".lock")
    lock.acquire()
    assert is_in_use(tmp_path / "a")
    looks = []

    def release_at_the_third_look(folder):
        looks.append(folder)
        if len(looks) == 3:
            lock.release()
        return is_in_use(folder)

    monkeypatch.setattr(queue, "is_in_use", release_at_the_third_look)
    work([toy(tmp_path / "a", "--epochs", 1)], 1)
    said = capsys.readouterr().out
    assert said.count("in use by another process") == 1
    assert said.index("in use by") < said.index("started") < said.index("finished in")


def test_a_failed_run_is_named_and_the_others_are_finished(tmp_path, capsys):
    tasks = [toy(tmp_path / "a", "--nan-at", 3), toy(tmp_path / "b", "--epochs", 1)]
    with pytest.raises(TrainingFailed, match="1 of 2 runs failed: a;"):
        work(tasks, 1)
    assert is_finished(tasks[1])
    assert "a: error: step 3: not finite" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.posix
def test_a_signal_saves_every_job_and_the_same_command_continues(tmp_path):
    task = toy(tmp_path / "a", "--epochs", 100, "--signal-at", 20, "--signals", 0)
    slow = f"import time, runpy, sys; sys.argv = {task.command!r}; import common.run.run as r; s = r.Run.stop_if_asked"
    slow += (
        "; r.Run.stop_if_asked = lambda run: (time.sleep(0.05), s(run)); runpy.run_path(sys.argv[0], None, '__main__')"
    )
    (tmp_path / "slow.py").write_text(slow)
    code = (
        f"from common.run.queue import *; work([Task(Path({str(task.folder)!r}), [{str(tmp_path / 'slow.py')!r}])], 1)"
    )
    study = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not (task.folder / "losses.csv").exists() and time.monotonic() < until:
        time.sleep(0.1)
    study.send_signal(signal.SIGTERM)
    assert study.wait(60) == 143
    assert "stopped at step" in (tmp_path / "a.log").read_text()
    assert not is_in_use(task.folder)
    work([task], 1)
    assert is_finished(task)


@pytest.mark.slow
@pytest.mark.posix
def test_an_array_of_slurm_saves_at_its_signal_and_continues_after_its_requeue(tmp_path):
    """The batch script of five lines, with stand-ins for sbatch, srun and scontrol."""
    fakes = {"srun": 'exec "$@"', "scontrol": f'echo "$@" >> {tmp_path}/requeued'}
    for name, line in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    batch = tmp_path / "array.sh"
    batch.write_text(
        "#!/bin/bash\n"
        "#SBATCH --array=0-1 --time=1:00:00 --signal=TERM@120 --requeue\n"
        f"srun {sys.executable} {TOY} --seed $SLURM_ARRAY_TASK_ID --out {tmp_path}/$SLURM_ARRAY_TASK_ID --signal-at 7\n"
        "code=$?; [ $code -ne 143 ] || scontrol requeue ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID\n"
        "exit $code\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "5"}
    for task in ("0", "1"):
        codes = [
            subprocess.run(["bash", batch], env={**environment, "SLURM_ARRAY_TASK_ID": task}, timeout=60).returncode
            for _ in range(2)
        ]
        assert codes == [143, 0]
        assert len((tmp_path / task / "losses.csv").read_text().split()) == 1 + 15
    assert (tmp_path / "requeued").read_text() == "requeue 5_0\nrequeue 5_1\n"
