"""A run of the page written as the script would write it: settings, tables, figures, checkpoint, the drawn target."""

import csv
import io
import itertools
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch

from common.plane import results
from common.plane.live import PARTS, Lab, command
from common.run import Run
from common.run.cli import BadInput
from common.run.files import write_file


def saving(lab: Lab) -> Callable[[], tuple[Path, str]]:
    """What writes the run as it is now, whatever happens to `lab` later: for another thread, it takes long.

    Returns:
        a function that returns the folder, `<out>_live/<time>`, and the command that repeats the run without the page;
        if settings were changed on the way, the command has the last ones, and `changes.csv` lists the changes.

    Raises:
        BadInput: nothing is trained yet.
    """
    if lab.half is not None:
        lab.step()
    if not lab.iteration:
        raise BadInput("save: nothing is trained yet; play first")
    lab.keep_moment()
    config, script = replace(lab.config, iterations=lab.iteration), lab.script
    points = None
    if lab.config.target.endswith(".csv"):
        points = Path(lab.config.target).read_bytes()
    moments, losses, changes = list(lab.moments), torch.tensor(lab.losses), list(lab.changes)
    fake_loss = lab.fake_loss
    optimizers = ("generator_optimizer", "discriminator_optimizer")
    optimizer_states = {name: deepcopy(getattr(lab.networks, name).state_dict()) for name in optimizers}

    def save() -> tuple[Path, str]:
        folder = _new_folder(config.out.with_name(config.out.name + "_live"))
        mine = replace(config, out=folder)
        if points is not None:
            write_file(folder / "target.csv", points)
            mine = replace(mine, target=str(folder / "target.csv"))
        networks = script.players(mine)
        for name, state in optimizer_states.items():
            getattr(networks, name).load_state_dict(state)
        with Run(mine, "q2_gan_lab", **networks._asdict()) as run:
            results.prepare(run, mine)
            run.tensors["losses"][:, 0] = losses
            for iteration, states in moments:
                for part, state in zip(PARTS, states, strict=True):
                    getattr(networks, part).load_state_dict(state)
                results.evaluate(run, mine, networks, fake_loss, iteration)
            for name in ("fakes", "arrows", "surface"):
                run.keep(name, run.tensors[name][: len(moments)].clone())
            run.step = mine.iterations
            results.report(run, mine, networks)
        if changes:  # the checkpoint is not that of a run with these settings alone
            write_file(folder / "changes.csv", _table(changes))
            shutil.rmtree(folder / "checkpoints")
        return folder, command(replace(mine, out=folder / "again"))

    return save


def _new_folder(parent: Path) -> Path:
    """A folder named after this second; the next one of the same second has a number behind it."""
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    for k in itertools.count(1):
        folder = parent / (now if k == 1 else f"{now}_{k}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def _table(changes: list[tuple[int, str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["iteration", "what", "value"], *changes])
    return text.getvalue().encode()
