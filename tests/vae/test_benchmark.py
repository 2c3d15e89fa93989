"""Every row of the benchmark: no label that was not drawn and no other test image reaches a prediction."""

import pandas as pd
import pytest
import torch
from test_q3_vae_svm import tiny

import q3_vae_svm as q3
from common import own_data
from common.data import Split, draw_labelled
from common.run import rng_for
from common.vae import benchmark
from common.vae.network import VAE

SETTINGS = tiny("unused", latent_dim=8)


def vae():
    torch.manual_seed(0)
    return VAE(8, 2)


@pytest.fixture(scope="module")
def splits(train_split, test_split):
    return Split(train_split.images[:600], train_split.labels[:600]), Split(
        test_split.images[:80], test_split.labels[:80]
    )


@pytest.fixture(scope="module")
def predicted(splits):
    chosen = draw_labelled(splits[0].labels, 50, rng_for(0, "test", 0))
    return chosen, {name: method(chosen) for name, method in benchmark.methods(vae(), *splits, SETTINGS).items()}


def test_labels_that_were_not_drawn_change_no_prediction_in_any_row(splits, predicted):
    (train, test), (chosen, expected) = splits, predicted
    permuted = train.labels.roll(3)
    permuted[chosen] = train.labels[chosen]
    assert (permuted != train.labels).sum() > 300
    found = benchmark.methods(vae(), Split(train.images, permuted), test, SETTINGS)
    assert [name for name, method in found.items() if not method(chosen).equal(expected[name])] == []


def test_test_images_reach_no_fit_no_graph_and_no_choice(splits, predicted):
    """With noise in the place of all but 30 test images, and other labels, the predictions of these 30 are the same."""
    (train, test), (chosen, expected) = splits, predicted
    noise = torch.randint(256, test.images.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    noise[:30] = test.images[:30]
    found = benchmark.methods(vae(), train, Split(noise, test.labels.flip(0)), SETTINGS)
    again = {name: method(chosen) for name, method in found.items()}
    assert [name for name in found if not again[name][:30].equal(expected[name][:30])] == []
    assert any(not again[name].equal(expected[name]) for name in found)  # the control


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_benchmark_writes_its_tables_and_figure_and_is_reused(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own_data, "load_fashion_mnist", small_data)
    monkeypatch.setattr(benchmark, "LIKELIHOODS", ((3, 5), (20, 2)))
    config = tiny(tmp_path, benchmark=True, classifier="spread", epochs=1, label_sizes=(20,))
    q3.main(config)
    table = pd.read_csv(tmp_path / "benchmark.csv")
    assert table["method"].nunique() == 8
    assert set(table["size"]) == {20, 240}
    assert len(pd.read_csv(tmp_path / "benchmark_unstratified.csv")) == 8
    assert pd.read_csv(tmp_path / "likelihood.csv")["samples"].tolist() == [3, 20]
    assert (tmp_path / "benchmark.png").exists()
    accuracy = pd.read_csv(tmp_path / "accuracy.csv")
    assert accuracy["method"].tolist() == ["VAE means", "raw pixels", "VAE means, spread labels"]
    monkeypatch.setattr(benchmark.experiments, "balanced", None)
    q3.main(config)
    assert "benchmark" not in capsys.readouterr().err
