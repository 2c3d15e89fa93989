"""Own images in the place of Fashion-MNIST: what is read, what is refused, what a run makes of them."""

import gzip
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate
import q3_vae_svm
import q4_dcgan
import q4_wgan_gp
from common import own_data
from common.data import CLASSES
from common.run.cli import BadInput

NAMES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def write(folder, name, values, shape=None):
    shape = values.shape if shape is None else shape
    head = np.array([0x800 + len(shape), *shape], ">u4").tobytes()
    (folder / name).write_bytes(gzip.compress(head + values.tobytes()))


def write_images(place):
    """200 and 100 random images of ten classes, in four archives."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 200), ("t10k", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        write(place, f"{part}-images-idx3-ubyte.gz", rng.integers(256, size=(n, 28, 28), dtype=np.uint8))
        write(place, f"{part}-labels-idx1-ubyte.gz", labels)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    write_images(place)
    return place


def tiny(script, place, out):
    settings = {"epochs": 1, "batch_size": 50, "width": 2, "latent_dim": 4, "data": str(place), "out": out}
    if script is q3_vae_svm:
        settings |= {"label_sizes": (20,), "draws": 2, "projection": "pca"}
    return script.Config(**settings)


def test_archives_are_read_as_they_are_whatever_comes_before_their_names(folder):
    found = own_data.load("test", folder=str(folder))
    assert found.images.shape == (100, 1, 28, 28)
    assert found.images.dtype == torch.uint8
    with gzip.open(folder / NAMES[2]) as file:
        file.seek(16 + 784 * 7)
        assert bytes(found.images[7].flatten().tolist()) == file.read(784)
    assert found.labels.tolist() == [i % 10 for i in range(100)]
    for name in NAMES:  # as EMNIST calls them
        (folder / name).rename(folder / f"emnist-digits-{name.replace('t10k', 'test')}")
    assert own_data.load("test", folder=str(folder)).images.equal(found.images)


def test_classes_are_those_of_the_file_or_digits(folder):
    assert own_data.classes(str(folder)) == tuple("0123456789")
    (folder / "classes.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert own_data.classes(str(folder)) == tuple("abcdefghij")
    assert own_data.classes() == CLASSES
    (folder / "classes.txt").write_text("a\nb\n")
    for look in (own_data.classes, lambda place: tiny(q4_dcgan, place, "unused")):  # before anything is trained
        with pytest.raises(BadInput, match=r"classes\.txt: needs ten lines"):
            look(str(folder))


@pytest.mark.parametrize(("name", "damage", "said"), [
    (NAMES[0], lambda f, n: (f / n).unlink(), "one file train-images-idx3-ubyte.gz is needed, none found"),
    (NAMES[0], lambda f, n: shutil.copy(f / n, f / f"x-{n}"), "is needed, 2 found"),
    (NAMES[2], lambda f, n: (f / n).write_bytes((f / n).read_bytes()[:500]), f"{NAMES[2]}: cannot be read"),
    (NAMES[2], lambda f, n: (f / n).write_bytes(b"no archive"), f"{NAMES[2]}: cannot be read"),
    (NAMES[2], lambda f, n: (f / n).write_bytes(gzip.compress(b"")), f"{NAMES[2]}: is not an archive"),
    (NAMES[1], lambda f, n: shutil.copy(f / NAMES[0], f / n), f"{NAMES[1]}: is not an archive"),
    (NAMES[0], lambda f, n: write(f, n, np.zeros(5, np.uint8), (2**30, 2**30, 2**30)), "is not an archive"),
    (NAMES[0], lambda f, n: write(f, n, np.zeros((200, 32, 32), np.uint8)), "images of 32 x 32 pixels"),
    (NAMES[0], lambda f, n: write(f, n, np.zeros((199, 28, 28), np.uint8)), "has 200 labels for 199 images"),
    (NAMES[3], lambda f, n: write(f, n, np.arange(100, dtype=np.uint8) % 26), "needs the classes 0 to 9"),
    (NAMES[3], lambda f, n: write(f, n, np.arange(100, dtype=np.uint8) % 9), "needs the classes 0 to 9"),
])  # fmt: skip
def test_faulty_archives_are_named_before_anything_is_written(folder, tmp_path, name, damage, said):
    damage(folder, name)
    with pytest.raises(BadInput) as refused:
        q3_vae_svm.main(tiny(q3_vae_svm, folder, tmp_path / "out"))
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_sizes_that_the_images_do_not_allow_are_refused(folder, tmp_path):
    for flag, value in (("batch_size", 199), ("label_sizes", (210,))):
        config = tiny(q3_vae_svm, folder, tmp_path / "out")
        object.__setattr__(config, flag, value)
        with pytest.raises(BadInput, match=f"--{flag.replace('_', '-')}"):
            q3_vae_svm.main(config)


@pytest.mark.parametrize("script", [q3_vae_svm, q4_dcgan, q4_wgan_gp], ids=lambda script: script.__name__)
def test_a_run_is_known_by_the_content_of_its_archives_and_has_no_yardstick(folder, tmp_path, capsys, script):
    out = tmp_path / "out"
    script.main(tiny(script, folder, out))
    assert own_data.NOT_MEASURED in capsys.readouterr().out
    assert not {"quality.csv", "copies.csv"} & {path.name for path in out.iterdir()}
    known = json.loads((out / "config.json").read_text())["data"]
    assert len(known) == 16
    assert str(folder) not in known
    if script is not q3_vae_svm:
        with pytest.raises(BadInput, match="a run on other images"):
            evaluate.image_sets(evaluate.Config(out))
    if script is q3_vae_svm:
        assert pd.read_csv(out / "accuracy.csv")["reference"].isna().all()
    folder.rename(tmp_path / "elsewhere")
    script.main(tiny(script, tmp_path / "elsewhere", out))  # the same run
    write(tmp_path / "elsewhere", NAMES[1], (np.arange(200) % 10)[::-1].astype(np.uint8))
    with pytest.raises(BadInput, match="holds a run with data"):
        script.main(tiny(script, tmp_path / "elsewhere", out))
