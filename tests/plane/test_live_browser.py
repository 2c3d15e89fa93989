"""The live page and training.html in a browser: what they show, what their controls do, how they fit the window."""

import math
import shlex
import shutil
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from test_live import changed, weights
from test_live_server import PAGES, eventually, serving

import q2_gan_lab
from common import animation
from common.plane import player
from common.plane.recipes import RECIPES
from common.plane.targets import TARGETS
from common.run.cli import parse

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
FLAGS += "disable-component-update disable-sync"
DESKTOPS = [(1366, 657), (1920, 1080)]
PHONE = (390, 844)
# Where the elements are in the page: left, right, top and bottom.
BOXES = """names => [...document.querySelectorAll(names)].filter(e => e.offsetParent).map(e => {
  const {left, right, top, bottom} = e.getBoundingClientRect();
  return [e.id || e.tagName, left + scrollX, right + scrollX, top + scrollY, bottom + scrollY];
})"""
FRAME = """() => {
  const view = Bokeh.index.find_one(model("scene")), box = view.canvas_view.el.getBoundingClientRect();
  const {x, y, width, height} = view.frame.bbox;
  return [box.x + x, box.y + y, width, height];
}"""


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("needs Chromium or Chrome: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=[f"--{flag}" for flag in FLAGS.split()])
        yield opened
        opened.close()


class Tab:
    """A tab with the live page, and what runs behind it in this process."""

    def __init__(self, browser, address):
        self.page = browser.new_page(viewport=dict(zip(("width", "height"), DESKTOPS[0], strict=True)))
        self.faults, self.asked = [], []
        self.page.on("console", lambda line: line.type in ("error", "warning") and self.faults.append(line.text))
        self.page.on("pageerror", lambda fault: self.faults.append(fault.stack or str(fault)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.goto(address)
        self.page.wait_for_function("document.getElementById('status').textContent.startsWith('iteration')")
        self.server = PAGES[-1]

    @property
    def lab(self):
        return self.server.lab

    def settle(self):
        """Wait until the server has done all that the page has asked for."""
        eventually(lambda: self.server.obeyed == self.page.evaluate("sent"))

    def click(self, name):
        self.page.click(f"#{name}")
        self.settle()

    def press(self, key):
        self.page.keyboard.press(key)
        self.settle()

    def enter(self, name, value):
        knob = self.page.locator(f"#{name}")
        if knob.evaluate("knob => knob.tagName") == "SELECT":
            knob.select_option(value)
        else:
            knob.fill(value)
            knob.press("Enter")
        self.settle()

    def draw(self, points):
        """Move the mouse, pressed, along points of the plane."""
        left, top, width, height = self.page.evaluate(FRAME)
        for k, (x, y) in enumerate(points):
            self.page.mouse.move(left + width * (x + 0.1) / 1.2, top + height * (1.1 - y) / 1.2)
            if k == 0:
                self.page.mouse.down()
                self.page.wait_for_timeout(400)  # a hand that rests before it draws
            self.page.evaluate("new Promise(requestAnimationFrame)")  # of faster moves only the last one counts
        self.page.mouse.up()
        self.page.evaluate("send({do: 'turn', name: 'speed', value: $('speed').value})")  # answered after the stroke
        self.settle()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    sizes = {"eval_samples": 1000, "transport_samples": 50}
    with serving(10_000, out=tmp_path_factory.mktemp("live") / "run", **sizes) as found:
        yield found


@pytest.fixture(scope="module")
def opened(browser, address):
    tab = Tab(browser, address)
    yield tab
    tab.page.close()


@pytest.fixture
def tab(opened):
    """The tab of all tests, at the recipe's settings, not playing."""
    if opened.server.playing:
        opened.click("play")
    opened.enter("target", "ring")
    opened.enter("loss", "gan")
    opened.enter("recipe", "ours")
    yield opened
    assert opened.faults == []


def test_it_loads_without_an_error_and_asks_nobody_else(tab, address):
    own = address.split("/")[2]
    assert any(url.startswith("ws://") for url in tab.asked)
    assert [url for url in tab.asked if url.split("/")[2] != own and not url.startswith(("data:", "blob:"))] == []
    assert tab.page.evaluate("Bokeh.index.find_one(model('scene')).frame.bbox.width") > 400
    eventually(lambda: "W1" in tab.page.inner_text("#text"))


def test_it_plays_and_pauses_by_button_and_by_space(tab):
    tab.click("play")
    eventually(lambda: tab.lab.iteration >= 8)
    eventually(lambda: tab.page.inner_text("#play") == "Pause")
    tab.press("Space")  # the button that the mouse has pressed does not take it
    assert not tab.server.playing
    done = tab.lab.iteration
    tab.press("ArrowRight")
    assert tab.lab.iteration == done + 1
    eventually(lambda: f"iteration {done + 1}" in tab.page.inner_text("#status"))
    tab.press("Space")
    assert tab.server.playing


@pytest.mark.parametrize("button, key, parts", [
    ("discriminator", "d", {"discriminator"}),
    ("generator", "g", {"generator", "average"}),
    ("iteration", "ArrowRight", {"generator", "discriminator", "average"}),
])  # fmt: skip
def test_a_turn_of_one_changes_that_one_alone(tab, button, key, parts):
    for act in (lambda: tab.click(button), lambda: tab.press(key)):
        before = weights(tab.lab)
        act()
        assert changed(before, weights(tab.lab)) == parts


def shapes(network):
    return [tuple(weight.shape[1:]) for weight in network.layers.weights]


CONTROLS = {
    "target": ("grid", lambda lab: lab.target is TARGETS["grid"]),
    "loss": ("least-squares", lambda lab: lab.fake_loss.args == ("least-squares",)),
    "lr": ("0.01", lambda lab: lab.networks.discriminator_optimizer.param_groups[0]["lr"] == 0.01),
    "generator_lr": ("0.02", lambda lab: lab.networks.generator_optimizer.param_groups[0]["lr"] == 0.02),
    "discriminator_steps": ("2", lambda lab: lab.config.discriminator_steps == 2),
    "generator_steps": ("4", lambda lab: lab.config.generator_steps == 4),
    "optimizer": ("sgd", lambda lab: type(lab.networks.generator_optimizer).__name__ == "SGD"),
    "batch_size": ("64", lambda lab: lab.config.batch_size == 64),
    "noise": ("uniform", lambda lab: 0 <= lab.look(True)["noise"].min() < lab.look(True)["noise"].max() <= 1),
    "noise_dim": ("1", lambda lab: lab.look(True)["noise"].shape[1] == 1),
    "generator_width": ("9", lambda lab: shapes(lab.networks.generator)[0][1] == 9),
    "generator_depth": ("2", lambda lab: len(shapes(lab.networks.generator)) == 3),
    "discriminator_width": ("7", lambda lab: shapes(lab.networks.discriminator)[0] == (2, 7)),
    "discriminator_depth": ("1", lambda lab: len(shapes(lab.networks.discriminator)) == 2),
    "seed": ("5", lambda lab: lab.config.seed == 5),
    "recipe": ("ganlab", lambda lab: lab.config.real_weight == 0.95),
}  # fmt: skip


def test_every_knob_does_what_it_says(tab):
    """Read from the GAN that runs, after one more iteration."""
    knobs = tab.page.locator("#knobs [id]").evaluate_all("knobs => knobs.map(knob => knob.id)")
    assert set(knobs) == {*CONTROLS, "averaged", "manifold"}
    for name, (value, holds) in CONTROLS.items():
        assert not holds(tab.lab), name
        tab.enter(name, value)
        tab.click("iteration")
        assert holds(tab.lab), name
        assert tab.lab.iteration >= 1
    tab.click("reset")
    assert (tab.lab.iteration, tab.lab.config.recipe) == (0, "ganlab")


def test_what_is_shown_can_be_chosen(tab):
    for _ in range(3):
        tab.press("ArrowRight")
    shown = {}
    for value in ("true", "false"):
        tab.enter("averaged", value)
        eventually(lambda: not tab.server._moved)
        shown[value] = tab.server.plots.fakes.data["x"].copy()
        np.testing.assert_array_equal(shown[value], tab.lab.look(value == "true")["fakes"][:, 0])
    assert not np.array_equal(shown["true"], shown["false"])
    for value, lines in (("true", 32), ("false", 0)):
        tab.enter("manifold", value)
        eventually(lambda lines=lines: tab.page.evaluate("model('manifold').data_source.get_length()") == lines)
    for layer in ("real", "fakes", "arrows", "surface"):
        for visible in (False, True):
            tab.page.click(f"[data-layer={layer}]")
            assert tab.page.evaluate(f"model('{layer}').visible") is visible
    tab.enter("speed", "phases")
    tab.press("Space")
    eventually(lambda: "the discriminator's turn" in tab.page.inner_text("#status"))
    eventually(lambda: tab.server.phase == "generator")
    assert tab.lab.iteration == 4
    tab.enter("speed", "16")
    done = tab.lab.iteration
    eventually(lambda: tab.lab.iteration >= done + 16)
    tab.enter("speed", "4")


def test_what_is_not_possible_is_a_line_and_the_former_value(tab):
    for value in ("1e9", "nan", "quick"):
        tab.enter("lr", value)
        eventually(lambda value=value: "--lr: " in tab.page.inner_text("#note"))
        eventually(lambda: tab.page.input_value("#lr") == "0.002")
        assert tab.lab.config.lr == 0.002
    tab.press("Escape")
    tab.click("iteration")
    eventually(lambda: tab.page.inner_text("#note") == "")


SHAPE = [(0.15 + 0.7 * t, 0.5 + 0.25 * math.sin(6 * t)) for t in np.linspace(0, 1, 30)]


def test_a_stroke_becomes_the_target(tab):
    tab.click("pencil")
    tab.draw(SHAPE)
    assert tab.lab.config.target.endswith(".csv")
    centres = tab.lab.target.centre(torch.linspace(0, 0.999, 200)).numpy()
    apart = np.linalg.norm(centres[:, None] - np.array(SHAPE), axis=2)
    assert apart.min(1).max() < 0.03  # all of the target is at the stroke
    assert apart.min(0).max() < 0.03
    eventually(lambda: tab.page.input_value("#target") == "drawn")
    tab.page.click("#pencil")
    assert tab.page.evaluate("model('drawn').visible") is False
    tab.press("Space")
    assert tab.server.playing
    assert tab.lab.config.target.endswith(".csv")


@pytest.mark.parametrize("width, height", [*DESKTOPS, PHONE])
def test_nothing_is_outside_the_window(tab, width, height):
    """On a desktop all that is needed is there without scrolling."""
    tab.page.set_viewport_size({"width": width, "height": height})
    time.sleep(0.5)
    boxes = tab.page.evaluate(
        BOXES, "button, select, input, label, a, .plot, .plot p, #status, #scene > div, #text, #text p"
    )
    assert len(boxes) > 40
    for name, left, right, _, bottom in boxes:
        assert left >= 0, name
        assert right <= width, name
        assert bottom <= height or width == PHONE[0], name
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    if width != PHONE[0]:
        assert tab.page.evaluate("document.documentElement.scrollHeight") <= height
        for part in ("knobs", "text"):  # whole, not to be scrolled
            assert tab.page.evaluate(f"$('{part}').scrollHeight - $('{part}').clientHeight") <= 0, part
    tab.page.set_viewport_size(dict(zip(("width", "height"), DESKTOPS[0], strict=True)))


def test_dark_where_the_system_is(tab):
    def colours():
        return tab.page.evaluate("""[getComputedStyle(document.body).backgroundColor, model("fakes").glyph.fill_color,
            model("losses").left[0].major_label_text_color, model("colours").palette[32]].map(c => c.value ?? c)""")

    light = colours()
    assert light[:2] == ["rgb(255, 255, 255)", "#7d4cc2"]
    tab.page.emulate_media(color_scheme="dark")
    eventually(lambda: colours() == ["rgb(22, 22, 24)", "#bd9bff", "#e8e8ea", "#222226"])
    tab.page.emulate_media(color_scheme="light")
    eventually(lambda: colours() == light)


@pytest.mark.slow
def test_it_shows_five_frames_a_second_of_60_ms_of_a_core(tab):
    """In the best of a few stretches: other work may disturb one."""
    tab.press("Space")
    rates, seconds = [], []
    for _ in range(4):
        tab.server.seconds.clear()
        before, began = tab.page.evaluate("state.frame"), time.monotonic()
        time.sleep(4)
        rates.append((tab.page.evaluate("state.frame") - before) / (time.monotonic() - began))
        seconds.append(np.mean(tab.server.seconds))
    assert max(rates) >= 5, rates
    assert min(seconds) <= 0.06, seconds


@pytest.mark.slow
def test_js_to_a_stroke_falls_by_half_within_twenty_seconds(tab):
    tab.click("pencil")
    tab.draw(SHAPE)
    eventually(lambda: tab.lab.measured)
    first = tab.lab.measured[-1]["js"]
    tab.page.click("#pencil")
    tab.press("Space")
    eventually(lambda: tab.lab.measured[-1]["js"] < first / 2, seconds=20)


@pytest.mark.slow
def test_what_the_page_saves_is_the_headless_run_bit_for_bit(tab):
    tab.press("Space")
    eventually(lambda: tab.lab.iteration >= 110)
    tab.click("save")
    eventually(lambda: tab.page.inner_text("#note").startswith("saved in "), seconds=100)
    repeat = tab.page.inner_text("#note").splitlines()[1]
    found = parse(q2_gan_lab.Config, "", shlex.split(repeat)[2:], RECIPES)
    assert found.iterations == tab.lab.iteration
    q2_gan_lab.main(found)
    for name in ("metrics.csv", "floors.csv", "answers.csv", "snapshot.png", "training.html"):
        assert (found.out.parent / name).read_bytes() == (found.out / name).read_bytes(), name


# training.html, which needs no server.


@pytest.fixture(scope="module")
def playback(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("playback") / "training.html"
    pictures = [Image.new("RGB", (1248, 624), (k, 2 * k, 255)) for k in range(60)]
    labels = [f"iteration {100 * k:,}" for k in range(60)]
    palette = animation.palette_of([], [(k, 2 * k, 255) for k in range(60)])
    player.write_page(
        pictures, palette, labels, "A GAN in the plane: target ring, loss gan", "What is seen. " * 18, path
    )
    page = browser.new_page()
    page.goto(path.as_uri())
    yield page
    page.close()


def test_the_playback_plays_and_pauses_by_space(playback):
    seek = playback.locator("#seek")
    for focus in (
        lambda: None,
        seek.focus,
        lambda: playback.click("#play"),
        lambda: playback.focus("#speed"),
    ):
        with suppress(AssertionError):
            eventually(lambda: playback.inner_text("#play") == "Play", seconds=0.1)
        focus()
        before = playback.inner_text("#play")
        playback.keyboard.press("Space")
        assert {before, playback.inner_text("#play")} == {"Play", "Pause"}
        playback.wait_for_timeout(300)
    assert int(seek.input_value()) > 0


@pytest.mark.parametrize("width, height", [*DESKTOPS, PHONE])
def test_the_playback_is_within_the_window(playback, width, height):
    playback.set_viewport_size({"width": width, "height": height})
    boxes = playback.evaluate(BOXES, "h1, p, button, input, select, output, img")
    assert len(boxes) == 7
    for name, left, right, _, bottom in boxes:
        assert left >= 0, name
        assert right <= width, name
        assert bottom <= height, name
    assert playback.evaluate("document.documentElement.scrollWidth") <= width
    width_shown, height_shown = playback.evaluate("[picture.clientWidth, picture.clientHeight]")
    assert width_shown / height_shown == pytest.approx(2, rel=0.01)
