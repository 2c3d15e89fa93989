"""The test for copies sees planted ones, leaves honest images alone, and its threshold is what it says."""

import pytest
import torch

from common.data import load_fashion_mnist
from common.quality import copies
from common.run import rng_for
from studies.copies import KINDS

FOUND = ["as they are", "shifted by up to 2 pixels", "mirrored", "blurred by 0.5 pixels", "noise of 0.05"]


@pytest.fixture(scope="module")
def sources(train_split):
    """Every sixth training image: fewer sources make copies no harder to see, and honest images less alike."""
    return copies.Sources(train_split.images[::6])


@pytest.mark.parametrize("kind", FOUND)
def test_planted_copies_are_found_with_their_source(sources, train_split, kind):
    taken = torch.arange(0, 10_000, 20)
    found = sources.find(KINDS[kind](train_split.images[::6][taken], rng_for(0, kind, 0)))
    assert found.copied.double().mean() >= 0.95
    assert (found.nearest == taken).double().mean() >= 0.95


@pytest.mark.parametrize("kind", ["as they are", "shifted by up to 2 pixels", "blurred by 1 pixel", "noise of 0.05"])
def test_honest_images_are_no_copies(sources, test_split, kind):
    found = sources.find(KINDS[kind](test_split.images[:1000], rng_for(0, kind, 0)))
    assert found.copied.double().mean() <= 0.02


def test_a_tenth_of_copies_among_honest_images_is_counted(sources, train_split, test_split):
    rng = rng_for(0, "mixed", 0)
    planted = KINDS["blurred by 0.5 pixels"](KINDS["shifted by up to 2 pixels"](train_split.images[:300:6], rng), rng)
    mixed = torch.cat([test_split.images[:450], planted])
    row = copies.table({"mixed": sources.find(mixed)}).iloc[0]
    assert (row["n"], row["low"] < row["called_copies"] < row["high"]) == (500, True)
    assert 0.08 <= row["called_copies"] <= 0.12


def test_neither_a_shift_nor_mirroring_changes_the_descriptor():
    x = torch.zeros(2, 28, 28)
    x[:, 8:20, 9:18] = torch.rand(2, 12, 9, generator=rng_for(0, "descriptor", 0))
    wanted = copies.descriptor(x)
    for other in (x.roll((2, -1), (1, 2)), x.flip(2)):
        torch.testing.assert_close(copies.descriptor(other), wanted, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(copies.descriptor(x.transpose(1, 2)), wanted, rtol=1e-2)


def test_the_search_may_be_stopped(sources, test_split):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        sources.find(test_split.images[:10], stop)


@pytest.mark.slow
def test_threshold_is_the_quantile_of_the_validation_images():
    found = copies.Sources(load_fashion_mnist("fit").images).find(load_fashion_mnist("validation").images)
    assert float(found.ratio.quantile(0.005)) == pytest.approx(copies.THRESHOLD, abs=0.01)


@pytest.mark.slow
def test_at_most_one_test_image_in_a_hundred_is_called_a_copy():
    assert copies.false_alarms() <= 0.01
