"""Train VAEs of question 3 with several seeds, sigmas and widths, and store the posterior means of all images.

    python notebook/trial_q3.py --out means --device cuda
    python notebook/trial_q3.py --out means --device cpu --only 0

Each VAE is trained as q3_vae_svm.py trains its own. `<out>/means_<i>.npz` holds of three of them `<name>.train`
[60000, d] and `<name>.test` [10000, d] as int8 and `<name>.scale` [d], the mean of one unit (rounding is a noise of
about 0.01 standard deviations); classifiers can then be compared without training. `<out>/trials.jsonl` has a line for
each VAE: seconds of training, test ELBO, active units.
"""

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q3_vae_svm as q3
from common.data import load_fashion_mnist
from common.run import Guard, rng_for
from common.run.batches import batch_indices
from common.run.cli import launch, resolve_device
from common.run.device import configure, place
from common.run.graphs import Graphed, adam, set_learning_rate
from common.schedule import one_cycle
from common.vae.network import VAE

TRIALS: list[dict[str, Any]] = [
    {"seed": 0},
    {"seed": 1},
    {"seed": 2},
    {"seed": 0, "width": 32},
    {"seed": 0, "sigma": 0.05},
    {"seed": 0, "sigma": 0.2},
    {"seed": 1, "width": 32},
    {"seed": 0, "width": 48},
    {"seed": 0, "width": 32, "epochs": 30},
    {"seed": 3},
    {"seed": 0, "batch_size": 256, "lr": 2e-3},
    {"seed": 0, "width": 32, "sigma": 0.2},
]
PACK = 3  # VAEs in a file


@dataclass(frozen=True)
class Config:
    """Settings of the trials."""

    out: Path = Path("outputs/q3_trials")
    """Where the means are stored."""
    device: str = "auto"
    """cpu or cuda."""
    only: int | None = None
    """Train this one of the list alone; by default all."""
    seconds: float = 80.0
    """Begin no further VAE after this time [s]."""
    epochs: int | None = None
    """Take the place of every trial's epochs, for a quick check."""


def train(config: q3.Config, images: torch.Tensor, device: torch.device) -> VAE:
    """The VAE that q3_vae_svm.py trains with this config, without its folder."""
    torch.manual_seed(config.seed)
    vae = VAE(config.latent_dim, config.width)
    place(vae, device)
    optimizer, guard = adam(vae.parameters(), lr=config.lr), Guard(device)
    step_on = Graphed(partial(q3.train_step, vae, optimizer, guard, config.sigma), (vae, optimizer), guard)
    total = config.epochs * -(-len(images) // config.batch_size)
    batches = batch_indices(len(images), config.batch_size, config.seed, 0, device)
    for step in range(total):
        set_learning_rate(optimizer, one_cycle(step, total, config.lr))
        indices = next(batches)
        step_on(images[indices], *q3.draw_inputs(len(indices), rng_for(config.seed, "train", step, device), config))
        if step % 1000 == 0:
            guard.check()
    guard.check()
    return vae


def main(config: Config) -> None:
    """Train, store, print."""
    device, began = resolve_device(config.device), time.perf_counter()
    configure(device, "tf32")
    config.out.mkdir(parents=True, exist_ok=True)
    data, test = load_fashion_mnist("train", device).images, load_fashion_mnist("test", device).images
    chosen = TRIALS if config.only is None else TRIALS[config.only : config.only + 1]
    arrays: dict[str, np.ndarray] = {}
    for index, changes in enumerate(chosen):
        if time.perf_counter() - began > config.seconds:
            break
        if config.epochs:
            changes = {**changes, "epochs": config.epochs}
        start, settings = time.perf_counter(), q3.Config(**changes)
        name = "_".join(f"{key}_{value}" for key, value in changes.items())
        vae = train(settings, data, device)
        seconds = time.perf_counter() - start
        found = q3.evaluate(vae, test, rng_for(0, "evaluate", 0, device), settings)
        means = {split: q3.posterior_means(vae, x) for split, x in (("train", data), ("test", test))}
        scale = means["train"].abs().amax(0) / 127
        arrays[f"{name}.scale"] = scale.cpu().numpy()
        for split, x in means.items():
            arrays[f"{name}.{split}"] = (x / scale).round().clamp(-127, 127).to(torch.int8).cpu().numpy()
        np.savez(config.out / f"means_{index // PACK}.npz", **arrays)  # type: ignore[arg-type]
        if index % PACK == PACK - 1:
            arrays = {}
        line = json.dumps({"name": name, **changes, "seconds": round(seconds, 2), **found})
        with open(config.out / "trials.jsonl", "a") as file:
            file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    launch(Config, main, __doc__)
