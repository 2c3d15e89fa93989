"""Tables on their way through checkpoints and CSV files."""

import pandas as pd
import pytest
import torch

from common.run import checkpoints
from common.run.tables import Tables

ROWS = {
    "numbers": [{"step": i, "loss": i / 3, "big": 2**62 + i} for i in range(5)],
    "strange": [{"a": float("nan"), "b": -0.0, "c": float("inf")}],
    "mixed": [{"n": 1, "name": "x", "b": True, "none": None}, {"n": 1.5, "name": "y, z", "b": False, "none": 2}],
    "huge": [{"n": 2**70}],
    "ragged": [{"a": 1}, {"a": 2, "b": 3.0}],
    "other_order": [{"a": 1, "b": 2}, {"b": 3, "a": 4}],
    "empty": [],
}
STATE = {"script": "toy", "config": {}, "step": 1, "seconds": 0.0, "threads": 1, "history": [], "tensors": {}}


def saved(folder, tables):
    folder.mkdir(exist_ok=True)
    return checkpoints.save(folder, 1, {**STATE, "state": {}, "tables": tables}, None)


def test_rows_come_back_from_a_checkpoint_as_they_were_with_their_types(tmp_path):
    found = checkpoints.load(saved(tmp_path, ROWS))["tables"]
    assert repr(found) == repr(ROWS)


def test_checkpoints_with_rows_as_rows_are_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_packed", lambda rows: rows)
    assert repr(checkpoints.load(saved(tmp_path, ROWS))["tables"]) == repr(ROWS)


@pytest.mark.parametrize("forged", [
    {"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": [1, 2], "b": torch.zeros(())}, {"a": torch.zeros(2, 2)},
    {"a": 5}, {"a": [torch.zeros(1)]}, {"a": [[1]]}, {1.5: {"a": [1]}}, torch.zeros(3), "rows",
], ids=str)  # fmt: skip
def test_columns_that_are_no_table_are_refused(tmp_path, monkeypatch, forged):
    monkeypatch.setattr(checkpoints, "_packed", lambda rows: rows)
    with pytest.raises(ValueError, match="not that of a run"):
        checkpoints.load(saved(tmp_path, {"losses": forged}))


def test_a_long_table_takes_eight_bytes_a_number_in_a_checkpoint(tmp_path):
    rows = [{"step": i, "loss": 1 / (i + 1)} for i in range(20_000)]
    assert saved(tmp_path, {"losses": rows}).stat().st_size < 1.05 * 16 * len(rows)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "empty"])
def test_csv_written_row_by_row_is_that_of_the_whole(tmp_path, name):
    tables = Tables()
    for row in ROWS[name]:
        tables.record(name, **row)
        tables.settle()
        tables.write(tmp_path, print)
    whole = pd.DataFrame(ROWS[name]).to_csv(index=False, float_format="%.7g")
    assert (tmp_path / f"{name}.csv").read_text() == whole


def test_a_replaced_table_is_written_whole(tmp_path):
    tables = Tables()
    for values in ([1.0, 2.0], [3.0, 4.0, 5.0]):
        tables.replace("table", pd.DataFrame({"a": values}))
        tables.write(tmp_path, print)
        assert pd.read_csv(tmp_path / "table.csv")["a"].tolist() == values


def test_only_new_rows_are_turned_into_text(tmp_path, monkeypatch):
    tables, lengths, to_csv = Tables(), [], pd.DataFrame.to_csv
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda frame, **how: lengths.append(len(frame)) or to_csv(frame, **how))
    for n in (100, 3, 0):
        for i in range(n):
            tables.record("losses", step=i, loss=i / 3)
        tables.settle()
        tables.write(tmp_path, print)
    assert lengths == [100, 3]
