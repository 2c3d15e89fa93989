"""Question 3: how much do the latents of a VAE, trained without labels, help a classifier that has few?

A convolutional VAE learns from the 60,000 Fashion-MNIST training images without their labels. Its encoder is then
frozen and a support vector machine with an RBF kernel is fitted to the posterior means of 100, 600, 1000 and 3000
labelled images, equally many per class. This is model M1 of Kingma et al. 2014 (arXiv 1406.5298, section 2.1).

    python q3_vae_svm.py
    python q3_vae_svm.py --epochs 3 --label-sizes 100 1000 --draws 5 --out outputs/q3_quick

Writes to --out: metrics.csv, losses.csv, accuracy.csv, accuracy_draws.csv, elbo.png, reconstructions.png, samples.png,
latents.png, accuracy.png, confusion.png, config.json, environment.json and checkpoints/.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from common import figures
from common.data import (
    CLASSES,
    Split,
    draw_labelled,
    draw_offsets,
    load_fashion_mnist,
    to_uint8,
    to_unit_range,
    translate,
)
from common.losses import gaussian_reconstruction, kl_to_standard_normal, reparameterize
from common.quality import distances
from common.run import Guard, Run, rng_for
from common.run.cli import launch, require, require_range, resolve_device
from common.run.graphs import Graphed, adam, set_learning_rate
from common.schedule import one_cycle
from common.vae import figures as vae_figures
from common.vae.network import VAE

MAX_SHIFT = 2  # pixels by which augmentation moves an image each way
REFERENCE = {100: 0.570, 600: 0.780, 1000: 0.824, 3000: 0.843}


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    epochs: int = 15
    """Passes over the 60,000 training images [epochs]; the assignment's value."""
    batch_size: int = 64
    """Images per optimizer step; the assignment leaves it open."""
    lr: float = 1e-3
    """Adam's step size at its peak; the assignment's value. It rises for 30 % of training, then falls as a cosine."""
    latent_dim: int = 64
    """Dimensions of the latent z."""
    width: int = 16
    """Channels of the encoder's first layer."""
    sigma: float = 0.1
    """Standard deviation of a pixel given z [pixel range 0-1]; small keeps the latents alive, see REPORT.md."""
    augment: bool = True
    """Shift training images by up to 2 pixels and mirror half of them (`--augment False` does not)."""
    label_sizes: tuple[int, ...] = (100, 600, 1000, 3000)
    """Sizes of the labelled subsets [images], multiples of ten; the assignment's values."""
    draws: int = 20
    """Random labelled subsets per size."""
    svm_c: tuple[float, ...] = (2.0, 4.0, 8.0)
    """Penalties C of the SVM; five-fold cross-validation inside each labelled subset chooses one. The kernel's gamma is
    1 / (latent_dim * variance of the labelled features)."""
    quality_samples: int = 10_000
    """Images in each of the three sets of prior samples that quality.csv measures [images]; 0 measures nothing."""
    projection: Literal["tsne", "pca"] = "tsne"
    """How latents.png shows the latents in two dimensions: t-SNE (about 30 s) or the first principal components."""
    seed: int = 0
    """Decides every random number of the run."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks run; auto takes an accelerator where there is one. The SVM runs on the processor."""
    out: Path = Path("outputs/q3_vae_svm")
    """Folder of the run; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""

    def __post_init__(self) -> None:
        require_range("--epochs", self.epochs, 1, 10_000, "a whole number")
        require_range("--batch-size", self.batch_size, 2, 60_000, "a whole number")
        require_range("--lr", self.lr, 1e-9, 10)
        require_range("--latent-dim", self.latent_dim, 2, 4096, "a whole number")
        require_range("--width", self.width, 1, 512, "a whole number")
        require_range("--sigma", self.sigma, 1e-3, 10)
        require(len(self.label_sizes) > 0, "--label-sizes", "no size", "one or more numbers")
        for size in self.label_sizes:
            require(size % 10 == 0 and 10 <= size <= 60_000, "--label-sizes", size, "multiples of ten from 10 to 60000")
        require(
            len(set(self.label_sizes)) == len(self.label_sizes), "--label-sizes", "a repeated size", "each size once"
        )
        require_range("--draws", self.draws, 2, 10_000, "a whole number")
        require(len(self.svm_c) > 0, "--svm-c", "no value", "one or more numbers")
        for penalty in self.svm_c:
            require_range("--svm-c", penalty, 1e-6, 1e6)
        distances.check_sample_size(self.quality_samples)
        require_range("--seed", self.seed, 0, 2**63 - 1, "a whole number")


def negative_elbo(vae: VAE, x: torch.Tensor, noise: torch.Tensor, sigma: float) -> dict[str, torch.Tensor]:
    """-ELBO = E_q[-log p(x|z)] + KL(q(z|x) || p(z)), one sample of z per image, mean over the batch [nats per image].

    Args:
        x: [B, 1, 28, 28] in [0, 1].
        noise: standard normal [B, latent_dim].
    """
    mean, log_variance = vae.encode(x)  # [B, d] each
    decoded = vae.decode(reparameterize(mean, log_variance, noise))  # [B, 1, 28, 28]
    reconstruction = gaussian_reconstruction(x, decoded, sigma).mean()
    kl = kl_to_standard_normal(mean, log_variance).mean()
    return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def train_step(
    vae: VAE,
    optimizer: torch.optim.Optimizer,
    guard: Guard,
    sigma: float,
    images: torch.Tensor,
    offsets: torch.Tensor,
    mirrored: torch.Tensor,
    noise: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """One step of Adam on the negative ELBO of a batch; a function of tensors alone.

    Args:
        images: uint8 [B, 1, 28, 28].
        offsets: pixels up and left by which each image moves, int64 [2, B], at most `MAX_SHIFT` in size.
        mirrored: which images are mirrored, bool [B, 1, 1, 1].
        noise: standard normal [B, latent_dim].

    Returns:
        the parts of the negative ELBO, 0-d.
    """
    moved = translate(images, offsets, MAX_SHIFT)
    x = prepare(torch.where(mirrored, moved.flip(3), moved))
    parts = negative_elbo(vae, x, noise, sigma)
    optimizer.zero_grad()
    parts["negative_elbo"].backward()
    guard.step(optimizer, **parts)
    return parts


def draw_inputs(n: int, rng: torch.Generator, config: Config) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The random inputs of a step with `n` images: offsets, mirrored and noise of `train_step`."""
    if config.augment:
        offsets = draw_offsets(n, rng, MAX_SHIFT)
        mirrored = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < 0.5
    else:
        offsets = torch.zeros(2, n, dtype=torch.int64, device=rng.device)
        mirrored = torch.zeros(n, 1, 1, 1, dtype=torch.bool, device=rng.device)
    return offsets, mirrored, torch.randn(n, config.latent_dim, generator=rng, device=rng.device)


@torch.no_grad()
def posterior_means(vae: VAE, images: torch.Tensor) -> torch.Tensor:
    """Features of uint8 images [N, 1, 28, 28]: the means of q(z|x), [N, latent_dim], in evaluation mode."""
    vae.eval()
    means = torch.cat([vae.encode(prepare(chunk))[0] for chunk in images.split(1000)])
    vae.train()
    return means


@torch.no_grad()
def evaluate(vae: VAE, images: torch.Tensor, rng: torch.Generator, config: Config) -> dict[str, float]:
    """Test ELBO and its parts [nats per image] and the number of active units, in evaluation mode."""
    vae.eval()
    noise = torch.randn(len(images), config.latent_dim, generator=rng, device=images.device)
    sums: dict[str, float] = {}
    for x, e in zip(images.split(1000), noise.split(1000), strict=True):
        for name, value in negative_elbo(vae, prepare(x), e, config.sigma).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(x)
    vae.train()
    means = {f"test_{name}": value / len(images) for name, value in sums.items()}
    return {**means, "active_units": active_units(posterior_means(vae, images))}


def active_units(means: torch.Tensor) -> int:
    """Latents whose posterior mean varies over the data: variance above 0.01 (Burda et al. 2016, arXiv 1509.00519)."""
    return int((means.var(0) > 0.01).sum())


def prepare(images: torch.Tensor) -> torch.Tensor:
    """uint8 images as the networks read them: float32 in [0, 1], channels last in memory."""
    return to_unit_range(images).contiguous(memory_format=torch.channels_last)


def classify(
    features: torch.Tensor,
    labels: torch.Tensor,
    chosen: torch.Tensor,
    queries: torch.Tensor,
    penalties: tuple[float, ...],
) -> tuple[np.ndarray, float]:
    """Fit an RBF SVM on the chosen labelled features and predict the classes of the queries.

    Only `labels[chosen]` is ever read, so no other label can reach the SVM, its penalty or its kernel width.

    Args:
        features, labels: of the training images, [N, d] and [N].
        chosen: indices of the labelled images.
        queries: features to classify, [M, d].
        penalties: values of C to choose from by cross-validation, in folds with equally many images of each class.

    Returns:
        predicted classes, int64 [M], and the chosen C.
    """
    x, y = features[chosen].numpy(), labels[chosen].numpy()
    folds = StratifiedKFold(min(5, len(y) // 10), shuffle=True, random_state=0) if len(y) >= 20 else None
    penalty = penalties[0]
    if folds is not None and len(penalties) > 1:
        search = GridSearchCV(SVC(kernel="rbf", gamma="scale"), {"C": penalties}, cv=folds, refit=False, n_jobs=-1)
        with joblib.parallel_config("threading"):
            penalty = search.fit(x, y).best_params_["C"]
    return SVC(C=penalty, kernel="rbf", gamma="scale").fit(x, y).predict(queries.numpy()), penalty


def label_experiments(
    run: Run, train_means: torch.Tensor, train_labels: torch.Tensor, test_means: torch.Tensor, test_labels: torch.Tensor
) -> Iterator[dict[str, float]]:
    """For every size and every draw not done yet: accuracy on the test images; keeps the confusion counts."""
    config = run.config
    done = {(row["size"], row["draw"]) for row in run.tables.get("accuracy_draws", [])}
    for size in config.label_sizes:
        for draw in range(config.draws):
            if (size, draw) in done:
                continue
            chosen = draw_labelled(train_labels, size, rng_for(config.seed, f"labelled {size}", draw))
            predicted, penalty = classify(train_means, train_labels, chosen, test_means, config.svm_c)
            truth = test_labels.numpy()
            counts = np.bincount(10 * truth + predicted, minlength=100).reshape(10, 10)
            name = f"confusion_{size}"
            run.keep(name, run.tensors.get(name, 0) + torch.from_numpy(counts))
            yield {"size": size, "draw": draw, "svm_c": penalty, "accuracy": float((predicted == truth).mean())}


@torch.no_grad()
def measure_quality(run: Run, vae: VAE) -> None:
    """`quality.csv`: the sample quality of decoded prior samples (means of p(x|z)), as in question 4."""
    if "quality" in run.tables or not run.config.quality_samples:
        return
    vae.eval()
    rows = []
    for i in range(distances.SEEDS):
        shape = run.config.quality_samples, run.config.latent_dim
        z = torch.randn(shape, generator=run.rng("quality", i), device=run.device)
        images = torch.cat([to_uint8(vae.decode(part)) for part in z.split(1000)])
        rows.append(distances.score(images, run.device))
    vae.train()
    run.record("quality", epoch=run.config.epochs, seconds=run.seconds, **distances.with_spread(rows))


def project(means: np.ndarray, method: str) -> np.ndarray:
    """Posterior means [N, d] in two dimensions, float32 [N, 2]; `method` is "tsne" or "pca"."""
    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(means)
    return TSNE(init="pca", random_state=0).fit_transform(means)


def accuracy_table(draws: pd.DataFrame) -> pd.DataFrame:
    """Per size: mean and standard deviation (n - 1) over draws, number of draws, and the assignment's reference."""
    table = draws.groupby("size")["accuracy"].agg(mean="mean", std="std", draws="count").reset_index()
    return table.assign(reference=table["size"].map(REFERENCE))


def train(
    run: Run, vae: VAE, optimizer: torch.optim.Optimizer, images: torch.Tensor, test_images: torch.Tensor
) -> None:
    """Train on uint8 images [N, 1, 28, 28] to the end of `--epochs`; a row of `metrics.csv` after each epoch."""
    config, n = run.config, len(images)
    per_epoch = -(-n // config.batch_size)
    step_on = Graphed(partial(train_step, vae, optimizer, run.guard, config.sigma), (vae, optimizer), run.guard)
    for step, indices, epoch, ends_epoch, _ in run.batches(n, config.batch_size, config.epochs):
        set_learning_rate(optimizer, one_cycle(step, config.epochs * per_epoch, config.lr))
        losses = step_on(images[indices], *draw_inputs(len(indices), run.rng("train", step), config))
        run.record("losses", step=step, **losses)

        if ends_epoch:
            trained = run.rows("losses").tail(per_epoch).drop(columns="step").mean().to_dict()
            tested = evaluate(vae, test_images, run.rng("evaluate", epoch), config)
            run.record("metrics", epoch=epoch, **trained, **tested)
            shown = {k: tested[k] for k in ("test_negative_elbo", "test_reconstruction", "test_kl", "active_units")}
            run.report(epoch, config.epochs, negative_elbo=trained["negative_elbo"], **shown)


def draw_figures(run: Run, vae: VAE, test: Split, test_means: torch.Tensor) -> None:
    """All figures of the question, from the trained VAE and the tables."""
    folder, config = run.folder, run.config
    vae_figures.elbo(run.rows("metrics"), config.latent_dim, folder / "elbo.png")
    vae_figures.accuracy(run.rows("accuracy"), folder / "accuracy.png")
    largest = max(config.label_sizes)
    vae_figures.confusion(run.tensors[f"confusion_{largest}"].numpy(), CLASSES, largest, folder / "confusion.png")

    shown = torch.stack([(test.labels == label).nonzero()[:3, 0] for label in range(10)], dim=1)  # [3, 10]
    originals = prepare(test.images[shown.flatten()])
    vae.eval()
    with torch.no_grad():
        reconstructed = vae.decode(vae.encode(originals)[0])
        prior = torch.randn(120, config.latent_dim, generator=run.rng("prior", 0), device=run.device)
        samples = vae.decode(prior)
    pairs = torch.stack([originals.view(3, 10, 28, 28), reconstructed.view(3, 10, 28, 28)], dim=1).flatten(0, 1)
    vae_figures.reconstructions(pairs.cpu().numpy(), CLASSES, folder / "reconstructions.png")
    figures.image_grid(samples.cpu(), 20, folder / "samples.png", "Decoded prior samples: means of p(x|z), z ~ N(0, I)")

    if "latents_2d" not in run.tensors:
        run.keep("latents_2d", torch.from_numpy(project(test_means.numpy(), config.projection)))
    points, labels = run.tensors["latents_2d"].cpu().numpy(), test.labels.cpu().numpy()
    vae_figures.latents(points, labels, CLASSES, config.projection, folder / "latents.png")


def main(config: Config) -> None:
    """Train the VAE, fit the SVMs, draw the figures."""
    # Networks and optimizer.
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    vae = VAE(config.latent_dim, config.width).to(device, memory_format=torch.channels_last)
    optimizer = adam(vae.parameters(), lr=config.lr)

    with Run(config, "q3_vae_svm", vae=vae, optimizer=optimizer) as run:
        # Data: no label is used before the VAE is trained.
        data, test = load_fashion_mnist("train", device), load_fashion_mnist("test", device)
        train(run, vae, optimizer, data.images, test.images)

        # Labels: accuracy of an SVM on the frozen encoder's features.
        train_means, test_means = posterior_means(vae, data.images).cpu(), posterior_means(vae, test.images).cpu()
        data_labels, test_labels = data.labels.cpu(), test.labels.cpu()
        for row in label_experiments(run, train_means, data_labels, test_means, test_labels):
            run.record("accuracy_draws", **row)
            run.stop_if_asked()
        table = accuracy_table(run.rows("accuracy_draws"))
        run.replace("accuracy", table)

        # Quality of the prior's samples, and figures.
        measure_quality(run, vae)
        draw_figures(run, vae, test, test_means)
        run.say("")
        run.say(table.to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    launch(Config, main, __doc__)
