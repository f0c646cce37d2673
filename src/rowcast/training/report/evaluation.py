"""What the rows kept aside say of a model, as plain arrays: curves, importance, dependence, weak slices.

Everything goes through the served graph and is seeded; the work is bounded by rows scored, so a report stays cheap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.registry.ports import Graph
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.schema.scores import winning_classes
from rowcast.training import metrics
from rowcast.training.cost import Cost
from rowcast.training.problem import LabelledRows
from rowcast.training.report.charts import clipped, short

Values = NDArray[np.float64]

CURVE_POINTS: Final = 150
REPEATS: Final = 5
RESAMPLES: Final = 40
"""Bootstrap resamples of the rows for each shuffle of a column."""
MOST_ROWS: Final = 1000
FEWEST_ROWS: Final = 100
SCORED: Final = 80_000
"""Rows scored for importance with a graph of `GRAPH_BYTES`; fewer with a larger one, which takes longer a row."""
GRAPH_BYTES: Final = 150_000
DEPENDENCE_ROWS: Final = 200
GRID: Final = 12
LEVELS: Final = 8
SLICE_LEVELS: Final = 20
FEWEST_IN_SLICE: Final = 30
Z: Final = 1.96


@dataclass(frozen=True)
class Place:
    """Where a column stands in the encoded rows."""

    column: Column
    text: bool
    at: tuple[int, ...]


@dataclass(frozen=True)
class Bin:
    """Rows whose score falls into one bin, and how many of them were positive."""

    low: float
    high: float
    count: int
    score: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class Importance:
    """How much worse the metric gets when a column is shuffled; an interval over shuffles and rows."""

    place: Place
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Dependence:
    """The mean output when a column is set to each value of a grid; `x` is None where the values are names."""

    place: Place
    names: tuple[str, ...]
    x: Values | None
    means: Values
    """[grid] or, of classes, [grid, k]."""


@dataclass(frozen=True)
class Slice:
    """The error on some of the rows: share of wrong labels, or mean absolute error."""

    column: str
    what: str
    rows: int
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Bench:
    """A model with the rows it is examined on."""

    graph: Graph
    graph_bytes: int
    decision: Decision
    metric: str
    schema: Schema
    plan: Plan
    rows: LabelledRows
    output: NDArray[np.float32]
    """What the graph says of `rows`."""
    seed: int
    cost: Cost | None

    def score(self, numbers: NDArray[Any], texts: NDArray[Any]) -> NDArray[np.float32]:
        named = {NUMBERS: numbers, TEXTS: texts}
        return self.graph.run({name: array for name, array in named.items() if array.shape[1]})


def places(schema: Schema, plan: Plan) -> tuple[Place, ...]:
    """Every column with its places in the numbers or the texts; a datetime has several."""
    found: dict[str, list[int]] = {}
    text: dict[str, bool] = {}
    for spec in plan:
        for index, feature in enumerate(spec.columns):
            found.setdefault(feature.column, []).append(index)
            text[feature.column] = spec.name == TEXTS
    return tuple(
        Place(column, text[column.name], tuple(found[column.name])) for column in schema.columns if column.name in found
    )


def roc(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, Values]:
    """False and true positive rate from the strictest threshold to the loosest."""
    caught, wrong = _counted(score, positive)
    return thinned(_rate(np.append(0, wrong)), _rate(np.append(0, caught)))


def precision_recall(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, Values]:
    """Recall and precision from the strictest threshold to the loosest."""
    caught, wrong = _counted(score, positive)
    return thinned(_rate(caught), caught / (caught + wrong))


def _counted(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, Values]:
    """Positives and negatives at or above each distinct score, highest first."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = positive[order]
    return np.cumsum(hits)[last].astype(np.float64), np.cumsum(~hits)[last].astype(np.float64)


def _rate(counted: Values) -> Values:
    return counted / counted[-1] if counted[-1] else np.full(len(counted), np.nan)


def thinned(x: Values, y: Values, most: int = CURVE_POINTS) -> tuple[Values, Values]:
    """At most so many points of a curve, ends included."""
    if len(x) <= most:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, most).round().astype(np.intp))
    return x[kept], y[kept]


def wilson(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, more = hits / count, Z * Z / count
    middle, half = share + more / 2, Z * np.sqrt(share * (1 - share) / count + more / (4 * count))
    return max(0.0, float((middle - half) / (1 + more))), min(1.0, float((middle + half) / (1 + more)))


def reliability(score: Values, positive: NDArray[np.bool_], bins: int = 10) -> tuple[Bin, ...]:
    """Predicted against observed shares in equally wide bins; empty bins are left out."""
    place = np.minimum((score * bins).astype(np.intp), bins - 1)
    found = []
    for index in np.unique(place).tolist():
        inside = place == index
        count, hits = int(inside.sum()), int(positive[inside].sum())
        low, high = wilson(hits, count)
        found.append(Bin(index / bins, (index + 1) / bins, count, float(score[inside].mean()), hits / count, low, high))
    return tuple(found)


def by_threshold(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, dict[str, Values]]:
    """Accuracy, precision, recall and F1 at a hundred thresholds; precision is NaN where nothing is predicted."""
    grid = np.linspace(0.0, 1.0, 101)
    said = score[None, :] >= grid[:, None]
    caught, named = (said & positive).sum(axis=1), said.sum(axis=1)
    right = (said == positive).mean(axis=1)
    total = max(int(positive.sum()), 1)
    with np.errstate(invalid="ignore"):
        precision = caught / np.where(named, named, np.nan)
    f1 = 2 * caught / np.maximum(named + total, 1)
    return grid, {"accuracy": right, "precision": precision, "recall": caught / total, "F1": f1}


def confusion(true: NDArray[np.intp], said: NDArray[np.intp], classes: int) -> NDArray[np.int64]:
    """Rows by true class and predicted class."""
    return np.bincount(true * classes + said, minlength=classes * classes).reshape(classes, classes)


def importance(bench: Bench) -> tuple[tuple[Importance, ...], int]:
    """Permutation importance of every column, largest first, and the rows it was measured on."""
    rng = np.random.default_rng([bench.seed, 6])
    columns = places(bench.schema, bench.plan)
    rows, output, repeats = _sampled(bench, len(columns), rng)
    weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES).astype(np.float64)
    weights[0] = 1.0  # the rows as they are: the value itself
    if rows.weight is not None:
        weights *= rows.weight
    sign = 1.0 if bench.metric in metrics.GREATER else -1.0
    base = _scores(bench, output, rows.target, weights)
    found = []
    for place in columns:
        lost = []
        for _ in range(repeats):
            shuffled = _with(rows, place, _cells(rows, place)[rng.permutation(len(rows))])
            lost.append(sign * (base - _scores(bench, bench.score(*shuffled), rows.target, weights)))
        every = np.concatenate(lost)
        every = every[np.isfinite(every)]
        value = float(np.mean([each[0] for each in lost]))
        low, high = np.quantile(every, [0.025, 0.975]).tolist() if len(every) else (value, value)
        found.append(Importance(place, value, min(low, value), max(high, value)))
    found = [each for each in found if np.isfinite(each.value)]
    return tuple(sorted(found, key=lambda each: -each.value)), len(rows)


def _sampled(bench: Bench, columns: int, rng: np.random.Generator) -> tuple[LabelledRows, NDArray[np.float32], int]:
    """As many rows and repeats as the budget allows."""
    budget = SCORED * min(1.0, GRAPH_BYTES / max(bench.graph_bytes, 1))
    repeats = int(np.clip(budget // (columns * 2 * FEWEST_ROWS), 1, REPEATS))
    most = int(np.clip(budget // (columns * repeats), FEWEST_ROWS, MOST_ROWS))
    if len(bench.rows) <= most:
        return bench.rows, bench.output, repeats
    chosen = np.sort(rng.choice(len(bench.rows), most, replace=False))
    return bench.rows.take(chosen), bench.output[chosen], repeats


def _scores(bench: Bench, output: NDArray[np.float32], target: NDArray[Any], weights: Values) -> Values:
    return metrics.score_resamples(bench.metric, bench.decision, output, target, weights)


def _cells(rows: LabelledRows, place: Place) -> NDArray[Any]:
    return (rows.texts if place.text else rows.numbers)[:, list(place.at)]


def _with(rows: LabelledRows, place: Place, cells: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The numbers and texts of the rows with other cells in one column."""
    numbers, texts = rows.numbers.copy(), rows.texts.copy()
    (texts if place.text else numbers)[:, list(place.at)] = cells
    return numbers, texts


def dependence(bench: Bench, place: Place) -> Dependence | None:
    """How the mean output follows one column; None where the column holds fewer than two values."""
    rng = np.random.default_rng([bench.seed, 7])
    rows = bench.rows
    if len(rows) > DEPENDENCE_ROWS:
        rows = rows.take(np.sort(rng.choice(len(rows), DEPENDENCE_ROWS, replace=False)))
    grid, names, x = _grid(bench.rows, place)
    if len(grid) < 2:
        return None
    means = []
    for cells in grid:
        output = bench.score(*_with(rows, place, cells)).astype(np.float64)
        means.append(output[:, bench.decision.positive] if bench.decision.task == "binary" else output)
    return Dependence(place, names, x, np.stack([each.mean(axis=0) for each in means]))


def _grid(rows: LabelledRows, place: Place) -> tuple[Sequence[Any] | NDArray[Any], tuple[str, ...], Values | None]:
    """Cells to put into a column, how they are called, and where they stand on an axis."""
    cells = _cells(rows, place)
    if place.text:
        levels = _levels(cells[:, 0], LEVELS)
        return levels, tuple(level or "missing" for level in levels), None
    seen = cells[np.isfinite(cells[:, 0])]
    if not len(seen):
        return [], (), None
    seen = seen[np.argsort(seen[:, 0], kind="stable")]
    picks = np.linspace(0, len(seen) - 1, GRID).round().astype(np.intp)
    _, first = np.unique(seen[picks, 0], return_index=True)
    grid = seen[picks][first]
    if place.column.kind == "boolean":
        grid = np.unique(seen, axis=0)
        return grid, tuple("true" if value else "false" for value in grid[:, 0]), None
    return grid, tuple(short(value) for value in grid[:, 0].tolist()), grid[:, 0].astype(np.float64)


def _levels(texts: NDArray[Any], most: int) -> list[str]:
    """The commonest texts; of equally common ones the first by alphabet."""
    counts = Counter(texts.tolist())
    return sorted(counts, key=lambda text: (-counts[text], text))[:most]


def slices(bench: Bench) -> tuple[tuple[Slice, ...], float, int]:
    """The slices with the largest error first, the error over all rows, and how many slices were looked at."""
    if bench.decision.task == "regression":
        errors = np.abs(bench.output.astype(np.float64).reshape(-1) - bench.rows.target)
    else:
        said = winning_classes(bench.decision, bench.output)
        if bench.decision.task == "binary":
            said = (said == bench.decision.positive).astype(np.intp)
        errors = (said != bench.rows.target).astype(np.float64)
    found = []
    for place in places(bench.schema, bench.plan):
        for what, inside in _parts(bench.rows, place):
            count = int(inside.sum())
            if FEWEST_IN_SLICE <= count < len(errors):
                found.append(_slice(place.column.name, what, errors[inside], bench.decision.task == "regression"))
    ranked = sorted(found, key=lambda each: (-each.low, each.column, each.what))
    return tuple(ranked), float(errors.mean()), len(found)


def _slice(column: str, what: str, errors: Values, of_values: bool) -> Slice:
    mean, count = float(errors.mean()), len(errors)
    if of_values:
        half = Z * float(errors.std(ddof=1)) / float(np.sqrt(count))
        return Slice(column, what, count, mean, max(0.0, mean - half), mean + half)
    return Slice(column, what, count, mean, *wilson(float(errors.sum()), count))


def _parts(rows: LabelledRows, place: Place) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Named parts of the rows by one column: levels, values, or quarters; and where it is missing."""
    cells = _cells(rows, place)[:, 0]
    if place.text:
        for level in _levels(cells, SLICE_LEVELS):
            yield (f"= {clipped(level, 60)}" if level else "is missing"), cells == level
        return
    missing = ~np.isfinite(cells)
    yield "is missing", missing
    distinct = np.unique(cells[~missing])
    if place.column.kind == "boolean" or 1 < len(distinct) <= 6:
        for value in distinct.tolist():
            yield f"= {_value(place.column, value)}", cells == value
    elif len(distinct) > 6:
        edges = np.unique(np.quantile(cells[~missing], [0, 0.25, 0.5, 0.75, 1]))
        for left, right in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            last = right == edges[-1]
            inside = (cells >= left) & ((cells <= right) if last else (cells < right))
            middle = "to" if last else "to below"
            yield f"{_value(place.column, left)} {middle} {_value(place.column, right)}", inside


def _value(column: Column, value: float) -> str:
    if column.kind == "boolean":
        return "true" if value else "false"
    return on_day(column, value) if column.kind == "datetime" else short(value)


def on_day(column: Column, days: float) -> str:
    """The day that lies so many days after the first one seen in training."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=column.origin) + timedelta(days=days)
    return moment.date().isoformat()


def per_class(counted: NDArray[np.int64]) -> tuple[Mapping[str, float], ...]:
    """Rows, precision, recall and F1 of each class, from a confusion matrix."""
    found = []
    for index in range(len(counted)):
        hit, true, said = int(counted[index, index]), int(counted[index].sum()), int(counted[:, index].sum())
        found.append(
            {
                "rows": true,
                "precision": hit / said if said else np.nan,
                "recall": hit / true if true else np.nan,
                "f1": 2 * hit / (true + said) if true + said else np.nan,
            }
        )
    return tuple(found)
