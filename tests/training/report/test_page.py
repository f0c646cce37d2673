"""A report is self-contained, escapes all text from the table, and shows the metrics of its bundle."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest
from rowcast.tables import examples
from rowcast.tables.read import table_from_memory
from rowcast.templates.numbers import format_number
from rowcast.training.cost import Cost
from rowcast.training.options import TrainingOptions
from rowcast.training.report.behaviour_sections import MAX_SLICES
from rowcast.training.report.metric_titles import metric_title
from rowcast.training.run import train

pytestmark = pytest.mark.usefixtures("small_models")

HOSTILE = '<script>alert("1")</script> & \''
VOID_ELEMENTS = ("meta", "link", "path", "rect")


class PageParser(HTMLParser):
    """Collects the tags, links, anchors and table rows of a page; fails if a tag is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := values.get(name))]
        self.ids += [value] if (value := values.get("id")) else []
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th", "code"):
            self.rows[-1][-1] += data.strip()


def train_report(folder: Path, columns: dict[str, list[Any]], target: str, **options: Any) -> tuple[str, Manifest]:
    result = train(
        table_from_memory(columns, options.pop("table", "table")),
        TrainingOptions(target=target, name="model", **{"trials": 2, "candidates": ("boosting",), **options}),
        open_graph=open_graph,
        registry=FolderRegistry(folder),
        now=datetime(2026, 11, 1, tzinfo=UTC),
        progress=[].append,
    )
    return (Path(result.path) / bundle.REPORT).read_text(), bundle.verify(Path(result.path))


def measure_cells(manifest: Manifest, metric: str) -> list[str]:
    measure = manifest.holdout[metric]
    return [format_number(value) for value in (measure.value, measure.low, measure.high)]


def matrix_counts(page: str) -> list[int]:
    return [int(count) for count in re.findall(r"<td style=[^>]*>(\d+)<", page)]


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    return train_report(tmp_path_factory.mktemp("loans"), examples.loans(1500), "loan_status")


def test_a_report_is_self_contained(loans: tuple[str, Manifest]) -> None:
    page, _ = loans
    parser = PageParser(page)

    assert "script" not in parser.tags
    assert {link for link in parser.links if not link.startswith("#")} == {"data:,"}
    assert {link[1:] for link in parser.links if link.startswith("#")} <= set(parser.ids)
    assert len(parser.ids) == len(set(parser.ids))
    assert "url(" not in page
    assert "@import" not in page
    assert parser.tags.count("figure") == page.count('role="img"') == page.count("<desc>")
    assert len(page) < 100_000


def test_a_binary_report_shows_the_metrics_of_the_bundle(loans: tuple[str, Manifest]) -> None:
    page, manifest = loans
    rows = PageParser(page).rows

    for name in manifest.holdout:
        assert [metric_title(name), *measure_cells(manifest, name)] in rows
    assert f"<dd>{format_number(manifest.decision.threshold)}<small>Approved is predicted" in page
    assert ["rows compared", f"{manifest.parity.rows:,}"] in rows
    assert ["SHA-256 of the table", manifest.training.sha256] in rows
    counts = matrix_counts(page)
    assert sum(counts) == 300
    assert (counts[0] + counts[3]) / 300 == pytest.approx(manifest.holdout["accuracy"].value)
    assert {column.name for column in manifest.schema.columns} <= {row[0] for row in rows}
    for heading in ("ROC curve", "Calibration", "Metrics by threshold", "Permutation importance"):
        assert f"<title>{heading}</title>" in page


def test_findings_are_shown_with_their_actions_and_overrides(loans: tuple[str, Manifest]) -> None:
    page, _ = loans
    rows = PageParser(page).rows

    heading = rows.index(["column", "finding", "action", "override"])
    positive = next(row for row in rows[heading + 1 :] if row[0] == "loan_status")
    assert positive[3] == "positive"


def test_identical_training_runs_produce_identical_reports_except_for_durations(tmp_path: Path) -> None:
    first, second = (
        re.sub(
            r'<td class="n">\d+\.\d</td></tr>|\d+ µs',
            "",
            train_report(tmp_path, examples.iris(), "species", trials=2)[0],
        )
        for _ in range(2)
    )

    assert first == second


def test_the_digest_does_not_cover_the_report(loans: tuple[str, Manifest]) -> None:
    _, manifest = loans

    assert bundle.REPORT in manifest.files
    assert bundle.REPORT not in bundle.SERVING_FILES


def test_a_report_shows_the_cost_of_each_threshold(tmp_path: Path) -> None:
    page, manifest = train_report(
        tmp_path,
        examples.loans(1500),
        "loan_status",
        trials=1,
        candidates=("logistic",),
        cost=Cost(false_positive=5.0, false_negative=1.0),
    )
    rows = PageParser(page).rows

    heading = rows.index(["threshold", "at", "false positives", "false negatives", "cost", "per row"])
    for name, _, *cells in rows[heading + 1 : heading + 4]:
        false_positives, false_negatives, total, per_row = (float(cell.replace(",", "")) for cell in cells)
        assert name in ("chosen", "one half", "best in hindsight")
        assert total == pytest.approx(5 * false_positives + false_negatives, rel=1e-3)
        assert per_row == pytest.approx(total / 300, abs=1e-4)
    assert rows[heading + 1][:2] == ["chosen", format_number(manifest.decision.threshold)]
    assert "<title>Cost</title>" in page


def test_a_multiclass_report_shows_the_number_of_rows_in_every_class(tmp_path: Path) -> None:
    page, manifest = train_report(tmp_path, examples.iris(), "species")
    rows = PageParser(page).rows

    classes = [row for row in rows if row[0] in manifest.decision.names() and len(row) == 5]
    assert [row[1] for row in classes] == ["10", "10", "10"]
    assert sum(matrix_counts(page)[::4]) / 30 == pytest.approx(manifest.holdout["accuracy"].value)
    assert ["log loss", *measure_cells(manifest, "log_loss")] in rows
    assert "ROC curve" not in page
    assert 'id="threshold"' not in page


def test_a_regression_report_shows_residuals_and_slices(tmp_path: Path) -> None:
    count = 600
    columns = {
        "when": [f"2025-{1 + index % 12:02d}-{1 + index % 28:02d}" for index in range(count)],
        "price": [None if index % 9 == 0 else index % 97 / 2 for index in range(count)],
        "noisy": ["yes" if index % 4 == 0 else "no" for index in range(count)],
        "y": [index % 97 + (index * 7919 % 31 - 15) * (3.0 if index % 4 == 0 else 0.01) for index in range(count)],
    }
    page, manifest = train_report(tmp_path, columns, "y")
    rows = PageParser(page).rows

    assert ["RMSE", *measure_cells(manifest, "rmse")] in rows
    for heading in ("Predicted against actual", "Residuals", "Distribution of residuals"):
        assert f"<title>{heading}</title>" in page
    slices = {(row[0], row[1]): row for row in rows if len(row) == 7}
    assert slices["noisy", "= true"][-1] == "worse"
    assert ("noisy", "= false") in slices or len(slices) == MAX_SLICES + 1  # including the heading
    assert "Decision threshold" not in page


def test_names_and_values_from_the_table_are_escaped(tmp_path: Path) -> None:
    columns = {
        HOSTILE: [HOSTILE if index % 3 else "</style><b>x" for index in range(400)],
        "x": [index % 17 for index in range(400)],
        "y": ["</td><i>yes" if index % 3 else "no" for index in range(400)],
    }

    page, _ = train_report(tmp_path, columns, "y", table="</title><script>")

    parser = PageParser(page)
    assert "script" not in parser.tags
    assert "i" not in parser.tags
    assert page.count("</style>") == 1
    assert HOSTILE in [row[0] for row in parser.rows if row]


@pytest.mark.parametrize("positives", [2, 5])
def test_a_report_can_be_created_if_only_a_few_rows_are_positive(tmp_path: Path, positives: int) -> None:
    columns = {"x": [index / 7 for index in range(200)], "y": [int(index < positives) for index in range(200)]}

    page, _ = train_report(tmp_path, columns, "y", candidates=("logistic",), holdout=0.5)

    PageParser(page)
