"""Speed of one run on several processes of this machine, beside one process with as many threads.

For each script: one process with one thread, one with two, two with one each, in turn, `--repeats` times; medians
count. The steps are those of the scripts with their defaults, the DCGAN's as late in training, where batches are used
twice; measuring and drawing at the ends of epochs are left out.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --scripts q4_wgan_gp --steps 100

Beside the measurement stands a calculation, of bandwidth alone: a ring all-reduce among n machines sends 2 (n - 1) / n
of what is summed from each machine, while each computes 1 / n of a step; the number of machines from which on sending
takes longer than computing is 1 + t / (2 s), for t seconds of computing on one machine and s seconds of sending what is
summed once. The last line is JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q3_vae_svm
import q4_dcgan
import q4_wgan_gp
from common.run import Run, distributed
from common.run.cli import launch, require_range

Script = Literal["q4_wgan_gp", "q4_dcgan", "q3_vae_svm"]
SCRIPTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "q4_wgan_gp": (q4_wgan_gp, {}),
    "q4_dcgan": (q4_dcgan, {"echo_from": 0.0, "shift_from": 0.0}),
    "q3_vae_svm": (q3_vae_svm, {}),
}
SIDES = ((1, 1), (1, 2), (2, 1))  # processes, threads of each
WARM_UP = 10  # steps before the clock runs
GIGABITS = (1, 10)  # per second, between machines


@dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    scripts: tuple[Script, ...] = get_args(Script)
    """What is measured."""
    steps: int = 60
    """Steps that are timed, with a batch each."""
    repeats: int = 5
    """Runs of each side; the median counts."""

    def __post_init__(self) -> None:
        require_range("--steps", self.steps, 1, 1000, "a whole number")
        require_range("--repeats", self.repeats, 1, 1000, "a whole number")


def worker(name: str, n_steps: int, folder: str) -> None:
    """One process of a run that ends after its steps; the first prints seconds, bytes and sums of one step."""
    module, changes = SCRIPTS[name]
    summed: list[int] = []
    steps, sum_up = Run.steps, distributed.sum_up

    def counted(tensors: Any) -> None:
        summed.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
        sum_up(tensors)

    def timed(run: Run, total: int, per_epoch: int, images_per_step: int = 0) -> Iterator[int]:
        began, before = 0.0, 0
        for step in steps(run, WARM_UP + n_steps, total, images_per_step):
            if step == WARM_UP:
                began, before = time.perf_counter(), len(summed)
            yield step
        seconds = (time.perf_counter() - began) / n_steps
        of_steps = summed[before:]
        print(json.dumps({"s": seconds, "bytes": sum(of_steps) / n_steps, "sums": len(of_steps) / n_steps}))
        sys.exit(0)

    Run.steps, distributed.sum_up = timed, counted  # type: ignore[method-assign]
    distributed.join(True)
    module.main(module.Config(**changes, out=Path(folder)))


def measure(name: str, processes: int, threads: int, n_steps: int) -> dict[str, float]:
    """A step's seconds (`s`), summed bytes (`bytes`) and all-reduces (`sums`) on so many processes of its own."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(several if processes > 1 else []), __file__, "worker", name, str(n_steps), folder]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} on {processes} processes failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def machines(seconds: float, summed: float, gigabits: float) -> float:
    """From how many machines on sending takes longer than computing.

    Args:
        seconds: computing of a step on one machine.
        summed: bytes that a step's all-reduces sum.
        gigabits: bandwidth from each machine [Gb/s].
    """
    return 1 + seconds / (2 * 8 * summed / (gigabits * 1e9))


def main(config: Config) -> None:
    """Measure every side in turn, print."""
    result: dict[str, Any] = {"cores": os.cpu_count(), "torch": torch.__version__}
    for name in config.scripts:
        module, changes = SCRIPTS[name]
        batch = module.Config(**changes).batch_size
        found = [[measure(name, *side, config.steps) for side in SIDES] for _ in range(config.repeats)]
        one, threads, processes = (statistics.median(batch / row[i]["s"] for row in found) for i in range(3))
        ratios = [row[1]["s"] / row[2]["s"] for row in found]
        summed, sums = found[0][2]["bytes"], found[0][2]["sums"]
        print(f"{name}: {one:.0f} images/s with one thread, {threads:.0f} with two, {processes:.0f} with two processes")
        print(
            f"  two processes beside two threads: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )
        print(f"  summed in a step: {summed / 1e6:.2f} MB in {sums:.1f} all-reduces")
        bounds = {g: machines(statistics.median(row[0]["s"] for row in found), summed, g) for g in GIGABITS}
        said = ", ".join(f"{n:.1f} at {g} Gb/s" for g, n in bounds.items())
        print(f"  calculated: sending dominates from so many machines of one thread on: {said}")
        result[name] = {
            "one_thread": round(one, 1),
            "two_threads": round(threads, 1),
            "two_processes": round(processes, 1),
            "processes_over_threads": round(statistics.median(ratios), 3),
            "summed_bytes": round(summed),
            "sums": round(sums, 2),
            **{f"calculated_machines_{g}_gbit": round(n, 2) for g, n in bounds.items()},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        launch(Config, main, __doc__)
