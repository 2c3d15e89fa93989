"""A script of three parameters with everything that a run has, for the tests of `common/run/run.py`."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from common.run import Run, require_finite
from common.run.cli import launch, require_range

PER_EPOCH = 5


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    epochs: int = 3
    """Passes [epochs]."""
    lr: float = 0.1
    """Step size."""
    nan_at: int = -1
    """The step whose loss is NaN."""
    signal_at: int = -1
    """The step in which the process gets `signal_number`."""
    signal_number: int = int(signal.SIGTERM)
    """Which signal."""
    signals: int = 1
    """How often."""
    seed: int = 0
    """Decides every random number."""
    device: str = "cpu"
    """Where."""
    out: Path = Path("outputs/toy")
    """Folder of the run."""
    fresh: bool = False
    """Start over."""

    def __post_init__(self) -> None:
        require_range("--epochs", self.epochs, 1, 100, "a whole number")


def main(config: Config) -> dict[str, torch.Tensor]:
    """Fit y = x w with momentum; returns the final weights and moments."""
    torch.manual_seed(config.seed)
    network = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    with Run(config, "toy_script", network=network, optimizer=optimizer) as run:
        for step in run.steps(config.epochs * PER_EPOCH, PER_EPOCH, 4):
            x = torch.randn(4, 3, generator=run.rng("data", step))
            loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
            if step == config.nan_at:
                loss = loss * float("nan")
            optimizer.zero_grad()
            loss.backward()
            require_finite(network.parameters(), loss=loss)
            optimizer.step()
            run.record("losses", step=step, loss=loss)
            if step == config.signal_at and not run.continued:
                for _ in range(config.signals):
                    os.kill(os.getpid(), config.signal_number)
            if (step + 1) % PER_EPOCH == 0:
                run.keep("weight", network.weight.detach().clone())
                run.record("metrics", epoch=(step + 1) // PER_EPOCH, loss=run.rows("losses")["loss"].mean())
                run.report((step + 1) // PER_EPOCH, config.epochs, loss=loss.item())
        moments = optimizer.state_dict()["state"]
        return {"weight": network.weight.detach(), "exp_avg": moments[0]["exp_avg"], "kept": run.tensors["weight"]}


if __name__ == "__main__":
    launch(Config, main, __doc__)
