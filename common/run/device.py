"""Where networks run, and in which arithmetic."""

import os

import torch


def configure(device: torch.device, precision: str) -> None:
    """On CUDA: reproducible kernels, and float32 products in float32 unless `precision` is "tf32".

    cuDNN then takes only deterministic convolutions, and cuBLAS a workspace of its own, so that the same run on the
    same device is equal bit for bit. Without this, PyTorch's convolutions of float32 are computed in TF32.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        arithmetic = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = arithmetic
