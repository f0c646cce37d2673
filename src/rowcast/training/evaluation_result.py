"""The result of evaluating a model on a table, as `rowcast evaluate --json` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from rowcast.registry.bundle import Measure
from rowcast.schema.prediction import Label, Task, label_text
from rowcast.templates import render

Verdict = Literal["better", "within the interval", "worse"]


class HoldoutComparison(msgspec.Struct, frozen=True):
    """A metric on the holdout of the training run, compared with the same metric on the evaluated table."""

    holdout: float
    difference: Measure
    """The value on the table minus the value on the holdout."""
    verdict: Verdict
    """`within the interval` if the 95% interval of the difference contains 0."""


class ConfusionCounts(msgspec.Struct, frozen=True):
    """The number of rows for each true label (outer list) and each predicted label (inner list)."""

    labels: Sequence[Label]
    counts: Sequence[Sequence[int]]


class ScoreBin(msgspec.Struct, frozen=True):
    """The rows whose probability lies in [low, high), and the share of them for which the event occurred.

    The probability is that of the positive class or, with more than two classes, that of the predicted label.
    """

    low: float
    high: float
    rows: int
    probability: float
    """The mean probability."""
    share: float
    share_low: float
    share_high: float


class KnownRows(msgspec.Struct, frozen=True):
    """How many of the examined rows the model was trained on."""

    examined: int
    trained_on: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The quality of a published model on a table with known labels or values."""

    model: str
    version: int | None
    """None if the model was given as a folder or an archive."""
    digest: str
    table: str
    target: str
    task: Task
    positive: Label | None
    """The positive class; None unless the task is binary."""
    threshold: float | None
    """The lowest score for which the positive class is predicted; None unless the task is binary."""
    rows: int
    """The number of rows that were measured."""
    unlabeled: int
    """The number of rows without a target value. They were not scored."""
    weightless: int
    """The number of rows with a weight of 0. They were not scored."""
    rejected: int
    """The number of rows that could not be scored."""
    excluded: int
    """The number of lines that are not rows: a second header line, and lines without values."""
    weight: str | None
    group: str | None
    metrics: dict[str, Measure]
    holdout: dict[str, HoldoutComparison]
    """The comparison with the holdout of the training run; empty for imported models."""
    confusion: ConfusionCounts | None
    calibration: Sequence[ScoreBin]
    """Empty for regression and for models without probabilities."""
    known_rows: KnownRows | None
    """None if the bundle does not record its training rows."""
    seconds: float
    rejects: str | None = None
    """The path of the file with the rows that were not evaluated."""
    report: str | None = None
    """The path of the HTML report."""

    @property
    def reference(self) -> str:
        """The name and the version of the model."""
        return self.model if self.version is None else f"{self.model}@{self.version}"

    def remarks(self) -> list[str]:
        """Return remarks about the rows, as sentences without a final period."""
        of = f"of the {self.rows + self.unlabeled + self.weightless + self.rejected} rows"
        remarks = []
        if self.unlabeled:
            remarks.append(f"{self.unlabeled} {of} have no value in the column {self.target!r} and were not evaluated")
        if self.weightless:
            remarks.append(f"{self.weightless} {of} have a weight of 0 and were not evaluated")
        if self.rejected:
            remarks.append(f"{self.rejected} {of} cannot be scored and were not evaluated")
        if self.excluded:
            lines = "line was" if self.excluded == 1 else "lines were"
            remarks.append(f"{self.excluded} {lines} excluded (second header or no values)")
        known = self.known_rows
        if known is not None and known.trained_on:
            among = "measured rows" if known.examined == self.rows else "examined rows"
            remarks.append(
                f"the model was trained on {known.trained_on} of the {known.examined} {among}, so the metrics are too "
                "optimistic; use rows that are new to the model"
            )
        return remarks

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {measure.value:.4f}" for name, measure in list(self.metrics.items())[:2])
        return f"<Evaluation of {self.reference} on {self.rows} rows: {facts}>"

    def _repr_html_(self) -> str:
        title = f"{self.reference} on {self.table}"
        return render("rowcast", "summary.html", title=title, facts=self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Return the metrics and the numbers of rows as text, for display."""
        return [
            *(
                (name, f"{measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f}){self._verdict(name)}")
                for name, measure in self.metrics.items()
            ),
            ("rows", str(self.rows)),
            *([("positive class", label_text(self.positive))] if self.positive is not None else []),
            *(("remark", remark) for remark in self.remarks()),
        ]

    def _verdict(self, name: str) -> str:
        comparison = self.holdout.get(name)
        if comparison is None:
            return ""
        return f"; holdout {comparison.holdout:.4f}, {comparison.verdict}"
