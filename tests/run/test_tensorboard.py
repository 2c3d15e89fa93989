"""The tables of a run as TensorBoard reads them."""

import sys

import pytest

from common.run.tables import Tables
from common.run.tensorboard import board


def scalars(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_number_is_there_once_also_after_a_second_process(tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    for _ in range(2):
        tables, show = Tables(), board(tmp_path, print)
        for i in range(3):
            tables.record("losses", iteration=i + 1, critic=i / 2)
            tables.settle()
            show(tables)
        tables.record("quality", epoch=1, weights="raw", frechet=0.25)
        tables.settle()
        show(tables)
    found = scalars(tmp_path)
    assert found["losses/critic"] == [(1, 0.0), (2, 0.5), (3, 1.0)]
    assert found["quality/raw/frechet"] == [(1, 0.25)]


def test_without_the_package_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = []
    board(tmp_path, said.append)(Tables())
    assert said == ["--tensorboard: nothing is written for it; `pip install tensorboard` first"]
    assert list(tmp_path.iterdir()) == []
