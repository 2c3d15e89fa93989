"""Tables of accuracies: means, intervals, paired differences."""

import math

import pandas as pd
import pytest
import torch

from common.vae import experiments


def test_table_has_means_deviations_and_students_interval():
    draws = pd.DataFrame({"method": "a", "size": 100, "draw": range(4), "accuracy": [0.1, 0.2, 0.3, 0.4]})
    [row] = experiments.accuracy_table(draws).to_dict("records")
    std = math.sqrt(0.05 / 3)
    assert (row["mean"], row["std"], row["n"]) == (pytest.approx(0.25), pytest.approx(std), 4)
    assert row["ci95"] == pytest.approx(3.182446 * std / 2, rel=1e-6)  # Student's t with 3 degrees of freedom
    assert row["reference"] == 0.57


def test_interval_covers_the_mean_in_95_of_100_cases():
    torch.manual_seed(0)
    samples = pd.DataFrame(torch.randn(5, 4000).numpy())
    inside = [abs(samples[c].mean()) <= experiments.half_width(samples[c]) for c in samples]
    assert sum(inside) / len(inside) == pytest.approx(0.95, abs=0.012)


def test_differences_are_paired_by_draw():
    rows = [("a", 0, 0.5), ("a", 1, 0.7), ("b", 0, 0.6), ("b", 1, 0.8), ("c", 0, 0.4)]
    draws = pd.DataFrame([{"method": m, "size": 20, "draw": d, "accuracy": a} for m, d, a in rows])
    table = experiments.paired_table(draws).set_index("method")
    assert table.loc["b", "difference"] == pytest.approx(0.1)
    assert table.loc["b", "difference_ci95"] == pytest.approx(0, abs=1e-9)
    assert table.loc["c", "difference"] == pytest.approx(-0.1)  # draw 0 alone
    assert math.isnan(table.loc["a", "difference"])


def test_subsets_are_reproducible_and_balanced_or_not():
    labels = torch.arange(1000) % 10
    for subset in (experiments.balanced, experiments.unstratified):
        first = subset(3, labels, 100, 0)
        assert first.equal(subset(3, labels, 100, 0))
        assert not first.equal(subset(3, labels, 100, 1))
        assert len(first.unique()) == 100
    counts = torch.bincount(labels[experiments.balanced(3, labels, 100, 0)])
    assert counts.tolist() == [10] * 10
    assert torch.bincount(labels[experiments.unstratified(3, labels, 100, 0)]).tolist() != [10] * 10
