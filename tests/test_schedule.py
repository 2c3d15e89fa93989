"""Learning rates."""

import numpy as np
import pytest

from common.schedule import linear_decay, one_cycle


def test_one_cycle_rises_for_thirty_per_cent_and_falls_to_zero():
    rates = [one_cycle(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(4e-5)
    assert rates[300] == max(rates)
    assert rates[300] == pytest.approx(1e-3)
    assert rates[-1] < 1e-8
    assert np.all(np.diff(rates[:301]) > 0)
    assert np.all(np.diff(rates[300:]) < 0)


def test_linear_decay_falls_from_its_share_of_training_to_zero():
    assert [linear_decay(step, 10, 3, 0.5) for step in range(11)] == pytest.approx([3] * 6 + [2.4, 1.8, 1.2, 0.6, 0])
    assert [linear_decay(step, 4, 1, 0) for step in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert linear_decay(9, 10, 3, 1) == 3
