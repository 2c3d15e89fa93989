"""Where networks run, and in which arithmetic."""

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]


def resolve_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """The arithmetic of `--precision auto|float32|tf32|bfloat16`: auto is TF32 on CUDA, as PyTorch's own default for
    convolutions, since convolutions of float32 take five times as long there, and float32 elsewhere."""
    if name == "auto":
        return "tf32" if device.type == "cuda" else "float32"
    return name


def configure(device: torch.device, precision: str) -> None:
    """On CUDA: reproducible kernels, and float32 products in float32 unless `precision` is "tf32".

    cuDNN then takes only deterministic convolutions, and cuBLAS a workspace of its own, so that the same run on the
    same device is equal bit for bit.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        _set_products("tf32" if precision == "tf32" else "ieee")


def layout(device: torch.device) -> torch.memory_format:
    """Channels-last, which is faster; on MPS contiguous, since batch norm is wrong there otherwise (PyTorch 175189)."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def place(network: torch.nn.Module, device: torch.device) -> None:
    """Move a network to the device, its weights in that device's memory layout."""
    network.to(device, memory_format=layout(device))  # type: ignore[call-overload]  # the stubs lack it


@contextlib.contextmanager
def float32_products() -> Iterator[None]:
    """Products of float32 in float32 for what is measured, whatever training computes in."""
    before = torch.backends.cuda.matmul.fp32_precision
    _set_products("ieee")
    try:
        yield
    finally:
        _set_products(before)


def _set_products(arithmetic: str) -> None:
    torch.backends.cudnn.conv.fp32_precision = arithmetic  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = arithmetic
