"""Classifiers with few labels: equal to scikit-learn's, blind to labels that were not drawn."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from common.data import draw_labelled
from common.run import rng_for
from common.vae import classifiers


@pytest.fixture(scope="module")
def pixels(test_split):
    """2,000 images to draw from, and 300 queries: features and labels."""
    features = test_split.images[:2300].flatten(1).float() / 255
    return features[:2000], test_split.labels[:2000], features[2000:], test_split.labels[2000:2300]


def test_kernel_is_that_of_scikit_learn():
    a, b = torch.randn(2, 40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert classifiers.rbf_kernel(a, b[:30], 0.3).numpy() == pytest.approx(rbf_kernel(a, b[:30], gamma=0.3), abs=1e-12)


@pytest.mark.parametrize("size", [20, 200])
def test_svm_predicts_and_chooses_as_scikit_learn_does(pixels, size):
    features, labels, queries, _ = pixels
    chosen = draw_labelled(labels, size, rng_for(0, "test", 0))
    x, y, penalties = features[chosen].double().numpy(), labels[chosen].numpy(), (0.5, 1.0, 8.0)
    folds = StratifiedKFold(min(5, size // 10), shuffle=True, random_state=0)
    search = GridSearchCV(SVC(gamma="scale"), {"C": penalties}, cv=folds).fit(x, y)
    predicted, penalty = classifiers.classify(features, labels, chosen, queries, penalties)
    assert penalty == search.best_params_["C"]
    assert (predicted.numpy() == search.predict(queries.double().numpy())).all()


def test_large_sets_go_another_way_to_the_same_machine(pixels, monkeypatch):
    features, labels, queries, _ = pixels
    settings = features, labels, torch.arange(300), queries, (2.0,)
    predicted, _ = classifiers.classify(*settings)
    monkeypatch.setattr(classifiers, "LARGEST", 100)
    assert classifiers.classify(*settings)[0].equal(predicted)


def test_weights_of_images_count_as_copies_of_them(pixels):
    features, labels, queries, _ = pixels
    x, y = features[:100].double(), labels[:100]
    copied, weights = torch.cat([x, x[:50]]), torch.cat([torch.full((50,), 2.0), torch.ones(50)]).double()
    [weighted] = classifiers.fit_svms(x, y, (0.01,), weights)
    [repeated] = classifiers.fit_svms(copied, torch.cat([y, y[:50]]), (0.01,))
    repeated = repeated._replace(gamma=weighted.gamma)
    plain = SVC(C=0.01, gamma=weighted.gamma).fit(x.numpy(), y.numpy(), weights.numpy())
    assert (classifiers.predict(weighted, queries).numpy() == plain.predict(queries.double().numpy())).all()


def test_neighbours_vote_as_in_scikit_learn(pixels):
    features, labels, queries, _ = pixels
    chosen = draw_labelled(labels, 500, rng_for(0, "test", 0))
    x, y = features[chosen], labels[chosen]
    found = classifiers.nearest_neighbours(x, y, queries).numpy()

    def nearer(distances):
        return np.tile(1 - 0.01 * np.arange(distances.shape[1]) / distances.shape[1], (len(distances), 1))

    machines = [KNeighborsClassifier(k, weights=nearer).fit(x, y) for k in classifiers.NEIGHBOURS]
    assert max((machine.predict(queries) == found).mean() for machine in machines) > 0.995  # equal but for rounding


METHODS = {
    "svm": lambda features, labels, chosen, queries: classifiers.classify(
        features, labels, chosen, queries, (1.0, 10.0)
    )[0],
    "neighbours": lambda f, l, chosen, q: classifiers.nearest_neighbours(f[chosen], l[chosen], q),
    "logistic": lambda f, l, chosen, q: classifiers.logistic_regression(f[chosen], l[chosen], q),
}


@pytest.mark.parametrize("name", METHODS)
def test_labels_that_were_not_drawn_change_no_prediction(pixels, name):
    features, labels, queries, truth = pixels
    method = METHODS[name]
    chosen = draw_labelled(labels, 100, rng_for(0, "test", 0))
    predicted = method(features, labels, chosen, queries)
    assert (predicted == truth).float().mean() > 0.5
    others = torch.ones(2000, dtype=torch.bool)
    others[chosen] = False
    permuted = labels.clone()
    permuted[others] = labels[others][torch.randperm(1900, generator=torch.Generator().manual_seed(0))]
    assert not permuted.equal(labels)
    assert method(features, permuted, chosen, queries).equal(predicted)
    # The control: permuting the drawn labels does change predictions.
    permuted[chosen] = labels[chosen].roll(7)
    assert not method(features, permuted, chosen, queries).equal(predicted)


def test_penalty_is_chosen_among_those_given():
    torch.manual_seed(0)
    features, labels = torch.randn(200, 3), torch.arange(200) % 10
    assert classifiers.classify(features, labels, torch.arange(100), features, (2.5,))[1] == 2.5
    assert classifiers.classify(features, labels, torch.arange(100), features, (1.0, 3.0))[1] in (1.0, 3.0)
