"""Real runs under torchrun: killed processes and restarts, SIGTERM, bad input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_own_data import write_images

pytestmark = [pytest.mark.posix, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--epochs", "20", "--batch-size", "20", "--width", "4", "--latent-dim", "5", "--sample-epochs", "20"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """200 images in MNIST's format."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def torchrun(out, images, *flags, restarts=0):
    """Start a WGAN-GP of 200 steps on two processes; what they print goes to a file."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.1", "q4_wgan_gp.py"]
    command += [*FLAGS, "--data", str(images), "--out", str(out), *flags]
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(out.parent / "said.txt", "w") as said:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)


def workers(agent):
    """The process numbers of the run's processes."""
    return [int(pid) for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]


def wait_for_losses(out, rows):
    """Return when losses.csv has some rows."""
    deadline = time.monotonic() + 60
    while not (out / "losses.csv").exists() or (out / "losses.csv").read_text().count("\n") < rows:
        assert time.monotonic() < deadline, (out.parent / "said.txt").read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, images):
    """losses.csv of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert torchrun(out, images).wait(120) == 0
    return (out / "losses.csv").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("attempt", range(10))
def test_a_killed_process_is_started_again_and_the_run_is_that_of_an_unbroken_one(unbroken, images, tmp_path, attempt):
    out = tmp_path / "run"
    agent = torchrun(out, images, restarts=2)
    wait_for_losses(out, 20 + attempt)
    os.kill(workers(agent)[attempt % 2], signal.SIGKILL)
    assert agent.wait(100) == 0, (tmp_path / "said.txt").read_text()
    assert (out / "losses.csv").read_bytes() == unbroken


def test_sigterm_to_torchrun_saves_and_the_same_command_continues(unbroken, images, tmp_path):
    out = tmp_path / "run"
    agent = torchrun(out, images)
    wait_for_losses(out, 20)
    agent.terminate()
    assert agent.wait(60) == 1  # of torchrun, whatever the processes end with
    assert "stopped at step" in (tmp_path / "said.txt").read_text()
    assert torchrun(out, images).wait(120) == 0
    assert (out / "losses.csv").read_bytes() == unbroken


def test_bad_input_is_one_line_of_the_run(images, tmp_path):
    assert torchrun(tmp_path / "run", images, "--lr", "-1").wait(60) == 1
    said = (tmp_path / "said.txt").read_text()
    assert said.count("--lr: -1.0 is not possible") == 1
