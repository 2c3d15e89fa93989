"""What makes a run what it is, and how runs of former code go on."""

import importlib
import json
from pathlib import Path

import pytest

from common.run.identity import differences, identity, under_todays_names

ROOT = Path(__file__).resolve().parents[2]
RUNS = sorted(ROOT.glob("outputs/reference/**/config.json"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_every_setting_of_today_has_its_value_in_a_run_of_former_code(path):
    """A new setting needs a neutral value in `NEUTRAL`, and a new name its former one, or no former run goes on."""
    found = json.loads(path.read_text())
    if None in found.values() or "paper" in path.parent.name:
        pytest.skip("its code filled settings in from a preset, which its configuration lacks")
    config_class = importlib.import_module(found["script"]).Config
    today = identity(config_class())
    known = under_todays_names(found, ["script", *today])
    assert set(today) <= set(known)
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items() if name in today}
    assert differences(found, {"script": found["script"], **identity(config_class(**values))}) == ""


def test_there_are_runs_of_every_script():
    scripts = {json.loads(path.read_text())["script"] for path in RUNS}
    assert scripts >= {"q1_divergences", "q2_gan_lab", "q3_vae_svm", "q4_dcgan", "q4_wgan_gp", "yardstick"}


def test_differences_are_named_with_both_values():
    mine = {"script": "a", "lr": 0.1, "sizes": [1, 2], "echo": 2}
    assert differences({"script": "a", "lr": 0.1, "sizes": [1, 2], "repeats": 2}, mine) == ""
    assert (
        differences({"script": "b", "lr": 0.1, "sizes": [3], "echo": 2}, mine) == "script b (now a), sizes 3 (now 1 2)"
    )
    assert differences({"script": "a", "lr": 0.1, "sizes": [1, 2]}, mine) == "echo - (now 2)"


def test_a_setting_that_is_gone_hinders_only_where_it_was_used():
    mine = {"lr": 0.1}
    assert differences({"lr": 0.1, "critic_lr": 0.0, "detail": 0}, mine) == ""
    assert "critic_lr 0.5" in differences({"lr": 0.1, "critic_lr": 0.5}, mine)
