"""Flags from a dataclass: every kind of field, groups from comments, help that wraps at spaces and can be copied."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from common.run.faults import BadInput
from common.run.flags import read


@dataclass(frozen=True)
class Base:
    # Run
    seed: int = 0
    """Decides everything, 30 % of it."""
    out: Path = Path("nowhere")
    """Folder of the run."""


@dataclass(frozen=True)
class Config(Base):
    # Networks
    kind: Literal["a", "b"] = "a"
    """Which."""
    dim: Literal[1, 2] = 2
    sizes: tuple[int, ...] = ()
    betas: tuple[float, float] = (0.0, 1 / 3)
    """Averaging constants of --a-very-long-flag-name-that-must-not-be-broken-anywhere-at-all and of nothing else."""
    augment: bool = True
    fast: bool = False
    csv: Path | None = None
    out: Path = Path("outputs/x")


@dataclass(frozen=True)
class Scored:
    path: Path
    """What is scored."""
    seed: int = 0


def test_every_kind_of_field_is_read():
    flags = "--seed=3 --kind b --dim 1 --sizes 1 2 3 --betas -1 2.5 --augment False --fast --csv a.csv --out here"
    read_config = read(Config, "", flags.split())
    wanted = Config(3, Path("here"), "b", 1, (1, 2, 3), (-1.0, 2.5), False, True, Path("a.csv"))
    assert read_config == wanted
    assert read(Config, "", []) == Config()
    assert read(Config, "", ["--seed", "1"], Config(seed=5, kind="b")) == Config(seed=1, kind="b")
    assert read(Scored, "", ["x", "--seed", "1"]) == Scored(Path("x"), 1)


@pytest.mark.parametrize("flags, said", [
    ("--kind c", "--kind: invalid choice: 'c'"),
    ("--dim 3", "--dim: invalid choice: 3"),
    ("--augment no", "--augment: no is not possible; it takes True or False"),
    ("--betas 1", "--betas: expected 2 arguments"),
    ("--see 3", "--see: no such flag (perhaps --seed?)"),
    ("--xyz", "--xyz: no such flag; see --help"),
])  # fmt: skip
def test_a_wrong_flag_is_one_sentence_with_its_remedy(flags, said):
    with pytest.raises(BadInput) as fault:
        read(Config, "", flags.split())
    assert str(fault.value).startswith(said)
    assert str(fault.value).endswith("see --help")


def test_a_missing_positional_argument_is_named():
    with pytest.raises(BadInput, match=r"required: PATH; see --help"):
        read(Scored, "", [])


@pytest.mark.parametrize("columns", ["60", "100"])
def test_help_shows_groups_texts_and_defaults_and_breaks_no_flag(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    command = "    python x.py --kind b --fast --augment False"
    description = f"A script.\n\nIt does {20 * 'very '} much.\n\n{command}\n"
    with pytest.raises(SystemExit) as stop:
        read(Config, description, ["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.index("\nRun:") < shown.index("--seed") < shown.index("--out") < shown.index("\nNetworks:")
    words = " ".join(shown.split())
    for text in ("Decides everything, 30 % of it. (default: 0)", "Folder of the run. (default: outputs/x)"):
        assert text in words
    assert "(default: 0 0.3333)" in words
    for line in (
        command,
        "--a-very-long-flag-name-that-must-not-be-broken",
    ):
        assert line in shown
    assert "(default: )" not in shown
    assert "None" not in shown
    assert all(len(line) <= int(columns) for line in shown.splitlines() if "-a-very" not in line)
