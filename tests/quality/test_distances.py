"""Sample quality: the statistics against closed forms and torch-fidelity, the yardstick's scale, what a score says."""

import hashlib
import importlib
import math
import sys
from pathlib import Path

import pandas as pd
import prdc
import pytest
import torch

from common.quality import classifier, distances, imagenet
from common.quality.features import Features
from common.run import rng_for
from common.run.cli import BadInput

ROOT = Path(__file__).resolve().parents[2]
SCALE = pd.read_csv(ROOT / "outputs" / "reference" / "scale" / "scale.csv").set_index("images")


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=rng_for(seed, "test", 0), dtype=torch.float64)


def test_frechet_distance_of_two_normal_samples_with_known_moments():
    """Whitened points have exactly mean 0 and covariance 1, so shifted and scaled ones have a closed form."""
    x = normal(500, 6)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    shift, scale = torch.arange(6.0).double(), torch.linspace(0.5, 3, 6).double()
    expected = float(shift.square().sum() + (1 - scale).square().sum())
    assert distances.frechet_distance(x, shift + scale * x) == pytest.approx(expected, rel=1e-9)
    assert distances.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_the_unbiased_estimate_over_all_pairs_and_that_of_torch_fidelity():
    a, b = normal(60, 4), 0.3 + normal(60, 4, seed=1)

    def k(x, y):
        return (x @ y.T / 4 + 1) ** 3

    off = 1 - torch.eye(60, dtype=torch.float64)
    within = sum(float((k(x, x) * off).sum()) for x in (a, b)) / (60 * 59)
    found = distances.kernel_distance(Features(a), Features(b))
    assert found == pytest.approx(within - 2 * float(k(a, b).mean()), rel=1e-5)
    distances._torch_fidelity()
    library = importlib.import_module("torch_fidelity.metric_kid")
    # With as many points as a subset holds, every subset is the whole.
    of_library = library.kid_features_to_metric(a.float(), b.float(), kid_subsets=1, kid_subset_size=60, verbose=False)
    assert found == pytest.approx(of_library[library.KEY_METRIC_KID_MEAN], rel=1e-4)


@pytest.mark.parametrize("n, m, shift", [(700, 500, 0.0), (300, 400, 1.0), (200, 200, 30.0)])
def test_neighbourhoods_equal_those_of_torch_fidelity_and_prdc(n, m, shift):
    distances._torch_fidelity()
    library = importlib.import_module("torch_fidelity.metric_prc")
    a, b = normal(n, 8), shift + normal(m, 8, seed=1)
    found = distances.neighbourhoods(Features(a), Features(b))
    of_library = library.prc_features_to_metric(a.float(), b.float(), verbose=False)
    assert [found[name] for name in ("precision", "recall")] == pytest.approx(
        [of_library[name] for name in ("precision", "recall")], abs=1e-6
    )
    assert found == pytest.approx(prdc.compute_prdc(b.numpy(), a.numpy(), nearest_k=3), abs=1e-6)


def test_density_and_coverage_of_real_images_and_of_few_that_are_repeated():
    """Of two samples of one distribution density is 1 and coverage 1 - 2^-3; repeats leave precision, not coverage."""
    real, honest = Features(normal(2000, 4)), normal(2000, 4, seed=1)
    found = distances.neighbourhoods(Features(honest), real)
    assert found["density"] == pytest.approx(1, abs=0.05)
    assert found["coverage"] == pytest.approx(7 / 8, abs=0.03)
    repeated = distances.neighbourhoods(Features(honest[:200].repeat(10, 1)), real)
    assert repeated["precision"] == pytest.approx(found["precision"], abs=0.06)
    assert repeated["coverage"] < 0.4
    assert repeated["recall"] == 0


def test_class_divergence_between_equal_shares_and_one_class():
    def divergence(probabilities):
        return distances.class_divergence(classifier.Embedding(torch.empty(0), probabilities).class_shares)

    even = torch.eye(10, dtype=torch.float64).repeat(7, 1)
    assert divergence(even) == pytest.approx(0, abs=1e-12)
    assert divergence(even[:1].expand(50, -1)) == pytest.approx(math.log(10))
    assert divergence(even[:5]) == pytest.approx(math.log(2))


def test_committed_classifier_is_verified_and_knows_the_test_images(test_split, tmp_path):
    content = classifier.WEIGHTS.read_bytes()
    assert len(content) < 1.5e6
    assert hashlib.sha256(content).hexdigest() == classifier.SHA256
    found = classifier.reference("test")
    assert float((found.probabilities.argmax(1) == test_split.labels).double().mean()) >= 0.925
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(10_000, dtype=torch.float64), atol=1e-5, rtol=0)
    altered = tmp_path / "altered.pt"
    altered.write_bytes(content[:-1] + b"x")
    with pytest.raises(BadInput, match=r"altered\.pt: altered .*git checkout"):
        classifier.load_classifier(altered)
    with pytest.raises(BadInput, match=r"none\.pt: .*git checkout"):
        classifier.load_classifier(tmp_path / "none.pt")


def test_embedding_of_an_image_does_not_depend_on_the_others(test_split):
    whole = classifier.embed(test_split.images[:600])
    torch.testing.assert_close(
        classifier.embed(test_split.images[550:551]).features, whole.features[550:551], rtol=1e-5, atol=1e-6
    )


def test_scale_is_in_order():
    """The committed scale: floor, growing damage, ceilings, none within the other's spread."""
    frechet, spread = SCALE["frechet"], SCALE["frechet_std"]
    noise = [f"noise, standard deviation {sigma}" for sigma in (0.05, 0.1, 0.2)]
    blur = [f"blur of {sigma} pixels" for sigma in (0.5, 1.0, 2.0)]
    missing = ["one class missing", "half the classes missing"]
    for damage in (noise, blur, missing):
        for less, more in zip(["training images", *damage], [*damage, "uniform noise"], strict=True):
            assert frechet[less] + 5 * spread[less] < frechet[more] - 5 * spread[more], (less, more)
    damaged = SCALE[SCALE["group"].isin(["noise", "blur", "classes"])]
    assert SCALE[SCALE["group"] == "ceiling"]["frechet"].min() > damaged["frechet"].max()


def test_score_puts_few_images_in_the_order_of_the_scale(train_split):
    """The code behind the committed scale, on 2,000 images."""
    images = train_split.images[:2000]
    noise = 255 * 0.2 * torch.randn(images.shape, generator=rng_for(0, "noise", 0))
    noisy = (images + noise).clamp(0, 255).round().to(torch.uint8)
    clean, damaged = distances.score(images), distances.score(noisy)
    half = distances.score(images[train_split.labels[:2000] >= 5])
    assert clean["frechet"] < half["frechet"]
    assert clean["frechet"] < damaged["frechet"]
    assert clean["kid"] < damaged["kid"]
    assert clean["recall"] > half["recall"] + 0.1
    assert half["class_divergence"] == pytest.approx(math.log(2), abs=0.2)
    shares = classifier.embed(images).class_shares
    assert [clean[f"class_{label}"] for label in range(10)] == pytest.approx(shares.tolist())
    assert clean["precision"] > damaged["precision"] + 0.1
    assert half["precision"] > half["recall"] + 0.1  # what is missing is recall, not precision


def test_score_is_that_of_the_committed_scale(train_split):
    """The Fréchet distance of one image repeated does not depend on how often, so few copies give the table's value."""
    mean = train_split.images.float().mean(0, keepdim=True).round().to(torch.uint8)
    found, row = distances.score(mean.expand(20, -1, -1, -1)), SCALE.loc["pixel-wise mean image"]
    for name in ("frechet", "precision", "recall", "class_divergence", "confidence", "class_0", "class_1"):
        assert found[name] == pytest.approx(row[name], rel=1e-5, abs=1e-9), name


def test_features_of_imagenet_do_not_depend_on_the_batch_and_see_what_the_classifier_does(test_split):
    few = imagenet.embed(test_split.images[:60]).features
    assert few.shape == (60, 1280)
    assert torch.allclose(imagenet.embed(test_split.images[40:60]).features, few[40:], atol=1e-4)
    nearest = torch.cdist(few, few).fill_diagonal_(torch.inf).argmin(1)
    same = test_split.labels[:60] == test_split.labels[:60][nearest]
    assert float(same.double().mean()) > 0.3  # by chance 0.1, with a standard deviation of 0.04


def test_missing_and_altered_packages_of_imagenet_are_named(monkeypatch, tmp_path):
    imagenet._network.cache_clear()
    monkeypatch.setattr(imagenet, "SHA256", "0")
    with pytest.raises(BadInput, match=r"\.pth: altered .*; install the package again"):
        imagenet.embed(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(BadInput, match="efficientnet_lite_pytorch is not installed; pip install"):
        imagenet.embed(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


@pytest.mark.slow
def test_score_on_imagenet_is_that_of_the_committed_scale(train_split):
    mean = train_split.images.float().mean(0, keepdim=True).round().to(torch.uint8)
    found = distances.score(mean.expand(20, -1, -1, -1), extractor="imagenet")
    table = pd.read_csv(ROOT / "outputs" / "reference" / "scale" / "scale_imagenet.csv").set_index("images")
    assert found["frechet"] == pytest.approx(table.loc["pixel-wise mean image", "frechet"], rel=1e-3)


def test_scale_in_both_spaces_sees_damage_and_few_images_repeated():
    second = pd.read_csv(ROOT / "outputs" / "reference" / "scale" / "scale_imagenet.csv").set_index("images")
    for table in (SCALE, second):
        floor, repeated = table.loc["training images"], table.loc["1,000 images, each ten times"]
        assert table["frechet"].idxmin() == "training images"
        assert repeated["precision"] == pytest.approx(floor["precision"], abs=0.02)  # each image by itself is real
        assert repeated["coverage"] < 0.4 * floor["coverage"]
        assert repeated["recall"] == 0


def test_spread_is_over_the_sets():
    found = distances.with_spread([{"frechet": 1.0, "class_0": 0.5}, {"frechet": 4.0, "class_0": 0.7}])
    assert found == pytest.approx({"frechet": 2.5, "class_0": 0.6, "frechet_std": 4.5**0.5})
