"""Classifiers that see few labels, on the CPU.

Each reads the labels of the drawn images alone; features of other training images may be used, test images never.
"""

from typing import NamedTuple

import joblib
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

CHUNK = 1000  # queries whose kernel is computed at once
LARGEST = 8000  # labelled images whose kernel is computed at once: 512 MB of float64
NEIGHBOURS = (1, 3, 5, 9)


class Machine(NamedTuple):
    """A fitted support vector machine with the kernel exp(-gamma |a - b|^2)."""

    support: torch.Tensor  # support vectors, float64 [S, d]
    weights: torch.Tensor  # of each support vector in each pair of classes, float64 [S, P]
    intercepts: torch.Tensor  # float64 [P]
    pairs: torch.Tensor  # places of both classes of each pair in `classes`, int64 [2, P]
    classes: torch.Tensor  # int64 [K]
    gamma: float


def rbf_kernel(a: torch.Tensor, b: torch.Tensor, gamma: float) -> torch.Tensor:
    """exp(-gamma |a_i - b_j|^2) of float64 rows [N, d] and [M, d]: [N, M], by one matrix product."""
    ones_a, ones_b = a.new_ones(len(a), 1), b.new_ones(len(b), 1)
    left = torch.cat([2 * gamma * a, -gamma * a.square().sum(1, keepdim=True), ones_a], 1)
    right = torch.cat([b, ones_b, -gamma * b.square().sum(1, keepdim=True)], 1)
    return (left @ right.T).clamp_(max=0).exp_()


def fit_svms(
    x: torch.Tensor, y: torch.Tensor, penalties: tuple[float, ...], sample_weights: torch.Tensor | None = None
) -> list[Machine]:
    """A machine for each penalty C on float64 features [n, d] and labels [n]; gamma = 1 / (d * variance of x).

    The kernel is computed once, as a matrix product, and given to libsvm; of more than `LARGEST` images libsvm computes
    the part that it needs.
    """
    gamma = 1 / (x.shape[1] * float(x.var(correction=0)))
    whole = len(x) <= LARGEST
    given = (rbf_kernel(x, x, gamma) if whole else x).numpy()
    weights = None if sample_weights is None else sample_weights.numpy()
    found = []
    for penalty in penalties:
        kernel = {"kernel": "precomputed"} if whole else {"kernel": "rbf", "gamma": gamma, "cache_size": 2000}
        found.append(_machine(SVC(C=penalty, **kernel).fit(given, y.numpy(), weights), x, gamma))
    return found


def _machine(fitted: SVC, x: torch.Tensor, gamma: float) -> Machine:
    """libsvm's coefficients as one matrix; of a support vector of class i, their row j - 1 (j > i) or j is pair ij."""
    k = len(fitted.classes_)
    first, second = torch.triu_indices(k, k, 1)
    coefficients = torch.from_numpy(fitted.dual_coef_)  # [K - 1, S]
    owner = torch.repeat_interleave(torch.arange(k), torch.from_numpy(fitted.n_support_).long())  # [S]
    weights = torch.zeros(coefficients.shape[1], len(first), dtype=torch.float64)
    for pair, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        weights[owner == i, pair] = coefficients[j - 1, owner == i]
        weights[owner == j, pair] = coefficients[i, owner == j]
    intercepts, classes = torch.from_numpy(fitted.intercept_), torch.from_numpy(fitted.classes_)
    support = x[torch.from_numpy(fitted.support_).long()]
    return Machine(support, weights, intercepts, torch.stack([first, second]), classes, gamma)


def predict(machine: Machine, queries: torch.Tensor) -> torch.Tensor:
    """Classes of queries [M, d], int64 [M]: each pair of classes has a vote; of equal ones the first class wins."""
    found = []
    for chunk in queries.split(CHUNK):
        values = rbf_kernel(chunk.double(), machine.support, machine.gamma) @ machine.weights + machine.intercepts
        first, second = machine.pairs
        winners = torch.where(values > 0, first, second)  # [CHUNK, P]
        votes = torch.zeros(len(chunk), len(machine.classes)).scatter_add_(1, winners, torch.ones(winners.shape))
        found.append(machine.classes[votes.argmax(1)])
    return torch.cat(found)


def stratified_folds(y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Five parts (fewer where a class has fewer images) of labels [n]: indices to fit and to judge, for each part."""
    n_folds = min(5, int(torch.bincount(y)[y.unique()].min()))
    if n_folds < 2:
        return []
    parts = StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y, y)
    return [(torch.from_numpy(fit), torch.from_numpy(judge)) for fit, judge in parts]


def choose_penalty(x: torch.Tensor, y: torch.Tensor, penalties: tuple[float, ...]) -> float:
    """The penalty with the best accuracy in cross-validation inside the labelled images; the first one of equals."""
    folds = stratified_folds(y) if len(penalties) > 1 else []
    if not folds:
        return penalties[0]

    def accuracies(fit: torch.Tensor, judge: torch.Tensor) -> list[float]:
        machines = fit_svms(x[fit], y[fit], penalties)
        return [float((predict(machine, x[judge]) == y[judge]).double().mean()) for machine in machines]

    with joblib.parallel_config("threading"):
        found = joblib.Parallel(n_jobs=-1)(joblib.delayed(accuracies)(*fold) for fold in folds)
    return penalties[int(np.mean(found, axis=0).argmax())]


def classify(
    features: torch.Tensor,
    labels: torch.Tensor,
    chosen: torch.Tensor,
    queries: torch.Tensor,
    penalties: tuple[float, ...],
) -> tuple[torch.Tensor, float]:
    """Fit an RBF SVM on the chosen labelled features and predict the classes of the queries.

    Only `labels[chosen]` is ever read, so no other label can reach the SVM, its penalty or its kernel width.

    Args:
        features, labels: of the training images, [N, d] and [N].
        chosen: indices of the labelled images.
        queries: features to classify, [M, d].
        penalties: values of C; where there are several, cross-validation inside the chosen images chooses.

    Returns:
        predicted classes, int64 [M], and the chosen C.
    """
    x, y = features[chosen].double(), labels[chosen]
    penalty = choose_penalty(x, y, penalties)
    [machine] = fit_svms(x, y, (penalty,))
    return predict(machine, queries), penalty


def nearest_neighbours(x: torch.Tensor, y: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """k-nearest-neighbour classes of queries [M, d]; leaving one out of the labelled images [n, d] chooses k."""
    largest = min(NEIGHBOURS[-1], len(x) - 1)
    others = torch.cdist(x, x).fill_diagonal_(torch.inf).topk(largest, largest=False).indices
    kept = [k for k in NEIGHBOURS if k <= largest]
    k = max(kept, key=lambda k: (_majority(y[others[:, :k]]) == y).sum())
    near = [torch.cdist(chunk, x).topk(k, largest=False).indices for chunk in queries.split(CHUNK)]
    return _majority(y[torch.cat(near)])


def _majority(labels: torch.Tensor) -> torch.Tensor:
    """The most frequent class of each row of labels [M, k], nearest first; of equal ones that of the nearer image."""
    nearer = 1 - 0.01 * torch.arange(labels.shape[1]) / labels.shape[1]
    return torch.zeros(len(labels), 10).scatter_add_(1, labels, nearer.expand(labels.shape)).argmax(1)


def logistic_regression(x: torch.Tensor, y: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Classes of queries [M, d] by multinomial logistic regression on [n, d], scikit-learn's penalty of 1."""
    fitted = LogisticRegression(max_iter=1000).fit(x.numpy(), y.numpy())
    return torch.from_numpy(fitted.predict(queries.numpy()))
