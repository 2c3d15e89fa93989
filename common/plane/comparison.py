"""Every target with every loss, over several seeds, and the table that compares them."""

import itertools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from common.plane import figures
from common.plane.results import AVERAGED, Players
from common.plane.targets import TARGETS
from common.run import Run
from common.run.cli import Recipes, configured
from common.run.files import write_file

LOSSES = ("gan", "least-squares", "wgan-gp")
MEASURED = ["w1", "js", "kl", "w1" + AVERAGED, "js" + AVERAGED, "kl" + AVERAGED, "modes", "quality", "accuracy"]


def part(config: Any, recipes: Recipes, **changes: Any) -> Any:
    """The config of one run of a comparison: its recipe's for that target and loss, and the flags that were given."""
    plain = configured(type(config), recipes, config.recipe, target=config.target, loss=config.loss)
    names = [field.name for field in fields(config) if field.name != "recipe"]
    given = {n: getattr(config, n) for n in names if getattr(config, n) != getattr(plain, n)}
    return configured(type(config), recipes, config.recipe, **{**given, **changes})


def chosen(config: Any) -> tuple[list[str], list[str]]:
    """The targets and the losses of a comparison."""
    return (
        list(TARGETS) if config.target == "all" else [config.target],
        list(LOSSES) if config.loss == "all" else [config.loss],
    )


def settings_of_part(config: Any, recipes: Recipes, target: str, loss: str, folder: Path) -> Any:
    """The config of the run of one target and loss in a comparison whose folder this is."""
    changes = {"target": target, "loss": loss, "out": folder / "runs" / f"{target}_{loss}", "fresh": config.fresh}
    changes |= {"evaluate_every": config.iterations, "seeds": config.comparison_seeds}
    return part(config, recipes, **changes)


def compare(
    config: Any, recipes: Recipes, players: Callable[[Any], Players], train: Callable[[Run, Any, Players], None]
) -> None:
    """Train every (target, loss), its seeds side by side, in a folder of its own, and tabulate the ends.

    Args:
        players, train: the script's; each run is continuable by itself.
    """
    runs = list(itertools.product(*chosen(config)))
    with Run(config, "q2_gan_lab") as whole:
        for step in whole.steps(len(runs), per_epoch=1):
            target, loss = runs[step]
            one = settings_of_part(config, recipes, target, loss, whole.folder)
            networks = players(one)
            with Run(one, "q2_gan_lab", **networks._asdict()) as run:
                train(run, one, networks)
                ends = run.rows("metrics").tail(one.seeds)
                floors = run.rows("floors").mean().add_suffix("_floor")
            for _, end in ends.iterrows():
                values = {**end[MEASURED], **floors[["w1_floor", "js_floor", "quality_floor"]]}
                seconds = run.seconds / one.seeds
                whole.record("runs", target=target, loss=loss, seed=int(end["seed"]), **values, seconds=seconds)
            line = f"W1 {ends['w1'].mean():.4f}, JS {ends['js'].mean():.4f}"
            whole.say(f"{step + 1}/{len(runs)} {target} {loss}, {one.seeds} seeds: {line}")

        rows = whole.rows("runs")
        table = tabulate(rows)
        write_file(whole.folder / "comparison.csv", table.to_csv(index=False, float_format="%.5g").encode())
        figures.comparison(table, rows, whole.folder / "comparison.png")
        shown = ["target", "loss", "seeds", "w1_mean", "w1_std", "js_mean", "js_std", "modes_mean", "quality_mean"]
        whole.say(table[shown].to_string())
        whole.say(f"in {whole.folder}: open comparison.png first, then comparison.csv")


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds: a row for each target and loss, in the order of the runs."""
    runs = runs.assign(parts=runs["target"].map(lambda target: TARGETS[target].parts))
    runs = runs.assign(covered=runs["modes"] / runs["parts"], covered_floor=1.0)
    groups = runs.groupby(["target", "loss"], sort=False)
    columns: dict[str, pd.Series] = {"seeds": groups["seed"].count(), "parts": groups["parts"].first()}
    for name in ("w1", "js", "w1" + AVERAGED, "js" + AVERAGED, "modes", "covered", "quality"):
        columns[f"{name}_mean"], columns[f"{name}_std"] = groups[name].mean(), groups[name].std(ddof=1)
        if f"{name}_floor" in runs:
            columns[f"{name}_floor"] = groups[f"{name}_floor"].mean()
    columns["seconds"] = groups["seconds"].mean()
    return pd.DataFrame(columns).reset_index()
