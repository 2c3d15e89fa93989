"""Numbers that are not finite stop a run before an optimizer's step; and the mathematics stays what it was."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import REAL
from driver import outcome, valid_checkpoints

from common.gan import results
from common.run import checkpoints, guard
from common.run.numbers import first_non_finite

GOLDEN = Path(__file__).parent.parent / "golden_losses.json"
STEPS = 6
# Other vector widths and kernels round sums otherwise. Measured, the processor's best against none
# (ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41): at most 2.8e-6 of a loss for the DCGAN, whose batch norm
# divides by the deviation of few images, and 4e-7 for the others. The tolerances are ten to twenty-five times that.
TOLERANCE = {"q2_gan_lab": 1e-5, "q3_vae_svm": 1e-5, "q4_dcgan": 1e-9, "q4_wgan_gp": 1e-9}


def in_float64(module):
    """The GANs' losses are on record in float64: Adam with beta1 = 0 makes a whole step of the sign of a tiny gradient,
    which in float32 is rounding, so that processors differ by 5e-3 after three steps."""
    torch.set_default_dtype(torch.float64)
    module.to_unit_range = results.to_unit_range = lambda images: images.double() / 255


def poison_data(module, value, ripe):
    """One number of one batch."""
    if module.__name__ == "q2_gan_lab":
        target = type(module.target_of("ring"))
        original = target.sample
        target.sample = lambda self, n, rng: spoilt(original(self, n, rng), value, ripe)
    else:
        name = "prepare" if module.__name__ == "q3_vae_svm" else "to_unit_range"
        original = getattr(module, name)
        setattr(module, name, lambda images: spoilt(original(images), value, ripe))


def poison_loss(module, value, ripe):
    """The loss itself."""
    name = {
        "q2_gan_lab": "generator_loss",
        "q3_vae_svm": "kl_to_standard_normal",
        "q4_dcgan": "non_saturating_loss",
        "q4_wgan_gp": "critic_gradients",
    }[module.__name__]
    original = getattr(module, name)

    def poisoned(*arguments):
        found = original(*arguments)
        if not ripe():
            return found
        return {**found, "critic": found["critic"] * value} if isinstance(found, dict) else found * value

    setattr(module, name, poisoned)


def poison_gradient(module, value, ripe):
    """One number of one gradient, of a GAN the generator's; all losses are finite."""
    place = module if hasattr(module, "require_finite") else guard
    original = place.require_finite

    def check(parameters, **losses):
        parameters = list(parameters)
        if module.__name__ == "q3_vae_svm" or any(name.startswith("generator") for name in losses):
            spoilt(parameters[-1].grad, value, ripe)
        original(parameters, **losses)

    place.require_finite = check


def spoilt(tensor, value, ripe):
    if ripe():
        tensor[(0,) * tensor.dim()] = value
    return tensor


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("poison", [poison_data, poison_loss, poison_gradient])
def test_poison_stops_before_the_step_and_leaves_the_last_good_checkpoint(
    tiny, unbroken, tmp_path, poison, value, name
):
    def prepare(module):
        poison(module, value, ripe=lambda: any(tmp_path.glob("checkpoints/0*.pt")))
        step = torch.optim.Adam.step

        def careful(self):
            finite = all(p.grad.isfinite().all() for group in self.param_groups for p in group["params"])
            return step(self) if finite else os._exit(99)

        torch.optim.Adam.step = careful

    ended = tiny(name, tmp_path, prepare=prepare)
    assert ended.code == 1, ended
    said = re.fullmatch(r"error: step (\d+): not finite \((.+)\); the weights before it are kept.*\n", ended.err)
    assert said, ended.err
    assert re.search(r"\b(nan|inf)\b", said[2])
    parts = [part.rsplit(" ", 1)[0] for part in said[2].split(", ")]
    assert len(parts) > 1
    assert parts[-1] == "gradient norm"
    if poison is poison_gradient:
        assert len(re.findall(r"\b(nan|inf)\b", said[2])) == 1
    [step] = valid_checkpoints(tmp_path)
    assert step <= int(said[1])
    [path] = checkpoints.listing(tmp_path / "checkpoints")
    assert first_non_finite(checkpoints.load(path)["state"]) is None
    assert tiny(name, tmp_path).code == 0
    assert outcome(tmp_path) == unbroken(name)[0]


def first_losses(out):
    """The first losses of a run, by their name."""
    content = checkpoints.load(checkpoints.listing(out / "checkpoints")[-1])
    if "losses" in content["tensors"]:
        discriminator, generator = content["tensors"]["losses"][:STEPS].flatten(1).mT.tolist()
        return {"discriminator": discriminator, "generator": generator}
    rows = content["tables"]["losses"][:STEPS]
    return {key: [row[key] for row in rows] for key in rows[0] if key not in ("step", "iteration")}


@pytest.mark.parametrize("name", REAL)
def test_first_losses_are_those_on_record(tiny, tmp_path, name):
    """After a change that is meant to alter them, delete their entry and run this test: it writes it, and fails."""
    prepare = in_float64 if name.startswith("q4") else None
    # A large learning rate, so that a change of the optimizer shows at once.
    assert tiny(name, tmp_path, "--lr", 0.01, prepare=prepare).code == 0
    found = first_losses(tmp_path)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if name not in golden:
        GOLDEN.write_text(json.dumps({**golden, name: found}, indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} held no losses of {name}; those of today are in it now, to be looked at")
    assert found.keys() == golden[name].keys()
    for part, values in golden[name].items():
        assert found[part] == pytest.approx(values, rel=TOLERANCE[name], abs=0), part
