"""A GAN in the plane that is looked at and changed while it trains: the state behind one tab of the page.

It trains with the script's own functions, and what it shows is measured by `measures` and `results`. Until somebody
changes a setting, it is, bit for bit, the run of the script with the same settings.
"""

import math
import shlex
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from common.plane import measures, results
from common.plane.recipes import RECIPES
from common.plane.results import Players
from common.plane.targets import along, target_of
from common.run import rng_for
from common.run.cli import BadInput, TrainingFailed, configured, require, require_range

EVAL_SAMPLES, TRANSPORT_SAMPLES = 2_000, 200  # of a measurement in the page, which must not stall it
FLOOR_DRAWS = 10
KEPT = 500  # moments of which the weights are kept for saving
PARTS = ("generator", "discriminator", "average")

# What one may turn, with limits below the script's so that a frame stays short; the second half starts anew.
WHILE_IT_TRAINS: dict[str, tuple[float, float] | None] = {
    "target": None,
    "loss": None,
    "lr": (1e-9, 100),
    "generator_lr": (1e-9, 100),
    "optimizer": None,
    "discriminator_steps": (1, 20),
    "generator_steps": (1, 20),
    "batch_size": (2, 2048),
}
TURNED: dict[str, tuple[float, float] | None] = {
    **WHILE_IT_TRAINS,
    "noise": None,
    "noise_dim": None,
    "generator_width": (1, 256),
    "generator_depth": (1, 8),
    "discriminator_width": (1, 256),
    "discriminator_depth": (1, 8),
    "seed": (0, 2**31),
}


class Script(NamedTuple):
    """The functions of the script that train."""

    players: Callable[[Any], Players]
    set_learning_rates: Callable[[Any, Players, int], None]
    discriminator_turn: Callable[[Any, Players, Sequence[torch.Generator]], Tensor]
    generator_turn: Callable[[Any, Players, Sequence[torch.Generator]], Tensor]
    generator_loss: Callable[[str, Tensor], Tensor]


class Lab:
    """One GAN, its settings and what was measured of it.

    Args:
        config: settings to begin with; one seed trains, at constant learning rates, for as long as one likes.
        script: what trains it.

    Attributes:
        iteration: iterations done.
        fault: why training cannot go on, or None.
        floors, measured: rows of real against real, and of real against fake with their `iteration`.
        losses: the last loss of discriminator and generator at each iteration.
        moments: iterations, and the states of `PARTS` after as many.
        changes: after how many iterations what was set to which value; empty if this is the script's run.
    """

    def __init__(self, config: Any, script: Script) -> None:
        self.script = script
        self.drawings = tempfile.TemporaryDirectory(prefix="q2_gan_lab_")
        self.config = replace(config, seeds=1, decay_from=1.0, device="cpu", live=False)
        self.restart()

    def close(self) -> None:
        """Drop the files of the drawings."""
        self.drawings.cleanup()

    # Training.

    def restart(self) -> None:
        """Networks as the seed gives them; nothing done, nothing measured."""
        self.networks = self.script.players(self.config)
        self.iteration, self.single = 0, 0
        self.half: tuple[float, list[torch.Generator]] | None = None
        self.fault: str | None = None
        self.losses: list[tuple[float, float]] = []
        self.measured: list[dict[str, float]] = []
        self.changes: list[tuple[int, str, str]] = []
        self.moments: list[tuple[int, list[dict[str, Any]]]] = []
        self.keep_moment()
        self._new_target()

    def step(self) -> None:
        """One iteration, or what is left of one after `half_step`.

        Raises:
            TrainingFailed: a loss or a gradient is not finite; the weights are those before.
        """
        while self.half_step() == "discriminator":
            pass

    def half_step(self) -> Literal["discriminator", "generator"]:
        """The discriminator's turn of an iteration, or, after that, the generator's: whose it was."""
        config, networks = self.config, self.networks
        if self.half is None:
            self.script.set_learning_rates(config, networks, self.iteration)
            rngs = [rng_for(config.seed, "train", self.iteration)]
            self.half = (self._guarded("discriminator", rngs), rngs)
            return "discriminator"
        loss, rngs = self.half
        self.losses.append((loss, self._guarded("generator", rngs)))
        self.half = None
        self.iteration += 1
        if self.iteration % config.evaluate_every == 0:
            self.keep_moment()
        return "generator"

    def step_alone(self, who: Literal["discriminator", "generator"]) -> None:
        """A turn of one of the two alone, with random numbers of its own; it counts as a change."""
        self.script.set_learning_rates(self.config, self.networks, self.iteration)
        self._guarded(who, [rng_for(self.config.seed, f"{who} alone", self.single)])
        self.single += 1
        self.changes.append((self.iteration, f"only the {who}", "one turn"))

    def _guarded(self, who: Literal["discriminator", "generator"], rngs: list[torch.Generator]) -> float:
        turn = self.script.discriminator_turn if who == "discriminator" else self.script.generator_turn
        try:
            return float(turn(self.config, self.networks, rngs)[0])
        except TrainingFailed as fault:
            self.fault = f"iteration {self.iteration}: {fault}, and start again"
            raise

    def keep_moment(self) -> None:
        """Keep the weights as they are, for saving; of one iteration once, and of `KEPT` iterations at most."""
        if self.moments and self.moments[-1][0] == self.iteration:
            del self.moments[-1]
        self.moments.append((self.iteration, [deepcopy(getattr(self.networks, p).state_dict()) for p in PARTS]))
        if len(self.moments) > KEPT:
            del self.moments[1]

    # Settings.

    def turn(self, name: str, text: str) -> None:
        """Set what the page calls `name` to what was entered; nothing changes if that is not possible.

        Raises:
            BadInput: names the flag, what was entered and what it takes.
        """
        if name == "recipe":
            require(text in RECIPES, "--recipe", repr(text[:40]), " or ".join(RECIPES))
            kept = {field: getattr(self.config, field) for field in ("target", "loss", "seed", "out", "evaluate_every")}
            recipe = configured(type(self.config), RECIPES, text, **kept)
            self._set("recipe", replace(recipe, seeds=1, decay_from=1.0))
            return
        if name not in TURNED:
            raise BadInput(f"{name[:40]!r} cannot be set here")
        value = parsed(type(self.config), name, text)
        if limits := TURNED[name]:
            require_range(flag_of(name), value, *limits)
        if value == getattr(self.config, name):
            return
        if name == "target" and value.endswith(".csv"):
            raise BadInput("--target: draw a target, or start the page with --target FILE.csv")
        self._set(name, replace(self.config, **{name: value}))

    def draw(self, strokes: Sequence[Sequence[Sequence[float]]]) -> None:
        """Make a target of what was drawn: of each stroke its points [n, 2].

        Raises:
            BadInput: the drawing cannot be a target.
        """
        points, folder = along(strokes), Path(self.drawings.name)
        path = folder / f"target_{len(list(folder.iterdir()))}.csv"  # a name of its own, by which it is kept in memory
        path.write_text("x,y\n" + "".join(f"{x:.5f},{y:.5f}\n" for x, y in points))
        self._set("target", replace(self.config, target=str(path)))

    def _set(self, name: str, config: Any) -> None:
        old, self.config, self.fault = self.networks, config, None
        untouched = self.iteration + self.single == 0 and self.half is None
        if untouched or name not in WHILE_IT_TRAINS:
            self.restart()
            return
        self.changes.append((self.iteration, name, str(getattr(config, name))))
        if name == "optimizer":
            self.networks = self.script.players(config)
            for part in PARTS:
                getattr(self.networks, part).load_state_dict(getattr(old, part).state_dict())
        if name == "target":
            self._new_target()

    def _new_target(self) -> None:
        self.target = target_of(self.config.target)
        self.floors: list[dict[str, float]] = []
        self.shown_real = self.target.sample(results.SHOWN, rng_for(self.config.seed, "shown", 1)).numpy()

    # Looking.

    @property
    def fake_loss(self) -> Callable[[Tensor], Tensor]:
        """What the generator minimises, for each fake, from the discriminator's scores."""
        return partial(self.script.generator_loss, self.config.loss)

    def generator(self, averaged: bool) -> nn.Module:
        """The generator as it is, or with averaged weights."""
        return self.networks.average if averaged else self.networks.generator

    def look(self, averaged: bool) -> dict[str, np.ndarray]:
        """Noise and fakes [n, ...], arrows [n, 2] and the surface, as `results.frame_of` has them."""
        z = results.shown_noise(self.config, torch.device("cpu"))
        networks = self.networks._replace(generator=self.generator(averaged))
        with torch.no_grad():
            seen = torch.cat([torch.from_numpy(self.shown_real)[None], networks.generator(z)], 1)
            middle = networks.discriminator(seen).mean()
        frame = results.frame_of(self.config, networks, self.fake_loss, z, middle)
        return {"noise": z[0].numpy(), **{name: part.numpy() for name, part in frame.items()}}

    def manifold(self, averaged: bool, lines: int = 16) -> list[np.ndarray]:
        """Where the generator puts the lines of a grid over the noise: of each line its points [m, 2]."""
        _, images = results.manifold_of(self.config, self.generator(averaged), lines, torch.device("cpu"))
        grid = images.numpy()
        return [grid] if grid.ndim == 2 else [*grid, *grid.transpose(1, 0, 2)]

    def measure(self) -> dict[str, float]:
        """A row of real against fake at this iteration, as the script has it, from fewer samples."""
        sizes = replace(self.config, eval_samples=EVAL_SAMPLES, transport_samples=TRANSPORT_SAMPLES)
        rng = rng_for(self.config.seed, "page", self.iteration + self.single)
        (row,), _ = results.measured(sizes, self.networks, self.fake_loss, [rng])
        self.measured.append({"iteration": self.iteration, **{name: float(value) for name, value in row.items()}})
        return self.measured[-1]

    def measure_floor(self) -> bool:
        """One more draw of real against real, of the sizes of `measure`: whether there was one to make."""
        draw = len(self.floors)
        if draw >= FLOOR_DRAWS:
            return False
        rng = rng_for(self.config.seed, "page floors", draw)
        self.floors += measures.floor(self.target, EVAL_SAMPLES, TRANSPORT_SAMPLES, 1, lambda _: rng)
        return True

    def floor(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a measure of real against real; NaN before there are two."""
        values = np.array([row[name] for row in self.floors])
        return (float(values.mean()), float(values.std(ddof=1))) if len(values) > 1 else (math.nan, math.nan)


def flag_of(name: str) -> str:
    """The flag of a field of the config."""
    return "--" + name.replace("_", "-")


def parsed(config_class: type, name: str, text: str) -> Any:
    """What was entered for a field of the config, in the field's type.

    Raises:
        BadInput: it is none of the choices, or no number.
    """
    hint, shown = get_type_hints(config_class)[name], repr(text[:40])
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint) if choice != "all"}
        require(text in choices, flag_of(name), shown, " or ".join(choices))
        return choices[text]
    if text == "all":
        raise BadInput(f"{flag_of(name)}: the page trains one GAN; `all` is for the script")
    try:
        return hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise BadInput(f"{flag_of(name)}: {shown} is not possible; it takes {kind}") from None


def command(config: Any) -> str:
    """The command that repeats a run with these settings without the page."""
    plain, parts = type(config)(), ["python", "q2_gan_lab.py"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in ("live", "no_browser", "fresh", "recipe") or value == getattr(plain, field.name):
            continue
        parts += [flag_of(field.name), *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(parts)
