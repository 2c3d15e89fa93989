"""Requirements stand in three files that must agree."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lines(name):
    rows = (row.split("#")[0].strip() for row in (ROOT / name).read_text().splitlines())
    return {row for row in rows if row}


def version(text):
    return tuple(map(int, text.split(".")[:3]))


def test_the_project_asks_for_what_the_requirements_do():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*project["dependencies"], *project["optional-dependencies"]["dev"]} == lines("requirements.txt")


def test_the_tested_versions_are_within_the_ranges():
    tested = dict(row.split("==") for row in lines("constraints.txt"))
    for requirement in lines("requirements.txt"):
        name, low, high = re.fullmatch(r"([\w-]+)>=([\d.]+),<([\d.]+)", requirement).groups()
        assert version(low) <= version(tested.pop(name)) < version(high), requirement
    assert not tested
