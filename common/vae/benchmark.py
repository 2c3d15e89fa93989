"""What VAE features are worth with few labels: other features, other classifiers, on the same random subsets."""

from functools import partial
from typing import Any

import torch

from common.data import Split
from common.run import Run
from common.vae import classifiers, experiments, figures, spreading
from common.vae.features import pixels, posterior_means, prepare, principal_components, untrained
from common.vae.likelihood import log_likelihood
from common.vae.network import VAE
from common.vae.results import interruptible

PENALTY = 3.0  # C of every SVM here
UNSTRATIFIED = 100  # labels of the small table
LIKELIHOODS = ((500, 500), (5000, 50))  # samples of z and test images


def methods(vae: VAE, train: Split, test: Split, config: Any) -> dict[str, experiments.Method]:
    """Every method by its name, the assignment's first; each predicts the test images from indices of labelled ones.

    Features, graphs and projections are of the training images alone; a test image reaches only its own prediction.
    """
    labels = train.labels.cpu()
    means = posterior_means(vae, train.images).cpu(), posterior_means(vae, test.images).cpu()
    raw = pixels(train.images), pixels(test.images)
    random = untrained(config.latent_dim, config.width, train.images, config.seed)
    untrained_means = posterior_means(random, train.images).cpu(), posterior_means(random, test.images).cpu()
    graph = spreading.neighbour_graph(means[0])
    near = spreading.neighbours(means[1], means[0], spreading.NEIGHBOURS)
    centre, deviation = means[0].mean(0), means[0].std(0)
    scaled = tuple((part - centre) / deviation for part in means)

    def svm(features: tuple[torch.Tensor, ...], chosen: torch.Tensor) -> torch.Tensor:
        return classifiers.classify(features[0], labels, chosen, features[1], (PENALTY,))[0]

    def nearest(chosen: torch.Tensor) -> torch.Tensor:
        return classifiers.nearest_neighbours(means[0][chosen], labels[chosen], means[1])

    def logistic(chosen: torch.Tensor) -> torch.Tensor:
        return classifiers.logistic_regression(scaled[0][chosen], labels[chosen], scaled[1])

    def spread(chosen: torch.Tensor) -> torch.Tensor:
        return spreading.spread(graph, chosen, labels[chosen])[near].sum(1).argmax(1)

    return {
        "SVM, VAE means": partial(svm, means),
        "SVM, raw pixels": partial(svm, raw),
        "SVM, PCA": partial(svm, principal_components(*raw, config.latent_dim)),
        "SVM, untrained encoder": partial(svm, untrained_means),
        "nearest neighbours, VAE means": nearest,
        "logistic regression, VAE means": logistic,
        "label spreading, VAE means": spread,
        "SVM and spread labels, VAE means": partial(spreading.classify_spread, graph, labels, means[1], PENALTY),
    }


def measure(run: Run, vae: VAE, train: Split, test: Split, config: Any) -> None:
    """`benchmark.csv`, `benchmark_draws.csv`, `benchmark_unstratified*.csv`, `likelihood.csv` and `benchmark.png`."""
    found = interruptible(run, "features of the benchmark", partial(methods, vae, train, test, config))
    labels, truth = train.labels.cpu(), test.labels.cpu()
    some = {name: (method, config.draws) for name, method in found.items()}
    first = next(iter(found))
    whole = {first: (partial(interruptible_method, run, found[first]), 1)}  # no choice: every draw is all labels
    jobs = [
        ("benchmark_draws", some, config.label_sizes, experiments.balanced),
        ("benchmark_draws", whole, [len(labels)], experiments.unstratified),
        ("benchmark_unstratified_draws", some, [UNSTRATIFIED], experiments.unstratified),
    ]
    for table, chosen_methods, sizes, subset in jobs:
        for method, size, draw, predicted in experiments.predictions(run, table, chosen_methods, labels, sizes, subset):
            accuracy = float((predicted == truth).double().mean())
            run.record(table, method=method, size=size, draw=draw, accuracy=accuracy)
    for table in ("benchmark", "benchmark_unstratified"):
        run.replace(table, experiments.paired_table(run.rows(f"{table}_draws")))
    measure_likelihood(run, vae, test, config)
    figures.benchmark(run.rows("benchmark"), run.folder / "benchmark.png")
    shown = run.rows("benchmark")[["method", "size", "mean", "ci95", "difference", "difference_ci95"]]
    run.say("\n" + shown.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))


def interruptible_method(run: Run, method: experiments.Method, chosen: torch.Tensor) -> torch.Tensor:
    """A method whose one fit takes minutes."""
    return interruptible(run, f"SVM on all {len(chosen):,} labels", partial(method, chosen))


def measure_likelihood(run: Run, vae: VAE, test: Split, config: Any) -> None:
    """`likelihood.csv`: importance-weighted log-likelihood of the first test images [nats per image]."""
    done = {row["samples"] for row in run.tables.get("likelihood", [])}
    for samples, n in LIKELIHOODS:
        if samples in done:
            continue
        values: list[torch.Tensor] = []
        images = prepare(test.images[:n])
        for i, image in experiments.paced(run, f"likelihood with {samples:,} samples", list(enumerate(images))):
            rng = run.rng(f"likelihood {samples}", i)
            values.append(log_likelihood(vae, image.unsqueeze(0), config.sigma, samples, rng))
        found = torch.cat(values)
        error = float(found.std() / len(found) ** 0.5)
        run.record("likelihood", samples=samples, images=len(found), log_likelihood=float(found.mean()), error=error)
