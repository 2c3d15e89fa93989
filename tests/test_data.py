"""The loader: order, checksums, faults on disk, balanced draws, augmentation."""

import gzip
import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common import data
from common.data import (
    RAW,
    draw_labelled,
    load_fashion_mnist,
    to_unit_range,
    validation_indices,
)
from common.run import rng_for
from common.run.batches import batch_indices, epoch_order
from common.run.cli import BadInput

ROOT = Path(__file__).resolve().parent.parent
TEST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


@pytest.fixture
def raw_copy(tmp_path):
    """A folder with the two test archives."""
    for name in TEST_FILES:
        shutil.copyfile(RAW / name, tmp_path / name)  # without the rights of a read-only checkout
    return tmp_path


def test_arrays_are_those_of_the_archives_in_order(train_split, test_split):
    assert train_split.images.shape == (60_000, 1, 28, 28)
    assert test_split.images.shape == (10_000, 1, 28, 28)
    assert train_split.images.dtype == torch.uint8
    assert train_split.labels.dtype == torch.int64
    assert train_split.labels.bincount().tolist() == [6000] * 10
    # The first labels as published, and the mean pixel quoted everywhere for this data set: 0.2860.
    assert train_split.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert test_split.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert to_unit_range(train_split.images).mean().item() == pytest.approx(0.2860, abs=5e-5)
    with gzip.open(RAW / TEST_FILES[0]) as file:
        file.seek(16 + 784 * 77)
        assert bytes(test_split.images[77].flatten().tolist()) == file.read(784)


def test_loading_takes_little_more_than_unpacking():
    """A ratio, the best of several, since machines are of all speeds and busy."""

    def unpack():
        for name in data.SHA256:
            gzip.decompress((RAW / name).read_bytes())

    def load():
        load_fashion_mnist("train"), load_fashion_mnist("test")

    seconds = {unpack: [], load: []}
    for _ in range(4):
        for work, taken in seconds.items():
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    assert min(seconds[load]) < 3 * min(seconds[unpack])


def test_an_archive_that_was_compressed_again_is_taken(raw_copy, test_split):
    path = raw_copy / TEST_FILES[0]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    assert load_fashion_mnist("test", raw=raw_copy).images.equal(test_split.images)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "foreign"])
def test_altered_archive_is_refused_and_left_alone(raw_copy, damage):
    path = raw_copy / TEST_FILES[0]
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    changed = {"truncated": content[:-9], "one bit": content, "empty": b"", "foreign": gzip.compress(b"hello")}[damage]
    path.write_bytes(changed)
    with pytest.raises(BadInput, match=r"t10k-images-idx3-ubyte.gz: truncated or altered.*delete it"):
        load_fashion_mnist("test", raw=raw_copy)
    assert path.read_bytes() == changed


def test_missing_archive_is_fetched_verified_and_stored_whole(raw_copy, monkeypatch):
    (raw_copy / TEST_FILES[1]).unlink()
    monkeypatch.setattr(data, "_download", lambda name, folder: (RAW / name).read_bytes())
    assert len(load_fashion_mnist("test", raw=raw_copy).labels) == 10_000
    assert (raw_copy / TEST_FILES[1]).read_bytes() == (RAW / TEST_FILES[1]).read_bytes()
    assert {path.name for path in raw_copy.iterdir()} == set(TEST_FILES)


def test_missing_archive_without_a_network_says_so(raw_copy, monkeypatch):
    (raw_copy / TEST_FILES[1]).unlink()
    monkeypatch.setattr(data.torchvision_datasets().FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(BadInput, match=r"t10k-labels-idx1-ubyte.gz: missing and not fetched.*connect to the network"):
        load_fashion_mnist("test", raw=raw_copy)
    assert {path.name for path in raw_copy.iterdir()} == {TEST_FILES[0]}


def test_download_goes_through_torchvision_with_the_checksum(tmp_path, monkeypatch):
    asked = []

    def download_url(url, root, filename, md5):
        asked.append((url, md5))
        shutil.copy(RAW / filename, tmp_path / filename)

    monkeypatch.setattr(data.torchvision_datasets().utils, "download_url", download_url)
    assert data._download(TEST_FILES[1], tmp_path) == (RAW / TEST_FILES[1]).read_bytes()
    assert asked == [(data.torchvision_datasets().FashionMNIST.mirrors[0] + TEST_FILES[1], data.MD5[TEST_FILES[1]])]


def test_unwritable_folder_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(data.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(BadInput, match=r"missing, and .* is not writable"):
        load_fashion_mnist("test", raw=tmp_path / "nowhere")


def _load_after_fetch(folder, results):
    data._download = lambda name, _: (RAW / name).read_bytes()
    results.put(int(load_fashion_mnist("test", raw=folder).labels.sum()))


@pytest.mark.posix
def test_two_processes_that_fetch_at_once_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_load_after_fetch, args=(tmp_path, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [45_000, 45_000]
    for worker in workers:
        worker.join()
    assert {path.name for path in tmp_path.iterdir()} == set(TEST_FILES)


def test_kill_while_fetching_leaves_nothing_that_is_trusted(tmp_path):
    code = (
        "import os, pathlib; from common import data\n"
        "def half(name, folder):\n"
        "    (folder / name).write_bytes((data.RAW / name).read_bytes()[:1000]); os._exit(9)\n"
        "data._download = half\n"
        f"data.load_fashion_mnist('test', raw=pathlib.Path({str(tmp_path)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 9
    assert not list(tmp_path.glob("*.gz"))


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    order = epoch_order(1000, seed=3, epoch=2)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.equal(epoch_order(1000, seed=3, epoch=2))
    assert not order.equal(epoch_order(1000, seed=3, epoch=3))
    assert not order.equal(epoch_order(1000, seed=4, epoch=2))


@pytest.mark.parametrize("first", [0, 1, 6, 7, 8, 15])
def test_batches_from_any_step_equal_those_of_an_unbroken_run(first):
    whole = batch_indices(100, 15, seed=0, first_step=0)
    unbroken = [next(whole) for _ in range(20)]
    part = batch_indices(100, 15, seed=0, first_step=first)
    assert all(next(part).equal(expected) for expected in unbroken[first:])
    assert sorted(torch.cat(unbroken[:7]).tolist()) == list(range(100))


@pytest.mark.parametrize("size", [10, 100, 3000])
def test_draws_are_balanced_without_repetition_and_reproducible(train_split, size):
    def draw(number):
        return draw_labelled(train_split.labels, size, rng_for(0, "labelled", number))

    chosen = draw(0)
    assert train_split.labels[chosen].bincount(minlength=10).tolist() == [size // 10] * 10
    assert len(chosen.unique()) == size
    assert chosen.equal(draw(0))
    assert not chosen.equal(draw(1))


def test_draws_are_random_and_not_the_first_of_each_class(train_split):
    chosen = draw_labelled(train_split.labels, 600, rng_for(0, "labelled", 0)).double()
    # The mean of 600 uniform positions in 0..59,999 has a standard deviation of 707.
    assert abs(chosen.mean().item() - 30_000) < 4 * 707


def test_validation_images_are_a_tenth_of_each_class_and_apart_from_those_to_fit(train_split):
    validation, fit = load_fashion_mnist("validation"), load_fashion_mnist("fit")
    assert validation.labels.bincount().tolist() == [1000] * 10
    assert fit.labels.bincount().tolist() == [5000] * 10
    chosen = validation_indices(train_split.labels)
    assert chosen.equal(validation_indices(train_split.labels))
    assert train_split.images[chosen].equal(validation.images)
    rest = torch.ones(60_000, dtype=torch.bool)
    rest[chosen] = False
    assert train_split.images[rest].equal(fit.images)
