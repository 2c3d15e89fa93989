"""One script with many seeds, several at once: question 3's VAE, say.

    python studies/seeds.py q3_vae_svm --seeds 0 1 2 --jobs 2 --out outputs/q3_seeds
    python studies/seeds.py q4_wgan_gp --seeds 0 1 --flags "--epochs 5 --precision bfloat16" --out outputs/wgan_seeds
    python studies/seeds.py q2_comparison --jobs 2 --out outputs/my_comparison

A seed's run is in a folder of its own, --out/SCRIPT_SEED, and prints to SCRIPT_SEED.log beside it. The same command
continues unfinished runs and leaves finished ones; started on several machines that share the disk, it shares the
work. `python -m common.collect` gathers the tables. The comparison of question 2 trains its seeds side by side already,
so there the runs that are shared out are its targets and losses, in the folder that `q2_gan_lab.py --target all
--loss all` uses; that command itself is the last run.
"""

import importlib
import itertools
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q2_gan_lab
from common.plane.comparison import chosen, settings_of_part
from common.run import queue
from common.run.cli import launch, parse, require, require_range


@dataclass(frozen=True)
class Config:
    """Settings of the study."""

    script: Literal["q1_divergences", "q2_gan_lab", "q2_comparison", "q3_vae_svm", "q4_dcgan", "q4_wgan_gp"]
    """What runs; q2_comparison is q2_gan_lab.py with every target and loss."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Values of the script's --seed; the comparison has --comparison-seeds of its own, for --flags."""
    jobs: int = 1
    """Runs at once on this machine, of one thread each where there are several."""
    flags: str = ""
    """Further flags of the script, in quotes; a single one after an equals sign, --flags=--selection."""
    out: Path = Path("outputs/seeds")
    """Folder of the runs."""

    def __post_init__(self) -> None:
        require_range("--jobs", self.jobs, 1, 1024, "a whole number")
        given = shlex.split(self.flags)
        for name in ("--seed", "--out", "--fresh"):
            require(not any(g.split("=")[0] == name for g in given), "--flags", name, "other flags than that")


def tasks(config: Config) -> list[queue.Task]:
    """A run for each seed."""
    found = []
    for seed in config.seeds:
        one = _read(config.script, [*shlex.split(config.flags), "--seed", str(seed)])
        one = replace(one, out=config.out / f"{config.script}_{seed}")
        found.append(queue.task(config.script, one, _recipes(config.script)))
    queue.require_folders_of_their_own(found)
    return found


def tasks_of_comparison(config: Config) -> tuple[list[queue.Task], queue.Task]:
    """The runs of question 2's comparison, and the comparison itself, which finds them finished."""
    flags = ["--target", "all", "--loss", "all", *shlex.split(config.flags)]
    whole = replace(_read("q2_gan_lab", flags), out=config.out)
    recipes = q2_gan_lab.RECIPES
    pairs = itertools.product(*chosen(whole))
    parts = [settings_of_part(whole, recipes, target, loss, config.out) for target, loss in pairs]
    return [queue.task("q2_gan_lab", part, recipes) for part in parts], queue.task("q2_gan_lab", whole, recipes)


def _recipes(script: str) -> Any:
    return getattr(importlib.import_module(script), "RECIPES", None)


def _read(script: str, flags: list[str]) -> Any:
    """The config of a script with these flags; raises `BadInput` as the script would."""
    return parse(importlib.import_module(script).Config, script, flags, _recipes(script))


def main(config: Config) -> None:
    """Bring every run to its end."""
    if config.script == "q2_comparison":
        parts, whole = tasks_of_comparison(config)
        queue.work(parts, config.jobs)
        queue.work([whole], 1)
        print(f"in {config.out}: open comparison.png first, then comparison.csv")
        return
    queue.work(tasks(config), config.jobs)
    print(f"python -m common.collect {config.out}/*  gathers the tables")


if __name__ == "__main__":
    launch(Config, main, __doc__)
