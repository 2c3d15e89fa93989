"""Tables of many runs in one."""

import json
import sys

import pandas as pd
import pytest

from common import collect
from common.run.cli import BadInput, launch


def write(folder, content, **settings):
    folder.mkdir()
    pd.DataFrame(content).to_csv(folder / "metrics.csv", index=False)
    (folder / "config.json").write_text(json.dumps({"script": "toy", **settings}))
    return folder


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path):
    folders = [
        write(tmp_path / f"{lr}_{seed}", {"epoch": [1, 2], "loss": [x, 2 * x]}, lr=lr, seed=seed)
        for lr, seed, x in ((0.1, 0, 1.0), (0.1, 1, 3.0), (0.2, 0, 5.0))
    ]
    (tmp_path / "other").mkdir()
    collect.main(collect.Config((*folders, tmp_path / "other"), out=tmp_path / "all.csv"))
    table = pd.read_csv(tmp_path / "all.csv").set_index(["group", "epoch"])
    assert list(table["runs"]) == [2, 2, 1, 1]
    half = 12.7062 * 2**0.5 / 2**0.5  # Student's t of one degree of freedom at 0.975, from a printed table
    found = table.loc[("toy, lr 0.1", 1)]
    assert found[["loss", "loss_std", "loss_low", "loss_high"]].tolist() == pytest.approx(
        [2, 2**0.5, 2 - half, 2 + half], rel=1e-5
    )
    assert table.loc[("toy, lr 0.2", 2), "loss"] == 10
    assert table.loc[("toy, lr 0.2", 2), ["loss_std", "loss_low"]].isna().all()


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"a,b\n1\n2,3,4\n"])
def test_bad_tables_are_one_line(tmp_path, content, monkeypatch, capsys):
    (write(tmp_path / "a", {"epoch": [1]}) / "metrics.csv").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path / "a")])
    with pytest.raises(SystemExit) as stop:
        launch(collect.Config, collect.main, collect.__doc__)
    said = capsys.readouterr()
    assert (stop.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "metrics.csv: no table of a run" in said.err


def test_nothing_is_overwritten_and_missing_things_are_named(tmp_path):
    folder = write(tmp_path / "a", {"epoch": [1], "loss": [1.0]})
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(BadInput, match=r"mine.csv: is there already"):
        collect.main(collect.Config((folder,), out=tmp_path / "mine.csv"))
    with pytest.raises(BadInput, match=r"no folder here holds a quality.csv"):
        collect.main(collect.Config((folder,), table="quality"))
    (folder / "config.json").write_text("[]")
    with pytest.raises(BadInput, match=r"config.json is missing or not that of a run"):
        collect.main(collect.Config((folder,)))
