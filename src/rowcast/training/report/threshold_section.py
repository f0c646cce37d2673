"""The section on the threshold: the errors and their cost at each threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import label_text
from rowcast.training.cost import EVEN, Cost, count_mistakes
from rowcast.training.report.charts import UNIT_RANGE, Chart, Line, line_chart
from rowcast.training.report.measured_rows import MeasuredRows

GRID_POINTS: Final = 201


@dataclass(frozen=True)
class ThresholdRow:
    """The errors at one threshold. `total` is their total cost or, if no costs are set, their number."""

    name: str
    threshold: float
    false_positives: int
    false_negatives: int
    total: float


@dataclass(frozen=True)
class ThresholdSection:
    """The reason for the chosen threshold, and a comparison with other thresholds."""

    threshold: float
    by_f1: bool
    """Whether the metric is F1. If so, the threshold maximizes F1 unless costs are set."""
    cost: Cost | None
    charts: tuple[Chart, ...]
    row_count: int
    rows: tuple[ThresholdRow, ...]


def threshold_section(model: MeasuredRows) -> ThresholdSection | None:
    """Return the section for a binary model, or None for any other model."""
    decision = model.decision
    if decision.task != "binary":
        return None
    score, positive = model.output[:, decision.positive], model.rows.target == 1
    return ThresholdSection(
        threshold=decision.threshold,
        by_f1=model.metric == "f1",
        cost=model.cost,
        charts=_charts(model, score, positive),
        row_count=len(score),
        rows=_rows(model, score, positive),
    )


def _charts(model: MeasuredRows, score: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[Chart, ...]:
    grid = np.linspace(0.0, 1.0, GRID_POINTS)
    false_positives, false_negatives = count_mistakes(score, positive, grid)
    mark = (model.decision.threshold, "chosen")
    lines = [Line("false positives", grid, false_positives), Line("false negatives", grid, false_negatives)]
    if model.cost is None:
        lines.append(Line("all errors", grid, false_positives + false_negatives))
    label = label_text(model.decision.classes[model.decision.positive])
    description = f"False positives and false negatives among {len(score):,} rows; the positive class is {label}."
    chart = line_chart("Errors", description, ("threshold", "rows"), lines, x_range=UNIT_RANGE, mark=mark)
    if model.cost is None:
        return (chart,)
    per_row = model.cost.total(false_positives, false_negatives) / len(score)
    description = f"The average cost per row if {describe_cost(model.cost)}."
    line = Line("cost", grid, per_row)
    return chart, line_chart("Cost", description, ("threshold", "cost per row"), [line], x_range=UNIT_RANGE, mark=mark)


def describe_cost(cost: Cost) -> str:
    """Describe both costs in words."""
    return f"a false positive costs {cost.false_positive:g} and a false negative costs {cost.false_negative:g}"


def _rows(model: MeasuredRows, score: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[ThresholdRow, ...]:
    cost = model.cost or EVEN
    thresholds = {
        "chosen": model.decision.threshold,
        "one half": 0.5,
        "best in hindsight": _best(score, positive, cost),
    }
    cuts = np.array(list(thresholds.values()), np.float32)
    counts = zip(*(count.tolist() for count in count_mistakes(score, positive, cuts)), strict=True)
    return tuple(
        ThresholdRow(name, float(cut), false_positives, false_negatives, cost.total(false_positives, false_negatives))
        for name, cut, (false_positives, false_negatives) in zip(thresholds, cuts, counts, strict=True)
    )


def _best(score: NDArray[Any], positive: NDArray[np.bool_], cost: Cost) -> float:
    """Return the midpoint between adjacent scores that has the lowest cost. Ties go to the midpoint nearest to 0.5."""
    distinct = np.unique(score).astype(np.float64)
    edges = np.concatenate([[0.0], distinct, [1.0]])
    cuts = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    costs = cost.total(*count_mistakes(score, positive, cuts))
    return float(cuts[np.lexsort((np.abs(cuts - 0.5), costs))[0]])
