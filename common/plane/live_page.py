"""The page of one tab: its plots are Bokeh's, its controls plain HTML (`live_page.html`) that send commands.

A command is a JSON object {"do": name, ...} in the value of a hidden model; the answer is the state, another JSON
object, in that of a second one. A third tells which frame the browser has drawn, so that none piles up.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from bokeh.document import Document
from bokeh.models import (
    ColumnDataSource,
    FreehandDrawTool,
    HoverTool,
    LinearColorMapper,
)
from bokeh.models.annotations import BoxAnnotation, Span
from bokeh.models.widgets import TextInput
from bokeh.plotting import figure as bokeh_figure

from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE
from common.plane import figures, results
from common.plane.live import EVAL_SAMPLES, MEASURE_EVERY, TURNED, Lab, Script, command
from common.plane.live_save import saving
from common.run.cli import BadInput, TrainingFailed

FRAME_MS = 50  # between two frames, at least
SPEEDS = {"phases": 0, "1": 1, "4": 4, "16": 16}  # iterations in a frame
PHASE_FRAMES = 12  # that a phase is shown for
CURVE_POINTS = 3_000
UNSEEN_SECONDS = 1.0  # a browser that has not drawn the last frame gets the next one after this
CURVES = ("kl", "js", "w1", "accuracy", "optimal_accuracy", "discriminator_gap")
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
        playing, speed, averaged, manifold: what the controls of the same names say.
    """

    def __init__(self, document: Document, lab: Lab) -> None:
        self.document, self.lab = document, lab
        self.playing, self.speed, self.averaged, self.manifold = False, "4", True, False
        self.said, self.error, self.phase = "", "", ""
        self.frame_number, self.frame_seconds, self.wait = 0, 0.0, 0
        self._moved = self._unmeasured = True
        self._shown_at, self._losses_shown = 0.0, 0
        self._sentences: list[str] = []
        self._save: threading.Thread | None = None
        self.command, self.state, self.drawn_frame = (TextInput(name=n) for n in ("command", "state", "drawn_frame"))
        self.command.on_change("value", lambda name, old, new: self.obey(new))
        self._sources()
        self.floors: dict[str, tuple[Span, BoxAnnotation]] = {}
        for root in (self._scene(), *self._curve_plots(), self.command, self.state, self.drawn_frame):
            document.add_root(root)
        document.title = "A GAN in the plane, live"
        document.template = jinja2.Environment(autoescape=False).from_string(TEMPLATE.read_text())
        self._show_target()
        document.add_periodic_callback(self.frame, FRAME_MS)

    # What is on the page.

    def _sources(self) -> None:
        empty: dict[str, list[float]] = {name: [] for name in ("iteration", *CURVES)}
        self.curves = ColumnDataSource(dict(empty))
        self.losses = ColumnDataSource({"iteration": [], "discriminator": [], "generator": []})
        self.real = ColumnDataSource({"x": [], "y": []})
        columns = ("x", "y", "x1", "y1", "z1", "z2", "dx", "dy")
        self.fakes = ColumnDataSource({name: [] for name in columns})
        low, high = figures.WINDOW
        box = {"x": [low], "y": [low], "dw": [high - low], "dh": [high - low]}
        self.surface = ColumnDataSource({"image": [np.full((results.SURFACE,) * 2, 0.5, np.float32)], **box})
        self.grid = ColumnDataSource({"xs": [], "ys": []})
        self.drawing = ColumnDataSource({"xs": [], "ys": []}, name="drawing")
        self.drawing.on_change("data", lambda name, old, new: self.draw())

    def _scene(self) -> Any:
        plot = _plot("scene", x_range=figures.WINDOW, y_range=figures.WINDOW, match_aspect=True)
        colours = LinearColorMapper(palette=_palette("#b795e8", "#f7f7f7", "#84cb9c"), low=0, high=1, name="colours")
        plot.image("image", x="x", y="y", dw="dw", dh="dh", source=self.surface, color_mapper=colours, name="surface")
        plot.multi_line("xs", "ys", source=self.grid, color=INK, line_width=0.8, alpha=0.7, name="manifold")
        plot.scatter("x", "y", source=self.real, size=5, color=GREEN, alpha=0.75, line_color=None, name="real")
        arrow = {"x0": "x", "y0": "y", "x1": "x1", "y1": "y1"}
        plot.segment(**arrow, source=self.fakes, color=INK, alpha=0.5, name="arrows")
        fakes = plot.scatter("x", "y", source=self.fakes, size=5, color=PURPLE, alpha=0.85, line_color=None)
        fakes.name = "fakes"
        lines = plot.multi_line("xs", "ys", source=self.drawing, color=ORANGE, line_width=4, name="drawn")
        tips = [("noise", "@z1{0.00} @z2{0.00}"), ("arrow", "@dx{0.000}, @dy{0.000}"), ("at", "@x{0.00}, @y{0.00}")]
        plot.add_tools(HoverTool(renderers=[fakes], tooltips=tips), FreehandDrawTool(renderers=[lines], name="pencil"))
        plot.toolbar.active_drag = None
        return plot

    def _curve_plots(self) -> list[Any]:
        divergence = _plot("divergence", y_axis_type="log", y_axis_label="KL, JS [nats]")
        w1 = _plot("w1", y_axis_type="log", y_axis_label="W1 [plane]", x_range=divergence.x_range)
        telling = _plot("telling", y_range=(0, 1), y_axis_label="accuracy", x_range=divergence.x_range)
        losses = _plot("losses", y_axis_label="losses", x_range=divergence.x_range)
        for plot, name, colour, label in (
            (divergence, "kl", BLUE, "KL"),
            (divergence, "js", ORANGE, "JS"),
            (w1, "w1", BLUE, "W1"),
            (telling, "accuracy", PURPLE, "discriminator"),
            (telling, "optimal_accuracy", GREEN, "best on the grid"),
            (telling, "discriminator_gap", ORANGE, "|D - optimal D|"),
        ):
            line = plot.line("iteration", name, source=self.curves, color=colour, line_width=2, legend_label=label)
            line.name = "w1_line" if name == "w1" else name
            if name in ("kl", "js", "w1", "optimal_accuracy"):
                span = Span(dimension="width", line_color=colour, line_dash="dotted", visible=False)
                band = BoxAnnotation(fill_color=colour, fill_alpha=0.2, line_color=None, visible=False)
                self.floors[name] = (span, band)
                plot.add_layout(span)
                plot.add_layout(band)
        telling.add_layout(Span(location=0.5, dimension="width", line_color=GREY, line_dash="dashed"))
        for name, colour in (("discriminator", GREEN), ("generator", PURPLE)):
            losses.line("iteration", name, source=self.losses, color=colour, legend_label=name, name=f"{name}_loss")
        divergence.xaxis.visible = w1.xaxis.visible = telling.xaxis.visible = False
        losses.xaxis.axis_label = "iteration"
        for plot in (divergence, w1, telling, losses):
            plot.min_border_left, plot.yaxis.ticker.desired_num_ticks = 56, 4
            legend = plot.legend[0]
            legend.orientation, legend.location, legend.padding = "horizontal", "top_right", 2
            legend.label_text_font_size, legend.background_fill_alpha, legend.glyph_width = "10px", 0.6, 14
            legend.border_line_color, legend.label_standoff, legend.spacing = None, 3, 6
        return [divergence, w1, telling, losses]

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
                "erase": lambda: self.drawing.update(data={"xs": [], "ys": []}),
            }
            actions[str(asked.get("do"))]()
        except (ValueError, KeyError, RecursionError):
            self.error = "the page asked for something that there is not; load it again"
        except (BadInput, TrainingFailed) as fault:
            self.error = str(fault)
        self._tell()

    def _play(self) -> None:
        if self.lab.fault:
            raise BadInput(f"{self.lab.fault}; reset starts again")
        self.playing = not self.playing
        self.phase, self.wait = "", 0

    def _once(self, step: Callable[[], Any]) -> None:
        self.playing, self.phase = False, ""
        if self.lab.fault:
            raise BadInput(f"{self.lab.fault}; reset starts again")
        self._moved = self._unmeasured = True
        step()

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
            if name == "target":
                self.drawing.data = {"xs": [], "ys": []}
            self._show_target()

    def draw(self) -> None:
        """Make the drawing the target, once a stroke is finished."""
        xs, ys = (list(self.drawing.data.get(name, [])) for name in ("xs", "ys"))
        if not xs:
            return
        self.error = ""
        try:
            strokes = [
                np.stack([np.asarray(x, float), np.asarray(y, float)], 1).tolist() for x, y in zip(xs, ys, strict=True)
            ]
            self.lab.draw(strokes)
            self._show_target()
        except (BadInput, ValueError, TypeError) as fault:
            self.error = str(fault) if isinstance(fault, BadInput) else "the drawing: it is no list of points x, y"
            self.document.add_next_tick_callback(lambda: self.drawing.update(data={"xs": [], "ys": []}))
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

    def frame(self) -> None:
        """Train a little and show what changed; a tab that is closed does nothing."""
        session: Any = self.document.session_context
        if session is None or not getattr(session.session, "connection_count", 1):
            return
        began = time.perf_counter()
        if self.playing:
            self._train()
        seen = self.drawn_frame.value in ("", str(self.frame_number))
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
            row = self.lab.measure()
            self._unmeasured, self._sentences = False, sentences(self.lab)
            new: dict[str, Any] = {name: [row.get(name, float("nan"))] for name in ("iteration", *CURVES)}
            self.curves.stream(new, rollover=CURVE_POINTS)
            self._show_losses()
        elif self.lab.measure_floor():
            self._show_floors()
            self._sentences = sentences(self.lab)
        elif not self._moved:
            return
        if self._moved:
            self._show_scene()
            self._moved = False
        self.frame_number += 1
        self._shown_at = began
        self.frame_seconds += 0.1 * (time.perf_counter() - began - self.frame_seconds)
        self._tell()

    def _show_scene(self) -> None:
        look = self.lab.look(self.averaged)
        fakes, z = look["fakes"], look["noise"]
        pushed = figures.short_arrows(fakes, look["arrows"], _long(look["arrows"]))
        columns = {"x": fakes[:, 0], "y": fakes[:, 1], "x1": (fakes + pushed)[:, 0], "y1": (fakes + pushed)[:, 1]}
        columns |= {"z1": z[:, 0], "z2": z[:, -1], "dx": look["arrows"][:, 0], "dy": look["arrows"][:, 1]}
        self.fakes.data = {name: column.astype(np.float32) for name, column in columns.items()}
        self.surface.patch({"image": [(0, look["surface"].astype(np.float32))]})
        lines = self.lab.manifold(self.averaged) if self.manifold else []
        self.grid.data = {"xs": [line[:, 0] for line in lines], "ys": [line[:, 1] for line in lines]}

    def _show_losses(self) -> None:
        """The mean losses since the last time, with the measurements: plots that are drawn anew cost the most."""
        since, done = self._losses_shown, self.lab.iteration
        if done > since:
            ends = np.linspace(since, done, min(done - since, MEASURE_EVERY) + 1).astype(int)
            means = [np.mean(self.lab.losses[low:high], axis=0) for low, high in itertools.pairwise(ends)]
            d_loss, g_loss = zip(*means, strict=True)
            new = {"iteration": ends[1:].tolist(), "discriminator": list(d_loss), "generator": list(g_loss)}
            self.losses.stream(new, rollover=CURVE_POINTS)
            self._losses_shown = done

    def _show_target(self) -> None:
        """After a change of settings: the real samples, and empty curves where all began anew."""
        self.real.data = {"x": self.lab.shown_real[:, 0], "y": self.lab.shown_real[:, 1]}
        if not self.lab.losses:
            self.losses.data = {name: [] for name in self.losses.data}
            self.curves.data = {name: [] for name in self.curves.data}
            self._losses_shown = 0
        self._moved = self._unmeasured = True
        self._show_floors()

    def _show_floors(self) -> None:
        for name, (span, band) in self.floors.items():
            mean, spread = self.lab.floor(name)
            span.visible, band.visible = np.isfinite(mean), np.isfinite(spread)
            if span.visible:
                span.location = mean
            if band.visible:
                band.bottom, band.top = max(mean - 2 * spread, mean / 10), mean + 2 * spread

    def _tell(self) -> None:
        """The state, for the page."""
        lab = self.lab
        settings = {name: getattr(lab.config, name) for name in TURNED}
        settings |= {"recipe": lab.config.recipe, "speed": self.speed}
        if lab.config.target.endswith(".csv"):
            settings["target"] = "drawn"
        state = {
            "frame": self.frame_number,
            "ms": round(1000 * self.frame_seconds, 1),
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
            "command": command(lab.config),
        }
        self.state.value = json.dumps(state)


def sentences(lab: Lab) -> list[str]:
    """What is seen now, from the last measurement and the floors: the script's own sentences."""
    if not lab.measured or len(lab.floors) < 3:
        return ["Measuring real samples against real ones: the floors, below which no generator can stay."]
    row, floors = pd.Series(lab.measured[-1]), pd.DataFrame(lab.floors)
    floor, spread = floors.mean(), floors.std(ddof=1)
    suffix, names = results.AVERAGED, list(results.DISTANCES)
    averaged = row[[name + suffix for name in names]].set_axis(names)
    close = results.said_of_distance(averaged, floor[names], spread[names])
    found = [f"{n.upper()} {row[n]:.3f}, averaged {averaged[n]:.3f} (floor {floor[n]:.3f})" for n in names]
    first = lab.measured[0]["gradient_at_fakes"]
    length = row["gradient_at_fakes"]
    said = [
        f"Real and fake are {close} (averaged weights). {'; '.join(found)}.",
        results.said_of_accuracy(row["accuracy"], row["optimal_accuracy"], floor["optimal_accuracy"], EVAL_SAMPLES),
        results.said_of_gradient(length, f"{first:.3g} when it was first measured", length < first / 3),
        results.said_of_modes(row["modes"], lab.target.parts, row["quality"], floor["quality"]),
    ]
    if "discriminator_gap" in row:
        said.insert(2, results.said_of_gap(f"{row['discriminator_gap']:.3f}", floor["discriminator_gap"]))
    return said


def _plot(name: str, **settings: Any) -> Any:
    """A plot without a toolbar that fills its place in the page; the page sets the colours of the frame."""
    plot = bokeh_figure(name=name, tools="", toolbar_location=None, sizing_mode="stretch_both", **settings)
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    plot.min_border, plot.axis.axis_label_text_font_size = 4, "11px"
    plot.axis.major_label_text_font_size, plot.axis.axis_label_text_font_style = "10px", "normal"
    return plot


def _palette(*colours: str, levels: int = 65) -> list[str]:
    """Colours from the first over the middle to the last."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = np.linspace(0, len(colours) - 1, levels)
    mixed = np.stack([np.interp(at, range(len(colours)), stops[:, channel]) for channel in range(3)], 1)
    return ["#" + "".join(f"{round(channel):02x}" for channel in colour) for colour in mixed]


def _long(arrows: np.ndarray) -> float:
    """The length of a long gradient in one frame; 1 if all are zero."""
    return float(np.quantile(np.linalg.norm(arrows, axis=1), 0.95)) or 1.0
