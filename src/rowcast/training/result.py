"""Results of training runs and data checks, as the CLI prints them with `--json`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowcast.registry.bundle import Measure, Parity
from rowcast.schema.prediction import Label, Task
from rowcast.tables.table import Finding
from rowcast.templates import render
from rowcast.training.presets import PresetName


class CandidateScore(msgspec.Struct, frozen=True, omit_defaults=True):
    """The best cross-validated score of a candidate, or the score of the ensemble if one was chosen."""

    name: str
    score: float
    trials: int
    seconds: float
    members: dict[str, float] = {}
    """The weight of each candidate in an ensemble; empty for a single candidate."""


class Comparison(msgspec.Struct, frozen=True):
    """A comparison of the new version with the champion, on rows on which neither version was trained."""

    metric: str
    rows: int
    difference: Measure
    """The difference in the metric; positive if the new version is better."""

    def text(self) -> str:
        """Return the difference for display."""
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        if value == low == high == 0:
            return f"{self.metric} is the same"
        if value < 0:
            return f"{self.metric} is worse by {-value:.4f} (95% interval {-high:.4f} to {-low:.4f})"
        return f"{self.metric} is better by {value:.4f} (95% interval {low:.4f} to {high:.4f})"


class Promotion(msgspec.Struct, frozen=True):
    """The alias of a new version, and the reason for this alias."""

    alias: str | None
    champion: int | None
    """The champion before the new version was published, or None if there was none."""
    reason: str = ""
    comparison: Comparison | None = None


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A published model and its measurements. `score` is the chosen model's cross-validated value of `metric`."""

    model: str
    version: int
    path: str
    digest: str
    task: Task
    metric: str
    score: float
    preset: PresetName
    row_microseconds: float
    """The measured time that the graph takes to score a single row on one core."""
    holdout: dict[str, Measure]
    parity: Parity
    candidates: Sequence[CandidateScore]
    findings: Sequence[Finding]
    seconds: float
    promotion: Promotion
    stale_trials: int = 0
    """The number of consecutive trials without an improvement, if they stopped the search."""
    onnx: str | None = None
    """The path of the exported ONNX file, if an export was requested."""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._facts()[:2])
        return f"<TrainingResult {self.model}@{self.version}: {facts}>"

    def _repr_html_(self) -> str:
        return render("rowcast", "summary.html", title=f"{self.model}@{self.version}", facts=self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Return the most important facts as text, for display."""
        return [
            (f"cross-validated {self.metric}", f"{self.score:.4f}"),
            *(
                (f"holdout {name}", f"{measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f})")
                for name, measure in self.holdout.items()
            ),
            ("time per row", f"{self.row_microseconds:.0f} µs"),
            ("parity", f"{self.parity.rows} rows, {self.parity.label_flips} label flips"),
            ("findings", str(len(self.findings))),
            ("alias", self.promotion.alias or "none"),
            *([("reason", self.promotion.reason)] if self.promotion.reason else []),
            ("seconds", f"{self.seconds:.1f}"),
            ("path", self.path),
        ]


class ColumnCheck(msgspec.Struct, frozen=True):
    """A column and its kind; `kind` is empty if the column was dropped."""

    name: str
    kind: str


class DerivedCheck(msgspec.Struct, frozen=True):
    """A derived column and the expression that computes it."""

    name: str
    expression: str


class TableCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a data check without training."""

    table: str
    rows: int
    target: str
    task: Task
    classes: Sequence[Label]
    columns: Sequence[ColumnCheck]
    findings: Sequence[Finding]
    derived: Sequence[DerivedCheck] = ()
