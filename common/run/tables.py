"""The tables of a run: rows recorded on the way, kept in its checkpoints, shown as CSV files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from common.run.files import write_file

Row = dict[str, Any]


class Tables(dict[str, list[Row]]):
    """Table name -> rows (dicts of plain values); every table becomes `<name>.csv`.

    Attributes:
        changed: whether anything was added or replaced; whoever saves the tables sets it back.
    """

    changed = False

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, Row]] = []
        self._shown: dict[str, tuple[int, pd.Series | None, bytes]] = {}  # of each table: rows, their types, as CSV

    def record(self, table: str, **values: Any) -> None:
        """Append a row to a table; 0-d tensors stay on their device until the next `settle`."""
        self._waiting.append((table, {name: _plain(value) for name, value in values.items()}))
        self.changed = True

    def rows(self, table: str) -> pd.DataFrame:
        """A table so far, one row per record."""
        self.settle()
        return pd.DataFrame(self.get(table, []))

    def replace(self, table: str, rows: pd.DataFrame) -> None:
        """Set a whole table, one that is computed from others."""
        plain: list[Row] = rows.to_dict("records")
        self.changed |= self.get(table) != plain
        self[table] = plain
        self._shown.pop(table, None)

    def settle(self) -> None:
        """Move recorded tensors to the host, all of a kind in one transfer, and append the rows to their tables."""
        kinds: dict[Any, list[tuple[Row, str]]] = {}
        for _, row in self._waiting:
            for key, value in row.items():
                if isinstance(value, torch.Tensor):
                    kinds.setdefault((value.device, value.dtype), []).append((row, key))
        for cells in kinds.values():
            for (row, key), number in zip(cells, torch.stack([row[key] for row, key in cells]).tolist(), strict=True):
                row[key] = float(number)
        for table, row in self._waiting:
            self.setdefault(table, []).append(row)
        self._waiting.clear()

    def write(self, folder: Path, say: Callable[[str], None], tell: bool = False) -> None:
        """Write every table that is not on disk as it should be; one that a program has locked waits for the next time.

        Args:
            say: prints a line.
            tell: whether to say which tables were not as they should be.
        """
        for name, rows in self.items():
            path = folder / f"{name}.csv"
            content = self._csv(name, rows)
            if path.is_file() and path.read_bytes() == content:
                continue
            if tell:
                say(f"warning: {path} is missing or not that of the checkpoint; it is written again")
            try:
                write_file(path, content)
            except PermissionError as fault:  # on Windows where a spreadsheet has it open
                say(f"warning: {path}: {fault.strerror}; close what has it open, it is written at the next save")

    def _csv(self, name: str, rows: list[Row]) -> bytes:
        """A table as CSV; only the rows that are new since the last time are turned into text, where types allow it."""
        count, types, content = self._shown.get(name, (0, None, b""))
        added = pd.DataFrame(rows[count:])
        if count and len(added) and not added.dtypes.equals(types):
            count, content, added = 0, b"", pd.DataFrame(rows)
        if len(added) or not count:
            content += added.to_csv(index=False, float_format="%.7g", header=not count).encode()
            self._shown[name] = len(rows), added.dtypes, content
        return content


def _plain(value: Any) -> Any:
    """A value as a checkpoint may hold it: numpy's scalars become Python's, tensors lose their graph."""
    return value.detach() if isinstance(value, torch.Tensor) else value.item() if hasattr(value, "item") else value
