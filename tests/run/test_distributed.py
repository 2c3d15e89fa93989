"""One run on several processes: the weights of one process, stops at the same step, one line for every fault."""

import os
import signal
import sys
import tempfile
import time
import traceback
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import TCPStore

import q3_vae_svm
import q4_dcgan
import q4_wgan_gp
from common.data import Split
from common.gan import results
from common.run import checkpoints
from common.run.cli import launch
from common.vae import results as vae_results

pytestmark = pytest.mark.posix
FLAGS = {
    "q4_wgan_gp": "--epochs 4 --batch-size 10 --width 2 --latent-dim 5 --lr 0.001 --quality-samples 0"
    " --self-modulation 4",
    "q4_dcgan": "--epochs 2 --batch-size 10 --width 2 --latent-dim 5 --lr 0.001 --quality-samples 0"
    " --discriminator-width 2 --beta1 0.5",
    "q3_vae_svm": "--epochs 3 --batch-size 10 --width 2 --latent-dim 5 --quality-samples 0 --label-sizes 10",
}
SCRIPTS = {"q4_wgan_gp": q4_wgan_gp, "q4_dcgan": q4_dcgan, "q3_vae_svm": q3_vae_svm}
LAST_STEP = {"q4_wgan_gp": "generator_step", "q4_dcgan": "train_step", "q3_vae_svm": "train_step"}  # of an iteration
IMAGES = 26  # three batches an epoch, the last of six images


def images(n):
    return torch.randint(256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def shrink(module):
    """Networks in float64, 26 images, nothing drawn at the end."""
    torch.set_default_dtype(torch.float64)
    if module is q3_vae_svm:
        module.prepare = lambda images: images.double() / 255
        # The first process alone goes on, also with a network in training mode, as `--benchmark` does.
        module.label_experiments = lambda run, vae, data: vae.train().encode(module.prepare(images(4)))
        vae_results.measure_quality = vae_results.draw_figures = lambda *_: None
        vae_results.summary = lambda _: "written"
        train, test = (Split(images(n), torch.arange(n) % 10) for n in (IMAGES, 10))
        module.evaluate = lambda *_: dict.fromkeys(
            ("test_negative_elbo", "test_reconstruction", "test_kl", "active_units"), 0.0
        )
        return partial(module.main, data=vae_results.Data(train, test))
    module.to_unit_range = results.to_unit_range = lambda images: images.double() / 255
    results.after_epoch = results.write_results = lambda *_: None
    results.summary = lambda _: "written"
    results.HELD_OUT = 8
    return partial(module.main, data=results.Data(images(IMAGES), images(8)))


def start(processes, name, out, *flags, prepare=lambda module, rank: None, several=True):
    """Fork the processes of a run, as torchrun would start them; returns the store where they meet, ids and files."""
    module, started = SCRIPTS[name], []
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for rank in range(processes):
        said = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115  # closed by `ended`
        child = os.fork()
        if child == 0:
            code = 70
            try:
                signal.alarm(100)  # a process that hangs dies
                for number, file in enumerate(said, 1):
                    os.dup2(file.fileno(), number)
                sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
                if processes > 1:
                    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
                    os.environ |= {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
                sys.argv = [f"{name}.py", "--out", str(out), *FLAGS[name].split(), *map(str, flags)]
                main = shrink(module)
                prepare(module, rank)
                launch(module.Config, main, module.__doc__, several=several)
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        started.append((child, said))
    return store, started


def ended(started):
    """Wait for processes; their exit codes (negative: the signal), and what each printed."""
    found = []
    for child, said in started[1]:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in said:
            file.seek(0)
            texts.append(file.read())
            file.close()
        found.append(SimpleNamespace(code=code, out=texts[0], err=texts[1]))
    return found


def run(processes, name, out, *flags, **options):
    return ended(start(processes, name, out, *flags, **options))


def codes(processes):
    return [process.code for process in processes]


def said(processes):
    """What all printed to stderr."""
    return "".join(process.err for process in processes)


def newest(out):
    return checkpoints.load(checkpoints.listing(out / "checkpoints")[-1])


def require_close(a, b, at=""):
    """Two nests of dicts, lists, tensors and numbers are equal to 1e-9; times aside."""
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda m: f"{at}: {m}")
    elif isinstance(a, dict | list | tuple):
        assert len(a) == len(b), at
        for key in a if isinstance(a, dict) else range(len(a)):
            if key != "seconds":
                require_close(a[key], b[key], f"{at}.{key}")
    else:
        assert a == (pytest.approx(b, rel=1e-9, abs=1e-9) if isinstance(b, float) else b), at


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run of one process that nothing disturbed, by the script's name; made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("alone") / name
            [process] = run(1, name, made[name])
            assert (process.code, process.err) == (0, "")
        return newest(made[name])

    return get


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("processes", [2, 3])
def test_weights_and_losses_are_those_of_one_process(alone, tmp_path, name, processes):
    found = run(processes, name, tmp_path)
    assert (codes(found), said(found)) == ([0] * processes, "")
    assert "written" in found[0].out
    assert all(process.out == "" for process in found[1:])
    one, several = alone(name), newest(tmp_path)
    assert one["step"] == several["step"] == int(FLAGS[name].split()[1]) * 3
    for part in ("state", "tables"):
        require_close(one[part], several[part])
    assert several["history"][-1]["processes"] == processes


def at(iteration, act, of=1):
    """A `prepare`: process `of` calls `act` with the networks before an iteration's last step; counted from 1."""

    def prepare(module, rank):
        name, calls = LAST_STEP[module.__name__], []
        original = getattr(module, name)

        def step(*arguments, **constants):
            calls.append(1)
            if len(calls) == iteration and rank == of:
                act(arguments[0])
            return original(*arguments, **constants)

        setattr(module, name, step)

    return prepare


def spoil(players):
    """A weight that one process alone changes."""
    with torch.no_grad():
        players.generator.layers[0].bias[0] += 1e-12


def make_nan(players):
    players.generator.layers[0].bias.data[0] = float("nan")


def signal_at(number):
    return lambda players: os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_goes_from_one_process_to_two_and_back(alone, tmp_path, name):
    stop = {"prepare": at(2, signal_at(signal.SIGTERM), of=0)}
    assert codes(run(1, name, tmp_path, **stop)) == [143]
    assert codes(run(2, name, tmp_path, **stop)) == [143, 143]
    [process] = run(1, name, tmp_path)
    assert (process.code, process.err) == (0, "")
    assert "processes 2 before, - now" in process.out
    for part in ("state", "tables"):
        require_close(alone(name)[part], newest(tmp_path)[part])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_one_process_stops_all_at_the_same_step_saved(tmp_path, number):
    found = run(3, "q4_wgan_gp", tmp_path, prepare=at(2, signal_at(number), of=2))
    assert (codes(found), said(found)) == ([128 + number] * 3, "")
    assert found[0].out.splitlines()[-1] == "stopped at step 4; the same command continues"
    assert newest(tmp_path)["step"] == 4


def test_a_number_that_is_not_finite_on_one_process_stops_all_at_the_same_step(tmp_path):
    found = run(2, "q4_wgan_gp", tmp_path, prepare=at(2, make_nan))
    assert codes(found) == [1, 1]
    assert said(found).startswith("error: step 3: not finite (generator nan, gradient norm nan)")
    assert said(found).count("\n") == 1
    assert newest(tmp_path)["step"] == 3


def test_replicas_that_differ_by_a_bit_are_not_saved(tmp_path):
    found = run(2, "q4_wgan_gp", tmp_path, prepare=at(2, spoil))
    assert codes(found) == [1, 1]
    assert said(found) == (
        "error: the weights of its processes differ; the same command continues from the last checkpoint\n"
    )
    assert newest(tmp_path)["step"] == 3


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_one_line(tmp_path, victim):
    began = time.monotonic()
    found = run(2, "q4_wgan_gp", tmp_path, prepare=at(3, signal_at(signal.SIGKILL), of=victim))
    assert time.monotonic() - began < 20
    expected = [1, 1]
    expected[victim] = -signal.SIGKILL
    assert codes(found) == expected
    assert said(found) == "error: step 5: another process of this run ended; the same command continues\n"
    again = run(2, "q4_wgan_gp", tmp_path)
    assert (codes(again), said(again)) == ([0, 0], "")


@pytest.mark.parametrize(
    "flags, said_of",
    [
        (["--lr", "-1"], "--lr: -1.0 is not possible"),
        (["--batch-size", "5"], "--batch-size: 5 is not possible; a batch of an epoch has 1 images for 2 processes"),
        (["--nonsense", "1"], "--nonsense"),
        (["--epochs", "5"], "holds a run with epochs 4 (now 5)"),
    ],
)
def test_bad_input_is_said_once(tmp_path, flags, said_of):
    (tmp_path / "config.json").write_text('{"script": "q4_wgan_gp", "epochs": 4}')
    if "--epochs" in flags:
        run(1, "q4_wgan_gp", tmp_path, "--fresh")
    found = run(2, "q4_wgan_gp", tmp_path, *flags)
    assert codes(found) == [2, 2]
    assert said(found).startswith("error: ")
    assert said(found).count("\n") == 1
    assert said_of in said(found)
    assert "".join(process.out for process in found) == ""


def test_a_script_for_one_process_says_so_once(tmp_path):
    found = run(2, "q4_wgan_gp", tmp_path / "out", several=False)
    assert codes(found) == [2, 2]
    assert said(found) == "error: torchrun: this script runs on one process; start it with python\n"
    assert not (tmp_path / "out").exists()
