"""Optimizer steps that a NaN or an infinity stops, without a wait for the device at every step."""

from collections.abc import Mapping

import torch

from common.run import distributed
from common.run.cli import TrainingFailed
from common.run.numbers import KEPT, require_finite


class Guard:
    """Takes an optimizer's step only if the losses and all gradients are finite.

    At once, on the CPU: a fault is raised before the step. Deferred, on CUDA: the step of a fused optimizer leaves
    weights and moments as they are from the first fault on (`found_inf`, as in mixed-precision training), and `check`
    raises later what `step` would have raised.

    Args:
        device: where the networks are.
        deferred: by default on CUDA only.
    """

    def __init__(self, device: torch.device | str, deferred: bool | None = None) -> None:
        self.deferred = torch.device(device).type == "cuda" if deferred is None else deferred
        self.fault = torch.zeros((), device=device)  # 1 from the first fault on
        self._one = torch.ones((), device=device)
        self.now = 0  # the run's step, for the message
        self._recent: list[tuple[int, Mapping[str, torch.Tensor], torch.Tensor]] = []

    def step(self, optimizer: torch.optim.Optimizer, **losses: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of the optimizer, whose parameters have their gradients; `losses` are 0-d, for the message.

        Of several processes each has its share of gradients and losses, and the step is taken on their sums.

        Returns:
            the losses, summed over the processes.

        Raises:
            TrainingFailed: a loss or a gradient is not finite; not if deferred.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if distributed.size() > 1:  # what is not finite on one process is so in the sum, on all
            gradients = [p.grad for p in parameters if p.grad is not None]
            summed = torch.stack([loss.detach() for loss in losses.values()]).to(gradients[0].dtype)
            distributed.sum_up([*gradients, summed])
            losses = dict(zip(losses, summed.unbind(), strict=True))
        if not self.deferred:
            require_finite(parameters, **losses)
        else:
            checked = [p.grad for p in parameters if p.grad is not None]
            checked.append(torch.stack([loss.detach().float() for loss in losses.values()]))
            torch._amp_foreach_non_finite_check_and_unscale_(checked, self.fault, self._one)
            optimizer.found_inf = self.fault  # type: ignore[attr-defined]  # as GradScaler does
        optimizer.step()
        return losses

    def note(self, losses: Mapping[str, torch.Tensor], fault: torch.Tensor) -> None:
        """Remember until the next `check` what this step found: copies of its losses and of `fault`, 0-d."""
        self._recent.append((self.now, losses, fault))

    def check(self) -> None:
        """Wait for the device and raise what was deferred.

        Raises:
            TrainingFailed: names the first step that was not finite and its losses.
        """
        if not self.deferred:
            return
        recent, self._recent = self._recent, []
        if self.fault.item():
            for step, losses, fault in recent:
                if fault.item():
                    said = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
                    finite = all(value.isfinite().item() for value in losses.values())
                    gradient = ", gradient norm nan or inf" if finite else ""
                    raise TrainingFailed(f"step {step}: not finite ({said}{gradient}); {KEPT}")
            raise TrainingFailed(f"a loss or a gradient is not finite; {KEPT}")
