"""Averages of a generator's weights over training: lookahead and the exponential moving average."""

import copy

import torch
from torch import nn


@torch.no_grad()
def look_ahead(slow: nn.Module, network: nn.Module, share: float) -> None:
    """A step of lookahead (Zhang et al. 2019, arXiv 1907.08610; for GANs arXiv 2006.14567).

    Moves the weights of `slow` by `share` of the way to those of `network`, then sets `network` there; a share of 1
    moves `slow` alone. Optimizer moments and batch-norm statistics stay.
    """
    mine, theirs = list(slow.parameters()), list(network.parameters())
    torch._foreach_lerp_(mine, theirs, share)
    torch._foreach_copy_(theirs, mine)


class MovingAverage:
    """Exponential moving average of a network's weights and batch-norm statistics, kept as a network of its own.

    Args:
        network: the one to follow.
        decay: share of the average that stays at each update; early on (1 + n) / (warm_up + n) if that is less.
        warm_up: the average then remembers about the last n / warm_up of n updates.
    """

    def __init__(self, network: nn.Module, decay: float, warm_up: int = 10) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.warm_up, self.updates = decay, warm_up, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (self.warm_up + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    def state_dict(self) -> dict:
        """The averaged weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]
