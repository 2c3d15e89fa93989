"""evaluate.py on a run, an .npz file and a folder; what it refuses. yardstick.py at work."""

import importlib
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import evaluate
import yardstick
from common.gan.networks import Generator
from common.quality import classifier, copies, distances
from common.run.cli import BadInput


@pytest.fixture
def quick(monkeypatch, small_data):
    """Sets of 300 images instead of 10,000, and few that they may be copies of."""
    monkeypatch.setattr(distances, "N_SAMPLES", 300)
    monkeypatch.setattr(copies, "training_images", lambda: copies.Sources(small_data("train").images))
    monkeypatch.setattr(copies, "false_alarms", lambda: 0.004)


def scored(capsys, tmp_path, path):
    """The table that `evaluate.py` writes for a path, after a look at what it prints."""
    table = tmp_path / "scored.csv"
    evaluate.main(evaluate.Config(path, csv=table))
    printed, row = capsys.readouterr().out, pd.read_csv(table).iloc[0]
    assert f"frechet {row['frechet']:9.4f}" in printed
    share = row["copies_of_training_images"]
    assert f"copies of training images {share:.4f} (false alarms on test images 0.0040)" in printed
    assert 0 <= share <= 1
    return row


def test_the_same_images_score_the_same_as_npz_and_as_folder(quick, capsys, tmp_path, train_split):
    images = train_split.images[:300, 0].numpy()
    np.savez(tmp_path / "images.npz", images=images)
    (tmp_path / "folder").mkdir()
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "folder" / f"{index:03d}.png")
    of_npz = scored(capsys, tmp_path, tmp_path / "images.npz")
    of_folder = scored(capsys, tmp_path, tmp_path / "folder")
    assert of_npz["frechet"] == of_folder["frechet"]
    assert of_npz["confidence"] == of_folder["confidence"]
    assert np.isnan(of_npz["frechet_std"])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
@pytest.mark.parametrize("place", [".", "a class"])
def test_grey_images_are_read_alike_in_every_way_of_storing_them(tmp_path, mode, place):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)
    (tmp_path / place).mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).convert(mode).save(tmp_path / place / f"{i:02d}.png")
    (tmp_path / "config.json").write_text('{"model": "of somebody"}')
    (found,) = evaluate.image_sets(evaluate.Config(tmp_path))
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, images))


def test_several_sets_have_a_spread(quick, capsys, tmp_path, train_split):
    np.savez(tmp_path / "images.npz", train_split.images[:700].numpy())
    row = scored(capsys, tmp_path, tmp_path / "images.npz")
    wanted = [distances.score(part)["frechet"] for part in train_split.images[:600].split(300)]
    assert row["frechet"] == pytest.approx(np.mean(wanted), rel=1e-6)
    assert row["frechet_std"] == pytest.approx(np.std(wanted, ddof=1), rel=1e-5)


def test_run_is_scored_by_its_averaged_generator(quick, capsys, tmp_path):
    torch.manual_seed(0)
    raw, averaged = Generator(2, 5, False), Generator(2, 5, False)
    stored = {"shape": {"width": 2, "latent_dim": 5, "batch_norm": False}}
    for name, both in (("a", (raw, averaged)), ("b", (averaged, averaged))):
        (tmp_path / name).mkdir()
        states = {"raw": both[0].state_dict(), "averaged": both[1].state_dict()}
        torch.save({**stored, **states}, tmp_path / name / "generator.pt")
    rows = [scored(capsys, tmp_path, tmp_path / name) for name in "ab"]
    assert rows[0]["frechet"] == rows[1]["frechet"]
    assert rows[0]["frechet_std"] > 0


def bad_files(tmp_path):
    images = np.zeros((20, 28, 28), np.uint8)
    np.savez(tmp_path / "float.npz", images=images / 255)
    np.savez(tmp_path / "small.npz", images=images[:, :14])
    np.savez(tmp_path / "few.npz", images=images[:3])
    np.savez(tmp_path / "pickled.npz", images=np.array([object()]))
    np.savez(tmp_path / "wide.npz", images=images.reshape(20, 14, 56))
    np.savez(tmp_path / "two.npz", a=images, b=images)
    np.savez(tmp_path / "empty.npz")
    packed = io.BytesIO()
    np.savez_compressed(packed, images=images)
    flipped = bytearray(packed.getvalue())
    flipped[60:80] = b"x" * 20
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "nothing.npz").write_bytes(b"")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.save(tmp_path / "plain.npy", images)
    for name in ("bare", "large", "broken", "deep", "bomb", "gif", "run", "wide run", "unfinished"):
        (tmp_path / name).mkdir()
    for name in ("transparent", "coloured", "transparent palette", "pipe"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((32, 30), np.uint8)).save(tmp_path / "large" / "a.png")
    (tmp_path / "broken" / "b.png").write_bytes(b"junk")
    Image.fromarray(np.zeros((28, 28), np.uint16)).save(tmp_path / "deep" / "c.png")
    header = struct.pack(">4sIIBBBBB", b"IHDR", 10**5, 10**5, 8, 0, 0, 0, 0)
    sized = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb" / "d.png").write_bytes(sized)
    Image.fromarray(images[0]).save(tmp_path / "gif" / "e.png", format="GIF")
    clear = np.zeros((28, 28, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "transparent" / "f.png")
    Image.fromarray(clear + np.array([0, 0, 1, 255], np.uint8)).save(tmp_path / "coloured" / "g.png")
    grey = Image.fromarray(images[0])
    grey.save(tmp_path / "transparent palette" / "h.png", transparency=0)
    (getattr(os, "mkfifo", os.mkdir))(tmp_path / "pipe" / "i.png")
    (tmp_path / "run" / "generator.pt").write_bytes(b"junk")
    shape = {"width": 10**6, "latent_dim": 5, "batch_norm": False}
    huge = {"shape": shape, "averaged": Generator(2, 5, False).state_dict()}
    torch.save(huge, tmp_path / "wide run" / "generator.pt")
    (tmp_path / "unfinished" / "config.json").write_text('{"script": "q4_dcgan"}')
    Image.fromarray(images[0]).save(tmp_path / "unfinished" / "real.png")


@pytest.mark.parametrize("name, said", [
    ("none", "none: is not there"),
    ("float.npz", r"holds float64 \[20, 28, 28\]; store uint8"),
    ("small.npz", r"holds uint8 \[20, 14, 28\]; store uint8"),
    ("few.npz", "3 images are too few"),
    ("pickled.npz", "not an .npz file"),
    ("wide.npz", r"holds uint8 \[20, 14, 56\]; store uint8"),
    ("two.npz", r"holds the arrays a, b; name the one to score 'images'"),
    ("flipped.npz", "not an .npz file"),
    ("nothing.npz", "not an .npz file"),
    ("checkpoint.pt", "not an .npz file"),
    ("empty.npz", "not an .npz file"),
    ("junk.npz", "not an .npz file"),
    ("plain.npy", "not an .npz file"),
    ("bare", "holds neither generator.pt nor PNG or JPEG images"),
    ("large", r"a\.png: is 30 x 32 pixels; scale the images to 28 x 28"),
    ("broken", r"b\.png: not a PNG or JPEG image"),
    ("deep", r"c\.png: has more than 8 bits per pixel"),
    ("bomb", r"d\.png: not a PNG or JPEG image"),
    ("gif", r"e\.png: not a PNG or JPEG image"),
    ("transparent", r"f\.png: is partly transparent"),
    ("coloured", r"g\.png: has colours; store grey images"),
    ("transparent palette", r"h\.png: is partly transparent"),
    ("pipe", r"i\.png: not a regular file"),
    ("run/generator.pt", "name the run's folder"),
    ("run", r"generator\.pt: not a generator"),
    ("wide run", r"generator\.pt: not a generator"),
    ("unfinished", "unfinished: a run without generator.pt; finish it"),
])  # fmt: skip
def test_bad_input_is_named_with_its_remedy(tmp_path, name, said):
    bad_files(tmp_path)
    with pytest.raises(BadInput, match=said):
        evaluate.main(evaluate.Config(tmp_path / name))


@pytest.mark.parametrize("table", ["", ".", "/", "{}", "{}/none/scored.csv", "{}/images.npz/scored.csv"])
def test_table_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, table):
    np.savez(tmp_path / "images.npz", images=np.zeros((20, 28, 28), np.uint8))
    monkeypatch.setattr(distances, "score", None)
    with pytest.raises(BadInput, match=r"--csv .*: cannot be written; name a file"):
        evaluate.main(evaluate.Config(tmp_path / "images.npz", csv=Path(table.format(tmp_path))))


def test_inception_distances_are_the_librarys_on_the_images_in_three_channels(
    tmp_path, monkeypatch, capsys, train_split, small_data
):
    """The library at work, with another extractor in the place of Inception's."""
    fidelity = distances._torch_fidelity()
    base = importlib.import_module("torch_fidelity.feature_extractor_base").FeatureExtractorBase

    class Pixels(base):
        """Means of 7 x 7 patches of every channel, [B, 48]."""

        def __init__(self, name, features, **_):
            super().__init__(name, features)

        def forward(self, x):
            assert x.dtype == torch.uint8
            return (torch.nn.functional.avg_pool2d(x.float() / 255, 7).flatten(1),)

        get_provided_features_list = staticmethod(lambda: ("patches",))
        get_default_feature_layer_for_metric = staticmethod(lambda metric: "patches")

    registry = importlib.import_module("torch_fidelity.registry").FEATURE_EXTRACTORS_REGISTRY
    monkeypatch.setitem(registry, "pixels", Pixels)
    original = fidelity.calculate_metrics
    monkeypatch.setattr(fidelity, "calculate_metrics", lambda **given: original(feature_extractor="pixels", **given))
    monkeypatch.setattr(distances, "load_fashion_mnist", small_data)
    found = distances.score_inception(train_split.images[:100])

    def patches(images):
        return torch.nn.functional.avg_pool2d(images.double() / 255, 7).flatten(1).repeat(1, 3)

    pair = patches(train_split.images[:100]), patches(small_data("test").images)
    embedded = (classifier.Embedding(x, torch.empty(0)) for x in pair)
    assert found["fid"] == pytest.approx(distances.frechet_distance(*pair), rel=1e-3)
    assert found["kid"] == pytest.approx(distances.kernel_distance(*embedded), rel=0.1)


@pytest.mark.parametrize("content", [b"", b"weights", b"PK\x03\x04" + bytes(50)])
def test_damaged_inception_weights_are_one_line(tmp_path, monkeypatch, train_split, content):
    """A file that the library fetched before, truncated or overwritten since."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth").write_bytes(content)
    with pytest.raises(BadInput, match=r"--extractor inception: its weights in .*hub.checkpoints are damaged"):
        distances.score_inception(train_split.images[:20])


def test_inception_without_network_says_so(tmp_path, monkeypatch, train_split):
    np.savez(tmp_path / "images.npz", train_split.images[:20].numpy())

    def refused(**_):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(distances._torch_fidelity(), "calculate_metrics", refused)
    with pytest.raises(BadInput, match=r"--extractor inception: .*\(no network\); connect"):
        evaluate.main(evaluate.Config(tmp_path / "images.npz", extractor="inception"))


def test_yardstick_trains_resumes_and_measures_each_kind_once(quick, tmp_path, monkeypatch, capsys, small_data):
    monkeypatch.setattr(yardstick, "load_fashion_mnist", small_data)
    monkeypatch.setattr(yardstick, "N_SAMPLES", 100)
    measured = []

    def score(x, extractor):
        measured.append(x)
        mean = float(x.float().mean())
        rising = dict.fromkeys(("frechet", "kid", "precision", "recall", "density"), mean)
        return {**rising, "coverage": mean if extractor == "classifier" else -mean}

    monkeypatch.setattr(yardstick, "score", score)
    for figure in ("scale", "spaces"):
        monkeypatch.setattr(yardstick.quality_figures, figure, lambda *_: None)
    monkeypatch.setattr(yardstick.Run, "say", lambda *_: None)
    config = yardstick.Config(epochs=2, batch_size=60, out=tmp_path)
    monkeypatch.setattr(yardstick, "SHOWN", ["images", "frechet"])
    yardstick.main(config)
    table = pd.read_csv(tmp_path / "scale.csv").set_index("images")
    assert len(measured) == (distances.SEEDS + 1) * len(table)
    assert {(tuple(x.shape), x.dtype) for x in measured} == {((100, 1, 28, 28), torch.uint8)}
    assert table.loc["uniform noise", "frechet"] == pytest.approx(127.5, abs=1)
    assert table.loc["training images", "frechet_std"] > 0
    agreement = pd.read_csv(tmp_path / "spaces.csv").set_index("metric")["rank_correlation"]
    assert agreement["frechet"] == -agreement["coverage"] > 0.9  # of three sets against the first
    yardstick.main(config)
    assert len(measured) == (distances.SEEDS + 1) * len(table)
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 2
    network = classifier.FashionClassifier()
    network.load_state_dict(torch.load(tmp_path / "classifier.pt", weights_only=True))


def test_blur_keeps_the_mass_inside_and_spreads_a_point():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, 14, 14] = 255
    blurred = yardstick.blur(image, 1.0).float()
    assert float(blurred.sum()) == pytest.approx(255, rel=0.05)
    assert float(blurred[0, 0, 14, 14]) == pytest.approx(255 / (2 * torch.pi), rel=0.03)
    assert float(blurred[0, 0, 14, 15] / blurred[0, 0, 14, 14]) == pytest.approx(2.718281828**-0.5, rel=0.03)
