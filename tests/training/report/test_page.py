"""The report: figures say what the arrays say, nothing in it is trusted, and it agrees with its bundle."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from rowcast import tables
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest
from rowcast.schema.schema import Column
from rowcast.tables import examples
from rowcast.training.options import TrainingOptions
from rowcast.training.report import charts
from rowcast.training.report import evaluation as evidence
from rowcast.training.report import page as report
from rowcast.training.report.charts import Bar, Line
from rowcast.training.report.markup import number, table
from rowcast.training.run import train

HOSTILE = '<script>alert("1")</script> & \''
AXES = ("across", "up")


def drawing(figure: str) -> ET.Element:
    """The figure, which must be well-formed."""
    found = ET.fromstring(figure).find("svg")
    assert found is not None
    return found


def texts(figure: str) -> list[str]:
    return [element.text or "" for element in drawing(figure).iter("text")]


class Reader(HTMLParser):
    """Tags, links and anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.cells: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := found.get(name))]
        self.ids += [value] if (value := found.get("id")) else []
        if tag not in ("meta", "link", "path", "rect"):
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


# Figures.


def test_a_line_goes_through_its_points() -> None:
    figure = charts.lines(
        "t", "s", AXES, [Line("one", np.array([0, 1]), np.array([0, 1]))], x_range=(0, 1), y_range=(0, 1)
    )

    path = drawing(figure).find("path[@class='line c1']")
    assert path is not None
    assert path.get("d") == "M54.0 200.0L328.0 10.0"
    assert texts(figure)[0] == "0"
    assert texts(figure)[-2:] == ["across", "up"]


def test_a_mark_and_a_legend_are_named() -> None:
    series = [Line(name, np.arange(3), np.arange(3) / 2) for name in ("first", "second")]

    figure = charts.lines("t", "s", AXES, series, mark=(1.0, "chosen"))

    assert "chosen" in texts(figure)
    assert re.findall(r"</svg>(\w+)</li>", figure) == ["first", "second"]


def test_bars_start_at_zero_and_carry_their_interval() -> None:
    svg = drawing(charts.bars("t", "s", "loss", [Bar("a", 0.5, 0.25, 0.75), Bar("b", -0.5)]))

    first, second = svg.findall("rect")
    assert first.get("width") == second.get("width")
    assert float(second.get("x", "")) + float(second.get("width", "")) == pytest.approx(float(first.get("x", "")), 0.01)
    assert len(svg.findall("path[@class='interval']")) == 1


@pytest.mark.parametrize(
    "figure",
    [
        charts.lines(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), [Line(HOSTILE, np.arange(3), np.arange(3))] * 2),
        charts.lines(HOSTILE, HOSTILE, AXES, [Line("a", np.arange(9), np.arange(9))], mark=(4.0, HOSTILE)),
        charts.bars(HOSTILE, HOSTILE, HOSTILE, [Bar(HOSTILE, 1.0)]),
        charts.points(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), np.arange(3), np.arange(3), diagonal=True),
        charts.histogram(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), np.arange(3)),
        charts.bars(HOSTILE, HOSTILE, HOSTILE, []),
    ],
)
def test_every_text_of_a_figure_is_escaped(figure: str) -> None:
    assert "<script" not in figure
    assert "alert" in "".join(ET.fromstring(figure).itertext())


NOTHING = np.array([])
GAPS = np.array([np.nan, np.inf])
ONE = np.array([3.0])
SAME = np.full(5, 7.0)
HUGE = np.array([-1e38, 1e38])


@pytest.mark.parametrize("values", [NOTHING, GAPS, ONE, SAME, HUGE, np.zeros(4)], ids=len)
def test_odd_input_is_drawn_or_said_to_be_nothing(values: Any) -> None:
    figures = [
        charts.lines("t", "s", AXES, [Line("a", values, values)], diagonal=True),
        charts.points("t", "s", AXES, values, values, diagonal=True, level=True),
        charts.points("t", "s", AXES, values, values, level=True),
        charts.histogram("t", "s", AXES, values),
        charts.bars("t", "s", "x", [Bar("a", float(value)) for value in values]),
    ]

    for figure in figures:
        ET.fromstring(figure)
        assert ("Nothing to draw" in figure) == (not np.isfinite(values).any())
        assert not re.search(r'(d|x|y|width)="[^"]*(nan|inf)', figure)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 7, [-2, 0, 2, 4, 6]),
        (0.97, 0.98, [0.97, 0.972, 0.974, 0.976, 0.978, 0.98]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high, 6) == expected


def test_numbers_are_short() -> None:
    shown = [charts.short(value) for value in (0, 0.25, -1200, 45_000, 1.5e7, 2e9, 1e-7, 1e38)]

    assert shown == ["0", "0.25", "-1,200", "45k", "15M", "2G", "1e-07", "1e+38"]
    assert [number(value) for value in (0.97561, 18.627, np.nan, 0.0)] == ["0.9756", "18.627", "–", "0"]


def test_a_table_escapes_and_names_its_rows() -> None:
    html = table(HOSTILE, ("a", "b"), [(HOSTILE, HOSTILE)], 1)

    assert "<script" not in html
    assert html.count('scope="row"') == 1
    assert html.count('class="n"') == 2


# What is drawn.

SCORE = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
TRUE = np.array([True, True, False, True, False])


def test_roc_and_precision_recall_treat_equal_scores_as_one() -> None:
    wrong, right = evidence.roc(SCORE, TRUE)
    recall, precision = evidence.precision_recall(SCORE, TRUE)

    assert wrong.tolist() == [0, 0, 0.5, 0.5, 1]
    assert right.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert recall.tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert precision.tolist() == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])


def test_the_threshold_curve_counts_what_is_predicted() -> None:
    grid, curves = evidence.by_threshold(SCORE, TRUE)
    at = {name: values[50] for name, values in curves.items()}

    assert grid[50] == 0.5
    assert at == pytest.approx({"accuracy": 3 / 5, "precision": 2 / 3, "recall": 2 / 3, "F1": 2 / 3})
    assert np.isnan(curves["precision"][100])


def test_reliability_bins_hold_every_row_once() -> None:
    bins = evidence.reliability(np.array([0.0, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))

    assert [(each.low, each.count, each.share) for each in bins] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert all(each.share_low <= each.share <= each.share_high for each in bins)


def test_a_confusion_matrix_has_truth_in_rows() -> None:
    counted = evidence.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)

    assert counted.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert [each["recall"] for each in evidence.per_class(counted)] == [0.5, 1.0, 0.0]
    assert np.isnan(evidence.per_class(counted)[2]["precision"])


def test_curves_are_thinned_with_their_ends() -> None:
    x, y = evidence.thinned(np.arange(1000.0), np.arange(1000.0) * 2)

    assert len(x) == evidence.CURVE_POINTS
    assert (x[0], x[-1], y[-1]) == (0, 999, 1998)


# Whole reports.


def trained(folder: Path, columns: dict[str, list[Any]], target: str, **options: Any) -> tuple[str, Manifest]:
    result = train(
        tables.from_memory(columns, options.pop("table", "table")),
        TrainingOptions(target=target, name="model", **{"trials": 3, **options}),
        open_graph=open_graph,
        registry=FolderRegistry(folder),
        now=datetime(2026, 11, 1, tzinfo=UTC),
        progress=[].append,
    )
    return (Path(result.path) / bundle.REPORT).read_text(), bundle.verify(Path(result.path))


def rows_of(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in read(page).cells]


def measured(manifest: Manifest, metric: str) -> tuple[float, float, float]:
    measure = manifest.holdout[metric]
    return measure.value, measure.low, measure.high


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    return trained(tmp_path_factory.mktemp("loans"), examples.loans(1500), "loan_status")


def test_a_page_needs_nothing_but_itself(loans: tuple[str, Manifest]) -> None:
    page, _ = loans
    found = read(page)

    assert "script" not in found.tags
    assert {link for link in found.links if not link.startswith("#")} == {"data:,"}
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert "url(" not in page
    assert "@import" not in page
    assert found.tags.count("figure") == page.count('role="img"') == page.count("<desc>")
    assert len(page) < 100_000


def test_the_numbers_of_a_binary_report_are_those_of_the_bundle(loans: tuple[str, Manifest]) -> None:
    page, manifest = loans
    rows = rows_of(page)
    names = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "f1": "F1"}

    for name, measure in manifest.holdout.items():
        shown = [number(value) for value in (measure.value, measure.low, measure.high)]
        assert [names.get(name, name.replace("_", " ")), *shown] in rows
    assert f"<dd>{number(manifest.decision.threshold)}<small>Approved from" in page
    assert ["rows compared", f"{manifest.parity.rows:,}"] in rows
    assert ["sha256 of the table", manifest.training.sha256] in rows
    counts = [int(count) for count in re.findall(r"<td style=[^>]*>(\d+)<", page)]
    assert sum(counts) == 300
    assert (counts[0] + counts[3]) / 300 == pytest.approx(manifest.holdout["accuracy"].value)
    assert {column.name for column in manifest.schema.columns} <= {row[0] for row in rows}
    for heading in ("ROC curve", "Calibration", "What the threshold decides", "Permutation importance"):
        assert f"<title>{heading}</title>" in page


def test_equal_trainings_give_equal_pages_but_for_the_seconds(tmp_path: Path) -> None:
    first, again = (
        re.sub(r'<td class="n">\d+\.\d</td></tr>', "", trained(tmp_path, examples.iris(), "species", trials=2)[0])
        for _ in range(2)
    )

    assert first == again


def test_the_report_is_no_part_of_the_digest(loans: tuple[str, Manifest]) -> None:
    _, manifest = loans

    assert bundle.REPORT in manifest.files
    assert bundle.REPORT not in bundle.SERVING_FILES


def test_a_multiclass_report_counts_every_class(tmp_path: Path) -> None:
    page, manifest = trained(tmp_path, examples.iris(), "species")
    rows = rows_of(page)

    classes = [row for row in rows if row[0] in manifest.decision.names() and len(row) == 5]
    assert [row[1] for row in classes] == ["10", "10", "10"]
    counts = [int(count) for count in re.findall(r"<td style=[^>]*>(\d+)<", page)]
    assert sum(counts[::4]) / 30 == pytest.approx(manifest.holdout["accuracy"].value)
    assert ["log loss", *(number(v) for v in measured(manifest, "log_loss"))] in rows
    assert "ROC curve" not in page


def test_a_regression_report_shows_residuals_dates_and_slices(tmp_path: Path) -> None:
    count = 600
    columns = {
        "when": [f"2025-{1 + index % 12:02d}-{1 + index % 28:02d}" for index in range(count)],
        "price": [None if index % 9 == 0 else index % 97 / 2 for index in range(count)],
        "noisy": ["yes" if index % 4 == 0 else "no" for index in range(count)],
        "y": [index % 97 + (index * 7919 % 31 - 15) * (3.0 if index % 4 == 0 else 0.01) for index in range(count)],
    }
    page, manifest = trained(tmp_path, columns, "y")
    rows = rows_of(page)

    assert ["RMSE", *(number(v) for v in measured(manifest, "rmse"))] in rows
    for heading in ("Predicted against actual", "Residuals", "How residuals are spread"):
        assert f"<title>{heading}</title>" in page
    slices = {(row[0], row[1]): row for row in rows if len(row) == 7}
    assert slices["noisy", "= true"][-1] == "worse"
    assert ("noisy", "= false") in slices or len(slices) == report.WEAK_SLICES
    assert "Decision threshold" not in page


def test_names_and_levels_from_a_table_are_escaped_everywhere(tmp_path: Path) -> None:
    columns = {
        HOSTILE: [HOSTILE if index % 3 else "</style><b>x" for index in range(400)],
        "x": [index % 17 for index in range(400)],
        "y": ["</td><i>yes" if index % 3 else "no" for index in range(400)],
    }

    page, _ = trained(tmp_path, columns, "y", table="</title><script>")

    found = read(page)
    assert "script" not in found.tags
    assert "i" not in found.tags
    assert page.count("</style>") == 1
    assert HOSTILE in [row[0] for row in found.cells if row]


@pytest.mark.parametrize("positives", [2, 5])
def test_a_handful_of_positives_still_makes_a_report(tmp_path: Path, positives: int) -> None:
    columns = {"x": [index / 7 for index in range(200)], "y": [int(index < positives) for index in range(200)]}

    page, _ = trained(tmp_path, columns, "y", candidates=("logistic",), holdout=0.5)

    read(page)


def test_importance_knows_which_column_matters_and_pays_less_for_large_graphs() -> None:
    from rowcast.schema.encoding import own_plan
    from rowcast.schema.prediction import Decision
    from rowcast.schema.schema import Schema
    from rowcast.training.problem import LabelledRows
    from rowcast.training.report.evaluation import Bench

    class First:
        scored = 0

        def run(self, tensors: Any) -> Any:
            (values,) = tensors.values()
            First.scored += len(values)
            p = 1 / (1 + np.exp(-values[:, 0]))
            return np.stack([1 - p, p], axis=1).astype(np.float32)

    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(500, 2)).astype(np.float32)
    schema = Schema((Column(name="used", kind="number"), Column(name="idle", kind="number")))
    target = (numbers[:, 0] + rng.normal(size=500) > 0).astype(np.int64)
    rows = LabelledRows(numbers, np.empty((500, 0), object), target, np.arange(500))
    output = First().run({"n": numbers})

    def bench(size: int) -> Bench:
        decision = Decision(task="binary", classes=(0, 1))
        return Bench(First(), size, decision, "roc_auc", schema, own_plan(schema), rows, output, 0, None)

    First.scored = 0
    (used, idle), measured = evidence.importance(bench(1000))
    cheap, First.scored = First.scored, 0
    _, fewer = evidence.importance(bench(1 << 40))

    assert (used.place.column.name, idle.place.column.name) == ("used", "idle")
    assert 0 < used.low <= used.value <= used.high
    assert idle.value == idle.low == idle.high == 0
    assert (measured, cheap) == (500, 5000)
    assert (fewer, First.scored) == (100, 200)
