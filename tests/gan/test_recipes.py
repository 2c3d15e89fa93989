"""The recipes of question 4 and the DCGAN's schedule."""

import itertools
import json
from pathlib import Path

import pytest

import q4_dcgan
import q4_wgan_gp
from common.gan.recipes import moment
from common.run import Run
from common.run.cli import configured
from common.run.identity import differences

ROOT = Path(__file__).resolve().parents[2]

DCGAN = q4_dcgan.Config()


def test_schedule_of_the_defaults_is_this_table():
    """Of 36,000 steps with a batch: what holds from which step on, learning rates aside."""
    rows = [moment(DCGAN, step / 36_000)[2:] for step in range(36_000)]
    found = {step: rows[step] for step in range(36_000) if step == 0 or rows[step] != rows[step - 1]}
    assert found == {  # max_shift, echo, lookahead, ema_warm_up
        0: (0, 1, 1.0, 20),
        2_400: (0, 1, 0.5, 20),
        7_200: (1, 1, 0.5, 20),
        12_000: (1, 2, 0.5, 20),
        24_000: (1, 2, 0.5, 10),
    }


def test_learning_rates_are_equal_first_then_apart_and_fall_to_zero():
    rates = [moment(DCGAN, step / 1000)[:2] for step in range(1000)]
    assert rates[0] == rates[199] == (2e-3, 2e-3)
    assert all(g == d for g, d in rates[:334])
    assert all(d == pytest.approx(0.75 * g) for g, d in rates[334:])
    assert all(earlier[0] > later[0] for earlier, later in itertools.pairwise(rates[200:]))
    assert rates[-1][0] == pytest.approx(2e-3 / 800)


def test_papers_schedule_is_constant():
    config = configured(q4_dcgan.Config, q4_dcgan.RECIPES, recipe="papers")
    moments = {moment(config, step / 1000)[:5] for step in range(1000)}
    assert {(m[0], m[1], m[2], m[3]) for m in moments} == {(2e-4, 2e-4, 0, 1)}
    assert (config.batch_size, config.beta1, config.discriminator_width, config.lookahead) == (50, 0.5, 64, 0)
    wgan = configured(q4_wgan_gp.Config, q4_wgan_gp.RECIPES, recipe="papers")
    assert (wgan.lr, wgan.critic_steps, wgan.batch_size, wgan.decay_from) == (1e-4, 5, 50, 1.0)


@pytest.mark.parametrize("module", [q4_dcgan, q4_wgan_gp], ids=lambda module: module.__name__)
def test_committed_configurations_are_those_of_today_under_their_former_names(module):
    for path in ROOT.glob("outputs/reference/**/config.json"):
        found = json.loads(path.read_text())
        if found["script"] == module.__name__:
            recipe = "papers" if "paper" in path.parent.name else "ours"
            changes = {"seed": found["seed"], "precision": found["precision"]}
            run = Run(configured(module.Config, module.RECIPES, recipe=recipe, **changes), module.__name__)
            assert recipe == "papers" or differences(found, run.identity) == ""
