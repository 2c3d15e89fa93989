"""What trains behind the live page: the script's run until a setting is changed, inputs checked like flags."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import q2_gan_lab
from common.plane import live, live_page, live_save, results
from common.plane.live import Lab, Script, command
from common.plane.live_save import saving
from common.plane.recipes import LABS, RECIPES
from common.plane.targets import PATH_POINTS, along, target_of
from common.run import Run
from common.run.cli import BadInput, TrainingFailed, parse

SCRIPT = Script(
    q2_gan_lab.players,
    q2_gan_lab.set_learning_rates,
    q2_gan_lab.discriminator_turn,
    q2_gan_lab.generator_turn,
    q2_gan_lab.generator_loss,
)
SIZES = {"batch_size": 16, "generator_width": 8, "generator_depth": 2, "discriminator_width": 8}
SIZES |= {"discriminator_depth": 2, "eval_samples": 1000, "transport_samples": 50, "evaluate_every": 4}


@pytest.fixture
def lab(tmp_path):
    made = Lab(q2_gan_lab.Config(live=True, out=tmp_path / "run", **SIZES), SCRIPT)
    yield made
    made.close()


def weights(lab):
    return {
        part: [p.detach().clone() for p in getattr(lab.networks, part).parameters()]
        for part in ("generator", "discriminator", "average")
    }


def changed(before, after):
    return {part for part in before if not all(map(torch.equal, before[part], after[part]))}


@pytest.mark.parametrize("loss", [pytest.param("gan", marks=pytest.mark.slow), "wgan-gp"])
def test_what_nobody_touched_is_saved_as_the_headless_run_bit_for_bit(tmp_path, loss):
    """Half the iterations phase by phase; looking and measuring in between changes nothing."""
    lab = Lab(q2_gan_lab.Config(live=True, loss=loss, seed=3, out=tmp_path / "run", **SIZES), SCRIPT)
    for k in range(10):
        if k % 2:
            assert [lab.half_step(), lab.half_step()] == ["discriminator", "generator"]
        else:
            lab.step()
        lab.look(averaged=True)
        lab.measure()
    folder, repeat = saving(lab)()
    assert folder.parent == tmp_path / "run_live"
    found = parse(q2_gan_lab.Config, "", shlex.split(repeat)[2:], RECIPES)
    assert (found.iterations, found.seeds, found.seed, found.loss) == (10, 1, 3, loss)
    q2_gan_lab.main(found)
    for name in ("metrics.csv", "floors.csv", "config.json", "answers.csv", "snapshot.png", "training.html"):
        assert (folder / name).read_bytes() == (found.out / name).read_bytes(), name
    networks = lab.networks
    lab.close()
    with Run(replace(found, out=folder), "q2_gan_lab", **q2_gan_lab.players(found)._asdict()) as run:
        assert run.step == 10
        for name, state in networks._asdict().items():
            torch.testing.assert_close(run.state[name].state_dict(), state.state_dict(), rtol=0, atol=0)
    assert not (folder / "changes.csv").exists()


def test_a_changed_run_lists_its_changes_and_keeps_no_checkpoint(lab):
    lab.step()
    lab.turn("lr", "0.01")
    lab.step_alone("generator")
    lab.step()
    folder, repeat = saving(lab)()
    assert (folder / "changes.csv").read_text() == "iteration,what,value\n1,lr,0.01\n1,only the generator,one turn\n"
    assert not (folder / "checkpoints").exists()
    assert "--lr 0.01" in repeat


def test_two_saves_within_a_second_have_two_folders(lab, monkeypatch):
    monkeypatch.setattr(live_save.time, "strftime", lambda form: "2026-01-01_00-00-00")
    lab.step()
    folders = [live_save.saving(lab)()[0] for _ in range(2)]
    assert [folder.name for folder in folders] == ["2026-01-01_00-00-00", "2026-01-01_00-00-00_2"]
    assert (folders[0] / "metrics.csv").read_bytes() == (folders[1] / "metrics.csv").read_bytes()


def test_nothing_trained_is_not_saved(lab):
    with pytest.raises(BadInput, match="play first"):
        saving(lab)


def test_a_turn_of_one_changes_that_one_alone(lab):
    before = weights(lab)
    lab.step_alone("discriminator")
    between = weights(lab)
    assert changed(before, between) == {"discriminator"}
    lab.step_alone("generator")
    assert changed(between, weights(lab)) == {"generator", "average"}
    assert lab.iteration == 0


@pytest.mark.parametrize("name, value", [
    ("target", "grid"), ("loss", "least-squares"), ("lr", "0.5"), ("generator_lr", "1e-3"), ("optimizer", "sgd"),
    ("discriminator_steps", "1"), ("generator_steps", "2"), ("batch_size", "8"),
])  # fmt: skip
def test_what_can_change_while_it_trains_leaves_the_weights_and_acts(lab, name, value):
    lab.step()
    before = weights(lab)
    kept = getattr(lab.config, name)
    lab.turn(name, value)
    assert changed(before, weights(lab)) == set()
    assert lab.iteration == 1
    assert str(getattr(lab.config, name)) in (value, "0.001")
    assert [what for _, what, _ in lab.changes] == ([name] if getattr(lab.config, name) != kept else [])
    lab.step()
    assert changed(before, weights(lab)) == {"generator", "discriminator", "average"}
    if name == "optimizer":
        assert isinstance(lab.networks.generator_optimizer, torch.optim.SGD)
    if name == "lr":
        assert lab.networks.discriminator_optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name, value", [
    ("seed", "7"), ("noise", "uniform"), ("noise_dim", "1"), ("generator_width", "5"), ("generator_depth", "1"),
    ("discriminator_width", "5"), ("discriminator_depth", "1"), ("recipe", "ganlab"),
])  # fmt: skip
def test_what_needs_other_networks_starts_anew_as_the_script_does(lab, name, value):
    lab.step()
    lab.turn(name, value)
    assert (lab.iteration, lab.losses, lab.changes) == (0, [], [])
    assert str(getattr(lab.config, name)) == value
    fresh = q2_gan_lab.players(lab.config)
    assert all(map(torch.equal, lab.networks.generator.parameters(), fresh.generator.parameters()))
    lab.step()
    assert [len(line) for line in lab.manifold(averaged=True)] == [16] * (1 if name == "noise_dim" else 32)


def test_the_recipe_ganlab_is_that_of_the_target(lab):
    lab.turn("target", "disjoint")
    lab.turn("recipe", "ganlab")
    page = LABS["disjoint"]
    assert (lab.config.lr, lab.config.generator_width, lab.config.noise) == (page.lr, page.generator_width, page.noise)


@pytest.mark.parametrize("name, value, said", [
    ("lr", "1e9", "--lr: 1000000000.0 is not possible; it takes a number from 1e-09 to 100"),
    ("lr", "nan", "--lr: nan is not possible; it takes a number from 1e-09 to 100"),
    ("lr", "quick", "--lr: 'quick' is not possible; it takes a number"),
    ("generator_width", "1e3", "--generator-width: '1e3' is not possible; it takes a whole number"),
    ("generator_width", "4000", "--generator-width: 4000 is not possible; it takes a number from 1 to 256"),
    ("batch_size", "1", "--batch-size: 1 is not possible; it takes a number from 2 to 2048"),
    ("loss", "all", "--loss: 'all' is not possible; it takes gan or least-squares or wgan-gp"),
    ("target", "all", "--target: the page trains one GAN"),
    ("target", "/etc/passwd", "--target: /etc/passwd is not possible; it takes line, gaussians"),
    ("target", "/tmp/x.csv", "--target: draw a target, or start the page with --target FILE.csv"),
    ("noise_dim", "3", "--noise-dim: '3' is not possible; it takes 1 or 2"),
    ("recipe", "theirs", "--recipe: 'theirs' is not possible"),
    ("out", "/tmp/elsewhere", "'out' cannot be set here"),
    ("device", "cuda", "'device' cannot be set here"),
])  # fmt: skip
def test_what_is_not_possible_is_one_line_and_changes_nothing(lab, name, value, said):
    before = lab.config
    with pytest.raises(BadInput) as fault:
        lab.turn(name, value)
    assert str(fault.value).startswith(said)
    assert "\n" not in str(fault.value)
    assert lab.config == before


def test_losses_that_become_nan_stop_with_a_sentence_and_keep_the_weights(lab):
    lab.step()
    before = weights(lab)
    with torch.no_grad():
        lab.networks.discriminator.layers.biases[-1].fill_(float("nan"))
    with pytest.raises(TrainingFailed):
        lab.step()
    assert "iteration 1: not finite" in lab.fault
    assert changed(before, weights(lab)) == {"discriminator"}
    lab.restart()
    assert lab.fault is None
    lab.step()


# A drawn target.


def test_a_drawing_becomes_a_density_along_it_with_floors_of_its_own(lab):
    x = np.linspace(0.2, 0.8, 37)
    lab.draw([np.stack([x, 0.5 + 0 * x], 1).tolist()])
    sample = lab.target.sample(5000, torch.Generator().manual_seed(0))
    assert float(sample[:, 0].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(sample[:, 0].std()) == pytest.approx((0.6**2 / 12) ** 0.5, rel=0.05)
    assert float(sample[:, 1].std()) == pytest.approx(0.02, rel=0.1)
    assert lab.measure_floor()
    ring = Lab(q2_gan_lab.Config(**SIZES), SCRIPT)
    assert ring.measure_floor()
    assert lab.floors != ring.floors
    ring.close()
    lab.step()
    folder, repeat = saving(lab)()
    assert target_of(str(folder / "target.csv")).parts == PATH_POINTS
    found = parse(q2_gan_lab.Config, "", shlex.split(repeat)[2:], RECIPES)
    assert found.target == str(folder / "target.csv")
    q2_gan_lab.main(found)
    for name in ("metrics.csv", "floors.csv", "config.json", "answers.csv", "training.html"):
        assert (folder / name).read_bytes() == (found.out / name).read_bytes(), name
    assert (folder / "checkpoints").exists()


def test_points_are_equally_far_apart_along_all_strokes():
    found = along([[[0.1, 0.1], [0.1, 0.1], [0.4, 0.1]], [[0.5, 0.5], [0.5, 0.6]], [[0.9, 0.9]]])
    assert len(found) == PATH_POINTS
    steps = np.linalg.norm(np.diff(found, axis=0), axis=1)
    assert np.sort(steps)[:-1].max() < 1.05 * np.sort(steps)[0]


@pytest.mark.parametrize("strokes, said", [
    ([], "the drawing: it has no length"),
    ([[[0.5, 0.5]]], "the drawing: it has no length"),
    ([[[0.5, 0.5]] * 50], "the drawing: it has no length"),
    ([[[0.5, 0.5]] * 1_000_000], "the drawing: more than 20,000 points are not possible"),
    ([[[0.5, 0.5], [1.5, 0.5]]], "the drawing: the point 1.5, 0.5 is outside the unit square"),
    ([[[0.5, 0.5], [float("nan"), 0.5]]], "the drawing: the point nan, 0.5 is outside"),
    ([[["a", "b"], ["c", "d"]]], "the drawing: a stroke is no list of points"),
    ([[[0.5], [0.2, 0.1]]], "the drawing: a stroke is no list of points"),
])  # fmt: skip
def test_a_drawing_that_is_none_is_one_line_and_changes_nothing(lab, strokes, said):
    before = lab.config
    with pytest.raises(BadInput) as fault:
        lab.draw(strokes)
    assert str(fault.value).startswith(said)
    assert lab.config == before


@pytest.mark.parametrize("text, said", [
    ("", "0 points are not possible; it takes from 2 to 2,000"),
    ("x,y\n0.1,0.2\n", "1 points are not possible"),
    ("0.1,0.2\n" * 3000, "3,000 points are not possible"),
    ("0.1,0.2\n0.3,7\n", "the point 0.3, 7 is outside the unit square"),
    ("0.1,0.2\n0.3\n", "line 2 is no point x,y: '0.3'"),
    (None, "No such file or directory"),
])  # fmt: skip
def test_a_file_of_points_that_is_none_is_one_line(tmp_path, text, said):
    path = tmp_path / "points.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput) as fault:
        q2_gan_lab.Config(target=str(path))
    assert said in str(fault.value)
    assert str(path) in str(fault.value)


def test_the_script_learns_points_from_a_file(tmp_path):
    (tmp_path / "points.csv").write_text("x,y\n" + "".join(f"{k / 10},{0.5}\n" for k in range(2, 9)))
    config = q2_gan_lab.Config(
        target=str(tmp_path / "points.csv"), iterations=4, seeds=1, out=tmp_path / "run", **SIZES
    )
    q2_gan_lab.main(config)
    assert (tmp_path / "run" / "training.html").exists()


# What is said and shown.


def test_sentences_are_those_of_the_script(lab):
    assert live_page.sentences(lab)[0].startswith("Measuring real samples")
    for _ in range(3):
        lab.measure_floor()
    row = lab.measure()
    said = live_page.sentences(lab)
    floor = lab.floor("optimal_accuracy")[0]
    assert results.said_of_accuracy(row["accuracy"], row["optimal_accuracy"], floor, live.EVAL_SAMPLES) in said
    assert any("when it was first measured" in sentence for sentence in said)
    assert any("differs from the optimum" in sentence for sentence in said)


def test_the_command_names_what_differs_from_the_defaults():
    assert command(q2_gan_lab.Config()) == "python q2_gan_lab.py"
    config = q2_gan_lab.Config(betas=(0.5, 0.9), out=Path("a b"), seed=4, live=True)
    assert command(config) == "python q2_gan_lab.py --betas 0.5 0.9 --seed 4 --out 'a b'"
