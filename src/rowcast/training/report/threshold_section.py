"""The report's section on the threshold: both kinds of mistake along it, and what they cost, on the rows kept aside."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import label_text
from rowcast.training.cost import EVEN, Cost, mistakes
from rowcast.training.report import charts
from rowcast.training.report.charts import Line
from rowcast.training.report.evaluation import Bench
from rowcast.training.report.markup import figures, number, table

GRID: Final = 201
X_RANGE: Final = (-0.02, 1.02)


def section(bench: Bench) -> str:
    """Nothing where no threshold decides."""
    if bench.decision.task != "binary":
        return ""
    score = bench.output[:, bench.decision.positive]
    positive = bench.rows.target == 1
    grid = np.linspace(0.0, 1.0, GRID)
    alarms, missed = mistakes(score, positive, grid)
    mark = (bench.decision.threshold, "chosen")
    kinds = [Line("false positives", grid, alarms), Line("false negatives", grid, missed)]
    if bench.cost is None:
        kinds.append(Line("together", grid, alarms + missed))
    label = label_text(bench.decision.classes[bench.decision.positive])
    says = f"Rows wrongly taken for {label}, and rows of {label} that are missed, of {len(score)} rows."
    drawn = [charts.lines("Mistakes", says, ("threshold", "rows"), kinds, x_range=X_RANGE, mark=mark)]
    if bench.cost is not None:
        each = Line("cost", grid, bench.cost.of(alarms, missed) / len(score))
        says = f"What mistakes cost on average: {priced(bench.cost)}."
        drawn.append(charts.lines("Cost", says, ("threshold", "cost a row"), [each], x_range=X_RANGE, mark=mark))
    return f"<p>{escape(_how(bench))}</p>" + figures(*drawn) + _table(bench, score, positive)


def priced(cost: Cost) -> str:
    """The two prices in words."""
    return f"a false positive {cost.false_positive:g}, a false negative {cost.false_negative:g}"


def _how(bench: Bench) -> str:
    if bench.cost is not None:
        aim = f"costs least ({priced(bench.cost)})"
    else:
        aim = "has the best F1" if bench.metric == "f1" else "makes the fewest mistakes"
    return (
        f"The threshold {number(bench.decision.threshold)} is the one that {aim} by cross-validation on the rows for "
        "training. The rows shown here had no say in it; the best one for them is known only afterwards."
    )


def _table(bench: Bench, score: NDArray[Any], positive: NDArray[np.bool_]) -> str:
    cost = bench.cost or EVEN
    cuts = np.array([bench.decision.threshold, 0.5, _best(score, positive, cost)], np.float32)
    alarms, missed = mistakes(score, positive, cuts)
    rows = []
    for name, cut, wrong, lost in zip(("chosen", "one half", "best afterwards"), cuts, alarms, missed, strict=True):
        cells = [name, number(float(cut)), str(wrong), str(lost)]
        whole = float(cost.of(wrong, lost))
        rows.append([*cells, f"{whole:g}" if bench.cost is None else number(whole), number(whole / len(score))])
    last = ("mistakes", "a row") if bench.cost is None else ("cost", "a row")
    heads = ("threshold", "at", "false positives", "false negatives", *last)
    return table(f"The threshold on {len(score)} rows kept aside", heads, rows, 5)


def _best(score: NDArray[Any], positive: NDArray[np.bool_], cost: Cost) -> float:
    """The cheapest threshold on these rows: midway between two neighbouring scores; of equal ones nearest to a half."""
    ranked = np.unique(score).astype(np.float64)
    edges = np.concatenate([[0.0], ranked, [1.0]])
    cuts = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    prices = cost.of(*mistakes(score, positive, cuts))
    return float(cuts[np.lexsort((np.abs(cuts - 0.5), prices))[0]])
