"""`report.html` shows how a model was trained and how well it performs. The page is self-contained and has no scripts.

Each section has a typed context and its own template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rowcast.registry.bundle import Manifest, Measure
from rowcast.schema.prediction import label_text
from rowcast.tables.table import Finding
from rowcast.templates import render
from rowcast.templates.numbers import format_number
from rowcast.training.events import TrainingEvent
from rowcast.training.report import behaviour_sections, threshold_section, training_sections
from rowcast.training.report.evaluation import EvaluatedModel, error_by_slice, permutation_importance
from rowcast.training.report.metric_titles import metric_title
from rowcast.training.report.quality_section import QualitySection, quality_section
from rowcast.training.result import CandidateScore


@dataclass(frozen=True)
class Fact:
    """A key figure at the top of the page."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """A section of the page. `content` is the context of its template; if `content` is None, the section is omitted."""

    anchor: str
    heading: str
    content: object

    @property
    def template(self) -> str:
        """The path of the section's template."""
        return f"sections/{self.anchor}.html"


@dataclass(frozen=True)
class ReportPage:
    """The context of `report.html`."""

    model: str
    created: str
    table: str
    version: str
    """The version of Rowcast that trained the model."""
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]


def render_report(
    manifest: Manifest,
    model: EvaluatedModel,
    *,
    findings: Sequence[Finding],
    candidates: Sequence[CandidateScore],
    trials: Sequence[TrainingEvent],
) -> str:
    """Render the report. The same arguments always produce the same page."""
    importance = permutation_importance(model)
    sections = [
        Section("data", "Data check", training_sections.DataCheckSection(tuple(findings))),
        Section("search", "Candidates and trials", training_sections.search_section(manifest, candidates, trials)),
        Section("quality", "Quality on the holdout", _quality(manifest, model)),
        Section("threshold", "Threshold and cost", threshold_section.threshold_section(model)),
        Section(
            "importance",
            "Which columns matter",
            behaviour_sections.importance_section(model, importance),
        ),
        Section(
            "dependence",
            "How predictions depend on a column",
            behaviour_sections.dependence_section(model, importance.columns),
        ),
        Section("slices", "Where the model is weak", behaviour_sections.slices_section(model, error_by_slice(model))),
        Section("parity", "Parity certificate", training_sections.parity_section(manifest)),
        Section("columns", "Columns", training_sections.columns_section(manifest.schema)),
        Section("training", "Training", training_sections.provenance_section(manifest)),
    ]
    page = ReportPage(
        model=manifest.name,
        created=manifest.created,
        table=manifest.training.table,
        version=manifest.versions.get("rowcast", ""),
        facts=(*_facts(manifest), Fact("Time per row", f"{model.row_microseconds:.0f} µs", _cost_note(manifest))),
        sections=tuple(section for section in sections if section.content is not None),
    )
    return render(__package__, "report.html", page=page)


def _quality(manifest: Manifest, model: EvaluatedModel) -> QualitySection:
    return quality_section(manifest.holdout, model, manifest.training.options.get("weight") or "")


def _facts(manifest: Manifest) -> list[Fact]:
    training, decision = manifest.training, manifest.decision
    predicted = "a number" if decision.task == "regression" else f"one of {len(decision.classes)} classes"
    facts = [
        Fact("Predicts", training.target, predicted),
        Fact(
            "From", f"{training.rows:,} rows, {len(manifest.schema.columns)} columns", _holdout_note(training.options)
        ),
    ]
    for metric in dict.fromkeys([manifest.metric, "accuracy", "r2"]):
        measure = manifest.holdout.get(metric)
        if measure is not None:
            title = metric_title(metric)
            name = f"{title[0].upper()}{title[1:]} on the holdout"
            facts.append(Fact(name, format_number(measure.value), format_interval(measure)))
    facts.append(Fact("Model", training.candidate, f"calibration: {training.calibration.get('method', 'none')}"))
    if decision.task == "binary":
        positive = label_text(decision.classes[decision.positive])
        note = f"{positive} is predicted at or above this probability"
        facts.append(Fact("Decision threshold", format_number(decision.threshold), note))
    return facts


def _cost_note(manifest: Manifest) -> str:
    return f"one row at a time on one core; preset: {manifest.training.options.get('preset', 'fast')}"


def _holdout_note(options: dict[str, Any]) -> str:
    share = options.get("holdout")
    if not isinstance(share, float):
        return ""
    if options.get("refit"):
        return f"holdout: {share:.0%} of the rows; after evaluation, the model was refitted on all rows"
    return f"holdout: {share:.0%} of the rows"


def format_interval(measure: Measure) -> str:
    """Return the 95% interval of a metric for display."""
    return f"95% interval {format_number(measure.low)} to {format_number(measure.high)}"
