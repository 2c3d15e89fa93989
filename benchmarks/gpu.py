"""Everything that only a GPU can show, in one run of under four minutes; every finding is a line of JSON.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --only device equal steps

Parts: `device` names it; `equal` compares captured with eager steps bit for bit; `steps` times an iteration, captured,
eager and the textbook way, in each precision; `resume` kills a run and compares its continuation with an unbroken one;
`scripts` runs the whole scripts at their defaults; `side_by_side` trains several seeds at once.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import q4_dcgan
import q4_wgan_gp
from benchmarks.gan_step import textbook_value
from common.data import draw_offsets, load_fashion_mnist, to_unit_range
from common.gan.networks import Critic, Generator, prepare
from common.gan.results import Players
from common.losses import discriminator_losses, gradient_penalty, non_saturating_loss
from common.run import Guard
from common.run.device import configure
from common.run.graphs import Graphed, adam, set_learning_rate

ROOT, CUDA = Path(__file__).resolve().parent.parent, torch.device("cuda")


def say(part: str, **found: object) -> None:
    """One line of JSON."""
    print(json.dumps({"part": part, **found}), flush=True)


def device() -> None:
    """What is measured."""
    say(
        "device",
        name=torch.cuda.get_device_name(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
    )


class Side:
    """The networks of a script at its defaults, and its iteration as a function of the iteration's number."""

    def __init__(self, name: str, precision: str, captured: bool) -> None:
        configure(CUDA, precision)
        torch.manual_seed(0)
        module = {"wgan_gp": q4_wgan_gp, "dcgan": q4_dcgan}[name]
        c = self.config = module.Config()
        wgan = name == "wgan_gp"
        shape = (c.batch_norm, 0) if wgan else (True, c.detail)
        generator = Generator(c.width, c.latent_dim, *shape, c.self_modulation)
        critic = Critic(c.width) if wgan else Critic(c.discriminator_width, True)
        for network in (generator, critic):
            prepare(network, CUDA, precision)
        optimizers = (adam(n.parameters(), lr=c.lr, betas=(c.beta1, c.beta2)) for n in (generator, critic))
        self.players, self.guard = Players(generator, critic, *optimizers), Guard(CUDA)
        self.rng = torch.Generator(CUDA).manual_seed(1)
        self.images = load_fashion_mnist("train", CUDA).images
        on = partial(Graphed, parts=self.players, guard=self.guard) if captured else lambda step: step
        for optimizer in self.players[2:]:
            set_learning_rate(optimizer, c.lr)
        if name == "dcgan":
            self.step, self.iterate = on(partial(q4_dcgan.train_step, self.players, self.guard)), self.dcgan
        else:
            self.critic_step = on(partial(q4_wgan_gp.critic_step, self.players, self.guard, c.penalty_weight))
            self.generator_step = on(partial(q4_wgan_gp.generator_step, self.players, self.guard))
            self.generate = on(partial(q4_wgan_gp.fakes_for_the_critic, generator))
            self.iterate = self.wgan

    def noise(self, n: int) -> torch.Tensor:
        return torch.randn(n, self.config.latent_dim, generator=self.rng, device=CUDA)

    def batch(self, i: int) -> torch.Tensor:
        b = self.config.batch_size
        return self.images[(i * b) % 50_000 :][:b]

    def dcgan(self, i: int) -> None:
        """The i-th iteration of the DCGAN, shifts included."""
        offsets = (draw_offsets(self.config.batch_size, self.rng, 1) for _ in range(2))
        self.step(self.batch(i), self.noise(self.config.batch_size), *offsets, max_shift=1)

    def wgan(self, i: int) -> None:
        """The i-th iteration of WGAN-GP: the critic's steps, then the generator's."""
        b, k = self.config.batch_size, self.config.critic_steps
        fakes = self.generate(self.noise(k * b)).split(b)
        for j in range(k):
            epsilon = torch.rand(b, generator=self.rng, device=CUDA)
            self.critic_step(self.batch(k * i + j), fakes[j], epsilon)
        self.generator_step(self.noise(b))


def equal() -> None:
    """Captured steps equal eager ones bit for bit after 200 iterations."""
    for name in ("wgan_gp", "dcgan"):
        sides = [Side(name, "float32", captured) for captured in (False, True)]
        for side in sides:
            for i in range(200):
                side.iterate(i)
            side.guard.check()
        pairs = [zip(a.state_dict().values(), b.state_dict().values(), strict=True)
                 for a, b in zip(*(side.players[:2] for side in sides), strict=True)]  # fmt: skip
        say("equal", network=name, bit_for_bit=all(x.equal(y) for pair in pairs for x, y in pair))


def textbook(name: str) -> Callable[[int], None]:
    """An iteration the textbook way: DataLoader, contiguous memory, plain Adam, PyTorch's own default arithmetic."""
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.manual_seed(0)
    wgan = name == "wgan_gp"
    c = (q4_wgan_gp if wgan else q4_dcgan).Config()
    generator = Generator(c.width, c.latent_dim, True, 0 if wgan else c.detail).to(CUDA)
    critic = (Critic(c.width) if wgan else Critic(c.discriminator_width, True)).to(CUDA)
    g_optimizer, c_optimizer = (torch.optim.Adam(n.parameters(), 1e-4, (0.5, 0.9)) for n in (generator, critic))
    images = to_unit_range(load_fashion_mnist("train").images)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), c.batch_size, shuffle=True)

    def endless():
        while True:
            yield from loader

    batches = endless()
    value = partial(textbook_value, critic)

    def iteration(_: int) -> None:
        for _ in range(getattr(c, "critic_steps", 1)):
            real = next(batches)[0].to(CUDA)
            fake = generator.layers(torch.randn(len(real), c.latent_dim, device=CUDA))
            c_optimizer.zero_grad()
            if wgan:
                epsilon = torch.rand(len(real), device=CUDA)
                loss = value(fake.detach()).mean() - value(real).mean()
                loss = loss + 10 * gradient_penalty(value, real, fake.detach(), epsilon).mean()
            else:
                loss = discriminator_losses(value(real), value(fake.detach()))["discriminator"]
            loss.backward()
            c_optimizer.step()
        g_optimizer.zero_grad()
        fake = generator.layers(torch.randn(len(real), c.latent_dim, device=CUDA))
        (-value(fake).mean() if wgan else non_saturating_loss(value(fake))).backward()
        g_optimizer.step()

    return iteration


def timed(iterate: Callable[[int], None], n: int) -> float:
    """Milliseconds of one of n iterations."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for i in range(n):
        iterate(i)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / n


def steps() -> None:
    """Milliseconds of an iteration, median of five rounds in which the sides alternate."""
    for name in ("wgan_gp", "dcgan"):
        found = {}
        for precision in ("float32", "tf32", "bfloat16"):
            sides = {f"captured_{precision}": Side(name, precision, True).iterate}
            if precision == "float32":
                sides |= {"eager_float32": Side(name, precision, False).iterate}
            times = {key: [] for key in sides}
            for side in sides.values():
                timed(side, 20)
            for _ in range(5):
                for key, side in sides.items():
                    times[key].append(timed(side, 50))
            found |= {key: round(statistics.median(kept), 3) for key, kept in times.items()}
        peer = textbook(name)
        timed(peer, 20)
        found["textbook"] = round(statistics.median(timed(peer, 30) for _ in range(3)), 3)
        found["textbook_over_captured"] = round(found["textbook"] / found["captured_float32"], 2)
        say("steps", network=name, unit="ms per generator iteration", **found)


def run(script: str, *flags: object, wait: bool = True) -> subprocess.Popen:
    """A script as a process."""
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if wait:
        process.said = process.communicate()[0]
    return process


def resume() -> None:
    """A run killed twice and continued equals an unbroken one, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--epochs", 4, "--quality-samples", 0]
        for script in ("q4_wgan_gp.py",):
            whole, broken = Path(folder, "whole"), Path(folder, "broken")
            run(script, *flags, "--out", whole)
            for fault in (signal.SIGTERM, signal.SIGKILL):
                process = run(script, *flags, "--out", broken, wait=False)
                while not list(broken.glob("checkpoints/*.pt")) and process.poll() is None:
                    time.sleep(0.05)
                time.sleep(0.5)
                process.send_signal(fault)
                process.wait()
            last = run(script, *flags, "--out", broken)
            same = (whole / "generator.pt").read_bytes() == (broken / "generator.pt").read_bytes()
            say("resume", script=script, code=last.returncode, bit_for_bit=same)


def scripts(*names: str) -> None:
    """Whole scripts at their defaults, imports to last figure."""
    for script in names or ("q4_wgan_gp.py", "q4_dcgan.py", "q3_vae_svm.py"):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            process = run(script, "--out", Path(folder, "run"))
            seconds = time.perf_counter() - start
            found = {"code": process.returncode, "seconds": round(seconds, 1)}
            if process.returncode:
                found["said"] = process.said[-2000:]
            else:
                environment = json.loads(Path(folder, "run", "environment.json").read_text())
                found["training_seconds"] = environment["seconds"]
                quality = pd.read_csv(Path(folder, "run", "quality.csv"))
                last = quality.tail(2).to_dict("records")
                found |= {f"frechet_{row.get('weights', 'prior')}": round(row["frechet"], 4) for row in last}
                if "measured_in" in quality:
                    found["measuring_seconds"] = round(quality["measured_in"].sum(), 1)
            say("scripts", script=script, **found)


def side_by_side() -> None:
    """Training images per second of several seeds at once, each a process of its own."""
    for n in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--epochs", 3, "--quality-samples", 0]
            start = time.perf_counter()
            runs = [
                run("q4_wgan_gp.py", *flags, "--seed", i, "--out", Path(folder, str(i)), wait=False) for i in range(n)
            ]
            for process in runs:
                process.communicate()
            seconds = [json.loads(Path(folder, str(i), "environment.json").read_text())["seconds"] for i in range(n)]
            rate = sum(3 * 60_000 / s for s in seconds)
            say("side_by_side", seeds=n, images_per_second=round(rate), wall=round(time.perf_counter() - start, 1))


PARTS = {part.__name__: part for part in (device, equal, steps, resume, scripts, side_by_side)}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; nothing was measured")
    os.environ["OMP_NUM_THREADS"] = "4"
    for name in asked.only:
        try:
            PARTS[name]()
        except Exception as fault:  # one part that fails must not cost the others
            say(name, failed=f"{type(fault).__name__}: {fault}"[:500])


if __name__ == "__main__":
    main()
