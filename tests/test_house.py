"""The arrows between modules: script -> its room -> shared ground and run/ -> libraries."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"lines", "plane", "vae", "gan", "quality"}
MAY_USE = {"vae": {"quality"}, "gan": {"quality"}}
SCRIPTS = {
    "q1_divergences": "lines",
    "q2_gan_lab": "plane",
    "q3_vae_svm": "vae",
    "q4_dcgan": "gan",
    "q4_wgan_gp": "gan",
}
FILES = sorted([*ROOT.glob("*.py"), *ROOT.glob("common/**/*.py")])


def imported(path):
    """Every module that a file imports, in full: `from common.gan import figures` is common.gan.figures."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "common" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    modules = set(imported(path))
    rooms = {room for module in modules if (room := room_of(module))}
    own = parts[1] if parts[0] == "common" and len(parts) > 2 else None
    if own in ROOMS:
        assert rooms <= {own} | MAY_USE.get(own, set())
    elif parts[0] == "common":
        assert not rooms, "shared ground and run/ know no room"
    elif parts[0] in SCRIPTS:
        assert rooms <= {SCRIPTS[parts[0]], "quality"}
    if own == "run":
        assert {m for m in modules if m.startswith("common.")} <= {m for m in modules if m.startswith("common.run")}
    if path.name != "figures.py":
        assert not any(module.split(".")[0] == "matplotlib" for module in modules)
    assert parts[0] != "common" or not any(module.split(".")[0] in SCRIPTS for module in modules)
