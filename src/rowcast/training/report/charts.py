"""Turn arrays into charts. A chart is a list of shapes, which the macro `chart` renders as inline SVG.

Values that are not finite are not drawn. Colors come from the style sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rowcast.templates.numbers import abbreviate_number

WIDTH: Final = 340
HEIGHT: Final = 240
LEFT: Final = 54
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 40
BAR_HEIGHT: Final = 20
"""The height of a horizontal bar, including the gap below it."""
NAME_WIDTH: Final = 118
"""The width reserved for the names of horizontal bars."""
COLOURS: Final = 6
HISTOGRAM_BINS: Final = 24
UNIT_RANGE: Final = (-0.02, 1.02)
"""The range of an axis that shows probabilities or shares."""

Values = NDArray[Any]
Range = tuple[float, float]


@dataclass(frozen=True)
class ChartPath:
    """An SVG path; `style` is its CSS class."""

    kind: ClassVar[Literal["path"]] = "path"
    style: str
    path: str


@dataclass(frozen=True)
class ChartBar:
    """A filled rectangle."""

    kind: ClassVar[Literal["bar"]] = "bar"
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class ChartText:
    """A label. `full_text` appears on hover when the label is truncated."""

    kind: ClassVar[Literal["text"]] = "text"
    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "middle"
    full_text: str = ""
    vertical: bool = False


Shape = ChartPath | ChartBar | ChartText


@dataclass(frozen=True)
class LegendEntry:
    """The name of a line and the CSS class used to draw it."""

    name: str
    style: str


@dataclass(frozen=True)
class Chart:
    """A chart that is ready to be rendered; it has no shapes if there is no data."""

    title: str
    description: str
    """A description of the chart for screen readers."""
    shapes: tuple[Shape, ...] = ()
    height: float = HEIGHT
    legend: tuple[LegendEntry, ...] = ()
    width: float = WIDTH


@dataclass(frozen=True)
class Line:
    """A named line; `low` and `high` are the ends of an interval drawn at every point."""

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """A named horizontal bar that starts at zero, with an optional interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PlotArea:
    """The part of the canvas inside the axes, with methods that convert values to pixel positions."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return the horizontal pixel position of a value."""
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical pixel position of a value."""
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def point(self, x: float, y: float) -> str:
        """Return a point as SVG path coordinates."""
        return f"{self.x(x):.1f} {self.y(y):.1f}"


def line_chart(
    title: str,
    description: str,
    axes: tuple[str, str],
    lines: Sequence[Line],
    *,
    x_range: Range | None = None,
    y_range: Range | None = None,
    diagonal: bool = False,
    mark: tuple[float, str] | None = None,
) -> Chart:
    """Draw lines over a common x-axis; `mark` adds a named vertical line, and `diagonal` adds the line y = x."""
    lines = [finite for finite in map(_finite_points, lines) if len(finite.x)]
    if not lines:
        return Chart(title, description)
    heights = [line.y for line in lines]
    heights += [bound for line in lines for bound in (line.low, line.high) if bound is not None]
    area = PlotArea(*(x_range or _padded_range([line.x for line in lines], 0.0)), *(y_range or _padded_range(heights)))
    shapes = _axes(area, axes)
    if diagonal:
        shapes.append(_diagonal(area))
    if mark is not None and area.x_low <= mark[0] <= area.x_high:
        shapes += _mark(area, *mark)
    colours = [f"c{index % COLOURS + 1}" for index in range(len(lines))]
    for line, colour in zip(lines, colours, strict=True):
        shapes += _line(area, line, colour)
    legend = [LegendEntry(line.name, f"line {colour}") for line, colour in zip(lines, colours, strict=True)]
    return Chart(title, description, tuple(shapes), legend=tuple(legend) if len(legend) > 1 else ())


def scatter_chart(
    title: str,
    description: str,
    axes: tuple[str, str],
    x: Values,
    y: Values,
    *,
    diagonal: bool = False,
    zero_line: bool = False,
) -> Chart:
    """Draw a point for each pair of values, optionally with the line y = x or the line y = 0."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(x):
        return Chart(title, description)
    ranges = _padded_range([x, y]) * 2 if diagonal else (*_padded_range([x]), *_padded_range([y, np.zeros(1)]))
    area = PlotArea(*ranges)
    shapes = [*_axes(area, axes), ChartPath("dots", _dots(area, x, y))]
    if diagonal:
        shapes.append(_diagonal(area))
    if zero_line:
        shapes.append(ChartPath("guide", f"M{area.point(area.x_low, 0)}L{area.point(area.x_high, 0)}"))
    return Chart(title, description, tuple(shapes))


def histogram(title: str, description: str, axes: tuple[str, str], values: Values) -> Chart:
    """Draw a histogram with bins of equal width."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Chart(title, description)
    low, high = _padded_range([values], 0.0)
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (low, high))
    area = PlotArea(low, high, 0.0, float(counts.max()) * 1.05)
    shapes = _axes(area, axes)
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            x, y = area.x(left), area.y(count)
            shapes.append(ChartBar(x, y, area.x(right) - x - 1, HEIGHT - BOTTOM - y))
    return Chart(title, description, tuple(shapes))


def bar_chart(title: str, description: str, axis: str, bars: Sequence[Bar]) -> Chart:
    """Draw horizontal bars that start at zero, in the given order."""
    bars = [bar for bar in bars if np.isfinite(bar.value)]
    if not bars:
        return Chart(title, description)
    ends = [end for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None]
    low, high = _padded_range([np.array([0.0, *ends])], 0.04)
    low = 0.0 if min(0.0, *ends) == 0.0 else low
    span, foot = WIDTH - NAME_WIDTH - RIGHT, TOP + BAR_HEIGHT * len(bars)

    def position(value: float) -> float:
        return NAME_WIDTH + (value - low) / (high - low) * span

    shapes: list[Shape] = []
    for tick in ticks(low, high, 4):
        shapes.append(ChartPath("grid", f"M{position(tick):.1f} {TOP}V{foot}"))
        shapes.append(ChartText(position(tick), foot + 14, abbreviate_number(tick)))
    for index, bar in enumerate(bars):
        shapes += _bar(bar, TOP + BAR_HEIGHT * index, position)
    shapes.append(ChartPath("axis", f"M{position(0.0):.1f} {TOP}V{foot}"))
    shapes.append(ChartText(NAME_WIDTH + span / 2, foot + BOTTOM - 8, axis))
    return Chart(title, description, tuple(shapes), height=foot + BOTTOM)


def _bar(bar: Bar, top: float, position: Callable[[float], float]) -> list[Shape]:
    zero, end, middle = position(0.0), position(bar.value), top + BAR_HEIGHT / 2
    shapes: list[Shape] = [
        ChartBar(min(zero, end), top + 3, abs(end - zero), BAR_HEIGHT - 6),
        _label(NAME_WIDTH - 6, middle + 4, bar.name, limit=17, anchor="end"),
    ]
    if bar.low is not None and bar.high is not None:
        left, right = position(bar.low), position(bar.high)
        caps = "".join(f"M{x:.1f} {middle - 4:.1f}v8" for x in (left, right))
        shapes.append(ChartPath("interval", f"M{left:.1f} {middle:.1f}H{right:.1f}{caps}"))
    return shapes


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers that divide the range [low, high] into at most `most` steps."""
    step = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= most)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") + 0.0 for index in np.arange(first, last + 1)]


def truncate(text: str, limit: int) -> str:
    """Truncate a string to `limit` characters, including an ellipsis at the end."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _finite_points(line: Line) -> Line:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    low, high = (None if bound is None else np.asarray(bound, np.float64)[finite] for bound in (line.low, line.high))
    return Line(line.name, x[finite], y[finite], low, high, line.dots)


def _padded_range(arrays: Sequence[Values], margin: float = 0.05) -> Range:
    """Return a range that contains all values and is never empty."""
    low, high = min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        padding = abs(low) * 0.1 or 1.0
        return low - padding, high + padding
    return low - margin * (high - low), high + margin * (high - low)


def _axes(area: PlotArea, names: tuple[str, str]) -> list[Shape]:
    foot, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    shapes: list[Shape] = []
    for tick in ticks(area.x_low, area.x_high):
        shapes.append(ChartPath("grid", f"M{area.x(tick):.1f} {TOP}V{foot}"))
        shapes.append(ChartText(area.x(tick), foot + 14, abbreviate_number(tick)))
    for tick in ticks(area.y_low, area.y_high):
        shapes.append(ChartPath("grid", f"M{LEFT} {area.y(tick):.1f}H{right}"))
        shapes.append(ChartText(LEFT - 5, area.y(tick) + 4, abbreviate_number(tick), "end"))
    shapes.append(ChartPath("axis", f"M{LEFT} {TOP}V{foot}H{right}"))
    shapes.append(_label((LEFT + right) / 2, HEIGHT - 8, names[0], limit=48))
    shapes.append(_label(10, (TOP + foot) / 2, names[1], limit=32, vertical=True))
    return shapes


def _label(
    x: float,
    y: float,
    text: str,
    *,
    limit: int,
    anchor: Literal["start", "middle", "end"] = "middle",
    vertical: bool = False,
) -> ChartText:
    shown = truncate(text, limit)
    return ChartText(x, y, shown, anchor, text if shown != text else "", vertical)


def _line(area: PlotArea, line: Line, colour: str) -> list[Shape]:
    shapes: list[Shape] = []
    if line.low is not None and line.high is not None:
        bounds = zip(line.x.tolist(), line.low.tolist(), line.high.tolist(), strict=True)
        shapes.append(
            ChartPath("interval", "".join(f"M{area.point(x, low)}L{area.point(x, high)}" for x, low, high in bounds))
        )
    points = zip(line.x.tolist(), line.y.tolist(), strict=True)
    shapes.append(ChartPath(f"line {colour}", "M" + "L".join(area.point(x, y) for x, y in points)))
    if line.dots or len(line.x) == 1:
        shapes.append(ChartPath(f"knots {colour}", _dots(area, line.x, line.y)))
    return shapes


def _dots(area: PlotArea, x: Values, y: Values) -> str:
    """Return a path of zero-length strokes; because the line caps are round, each stroke appears as a dot."""
    return "".join(f"M{area.point(a, b)}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _diagonal(area: PlotArea) -> ChartPath:
    low, high = max(area.x_low, area.y_low), min(area.x_high, area.y_high)
    return ChartPath("guide", f"M{area.point(low, low)}L{area.point(high, high)}")


def _mark(area: PlotArea, value: float, name: str) -> list[Shape]:
    x = area.x(value)
    line = ChartPath("mark", f"M{x:.1f} {TOP}V{HEIGHT - BOTTOM}")
    if x > WIDTH * 0.7:  # the name would extend past the right edge of the canvas
        return [line, ChartText(x - 4, TOP + 10, name, "end")]
    return [line, ChartText(x + 4, TOP + 10, name, "start")]
