"""The networks on two lines, and the script of Q1 from the command line to its tables and figures."""

import math
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from stand_in import NoFloat64OnDevice
from torch.nn import functional as F

import q1_divergences as q1
from common.lines import best_critic, exact, summary, tables
from common.lines import networks as nets
from common.lines.networks import training_bytes
from common.run import Run, memory
from common.run.cli import BadInput, launch

SMALL = ["--n-samples", 300, "--repeats", 20, "--seeds", 2, "--steps", 150, "--lr", 5e-3, "--generator-steps", 8]
FIGURES = {"setup", "divergences", "relaxations", "finite_samples", "learned", "descent"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Networks side by side.


def test_networks_are_independent_and_what_they_say_they_are():
    networks = nets.Networks(3, 8, generator())
    points = torch.randn(3, 5, 2, generator=generator(1))
    outputs = networks(points)
    for i in range(3):
        x = points[i]
        for layer, (weight, bias) in enumerate(zip(networks.weights, networks.biases, strict=True)):
            x = (F.leaky_relu(x, 0.2) if layer else x) @ weight[i] + bias[i]
        torch.testing.assert_close(outputs[i], x[:, 0])
    outputs[1].sum().backward()
    touched = [weight.grad.abs().sum((1, 2)) > 0 for weight in networks.weights]
    assert all(t.tolist() == [False, True, False] for t in touched)
    for weight, inputs in zip(networks.weights, (2, 8, 8), strict=True):
        assert 0.5 < weight.detach().abs().max() * math.sqrt(inputs) <= 1


def test_points_lie_on_the_line_of_their_network():
    points = nets.draw(torch.tensor([0.0, 0.7]), 1000, generator())
    assert points.shape == (2, 1000, 2)
    np.testing.assert_allclose(points[..., 0].unique().tolist(), [0, 0.7])
    assert points[..., 1].min() >= 0
    np.testing.assert_allclose(points[..., 1].mean(1), 0.5, atol=0.04)
    assert not torch.equal(points[0, :, 1], points[1, :, 1])


def test_js_bound_is_js_for_the_best_discriminator_and_less_for_another():
    width, theta = 0.5, 0.2  # two strips: they overlap, so the best discriminator is neither blind nor perfect
    x = torch.rand(2, 1, 100_000, generator=generator())
    real, fake = (torch.stack([width * side + shift, side], -1) for side, shift in ((x[0], 0), (x[1], theta)))

    def best(points, overlap=0.0):
        x = points[..., 0]
        return torch.where(x < theta, 30.0, torch.where(x > width, -30.0, overlap))

    bound = nets.js_bound(best, real, fake)
    assert bound.shape == (1,)
    assert bound.item() == pytest.approx(exact.strips_js(theta, width), abs=0.005)
    worse = nets.js_bound(lambda points: best(points, 1.0), real, fake)
    assert worse.item() < bound.item() - 0.02
    blind = nets.js_bound(lambda points: 0 * points[..., 0], real, fake)
    assert blind.item() == pytest.approx(0, abs=1e-6)


def test_critic_loss_of_linear_critics_and_the_best_one_overshoots():
    theta, weight = 0.6, 10.0
    x = torch.full((41,), theta)
    real, fake = nets.draw(0 * x, 64, generator()), nets.draw(x, 64, generator(1))
    slope = torch.linspace(0.9, 1.1, 41)

    def critic(points):
        return -slope[:, None] * points[..., 0]

    loss = nets.critic_loss(critic, real, fake, weight, generator())
    torch.testing.assert_close(loss, weight * (slope - 1) ** 2 - slope * theta)
    difference = nets.critic_difference(critic, real, fake)
    torch.testing.assert_close(difference, slope * theta)
    best = difference[loss.argmin()].item()
    assert best == pytest.approx(best_critic.functions_of_x(theta, weight)[0], abs=1e-5)
    assert best > theta


def test_penalty_looks_at_points_between_the_lines():
    seen = []

    def critic(points):
        seen.append(points)
        return points[..., 0] ** 2

    real, fake = nets.draw(torch.zeros(1), 4000, generator()), nets.draw(torch.ones(1), 4000, generator(1))
    loss = nets.critic_loss(critic, real, fake, 3.0, generator(2))
    x = seen[0][..., 0]
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() <= 1
    assert x.unique().numel() > 3500  # each point has its own weight
    assert loss.item() == pytest.approx(3 / 3 + 1, abs=0.06)  # E (2x - 1)^2 = 1/3, E_Q f - E_P f = 1


@pytest.mark.parametrize("loss", nets.LOSSES)
def test_generator_slopes_are_the_derivatives_of_the_losses(loss):
    theta = torch.tensor([0.2, 0.9])

    def network(points):
        return 3 * (0.4 - points[..., 0])

    logit = 3 * (0.4 - theta)
    expected = {
        "minimax": 3 * torch.sigmoid(logit),  # of log(1 - D)
        "non-saturating": 3 * torch.sigmoid(-logit),  # of -log D
        "wasserstein": torch.full((2,), 3.0),
    }[loss]
    torch.testing.assert_close(nets.generator_slope(network, theta, loss, 16, generator()), expected)


# The script.


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    """The small run, and what it printed."""
    out = tmp_path_factory.mktemp("q1") / "run"
    return out, script("q1_divergences.py", *SMALL, "--theta", 0.35, "--out", out)


def test_the_script_answers(finished):
    out, process = finished
    assert (process.returncode, process.stderr) == (0, "")
    assert "\n(c) " in process.stdout
    tables = {part.__name__: pd.read_csv(out / f"{part.__name__}.csv") for part in q1.PARTS}
    assert {path.stem for path in out.glob("*.png")} == FIGURES

    exact_values = tables["answers"].groupby(["question", "divergence"], sort=False)["exact"].first()
    np.testing.assert_allclose(exact_values["a"], [np.inf, np.inf, math.log(2), 0.35], rtol=1e-6)
    np.testing.assert_array_equal(exact_values["b"], 0)
    assert set(tables["answers"]["theta"]) == {0, 0.35}
    near = tables["answers"].query("divergence == 'Wasserstein-1' and estimator == 'samples'")
    assert (near["error"].abs() < [0.005, 0.05]).all()

    assert list(tables["divergences"]["theta"]) == pytest.approx(sorted([*np.arange(11) / 10, 0.35]))
    assert len(tables["samples"]) == len(tables["learned"]) == 12 * 2
    assert tables["costs"]["difference"].abs().max() < 1e-9
    assert set(tables["costs"]["way"]) == {"sorted", "ot.emd2", "assignment"}
    assert not tables["divergences"].isna().any(axis=None)
    apart = tables["samples"].query("theta > 0")
    assert (apart[["kl", "reverse_kl"]] > 4).all(axis=None)
    assert (apart["kl"] != apart["reverse_kl"]).all()


def test_short_training_already_tells_the_distances_apart(finished):
    learned = pd.read_csv(finished[0] / "learned.csv")
    far, same = learned[learned["theta"] >= 0.3], learned[learned["theta"] == 0]
    assert far["discriminator"].between(0.65, math.log(2) + 1e-6).all()
    assert same["discriminator"].abs().max() < 0.05
    assert (far["critic"] - far["theta"]).abs().max() < 0.15
    assert far["slope_wasserstein"].between(0.8, 1.3).all()
    assert (far["slope_minimax"].abs() < 0.1 * far["slope_wasserstein"]).all()

    descent = pd.read_csv(finished[0] / "descent.csv")
    assert descent.groupby("loss").size().to_dict() == dict.fromkeys(nets.LOSSES, 2 * 9)
    for _, path in descent.groupby(["loss", "seed"]):
        assert path["theta"].iloc[0] == 1
        np.testing.assert_allclose(np.diff(path["theta"]), -q1.Config().generator_lr * path["slope"][:-1], atol=1e-6)


def test_the_animation_moves(finished):
    with Image.open(finished[0] / "descent.gif") as gif:
        assert gif.n_frames == 9
        frames = []
        for number in (0, 8):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    change = np.abs(frames[1] - frames[0]).max((0, 2))
    half = len(change) // 2
    assert min(change[:half].max(), change[half:].max()) > 50  # the lines on the left, the curves on the right


def test_the_same_command_again_only_draws_and_prints(finished, monkeypatch, capsys):
    out, first = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in (".csv", ".png", ".pt")}
    for figure in out.glob("*.png"):
        figure.unlink()
    monkeypatch.setattr("sys.argv", ["q1_divergences.py", *map(str, SMALL), "--theta", "0.35", "--out", str(out)])
    with pytest.raises(SystemExit, match="0"):
        launch(q1.Config, q1.main, q1.__doc__)
    assert {path: path.read_bytes() for path in before} == before  # `costs` holds times: measured again, they differ
    told, said = capsys.readouterr().out.split("\n\n", 1)
    assert "finished" in told
    assert said.strip() == first.stdout[first.stdout.index("     theta") :].strip()
    assert f"{out}. Open first: divergences.png" in said


def test_a_run_stopped_within_a_part_continues_to_the_same_tables(tmp_path, monkeypatch):
    """The same on a device without float64, and once more when it is finished."""

    def costs(config, run):
        yield {"way": "left out: its times differ from run to run"}

    def descent(config, run):
        yield next(q1.descent(config, run))
        run.save()  # as `stop_if_asked` does after a signal
        raise KeyboardInterrupt

    def run_main(name, parts):
        monkeypatch.setattr(q1, "PARTS", parts)
        flags = {"n_samples": 100, "repeats": 5, "seeds": 2, "steps": 10, "generator_steps": 2, "device": "cpu"}
        with NoFloat64OnDevice():
            q1.main(q1.Config(**flags, out=tmp_path / name))
        return {path.name: path.read_text() for path in (tmp_path / name).glob("*.csv")}

    monkeypatch.setattr(summary, "figures", MagicMock())
    parts = tuple({"costs": costs}.get(part.__name__, part) for part in q1.PARTS)
    whole = run_main("whole", parts)
    with pytest.raises(KeyboardInterrupt):
        run_main("stopped", tuple({"descent": descent}.get(part.__name__, part) for part in parts))
    assert (tmp_path / "stopped" / "learned.csv").exists()
    assert not (tmp_path / "stopped" / "descent.csv").exists()
    assert run_main("stopped", parts) == whole
    assert run_main("stopped", parts) == whole  # finished: it draws and prints
    assert len(whole) == len(parts)


def test_what_another_processor_must_reproduce():
    """Draws are equal bit for bit, so estimates from samples are equal to rounding: these are from an x86 processor."""
    run = SimpleNamespace(stop_if_asked=lambda: None, say=print)
    rows = [row for row in q1.samples(q1.Config(seeds=2), run) if row["theta"] == 0.5]
    assert [row["wasserstein"] for row in rows] == pytest.approx([0.5000281, 0.5000054], rel=1e-6)
    assert [row["kl"] for row in rows] == pytest.approx([15.42856, 15.39727], rel=1e-6)


def test_rounding_changes_what_networks_learn_but_not_its_distribution(tmp_path, monkeypatch):
    """Weights moved by a rounding, as another processor would: other last digits, within the spread over seeds."""
    config = q1.Config(
        theta=1.0, seeds=4, steps=25, width=16, lr=5e-3, n_samples=500, batch_size=64, device="cpu", out=tmp_path
    )

    def critics(nudge):
        def begin(*arguments):
            networks, train_step = original(*arguments)
            with torch.no_grad():
                for weight in networks.parameters():
                    weight.mul_(1 + nudge)
            return networks, train_step

        monkeypatch.setattr(q1, "begin", begin)
        run = Run(config, "q1_divergences")
        rows = pd.DataFrame(list(q1.learned(config, run)))
        return rows[rows["theta"] == 1]["critic"]

    original = q1.begin
    one, same, other = critics(0), critics(0), critics(2e-7)
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()
    assert abs(one.mean() - other.mean()) < 3 * math.hypot(one.std(), other.std()) / math.sqrt(config.seeds)


def test_long_work_tells_how_far_it_is_and_heeds_signals(monkeypatch):
    said, asked, clock = [], [], iter(range(0, 100, 2))
    monkeypatch.setattr(tables.time, "monotonic", lambda: next(clock))
    run = SimpleNamespace(stop_if_asked=lambda: asked.append(1), say=said.append)
    assert list(tables.pieces(run, "work", range(5))) == [0, 1, 2, 3, 4]
    assert len(asked) == 5
    assert said == ["work: 2 of 5"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--n-samples", 0], "--n-samples: 0"),
        (["--theta", 2], "--theta: 2.0"),
        (["--theta", 0], "--theta: 0.0"),
        (["--theta", "nan"], "--theta: nan"),
        (["--seeds", 0], "--seeds: 0"),
        (["--seeds", 1], "--seeds: 1"),
        (["--repeats", 1], "--repeats: 1"),
        (["--lr", "inf"], "--lr: inf"),
        (["--gradient-penalty", 0], "--gradient-penalty: 0.0"),
        (["--n-sample", 500], "--n-samples?"),
    ],
)
def test_bad_input_is_refused_in_one_line(refuses, tmp_path, flags, said):
    refuses("q1_divergences.py", [*flags, "--out", tmp_path / "run"], said)
    assert not (tmp_path / "run").exists()


def test_sizes_that_memory_does_not_allow_are_refused_with_sizes_that_fit(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3e9)
    flags = ["--width", 4096, "--seeds", 100, "--batch-size", 100_000, "--out", tmp_path / "run", "--device", "cpu"]
    refuses("q1_divergences.py", flags, "3.0 GB free) is not possible; it takes at most about --width 128 ")
    assert not (tmp_path / "run").exists()
    flags, cpu, default = ("width", "seeds", "batch_size"), torch.device("cpu"), q1.Config()
    memory.require_memory(default, training_bytes, flags, cpu)
    large = replace(default, width=8, seeds=2, batch_size=100_000)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0.7 * training_bytes(large))
    with pytest.raises(BadInput, match=r"--batch-size: 100000 .* at most about --batch-size 50000"):
        memory.require_memory(large, training_bytes, flags, cpu)
