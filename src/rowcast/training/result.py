"""Results of a training run and of a data check, as the CLI prints them with `--json`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowcast.registry.bundle import Measure, Parity
from rowcast.schema.prediction import Label, Task
from rowcast.tables.table import Finding


class CandidateScore(msgspec.Struct, frozen=True, omit_defaults=True):
    """Best cross-validated score of one candidate, or of the ensemble if it won."""

    name: str
    score: float
    trials: int
    seconds: float
    members: dict[str, float] = {}
    """For an ensemble: the weight of each candidate in the average."""


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A published model and its figures; `score` is the cross-validated `metric` of the chosen model."""

    model: str
    version: int
    path: str
    digest: str
    task: Task
    metric: str
    score: float
    holdout: dict[str, Measure]
    parity: Parity
    candidates: Sequence[CandidateScore]
    findings: Sequence[Finding]
    seconds: float
    onnx: str | None = None
    """Path of the exported ONNX file, if an export was requested."""


class ColumnCheck(msgspec.Struct, frozen=True):
    """Kind of a column; empty if the column was dropped."""

    name: str
    kind: str


class TableCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a data check without training."""

    table: str
    rows: int
    target: str
    task: Task
    classes: Sequence[Label]
    columns: Sequence[ColumnCheck]
    findings: Sequence[Finding]
