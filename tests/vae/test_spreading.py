"""Labels spread over a graph: the exact solution, no leak of labels that were not drawn, better than none."""

import pytest
import torch

from common.data import draw_labelled
from common.run import rng_for
from common.vae import classifiers, spreading


@pytest.fixture(scope="module")
def images(test_split):
    return test_split.images[:2000].flatten(1).float() / 255, test_split.labels[:2000]


@pytest.fixture(scope="module")
def graph(images):
    return spreading.neighbour_graph(images[0])


def test_graph_joins_nearest_neighbours_both_ways(images, graph):
    distances = torch.cdist(images[0], images[0]).fill_diagonal_(torch.inf)
    near = torch.zeros(2000, 2000).scatter_(1, distances.topk(spreading.NEIGHBOURS, largest=False).indices, 1)
    joined = ((near + near.T) > 0).double()
    degrees = joined.sum(1)
    expected = joined / (degrees[:, None] * degrees).sqrt()
    assert (graph.weights.to_dense() - expected).abs().max() < 1e-6


def test_spreading_solves_its_equation(graph, monkeypatch):
    monkeypatch.setattr(spreading, "ITERATIONS", 300)
    chosen, y = torch.arange(0, 400, 20), torch.arange(20) % 10
    target = torch.zeros(2000, 10, dtype=torch.float64)
    target[chosen, y] = 1
    exact = torch.linalg.solve(torch.eye(2000) - spreading.ALPHA * graph.weights.to_dense().double(), target)
    exact = exact.clamp(min=0) / exact.clamp(min=0).sum(0)
    reached = exact.sum(1) > 1e-6
    exact = (exact / exact.sum(1, keepdim=True))[reached]
    assert (spreading.spread(graph, chosen, y)[reached] - exact).abs().max() < 1e-2


def test_spread_labels_help_and_labels_that_were_not_drawn_change_nothing(images, graph, test_split):
    features, labels = images
    queries = test_split.images[2000:4000].flatten(1).float() / 255
    truth = test_split.labels[2000:4000]
    chosen = draw_labelled(labels, 50, rng_for(0, "test", 0))
    predicted = classifiers.predict(spreading.fit_spread(graph, labels, chosen, 3.0), queries)
    plain, _ = classifiers.classify(features, labels, chosen, queries, (3.0,))
    assert (predicted == truth).float().mean() > (plain == truth).float().mean()
    permuted = labels.roll(3)
    permuted[chosen] = labels[chosen]
    again = classifiers.predict(spreading.fit_spread(graph, permuted, chosen, 3.0), queries)
    assert again.equal(predicted)
