"""Question 3: the objective, the label leak, resume, the script end to end, bad input."""

import contextlib
import json
import math
from functools import partial

import pandas as pd
import pytest
import torch
from no_host import NoHost

import q3_vae_svm as q3
from common import own_data
from common.run import Guard, checkpoints, rng_for, run
from common.run.graphs import Graphed, adam
from common.vae.network import VAE

SCRIPT = "q3_vae_svm.py"
FIGURES = {f"{name}.png" for name in ("elbo", "reconstructions", "samples", "latents", "accuracy", "confusion")}


@pytest.fixture
def small(monkeypatch, small_data):
    """The script on 240 training and 120 test images."""
    monkeypatch.setattr(own_data, "load_fashion_mnist", small_data)


def tiny(out, **changes):
    settings = {"epochs": 2, "batch_size": 50, "width": 2, "latent_dim": 4, "label_sizes": (20, 100), "draws": 2}
    return q3.Config(**{**settings, "projection": "pca", "quality_samples": 0, "out": out, **changes})


def newest(folder):
    return checkpoints.load(checkpoints.listing(folder / "checkpoints")[-1])


def same(a, b):
    """Whether two nests of dicts, lists, tensors and values are equal bit for bit, times aside."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a.equal(b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b)


def dies_after(n, function):
    """The function for `n` calls, then Ctrl-C."""
    calls = []

    def dies(*arguments, **constants):
        calls.append(1)
        if len(calls) > n:
            raise KeyboardInterrupt
        return function(*arguments, **constants)

    return dies


def test_negative_elbo_is_an_upper_bound_on_the_exact_negative_log_likelihood():
    """With a linear Gaussian decoder p(x) is known; the bound holds and is tight at the true posterior."""
    torch.manual_seed(0)
    d, pixels, sigma = 2, 784, 0.5
    basis = torch.randn(pixels, d, dtype=torch.float64) / pixels**0.5

    class Linear(VAE):
        def encode(self, x):
            precision = torch.eye(d).double() + basis.T @ basis / sigma**2
            mean = x.flatten(1) @ basis @ torch.linalg.inv(precision) / sigma**2
            return mean + self.shift, torch.linalg.inv(precision).diagonal().log().expand(len(x), d)

        def decode(self, z):
            return (z @ basis.T).view(-1, 1, 28, 28)

    basis, _ = torch.linalg.qr(basis)  # orthogonal columns, so the true posterior has a diagonal covariance
    vae = Linear(d, 1)
    x = torch.randn(1, 1, 28, 28, dtype=torch.float64).expand(20_000, -1, -1, -1)
    covariance = basis @ basis.T + sigma**2 * torch.eye(pixels)
    exact = -torch.distributions.MultivariateNormal(torch.zeros(pixels).double(), covariance).log_prob(x[:1].flatten(1))
    noise = torch.randn(len(x), d, dtype=torch.float64)
    vae.shift = 0.0
    assert q3.negative_elbo(vae, x, noise, sigma)["negative_elbo"].item() == pytest.approx(exact.item(), abs=0.03)
    vae.shift = 0.5
    assert q3.negative_elbo(vae, x, noise, sigma)["negative_elbo"].item() > exact.item() + 0.5


def test_gradients_of_the_objective_agree_with_finite_differences():
    torch.manual_seed(0)
    vae = VAE(3, 2).double()
    x, noise = torch.rand(4, 1, 28, 28, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    q3.negative_elbo(vae, x, noise, 0.1)["negative_elbo"].backward()
    for parameter in (vae.encoder[0].weight, vae.encoder[-1].weight, vae.decoder[0].weight):
        index = int(parameter.grad.abs().argmax())
        flat, h, values = parameter.data.view(-1), 1e-6, []
        for shift in (h, -2 * h):
            flat[index] += shift
            values.append(q3.negative_elbo(vae, x, noise, 0.1)["negative_elbo"].item())
        flat[index] += h
        slope = (values[0] - values[1]) / (2 * h)
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-5)


def test_active_units_count_latents_whose_mean_varies():
    means = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.3, 0.09, 0.0, 0.2])
    assert q3.active_units(means) == 3


def step_inputs(n=6):
    images = torch.randint(256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return images, *q3.draw_inputs(n, torch.Generator().manual_seed(2), tiny("unused"))


def test_step_never_waits_for_the_device_and_makes_no_tensor_of_python_numbers():
    torch.manual_seed(0)
    vae, guard = VAE(4, 2), Guard("cpu", deferred=True)
    step = partial(q3.train_step, vae, adam(vae.parameters(), lr=1e-3), guard, 0.1)
    step(*step_inputs())  # the optimizer's first step makes its state
    with NoHost() as mode:
        step(*step_inputs())
    assert mode.calls > 50


def test_deferred_steps_equal_immediate_ones_bit_for_bit():
    found = []
    for deferred in (False, True):
        torch.manual_seed(0)
        vae, guard = VAE(4, 2), Guard("cpu", deferred=deferred)
        optimizer = adam(vae.parameters(), lr=1e-3)
        step = Graphed(partial(q3.train_step, vae, optimizer, guard, 0.1), (vae, optimizer), guard)
        losses = [step(*step_inputs()) for _ in range(5)]
        guard.check()
        found.append([*(loss.detach() for parts in losses for loss in parts.values()), *vae.state_dict().values()])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))


def test_each_image_is_moved_and_mirrored_by_its_own_draw():
    images = torch.zeros(4000, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 10, 5] = 200
    offsets, mirrored, _ = q3.draw_inputs(4000, torch.Generator().manual_seed(0), tiny("unused"))
    moved = q3.augmented(images, offsets, mirrored)
    where = moved.squeeze(1).nonzero()
    assert len(where) == 4000
    assert moved.dtype == torch.uint8
    rows, columns = where[:, 1], where[:, 2]
    assert sorted(rows.unique().tolist()) == [8, 9, 10, 11, 12]
    assert sorted(columns.unique().tolist()) == [3, 4, 5, 6, 7, 20, 21, 22, 23, 24]
    counts = torch.stack([rows * 28 + columns]).unique(return_counts=True)[1]
    assert len(counts) == 50
    assert counts.min() > 30  # 80 expected of each, standard deviation 9
    assert counts.max() < 130


def test_without_augmentation_no_image_changes():
    offsets, mirrored, _ = q3.draw_inputs(9, torch.Generator().manual_seed(0), tiny("unused", augment=False))
    assert not offsets.any()
    assert not mirrored.any()


def test_test_figures_are_means_over_images_whatever_the_chunks(small_data):
    """1,100 images pass in chunks of 1,000 and 100; the mean is over images, not over chunks."""
    torch.manual_seed(0)
    vae, config = VAE(4, 2), tiny("unused")
    images = small_data("train").images.repeat(5, 1, 1, 1)[:1100]
    found = q3.evaluate(vae, images, rng_for(0, "e", 0), config)
    vae.eval()
    with torch.no_grad():
        noise = torch.randn(1100, 4, generator=rng_for(0, "e", 0))
        expected = q3.negative_elbo(vae, q3.prepare(images), noise, config.sigma)
    assert found["test_negative_elbo"] == pytest.approx(expected["negative_elbo"].item(), rel=1e-5)
    assert found["test_negative_elbo"] == pytest.approx(found["test_reconstruction"] + found["test_kl"])


# 5 steps an epoch: start, middle and end of the first epoch, start of the second, among the SVMs.
@pytest.mark.parametrize("stop", ["step 0", "step 2", "step 4", "step 5", "draw 3"])
def test_resumed_run_equals_an_unbroken_one_bit_for_bit(small, tmp_path, monkeypatch, stop):
    q3.main(tiny(tmp_path / "a"))
    config, (kind, number) = tiny(tmp_path / "b"), stop.split()
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        name = {"step": "train_step", "draw": "classify"}[kind]
        patch.setattr(q3, name, dies_after(int(number), getattr(q3, name)))
        with pytest.raises(KeyboardInterrupt):
            q3.main(config)
    q3.main(config)
    assert same(newest(tmp_path / "a"), newest(tmp_path / "b"))
    for name in ("metrics.csv", "accuracy.csv", "accuracy_draws.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_finished_run_is_reused_without_training_or_fitting(small, tmp_path, monkeypatch, capsys):
    q3.main(tiny(tmp_path))
    out = capsys.readouterr().out
    assert "holds this run, finished" not in out
    first = out.splitlines()[-8:]
    assert any("raw pixels" in line for line in first)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(q3, "train_step", never)
    monkeypatch.setattr(q3, "classify", never)
    (tmp_path / "elbo.png").unlink()
    q3.main(tiny(tmp_path))
    second = capsys.readouterr().out.splitlines()
    assert second[-8:] == first
    assert "holds this run, finished" in second[0]
    assert (tmp_path / "elbo.png").exists()


@pytest.mark.parametrize("stop", [3, 1000])
def test_run_on_another_device_continues_amid_its_svms_and_when_finished(small, tmp_path, monkeypatch, stop):
    """The device is a stand-in whose tensors have no values: whatever a checkpoint kept must not be moved there."""
    q3.main(tiny(tmp_path / "a"))
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(q3, "classify", dies_after(stop, q3.classify))
        q3.main(tiny(tmp_path / "b"))
    monkeypatch.setattr(run, "resolve_device", lambda _: torch.device("meta"))
    monkeypatch.setattr(run.Run, "rng", lambda self, stream, step: rng_for(self.config.seed, stream, step))
    q3.main(tiny(tmp_path / "b"))
    for name in ("metrics.csv", "accuracy.csv", "accuracy_draws.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_more_draws_are_added_to_a_finished_run(small, tmp_path):
    q3.main(tiny(tmp_path / "a", draws=2))
    q3.main(tiny(tmp_path / "a", draws=3))
    q3.main(tiny(tmp_path / "b", draws=3))
    tables = [pd.read_csv(tmp_path / name / "accuracy_draws.csv") for name in ("a", "b")]
    keys = ["method", "size", "draw"]
    assert tables[0].sort_values(keys, ignore_index=True).equals(tables[1].sort_values(keys, ignore_index=True))
    tensors = [newest(tmp_path / name)["tensors"] for name in ("a", "b")]
    assert tensors[0]["confusion_20"].equal(tensors[1]["confusion_20"])


def test_script_end_to_end(script, tmp_path):
    flags = ["--epochs", 1, "--batch-size", 1000, "--width", 2, "--latent-dim", 4, "--label-sizes", 20, 100]
    flags += ["--draws", 3, "--projection", "pca", "--quality-samples", 30]
    done = script(SCRIPT, *flags, "--out", tmp_path)
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} >= FIGURES
    metrics, draws = pd.read_csv(tmp_path / "metrics.csv"), pd.read_csv(tmp_path / "accuracy_draws.csv")
    assert {"negative_elbo", "reconstruction", "kl", "test_negative_elbo", "active_units"} <= set(metrics.columns)
    assert math.isfinite(metrics["test_negative_elbo"][0])
    table = pd.read_csv(tmp_path / "accuracy.csv")
    assert table["method"].tolist() == ["VAE means"] * 2 + ["raw pixels"] * 2
    table = table[table["method"] == "VAE means"].set_index("size")
    assert table.loc[100, "reference"] == 0.570
    assert table.loc[100, "n"] == 3
    of_100 = draws[(draws["size"] == 100) & (draws["method"] == "VAE means")]["accuracy"]
    assert table.loc[100, "mean"] == pytest.approx(of_100.mean())
    assert table.loc[100, "std"] == pytest.approx(of_100.std(ddof=1))
    assert 0.25 < table.loc[100, "mean"] < 0.8
    assert json.loads((tmp_path / "config.json").read_text())["label_sizes"] == [20, 100]
    assert f"{table.loc[100, 'mean']:.4f}" in done.stdout
    quality = pd.read_csv(tmp_path / "quality.csv")
    assert quality["epoch"].tolist() == [1]
    assert quality["frechet_std"][0] > 0


@pytest.mark.parametrize("flags, said", [
    (["--epochs", "0"], "--epochs: 0 is not possible"),
    (["--batch-size", "59999"], "--batch-size: 59999 is not possible; it takes a size that does not leave one image"),
    (["--epochs", "x"], "--epochs: invalid int value"),
    (["--latent-dim", "-3"], "--latent-dim: -3"),
    (["--label-sizes", "105"], "--label-sizes: 105 is not possible; it takes multiples of ten"),
    (["--label-sizes", "90000"], "--label-sizes: 90000"),
    (["--label-sizes"], "--label-sizes: no size"),
    (["--device", "tpu"], "--device"),
    (["--lr", "nan"], "--lr: nan"),
    (["--epoch", "3"], "perhaps --epochs?"),
    (["--quality-samples", "9"], "--quality-samples: 9"),
])  # fmt: skip
def test_bad_input_is_one_line(refuses, tmp_path, flags, said):
    refuses(SCRIPT, [*flags, "--out", tmp_path / "run"], said)
    assert not (tmp_path / "run").exists()


def test_out_on_a_file_is_refused_and_the_file_kept(refuses, tmp_path):
    (tmp_path / "notes").write_text("precious")
    refuses(SCRIPT, ["--out", tmp_path / "notes"], "--out")
    assert (tmp_path / "notes").read_text() == "precious"


def test_help_names_every_flag_with_default_and_examples(script):
    done = script(SCRIPT, "--help")
    assert done.returncode == 0
    for flag in q3.Config.__dataclass_fields__:
        assert f"--{flag.replace('_', '-')}" in done.stdout
    assert done.stdout.count("python q3_vae_svm.py") == 2
    assert "(default: 15)" in done.stdout
