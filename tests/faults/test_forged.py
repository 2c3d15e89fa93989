"""Forged and foreign things in a run's folder, with valid checksums: nothing outside it changes, nothing crashes.

| kind | how it is provoked | what is promised |
|---|---|---|
| a table's name that is a path | `../x`, `/x` in a checkpoint | the checkpoint gives way, nothing is written outside |
| moments of another shape, type or name | in a checkpoint | the checkpoint gives way, no native crash |
| weights, tables, steps of another kind | in a checkpoint | the checkpoint gives way |
| links in the place of the lock files | `.lock`, `.holder.lock` | the file they point to stays as it is |
| pipes and folders in the place of files | config, table, checkpoint | no hang; refused or written again |
| names like those of temporary files | `.notes.123.tmp` | the user's file stays |
"""

import os

import pytest
import torch
import toy_script
from toy_script import Config

from common.run import checkpoints
from common.run.cli import BadInput

STOPPED = {"epochs": 3, "signal_at": 7}


def stopped(folder):
    """A run that was stopped amid its second epoch: two checkpoints, as every run has."""
    with pytest.raises(SystemExit):
        toy_script.main(Config(out=folder, **STOPPED))
    return checkpoints.listing(folder / "checkpoints")


def moments(content):
    return content["state"]["optimizer"]["state"][0]


FORGERIES = {
    "table up and out": lambda c: c["tables"].update({"../precious": [{"a": 1}]}),
    "table at a root": lambda c: c["tables"].update({"/tmp/precious": [{"a": 1}]}),
    "table with no text": lambda c: c["tables"].update({3: [{"a": 1}]}),
    "strings for rows": lambda c: c["tables"].update(losses=["a", "b"]),
    "rows in rows": lambda c: c["tables"].update(losses=[{"step": [1]}]),
    "moments of another shape": lambda c: moments(c).update(exp_avg=torch.zeros(1, 1)),
    "moments too large": lambda c: moments(c).update(exp_avg_sq=torch.zeros(300, 300)),
    "moments of another type": lambda c: moments(c).update(exp_avg=torch.zeros(1, 3, dtype=torch.float64)),
    "complex moments": lambda c: moments(c).update(exp_avg=torch.zeros(1, 3, dtype=torch.complex64)),
    "steps of another shape": lambda c: moments(c).update(step=torch.zeros(5)),
    "moments missing": lambda c: moments(c).pop("exp_avg"),
    "moments of no parameter": lambda c: c["state"]["optimizer"]["state"].update({9: moments(c)}),
    "groups missing": lambda c: c["state"]["optimizer"].update(param_groups=[]),
    "learning rate of text": lambda c: c["state"]["optimizer"]["param_groups"][0].update(lr="0.1"),
    "weights of another shape": lambda c: c["state"]["network"].update(weight=torch.zeros(3, 1)),
    "complex weights": lambda c: c["state"]["network"].update(weight=torch.zeros(1, 3, dtype=torch.complex64)),
    "no weights": lambda c: c["state"].update(network=None),
    "step before the first": lambda c: c.update(step=-1),
    "text for a tensor": lambda c: c["tensors"].update(weight="text"),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_checkpoint_gives_way_to_the_one_before(tmp_path, kind, capsys):
    unbroken = toy_script.main(Config(out=tmp_path / "unbroken", epochs=3))
    run, precious = tmp_path / "run", tmp_path / "precious.csv"
    precious.write_text("mine")
    before, newest = stopped(run)
    content = checkpoints.load(newest)
    FORGERIES[kind](content)
    newest.unlink()
    forged = checkpoints.save(run / "checkpoints", 8, content, before)
    weights = toy_script.main(Config(out=run, **STOPPED))
    assert f"{forged} is left out" in capsys.readouterr().out
    assert precious.read_text() == "mine"
    assert all(weights[name].equal(unbroken[name]) for name in weights)


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", [".lock", ".holder.lock"])
def test_a_link_for_a_lock_file_leaves_what_it_points_to(tmp_path, link, name):
    stopped(tmp_path / "run")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "run" / name).unlink()
    link(mine, tmp_path / "run" / name)
    if name == ".lock":
        with pytest.raises(BadInput, match="remove it"):
            toy_script.main(Config(out=tmp_path / "run", **STOPPED))
    else:
        toy_script.main(Config(out=tmp_path / "run", **STOPPED))
    assert mine.read_text() == "mine"


@pytest.mark.posix
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), os.mkdir, lambda path: os.symlink("nowhere", path)])
@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "checkpoint"])
def test_a_pipe_a_folder_or_a_dangling_link_never_hangs(tmp_path, make, name):
    unbroken = toy_script.main(Config(out=tmp_path / "unbroken", epochs=3))
    run = tmp_path / "run"
    _, newest = stopped(run)
    path = newest if name == "checkpoint" else run / name
    path.unlink()
    make(path)
    if path.is_dir() and name != "checkpoint":
        with pytest.raises(IsADirectoryError) as fault:  # launch makes one line of it
            toy_script.main(Config(out=run, **STOPPED))
        assert fault.value.filename == str(path)
        return
    weights = toy_script.main(Config(out=run, **STOPPED))
    assert all(weights[part].equal(unbroken[part]) for part in weights)


def test_a_file_with_a_name_like_a_temporary_one_stays(tmp_path):
    stopped(tmp_path)
    (tmp_path / ".notes.123.tmp").write_text("mine")
    toy_script.main(Config(out=tmp_path, **STOPPED))
    assert (tmp_path / ".notes.123.tmp").read_text() == "mine"
