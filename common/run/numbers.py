"""Losses, gradients and weights that are not finite, found before they do harm."""

from collections.abc import Iterable
from typing import Any

import torch

from common.run.cli import TrainingFailed

KEPT = "the weights before it are kept; try a smaller --lr"


def first_non_finite(value: Any, name: str = "") -> str | None:
    """The name of the first tensor in a nest of dicts and lists that holds a NaN or an infinity, or None."""
    if isinstance(value, torch.Tensor):
        return name if value.is_floating_point() and not value.isfinite().all() else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        if found := first_non_finite(inner, f"{name}.{key}" if name else str(key)):
            return found
    return None


def require_finite(parameters: Iterable[torch.Tensor], **losses: torch.Tensor) -> None:
    """Stop before an optimizer's step if a loss or a gradient is NaN or infinite.

    Args:
        parameters: those about to be changed; their `.grad` is looked at.
        losses: the parts of the loss, 0-d tensors.

    Raises:
        TrainingFailed: names every part of the loss; a `Run` adds the step.
    """
    gradient_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    parts = {**losses, "gradient norm": gradient_norm}
    values = torch.stack([value.detach().float() for value in parts.values()])
    if not bool(values.isfinite().all()):
        said = ", ".join(f"{name} {value:g}" for name, value in zip(parts, values.tolist(), strict=True))
        raise TrainingFailed(f"not finite ({said}); {KEPT}")
