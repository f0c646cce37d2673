"""What a bundle carries beside its graph: golden rows, a reference sample of the training data, and the model card."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from rowcast.registry.bundle import GoldenRow, Manifest
from rowcast.registry.ports import Graph
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.prediction import Decision, label_text
from rowcast.schema.schema import Schema
from rowcast.schema.scores import score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.tables import Finding
from rowcast.training.problem import LearningProblem, client_value

GOLDEN_ROWS: Final = 32
REFERENCE_ROWS: Final = 10_000
UNSEEN: Final = "never seen in training"


def golden(problem: LearningProblem, graph: Graph, decision: Decision, seed: int) -> list[GoldenRow]:
    """Rows as a client would send them, some with gaps or unseen texts, and what the served graph says of them."""
    rows = _golden_rows(problem, seed)
    encoder = RowEncoder(problem.schema, problem.plan)
    encoded = [encoder.read(msgspec.json.encode(row)) for row in rows]
    outcomes = score_rows(decision, graph.run(stack_rows(encoder.plan, encoded)))
    return [GoldenRow(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]


def _golden_rows(problem: LearningProblem, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, 4])
    columns = problem.schema.columns
    count = len(problem.training)
    places = problem.training.places[rng.permutation(count)[: GOLDEN_ROWS - 2]]
    sampled = problem.frame[places.tolist()].to_dicts()
    rows = [{column.name: client_value(column, cells[column.name]) for column in columns} for cells in sampled]
    gaps = {column.name: None for column in columns if column.missing}
    strange = {column.name: UNSEEN for column in columns if column.kind == "category" and not column.closed}
    return [*rows, *[{**rows[0], **odd} for odd in (gaps, strange) if odd]]


def reference(problem: LearningProblem, seed: int) -> bytes:
    """A sample of the training rows, the model's columns and the target, as Parquet: what drift is measured against."""
    places = problem.training.places
    if len(places) > REFERENCE_ROWS:
        chosen = np.random.default_rng([seed, 5]).choice(places, REFERENCE_ROWS, replace=False)
        places = np.sort(chosen)
    names = [*problem.schema.names(), problem.target]
    file = io.BytesIO()
    problem.frame.select(names)[places.tolist()].write_parquet(file, compression="zstd")
    return file.getvalue()


def card(manifest: Manifest, findings: Sequence[Finding]) -> str:
    """The model card: plain facts, each of them also in `bundle.json`."""
    training, decision = manifest.training, manifest.decision
    lines = [
        f"# {manifest.name}",
        "",
        f"Predicts `{training.target}` ({decision.task}) from {len(manifest.schema.columns)} columns.",
        f"Made {manifest.created} with {', '.join(' '.join(pair) for pair in manifest.versions.items())}.",
        "",
        "## Data",
        f"- Table: {training.table}, {training.rows} rows with a target, sha256 `{training.sha256}`",
        f"- Kept aside for measuring: {training.options.get('holdout', 0):.0%} of the rows, never used to choose",
        *_split_lines(training.options),
        "",
        "## Model",
        f"- Kind: {training.candidate}, chosen by cross-validated {manifest.metric} = {manifest.score:.4f}",
        *_settings_lines(training.params),
        f"- Calibration: {training.calibration['method']}",
        *_decision_lines(decision, training.options.get("cost")),
        "",
        "## On the rows kept aside (95 % interval)",
        "| metric | value | from | to |",
        "|---|---|---|---|",
        *[f"| {name} | {m.value:.4f} | {m.low:.4f} | {m.high:.4f} |" for name, m in manifest.holdout.items()],
        "",
        "## Parity of the served graph with the trained model",
        f"- Rows compared: {manifest.parity.rows}",
        f"- Largest difference: {manifest.parity.max_abs_diff:.2g}",
        f"- Labels that differ: {manifest.parity.label_flips}",
        "",
        "## Columns",
        "| column | kind | missing allowed | seen in training |",
        "|---|---|---|---|",
        *_column_lines(manifest.schema),
        "",
        "## Data check",
        *[f"- {_finding_line(finding)}" for finding in findings],
    ]
    return "\n".join(lines) + "\n"


def _split_lines(options: dict[str, Any]) -> list[str]:
    """What decided beside chance which rows are learnt from, and how much each counts."""
    lines = []
    if options.get("refit"):
        lines.append("- Served: the same model trained on all rows, once the figures below were known without them")
    if options.get("time"):
        lines.append(
            f"- Split by time: the rows kept aside, and those that judge each fold, are later by {options['time']}"
        )
    if options.get("group"):
        lines.append(f"- Split by group: rows of equal {options['group']} are never on both sides")
    if options.get("weight"):
        lines.append(f"- Weighted: all figures below count each row by its {options['weight']}")
    if options.get("class_weight", "none") != "none":
        lines.append("- Classes count the same in fits; probabilities are brought back to the real shares")
    return lines


def _settings_lines(params: dict[str, Any]) -> list[str]:
    """The settings, or those of each member of an ensemble."""
    if "members" not in params:
        return [f"- Settings: {_settings(params)}"]
    return [
        f"- Member {each['candidate']}, weight {_shown(each['weight'])}: {_settings(each['params'])}"
        for each in params["members"]
    ]


def _settings(params: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {_shown(value)}" for key, value in params.items())


def _decision_lines(decision: Decision, cost: dict[str, float] | None) -> list[str]:
    if decision.task == "regression":
        return []
    lines = [f"- Classes: {', '.join(decision.names())}"]
    if decision.task == "binary":
        positive = label_text(decision.classes[decision.positive])
        lines.append(f"- `{positive}` is predicted from a probability of {decision.threshold:.6g}")
    if cost is not None:
        prices = " and ".join(f"a {name.replace('_', ' ')} costs {price:g}" for name, price in cost.items())
        lines.append(f"- The threshold costs least by cross-validation when {prices}")
    return lines


def _column_lines(schema: Schema) -> list[str]:
    lines = []
    for column in schema.columns:
        seen = ""
        if column.levels:
            more = f" and {len(column.levels) - 8} more" if len(column.levels) > 8 else ""
            seen = ", ".join(column.levels[:8]) + more
        elif column.low is not None and column.high is not None:
            seen = f"{column.low:.15g} to {column.high:.15g}"
        elif column.kind == "boolean":
            seen = ", ".join(column.words) or "true, false"
        lines.append(f"| {_cell(column.name)} | {column.kind} | {'yes' if column.missing else 'no'} | {_cell(seen)} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _finding_line(finding: Finding) -> str:
    where = f"`{finding.column}` " if finding.column else ""
    return f"{where}{finding.message}: {finding.action}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
