"""Random-number generators as pure functions of (seed, stream, step)."""

import hashlib

import torch


def rng_for(seed: int, stream: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random generator of one step: a pure function of `(seed, stream, step)`, independent between streams."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
