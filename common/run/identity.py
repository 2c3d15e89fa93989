"""Which settings make a run what it is, and whether a folder's run is this one, under today's or former names."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

# How a run is shown, and what adds rows without a change of those there are.
VIEWS = ("tensorboard", "live", "no_browser", "sample", "sample_epochs", "quality_samples")
SHOWN = ("out", "fresh", "device", "recipe", *VIEWS)
NOT_IDENTITY = (*SHOWN, "draws", "classifier", "benchmark")

# What former configurations call otherwise, and what they mean by a setting that they do not have.
FORMER_NAMES = {"repeats": "echo", "repeats_from": "echo_from", "shift": "max_shift", "modulation": "self_modulation"}
NEUTRAL = {
    "selection": False,
    "ema_late_from": 2 / 3,
    "critic_lr": 0.0,
    "batch_norm": False,
    "self_modulation": 0,
    "detail": 0,
    "data": "",
}
FORMER_NAMES |= {"width": "generator_width", "depth": "generator_depth"}  # of question 2
NEUTRAL |= {"discriminator_width": 64, "discriminator_depth": 3, "average_decay": 0.998, "comparison_seeds": 10}


LENGTHS = ("epochs", "iterations")


def identity(config: Any) -> dict[str, Any]:
    """The settings that decide a run's result, as JSON knows them."""
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_IDENTITY}
    if settings.get("data"):  # what is in the folder, wherever it lies
        archives = sorted(Path(settings["data"]).glob("*.gz"))
        settings["data"] = sha256(b"".join(sha256(path.read_bytes()).digest() for path in archives)).hexdigest()[:16]
    return json.loads(json.dumps(settings, default=str))


def under_todays_names(found: dict[str, Any], mine: Iterable[str]) -> dict[str, Any]:
    """A configuration as a file holds it, in the names of today; a setting it knows nothing of has its neutral value.

    A setting that is gone is left out where it had its neutral value.

    Args:
        mine: the names of today's settings.
    """
    mine = set(mine)
    former = {old: new for old, new in FORMER_NAMES.items() if new in mine and old not in mine}
    renamed = {former.get(name, name): value for name, value in found.items() if name not in NOT_IDENTITY}
    renamed = {name: value for name, value in renamed.items() if name in mine or value != NEUTRAL.get(name, ...)}
    unknown = {name: value for name, value in NEUTRAL.items() if name in mine and name not in renamed}
    return renamed | unknown


def differences(found: dict[str, Any], mine: dict[str, Any]) -> str:
    """Every setting in which a found configuration differs from this run's, as text; empty if none does."""
    missing, found = object(), under_todays_names(found, mine)
    names = [name for name in {**found, **mine} if found.get(name, missing) != mine.get(name, missing)]
    said = ", ".join(f"{name} {_text(found.get(name, '-'))} (now {_text(mine.get(name, '-'))})" for name in names)
    if any(name in LENGTHS for name in names):
        said += "; a run cannot be lengthened or cut, as its schedule of learning rates spans the whole of it"
    return said


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
