"""The committed results of reference runs, shown beside those of a run with the same settings."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from common.run.identity import differences

FOLDER = Path(__file__).resolve().parents[2] / "outputs" / "reference"
DEVIATIONS = 3  # within so many recorded standard deviations two numbers agree


def read_reference(identity: dict[str, Any], file: str, folder: str = "") -> pd.DataFrame:
    """A table of the reference run with these settings; without rows where there is none.

    Args:
        identity: of a run, its script and its settings.
        file: the table's name, as "accuracy.csv".
        folder: where the table is, if not with the run.
    """
    own = FOLDER / identity["script"]
    try:
        if differences(json.loads((own / "config.json").read_text()), identity):
            return pd.DataFrame()
        return pd.read_csv((FOLDER / folder if folder else own) / file)
    except (OSError, ValueError):  # a copy of the code without its results
        return pd.DataFrame()


def beside(rows: pd.DataFrame, reference: pd.DataFrame, key: list[str], value: str, spread: str) -> str:
    """A line for each row: this run's value, the reference's with its standard deviation, whether they agree.

    Args:
        rows, reference: tables with the columns of `key`, `value` and, in the reference, `spread`.

    Returns:
        text that ends with a newline, or nothing where there is no reference.
    """
    if reference.empty:
        return ""
    pairs = rows.merge(reference, on=key, suffixes=("", " of the reference"))
    lines = [f"beside the reference results of these settings ({DEVIATIONS} standard deviations agree):"]
    for row in pairs.to_dict("records"):
        mine, other = row[value], row[f"{value} of the reference"]
        deviation = row[f"{spread} of the reference"] if spread in rows else row[spread]
        agrees = abs(mine - other) <= DEVIATIONS * deviation + 1e-6 * abs(other)
        name = " ".join(f"{row[k]}" for k in key)
        lines.append(f"  {name}: {mine:.4g}, reference {other:.4g} ± {deviation:.2g}" + ("" if agrees else ", differs"))
    return "\n".join(lines) + "\n"
