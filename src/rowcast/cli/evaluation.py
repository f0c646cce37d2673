"""`rowcast evaluate`: measure a model on a table, and print the metrics beside those on the holdout."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rowcast.app import evaluation
from rowcast.app.evaluation import EvaluationOptions
from rowcast.cli import output
from rowcast.cli.scoring import rejects_hint, scoring_progress
from rowcast.cli.streams import STREAM, input_table
from rowcast.schema.prediction import label_text
from rowcast.settings import Settings

if TYPE_CHECKING:
    from rowcast.training.evaluation_result import Evaluation

MAX_MATRIX_CLASSES: Final = 12
"""The maximum number of classes in a printed confusion matrix. The report shows larger ones."""


def run(settings: Settings, model: str, table: Path, options: EvaluationOptions, *, as_json: bool) -> None:
    """Evaluate the model and print the result."""
    hint = "to measure the valid rows, add --rejects FILE, which writes the others to a file"
    with input_table(table) as source, scoring_progress() as report, rejects_hint(hint):
        result = evaluation.evaluate(settings, model, source, replace(options, progress=report))
    if as_json:
        output.print_json(result)
        return
    print_result(result)
    output.suggest(next_steps(result, model, table, settings.home))


def print_result(result: Evaluation) -> None:
    """Print the metrics, the confusion matrix, the calibration and the remarks."""
    _print_metrics(result)
    if result.confusion is not None and len(result.confusion.labels) <= MAX_MATRIX_CLASSES:
        names = [label_text(label) for label in result.confusion.labels]
        at = "" if result.threshold is None else f" at the threshold {result.threshold:.4f}"
        rows = [[name, *counts] for name, counts in zip(names, result.confusion.counts, strict=True)]
        output.print_table(["true label", *(f"predicted {name}" for name in names)], rows, f"Confusion matrix{at}")
    if result.calibration:
        event = "correct" if result.positive is None else f"share of {label_text(result.positive)}"
        bins = [
            [f"{each.low:.1f} to {each.high:.1f}", each.rows, f"{each.probability:.4f}", f"{each.share:.4f}"]
            for each in result.calibration
        ]
        output.print_table(["probability", "rows", "mean probability", event], bins, "Calibration")
    weighted = "" if result.weight is None else f", weighted by {result.weight}"
    rows_text = output.counted(result.rows, "row")
    output.print_lines([f"measured {result.reference} on {rows_text} of {result.table}{weighted}", *result.remarks()])
    for kind, path in (("rows that were not evaluated", result.rejects), ("report", result.report)):
        if path is not None:
            output.say(f"wrote the {kind} to {path}")


def _print_metrics(result: Evaluation) -> None:
    headings = ["metric", "value", "95% interval"]
    rows = [
        [name, f"{measure.value:.4f}", _interval(measure.low, measure.high)] for name, measure in result.metrics.items()
    ]
    if result.holdout:
        headings += ["holdout", "difference", "95% interval of the difference", "verdict"]
        for row in rows:
            row += _comparison(result, row[0])
    output.print_table(headings, rows, f"Metrics on {result.table}")


def _comparison(result: Evaluation, metric: str) -> Sequence[str]:
    each = result.holdout.get(metric)
    if each is None:
        return ["", "", "", ""]
    difference = each.difference
    return [
        f"{each.holdout:.4f}",
        f"{difference.value:+.4f}",
        _interval(difference.low, difference.high),
        each.verdict,
    ]


def _interval(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"


def next_steps(result: Evaluation, model: str, table: Path, home: Path) -> dict[str, str]:
    """Return commands for understanding the result or improving the model, keyed by their purpose."""
    place = "" if home == Settings.model_fields["home"].default else f" --home {shlex.quote(str(home))}"
    rows = "TABLE" if table == STREAM else shlex.quote(str(table))
    reference, target = shlex.quote(model), shlex.quote(result.target)
    return {
        "see weak slices and charts": f"rowcast evaluate {reference} {rows} --report evaluation.html{place}",
        "check the table for problems": f"rowcast check {rows} --target {target}",
        "train a challenger on the table": f"rowcast train {rows} --target {target} --name {result.model}{place}",
    }
