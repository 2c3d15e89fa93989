"""README and REPORT: pictures, links, commands, lengths; reference runs against the defaults."""

import importlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import test_cells

from common.run.cli import parse
from common.run.identity import NOT_IDENTITY, under_todays_names

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "REPORT.md")
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
REFERENCES = sorted(path.parent.name for path in (ROOT / "outputs" / "reference").glob("*/config.json"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pictures_and_links_exist(document):
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / document).read_text()):
        assert (ROOT / target).exists(), target


def test_runs_leave_a_clone_clean(tmp_path):
    """A script writes to its default folder, and git sees nothing of it."""
    clone = tmp_path / "clone"
    if subprocess.run(["git", "clone", "-q", ROOT, clone], capture_output=True).returncode:
        pytest.skip("this is no git checkout")
    shutil.copytree(ROOT / "common", clone / "common", dirs_exist_ok=True)  # the code as it is, committed or not
    small = "--iterations 20 --evaluate-every 10 --eval-samples 1000 --transport-samples 10 --seeds 1"
    before = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True).stdout
    command = [sys.executable, "q2_gan_lab.py", *small.split()]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (clone / "outputs" / "q2_gan_lab" / "metrics.csv").exists()
    after = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True).stdout
    assert after == before


def test_documents_are_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    assert (ROOT / "REPORT.md").stat().st_size <= 25 * 1024


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
    assert changed <= {"seed"} or name not in SCRIPTS  # seeds 3, 4, 5 are reported


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_number_that_is_off_by_one_in_its_last_digit_is_found(document):
    missed, n = [], 0
    for comment, text in test_cells.blocks((ROOT / document).read_text()):
        hidden = test_cells.LEFT_OUT.sub(lambda m: re.sub(r"[^\n]", "\0", m[0]), text)
        for match in test_cells.NUMBER.finditer(hidden):
            digit = max(i for i in range(*match.span()) if text[i].isdigit() and "e" not in text[match.start() : i])
            changed = text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :]
            n, missed = n + 1, missed if test_cells.fault(comment, changed) else [*missed, match[0]]
    assert n > 50
    assert len(missed) <= 0.01 * n, missed
