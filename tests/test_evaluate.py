"""evaluate.py on a run, an .npz file and a folder; what it refuses. yardstick.py at work."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import evaluate
import yardstick
from common import metrics
from common.cli import BadInput
from common.models import Generator


@pytest.fixture
def quick(monkeypatch):
    """Sets of 300 images instead of 10,000."""
    monkeypatch.setattr(metrics, "N_SAMPLES", 300)


def scored(capsys, tmp_path, path):
    """The table that `evaluate.py` writes for a path, after a look at what it prints."""
    table = tmp_path / "scored.csv"
    evaluate.main(evaluate.Config(path, csv=table))
    printed, row = capsys.readouterr().out, pd.read_csv(table).iloc[0]
    assert f"frechet {row['frechet']:9.4f}" in printed
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


def test_several_sets_have_a_spread(quick, capsys, tmp_path, train_split):
    np.savez(tmp_path / "images.npz", train_split.images[:700].numpy())
    row = scored(capsys, tmp_path, tmp_path / "images.npz")
    wanted = [metrics.score(part)["frechet"] for part in train_split.images[:600].split(300)]
    assert row["frechet"] == pytest.approx(np.mean(wanted), rel=1e-6)
    assert row["frechet_std"] == pytest.approx(np.std(wanted, ddof=1), rel=1e-5)


def test_run_is_scored_by_its_averaged_generator(quick, capsys, tmp_path):
    torch.manual_seed(0)
    raw, averaged = Generator(2, 5, False), Generator(2, 5, False)
    stored = {"width": 2, "latent_dim": 5, "batch_norm": False}
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
    np.savez(tmp_path / "empty.npz")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.save(tmp_path / "plain.npy", images)
    for name in ("bare", "large", "broken", "run"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((32, 30), np.uint8)).save(tmp_path / "large" / "a.png")
    (tmp_path / "broken" / "b.png").write_bytes(b"junk")
    (tmp_path / "run" / "generator.pt").write_bytes(b"junk")


@pytest.mark.parametrize("name, said", [
    ("none", "none: is not there"),
    ("float.npz", r"holds float64 \[20, 28, 28\]; store uint8"),
    ("small.npz", r"holds uint8 \[20, 14, 28\]; store uint8"),
    ("few.npz", "3 images are too few"),
    ("pickled.npz", "not an .npz file"),
    ("empty.npz", "not an .npz file"),
    ("junk.npz", "not an .npz file"),
    ("plain.npy", "not an .npz file"),
    ("bare", "holds neither generator.pt nor PNG images"),
    ("large", r"a\.png: is 30 x 32 pixels; scale the images to 28 x 28"),
    ("broken", r"b\.png: not a PNG image"),
    ("run", r"generator\.pt: not a generator"),
])  # fmt: skip
def test_bad_input_is_named_with_its_remedy(tmp_path, name, said):
    bad_files(tmp_path)
    with pytest.raises(BadInput, match=said):
        evaluate.main(evaluate.Config(tmp_path / name))


def test_inception_without_network_says_so(tmp_path, monkeypatch, train_split):
    np.savez(tmp_path / "images.npz", train_split.images[:20].numpy())

    def refused(**_):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(metrics._torch_fidelity(), "calculate_metrics", refused)
    with pytest.raises(BadInput, match=r"--extractor inception: .*\(no network\); connect"):
        evaluate.main(evaluate.Config(tmp_path / "images.npz", extractor="inception"))


def test_yardstick_trains_resumes_and_measures_each_kind_once(quick, tmp_path, monkeypatch, capsys, small_data):
    monkeypatch.setattr(yardstick, "load_fashion_mnist", small_data)
    monkeypatch.setattr(yardstick, "N_SAMPLES", 100)
    measured = []
    monkeypatch.setattr(yardstick, "score", lambda x: measured.append(x) or {"frechet": float(x.float().mean())})
    monkeypatch.setattr(yardstick.plots_quality, "scale", lambda *_: None)
    monkeypatch.setattr(yardstick.Run, "say", lambda *_: None)
    config = yardstick.Config(epochs=2, batch_size=60, out=tmp_path)
    monkeypatch.setattr(yardstick, "SHOWN", ["images", "frechet"])
    yardstick.main(config)
    table = pd.read_csv(tmp_path / "scale.csv").set_index("images")
    assert len(measured) == metrics.SEEDS * len(table)
    assert {(tuple(x.shape), x.dtype) for x in measured} == {((100, 1, 28, 28), torch.uint8)}
    assert table.loc["uniform noise", "frechet"] == pytest.approx(127.5, abs=1)
    assert table.loc["training images", "frechet_std"] > 0
    yardstick.main(config)
    assert len(measured) == metrics.SEEDS * len(table)
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 2
    network = metrics.FashionClassifier()
    network.load_state_dict(torch.load(tmp_path / "classifier.pt", weights_only=True))


def test_blur_keeps_the_mass_inside_and_spreads_a_point():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, 14, 14] = 255
    blurred = yardstick.blur(image, 1.0).float()
    assert float(blurred.sum()) == pytest.approx(255, rel=0.05)
    assert float(blurred[0, 0, 14, 14]) == pytest.approx(255 / (2 * torch.pi), rel=0.03)
    assert float(blurred[0, 0, 14, 15] / blurred[0, 0, 14, 14]) == pytest.approx(2.718281828**-0.5, rel=0.03)
