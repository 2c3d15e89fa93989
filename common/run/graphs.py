"""A training step as one CUDA graph: its several hundred kernels are launched together, not one by one from Python.

A step must be a function of tensors alone: what it reads are its arguments and the networks' and optimizers' own
tensors, it draws no random number and never waits for the device. On other devices, and where several processes sum
their gradients within the step, it is called as it is.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from common.run import distributed
from common.run.guard import Guard

WARM_UPS = 3  # runs before a capture, in which libraries choose kernels and take workspaces


def state_tensors(parts: Iterable[Any]) -> list[torch.Tensor]:
    """Every tensor that a step may change: of networks weights and buffers, of optimizers moments and step counts."""
    found = []
    for part in parts:
        if isinstance(part, torch.nn.Module):
            found += [*part.parameters(), *part.buffers()]
        elif isinstance(part, torch.optim.Optimizer):
            found += [value for state in part.state.values() for value in state.values()]
        else:
            found.append(part)
    return found


class Graphed:
    """`step(*tensors, **constants)`, captured once for each shape of the tensors and each value of the constants.

    Args:
        step: returns a dict of losses (0-d tensors), or one tensor.
        parts: networks, optimizers and other tensors that the step changes.
        guard: of the run; it has the device and hears of each step's losses.
    """

    def __init__(self, step: Callable[..., Any], parts: Iterable[Any], guard: Guard) -> None:
        self.step, self.parts, self.guard = step, (*parts, guard.fault), guard
        self._names: tuple[str, ...] = ()
        self._graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]] = {}

    def __call__(self, *tensors: torch.Tensor, **constants: Any) -> Any:
        """The step's losses; where it returns a tensor, that, which on CUDA the next call overwrites."""
        if not self.guard.deferred:
            return self.step(*tensors, **constants)
        captured = tensors[0].is_cuda and distributed.size() == 1
        found = self._replayed(tensors, constants) if captured else self._packed(*tensors, **constants)
        if not self._names:
            return found
        *losses, fault = found.clone().unbind()
        named = dict(zip(self._names, losses, strict=True))
        self.guard.note(named, fault)
        return named

    def _packed(self, *tensors: torch.Tensor, **constants: Any) -> torch.Tensor:
        """The step's losses and the guard's flag in one tensor."""
        found = self.step(*tensors, **constants)
        if isinstance(found, torch.Tensor):
            return found
        self._names = tuple(found)
        return torch.stack([*(loss.detach().float() for loss in found.values()), self.guard.fault])

    def _replayed(self, tensors: tuple[torch.Tensor, ...], constants: dict[str, Any]) -> torch.Tensor:
        key = (*((tuple(t.shape), t.dtype) for t in tensors), *sorted(constants.items()))
        if key not in self._graphs:
            self._graphs[key] = self._capture(tensors, constants)
        graph, inputs, result = self._graphs[key]
        for mine, given in zip(inputs, tensors, strict=True):
            mine.copy_(given)
        graph.replay()
        return result

    def _capture(
        self, tensors: tuple[torch.Tensor, ...], constants: dict[str, Any]
    ) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]:
        """Run the step a few times on a side stream, put back what that changed, and record it."""
        inputs = [tensor.clone() for tensor in tensors]
        before = {id(tensor): tensor.detach().clone() for tensor in state_tensors(self.parts)}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._packed(*inputs, **constants)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor in state_tensors(self.parts):  # moments that an optimizer has only now begin at 0
                tensor.copy_(before[id(tensor)]) if id(tensor) in before else tensor.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._packed(*inputs, **constants)
        return graph, inputs, result


def adam(parameters: Iterable[torch.nn.Parameter], lr: float, **settings: Any) -> torch.optim.Adam:
    """Fused Adam, ready for graph capture where the parameters are on CUDA."""
    parameters = list(parameters)
    on_cuda = parameters[0].is_cuda
    return torch.optim.Adam(parameters, lr=lr, fused=True, capturable=on_cuda, **settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate; on CUDA in the tensor (float32) that captured steps read."""
    for group in optimizer.param_groups:
        if group["params"][0].is_cuda:
            if not isinstance(group["lr"], torch.Tensor) or not group["lr"].is_cuda:
                group["lr"] = torch.zeros((), device=group["params"][0].device)
                group["capturable"] = True
            group["lr"].fill_(lr)
        else:
            group["lr"], group["capturable"] = lr, False
