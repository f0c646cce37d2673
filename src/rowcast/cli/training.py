"""`rowcast train` and `rowcast check`: print progress, findings and results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.app import models
from rowcast.app.progress import training_progress
from rowcast.cli import lifecycle, output
from rowcast.cli.streams import STREAM, input_table
from rowcast.errors import SettingsError
from rowcast.registry.lifecycle import CHALLENGER
from rowcast.registry.resolve import CHAMPION
from rowcast.settings import Settings

if TYPE_CHECKING:
    from rowcast.tables.table import Finding, Override
    from rowcast.training.result import TrainingResult

FINDING_HEADINGS = ("finding", "action", "override")


def run(settings: Settings, table: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Train a model and print the result."""
    _require_target(options)
    with input_table(table) as source, training_progress() as report:
        result = models.train(settings, source, progress=report, **options)
    if as_json:
        output.print_json(result_document(result))
    else:
        print_result(result)
        output.suggest(_next_steps(result, table, settings.home))


def without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that have a value, with lists converted into tuples."""
    values = {name: value for name, value in options.items() if value is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def check(table: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Check the table against the target; print the findings and the kind of each column."""
    with input_table(table) as source:
        result = models.check_table(source, **options)
    if as_json:
        output.print_json(msgspec.to_builtins(result) | {"findings": list(map(finding_document, result.findings))})
        return
    kinds = {result.target: "target", "": ""} | {column.name: column.kind or "dropped" for column in result.columns}
    kinds |= {column.name: "derived number" for column in result.derived}
    rows = [
        [", ".join(columns), ", ".join(dict.fromkeys(kinds[name] for name in columns)), *cells]
        for columns, *cells in finding_rows(result.findings)
    ]
    mentioned = {finding.column for finding in result.findings}
    rows += [[name, kind, "", "", ""] for name, kind in kinds.items() if name and name not in mentioned]
    task = f"{len(result.classes)} classes" if result.classes else result.task
    title = f"{result.table}: {result.rows} rows, {len(result.columns)} columns, {task}"
    output.print_table(["column", "kind", *FINDING_HEADINGS], rows, title, whole=["override"], wide=["finding"])


def _require_target(options: Mapping[str, Any]) -> None:
    if not has_target(options):
        raise SettingsError(
            "missing option: use --target to name the column to predict, or --target-file to name a file of target "
            "values"
        )


def has_target(options: Mapping[str, Any]) -> bool:
    """Return whether the options name a column to predict or a file of target values."""
    return "target" in options or "target_file" in options


def finding_rows(findings: Sequence[Finding]) -> list[tuple[list[str], str, str, str]]:
    """Return table rows with these cells: the columns, their common finding, the action and the override."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.code, finding.message, finding.action), []).append(finding)
    return [
        ([finding.column for finding in group], message, action, _flags([finding.override for finding in group]))
        for (_, message, action), group in groups.items()
    ]


def _flags(overrides: Sequence[Override | None]) -> str:
    """Join `--exclude a` and `--exclude b` into `--exclude a,b`, unless a value requires quotes or contains a comma."""
    known = [override for override in overrides if override is not None]
    if not known:
        return ""
    values = [shlex.quote(override.value) for override in known]
    if not known[0].value or any(value.startswith("'") or "," in value for value in values):
        return " ".join(dict.fromkeys(map(_flag, known)))
    return f"--{known[0].option} {','.join(values)}"


def _flag(override: Override) -> str:
    """Return the override as a user would type it in a shell."""
    value = f" {shlex.quote(override.value)}" if override.value else ""
    return f"--{override.option}{value}"


def finding_document(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON, with its override as a command-line flag."""
    document: dict[str, Any] = msgspec.to_builtins(finding)
    document.pop("override", None)
    return document if finding.override is None else document | {"flag": _flag(finding.override)}


def result_document(result: TrainingResult) -> dict[str, Any]:
    """Return the result as JSON, with the holdout metrics and their intervals in separate objects."""
    document: dict[str, Any] = msgspec.to_builtins(result)
    document["holdout"] = {name: measure.value for name, measure in result.holdout.items()}
    document["intervals"] = {name: [measure.low, measure.high] for name, measure in result.holdout.items()}
    document["findings"] = list(map(finding_document, result.findings))
    return document


def print_result(result: TrainingResult) -> None:
    """Print the result as tables and lines."""
    if result.findings:
        findings = [[", ".join(columns), *cells] for columns, *cells in finding_rows(result.findings)]
        output.print_table(["column", *FINDING_HEADINGS], findings, "Data check", whole=["override"], wide=["finding"])
    candidates = [
        [candidate.name, f"{candidate.score:.4f}", candidate.trials, f"{candidate.seconds:.1f}"]
        for candidate in result.candidates
    ]
    output.print_table(["candidate", f"cross-validated {result.metric}", "trials", "seconds"], candidates, "Candidates")
    metrics = [
        [name, f"{measure.value:.4f}", f"{measure.low:.4f} to {measure.high:.4f}"]
        for name, measure in result.holdout.items()
    ]
    output.print_table(["metric", "holdout", "95% interval"], metrics, "Holdout metrics")
    flips = output.counted(result.parity.label_flips, "label flip")
    stale = f"the search stopped because {result.stale_trials} trials in a row did not improve the score"
    output.print_lines(
        [
            *([stale] if result.stale_trials else []),
            f"time per row: {result.row_microseconds:.0f} µs, one row at a time on one core (preset {result.preset})",
            f"parity: {result.parity.rows} rows, {flips}, largest difference {result.parity.max_abs_diff:.1e}",
            f"published {result.model}@{result.version} in {result.seconds:.1f} s: {result.path}",
            *_promotion_lines(result),
            *([f"wrote the ONNX graph to {result.onnx}"] if result.onnx else []),
        ]
    )


def _next_steps(result: TrainingResult, table: Path, home: Path) -> dict[str, str]:
    """Return commands that use the new version, keyed by their purpose."""
    place = "" if home == Settings.model_fields["home"].default else f" --home {shlex.quote(str(home))}"
    is_live = result.promotion.alias == CHAMPION
    model = result.model if is_live else f"{result.model}@{result.version}"
    rows = "TABLE" if table == STREAM else shlex.quote(str(table))
    return {
        "read the report": f"rowcast report {result.model}@{result.version} --open{place}",
        "score a table": f"rowcast predict {model} {rows} --out scores.csv{place}",
        "start a server": f"rowcast serve{place}",
    }


def _promotion_lines(result: TrainingResult) -> list[str]:
    """Return lines that report the new version's alias and, for a challenger, how to promote it."""
    promotion, new = result.promotion, f"{result.model}@{result.version}"
    reason = f": {promotion.reason}" if promotion.reason else ""
    if promotion.alias is None:
        return []
    if promotion.alias != CHALLENGER:
        return [f"{lifecycle.describe_move(promotion.alias, new)}{reason}"]
    live = f"{result.model}@{promotion.champion} stays champion, and " if promotion.champion else ""
    return [f"{live}{new} is the challenger{reason}", f"to promote it: rowcast models promote {new}"]
