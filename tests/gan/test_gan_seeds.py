"""The spread over training seeds of question 4."""

import os

import pandas as pd
import pytest

from common.quality import figures as quality_figures
from common.run import queue
from common.run.cli import BadInput
from studies import gan_seeds
from studies.gan_seeds import MEASURED, distances


def run(value):
    """A `quality.csv` of two rows whose every metric is `value`, ten times that with raw weights."""
    rows = [{"epoch": 15, "weights": "raw", "factor": 10}, {"epoch": 15, "weights": "averaged", "factor": 1}]
    return pd.DataFrame([{**row, **dict.fromkeys(MEASURED, row["factor"] * value)} for row in rows])


def test_distances_are_mean_and_deviation_over_the_runs_of_a_setting(tmp_path):
    table = distances({"dcgan": [run(1.0), run(2.0), run(6.0)], "dcgan_paper": [run(9.0)], "wgan_gp": []})
    quality_figures.seeds(table, tmp_path / "distances.png")  # draws settings that are missing or have a single run
    table = table.set_index(["setting", "weights"])
    assert list(table["runs"]) == [3, 3, 1, 1]
    averaged = table.loc["dcgan", "averaged"]
    assert averaged["frechet"] == 3
    assert averaged["frechet_std"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / (3 - 1)
    assert table.loc[("dcgan", "raw"), "recall"] == 30
    assert pd.isna(table.loc[("dcgan_paper", "raw"), "kid_std"])
    half = 4.302653 * (7 / 3) ** 0.5  # Student's t of 2 degrees of freedom at 0.975, from a printed table
    assert averaged[["frechet_low", "frechet_high"]].tolist() == pytest.approx([3 - half, 3 + half], rel=1e-6)


def test_epochs_are_in_order_where_runs_measured_different_ones():
    late, all_along = run(1.0), pd.concat([run(2.0).assign(epoch=epoch) for epoch in (1, 5, 10, 15)])
    table = distances({"dcgan": [late, all_along]})
    averaged = table[table["weights"] == "averaged"]
    assert list(averaged["epoch"]) == [1, 5, 10, 15]
    assert list(averaged["runs"]) == [1, 1, 1, 2]


def test_only_runs_that_are_not_the_reference_are_trained(tmp_path, monkeypatch):
    trained: list[str] = []
    monkeypatch.setattr(queue, "work", lambda tasks, jobs: trained.extend(task.folder.name for task in tasks))
    monkeypatch.setattr(quality_figures, "seeds", lambda *_: None)
    monkeypatch.setattr(gan_seeds, "REFERENCE", tmp_path / "reference")
    (tmp_path / "reference" / "q4_dcgan").mkdir(parents=True)
    (tmp_path / "reference" / "q4_dcgan" / "config.json").write_text('{"seed": 3}')
    config = gan_seeds.Config(settings=("dcgan", "dcgan_paper"), seeds=(3, 4), out=tmp_path)
    (tmp_path / "dcgan_1").mkdir()
    run(1.0).to_csv(tmp_path / "dcgan_1" / "quality.csv", index=False)
    gan_seeds.main(config)
    assert trained == ["dcgan_paper_3", "dcgan_4", "dcgan_paper_4"]
    assert (tmp_path / "distances.csv").exists()


@pytest.mark.parametrize("content", [
    b"", b"\n", b"\x00\xff\xfe binary", b"epoch,weights\n1,raw\n", b"a,b\n1\n2,3,4\n", b'"open',
    b"PK\x03\x04" + bytes(range(256)),
    b"epoch,weights,frechet,kid,precision,recall\n15,raw,x,1,1,1\n",
    b"epoch,weights,frechet,kid,precision,recall\n,,1,1,1,1\n",
])  # fmt: skip
def test_broken_tables_are_one_line_that_names_the_file(tmp_path, content):
    (tmp_path / "dcgan_1").mkdir()
    (tmp_path / "dcgan_1" / "quality.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"dcgan_1.quality.csv: no table of a run \(.*\); start its run again"):
        gan_seeds.main(gan_seeds.Config(seeds=(), out=tmp_path))
    assert not (tmp_path / "distances.csv").exists()


def test_a_pipe_in_place_of_a_table_does_not_hang(tmp_path):
    os.makedirs(tmp_path / "dcgan_1" / "quality.csv")
    with pytest.raises(BadInput, match=r"quality.csv: not a regular file"):
        gan_seeds.main(gan_seeds.Config(seeds=(), out=tmp_path))


def test_a_table_of_somebody_else_is_kept(tmp_path):
    (tmp_path / "distances.csv").write_text("from,to,km\nA,B,3\n")
    with pytest.raises(BadInput, match=r"distances.csv: is not this study's; move it"):
        gan_seeds.main(gan_seeds.Config(seeds=(), out=tmp_path))
    assert (tmp_path / "distances.csv").read_text() == "from,to,km\nA,B,3\n"


def test_a_table_of_its_own_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(quality_figures, "seeds", lambda *_: None)
    (tmp_path / "dcgan_1").mkdir()
    for value in (1.0, 2.0):
        run(value).to_csv(tmp_path / "dcgan_1" / "quality.csv", index=False)
        gan_seeds.main(gan_seeds.Config(seeds=(), out=tmp_path))
    assert (tmp_path / "distances.csv").read_text().startswith(gan_seeds.HEADER)


def test_nothing_to_gather_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no reference runs here either
    with pytest.raises(BadInput, match=r"--out: .* is not possible; it takes a folder with runs"):
        gan_seeds.main(gan_seeds.Config(seeds=(), out=tmp_path))
    assert not list(tmp_path.iterdir())
