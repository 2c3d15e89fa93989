"""Long work at the end of a run: interruptible, and indifferent to where the run's networks are."""

import os
import signal
import threading
import time

import pytest
from test_q3_vae_svm import tiny

from common.run import Run
from common.vae import experiments, results


def test_work_returns_its_result_or_raises_its_fault(tmp_path):
    with Run(tiny(tmp_path), "q3_vae_svm") as run:
        assert results.interruptible(run, "sum", lambda: 1 + 1) == 2
        with pytest.raises(ZeroDivisionError):
            results.interruptible(run, "quotient", lambda: 1 / 0)


@pytest.mark.posix
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_stops_work_that_cannot_be_cut_into_pieces(tmp_path, capsys, number, code):
    over = threading.Event()
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    start = time.monotonic()
    with pytest.raises(SystemExit) as stop, Run(tiny(tmp_path), "q3_vae_svm") as run:
        results.interruptible(run, "a long wait", lambda: over.wait(60))
    over.set()
    assert stop.value.code == code
    assert time.monotonic() - start < 5
    said = capsys.readouterr().out
    assert "a long wait ..." in said
    assert "the same command continues" in said


def test_pieces_of_long_work_say_how_far_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiments, "SECONDS", -1.0)
    with Run(tiny(tmp_path), "q3_vae_svm") as run:
        assert list(experiments.paced(run, "pieces", range(3))) == [0, 1, 2]
    assert capsys.readouterr().out.splitlines() == ["pieces: 1 of 3", "pieces: 2 of 3"]
