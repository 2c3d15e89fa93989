"""What a run needs of memory is asked before it begins; every size that the flags allow and the memory does not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.run import memory

ROOT = Path(__file__).resolve().parents[2]
TOO_LARGE = [
    ("q1_divergences.py", "--width 4096 --seeds 100 --batch-size 100000", "--width"),
    ("q2_gan_lab.py", "--batch-size 1000000 --discriminator-steps 1000", "--batch-size"),
    ("q2_gan_lab.py", "--iterations 10000000 --evaluate-every 1", "--iterations"),
    ("q3_vae_svm.py", "--width 512 --latent-dim 4096 --batch-size 50000", "--width"),
    ("q4_dcgan.py", "--batch-size 60000", "--batch-size"),
    ("q4_dcgan.py", "--width 1024 --latent-dim 4096", "--width"),
    ("q4_wgan_gp.py", "--batch-size 60000", "--batch-size"),
    ("q4_wgan_gp.py", "--width 1024 --latent-dim 4096", "--width"),
    ("q4_wgan_gp.py", "--critic-steps 1000 --batch-size 600", "--critic-steps"),
]


@pytest.mark.parametrize("script, flags, said", TOO_LARGE)
def test_sizes_beyond_the_memory_are_refused_with_sizes_that_fit(refuses, tmp_path, monkeypatch, script, flags, said):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2e9)
    out = tmp_path / "run"
    refuses(script, [*flags.split(), "--device", "cpu", "--out", out], f"at most about {said}")
    assert not out.exists()


@pytest.mark.parametrize("script", sorted({script for script, *_ in TOO_LARGE}))
def test_default_sizes_fit_a_small_machine(script, monkeypatch):
    """Half a gigabyte beside what Python, PyTorch and the images take."""
    import importlib

    module = importlib.import_module(script.removesuffix(".py"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 5e8)

    class Begun(Exception):
        pass

    def begin(*_, **__):
        raise Begun

    monkeypatch.setattr(module, "Run", begin)
    with pytest.raises(Begun):
        module.main(module.Config())


def test_free_memory_is_that_of_this_machine():
    assert 1e8 < memory.free_bytes(torch.device("cpu")) < 1e14


@pytest.mark.slow
@pytest.mark.parametrize("script, settings", [
    ("q4_wgan_gp", {"batch_size": 1000}),
    ("q4_wgan_gp", {"batch_size": 50, "width": 256, "latent_dim": 1024}),
    ("q4_dcgan", {"batch_size": 1000}),
    ("q4_dcgan", {"batch_size": 50, "width": 256, "latent_dim": 1024}),
])  # fmt: skip
def test_estimates_agree_with_what_the_system_measures(script, settings, tmp_path):
    code = f"""
import importlib, resource, torch
torch.set_num_threads(1)
from common.gan import figures, memory, results
script = importlib.import_module({script!r})
results.write_results = figures.wgan_curves = figures.dcgan_curves = lambda *_: None
config = script.Config(epochs=1, quality_samples=0, device="cpu", out={str(tmp_path / "run")!r}, **{settings})
data = results.Data(torch.zeros(3 * config.batch_size, 1, 28, 28, dtype=torch.uint8), torch.zeros(9, 1, 28, 28).byte())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
script.main(config, data)
peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(peak / getattr(memory, {script.removeprefix("q4_")!r} + "_bytes")(config))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.7 < float(done.stdout.splitlines()[-1]) < 1.3
