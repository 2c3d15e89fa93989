"""Flags into settings; every fault one line with its exit code, on any terminal."""

import contextlib
import importlib
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from toy_script import Config

from common.run.cli import BadInput, TrainingFailed, launch, parse, require_range, resolve_device

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    (["--epochs", "x"], "--epochs: invalid int value: 'x'; see --help"),
    (["--epochs"], "--epochs: expected one argument; see --help"),
    (["--epoch", "3"], "--epoch: no such flag (perhaps --epochs?); see --help"),
    (["--epo=3"], "--epo=3: no such flag (perhaps --epochs?); see --help"),
    (["--lr", "fast"], "--lr: invalid float value: 'fast'; see --help"),
    (["lr"], "lr: no such flag (perhaps --lr?); see --help"),
    (["--epochs", "0"], "--epochs: 0 is not possible; it takes a whole number from 1 to 100"),
    (["--epochs", "9" * 30], f"--epochs: {'9' * 30} is not possible; it takes a whole number from 1 to 100"),
]


@pytest.mark.parametrize("flags, said", CASES)
def test_bad_flags_are_one_line(flags, said):
    with pytest.raises(BadInput) as fault:
        parse(Config, "", flags)
    assert str(fault.value) == said


def test_flags_become_settings():
    assert parse(Config, "", []) == Config()
    assert parse(Config, "", ["--epochs", "7", "--fresh"]) == Config(epochs=7, fresh=True)


@pytest.mark.parametrize("fault, code, said", [
    (BadInput("--x: no"), 2, "error: --x: no"),
    (TrainingFailed("step 3: not finite"), 1, "error: step 3: not finite"),
    (OSError(28, "No space left on device", "a.pt"), 1, "error: a.pt: No space left on device; mend that, and"),
    (KeyboardInterrupt(), 130, "error: interrupted"),
    (MemoryError(), 1, "error: out of memory"),
    (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), 1, "error: out of memory"),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), 1, "error: out of memory"),
    (RuntimeError("CUDA error: no kernel image is available"), 1, "error: this torch was not built for this GPU"),
])  # fmt: skip
def test_expected_faults_end_in_one_line_and_their_exit_code(monkeypatch, capsys, fault, code, said):
    def main(_):
        raise fault

    monkeypatch.setattr("sys.argv", ["toy"])
    with pytest.raises(SystemExit) as stop:
        launch(Config, main, "")
    assert stop.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1


@pytest.mark.parametrize("started", [False, True])
def test_a_fault_that_nobody_foresaw_is_one_line_and_its_traceback_a_file(monkeypatch, tmp_path, capsys, started):
    def main(config):
        if started:
            (config.out / "config.json").write_text("{}")
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("sys.argv", ["toy", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        launch(Config, main, "")
    line = capsys.readouterr().err
    file = Path(re.search(r"report it with (\S+)\n$", line)[1])
    assert stop.value.code == 1
    assert line.startswith("error: ZeroDivisionError: division by zero")
    assert line.count("\n") == 1
    assert "Traceback (most recent call last)" in file.read_text()
    assert "in main" in file.read_text()
    assert (file.parent == tmp_path) == started
    file.unlink()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9, 1.1])
def test_ranges_refuse_what_is_outside_and_what_is_no_number(value):
    require_range("--share", 0.0, 0, 1)
    require_range("--share", 1.0, 0, 1)
    with pytest.raises(BadInput, match="--share"):
        require_range("--share", value, 0, 1)


def test_device_that_is_not_here_is_refused(monkeypatch):
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadInput, match=r"--device: cuda \(not on this machine\)"):
        resolve_device("cuda")


@pytest.mark.posix
@pytest.mark.parametrize("columns", [80, 100])
def test_flag_errors_are_one_plain_line_on_a_terminal(columns):
    pty, termios, fcntl = (importlib.import_module(name) for name in ("pty", "termios", "fcntl"))
    leader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "q4_dcgan.py", "--epoch", "3"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    printed = b""
    with contextlib.suppress(OSError):  # the terminal's end on Linux
        while part := os.read(leader, 4096):
            printed += part
    os.close(leader)
    assert done.returncode == 2
    assert printed.decode().splitlines() == ["error: --epoch: no such flag (perhaps --epochs?); see --help"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_output_stops_nothing(tmp_path):
    command = [sys.executable, "tests/toy_script.py", "--epochs", "2", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], cwd=ROOT, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 3


def test_nothing_outside_changes_a_pixel_or_breaks_a_figure(tmp_path):
    """A notebook's backend, which is not there in a script, and a user's own style."""
    code = "import sys, pathlib; from common.gan import figures as _; from common import figures"
    code += (
        "; f, a = figures.plt.subplots(); a.plot([1, 2]); a.set_title('x'); figures.save(f, pathlib.Path(sys.argv[1]))"
    )
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nsavefig.dpi: 40\n")
    foreign = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
    }
    pictures = []
    for i, extra in enumerate(({}, foreign)):
        path = tmp_path / f"{i}.png"
        subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, env={**os.environ, **extra}, check=True)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]


def test_a_path_in_the_users_home_is_found_in_every_spelling(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (["--out=~/x"], ["--out", "~/x"]):
        assert parse(Config, "", arguments).out == tmp_path / "x"
    assert str(parse(Config, "", ["--out", "a~/~"]).out) == "a~/~"
