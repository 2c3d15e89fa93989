"""Draw the figures of runs again from their tables and archives, without training.

    python studies/redraw.py outputs/reference/q4_dcgan
    python studies/redraw.py outputs/q4_wgan_gp outputs/reference/scale outputs/reference/q4_seeds

Draws what can be drawn from the files that git holds: of question 4 all but copies.png (grids only where there is
grids.npz), of question 2 the comparison, of question 3 elbo.png, accuracy.png and benchmark.png, the yardstick's scale
in both feature spaces, the figure of the seeds.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q4_dcgan
import q4_wgan_gp
from common.gan import figures as gan_figures
from common.gan import recipes
from common.plane import figures as plane_figures
from common.quality import figures as quality_figures
from common.quality.models import reference_models
from common.run.cli import BadInput, launch
from common.run.identity import under_todays_names
from common.vae import figures as vae_figures

SCRIPTS = {"q4_dcgan": q4_dcgan, "q4_wgan_gp": q4_wgan_gp}


@dataclass(frozen=True)
class Config:
    """What to draw again."""

    folders: tuple[Path, ...]
    """Folders of runs."""


def main(config: Config) -> None:
    """Draw every folder's figures."""
    for folder in config.folders:
        if (folder / "distances.csv").is_file():
            quality_figures.seeds(pd.read_csv(folder / "distances.csv"), folder / "distances.png")
            continue
        try:
            settings = json.loads((folder / "config.json").read_text())
            draw(folder, settings["script"], settings)
        except (OSError, ValueError, KeyError) as fault:
            raise BadInput(f"{folder}: holds no run, or not all of its tables ({fault})") from None


def draw(folder: Path, script: str, settings: dict) -> None:
    """The figures of one run.

    Raises:
        OSError, KeyError: a table is missing, or lacks a column.
    """
    if script in gan_figures.MODELS:
        today = asdict(SCRIPTS[script].Config())
        events = recipes.events(SimpleNamespace(**{**today, **under_todays_names(settings, today)}))
        losses, metrics = pd.read_csv(folder / "losses.csv"), pd.read_csv(folder / "metrics.csv")
        if (folder / "quality.csv").exists():
            quality_figures.quality(pd.read_csv(folder / "quality.csv"), folder / "quality.png")
        if (folder / "grids.npz").exists():
            with np.load(folder / "grids.npz") as stored:
                grids = {name: torch.from_numpy(stored[name]) for name in stored.files}
            gan_figures.every_figure(folder, script, events, losses, metrics, grids)
        else:
            gan_figures.curves(script, losses, metrics, events, folder / "loss_curves.png")
    elif script == "yardstick":
        known, second = (pd.read_csv(folder / f"{name}.csv") for name in ("scale", "scale_imagenet"))
        quality_figures.scale(known, reference_models(), folder / "scale.png")
        quality_figures.spaces(known, second, folder / "spaces.png")
    elif script == "q2_gan_lab":
        table, runs = (pd.read_csv(folder / f"{name}.csv") for name in ("comparison", "runs"))
        plane_figures.comparison(table, runs, folder / "comparison.png")
    elif script == "q3_vae_svm":
        vae_figures.elbo(pd.read_csv(folder / "metrics.csv"), settings["latent_dim"], folder / "elbo.png")
        vae_figures.accuracy(pd.read_csv(folder / "accuracy.csv"), folder / "accuracy.png")
        if (folder / "benchmark.csv").exists():
            vae_figures.benchmark(pd.read_csv(folder / "benchmark.csv"), folder / "benchmark.png")
    else:
        raise KeyError(f"no figures of {script} can be drawn from its tables")


if __name__ == "__main__":
    launch(Config, main, __doc__)
