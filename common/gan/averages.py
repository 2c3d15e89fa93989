"""Averages of a generator's weights over training: lookahead and the exponential moving average."""

import copy

import torch
from torch import nn


@torch.no_grad()
def look_ahead(slow: nn.Module, network: nn.Module, fraction: float) -> None:
    """A step of lookahead (Zhang et al. 2019, arXiv 1907.08610; for GANs arXiv 2006.14567).

    Moves the weights of `slow` by `share` of the way to those of `network`, then sets `network` there; a share of 1
    moves `slow` alone. Optimizer moments and batch-norm statistics stay.
    """
    mine, theirs = list(slow.parameters()), list(network.parameters())
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
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_(*map(list, zip(*moving, strict=True)), 1 - decay)
        if counts:
            torch._foreach_copy_(*map(list, zip(*counts, strict=True)))

    def state_dict(self) -> dict:
        """The averaged weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]
