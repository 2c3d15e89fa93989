"""Spread of question 4 over training seeds: both scripts, with their defaults and with the papers' settings.

    python studies/gan_seeds.py --out outputs/my_seeds
    python studies/gan_seeds.py --settings dcgan dcgan_paper --seeds 4 5
    python studies/gan_seeds.py --jobs 2
    python studies/gan_seeds.py --seeds

Every run is one of `q4_dcgan.py` or `q4_wgan_gp.py` in a folder of its own; one seed of the defaults is the reference
run of the script. The same command continues unfinished runs and reuses finished ones; started several times, on any
machines that share the disk, it shares the work. Checkpoints are not in git: a new clone trains everything, in an --out
of its own, since the runs on record at the papers' settings are of earlier code, which had fewer flags.

Writes to --out: distances.csv (for each setting, epoch and kind of weights the mean, the standard deviation and the
95 % interval over the runs that are there) and distances.png.
"""

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q4_dcgan
import q4_wgan_gp
from common.collect import over_runs, read_table
from common.quality import figures as quality_figures
from common.run import queue
from common.run.cli import BadInput, configured, launch, require, require_range
from common.run.files import write_file

Setting = Literal["dcgan", "dcgan_paper", "wgan_gp", "wgan_gp_paper"]
SETTINGS: dict[str, tuple[Any, str]] = {  # script and recipe
    "dcgan": (q4_dcgan, "ours"),
    "dcgan_paper": (q4_dcgan, "papers"),
    "wgan_gp": (q4_wgan_gp, "ours"),
    "wgan_gp_paper": (q4_wgan_gp, "papers"),
}
REFERENCE = Path("outputs/reference")
EPOCHS = (1, 3, 4, 5, 10, 15)  # that are measured
HEADER = "setting,epoch,weights,runs,"  # how distances.csv begins
MEASURED = ["frechet", "kid", "precision", "recall"]


@dataclass(frozen=True)
class Config:
    """Settings of the study."""

    settings: tuple[Setting, ...] = get_args(Setting)
    """What is trained; the table holds every run in --out."""
    seeds: tuple[int, ...] = (3, 4, 5)
    """Seeds of the training runs; `--seeds` alone trains nothing and gathers what is there."""
    epochs: int = 15
    """Passes over the 60,000 training images [epochs]."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Number format of the convolutions in training; bfloat16 is faster on accelerators and on processors with AMX."""
    jobs: int = 1
    """Runs at once on this machine, of one thread each where there are several."""
    out: Path = Path("outputs/q4_seeds")
    """Folder of the runs and of the table."""

    def __post_init__(self) -> None:
        require_range("--jobs", self.jobs, 1, 1024, "a whole number")


def reference_seed(script: str) -> int | None:
    """The seed of a script's reference run; None where there is none."""
    try:
        return json.loads((REFERENCE / script / "config.json").read_text())["seed"]
    except (OSError, ValueError, KeyError):
        return None


def tables_of(name: str, folder: Path) -> list[Path]:
    """The `quality.csv` of every run of a setting that is there; one is the reference run of the script."""
    script, recipe = SETTINGS[name]
    reference = [] if recipe == "papers" else [REFERENCE / script.__name__ / "quality.csv"]
    return [path for path in (*reference, *sorted(folder.glob(f"{name}_[0-9]*/quality.csv"))) if path.exists()]


def tasks(config: Config) -> list[queue.Task]:
    """Every run of the study but the reference runs, seed after seed."""
    found = []
    for seed, name in itertools.product(config.seeds, config.settings):
        script, recipe = SETTINGS[name]
        if recipe == "papers" or seed != reference_seed(script.__name__):
            settings: dict[str, Any] = {"epochs": config.epochs, "precision": config.precision, "seed": seed}
            settings["sample_epochs"] = tuple(epoch for epoch in EPOCHS if epoch <= config.epochs)
            settings["out"] = config.out / f"{name}_{seed}"
            one = configured(script.Config, script.RECIPES, recipe=recipe, **settings)
            found.append(queue.task(script.__name__, one, script.RECIPES))
    queue.require_folders_of_their_own(found)
    return found


def require_own(path: Path) -> None:
    """Raise `BadInput` where there is a file at the path that is not this study's table."""
    if path.exists() and not (path.is_file() and path.read_bytes()[:100].startswith(HEADER.encode())):
        raise BadInput(f"{path}: is not this study's; move it, or choose another --out")


def distances(tables: dict[str, list[pd.DataFrame]]) -> pd.DataFrame:
    """Means, standard deviations and intervals over runs for each setting, epoch and kind of weights.

    Args:
        tables: for each setting the `quality.csv` of its runs.
    """
    rows = pd.concat([table.assign(setting=name) for name, runs in tables.items() for table in runs])
    return over_runs(rows, ["setting", "epoch", "weights"], MEASURED)


def main(config: Config) -> None:
    """Train what is not there yet, then gather."""
    require_own(config.out / "distances.csv")
    queue.work(tasks(config), config.jobs)
    naming = {"epoch": int, "weights": str}
    tables = {name: [read_table(path, MEASURED, naming) for path in tables_of(name, config.out)] for name in SETTINGS}
    require(any(tables.values()), "--out", config.out, "a folder with runs, from inside the repository")
    table = distances(tables)
    config.out.mkdir(parents=True, exist_ok=True)
    write_file(config.out / "distances.csv", table.to_csv(index=False, float_format="%.7g").encode())
    quality_figures.seeds(table, config.out / "distances.png")
    print(table.to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    launch(Config, main, __doc__)
