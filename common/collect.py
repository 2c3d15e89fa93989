"""Tables of many runs in one: mean, standard deviation and 95 % interval over the runs that differ in their seed.

    python -m common.collect outputs/my_seeds/*
    python -m common.collect outputs/my_seeds/dcgan_* --table quality --out dcgan.csv

Runs with the same settings but for the seed are one group. A row of the result is a group and a combination of what
names a row (text, epochs, sizes); for every other column x it has x (the mean), x_std, and x_low and x_high, Student's
interval for the mean, which presumes that runs are independent and nearly normal. A single run has neither.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import stats

from common.run.cli import BadInput, launch
from common.run.files import read_file, write_file

NAMING = ("epoch", "size", "step", "iteration")  # columns of numbers that name a row
LEVEL = 0.95


@dataclass(frozen=True)
class Config:
    """What is gathered."""

    folders: tuple[Path, ...]
    """Folders of runs; others are left out."""
    table: str = "metrics"
    """Name of the table, without .csv."""
    out: Path | None = None
    """File for the result [csv], which must not be there yet; without it the result is only printed."""


def read_table(path: Path, numbers: Sequence[str] = (), naming: dict[str, type] | None = None) -> pd.DataFrame:
    """A run's table.

    Args:
        numbers: columns that must be there, as numbers.
        naming: columns that must be there, and their types.

    Raises:
        BadInput: the file is none, or lacks one of them.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_file(path)))
        table[list(numbers)] = table[list(numbers)].astype(float)
        return table.astype(naming or {})
    except OSError as fault:
        raise BadInput(f"{path}: {fault.strerror or fault}; mend that, or move the run out of the folder") from None
    except (ValueError, KeyError, TypeError) as fault:  # what pandas raises for other files, among them UnicodeError
        reason = " ".join(str(fault).split())[:80]
        raise BadInput(f"{path}: no table of a run ({reason}); start its run again, which writes it anew") from None


def over_runs(rows: pd.DataFrame, naming: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Number of runs, means, standard deviations (n - 1) and 95 % intervals of the columns `values`.

    Args:
        rows: of all runs, at most one of each run for a combination of `naming`.
    """
    grouped = rows.groupby(list(naming), dropna=False)
    columns, runs = list(values), grouped.size().rename("runs")
    means, deviations = grouped[columns].mean(), grouped[columns].std()
    half = deviations.mul(pd.Series(stats.t.ppf((1 + LEVEL) / 2, runs - 1), runs.index) / runs**0.5, axis=0)
    parts = [runs, means, deviations.add_suffix("_std")]
    parts += [(means - half).add_suffix("_low"), (means + half).add_suffix("_high")]
    return pd.concat(parts, axis=1).reset_index()


def main(config: Config) -> None:
    """Gather, print, and write where that is asked for."""
    if config.out and config.out.exists():
        raise BadInput(f"--out {config.out}: is there already; choose another name")
    found = [folder for folder in config.folders if (folder / f"{config.table}.csv").exists()]
    if not found:
        raise BadInput(f"{config.folders[0] if config.folders else '-'}: no folder here holds a {config.table}.csv")
    settings = [_settings(folder) for folder in found]
    tables = [read_table(folder / f"{config.table}.csv") for folder in found]
    rows = pd.concat([table.assign(group=group) for table, group in zip(tables, _names(settings), strict=True)])
    naming = [name for name in rows if name in NAMING or not pd.api.types.is_numeric_dtype(rows[name])]
    values = [name for name in rows if name not in naming]
    if any(table.duplicated([name for name in naming if name in table]).any() for table in tables):
        raise BadInput(f"--table {config.table}: has several rows of a run for one {', '.join(naming[:-1]) or 'run'}")
    table = over_runs(rows, ["group", *(name for name in naming if name != "group")], values)
    if config.out:
        write_file(config.out, table.to_csv(index=False, float_format="%.7g").encode())
    print(table.to_string(index=False, float_format="{:.4g}".format))


def _settings(folder: Path) -> dict[str, str]:
    """The settings of a run but for its seed."""
    try:
        found = json.loads(read_file(folder / "config.json"))
        return {name: json.dumps(value) for name, value in found.items() if name not in ("seed", "out")}
    except (OSError, ValueError, AttributeError, RecursionError):
        raise BadInput(f"{folder}: its config.json is missing or not that of a run; leave this folder out") from None


def _names(settings: Sequence[dict[str, str]]) -> list[str]:
    """A name for each run's group: the script, and the settings in which the groups differ."""
    everything = {name for one in settings for name in one}
    differing = sorted(name for name in everything if len({one.get(name) for one in settings}) > 1)
    names = []
    for one in settings:
        said = [f"{name} {one[name]}" for name in differing if name in one and name != "script"]
        names.append(", ".join([one.get("script", "run").strip('"'), *said]))
    return names


if __name__ == "__main__":
    launch(Config, main, __doc__)
