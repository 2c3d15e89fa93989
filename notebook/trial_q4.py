"""Trials of question 4: many short runs side by side, measured on the validation images.

    python notebook/trial_q4.py wgan_gp --jobs 8 --out outputs/trials

Every run trains on 50,000 training images and is measured on the other 10,000 (`--selection`); the test images are
never read. Appends a row for each run and kind of weights to <out>/<name>.csv.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
BN = {"batch_norm": True}
SELF = {**BN, "self_modulation": 32}
TTUR = {"batch_size": 25, "critic_steps": 1}
TRIALS = {
    "wgan_gp": {  # what differs from the script's defaults
        "defaults": {},
        "batch_norm": BN,
        "self_modulation": SELF,
        "detail": {**SELF, "detail": 16},
        "batch_25": {"batch_size": 25},
        "one_critic_step": {**TTUR, "critic_lr": 2e-3, "lr": 1e-3},
        "self_one_critic_step": {**SELF, **TTUR, "critic_lr": 2e-3, "lr": 1e-3},
        "self_detail_one_critic_step": {**SELF, **TTUR, "detail": 16, "critic_lr": 2e-3, "lr": 1e-3},
        "self_detail_two_critic_steps_25": {**SELF, "detail": 16, "batch_size": 25},
        "self_detail_one_equal_rates": {**SELF, **TTUR, "detail": 16},
        "self_detail_one_beta1_0": {**SELF, **TTUR, "detail": 16, "critic_lr": 2e-3, "beta1": 0.0},
        "self_detail_one_shift": {**SELF, **TTUR, "detail": 16, "critic_lr": 2e-3, "max_shift": 1},
    },
}


def arguments(settings: dict) -> list[str]:
    """Settings as flags."""
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in settings.items()]
    return [part for flag, value in flags for part in ((flag,) if value is True else (flag, str(value)))]


def main() -> None:
    """Run the trials that have no row yet, `--jobs` at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", choices=TRIALS)
    parser.add_argument("--names", nargs="*", default=None)
    parser.add_argument("--seeds", nargs="*", type=int, default=[10, 11])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after so many seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "trials")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    script = "q4_dcgan.py" if asked.group == "dcgan" else "q4_wgan_gp.py"
    began = time.monotonic()

    def one(job: tuple[int, str]) -> None:
        seed, name = job
        settings = TRIALS[asked.group][name]
        folder = asked.out / f"{asked.group}_{name}_{asked.epochs}_{seed}"
        if time.monotonic() - began > asked.seconds or (folder / "quality.csv").exists():
            return
        common = {"epochs": asked.epochs, "seed": seed, "precision": asked.precision, "out": folder}
        flags = [*arguments({**common, **settings}), "--selection"]
        done = subprocess.run([sys.executable, script, *flags], cwd=ROOT, capture_output=True, text=True)
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
