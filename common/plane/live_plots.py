"""The plots of the live page, and what fills them."""

import itertools
import math
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FreehandDrawTool, HoverTool, LinearColorMapper, PrintfTickFormatter
from bokeh.models.annotations import Span
from bokeh.models.ranges import Range1d
from bokeh.plotting import figure as bokeh_figure

from common.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE
from common.plane import figures, results
from common.plane.live import Lab

PLOTS = {
    "divergence": {"kl": BLUE, "js": ORANGE},
    "w1": {"w1": BLUE},
    "telling": {"accuracy": PURPLE, "optimal_accuracy": GREEN, "discriminator_gap": ORANGE},
    "losses": {"discriminator_loss": GREEN, "generator_loss": PURPLE},
}
LOSSES = list(PLOTS["losses"])
MEASURES = [name for curves in PLOTS.values() for name in curves if name not in LOSSES]
FLOORS = ("kl", "js", "w1", "optimal_accuracy")
LEVELS = [float(f"{k}e{power}") for power in range(-4, 3) for k in (1, 3)]  # ticks of a logarithmic axis
CURVE_POINTS = 3_000
LOSS_POINTS = 8  # between two measurements: each is the mean of its iterations


class Plots:
    """Scene and curves of one tab.

    Attributes:
        roots: the plots, for the document.
        drawing: the strokes of the mouse, as `xs` and `ys`.
    """

    def __init__(self) -> None:
        low, high = figures.WINDOW
        box = {"x": [low], "y": [low], "dw": [high - low], "dh": [high - low]}
        self.surface = ColumnDataSource({"image": [np.full((results.SURFACE,) * 2, 0.5, np.float32)], **box})
        self.grid, self.drawing = (ColumnDataSource({"xs": [], "ys": []}) for _ in range(2))
        self.real = ColumnDataSource({"x": [], "y": []})
        self.fakes = ColumnDataSource({name: [] for name in ("x", "y", "x1", "y1", "z1", "z2", "dx", "dy")})
        self.measures, self.losses, self.floors = ColumnDataSource(), ColumnDataSource(), ColumnDataSource()
        self.shown_losses = 0
        self.roots = [self._scene(), *self._curves()]

    def _scene(self) -> Any:
        plot = _plot("scene", x_range=figures.WINDOW, y_range=figures.WINDOW, match_aspect=True)
        ends = ["#b795e8", "#f7f7f7", "#84cb9c"]  # the page makes the colours between them
        colours = LinearColorMapper(palette=ends, low=0, high=1, name="colours")
        plot.image("image", x="x", y="y", dw="dw", dh="dh", source=self.surface, color_mapper=colours, name="surface")
        plot.multi_line("xs", "ys", source=self.grid, color=INK, line_width=0.8, alpha=0.7, name="manifold")
        plot.scatter("x", "y", source=self.real, size=5, color=GREEN, alpha=0.75, line_color=None, name="real")
        arrow = {"x0": "x", "y0": "y", "x1": "x1", "y1": "y1"}
        plot.segment(**arrow, source=self.fakes, color=INK, alpha=0.5, name="arrows")
        dots = {"size": 5, "color": PURPLE, "alpha": 0.85, "line_color": None}
        fakes = plot.scatter("x", "y", source=self.fakes, name="fakes", **dots)
        lines = plot.multi_line("xs", "ys", source=self.drawing, color=ORANGE, line_width=4, name="drawn")
        tips = [("noise", "@z1{0.00} @z2{0.00}"), ("arrow", "@dx{0.000}, @dy{0.000}"), ("at", "@x{0.00}, @y{0.00}")]
        plot.add_tools(HoverTool(renderers=[fakes], tooltips=tips), FreehandDrawTool(renderers=[lines], name="pencil"))
        plot.toolbar.active_drag = None
        self.drawing.name = "drawing"
        return plot

    def _curves(self) -> list[Any]:
        """Curves with their floors, dotted with a band: of the losses, where they are if real = fake."""
        plots: list[Any] = []
        for title, curves in PLOTS.items():
            plot = _plot(title, y_axis_type="log" if title in ("divergence", "w1") else "linear")
            for name, colour in curves.items():
                if name in FLOORS or name in LOSSES:
                    band = {"y1": f"{name}_low", "y2": f"{name}_high", "alpha": 0.2}
                    plot.varea("iteration", **band, source=self.floors, color=colour)
                    plot.line("iteration", name, source=self.floors, color=colour, line_dash="dotted")
                source = self.losses if name in LOSSES else self.measures
                plot.line("iteration", name, source=source, color=colour, line_width=1 if name in LOSSES else 2)
            if title in ("divergence", "w1"):
                plot.yaxis.ticker, plot.yaxis.formatter = LEVELS, PrintfTickFormatter(format="%g")
            plots.append(plot)
            plot.x_range, plot.xaxis.visible, plot.min_border_left = plots[0].x_range, title == "losses", 40
        telling, losses = plots[2:]
        losses.yaxis.ticker.desired_num_ticks, losses.yaxis.ticker.num_minor_ticks = 3, 0
        telling.y_range, telling.yaxis.ticker = Range1d(start=-0.05, end=1.05), [0, 0.5, 1]
        telling.add_layout(Span(location=0.5, dimension="width", line_color=GREY, line_dash="dashed"))
        return plots

    def show_target(self, lab: Lab) -> None:
        """After a change of settings: the real samples, and empty curves where all began anew."""
        self.real.data = {"x": lab.shown_real[:, 0], "y": lab.shown_real[:, 1]}
        if not lab.losses:
            self.losses.data = {name: [] for name in ("iteration", *LOSSES)}
            self.measures.data = {name: [] for name in ("iteration", *MEASURES)}
            self.shown_losses = 0
        self.show_floors(lab)

    def show_scene(self, lab: Lab, averaged: bool, manifold: bool) -> None:
        """Fakes, arrows and surface, and the grid of the noise if it is asked for."""
        look = lab.look(averaged)
        fakes, z, long = look["fakes"], look["noise"], np.quantile(np.linalg.norm(look["arrows"], axis=1), 0.95)
        ends = fakes + figures.short_arrows(fakes, look["arrows"], float(long) or 1.0)
        columns = {"x": fakes[:, 0], "y": fakes[:, 1], "x1": ends[:, 0], "y1": ends[:, 1]}
        columns |= {"z1": z[:, 0], "z2": z[:, -1], "dx": look["arrows"][:, 0], "dy": look["arrows"][:, 1]}
        self.fakes.data = {name: column.astype(np.float32) for name, column in columns.items()}
        self.surface.patch({"image": [(0, look["surface"].astype(np.float32))]})
        lines = lab.manifold(averaged) if manifold else []
        self.grid.data = {"xs": [line[:, 0] for line in lines], "ys": [line[:, 1] for line in lines]}

    def show_measured(self, lab: Lab) -> None:
        """The last measurement, and the losses since the one before: plots that are drawn anew cost the most."""
        row: dict[str, Any] = {name: [lab.measured[-1].get(name, math.nan)] for name in ("iteration", *MEASURES)}
        self.measures.stream(row, rollover=CURVE_POINTS)
        since, done = self.shown_losses, lab.iteration
        if done > since:
            ends = np.linspace(since, done, min(done - since, LOSS_POINTS) + 1).astype(int)
            means = [np.mean(lab.losses[low:high], axis=0) for low, high in itertools.pairwise(ends)]
            new = {"iteration": ends[1:].tolist(), **dict(zip(LOSSES, np.transpose(means).tolist(), strict=True))}
            self.losses.stream(new, rollover=CURVE_POINTS)
            self.shown_losses = done
        self.show_floors(lab)

    def show_floors(self, lab: Lab) -> None:
        """The floors, from the first moment of the curves to the last one."""
        moments = self.measures.data["iteration"]
        columns: dict[str, list[float]] = {"iteration": [moments[0], max(moments[-1], 1)] if len(moments) else [0, 1]}
        even = results.equilibrium(lab.config) or (math.nan, math.nan)
        floors = {name: lab.floor(name) for name in FLOORS}
        floors |= {name: (value, 0.0) for name, value in zip(LOSSES, even, strict=True)}
        for name, (mean, spread) in floors.items():
            columns |= {name: [mean] * 2, f"{name}_high": [mean + 2 * spread] * 2}
            columns[f"{name}_low"] = [max(mean - 2 * spread, mean / 10)] * 2
        self.floors.data = columns


def _plot(name: str, **settings: Any) -> Any:
    """A plot without a toolbar that fills its place in the page; the page sets the colours of the frame."""
    plot = bokeh_figure(name=name, tools="", toolbar_location=None, sizing_mode="stretch_both", **settings)
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    plot.min_border, plot.axis.major_label_text_font_size = 4, "10px"
    plot.x_range.syncable = plot.y_range.syncable = False  # the server need not hear how far a curve has come
    return plot
