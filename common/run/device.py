"""Where networks run, and in which arithmetic."""

import contextlib
import os
from collections.abc import Iterator

import torch


def resolve_precision(name: str, device: torch.device) -> str:
    """The arithmetic of `--precision auto|float32|tf32|bfloat16`: auto is TF32 on CUDA, as PyTorch's own default for
    convolutions, since convolutions of float32 take five times as long there, and float32 elsewhere."""
    return ("tf32" if device.type == "cuda" else "float32") if name == "auto" else name


def configure(device: torch.device, precision: str) -> None:
    """On CUDA: reproducible kernels, and float32 products in float32 unless `precision` is "tf32".

    cuDNN then takes only deterministic convolutions, and cuBLAS a workspace of its own, so that the same run on the
    same device is equal bit for bit.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        _set_products("tf32" if precision == "tf32" else "ieee")


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
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = arithmetic
