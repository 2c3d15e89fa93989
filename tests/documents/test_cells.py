"""The numbers of README and REPORT against the committed tables that they come from.

Before a paragraph, list or table with numbers stands a comment, `<!-- numbers: item; item -->`. An item is
`file | filter | expression expression`, as pandas understands them, of a file under outputs/reference or notebook/data
(none: the file of the item before), or `= 15 60,000 / 3`, numbers that stand in no file, in two rows here. The numbers
of a paragraph are those of its items, row after row; those of the i-th row of a table are those of the i-th rows of its
items. Each is rounded to the digits that are written. Headings, pictures, code, formulas and addresses are left out.
"""

import json
import re
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "REPORT.md")
NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])")
LEFT_OUT = re.compile(
    r"!\[[^\]]*\]|\[\^\d\]|<[^>]*>|```.*?```|^    .*?$|^#.*?$|\$\$.*?\$\$|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+",
    re.S | re.M,
)


def blocks(text: str) -> list[tuple[str, str]]:
    """Every paragraph, list or table: the comment before it, or nothing, and its text."""
    parts = re.split(r"\n\s*\n", text)
    found = [re.match(r"(?:<!-- numbers: (.*?) -->\n)?(.*)", part.strip("\n"), re.S) for part in parts]
    return [(match[1] or "", match[2]) for match in found if match]


def numbers(text: str) -> list[str]:
    """The numbers in a text, as they are written."""
    return NUMBER.findall(LEFT_OUT.sub(" ", text))


@cache
def frame(name: str) -> pd.DataFrame:
    places = [ROOT / folder / name for folder in ("outputs/reference", "notebook/data")]
    path = next(place for place in places if place.exists())
    return pd.json_normalize(json.loads(path.read_text())) if path.suffix == ".json" else pd.read_csv(path)


@cache
def rows(comment: str, table: bool) -> list[list]:
    """What each row of a table, or the one row of a paragraph, must hold: values, or the text of given numbers."""
    columns, file = [], ""
    for item in (part.strip() for part in re.split(r";\s", comment)):
        if item.startswith("="):
            columns.append([row.split() for row in item[1:].split("/")])
        elif item:
            name, condition, expressions = (part.strip() for part in re.split(r"(?:^|\s)\|(?=\s)", item))
            file = name or file
            chosen = frame(file).query(condition) if condition else frame(file)
            assert len(chosen), f"{item}: no such row"
            values = [chosen.eval(e) if e not in chosen else chosen[e] for e in expressions.split()]
            columns.append(list(zip(*values, strict=True)))
    if not table:
        return [[value for column in columns for row in column for value in row]]
    return [[value for row in line for value in row or ()] for line in zip_longest(*columns)]


def agrees(written: str, value) -> bool:
    """Whether a number in the text is that of the table, rounded to as many digits."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return written == value
    plain = written.replace(",", "").replace("−", "-")
    digits = len(plain.partition("e")[0].partition(".")[2])
    return f"{float(value):.{digits}{'e' if 'e' in plain else 'f'}}" == re.sub("e-(\\d)$", "e-0\\1", plain)


def differences(lines: list[str], values: list[list]) -> str:
    for line, wanted in zip_longest(lines, values):
        written, known = numbers(line or ""), [value for value in wanted or [] if value == value]  # no cell, no number
        expected = [n for value in known for n in (numbers(value) if isinstance(value, str) else [value])]
        if len(written) != len(expected) or not all(map(agrees, written, expected)):
            return f"{line}\nhas {written}\nfor {expected}"
    return ""


def fault(comment: str, text: str) -> str:
    """What is wrong with the numbers of a block; nothing if all are right. Rows of a table may also come one by one."""
    found = differences([text], rows(comment, table=False))
    if not found or not text.startswith("|"):
        return found
    header, _, *body = text.splitlines()
    return differences([header, *body], [[], *rows(comment, table=True)])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_number_is_that_of_its_table(document):
    faults = [fault(*block) for block in blocks((ROOT / document).read_text())]
    assert "\n\n".join(filter(None, faults)) == ""
