"""README and REPORT against committed results: numbers, pictures, commands; reference runs against the defaults."""

import importlib
import itertools
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from common.run.cli import parse
from common.run.identity import NOT_IDENTITY, under_todays_names

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "REPORT.md")
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
REFERENCES = sorted(path.parent.name for path in (ROOT / "outputs" / "reference").glob("*/config.json"))
NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def numbers_of(path: Path) -> list[float]:
    """Every number in a CSV or JSON file."""
    if path.suffix == ".json":
        cells = list(json.loads(path.read_text()).values())
    else:
        cells = pd.read_csv(path).to_numpy().flatten().tolist()
    return [float(cell) for cell in cells if isinstance(cell, int | float) and not isinstance(cell, bool)]


def linked_numbers() -> list[tuple[str, str, str]]:
    """(document, number as written, file) for every number whose text links to a committed table."""
    found = []
    link = re.compile(r"\[([^\]]*\d[^\]]*)\]\(((?:outputs/reference|notebook/data)/[^)]+\.(?:csv|json))\)")
    for name in DOCUMENTS:
        for text, target in link.findall((ROOT / name).read_text()):
            found += [(name, number, target) for number in NUMBER.findall(text)]
    return found


def test_documents_link_their_numbers():
    assert {name for name, _, _ in linked_numbers()} == set(DOCUMENTS)


@pytest.mark.parametrize("document, written, target", sorted(set(linked_numbers())))
def test_number_is_in_the_file_it_links_to(document, written, target):
    plain = written.replace(",", "").replace("−", "-")
    value = float(plain)
    decimals = len(plain.partition(".")[2]) if "e" not in plain else 12
    assert any(round(cell, decimals) == pytest.approx(value, rel=1e-9) for cell in numbers_of(ROOT / target)), (
        f"{document}: {written} is not in {target}"
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pictures_and_links_exist(document):
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / document).read_text()):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_in_the_documents_is_understood(name):
    module = importlib.import_module(name)
    documents = [(ROOT / document).read_text() for document in (*DOCUMENTS, "CONTRIBUTING.md")]
    texts = [text.replace("\\\n", "") for text in (module.__doc__, *documents)]
    found = [re.findall(rf"python {name}\.py[^`\n|&]*", text) for text in texts]
    assert len(found[0]) >= 2
    for command in itertools.chain(*found):
        parse(module.Config, "", shlex.split(command)[2:])


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_results_come_from_committed_code_and_stated_settings(name):
    folder = ROOT / "outputs" / "reference" / name
    settings = json.loads((folder / "config.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    assert re.fullmatch("[0-9a-f]{12}", environment["commit"]), "run again from committed code"
    assert not environment.get("mixed"), "made by several versions; run again without a stop"
    module = importlib.import_module(settings.pop("script"))
    defaults = {k: v for k, v in asdict(module.Config()).items() if k not in NOT_IDENTITY}
    if "precision" in defaults:
        defaults["precision"] = "float32"  # what auto is on the CPU
    settings = under_todays_names(settings, defaults)
    changed = {k for k, v in json.loads(json.dumps(defaults, default=str)).items() if settings[k] != v}
    # A folder named like its script holds the defaults; any other says in its command what is different.
    assert changed == {k for k in changed if f"--{k.replace('_', '-')}" in environment["command"]}
    assert not changed or name not in SCRIPTS
