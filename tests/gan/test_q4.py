"""Both GAN scripts: where gradients may go, sampling without side effects, resume, files, bad input."""

import contextlib
import copy
import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from stand_in import NoFloat64OnDevice

import q4_dcgan
import q4_wgan_gp
from common import figures, own_data
from common.data import draw_offsets, translate
from common.figures import tile
from common.gan import figures as gan_figures
from common.gan import generators, results
from common.gan.networks import Critic, Generator
from common.quality import classifier, copies, distances
from common.quality import figures as quality_figures
from common.run import Guard, checkpoints, run
from common.run.cli import BadInput
from studies import redraw

SCRIPTS = {"q4_dcgan": q4_dcgan, "q4_wgan_gp": q4_wgan_gp}
FIGURES = {"loss_curves.png", "real.png", "progress.png", "progress.gif", "interpolation.png"}


@pytest.fixture(params=SCRIPTS)
def drawing_module(request, monkeypatch, small_data):
    """A script that trains on 240 images, with few images in its grids and files."""
    script = SCRIPTS[request.param]
    for place in (results, own_data):
        monkeypatch.setattr(place, "load_fashion_mnist", small_data)
    monkeypatch.setattr(results, "GRID", 64)
    monkeypatch.setattr(results, "HELD_OUT", 100)
    monkeypatch.setattr(results, "STORED", 50)
    return script


@pytest.fixture
def module(drawing_module, monkeypatch):
    """The same without figures, which take most of the time of so short a run."""
    monkeypatch.setattr(figures, "image_grid", lambda *_: None)
    for name in ("progress", "progress_animation", "wgan_curves", "dcgan_curves"):
        monkeypatch.setattr(gan_figures, name, lambda *_: None)
    return drawing_module


@pytest.fixture
def small_reference(monkeypatch, small_data):
    """Samples are scored and compared against few images."""
    few = functools.cache(lambda split, device="cpu": classifier.embed(small_data(split).images))
    monkeypatch.setattr(classifier, "reference", few)
    monkeypatch.setattr(copies, "training_images", functools.cache(lambda: copies.Sources(small_data("train").images)))


def tiny(module, out, **changes):
    """Two epochs of 12 steps, the DCGAN's second of 24, width 2; nothing is measured unless asked for."""
    settings = {"epochs": 2, "batch_size": 20, "width": 2, "latent_dim": 5, "quality_samples": 0}
    if module is q4_wgan_gp:
        settings |= {"critic_steps": 5, "batch_norm": True, "self_modulation": 4}
    else:
        settings |= {"discriminator_width": 2, "lookahead": 5, "echo_from": 0.5}
    return module.Config(**{**settings, "out": out, **changes})


def newest(folder):
    return checkpoints.load(checkpoints.listing(folder / "checkpoints")[-1])


def same(a, b, times=("seconds", "measured_in")):
    """Whether two nests of dicts, lists, tensors and values are equal bit for bit, times aside."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in times)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a.equal(b) if isinstance(a, torch.Tensor) else a == b


def stop_at_call(monkeypatch, call):
    """Let the run die in its `call`-th check before an optimizer's step."""
    original, calls = Guard.step, []

    def check(*arguments, **losses):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **losses)

    monkeypatch.setattr(Guard, "step", check)


# 1: before anything; 4: inside the first group of critic steps; 15: about the epoch's end; 20: inside the second epoch.
@pytest.mark.parametrize("call", [1, 4, 15, 20])
def test_resumed_run_equals_an_unbroken_one_bit_for_bit(module, tmp_path, monkeypatch, call):
    """The last on a stand-in for a device without float64, which the CPU's run must equal."""
    module.main(tiny(module, tmp_path / "a"))
    config, device = tiny(module, tmp_path / "b"), NoFloat64OnDevice if call == 20 else contextlib.nullcontext
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        stop_at_call(patch, call)
        with pytest.raises(KeyboardInterrupt), device():
            module.main(config)
    for _ in ("continued", "finished"):
        with device():
            module.main(config)
    assert same(newest(tmp_path / "a"), newest(tmp_path / "b"))
    for name in ("losses.csv", "generator.pt", "samples.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_bfloat16_trains_nearly_alike_keeps_float32_weights_and_continues(module, tmp_path, monkeypatch):
    for name, changes in {"exact": {}, "half": {"precision": "bfloat16"}, "stopped": {"precision": "bfloat16"}}.items():
        config = tiny(module, tmp_path / name, lr=1e-4, **changes)
        if name == "stopped":
            with monkeypatch.context() as patch:
                patch.setattr(run, "CHECKPOINT_SECONDS", -1.0)
                stop_at_call(patch, 20)
                with pytest.raises(KeyboardInterrupt):
                    module.main(config)
        module.main(config)
    exact, half, stopped = (newest(tmp_path / name) for name in ("exact", "half", "stopped"))
    assert same(half, stopped)
    losses = [pd.DataFrame(content["tables"]["losses"])["generator"].to_numpy() for content in (exact, half)]
    assert 0 < np.abs(losses[0] - losses[1]).max() < 0.05
    stored = torch.load(tmp_path / "half" / "generator.pt", weights_only=True)
    assert {w.dtype for w in stored["raw"].values() if w.is_floating_point()} == {torch.float32}


def test_measured_run_that_is_resumed_equals_an_unbroken_one(module, small_reference, tmp_path, monkeypatch):
    """Stopped in the second epoch, after the first was measured: every row of quality.csv is the same, times aside."""
    module.main(tiny(module, tmp_path / "a", quality_samples=20))
    config = tiny(module, tmp_path / "b", quality_samples=20)
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        stop_at_call(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            module.main(config)
    module.main(config)
    assert same(newest(tmp_path / "a"), newest(tmp_path / "b"))
    for name in ("quality.png", "copies.png"):
        assert (tmp_path / "b" / name).stat().st_size > 0
    one, other = (pd.read_csv(tmp_path / name / "quality.csv") for name in "ab")
    assert one[["epoch", "weights"]].values.tolist() == [[e, w] for e in (1, 2) for w in ("raw", "averaged")]
    times = ["seconds", "measured_in"]
    pd.testing.assert_frame_equal(one.drop(columns=times), other.drop(columns=times), check_exact=True)
    assert one.drop(columns=times).notna().all().all()
    assert (one["frechet_std"] > 0).all()
    averaged = one[one["weights"] == "averaged"]
    assert (averaged["frechet"].to_numpy() != one[one["weights"] == "raw"]["frechet"].to_numpy()).all()


def test_measuring_changes_no_weight_and_is_not_training_time(module, small_reference, tmp_path):
    for name, n in (("a", 0), ("b", 20)):
        module.main(tiny(module, tmp_path / name, quality_samples=n))
    assert same(newest(tmp_path / "a")["state"], newest(tmp_path / "b")["state"])
    assert not (tmp_path / "a" / "quality.csv").exists()
    tables = newest(tmp_path / "b")["tables"]
    # The second epoch's row of metrics.csv is of the same moment; its seconds hold the first epoch's measurements.
    first, second = ([row for row in tables["quality"] if row["epoch"] == epoch] for epoch in (1, 2))
    spent = sum(row["measured_in"] for row in first)
    assert spent > 0
    assert [row["seconds"] for row in second] == pytest.approx([tables["metrics"][1]["seconds"] - spent] * 2, abs=1e-6)


def test_rows_of_quality_are_those_of_the_networks_on_noise_of_the_run(module, small_reference, tmp_path):
    """The last rows again, from the weights in generator.pt."""
    module.main(tiny(module, tmp_path, quality_samples=20, seed=3))
    rows = pd.read_csv(tmp_path / "quality.csv").set_index(["epoch", "weights"])
    stored = torch.load(tmp_path / "generator.pt", weights_only=True)
    generator = Generator(**stored["shape"]).eval()
    for weights in ("raw", "averaged"):
        generator.load_state_dict(stored[weights])
        noises = [torch.randn(20, 5, generator=run.rng_for(3, f"quality {i}", 0)) for i in range(3)]
        expected = [distances.score(generators.draw(generator, noise))["frechet"] for noise in noises]
        assert rows.loc[(2, weights), "frechet"] == pytest.approx(np.mean(expected), rel=1e-3)
        assert rows.loc[(2, weights), "frechet_std"] == pytest.approx(np.std(expected, ddof=1), rel=1e-2)


def test_the_end_is_measured_also_where_no_grid_is_drawn_and_where_training_measured_nothing(
    module, small_reference, tmp_path
):
    module.main(tiny(module, tmp_path / "a", quality_samples=20, sample_epochs=(1,)))
    assert pd.read_csv(tmp_path / "a" / "quality.csv")["epoch"].tolist() == [1, 1, 2, 2]
    module.main(tiny(module, tmp_path / "b"))
    module.main(tiny(module, tmp_path / "b", quality_samples=20))
    late = newest(tmp_path / "b")["tables"]["quality"]
    assert [row["epoch"] for row in late] == [2, 2]
    assert same(late, newest(tmp_path / "a")["tables"]["quality"][2:])
    assert (tmp_path / "b" / "quality.png").exists()


def test_copies_of_training_images_are_found_and_shown_beside_them(module, small_reference, tmp_path, monkeypatch):
    shown = {}
    names = ("samples", "nearest", "ratios", "threshold", "path")
    monkeypatch.setattr(quality_figures, "copies", lambda *given: shown.update(zip(names, given, strict=True)))
    training, held_out = (results.load_fashion_mnist(split).images for split in ("train", "test"))
    with run.Run(tiny(module, tmp_path), "test") as opened:
        results.compare_with_training_images(opened, training[30:80])
        rows = opened.rows("copies").set_index("images")
    assert shown["samples"].equal(shown["nearest"])
    assert len(shown["ratios"]["test images"]) == len(held_out) == rows.loc["test images", "n"]
    assert (rows.loc["samples", "n"], rows.loc["samples", "called_copies"]) == (50, 1)
    assert rows.loc["samples", "low"] < 1 == rows.loc["samples", "high"]


@pytest.mark.parametrize("left_out", ["average", "generator_optimizer", "step"])
def test_the_comparison_sees_a_checkpoint_that_leaves_something_out(module, tmp_path, monkeypatch, left_out):
    """Negative control: with an incomplete checkpoint the resumed run must differ."""
    module.main(tiny(module, tmp_path / "a"))
    config = tiny(module, tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(run, "CHECKPOINT_SECONDS", -1.0)
        stop_at_call(patch, 15)
        with pytest.raises(KeyboardInterrupt):
            module.main(config)
    load = checkpoints.load

    def incomplete(path):
        content = load(path)
        if left_out == "step":
            content["step"] -= 1
        elif left_out == "average":
            content["state"]["average"]["network"] = content["state"]["generator"]
        else:
            content["state"][left_out]["state"] = {}
        return content

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "load", incomplete)
        module.main(config)
    assert not same(newest(tmp_path / "a"), newest(tmp_path / "b"))


def test_selection_reads_no_test_image(module, tmp_path, monkeypatch, small_data):
    asked = []

    def only_for_choices(split, device="cpu"):
        asked.append(split)
        assert split in ("fit", "validation"), split
        return small_data("train" if split == "fit" else "test")

    for place in (results, own_data, classifier):
        monkeypatch.setattr(place, "load_fashion_mnist", only_for_choices)
    classifier.reference.cache_clear()
    module.main(tiny(module, tmp_path, quality_samples=20, selection=True))
    classifier.reference.cache_clear()
    assert set(asked) == {"fit", "validation"}
    assert not (tmp_path / "copies.csv").exists()


def test_two_runs_with_one_seed_are_equal_and_with_two_seeds_differ(module, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        module.main(tiny(module, tmp_path / name, seed=seed))
    state = {name: newest(tmp_path / name)["state"] for name in "abc"}
    assert same(state["a"], state["b"])
    assert not same(state["a"]["generator"], state["c"]["generator"])


def test_sampling_schedule_changes_no_weight_and_only_the_grids(module, tmp_path, monkeypatch):
    module.main(tiny(module, tmp_path / "a"))
    monkeypatch.setattr(results, "keep_samples", lambda *_: None)
    monkeypatch.setattr(results, "write_results", lambda *_: None)
    module.main(tiny(module, tmp_path / "b"))
    assert same(newest(tmp_path / "a")["state"], newest(tmp_path / "b")["state"])


def test_grids_of_a_finished_run_can_be_chosen_anew(drawing_module, tmp_path):
    module = drawing_module
    config = tiny(module, tmp_path)
    module.main(replace(config, sample_epochs=(2,)))
    assert not (tmp_path / "fake_epoch_01.png").exists()
    module.main(replace(config, sample_epochs=(1,)))
    assert (tmp_path / "fake_epoch_01.png").exists()


def test_run_writes_every_file(drawing_module, tmp_path):
    module = drawing_module
    module.main(tiny(module, tmp_path))
    present = {path.name for path in tmp_path.iterdir()}
    assert FIGURES | {"fake_epoch_01.png", "fake_epoch_02.png", "generator.pt", "samples.npz", "metrics.csv"} <= present
    losses, rows = pd.read_csv(tmp_path / "losses.csv"), pd.read_csv(tmp_path / "metrics.csv")
    assert losses["iteration"].tolist() == list(range(1, 5 if module is q4_wgan_gp else 37))
    assert losses.notna().all().all()
    assert rows["epoch"].tolist() == [1, 2]
    assert module is q4_wgan_gp or rows["iteration"].tolist() == [12, 36]
    images = np.load(tmp_path / "samples.npz")["images"]
    assert (images.shape, images.dtype) == ((50, 1, 28, 28), np.uint8)
    stored = torch.load(tmp_path / "generator.pt", weights_only=True)
    for weights in ("raw", "averaged"):
        Generator(**stored["shape"]).load_state_dict(stored[weights])
    assert not same(stored["raw"], stored["averaged"])


def test_sample_draws_new_images_from_a_finished_run_without_training(module, tmp_path, monkeypatch):
    config = tiny(module, tmp_path)
    module.main(config)
    monkeypatch.setattr(module, "train", None)
    module.main(replace(config, sample=7))
    drawn = np.load(tmp_path / "drawn.npz")["images"]
    assert drawn.shape == (7, 1, 28, 28)
    stored = np.load(tmp_path / "samples.npz")["images"]
    assert not any((image == stored).all((1, 2, 3)).any() for image in drawn)


def test_sample_takes_the_shape_of_the_run_and_refuses_a_folder_without_one(module, tmp_path):
    config = tiny(module, tmp_path)
    with pytest.raises(BadInput, match=r"generator\.pt is missing; train first"):
        module.main(replace(config, sample=3))
    module.main(config)
    module.main(module.Config(sample=3, out=tmp_path))  # no word of its width
    assert np.load(tmp_path / "drawn.npz")["images"].shape == (3, 1, 28, 28)
    (tmp_path / "generator.pt").write_bytes(b"junk")
    with pytest.raises(BadInput, match=r"generator\.pt: not a generator"):
        module.main(replace(config, sample=3))


def test_half_precision_is_enough_to_draw_and_is_checked(module, tmp_path):
    module.main(tiny(module, tmp_path))
    noise = torch.randn(20, 5)
    whole = generators.draw(generators.load_generator(tmp_path / "generator.pt"), noise)
    small = tmp_path / "generator_float16.pt"
    half = generators.draw(generators.load_generator(small), noise)
    assert int((whole.int() - half.int()).abs().max()) <= 2  # of 255
    assert not torch.equal(whole, whole.roll(1, 0))
    (tmp_path / "generator.pt").unlink()
    module.main(module.Config(sample=3, out=tmp_path))
    small.write_bytes(small.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match=r"generator_float16\.pt: not a generator"):
        module.main(module.Config(sample=3, out=tmp_path))


def test_sample_without_a_run_of_ones_own_draws_with_the_reference(module, tmp_path, monkeypatch, capsys):
    name = module.__name__
    module.main(tiny(module, tmp_path / name))
    monkeypatch.setattr(generators, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    module.main(module.Config(sample=3))
    assert f"{name} is not there; the reference run's generator draws" in capsys.readouterr().out
    assert np.load(f"outputs/{name}/drawn.npz")["images"].shape == (3, 1, 28, 28)
    with pytest.raises(BadInput, match=r"generator\.pt is missing; train first"):
        module.main(module.Config(sample=3, out=tmp_path / "other"))


def test_a_forged_generator_of_many_latents_takes_no_memory(tmp_path):
    """A file of a few kilobytes whose weights repeat one number, and whose shape would take 655 GB."""
    shape = {"width": 1024, "latent_dim": 10**7, "batch_norm": False}
    with torch.device("meta"):
        names = {name: tuple(weight.shape) for name, weight in Generator(**shape).state_dict().items()}
    forged = {name: torch.zeros(1).expand(size) for name, size in names.items()}
    torch.save({"shape": shape, "averaged": forged, "raw": forged}, tmp_path / "generator.pt")
    assert (tmp_path / "generator.pt").stat().st_size < 10_000
    with pytest.raises(BadInput, match=r"generator\.pt: not a generator"):
        generators.load_generator(tmp_path / "generator.pt")


def test_drawing_changes_no_weight_and_no_statistic():
    generator = Generator(2, 5, batch_norm=True)
    generator(torch.randn(8, 5))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    noise = torch.randn(6, 5)
    images = generators.draw(generator, noise)
    assert same(before, dict(generator.state_dict()))
    assert generator.training
    # Evaluation mode: an image does not depend on the others in its batch.
    assert generators.draw(generator, noise[:1]).equal(images[:1])


def test_figures_can_be_drawn_again_from_the_files_of_a_run(drawing_module, tmp_path):
    module = drawing_module
    module.main(tiny(module, tmp_path))
    names = {*FIGURES, "fake_epoch_01.png", "fake_epoch_02.png"}
    drawn = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    redraw.main(redraw.Config((tmp_path,)))
    assert {name: (tmp_path / name).read_bytes() for name in names - {"loss_curves.png"}} == {
        name: drawn[name] for name in names - {"loss_curves.png"}
    }
    assert (tmp_path / "loss_curves.png").exists()  # from rounded values
    with pytest.raises(BadInput, match="holds no run"):
        redraw.main(redraw.Config((tmp_path / "checkpoints",)))


def test_a_pixel_of_a_grid_is_a_square_of_pixels_of_the_file(tmp_path):
    images = torch.rand(6, 1, 28, 28)
    figures.image_grid(images, 3, tmp_path / "grid.png", "Title")
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture.convert("L"))[-116:]
    assert pixels.shape == (2 * (2 * 30 - 2), 2 * (3 * 30 - 2))
    squares = pixels.reshape(58, 2, 88, 2)
    assert (squares == squares[:, :1, :, :1]).all()
    assert np.abs(squares[:, 0, :, 0] / 255 - tile(images, 3)).max() < 2 / 255


def test_grids_have_one_fixed_range():
    dark, bright = torch.full((2, 1, 28, 28), 0.1), torch.full((2, 1, 28, 28), 0.9)
    for images, value in ((dark, 0.1), (bright, 0.9)):
        assert tile(images, 2)[0, 0] == np.float32(value)


def networks(batch_norm):
    torch.manual_seed(0)
    pair = Generator(2, 5, batch_norm), Critic(2, batch_norm)
    return *pair, tuple(torch.optim.SGD(n.parameters(), lr=0.1) for n in pair)


def random_images(n):
    return torch.randint(256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_wgan_critic_step_leaves_the_generator_alone_and_the_generator_step_the_critic(tmp_path):
    generator, critic, (g_optimizer, c_optimizer) = networks(batch_norm=False)
    players, guard = results.Players(generator, critic, g_optimizer, c_optimizer), Guard("cpu")
    with torch.no_grad():
        fake = generator(torch.randn(4, 5))
    before = weights(generator)
    q4_wgan_gp.critic_step(players, guard, 10.0, random_images(4), fake, torch.rand(4))
    assert all(p.grad is None for p in generator.parameters())
    assert same(before, weights(generator))
    before = weights(critic)
    c_optimizer.zero_grad()
    q4_wgan_gp.generator_step(players, guard, torch.randn(4, 5))
    assert all(p.grad is None for p in critic.parameters())
    assert same(before, weights(critic))
    assert all(p.requires_grad for p in critic.parameters())
    assert all(p.grad.abs().max() > 0 for p in generator.parameters())


@pytest.mark.parametrize("max_shift", [0, 2])
def test_dcgan_step_gives_each_network_the_gradient_of_its_own_loss(max_shift):
    generator, discriminator, optimizers = networks(batch_norm=True)
    images, noise, rng = random_images(6), torch.randn(6, 5), torch.Generator().manual_seed(1)
    offsets = [draw_offsets(6, rng, max_shift) for _ in range(2)]
    twin = copy.deepcopy(generator)
    real, fake = (translate(x, o, max_shift) for x, o in zip((images / 255, twin(noise)), offsets, strict=True))
    parts = q4_dcgan.discriminator_losses(discriminator(real), discriminator(fake.detach()))
    expected = torch.autograd.grad(parts["discriminator"], list(discriminator.parameters()))
    before = weights(discriminator)
    players = results.Players(generator, discriminator, *optimizers)
    losses = q4_dcgan.train_step(players, Guard("cpu"), images, noise, *offsets, max_shift)
    for (name, after), gradient in zip(weights(discriminator).items(), expected, strict=True):
        torch.testing.assert_close(after, before[name] - 0.1 * gradient, msg=name)
    torch.testing.assert_close(losses["discriminator"], parts["discriminator"])

    # The generator's loss is that of the updated discriminator on the same images, moved alike.
    loss = q4_dcgan.non_saturating_loss(discriminator(fake))
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    torch.testing.assert_close(losses["generator"], loss)
    for (name, after), old, gradient in zip(weights(generator).items(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(after, old - 0.1 * gradient, msg=name)


def test_interpolation_ends_at_its_latent_points_and_keeps_the_norm():
    ends = torch.randn(6, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    paths = results.interpolation_paths(ends, 9).view(3, 9, 128)
    torch.testing.assert_close(paths[:, 0], ends[0::2])
    torch.testing.assert_close(paths[:, -1], ends[1::2])
    norms = paths.norm(dim=2)
    assert norms.min() > 0.9 * ends.norm(dim=1).min()


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flags, said", [
    (["--epochs", "3", "--sample-epochs", "1", "4"], "--sample-epochs: 4 is not possible"),
    (["--width", "0"], "--width: 0"),
    (["--device", "tpu"], "--device"),
    (["--ema-decay", "nan"], "--ema-decay: nan"),
    (["--quality-samples", "9"], "--quality-samples: 9 is not possible; it takes 0, or a whole number from 10"),
    (["--quality-samples", "-1"], "--quality-samples: -1"),
])  # fmt: skip
def test_bad_input_is_one_line(refuses, tmp_path, name, flags, said):
    refuses(name, [*flags, "--out", tmp_path / "run"], said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name, flags", [
    ("q4_dcgan", ["--max-shift", "-1"]),
    ("q4_dcgan", ["--shift-from", "1.5"]),
    ("q4_dcgan", ["--discriminator-lr", "0.0"]),
    ("q4_dcgan", ["--discriminator-lr-from", "1.5"]),
    ("q4_dcgan", ["--echo", "0"]),
    ("q4_dcgan", ["--echo-from", "1.5"]),
    ("q4_dcgan", ["--lookahead", "-1"]),
    ("q4_dcgan", ["--lookahead-from", "1.5"]),
    ("q4_dcgan", ["--ema-warm-up", "0"]),
    ("q4_dcgan", ["--ema-warm-up-late", "0"]),
    ("q4_dcgan", ["--discriminator-width", "0"]),
    ("q4_dcgan", ["--detail", "-1"]),
    ("q4_dcgan", ["--self-modulation", "4097"]),
    ("q4_wgan_gp", ["--critic-steps", "0"]),
    ("q4_wgan_gp", ["--critic-steps", "2", "--epochs", "1", "--batch-size", "60000"]),  # the generator would never move
])  # fmt: skip
def test_bad_input_of_one_script_is_one_line(refuses, tmp_path, name, flags):
    refuses(name, [*flags, "--out", tmp_path / "run"], f"{flags[0]}: {flags[1]} is not possible")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("drawing_module", ["q4_dcgan"], indirect=True)
def test_dcgan_trains_by_its_schedule(module, tmp_path, monkeypatch):
    learning_rates, shifts, fractions, warm_ups, batches, noises = [], [], [], [], [], []
    train_step, look_ahead, update = module.train_step, module.look_ahead, module.MovingAverage.update

    def noted_step(players, guard, images, noise, *offsets, max_shift, share):
        learning_rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in players[2:]))
        shifts.append(max_shift)
        batches.append(float(images.double().sum()))
        noises.append(float(noise.sum()))
        return train_step(players, guard, images, noise, *offsets, max_shift)

    def noted_look(slow, network, fraction):
        fractions.append(fraction)
        look_ahead(slow, network, fraction)

    def noted_update(average, network, warm_up):
        warm_ups.append(warm_up)
        update(average, network, warm_up)

    monkeypatch.setattr(module, "train_step", noted_step)
    monkeypatch.setattr(module, "look_ahead", noted_look)
    monkeypatch.setattr(module.MovingAverage, "update", noted_update)
    settings = {"lr": 2e-3, "discriminator_lr": 1e-3, "discriminator_lr_from": 0.25, "decay_from": 1}
    settings |= {"max_shift": 2, "shift_from": 0.75, "lookahead": 4, "lookahead_from": 0.5, "echo": 3}
    module.main(tiny(module, tmp_path, **settings))  # 24 batches, 12 once and 12 three times
    assert learning_rates == [(2e-3, 2e-3)] * 6 + [(2e-3, 1e-3)] * 42
    assert shifts == [0] * 30 + [2] * 18
    assert fractions == [1] * 3 + [0.5] * 9
    assert warm_ups == [20] * 24 + [10] * 24
    assert batches[12:] == [batch for batch in batches[12::3] for _ in range(3)]
    assert len(set(batches)) == 24
    assert len(set(noises)) == 48


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_one_epoch_on_the_real_data_end_to_end(script, tmp_path, name):
    done = script(f"{name}.py", "--epochs", 1, "--width", 4, "--out", tmp_path, timeout=600)
    assert done.returncode == 0, done
    assert {path.name for path in tmp_path.iterdir()} >= FIGURES
