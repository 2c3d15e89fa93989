"""Generators of finished runs: stored, loaded, sampled."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common import figures
from common.data import to_uint8, to_unit_range
from common.gan import recipes
from common.gan.networks import Generator
from common.run import rng_for
from common.run.cli import BadInput
from common.run.files import read_file, write_file
from common.run.reference import FOLDER

GRID = 100  # images of a grid
WHOLE, HALF, SUM = "generator.pt", "generator_float16.pt", "generator_float16.sha256"


@torch.no_grad()
def draw(generator: nn.Module, noise: torch.Tensor) -> torch.Tensor:
    """Images of noise [N, latent_dim] as uint8 [N, 1, 28, 28] on the processor, in evaluation mode.

    Changes no weight and no batch-norm statistic.
    """
    was_training = generator.training
    generator.eval()
    images = [to_uint8(generator(z)).cpu() for z in noise.split(1000)]
    generator.train(was_training)
    return torch.cat(images)


def write_npz(path: Path, **images: torch.Tensor) -> None:
    """Write uint8 images [N, 1, 28, 28] as arrays of an `.npz` file, under their names."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in images.items()}
    np.savez_compressed(buffer, **arrays)
    write_file(path, buffer.getvalue())


def write_generator(folder: Path, generator: Generator, averaged: nn.Module) -> None:
    """Write `generator.pt` (raw and averaged weights), and the averaged ones in half precision, small enough for git.

    The SHA-256 sum of the small file stands beside it, as `sha256sum --check` reads it.
    """
    averages = averaged.state_dict()
    small = {k: v.half() if v.is_floating_point() else v for k, v in averages.items()}
    whole = {"shape": generator.shape, "raw": generator.state_dict(), "averaged": averages}
    write_file(folder / WHOLE, _stored(whole))
    half = _stored({"shape": generator.shape, "averaged": small})
    write_file(folder / HALF, half)
    write_file(folder / SUM, f"{hashlib.sha256(half).hexdigest()}  {HALF}\n".encode())


def _stored(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def generator_in(folder: Path) -> Path | None:
    """The file of a run's generator: whole, or where that is not there in half precision; None without either."""
    return next((folder / name for name in (WHOLE, HALF) if (folder / name).is_file()), None)


def load_generator(path: Path) -> Generator:
    """The generator of a finished run, with its averaged weights, in evaluation mode; its shape stands in the file.

    Args:
        path: a `generator.pt`, or a `generator_float16.pt` with its checksum beside it.

    Raises:
        BadInput: there is no such file, or it holds no generator, or another than the checksum says.
    """
    try:
        content = read_file(path)
        if path.name == HALF and not (path.parent / SUM).read_text().startswith(hashlib.sha256(content).hexdigest()):
            raise ValueError("not the file of the checksum")
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        shape = stored["shape"]
        if any(not 0 <= shape.get(name, 0) <= largest for name, largest in recipes.LARGEST.items()):
            raise ValueError("a shape that no run can have")
        with torch.device("meta"):  # its weights are those of the file, no others take memory
            generator = Generator(**shape)
        weights = {k: v.float() if v.is_floating_point() else v for k, v in stored["averaged"].items()}
        generator.load_state_dict(weights, assign=True)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; train first, or name a finished run with --out") from None
    except Exception as fault:  # torch.load raises many kinds for a damaged file
        raise BadInput(f"{path}: not a generator ({type(fault).__name__}); train again with --fresh") from None
    return generator.eval()


def sample_finished_run(config: Any, script: str) -> None:
    """`--sample N`: draw N new images with the averaged weights in --out; writes `drawn.npz` and `drawn.png`.

    Where the script's own folder holds no run, those of the reference run are taken.

    Raises:
        BadInput: there is no finished run in the folder.
    """
    folder = Path(config.out)
    path = generator_in(folder)
    if path is None and config.out == type(config).out and not folder.exists():
        path = generator_in(FOLDER / script)
        if path:
            print(f"{folder} is not there; the reference run's generator draws")
    generator = load_generator(path or folder / WHOLE)
    folder.mkdir(parents=True, exist_ok=True)
    noise = torch.randn(config.sample, generator.latent_dim, generator=rng_for(config.seed, "drawn", 0))
    images = draw(generator, noise)
    write_npz(folder / "drawn.npz", images=images)
    title = f"{min(GRID, config.sample)} new images"
    figures.image_grid(to_unit_range(images[:GRID]), 10, folder / "drawn.png", title)
    print(f"wrote {folder / 'drawn.npz'} ({config.sample} images) and drawn.png")
