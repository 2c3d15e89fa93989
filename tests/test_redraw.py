"""Figures that are drawn again from committed tables."""

import shutil
from pathlib import Path

import pytest

from studies import redraw

REFERENCE = Path(__file__).resolve().parents[1] / "outputs/reference"


@pytest.mark.parametrize("folder, figure", [
    ("q2_gan_lab/comparison", "comparison.png"), ("q3_seeds/q3_vae_svm_3", "benchmark.png"),
])  # fmt: skip
def test_figures_of_a_committed_run_come_from_its_tables(tmp_path, folder, figure):
    for path in (REFERENCE / folder).iterdir():
        if path.suffix in (".csv", ".json"):
            shutil.copy(path, tmp_path)
    redraw.main(redraw.Config((tmp_path,)))
    assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
