"""Figures as inline SVG, drawn from arrays. Every text is escaped, every figure has a title and says itself in words.

Never draws what is not finite, never needs a script, a font or a host; colours come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

WIDTH: Final = 340
HEIGHT: Final = 240
LEFT: Final = 54
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 40
BAR: Final = 20
"""Height of one horizontal bar with its gap."""
NAME: Final = 118
"""Width kept for the names of horizontal bars."""
COLOURS: Final = 6

Values = NDArray[Any]


@dataclass(frozen=True)
class Line:
    """One named line; `low` and `high` draw an interval at every point."""

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """One named bar from zero, with an interval when there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Frame:
    """The plotting area: data to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x):.1f} {self.y(y):.1f}"


Range = tuple[float, float]


def lines(
    title: str,
    says: str,
    axes: tuple[str, str],
    drawn: Sequence[Line],
    *,
    x_range: Range | None = None,
    y_range: Range | None = None,
    diagonal: bool = False,
    mark: tuple[float, str] | None = None,
) -> str:
    """Lines over a common x; `mark` is a vertical line with its name, `diagonal` the line y = x."""
    kept = [_finite(line) for line in drawn]
    kept = [line for line in kept if len(line.x)]
    if not kept:
        return _empty(title, says)
    bounds = [line.y for line in kept] + [side for line in kept for side in (line.low, line.high) if side is not None]
    frame = Frame(*(x_range or _room([line.x for line in kept], 0.0)), *(y_range or _room(bounds)))
    body = _axes(frame, axes)
    if diagonal:
        body += _diagonal(frame)
    if mark is not None and frame.x_low <= mark[0] <= frame.x_high:
        body += _mark(frame, *mark)
    body += "".join(_line(frame, line, index % COLOURS + 1) for index, line in enumerate(kept))
    return _figure(title, says, body, HEIGHT, _legend(kept) if len(kept) > 1 else "")


def points(
    title: str, says: str, axes: tuple[str, str], x: Values, y: Values, *, diagonal: bool = False, level: bool = False
) -> str:
    """A cloud of points; with the line y = x, or the line y = 0."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(x):
        return _empty(title, says)
    both = [x, y]
    frame = Frame(*(_room(both) * 2 if diagonal else (*_room([x]), *_room([y, np.zeros(1)]))))
    dots = "".join(f"M{frame.at(a, b)}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    body = _axes(frame, axes) + f'<path class="dots" d="{dots}"/>'
    if diagonal:
        body += _diagonal(frame)
    if level:
        body += f'<path class="guide" d="M{frame.at(frame.x_low, 0)}L{frame.at(frame.x_high, 0)}"/>'
    return _figure(title, says, body, HEIGHT)


def histogram(title: str, says: str, axes: tuple[str, str], values: Values, bins: int = 24) -> str:
    """How often values fall into equally wide bins."""
    values = values[np.isfinite(values)]
    if not len(values):
        return _empty(title, says)
    low, high = _room([values], 0.0)
    counts, edges = np.histogram(values, bins, (low, high))
    frame = Frame(low, high, 0.0, float(counts.max()) * 1.05)
    body = _axes(frame, axes)
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            x, y = frame.x(left), frame.y(count)
            size = f'width="{frame.x(right) - x - 1:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
            body += f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" {size}/>'
    return _figure(title, says, body, HEIGHT)


def bars(title: str, says: str, label: str, drawn: Sequence[Bar], *, whole: Range | None = None) -> str:
    """Horizontal bars from zero, one a name, in the order given."""
    drawn = [bar for bar in drawn if np.isfinite(bar.value)]
    if not drawn:
        return _empty(title, says)
    sides = [side for bar in drawn for side in (bar.value, bar.low, bar.high) if side is not None]
    low, high = whole or _room([np.array([0.0, *sides])], 0.04)
    low = 0.0 if min(0.0, *sides) == 0.0 else low
    span, height = WIDTH - NAME - RIGHT, TOP + BAR * len(drawn) + BOTTOM

    def place(value: float) -> float:
        return NAME + (value - low) / (high - low) * span

    foot = height - BOTTOM
    body = ""
    for tick in ticks(low, high, 4):
        body += f'<path class="grid" d="M{place(tick):.1f} {TOP}V{foot}"/>'
        body += _text(place(tick), foot + 14, short(tick), "middle")
    for index, bar in enumerate(drawn):
        body += _bar(bar, TOP + BAR * index, place)
    body += f'<path class="axis" d="M{place(0.0):.1f} {TOP}V{foot}"/>'
    body += _text(NAME + span / 2, height - 8, label, "middle")
    return _figure(title, says, body, height)


def _bar(bar: Bar, top: float, place: Any) -> str:
    zero, end, middle = place(0.0), place(bar.value), top + BAR / 2
    box = f'x="{min(zero, end):.1f}" y="{top + 3:.1f}" width="{abs(end - zero):.1f}" height="{BAR - 6}"'
    drawn = f'<rect class="bar" {box}/>' + _text(NAME - 6, middle + 4, clipped(bar.name, 17), "end", bar.name)
    if bar.low is not None and bar.high is not None:
        left, right = place(bar.low), place(bar.high)
        sides = "".join(f"M{side:.1f} {middle - 4:.1f}v8" for side in (left, right))
        drawn += f'<path class="interval" d="M{left:.1f} {middle:.1f}H{right:.1f}{sides}"/>'
    return drawn


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many."""
    step = 10.0 ** np.floor(np.log10((high - low) / about))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= about)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(f"{place * step:.12g}") + 0.0 for place in np.arange(first, last + 1)]


def short(value: float) -> str:
    """A number in few characters: 0.25, 1,200, 45k, 1.2M."""
    size = abs(value)
    if size >= 1e13 or 0 < size < 1e-4:
        return f"{value:.3g}"
    for start, unit, name in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= start:
            return f"{value / unit:.4g}{name}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"


def clipped(text: str, limit: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _finite(line: Line) -> Line:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    keep = np.isfinite(x) & np.isfinite(y)
    low, high = (None if side is None else np.asarray(side, np.float64)[keep] for side in (line.low, line.high))
    return Line(line.name, x[keep], y[keep], low, high, line.dots)


def _room(arrays: Sequence[Values], margin: float = 0.05) -> Range:
    """A range that holds all values with some margin, never empty."""
    low, high = min(float(each.min()) for each in arrays), max(float(each.max()) for each in arrays)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    return low - margin * (high - low), high + margin * (high - low)


def _axes(frame: Frame, labels: tuple[str, str]) -> str:
    foot, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    body = ""
    for tick in ticks(frame.x_low, frame.x_high):
        body += f'<path class="grid" d="M{frame.x(tick):.1f} {TOP}V{foot}"/>'
        body += _text(frame.x(tick), foot + 14, short(tick), "middle")
    for tick in ticks(frame.y_low, frame.y_high):
        body += f'<path class="grid" d="M{LEFT} {frame.y(tick):.1f}H{right}"/>'
        body += _text(LEFT - 5, frame.y(tick) + 4, short(tick), "end")
    body += f'<path class="axis" d="M{LEFT} {TOP}V{foot}H{right}"/>'
    body += _text((LEFT + right) / 2, HEIGHT - 8, clipped(labels[0], 48), "middle", labels[0])
    middle = (TOP + foot) / 2
    turned = f'transform="rotate(-90 10 {middle:.1f})"'
    return body + _text(10, middle, clipped(labels[1], 32), "middle", labels[1], turned)


def _line(frame: Frame, line: Line, colour: int) -> str:
    path = "L".join(frame.at(x, y) for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True))
    drawn = ""
    if line.low is not None and line.high is not None:
        sides = zip(line.x.tolist(), line.low.tolist(), line.high.tolist(), strict=True)
        drawn += f'<path class="interval" d="{"".join(f"M{frame.at(x, a)}L{frame.at(x, b)}" for x, a, b in sides)}"/>'
    drawn += f'<path class="line c{colour}" d="M{path}"/>'
    if line.dots or len(line.x) == 1:
        circles = "".join(f"M{frame.at(x, y)}h0" for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True))
        drawn += f'<path class="knots c{colour}" d="{circles}"/>'
    return drawn


def _diagonal(frame: Frame) -> str:
    low, high = max(frame.x_low, frame.y_low), min(frame.x_high, frame.y_high)
    return f'<path class="guide" d="M{frame.at(low, low)}L{frame.at(high, high)}"/>'


def _mark(frame: Frame, value: float, name: str) -> str:
    x = frame.x(value)
    left = x > WIDTH * 0.7
    label = _text(x - 4 if left else x + 4, TOP + 10, name, "end" if left else "start")
    return f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>{label}'


def _text(x: float, y: float, text: str, anchor: str, full: str = "", extra: str = "") -> str:
    """A label; its full wording shows on hover where it had to be clipped."""
    hover = f"<title>{escape(full)}</title>" if full and full != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}{hover}</text>'


def _legend(drawn: Sequence[Line]) -> str:
    items = [
        f'<li><svg viewBox="0 0 24 8" aria-hidden="true"><path class="line c{index % COLOURS + 1}" d="M1 4H23"/></svg>'
        f"{escape(line.name)}</li>"
        for index, line in enumerate(drawn)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _figure(title: str, says: str, body: str, height: float, legend: str = "") -> str:
    named = f"<title>{escape(title)}</title><desc>{escape(says)}</desc>"
    drawing = f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {height:g}">{named}{body}</svg>'
    return f"<figure><figcaption><b>{escape(title)}</b> {escape(says)}</figcaption>{drawing}{legend}</figure>"


def _empty(title: str, says: str) -> str:
    caption = f"<figcaption><b>{escape(title)}</b> {escape(says)}</figcaption>"
    return f'<figure>{caption}<p class="quiet">Nothing to draw.</p></figure>'
