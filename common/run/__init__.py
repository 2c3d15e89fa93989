"""A run: its folder, tables, checkpoints, files, random numbers, environment and command line."""

from common.run.batches import Batch
from common.run.guard import Guard
from common.run.numbers import require_finite
from common.run.rng import rng_for
from common.run.run import Run

__all__ = ["Batch", "Guard", "Run", "require_finite", "rng_for"]
