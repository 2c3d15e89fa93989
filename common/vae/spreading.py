"""Labels spread over a graph of all training images, and an SVM that learns from the surest of them.

Label spreading is that of Zhou et al. 2004, "Learning with Local and Global Consistency"; normalising the mass of each
class is class mass normalisation, Zhu et al. 2003. The graph is of training images only.
"""

import warnings
from typing import NamedTuple

import torch

from common.vae.classifiers import CHUNK, Machine, fit_svms, predict

NEIGHBOURS, ALPHA = 10, 0.99
ITERATIONS = 20  # of conjugate gradients; 60 gave the same accuracy
SURER = 0.7  # fraction of all images whose spread labels are used at most
PER_CLASS = 400  # of them in each class
PENALTY = 0.1  # of the SVM for an image with a spread label


class Graph(NamedTuple):
    """Features of all training images, float32 [N, d], and D^(-1/2) W D^(-1/2) of their graph, sparse [N, N]."""

    features: torch.Tensor
    weights: torch.Tensor


def neighbours(queries: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the `k` nearest points [N, d] of each query [M, d], nearest first: int64 [M, k]."""
    squares, found = points.square().sum(1), []
    for chunk in queries.split(CHUNK):
        found.append(torch.addmm(squares, chunk, points.T, alpha=-2).topk(k, largest=False).indices)
    return torch.cat(found)


def neighbour_graph(features: torch.Tensor) -> Graph:
    """The graph of features [N, d]: W joins two images where one is among the `NEIGHBOURS` nearest of the other.

    D is diagonal and holds the sums of W's rows.
    """
    n = len(features)
    near = neighbours(features, features, NEIGHBOURS + 1)
    rows = torch.arange(n).repeat_interleave(NEIGHBOURS + 1)
    columns = near.flatten()
    rows, columns = rows[rows != columns], columns[rows != columns]
    joined = torch.cat([rows * n + columns, columns * n + rows]).unique()  # sorted by row, each pair once
    rows, columns = joined // n, joined % n
    degrees = torch.bincount(rows, minlength=n)
    values = (degrees[rows] * degrees[columns]).float().rsqrt()
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch calls sparse matrices a beta feature
        return Graph(features, torch.sparse_csr_tensor(ends, columns, values, (n, n)))


def spread(graph: Graph, chosen: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Probabilities of the classes of every image of the graph, from labels y [n] of the chosen ones: [N, 10].

    Solves (I - alpha S) F = Y by conjugate gradients, all classes together; each column of F is then divided by its
    sum, each row by its own.
    """
    target = torch.zeros(len(graph.features), 10)
    target[chosen, y] = 1
    solution, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual.square().sum(0)
    for _ in range(ITERATIONS):
        image = direction - ALPHA * (graph.weights @ direction)
        step = size / (direction * image).sum(0).clamp(min=1e-30)
        solution += step * direction
        residual -= step * image
        former, size = size, residual.square().sum(0)
        direction = residual + size / former.clamp(min=1e-30) * direction
    mass = solution.clamp(min=0)
    mass = mass / mass.sum(0).clamp(min=1e-30)
    return mass / mass.sum(1, keepdim=True).clamp(min=1e-30)


def fit_spread(graph: Graph, labels: torch.Tensor, chosen: torch.Tensor, penalty: float) -> Machine:
    """An SVM on the chosen images with their labels and on `PER_CLASS` images of each class with spread labels.

    These are the first in the order of the archives, which is random, among the `SURER` surest of all. Only
    `labels[chosen]` is ever read.

    Args:
        labels: of all images of the graph, int64 [N].
        chosen: indices of the labelled ones, int64 [n].
        penalty: C for the labelled images; for the others it is `PENALTY`, so that they count less the more labels
            there are.
    """
    y = labels[chosen]
    sureness, found = spread(graph, chosen, y).max(1)
    usable = sureness >= sureness.kthvalue(max(1, round((1 - SURER) * len(sureness)))).values
    usable[chosen] = False
    added = torch.cat([(usable & (found == label)).nonzero()[:PER_CLASS, 0] for label in range(10)])
    x = graph.features[torch.cat([chosen, added])].double()
    weights = torch.cat([torch.full((len(y),), penalty / PENALTY), torch.ones(len(added))]).double()
    [machine] = fit_svms(x, torch.cat([y, found[added]]), (PENALTY,), weights)
    return machine


def classify_spread(
    graph: Graph, labels: torch.Tensor, queries: torch.Tensor, penalty: float, chosen: torch.Tensor
) -> torch.Tensor:
    """Classes of queries [M, d] by the machine of `fit_spread`, int64 [M]."""
    return predict(fit_spread(graph, labels, chosen, penalty), queries)
