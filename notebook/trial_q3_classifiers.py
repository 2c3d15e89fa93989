"""Compare classifiers and features of question 3 on the validation images; the test images are never read.

    python notebook/trial_q3_classifiers.py --means means/means_*.npz --out notebook/data/q3_features.csv
    python notebook/trial_q3_classifiers.py --run outputs/q3_vae_svm --grid --out notebook/data/q3_classifiers.csv

Features are posterior means of VAEs, which saw the training images without labels: of a finished run, or of those that
`notebook/trial_q3.py` stored, each alone and several side by side. Labels are drawn from the 50,000 images that are not
validation images, and the graph is of these. With --grid the SVM's penalties and those of spread labels vary; without
it only the features do. Writes mean accuracy, its 95 % interval over draws and the difference to the first row.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.data import load_fashion_mnist, validation_indices
from common.run import checkpoints
from common.run.cli import launch
from common.vae import classifiers, experiments, spreading
from common.vae.features import posterior_means
from common.vae.network import VAE


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    out: Path
    """The table to write."""
    means: tuple[Path, ...] = ()
    """Files of notebook/trial_q3.py."""
    run: Path | None = None
    """A finished run of q3_vae_svm.py with its default network."""
    grid: bool = False
    """Vary the classifiers, too."""
    sizes: tuple[int, ...] = (100, 600, 1000, 3000)
    """Numbers of labels."""
    draws: int = 10
    """Random subsets per size; a quarter of them for 3,000 labels."""
    side_by_side: bool = True
    """Also join the means of several VAEs."""


def feature_sets(config: Config) -> dict[str, torch.Tensor]:
    """Means of all 60,000 training images by name, float32 [60000, d]."""
    found: dict[str, torch.Tensor] = {}
    if config.run:
        content = checkpoints.load(checkpoints.listing(config.run / "checkpoints")[-1])
        vae = VAE(content["config"]["latent_dim"], content["config"]["width"])
        vae.load_state_dict(content["state"]["vae"])
        found["run"] = posterior_means(vae, load_fashion_mnist("train").images)
    for path in config.means:
        with np.load(path) as stored:
            for name in sorted({key.rsplit(".", 1)[0] for key in stored.files}):
                found[name] = torch.from_numpy(stored[f"{name}.train"] * stored[f"{name}.scale"])
    if config.side_by_side and len(found) > 1:
        plain = [x for name, x in found.items() if name.startswith("seed_") and name.count("_") == 1]
        found |= {f"{k} seeds side by side": torch.cat(plain[:k], 1) for k in (2, 3, 4) if k <= len(plain)}
        found["all side by side"] = torch.cat([x for name, x in found.items() if "side" not in name], 1)
    return found


def settings(grid: bool) -> Iterator[tuple[str, float, float]]:
    """(name, penalty of labelled images, penalty of images with spread labels or 0)."""
    for penalty in (1.0, 2.0, 3.0, 4.0, 8.0) if grid else (3.0,):
        yield f"svm, C {penalty:g}", penalty, 0.0
    for penalty, spread in itertools.product((3.0, 5.0), (0.03, 0.1, 0.3, 1.0)) if grid else [(3.0, 0.1)]:
        yield f"spread labels, C {penalty:g} and {spread:g}", penalty, spread


def main(config: Config) -> None:
    """Compare, write, print."""
    labels = load_fashion_mnist("train").labels
    inside = torch.zeros(len(labels), dtype=torch.bool)
    inside[validation_indices(labels)] = True
    y, truth = labels[~inside], labels[inside]
    rows = []
    for features, x in feature_sets(config).items():
        fit, validation = x[~inside], x[inside]
        graph = spreading.neighbour_graph(fit)
        for size in config.sizes:
            for draw in range(max(2, config.draws // 4) if size >= 3000 else config.draws):
                chosen = experiments.balanced(1000, y, size, draw)
                for name, penalty, spread in settings(config.grid):
                    if spread:
                        spreading.PENALTY = spread
                        machine = spreading.fit_spread(graph, y, chosen, penalty)
                    else:
                        [machine] = classifiers.fit_svms(fit[chosen].double(), y[chosen], (penalty,))
                    accuracy = float((classifiers.predict(machine, validation) == truth).double().mean())
                    rows.append({"method": f"{features}: {name}", "size": size, "draw": draw, "accuracy": accuracy})
        table = experiments.paired_table(pd.DataFrame(rows)) if len({r["method"] for r in rows}) > 1 else None
        if table is not None:
            config.out.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(config.out, index=False, float_format="%.5g")
        print(f"{features}: done", flush=True)
    print(pd.read_csv(config.out).pivot(index="method", columns="size", values="mean").to_string())


if __name__ == "__main__":
    launch(Config, main, __doc__)
