"""Question 3: how much do the latents of a VAE, trained without labels, help a classifier that has few?

A convolutional VAE learns from the 60,000 Fashion-MNIST training images without their labels. Its encoder is then
frozen and a support vector machine with an RBF kernel is fitted to the posterior means of 100, 600, 1000 and 3000
labelled images, equally many per class. This is model M1 of Kingma et al. 2014 (arXiv 1406.5298, section 2.1).

    python q3_vae_svm.py
    python q3_vae_svm.py --epochs 3 --label-sizes 100 1000 --draws 5 --out outputs/q3_quick
    torchrun --standalone --nproc-per-node 2 q3_vae_svm.py

Writes to --out: metrics.csv, losses.csv, accuracy.csv, accuracy_draws.csv, quality.csv, elbo.png, reconstructions.png,
samples.png, latents.png, accuracy.png, confusion.png, config.json, environment.json and checkpoints/; with --benchmark
benchmark*.csv, likelihood.csv and benchmark.png.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from common import own_data
from common.data import draw_offsets, translate
from common.losses import gaussian_reconstruction, kl_to_standard_normal, reparameterize
from common.quality import distances
from common.run import Guard, Run
from common.run.cli import launch, require, require_range, resolve_device
from common.run.device import place
from common.run.distributed import mine, require_shares
from common.run.graphs import Graphed, adam, set_learning_rate
from common.run.memory import require_memory
from common.schedule import one_cycle
from common.vae import benchmark, experiments, results
from common.vae.classifiers import classify
from common.vae.features import active_units, pixels, posterior_means, prepare
from common.vae.network import VAE, training_bytes
from common.vae.spreading import classify_spread, neighbour_graph

MAX_SHIFT = 2  # pixels by which augmentation moves an image each way
FLOOR_DRAWS = 20  # random subsets at most of the SVM on raw pixels, which takes ten times as long


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    # VAE
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
    # Classifiers of few labels
    label_sizes: tuple[int, ...] = (100, 600, 1000, 3000)
    """Sizes of the labelled subsets [images], multiples of ten; the assignment's values."""
    draws: int = 200
    """Random labelled subsets per size."""
    svm_c: tuple[float, ...] = (3.0,)
    """Penalty C of the SVM; of several, five-fold cross-validation inside each labelled subset chooses one. Gamma of
    its kernel is 1 / (latent_dim * variance of the labelled features)."""
    classifier: Literal["svm", "spread"] = "svm"
    """svm learns from the labelled images alone; spread adds a row that also learns from other training images, whose
    labels are spread from the labelled ones over a graph of nearest neighbours (about 2 s per subset)."""
    benchmark: bool = False
    """Compare other features and classifiers on the same subsets, and measure the likelihood (about an hour)."""
    # Figures
    quality_samples: int = 10_000
    """Images in each of the three sets of prior samples that quality.csv measures [images]; 0 measures nothing."""
    projection: Literal["tsne", "pca"] = "tsne"
    """How latents.png shows the latents in two dimensions: t-SNE (about 30 s) or the first principal components."""
    # Run
    data: str = ""
    """Folder of own images, four archives in the format of MNIST (MNIST, KMNIST, EMNIST digits), in the place of
    Fashion-MNIST; classes.txt in it may name the ten classes. Sample quality is not measured then."""
    seed: int = 0
    """Decides every random number of the run."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks run; auto takes an accelerator where there is one. The SVM runs on the processor."""
    out: Path = Path("outputs/q3_vae_svm")
    """Folder of the run; the same command continues or reuses what is there."""
    fresh: bool = False
    """Start over in a folder that holds a run."""
    tensorboard: bool = False
    """Also write the tables for TensorBoard, to the folder tensorboard in --out."""

    def __post_init__(self) -> None:
        require_range("--epochs", self.epochs, 1, 10_000, "a whole number")
        require_range("--batch-size", self.batch_size, 2, 60_000, "a whole number")
        require_range("--lr", self.lr, 1e-9, 10)
        require_range("--latent-dim", self.latent_dim, 2, 4096, "a whole number")
        require_range("--width", self.width, 1, 512, "a whole number")
        require_range("--sigma", self.sigma, 1e-3, 10)
        require(len(self.label_sizes) > 0, "--label-sizes", "no size", "one or more numbers")
        for size in self.label_sizes:
            require(size % 10 == 0 and size >= 10, "--label-sizes", size, "multiples of ten from 10 on")
        require(
            len(set(self.label_sizes)) == len(self.label_sizes), "--label-sizes", "a repeated size", "each size once"
        )
        require_range("--draws", self.draws, 2, 10_000, "a whole number")
        require(len(self.svm_c) > 0, "--svm-c", "no value", "one or more numbers")
        for penalty in self.svm_c:
            require_range("--svm-c", penalty, 1e-6, 1e6)
        distances.check_sample_size(self.quality_samples)
        own_data.check(self.data)
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
    share: float = 1.0,
) -> dict[str, torch.Tensor]:
    """One step of Adam on the negative ELBO of a batch; a function of tensors alone.

    Args:
        images: uint8 [B, 1, 28, 28].
        offsets: pixels up and left by which each image moves, int64 [2, B], at most `MAX_SHIFT` in size.
        mirrored: which images are mirrored, bool [B, 1, 1, 1].
        noise: standard normal [B, latent_dim].
        share: the fraction of the step's batch that these images are; the rest is with other processes.

    Returns:
        the parts of the negative ELBO for the whole batch, 0-d.
    """
    found = negative_elbo(vae, prepare(augmented(images, offsets, mirrored)), noise, sigma)
    parts = {name: share * value for name, value in found.items()}
    optimizer.zero_grad()
    parts["negative_elbo"].backward()
    return guard.step(optimizer, **parts)


def augmented(images: torch.Tensor, offsets: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Images [B, 1, 28, 28] moved by their offsets and mirrored, as `train_step` takes them."""
    moved = translate(images, offsets, MAX_SHIFT)
    return torch.where(mirrored, moved.flip(3), moved)


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


def train(
    run: Run, vae: VAE, optimizer: torch.optim.Optimizer, images: torch.Tensor, test_images: torch.Tensor
) -> None:
    """Train on uint8 images [N, 1, 28, 28] to the end of `--epochs`; a row of `metrics.csv` after each epoch."""
    config, n = run.config, len(images)
    per_epoch = -(-n // config.batch_size)
    step_on = Graphed(partial(train_step, vae, optimizer, run.guard, config.sigma), (vae, optimizer), run.guard)
    for step, indices, epoch, ends_epoch, _ in run.batches(n, config.batch_size, config.epochs):
        set_learning_rate(optimizer, one_cycle(step, config.epochs * per_epoch, config.lr))
        offsets, mirrored, noise = draw_inputs(len(indices), run.rng("train", step), config)
        own = images[mine(indices)]
        inputs = mine(offsets.T).T, mine(mirrored), mine(noise)
        losses = step_on(own, *inputs, share=len(own) / len(indices))
        run.record("losses", step=step, **losses)

        if ends_epoch and run.is_first:
            trained = run.rows("losses").tail(per_epoch).drop(columns="step").mean().to_dict()
            tested = evaluate(vae, test_images, run.rng("evaluate", epoch), config)
            run.record("metrics", epoch=epoch, **trained, **tested)
            shown = {k: tested[k] for k in ("test_negative_elbo", "test_reconstruction", "test_kl", "active_units")}
            run.report(epoch, config.epochs, negative_elbo=trained["negative_elbo"], **shown)


def label_experiments(run: Run, vae: VAE, data: results.Data) -> None:
    """`accuracy_draws.csv` and `accuracy.csv`: SVMs on VAE means and, as a floor, on raw pixels, on the same subsets.

    No label is used before; of the labels of the training images, a machine sees those of its subset alone.
    """
    config, (train, test) = run.config, data
    labels, truth = train.labels.cpu(), test.labels.cpu()
    means = [posterior_means(vae, split.images).cpu() for split in data]
    raw = [pixels(split.images) for split in data]

    def svm(features: list[torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        return classify(features[0], labels, chosen, features[1], config.svm_c)[0]

    methods: dict[str, tuple[experiments.Method, int]] = {
        "VAE means": (partial(svm, means), config.draws),
        "raw pixels": (partial(svm, raw), min(config.draws, FLOOR_DRAWS)),
    }
    if config.classifier == "spread":
        graph = results.interruptible(run, "graph of nearest neighbours", partial(neighbour_graph, means[0]))
        spread = partial(classify_spread, graph, labels, means[1], config.svm_c[0])
        methods["VAE means, spread labels"] = (spread, config.draws)
    found = experiments.predictions(run, "accuracy_draws", methods, labels, config.label_sizes)
    for method, size, draw, predicted in found:
        accuracy = float((predicted == truth).double().mean())
        run.record("accuracy_draws", method=method, size=size, draw=draw, accuracy=accuracy)
        if method == "VAE means":
            name = f"confusion_{size}"
            run.keep(name, run.tensors.get(name, 0) + experiments.confusion(truth, predicted))
    known = {} if config.data else experiments.REFERENCE
    run.replace("accuracy", experiments.accuracy_table(run.rows("accuracy_draws"), known))


def main(config: Config, data: results.Data | None = None) -> None:
    """Train the VAE, fit the SVMs, draw the figures."""
    # Networks and optimizer.
    device = resolve_device(config.device)
    require_memory(config, training_bytes, ("width", "latent_dim", "batch_size"), device)
    torch.manual_seed(config.seed)
    vae = VAE(config.latent_dim, config.width)
    place(vae, device)
    optimizer = adam(vae.parameters(), lr=config.lr)
    data = data or results.load_data(config, device)
    require_shares(len(data.train.images), config.batch_size)

    with Run(config, "q3_vae_svm", vae=vae, optimizer=optimizer) as run:
        results.say_if_finished(run)
        train(run, vae, optimizer, data.train.images, data.test.images)
        label_experiments(run, vae, data)
        if config.benchmark:
            benchmark.measure(run, vae, *data, config)
        results.measure_quality(run, vae)
        results.draw_figures(run, vae, data.test)
        run.say("\n" + results.summary(run))


if __name__ == "__main__":
    launch(Config, main, __doc__, several=True)
