"""Fixtures that several test files share."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.data import Split, load_fashion_mnist
from common.run.cli import launch

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """Where there is no fork (Windows), tests marked `posix` and all with faults, which fork, are skipped."""
    for item in items:
        if not hasattr(os, "fork") and ("faults" in item.path.parts or item.get_closest_marker("posix")):
            item.add_marker(pytest.mark.skip(reason="needs fork, signals, pipes or limits of POSIX"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors run fastest on one thread, and tests then do not fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def train_split() -> Split:
    return load_fashion_mnist("train")


@pytest.fixture(scope="session")
def test_split() -> Split:
    return load_fashion_mnist("test")


@pytest.fixture
def small_data(train_split, test_split):
    """A loader that stands in for `load_fashion_mnist`: 240 training and 120 test images, 24 and 12 of each class."""

    def load(split: str, device="cpu") -> Split:
        whole, per_class = (train_split, 24) if split == "train" else (test_split, 12)
        members = [(whole.labels == label).nonzero()[:per_class, 0] for label in range(10)]
        chosen = torch.stack(members, 1).flatten()
        return Split(whole.images[chosen], whole.labels[chosen])

    return load


@pytest.fixture(scope="session")
def script():
    """Run a script of the repository as a user does; returns the completed process. Warnings of our code are errors."""

    def run(name: str, *flags: object, cwd: Path = ROOT, timeout: float = 200) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "error", str(ROOT / name), *map(str, flags)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture
def refuses(monkeypatch, capsys):
    """Check that flags are refused as bad input: exit code 2, one line on stderr that holds `said`, nothing printed."""

    def check(name: str, flags: list, said: str) -> None:
        module = importlib.import_module(Path(name).stem)
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        with pytest.raises(SystemExit) as stop:
            launch(module.Config, module.main, module.__doc__)
        printed = capsys.readouterr()
        assert (stop.value.code, printed.out) == (2, "")
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1, printed.err
        assert said in printed.err, printed.err

    return check
