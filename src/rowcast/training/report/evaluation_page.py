"""The HTML report of `rowcast evaluate`: how well a published model performs on a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rowcast.registry.bundle import Measure
from rowcast.schema.prediction import label_text
from rowcast.templates import render
from rowcast.templates.numbers import format_number
from rowcast.training.evaluation_result import Evaluation, HoldoutComparison
from rowcast.training.report.behaviour_sections import slices_section
from rowcast.training.report.evaluation import error_by_slice
from rowcast.training.report.measured_rows import MeasuredRows
from rowcast.training.report.metric_titles import metric_title
from rowcast.training.report.page import Fact, ReportPage, Section, format_interval
from rowcast.training.report.quality_section import QualitySection, class_table, quality_section
from rowcast.training.report.threshold_section import ThresholdSection, threshold_section
from rowcast.version import VERSION


@dataclass(frozen=True)
class ComparedMetric:
    """A metric on the table and on the holdout."""

    title: str
    measure: Measure
    comparison: HoldoutComparison


@dataclass(frozen=True)
class ComparisonSection:
    """The metrics on the table beside those on the holdout of the training run."""

    metrics: tuple[ComparedMetric, ...]


@dataclass(frozen=True)
class RowsSection:
    """Which rows were measured."""

    rows: int
    sample_rows: int
    """The number of rows that are searched for weak slices."""
    remarks: tuple[str, ...]


def render_evaluation(
    result: Evaluation, model: MeasuredRows, sample: MeasuredRows, *, created: str, has_probabilities: bool
) -> str:
    """Render the report. `sample` is searched for weak slices, and therefore also contains the rows' cell values."""
    weight = result.weight or ""
    is_regression = result.task == "regression"
    if has_probabilities or is_regression:
        quality = quality_section(result.metrics, model, weight)
        threshold: ThresholdSection | None = threshold_section(model)
    else:
        quality, threshold = class_table(result.metrics, model, weight), None
    sections = [
        Section("rows", "Rows", RowsSection(result.rows, len(sample.rows), tuple(result.remarks()))),
        Section("measured", "Quality on this table", quality),
        Section("comparison", "Comparison with the holdout", _comparison(result)),
        Section("thresholds", "Threshold and cost", threshold),
        Section("slices", "Where the model is weak", slices_section(sample, error_by_slice(sample))),
    ]
    page = ReportPage(
        model=result.reference,
        created=created,
        table=result.table,
        version=VERSION,
        facts=tuple(_facts(result, quality)),
        sections=tuple(section for section in sections if section.content is not None),
    )
    return render(__package__, "evaluation.html", page=page)


def _comparison(result: Evaluation) -> ComparisonSection | None:
    compared = [
        ComparedMetric(metric_title(name), result.metrics[name], comparison)
        for name, comparison in result.holdout.items()
    ]
    return ComparisonSection(tuple(compared)) if compared else None


def _facts(result: Evaluation, quality: QualitySection) -> Sequence[Fact]:
    facts = [Fact("Predicts", result.target, result.task), Fact("Measured on", f"{result.rows:,} rows", result.table)]
    for each in quality.measures[:3]:
        title = f"{each.title[0].upper()}{each.title[1:]}"
        facts.append(Fact(title, format_number(each.measure.value), format_interval(each.measure)))
    if result.positive is not None and result.threshold is not None:
        note = f"{label_text(result.positive)} is predicted at or above this probability"
        facts.append(Fact("Decision threshold", format_number(result.threshold), note))
    return facts
