"""Averages of a generator's weights over training: lookahead and the exponential moving average."""

import copy

import torch
from torch import nn


@torch.no_grad()
def look_ahead(slow: nn.Module, network: nn.Module, fraction: float) -> None:
    """A step of lookahead (Zhang et al. 2019, arXiv 1907.08610; for GANs arXiv 2006.14567).

    Moves the weights of `slow` by `fraction` of the way to those of `network`, then sets `network` there; at 1 `slow`
    alone moves. Optimizer moments and batch-norm statistics stay.
    """
    mine: list[torch.Tensor] = list(slow.parameters())
    theirs: list[torch.Tensor] = list(network.parameters())
    torch._foreach_lerp_(mine, theirs, fraction)
    torch._foreach_copy_(theirs, mine)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


class MovingAverage:
    """Exponential moving average of a network's weights and batch-norm statistics, kept as a network of its own.

    Args:
        network: the one to follow.
        decay: fraction of the average that stays at each update, at most.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module, warm_up: int = 10) -> None:
        """Move the average towards the network's present weights.

        Args:
            warm_up: after n updates the decay is at most (1 + n) / (warm_up + n), so that the average remembers about
                the last n / warm_up of them.
        """
        decay = min(self.decay, (1 + self.updates) / (warm_up + self.updates))
        self.updates += 1
        mine, theirs = _tensors(self.network), _tensors(network)
        moving, counts = ([i for i, t in enumerate(mine) if t.is_floating_point() is kind] for kind in (True, False))
        torch._foreach_lerp_([mine[i] for i in moving], [theirs[i] for i in moving], 1 - decay)
        if counts:
            torch._foreach_copy_([mine[i] for i in counts], [theirs[i] for i in counts])

    def state_dict(self) -> dict:
        """The averaged weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]
