"""Labels spread over a graph of all training images, and an SVM that learns from the surest of them.

Label spreading is that of Zhou et al. 2004, "Learning with Local and Global Consistency"; normalising the mass of each
class is class mass normalisation, Zhu et al. 2003. The graph is of training images only.
"""

import torch

from common.vae.classifiers import CHUNK

NEIGHBOURS, ALPHA = 10, 0.99
ITERATIONS = 30  # of conjugate gradients; more change no prediction that counts
LABELLED_WEIGHT = 5.0
SUREST, SURER = 400, 0.7


def neighbours(queries: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the `k` nearest points [N, d] of each query [M, d], nearest first: int64 [M, k]."""
    squares, found = points.square().sum(1), []
    for chunk in queries.split(CHUNK):
        found.append(torch.addmm(squares, chunk, points.T, alpha=-2).topk(k, largest=False).indices)
    return torch.cat(found)


def neighbour_graph(features: torch.Tensor) -> torch.Tensor:
    """D^(-1/2) W D^(-1/2) of features [N, d], sparse float32 [N, N].

    W joins two images where one is among the `NEIGHBOURS` nearest of the other; D holds the sums of its rows.
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
    return torch.sparse_csr_tensor(ends, columns, values, (n, n), check_invariants=False)


def spread(graph: torch.Tensor, chosen: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Probabilities of classes of every image of the graph [N, N], from labels y [n] of the chosen ones: [N, 10].

    Solves (I - alpha S) F = Y by conjugate gradients, all classes together; each column of F is then divided by its
    sum, each row by its own.
    """
    target = torch.zeros(len(graph), 10)
    target[chosen, y] = 1
    solution, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual.square().sum(0)
    for _ in range(ITERATIONS):
        image = direction - ALPHA * (graph @ direction)
        step = size / (direction * image).sum(0).clamp(min=1e-30)
        solution += step * direction
        residual -= step * image
        former, size = size, residual.square().sum(0)
        direction = residual + size / former.clamp(min=1e-30) * direction
    mass = solution.clamp(min=0)
    mass = mass / mass.sum(0).clamp(min=1e-30)
    return mass / mass.sum(1, keepdim=True).clamp(min=1e-30)
