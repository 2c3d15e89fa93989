"""The tables of a run for TensorBoard, for who wants to watch them there: `tensorboard --logdir outputs`."""

from collections.abc import Callable
from pathlib import Path

from common.run.tables import Tables


def board(folder: Path, say: Callable[[str], None]) -> Callable[[Tables], None]:
    """A function that adds what is new in the tables to `<folder>/tensorboard`; each process writes them from the first
    row on, in place of what was there, at the step, iteration or epoch of a row. A row's words become part of the name.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # needs the package tensorboard
    except ImportError:
        say("--tensorboard: nothing is written for it; `pip install tensorboard` first")
        return lambda tables: None
    for old in (folder / "tensorboard").glob("events.out.tfevents.*"):
        old.unlink()
    writer, shown = SummaryWriter(str(folder / "tensorboard")), dict[str, int]()

    def write(tables: Tables) -> None:
        """Add the rows that came since the last time."""
        for table, rows in tables.items():
            for i in range(shown.get(table, 0), len(rows)):
                at = next((rows[i][name] for name in ("iteration", "step", "epoch") if name in rows[i]), i)
                words = [value for value in rows[i].values() if isinstance(value, str)]
                for name, value in rows[i].items():
                    if isinstance(value, int | float):
                        writer.add_scalar("/".join([table, *words, name]), value, at)
            shown[table] = len(rows)
        writer.flush()

    return write
