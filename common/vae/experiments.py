"""Accuracy with few labels: the same random subsets for every method, and tables with intervals."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from scipy import stats

from common.data import draw_labelled
from common.run import Run, rng_for

Method = Callable[[torch.Tensor], torch.Tensor]
"""Indices of the labelled training images, int64 [n] -> predicted classes of the test images, int64 [M]."""
REFERENCE = {100: 0.570, 600: 0.780, 1000: 0.824, 3000: 0.843}
SECONDS = 5.0  # of work between two lines about it


def paced(run: Run, name: str, items: Iterable) -> Iterator:
    """The items, one piece of long work each: after each the run may stop, and every few seconds says how far it is."""
    items = list(items)
    said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        run.stop_if_asked()
        if time.monotonic() - said > SECONDS and done < len(items):
            run.say(f"{name}: {done:,} of {len(items):,}")
            said = time.monotonic()


def balanced(seed: int, labels: torch.Tensor, size: int, draw: int) -> torch.Tensor:
    """The draw-th subset of `size` images with equally many of each class, int64 [size]."""
    return draw_labelled(labels, size, rng_for(seed, f"labelled {size}", draw))


def unstratified(seed: int, labels: torch.Tensor, size: int, draw: int) -> torch.Tensor:
    """The draw-th subset of `size` images whatever their classes, int64 [size]."""
    return torch.randperm(len(labels), generator=rng_for(seed, f"unstratified {size}", draw))[:size]


def predictions(
    run: Run,
    table: str,
    methods: Mapping[str, tuple[Method, int]],
    labels: torch.Tensor,
    sizes: Iterable[int],
    subset: Callable[[int, torch.Tensor, int, int], torch.Tensor] = balanced,
) -> Iterator[tuple[str, int, int, torch.Tensor]]:
    """Of every method, size and draw that `table` does not hold yet: (method, size, draw, predicted classes).

    Args:
        table: rows with method, size and draw, which the caller records.
        methods: by name, with the number of draws.
        labels: of the training images, int64 [N]; a method gets the indices of the drawn ones.
    """
    done = {(row["method"], row["size"], row["draw"]) for row in run.tables.get(table, [])}
    for name, (method, draws) in methods.items():
        for size in sizes:
            missing = [draw for draw in range(draws) if (name, size, draw) not in done]
            for draw in paced(run, f"{name}, {size:,} labels, random subsets", missing):
                yield name, size, draw, method(subset(run.config.seed, labels, size, draw))


def confusion(truth: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """Counts [true class, predicted class] of ten classes, int64 [10, 10]."""
    return torch.bincount(10 * truth + predicted, minlength=100).view(10, 10)


def half_width(values: pd.Series) -> float:
    """Half of the 95 % confidence interval of a mean of independent values, by Student's t; NaN for a single one."""
    n = values.count()
    return float(stats.t.ppf(0.975, n - 1) * values.std() / np.sqrt(n)) if n > 1 else float("nan")


def accuracy_table(draws: pd.DataFrame, reference: Mapping[int, float] = REFERENCE) -> pd.DataFrame:
    """Per method and size: mean, standard deviation (n - 1) over n draws, `ci95` and the assignment's reference.

    `ci95` is half the width of the 95 % confidence interval of the mean over draws, for this one trained network.
    """
    groups = draws.groupby(["method", "size"], sort=False)["accuracy"]
    table = groups.agg(mean="mean", std="std", n="count", ci95=half_width).reset_index()
    return table.assign(reference=table["size"].map(reference))


def paired_table(draws: pd.DataFrame) -> pd.DataFrame:
    """`accuracy_table` and how far each method is from the first one on the same draws: `difference` ± its `ci95`."""
    table = accuracy_table(draws).drop(columns="reference")
    wide = draws.pivot(index=["size", "draw"], columns="method", values="accuracy")
    first = draws["method"].iloc[0]
    differences = wide.drop(columns=first).sub(wide[first], axis=0).stack().rename("difference").reset_index()
    groups = differences.groupby(["method", "size"])["difference"]
    found = groups.agg(difference="mean", difference_ci95=half_width).reset_index()
    return table.merge(found, on=["method", "size"], how="left")
