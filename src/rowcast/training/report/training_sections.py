"""The sections on training: the data check, the search, the parity certificate, the columns and the provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from rowcast.registry.bundle import Manifest, Parity
from rowcast.schema.derived import DerivedColumn
from rowcast.schema.schema import Column, Schema
from rowcast.tables.table import Finding
from rowcast.templates.numbers import format_number
from rowcast.training import certificate, metrics
from rowcast.training.events import TrainingEvent
from rowcast.training.report.charts import Chart, Line, line_chart, truncate
from rowcast.training.report.metric_titles import metric_title
from rowcast.training.result import CandidateScore

SHOWN_LEVELS: Final = 8
DOTTED_TRIALS: Final = 40
"""If there are fewer trials than this, the chart shows each trial as a dot."""


@dataclass(frozen=True)
class DataCheckSection:
    """The findings of the data check, most severe first."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class SearchSection:
    """The best score of each candidate, and a chart of the best score after each trial."""

    metric: str
    candidates: tuple[CandidateScore, ...]
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class ParitySection:
    """The parity certificate of the served graph."""

    parity: Parity
    tolerance: str
    has_labels: bool


@dataclass(frozen=True)
class ColumnRow:
    """An input column of the model."""

    name: str
    kind: str
    may_be_missing: bool
    values: str
    """The values seen in training."""
    unit: str


@dataclass(frozen=True)
class ColumnsSection:
    """The schema of the model."""

    columns: tuple[ColumnRow, ...]
    derived: tuple[DerivedColumn, ...]
    """The columns that the model computes."""


@dataclass(frozen=True)
class ProvenanceSection:
    """The data, versions, settings and options needed to repeat the training, as name-value pairs."""

    candidate: str
    origin: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]


def search_section(
    manifest: Manifest, candidates: Sequence[CandidateScore], trials: Sequence[TrainingEvent]
) -> SearchSection:
    """Return the candidates and, if at least two trials were scored, a chart of the best score so far."""
    metric = metric_title(manifest.metric)
    scored = [(event.trial, event.best) for event in trials if event.best is not None]
    if len(scored) < 2:
        return SearchSection(metric, tuple(candidates), ())
    numbers, best = (np.array(values, np.float64) for values in zip(*scored, strict=True))
    direction = "higher" if manifest.metric in metrics.GREATER else "lower"
    first, last = format_number(float(best[0])), format_number(float(best[-1]))
    chart = line_chart(
        "Best score so far",
        f"The best score was {first} after the first trial and {last} after {scored[-1][0]} trials; {direction} is "
        "better.",
        ("trial", metric),
        [Line(metric, numbers, best, dots=len(numbers) < DOTTED_TRIALS)],
    )
    return SearchSection(metric, tuple(candidates), (chart,))


def parity_section(manifest: Manifest) -> ParitySection:
    """Return the certificate with the tolerance that applies to the task."""
    has_labels = manifest.decision.task != "regression"
    tolerance = f"{certificate.TOLERANCE:.0e}" + (
        "" if has_labels else " × (|value| + standard deviation of the target)"
    )
    return ParitySection(manifest.parity, tolerance, has_labels)


def columns_section(schema: Schema) -> ColumnsSection:
    """Return every column of the schema with the values seen in training."""
    return ColumnsSection(
        tuple(
            ColumnRow(column.name, column.kind, column.missing, describe_values(column), column.unit)
            for column in schema.columns
        ),
        schema.derived,
    )


def describe_values(column: Column) -> str:
    """Summarize the values that a column had in training."""
    if column.sensitive:
        return "not shown, because the column is sensitive"
    if column.levels:
        shown = ", ".join(truncate(level, 60) for level in column.levels[:SHOWN_LEVELS])
        more = len(column.levels) - SHOWN_LEVELS
        return f"{shown} and {more} more" if more > 0 else shown
    if column.low is not None and column.high is not None:
        return f"{column.low:.15g} to {column.high:.15g}"
    return (", ".join(column.words) or "true, false") if column.kind == "boolean" else ""


def provenance_section(manifest: Manifest) -> ProvenanceSection:
    """Return the table, the versions, the settings and the options of a training run."""
    training = manifest.training
    origin = [
        ("table", training.table),
        ("SHA-256 of the table", training.sha256),
        ("rows with a target", f"{training.rows:,}"),
        ("seed", str(training.seed)),
        ("created", manifest.created),
        *[(f"{package} version", version) for package, version in manifest.versions.items()],
    ]
    calibration = {f"calibration: {name}": value for name, value in training.calibration.items()}
    options = {name: value for name, value in training.options.items() if value is not None}
    return ProvenanceSection(
        candidate=training.candidate,
        origin=tuple(origin),
        settings=_format_pairs({**training.params, **calibration}),
        options=_format_pairs(options),
    )


def _format_pairs(pairs: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _format_setting(value)) for name, value in pairs.items())


def _format_setting(value: Any) -> str:
    if isinstance(value, str):
        return value
    return format_number(value) if isinstance(value, float) else msgspec.json.encode(value).decode()
