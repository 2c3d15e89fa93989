"""Signals are answered at once and obeyed within seconds, also amid work of a library that takes minutes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONG_WORK = """
import hashlib, sys, torch
from pathlib import Path
sys.path[:0] = ["tests"]
import toy_script
from common.run import Run
config = toy_script.Config(out=Path(sys.argv[1]))
with Run(config, "toy_script", network=torch.nn.Linear(3, 1)) as run:
    run.record("metrics", value=1.0)
    run.save()
    print("working", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in one call
"""


@pytest.mark.posix
@pytest.mark.parametrize("number, count", [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)])
def test_a_signal_amid_long_work_is_answered_at_once_and_obeyed_in_seconds(tmp_path, number, count):
    command = [sys.executable, "-c", LONG_WORK, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        began = time.monotonic()
        process.send_signal(number)
        assert process.stdout.readline() == "stopping; a second signal stops at once\n"
        answered = time.monotonic() - began
        if count == 2:
            process.send_signal(number)
        rest = process.stdout.read()
        ended = time.monotonic() - began
    assert process.returncode == 128 + number
    assert answered < 2
    assert ended < (2 if count == 2 else 8)
    assert rest == ("" if count == 2 else "stopped amid long work, which is done again; the same command continues\n")
    assert (tmp_path / "run" / "metrics.csv").exists()
