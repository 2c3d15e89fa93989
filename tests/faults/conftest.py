"""The scripts that train, on tiny settings, ready to be run with a fault."""

import pytest
from driver import outcome, start
from matplotlib.figure import Figure

from common import own_data
from common.gan import figures as gan_figures
from common.gan import results
from common.plane import figures
from common.run import run as run_module

FLAGS = {
    "toy_script": "",
    "q2_gan_lab": "--iterations 12 --evaluate-every 5 --eval-samples 1000 --transport-samples 10 --seeds 1"
    " --generator-width 4 --generator-depth 1 --discriminator-width 4 --discriminator-depth 1",
    "q3_vae_svm": "--epochs 2 --batch-size 50 --width 2 --latent-dim 4 --label-sizes 20 --draws 2 --projection pca"
    " --quality-samples 0",
    "q4_dcgan": "--epochs 2 --batch-size 48 --width 2 --latent-dim 5 --quality-samples 0"
    " --discriminator-width 2 --lookahead 2",
    "q4_wgan_gp": "--epochs 2 --batch-size 24 --width 2 --latent-dim 5 --critic-steps 5 --quality-samples 0",
}
REAL = [name for name in FLAGS if name != "toy_script"]


@pytest.fixture
def tiny(small_data):
    """Run a script by name, on 240 images, in a process of its own."""

    def run(name, out, *flags, fault=None, prepare=None, life=None):
        def shrink(module):
            for place in (module, results, own_data):
                if hasattr(place, "load_fashion_mnist"):
                    place.load_fashion_mnist = small_data
            Figure.savefig = lambda figure, buffer, **_: buffer.write(b"a figure")  # drawing takes most of the time
            gan_figures.progress_animation = figures.playback = lambda *_: None
            run_module.environment = lambda *_: {}  # it asks git
            results.GRID, results.HELD_OUT, results.STORED = 64, 100, 50
            if prepare:
                prepare(module)

        return start(name, [*FLAGS[name].split(), *flags], out, fault, shrink, life)

    return run


@pytest.fixture(scope="session")
def kept_outcomes():
    return {}


@pytest.fixture
def unbroken(tiny, kept_outcomes, tmp_path_factory):
    """What a run leaves that nothing disturbed, by the script's name; made once."""

    def get(name):
        if name not in kept_outcomes:
            out = tmp_path_factory.mktemp("unbroken") / name
            ended = tiny(name, out)
            assert (ended.code, ended.err) == (0, ""), ended
            kept_outcomes[name] = outcome(out), ended.journal
        return kept_outcomes[name]

    return get
