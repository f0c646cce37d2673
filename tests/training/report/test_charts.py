"""Charts draw all finite values of their arrays and omit all other values."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from rowcast import templates
from rowcast.training.report.charts import (
    Bar,
    Chart,
    ChartBar,
    ChartPath,
    ChartText,
    Line,
    bar_chart,
    histogram,
    line_chart,
    scatter_chart,
    ticks,
    truncate,
)

HOSTILE = '<script>alert("1")</script> & \''
AXES = ("across", "up")


def paths(chart: Chart, style: str) -> list[str]:
    return [shape.path for shape in chart.shapes if isinstance(shape, ChartPath) and shape.style == style]


def texts(chart: Chart) -> list[str]:
    return [shape.text for shape in chart.shapes if isinstance(shape, ChartText)]


def render(chart: Chart) -> str:
    source = '{% from "components.html" import chart %}{{ chart(drawing) }}'
    return templates.environment("rowcast.training.report").from_string(source).render(drawing=chart).strip()


def test_a_line_passes_through_its_points() -> None:
    line = Line("model", np.array([0, 1]), np.array([0, 1]))

    chart = line_chart("title", "description", AXES, [line], x_range=(0, 1), y_range=(0, 1))

    assert paths(chart, "line c1") == ["M54.0 200.0L328.0 10.0"]
    assert texts(chart)[0] == "0"
    assert texts(chart)[-2:] == ["across", "up"]


def test_a_line_chart_can_have_a_legend_and_a_labeled_mark() -> None:
    lines = [Line(name, np.arange(3), np.arange(3) / 2) for name in ("first", "second")]

    chart = line_chart("title", "description", AXES, lines, mark=(1.0, "chosen"))

    assert "chosen" in texts(chart)
    assert [(entry.name, entry.style) for entry in chart.legend] == [("first", "line c1"), ("second", "line c2")]
    assert re.findall(r"</svg>(\w+)</li>", render(chart)) == ["first", "second"]


def test_bars_start_at_zero_and_show_confidence_intervals() -> None:
    chart = bar_chart("title", "description", "loss", [Bar("a", 0.5, 0.25, 0.75), Bar("b", -0.5)])

    first, second = [shape for shape in chart.shapes if isinstance(shape, ChartBar)]
    assert first.width == pytest.approx(second.width)
    assert second.x + second.width == pytest.approx(first.x)
    assert len(paths(chart, "interval")) == 1


def test_the_full_text_of_a_truncated_label_is_kept() -> None:
    chart = bar_chart("title", "description", "loss", [Bar("residential_assets_value", 1.0)])

    (label,) = [shape for shape in chart.shapes if isinstance(shape, ChartText) and shape.full_text]
    assert (label.text, label.full_text) == ("residential_asse…", "residential_assets_value")
    assert truncate("short", 5) == "short"


@pytest.mark.parametrize(
    "chart",
    [
        line_chart(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), [Line(HOSTILE, np.arange(3), np.arange(3))] * 2),
        line_chart(HOSTILE, HOSTILE, AXES, [Line("a", np.arange(9), np.arange(9))], mark=(4.0, HOSTILE)),
        bar_chart(HOSTILE, HOSTILE, HOSTILE, [Bar(HOSTILE, 1.0)]),
        scatter_chart(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), np.arange(3), np.arange(3), diagonal=True),
        histogram(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), np.arange(3)),
        bar_chart(HOSTILE, HOSTILE, HOSTILE, []),
    ],
)
def test_all_text_in_a_chart_is_escaped(chart: Chart) -> None:
    html = render(chart)

    assert "<script" not in html
    assert "alert" in "".join(ET.fromstring(html).itertext())


@pytest.mark.parametrize(
    "values",
    [
        np.array([]),
        np.array([np.nan, np.inf]),
        np.array([3.0]),
        np.full(5, 7.0),
        np.array([-1e38, 1e38]),
        np.zeros(4),
    ],
    ids=["empty", "not finite", "single", "constant", "huge", "zeros"],
)
def test_a_chart_draws_unusual_values_or_reports_that_there_is_no_data(values: Any) -> None:
    charts = [
        line_chart("title", "description", AXES, [Line("a", values, values)], diagonal=True),
        scatter_chart("title", "description", AXES, values, values, diagonal=True, zero_line=True),
        scatter_chart("title", "description", AXES, values, values, zero_line=True),
        histogram("title", "description", AXES, values),
        bar_chart("title", "description", "loss", [Bar("a", float(value)) for value in values]),
    ]

    for chart in charts:
        html = render(chart)
        ET.fromstring(html)
        assert bool(chart.shapes) == bool(np.isfinite(values).any())
        assert ("No data to draw" in html) == (not chart.shapes)
        assert not re.search(r'(d|x|y|width)="[^"]*(nan|inf)', html)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 7, [-2, 0, 2, 4, 6]),
        (0.97, 0.98, [0.97, 0.972, 0.974, 0.976, 0.978, 0.98]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 6) == expected
