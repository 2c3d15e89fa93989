"""The page of one tab: its plots are Bokeh's, its controls plain HTML (`live_page.html`) that send commands.

A command is a JSON object {"do": name, ...} in the value of a hidden model; the answer is the state, another JSON
object, in that of a second one. A third tells which frame the browser has drawn, so that none piles up.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from bokeh.document import Document
from bokeh.models.widgets import TextInput

from common.plane import results
from common.plane.live import EVAL_SAMPLES, TRANSPORT_SAMPLES, TURNED, Lab, Script
from common.plane.live_plots import Plots
from common.plane.live_save import saving
from common.run.cli import BadInput, TrainingFailed

FRAME_MS = 50  # from one frame to the next, at least
REST = 0.25  # of a frame's time, after it: without a rest, the server reads one message of the browser per frame
MEASURE_EVERY = 8  # frames
SPEEDS = {"phases": 0, "1": 1, "4": 4, "16": 16}  # iterations in a frame
PHASE_FRAMES = 12  # that a phase is shown for
UNSEEN_SECONDS = 1.0  # a browser that has not drawn the last two frames gets the next one after this
TEMPLATE = Path(__file__).with_suffix(".html")
_saving = threading.Lock()  # matplotlib draws in one thread at a time


def page_of(config: Any, script: Script) -> Callable[[Document], None]:
    """What fills the document of a new tab, which gets a GAN of its own."""

    def fill(document: Document) -> None:
        page = Page(document, Lab(config, script))
        document.on_session_destroyed(lambda _: page.lab.close())

    return fill


class Page:
    """One tab: its plots, what it asks for, and the loop that trains.

    Attributes:
        lab: the GAN.
        plots: what shows it.
        playing, speed, averaged, manifold: what the controls of the same names say.
    """

    def __init__(self, document: Document, lab: Lab) -> None:
        self.document, self.lab, self.plots = document, lab, Plots()
        self.playing, self.speed, self.averaged, self.manifold = False, "4", True, False
        self.said, self.error, self.phase = "", "", ""
        self.frame_number, self.wait = 0, 0
        self._moved = self._unmeasured = True
        self._shown_at = 0.0
        self._sentences: list[str] = []
        self._save: threading.Thread | None = None
        self.command, self.state, self.drawn_frame = (TextInput(name=n) for n in ("command", "state", "drawn_frame"))
        self.command.on_change("value", lambda name, old, new: self.obey(new))
        self.plots.drawing.on_change("data", lambda name, old, new: self.draw())
        for root in (*self.plots.roots, self.command, self.state, self.drawn_frame):
            document.add_root(root)
        document.title = "A GAN in the plane, live"
        document.template = jinja2.Environment(autoescape=False).from_string(TEMPLATE.read_text())
        self._show_target()
        document.add_timeout_callback(self._run, FRAME_MS)

    # What the tab asks for.

    def obey(self, text: str) -> None:
        """Do what a command says; what is not possible becomes a line on the page, and nothing changes."""
        self.error = ""
        try:
            asked = json.loads(text[:10_000])
            if not isinstance(asked, dict):
                raise ValueError
            actions: dict[str, Callable[[], None]] = {
                "play": self._play,
                "iteration": lambda: self._once(self.lab.step),
                "discriminator": lambda: self._once(lambda: self.lab.step_alone("discriminator")),
                "generator": lambda: self._once(lambda: self.lab.step_alone("generator")),
                "reset": self._reset,
                "save": self._begin_save,
                "turn": lambda: self._turn(str(asked.get("name")), str(asked.get("value"))),
            }
            actions[str(asked.get("do"))]()
        except (ValueError, KeyError, RecursionError):
            self.error = "the page asked for something that there is not; load it again"
        except (BadInput, TrainingFailed) as fault:
            self.error = str(fault)
        self._tell()

    def _play(self) -> None:
        self._require_sound()
        self.playing = not self.playing
        self.phase, self.wait = "", 0

    def _once(self, step: Callable[[], Any]) -> None:
        self.playing, self.phase = False, ""
        self._require_sound()
        self._moved = self._unmeasured = True
        step()

    def _require_sound(self) -> None:
        if self.lab.fault:
            raise BadInput(f"{self.lab.fault}; reset starts again")

    def _reset(self) -> None:
        self.lab.restart()
        self._show_target()

    def _turn(self, name: str, value: str) -> None:
        if name == "speed" and value in SPEEDS:
            self.speed, self.phase, self.wait = value, "", 0
        elif name in ("averaged", "manifold"):
            setattr(self, name, value == "true")
            self._moved = True
        else:
            self.lab.turn(name, value)
            self._show_target()

    def draw(self) -> None:
        """Make the drawing the target, once a stroke is finished."""
        xs, ys = (list(self.plots.drawing.data.get(name, [])) for name in ("xs", "ys"))
        if not xs:
            return
        self.error = ""
        try:
            strokes = [list(zip(x, y, strict=True)) for x, y in zip(xs, ys, strict=True)]
            self.lab.draw(strokes)
            self._show_target()
        except (BadInput, ValueError, TypeError) as fault:
            self.error = str(fault) if isinstance(fault, BadInput) else "the drawing: it is no list of points x, y"
            self.document.add_next_tick_callback(lambda: self.plots.drawing.update(data={"xs": [], "ys": []}))
        self._tell()

    def _begin_save(self) -> None:
        if not _saving.acquire(blocking=False):
            raise BadInput("save: a run is being saved; wait for it")
        self.playing = False
        try:
            save = saving(self.lab)
        except BaseException:
            _saving.release()
            raise
        self.said = "saving: measuring with the script's sample sizes and drawing the figures"

        def work() -> None:
            try:
                folder, repeat = save()
                self.said = f"saved in {folder}; without the page:\n{repeat}"
                if self.lab.changes:
                    self.said += "\n(with the last settings; what was changed on the way is in changes.csv)"
            except Exception as fault:
                self.said, self.error = "", f"save: {fault}"
            finally:
                _saving.release()

        self._save = threading.Thread(target=work, daemon=True)  # Ctrl-C does not wait for it
        self._save.start()

    # The loop.

    def _run(self) -> None:
        """A frame and, once it is sent, a rest; then the next."""
        began = time.perf_counter()

        def rest() -> None:
            took = 1000 * (time.perf_counter() - began)
            self.document.add_timeout_callback(self._run, round(max(FRAME_MS - took, REST * took)))

        self.document.add_next_tick_callback(rest)
        self.frame()

    def frame(self) -> None:
        """Train a little and show what changed; a tab that is closed does nothing."""
        session: Any = self.document.session_context
        if session is None or not getattr(session.session, "connection_count", 1):
            return
        began = time.perf_counter()
        if self.playing:
            self._train()
        newest = self.frame_number  # one frame may be on its way: the browser draws it while the next one is trained
        seen = self.drawn_frame.value in ("", str(newest), str(newest - 1))
        if seen or began - self._shown_at > UNSEEN_SECONDS:
            self._show(began)
        if self._save is not None and not self._save.is_alive():
            self._save = None
            self._tell()

    def _train(self) -> None:
        try:
            if self.speed == "phases":
                self.wait -= 1
                if self.wait > 0:
                    return
                self.phase, self.wait = self.lab.half_step(), PHASE_FRAMES
            for _ in range(SPEEDS[self.speed]):
                self.lab.step()
        except TrainingFailed:
            self.playing = False
        self._moved = self._unmeasured = True

    def _show(self, began: float) -> None:
        due = self.frame_number % MEASURE_EVERY == 0 or not self.playing
        if self._unmeasured and due:
            self.lab.measure()
            self._unmeasured, self._sentences = False, sentences(self.lab)
            self.plots.show_measured(self.lab)
        elif self.lab.measure_floor():
            self.plots.show_floors(self.lab)
            self._sentences = sentences(self.lab)
        elif not self._moved:
            return
        if self._moved:
            self.plots.show_scene(self.lab, self.averaged, self.manifold)
            self._moved = False
        self.frame_number += 1
        self._shown_at = began
        self._tell()

    def _show_target(self) -> None:
        self.plots.show_target(self.lab)
        self._moved = self._unmeasured = True

    def _tell(self) -> None:
        """The state, for the page."""
        lab = self.lab
        settings = {name: getattr(lab.config, name) for name in TURNED}
        settings |= {"recipe": lab.config.recipe, "speed": self.speed}
        if lab.config.target.endswith(".csv"):
            settings["target"] = "drawn"
        state = {
            "frame": self.frame_number,
            "iteration": lab.iteration,
            "playing": self.playing,
            "phase": self.phase,
            "averaged": self.averaged,
            "manifold": self.manifold,
            "fault": lab.fault or "",
            "error": self.error,
            "said": self.said,
            "changes": len(lab.changes),
            "settings": settings,
            "sentences": self._sentences,
        }
        self.state.value = json.dumps(state)


def sentences(lab: Lab) -> list[str]:
    """What is seen now: the script's discussion of the last measurement, beside the first one and the floors."""
    if not lab.measured or len(lab.floors) < 3:
        return ["Measuring real samples against real ones: the floors, below which no generator can stay."]
    rows = pd.DataFrame([lab.measured[0], lab.measured[-1]]).assign(seed=lab.config.seed)
    table = results.answers(rows, pd.DataFrame(lab.floors))
    config = replace(lab.config, eval_samples=EVAL_SAMPLES, transport_samples=TRANSPORT_SAMPLES)
    return results.discussion(config, table, "when it was first measured")
