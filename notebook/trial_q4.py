"""Trials of question 4: many short runs side by side, measured on the validation images.

    python notebook/trial_q4.py wgan_gp --jobs 8 --out outputs/trials

Every run trains on 50,000 training images and is measured on the other 10,000 (`--selection`); the test images are
never read. Appends a row for each run and kind of weights to <out>/<name>.csv.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.gan import figures, results

ROOT = Path(__file__).resolve().parent.parent
TRIALS = {
    "wgan_gp": {  # what differs from the script's defaults; the first trials had further flags, see their commit
        "defaults": {},
        "batch_norm": {"batch_norm": True},
        "self_modulation": {"batch_norm": True, "self_modulation": 32},
        "many_steps": {"batch_size": 25, "critic_steps": 1},
    },
    "dcgan": {
        "defaults": {},
        "simple": {
            "discriminator_lr": 2e-3,
            "lookahead": 0,
            "detail": 0,
            "ema_warm_up": 10,
        },
    },
}


def train(script: str, settings: dict) -> None:
    """One run in this process, without figures; measured after its last epoch."""
    module = importlib.import_module(script)
    results.write_results = lambda *_: None
    for name in ("wgan_curves", "dcgan_curves"):
        setattr(figures, name, lambda *_: None)
    epochs = settings["epochs"]
    module.main(module.Config(**{**settings, "out": Path(settings["out"])}, selection=True, sample_epochs=(epochs,)))


def main() -> None:
    """Run the trials that have no row yet, `--jobs` at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", choices=TRIALS)
    parser.add_argument("--names", nargs="*", default=None)
    parser.add_argument("--seeds", nargs="*", type=int, default=[10, 11])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after so many seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "trials")
    parser.add_argument("--train", type=json.loads, help="one run with these settings, in this process")
    asked = parser.parse_args()
    script = {"dcgan": "q4_dcgan", "wgan_gp": "q4_wgan_gp"}[asked.group]
    if asked.train:
        return train(script, asked.train)
    asked.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def one(job: tuple[int, str]) -> None:
        seed, name = job
        settings = TRIALS[asked.group][name]
        folder = asked.out / f"{asked.group}_{name}_{asked.epochs}_{seed}"
        if time.monotonic() - began > asked.seconds or (folder / "quality.csv").exists():
            return
        common = {"epochs": asked.epochs, "seed": seed, "precision": asked.precision, "out": str(folder)}
        command = [sys.executable, __file__, asked.group, "--train", json.dumps({**common, **settings})]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            print(json.dumps({"name": name, "seed": seed, "failed": done.stderr.strip()[-300:]}), flush=True)
            return
        rows = pd.read_csv(folder / "quality.csv")
        for row in rows[rows["epoch"] == asked.epochs].to_dict("records"):
            said = {k: round(row[k], 4) for k in ("frechet", "recall", "precision", "seconds")}
            print(json.dumps({"name": name, "seed": seed, "weights": row["weights"], **said}), flush=True)

    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(one, [(seed, name) for seed in asked.seeds for name in asked.names or TRIALS[asked.group]]))
    tables = [
        pd.read_csv(path).assign(run=path.parent.name)
        for path in sorted(asked.out.glob(f"{asked.group}_*/quality.csv"))
    ]
    if tables:
        pd.concat(tables).to_csv(asked.out / f"{asked.group}.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
