"""What question 3 writes after training: sample quality and figures."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from common import figures, own_data
from common.data import Split, to_uint8
from common.quality import distances
from common.run import Run
from common.run.cli import require
from common.run.reference import beside, read_reference
from common.vae import figures as vae_figures
from common.vae.features import posterior_means, prepare, project
from common.vae.network import VAE


class Data(NamedTuple):
    """Images and labels on the run's device."""

    train: Split
    test: Split


def load_data(config: Any, device: torch.device) -> Data:
    """The training and the test images with their labels; raises `BadInput` where the settings do not fit them."""
    data = Data(*(own_data.load(split, device, config.data) for split in ("train", "test")))
    n, rarest = len(data.train.labels), int(data.train.labels.bincount().min())
    wanted = f"a size that does not leave one image of {n} over, which batch norm cannot take"
    require(n % config.batch_size != 1, "--batch-size", config.batch_size, wanted)
    for size in config.label_sizes:
        require(size <= 10 * rarest, "--label-sizes", size, f"at most {10 * rarest}, equally many of each class")
    return data


def say_if_finished(run: Run) -> None:
    """A line where the run came to its end before; more draws or a benchmark may have been asked for since."""
    if "latents_2d" in run.tensors:
        run.say(f"{run.folder} holds this run, finished; what it lacks is added, and its figures are drawn again")


def interruptible(run: Run, name: str, work: Callable[[], Any]) -> Any:
    """The result of long work that cannot be cut into pieces; a signal stops the run meanwhile.

    The work goes on in a thread that ends with the process.
    """
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(work())
        except BaseException as fault:  # raised below, where it is seen
            outcome.append(fault)

    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(2)
    if thread.is_alive():
        run.say(f"{name} ...")
    while thread.is_alive():
        run.stop_if_asked()
        thread.join(0.5)
    [found] = outcome
    if isinstance(found, BaseException):
        raise found
    return found


def noise(run: Run, stream: str, number: int, n: int) -> torch.Tensor:
    """Draws from the prior [n, latent_dim], a function of the run's seed, the stream and the number."""
    rng = run.rng(stream, number)
    return torch.randn(n, run.config.latent_dim, generator=rng, device=rng.device)


@torch.no_grad()
def measure_quality(run: Run, vae: VAE) -> None:
    """`quality.csv`: the sample quality of decoded prior samples (means of p(x|z)), as in question 4."""
    if run.config.data:
        run.say(own_data.NOT_MEASURED)
    if "quality" in run.tables or not run.config.quality_samples or run.config.data:
        return
    vae.eval()
    rows = []
    for i in range(distances.SEEDS):
        z = noise(run, "quality", i, run.config.quality_samples)
        images = torch.cat([to_uint8(vae.decode(part)).cpu() for part in z.split(1000)])
        name = f"quality of prior samples, {i + 1} of {distances.SEEDS}"
        rows.append(interruptible(run, name, partial(distances.score, images, run.device)))
    vae.train()
    run.record("quality", epoch=run.config.epochs, seconds=run.seconds, **distances.with_spread(rows))


def draw_figures(run: Run, vae: VAE, test: Split) -> None:
    """All figures of the question, from the trained VAE and the tables."""
    folder, config = run.folder, run.config
    names = own_data.classes(config.data)
    vae_figures.elbo(run.rows("metrics"), config.latent_dim, folder / "elbo.png")
    vae_figures.accuracy(run.rows("accuracy"), folder / "accuracy.png")
    largest = max(config.label_sizes)
    vae_figures.confusion(run.tensors[f"confusion_{largest}"].numpy(), names, largest, folder / "confusion.png")

    shown = torch.stack([(test.labels == label).nonzero()[:3, 0] for label in range(10)], dim=1)  # [3, 10]
    originals = prepare(test.images[shown.flatten()])
    vae.eval()
    with torch.no_grad():
        reconstructed = vae.decode(vae.encode(originals)[0])
        samples = vae.decode(noise(run, "prior", 0, 120))
    vae.train()
    pairs = torch.stack([originals.view(3, 10, 28, 28), reconstructed.view(3, 10, 28, 28)], dim=1).flatten(0, 1)
    vae_figures.reconstructions(pairs.cpu().numpy(), names, folder / "reconstructions.png")
    figures.image_grid(samples.cpu(), 12, folder / "samples.png", "Decoded prior samples: means of p(x|z), z ~ N(0, I)")

    if "latents_2d" not in run.tensors:
        means = posterior_means(vae, test.images).cpu().numpy()
        placed = interruptible(run, f"latents.png ({config.projection})", lambda: project(means, config.projection))
        run.keep("latents_2d", torch.from_numpy(placed))
    points, labels = run.tensors["latents_2d"].cpu().numpy(), test.labels.cpu().numpy()
    vae_figures.latents(points, labels, names, config.projection, folder / "latents.png")


def summary(run: Run) -> str:
    """The table of accuracies beside the assignment's and the reference run's, and which files to open first."""
    table = run.rows("accuracy")
    lines = [table.drop(columns="std").to_string(index=False, float_format="{:.4f}".format, na_rep="-")]
    lines += ["", "ci95: half of the 95 % confidence interval of the mean over n random labelled subsets"]
    lines += ["", beside(table, read_reference(run.identity, "accuracy.csv"), ["method", "size"], "mean", "std")]
    lines += [f"{run.folder}: look first at accuracy.png, latents.png and reconstructions.png"]
    return "\n".join(lines)
