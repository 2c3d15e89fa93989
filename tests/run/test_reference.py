"""A run's headline numbers beside those of the reference run with the same settings."""

import json

import pandas as pd
import pytest

import q3_vae_svm
from common.run import reference
from common.run.identity import identity
from common.run.reference import FOLDER, beside, read_reference

DEFAULTS = {"script": "q3_vae_svm", **identity(q3_vae_svm.Config())}


def test_only_a_run_with_the_same_settings_has_a_reference(monkeypatch, tmp_path):
    assert len(read_reference(DEFAULTS, "accuracy.csv")) >= 4
    assert read_reference({**DEFAULTS, "epochs": 3}, "accuracy.csv").empty
    assert read_reference(DEFAULTS, "no such table.csv").empty
    monkeypatch.setattr(reference, "FOLDER", tmp_path)  # a copy of the code alone
    assert read_reference(DEFAULTS, "accuracy.csv").empty


@pytest.mark.parametrize("script", ["q1_divergences", "q2_gan_lab", "q3_vae_svm"])
def test_scripts_with_default_settings_have_one(script):
    assert (FOLDER / script / "config.json").is_file()
    assert json.loads((FOLDER / script / "config.json").read_text())["script"] == script


def test_numbers_agree_within_three_recorded_deviations():
    ours = pd.DataFrame({"size": [100, 600, 50], "mean": [0.75, 0.9, 0.1], "std": [9.0, 9.0, 9.0]})
    others = pd.DataFrame({"size": [100, 600], "mean": [0.72, 0.72], "std": [0.011, 0.011]})
    lines = beside(ours, others, ["size"], "mean", "std").splitlines()
    assert lines[1] == "  100: 0.75, reference 0.72 ± 0.011"
    assert lines[2] == "  600: 0.9, reference 0.72 ± 0.011, differs"
    assert len(lines) == 3
    assert beside(ours, pd.DataFrame(), ["size"], "mean", "std") == ""
