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
from common.plane.targets import require_points, target_of
from common.run import rng_for
from common.run.cli import BadInput, TrainingFailed, configured, require_range

EVAL_SAMPLES, TRANSPORT_SAMPLES = 2_000, 200  # of a measurement in the page, which must not stall it
FLOOR_DRAWS = 10
MEASURE_EVERY = 8  # frames
KEPT = 500  # moments of which the weights are kept for saving
PATH_POINTS = 200  # of a drawing, equally far apart along it
MOST_DRAWN = 20_000  # points that a drawing may have before that

# What one may turn, with limits below the script's so that a frame stays short.
TURNED: dict[str, tuple[float, float] | None] = {
    "target": None,
    "loss": None,
    "lr": (1e-9, 100),
    "generator_lr": (1e-9, 100),
    "optimizer": None,
    "discriminator_steps": (1, 20),
    "generator_steps": (1, 20),
    "batch_size": (2, 2048),
    "noise": None,
    "noise_dim": None,
    "generator_width": (1, 256),
    "generator_depth": (1, 8),
    "discriminator_width": (1, 256),
    "discriminator_depth": (1, 8),
    "seed": (0, 2**31),
}
KEEP_NETWORKS = list(TURNED)[:8]  # up to the batch size


class Script(NamedTuple):
    """The functions of the script that train."""

    players: Callable[[Any], Players]
    set_learning_rates: Callable[[Any, Players, int], None]
    discriminator_turn: Callable[[Any, Players, Sequence[torch.Generator]], Tensor]
    generator_turn: Callable[[Any, Players, Sequence[torch.Generator]], Tensor]
    generator_loss: Callable[[str, Tensor], Tensor]


class Change(NamedTuple):
    """What was changed after how many iterations; for `changes.csv`."""

    iteration: int
    what: str
    value: str


class Moment(NamedTuple):
    """The weights after so many iterations: states of generator, discriminator and average."""

    iteration: int
    states: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


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
        changes: what was changed since the start; empty if this is the script's run.
    """

    def __init__(self, config: Any, script: Script) -> None:
        self.script = script
        self._drawings: tempfile.TemporaryDirectory[str] | None = None
        self.config = replace(config, seeds=1, decay_from=1.0, device="cpu", live=False)
        self.restart()

    def close(self) -> None:
        """Drop the files of the drawings."""
        if self._drawings is not None:
            self._drawings.cleanup()

    # Training.

    def restart(self) -> None:
        """Networks as the seed gives them; nothing done, nothing measured."""
        self.networks = self.script.players(self.config)
        self.iteration, self.single = 0, 0
        self.half: tuple[float, list[torch.Generator]] | None = None
        self.fault: str | None = None
        self.losses: list[tuple[float, float]] = []
        self.measured: list[dict[str, float]] = []
        self.changes: list[Change] = []
        self.moments: list[Moment] = [self._moment()]
        self._new_target()

    def step(self) -> None:
        """One iteration, or what is left of one after `half_step`.

        Raises:
            TrainingFailed: a loss or a gradient is not finite; the weights are those before.
        """
        self.half_step()
        if self.half is not None:
            self.half_step()

    def half_step(self) -> str:
        """The discriminator's turn of an iteration, or, after that, the generator's: whose it was."""
        config, networks = self.config, self.networks
        if self.half is None:
            self.script.set_learning_rates(config, networks, self.iteration)
            rngs = [rng_for(config.seed, "train", self.iteration)]
            self.half = (self._guarded(self.script.discriminator_turn, rngs), rngs)
            return "discriminator"
        loss, rngs = self.half
        self.losses.append((loss, self._guarded(self.script.generator_turn, rngs)))
        self.half = None
        self.iteration += 1
        if self.iteration % config.evaluate_every == 0:
            self.keep_moment()
        return "generator"

    def step_alone(self, who: Literal["discriminator", "generator"]) -> None:
        """A turn of one of the two alone, with random numbers of its own; it counts as a change."""
        self.script.set_learning_rates(self.config, self.networks, self.iteration)
        turn = self.script.discriminator_turn if who == "discriminator" else self.script.generator_turn
        self._guarded(turn, [rng_for(self.config.seed, f"{who} alone", self.single)])
        self.single += 1
        self.changes.append(Change(self.iteration, f"only the {who}", "one turn"))

    def _guarded(self, turn: Callable[..., Tensor], rngs: Sequence[torch.Generator]) -> float:
        try:
            return float(turn(self.config, self.networks, rngs)[0])
        except TrainingFailed as fault:
            self.fault = f"iteration {self.iteration}: {fault}, and start again"
            raise

    def keep_moment(self) -> None:
        """Keep the weights as they are, for saving; of one iteration once."""
        if self.moments[-1].iteration == self.iteration:
            del self.moments[-1]
        self.moments.append(self._moment())
        if len(self.moments) > KEPT:
            del self.moments[1]

    def _moment(self) -> Moment:
        parts = (self.networks.generator, self.networks.discriminator, self.networks.average)
        generator, discriminator, average = (deepcopy(part.state_dict()) for part in parts)
        return Moment(self.iteration, (generator, discriminator, average))

    # Settings.

    def turn(self, name: str, text: str) -> None:
        """Set what the page calls `name` to what was entered; nothing changes if that is not possible.

        Raises:
            BadInput: names the flag, what was entered and what it takes.
        """
        if name == "recipe":
            self._set(configured_for(self.config, text), {"recipe"})
            return
        if name not in TURNED:
            raise BadInput(f"{name[:40]!r} cannot be set here")
        value = parsed(type(self.config), name, text)
        if limits := TURNED[name]:
            require_range("--" + name.replace("_", "-"), value, *limits)
        if name == "target" and str(value).endswith(".csv") and value != self.config.target:
            raise BadInput("--target: draw a target, or start the page with --target FILE.csv")
        if value != getattr(self.config, name):
            self._set(replace(self.config, **{name: value}), {name})

    def draw(self, strokes: Sequence[Sequence[Sequence[float]]]) -> None:
        """Make a target of what was drawn: of each stroke its points [n, 2].

        Raises:
            BadInput: the drawing cannot be a target.
        """
        points = along(strokes)
        if self._drawings is None:
            self._drawings = tempfile.TemporaryDirectory(prefix="q2_gan_lab_")
        folder = Path(self._drawings.name)
        path = folder / f"target_{len(list(folder.iterdir()))}.csv"  # a name of its own, by which it is kept in memory
        path.write_text("x,y\n" + "".join(f"{x:.5f},{y:.5f}\n" for x, y in points))
        self._set(replace(self.config, target=str(path)), {"target"})

    def _set(self, config: Any, names: set[str]) -> None:
        former, old, self.config = self.config, self.networks, config
        self.fault = None
        if not names <= set(KEEP_NETWORKS) or (self.iteration + self.single == 0 and self.half is None):
            self.restart()
            return
        for name in names:
            self.changes.append(Change(self.iteration, name, str(getattr(config, name))))
        if config.optimizer != former.optimizer:
            self.networks = self.script.players(config)
            for part in ("generator", "discriminator", "average"):
                getattr(self.networks, part).load_state_dict(getattr(old, part).state_dict())
        if config.target != former.target:
            self._new_target()

    def _new_target(self) -> None:
        self.target = target_of(self.config.target)
        self.floors: list[dict[str, float]] = []
        self.shown_real = self.target.sample(results.SHOWN, rng_for(self.config.seed, "shown", 1)).numpy()

    # Looking.

    def generator(self, averaged: bool) -> nn.Module:
        """The generator as it is, or with averaged weights."""
        return self.networks.average if averaged else self.networks.generator

    def look(self, averaged: bool) -> dict[str, np.ndarray]:
        """Noise and fakes [n, ...], arrows [n, 2] and the surface, as `results.frame_of` has them."""
        z = results.shown_noise(self.config, torch.device("cpu"))
        networks = self.networks._replace(generator=self.generator(averaged))
        fake_loss = partial(self.script.generator_loss, self.config.loss)
        with torch.no_grad():
            seen = torch.cat([torch.from_numpy(self.shown_real)[None], networks.generator(z)], 1)
            middle = networks.discriminator(seen).mean()
        frame = results.frame_of(self.config, networks, fake_loss, z, middle)
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
        real = self.target.sample(EVAL_SAMPLES, rng)
        z = results.draw_noise(self.config, EVAL_SAMPLES, [rng])
        with torch.no_grad():
            fake, averaged = self.networks.generator(z), self.networks.average(z)
            f_real, f_fake = self.networks.discriminator(real[None]), self.networks.discriminator(fake)
        row = results.row_of(sizes, real, fake[0], averaged[0], f_real[0], f_fake[0])
        fake_loss = partial(self.script.generator_loss, self.config.loss)
        pushed = results.arrows(self.networks.discriminator, fake_loss, fake[:, :TRANSPORT_SAMPLES])
        row = {"iteration": self.iteration, **row, "gradient_at_fakes": pushed.norm(dim=2).mean()}
        self.measured.append({name: float(value) for name, value in row.items()})
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
        """Mean and standard deviation of a measure of real against real; NaN before there are any."""
        values = np.array([row[name] for row in self.floors])
        if not len(values):
            return math.nan, math.nan
        return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def parsed(config_class: type, name: str, text: str) -> Any:
    """What was entered for a field of the config, in the field's type.

    Raises:
        BadInput: it is none of the choices, or no number.
    """
    hint, flag, shown = get_type_hints(config_class)[name], "--" + name.replace("_", "-"), text[:40]
    if get_origin(hint) is Literal:
        choices = [choice for choice in get_args(hint) if choice != "all"]
        for choice in choices:
            if str(choice) == text:
                return choice
        raise BadInput(f"{flag}: {shown!r} is not possible; it takes {' or '.join(map(str, choices))}")
    if hint is str:
        if text == "all":
            raise BadInput(f"{flag}: the page trains one GAN; `all` is for the script")
        return text
    try:
        return hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise BadInput(f"{flag}: {shown!r} is not possible; it takes {kind}") from None


def configured_for(config: Any, recipe: str) -> Any:
    """The settings of a recipe for the config's target and loss, with its seed, in the page."""
    if recipe not in RECIPES:
        raise BadInput(f"--recipe: {recipe[:40]!r} is not possible; it takes {' or '.join(RECIPES)}")
    kept = {name: getattr(config, name) for name in ("target", "loss", "seed", "out", "evaluate_every")}
    return replace(configured(type(config), RECIPES, recipe, **kept), seeds=1, decay_from=1.0)


def along(strokes: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """At most `PATH_POINTS` points [n, 2], equally far apart along all strokes together.

    Raises:
        BadInput: no stroke has a length, there are too many points, or some are outside the unit square.
    """
    what, parts = "the drawing", []
    if sum(len(stroke) for stroke in strokes) > MOST_DRAWN:
        raise BadInput(f"{what}: more than {MOST_DRAWN:,} points are not possible; draw less")
    for stroke in strokes:
        try:
            points = np.array(stroke, dtype=float).reshape(-1, 2)
        except (TypeError, ValueError):
            raise BadInput(f"{what}: a stroke is no list of points x, y") from None
        if len(points) > 1:
            parts.append(require_points(points[:: -(-len(points) // 1000)], what))
    lengths = [float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum()) for points in parts]
    if not sum(lengths) > 0.01:
        raise BadInput(f"{what}: it has no length; draw a line")
    found = []
    for points, length in zip(parts, lengths, strict=True):
        at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        n = max(2, round(PATH_POINTS * length / sum(lengths)))
        wanted = np.linspace(0, length, n)
        found.append(np.stack([np.interp(wanted, at, points[:, axis]) for axis in range(2)], 1))
    return np.concatenate(found)


def command(config: Any) -> str:
    """The command that repeats a run with these settings without the page."""

    plain, parts = type(config)(), ["python", "q2_gan_lab.py"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in ("live", "no_browser", "fresh", "recipe") or value == getattr(plain, field.name):
            continue
        values = value if isinstance(value, tuple) else (value,)
        parts += ["--" + field.name.replace("_", "-"), *map(str, values)]
    return shlex.join(parts)
