"""The exported graph returns the same predictions as the trained model, for all kinds of columns, tasks and rows."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import InvalidRows, TableError
from rowcast.schema.encoding import NUMBERS, TEXTS, RowEncoder
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column
from rowcast.schema.stacking import stack_rows
from rowcast.tables.read import table_from_memory
from rowcast.training import calibration as calibrate
from rowcast.training import certificate as certify
from rowcast.training.ensemble import Choice, EnsembleMember, train_choice
from rowcast.training.export import export
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Trained
from rowcast.training.problem import LearningProblem, build_problem
from rowcast.training.search import search

KINDS = ("number", "huge", "tiny", "integer", "boolean", "words", "category", "wide", "datetime", "form")
AWKWARD = [0.0, -0.0, 1e38, -1e38, 3.4028234663852886e38, 2.0**53 + 1, 1e-45, 0.1, 16777217.0]


def cells(kind: str, rows: int, rng: np.random.Generator, gaps: bool) -> list[Any]:
    """Return the cells of a column as they would appear in a file."""
    whole = rng.integers(0, 60, rows)
    columns: dict[str, Any] = {
        "number": np.round(rng.normal(size=rows), 3).tolist(),
        "huge": (rng.normal(size=rows) * 1e36).tolist(),
        "tiny": np.where(whole < 20, 0.0, rng.normal(size=rows) * 1e-35).tolist(),
        "integer": whole.tolist(),
        "boolean": (whole < 30).tolist(),
        "words": [("Yes", "No")[value % 2] for value in whole],
        "category": [("red", "gr\u00fcn", "blue", "5")[value % 4] for value in whole],
        "wide": [f"level {value + 60 * (value % 3)}" for value in rng.integers(0, 90, rows)],
        "datetime": [f"20{10 + value % 9}-0{1 + value % 9}-1{value % 10}" for value in whole],
        "form": [f"${value * 1000:,}.5" for value in whole],
    }
    lost = rng.random(rows) < 0.15 if gaps else np.zeros(rows, bool)
    return [None if is_lost else value for value, is_lost in zip(columns[kind], lost, strict=True)]


@st.composite
def posed(draw: st.DrawFn) -> tuple[LearningProblem, TrainingOptions]:
    """Draw a small learning problem with any mix of columns."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    rows = draw(st.sampled_from([40, 150, 400]))
    columns = {f"c{place}": cells(kind, rows, rng, draw(st.booleans())) for place, kind in enumerate(kinds)}
    signal = rng.normal(size=rows) + np.array([signal_of(cell) for cell in columns["c0"]])
    target: dict[str, list[Any]] = {
        "binary": ["good" if value > np.median(signal) else "bad" for value in signal],
        "multiclass": [("low", "middle", "high", "top")[int(rank)] for rank in signal.argsort().argsort() * 4 // rows],
        "regression": (signal * 1000 + rng.normal(size=rows)).tolist(),
    }
    task = draw(st.sampled_from(sorted(target)))
    linear = "elasticnet" if task == "regression" else "logistic"
    models = st.sampled_from([linear, "ridge", "tree", "boosting", "forest"])
    candidates = tuple(draw(st.lists(models, min_size=1, max_size=2, unique=True)))
    numbers = [f"c{place}" for place, kind in enumerate(kinds) if kind in ("number", "huge", "tiny")]
    operands = st.sampled_from([*numbers, "0.5"])
    shapes = st.sampled_from(["{0} / {1} + {2}", "log({0} - {1}) * {2}", "min({0}, {1}) < {2}", "{0} * {1} * {2}"])
    derive = tuple(
        f"d{index} = " + draw(shapes).format(numbers[0], draw(operands), draw(operands))
        for index in range(draw(st.integers(0, 2)) if numbers else 0)
    )
    options = TrainingOptions(
        target="y", name="p", trials=1, folds=2, candidates=candidates, seed=draw(st.integers(0, 9)), derive=derive
    )
    try:
        return build_problem(table_from_memory({**columns, "y": target[task]}), options), options
    except TableError as error:
        if error.slug != "no-columns":  # every column may look like an identifier
            raise
        reject()


def signal_of(cell: Any) -> float:
    """Return a number that depends only on the cell; hash() would differ between processes."""
    return sum(map(ord, str(cell))) % 7 / 3.0


def sent(column: Column, draw: st.DrawFn, thresholds: list[float]) -> Any:
    """Draw a cell that a client could send: ordinary, unusual, missing, unseen, or close to a threshold."""
    if column.missing and draw(st.integers(0, 5)) == 0:
        return None
    if column.kind == "category":
        return draw(st.sampled_from([*column.levels[:5], "never seen", " red ", 5, "\u2603" * 40]))
    if column.kind == "boolean":
        return draw(st.sampled_from([True, False, *column.words]))
    if column.kind == "datetime":
        return draw(st.sampled_from([column.example, "1970-01-01", "2999-12-31T23:59:59.999999Z"]))
    if column.kind == "integer":
        return draw(st.sampled_from([column.example, 0, -1, 2**53 + 1, 10**38, *map(int, thresholds)]))
    return draw(st.sampled_from([column.example, *AWKWARD, *thresholds]))


def with_neighbours(values: np.ndarray) -> list[float]:
    """Return the values and their float32 neighbors."""
    sides = [np.nextafter(values, np.float32(side)) for side in (-np.inf, np.inf)]
    return [float(value) for value in np.concatenate([values, *sides]) if np.isfinite(value)]


def client_rows(data: st.DataObject, problem: LearningProblem, pipeline: Trained) -> dict[str, np.ndarray]:
    """Draw rows and return them as tensors, encoded like the rows of a request."""
    encoder = RowEncoder(problem.schema, problem.plan)
    edges = pipeline.thresholds()
    names = [spec.columns for spec in problem.plan if spec.name == NUMBERS]
    known = {
        feature.column: with_neighbours(edges[place])
        for place, feature in enumerate(names[0] if names else ())
        if place in edges
    }
    encoded = []
    for _ in range(12):
        row = {
            column.name: sent(column, data.draw, known.get(column.name, [])[:30]) for column in problem.schema.columns
        }
        try:
            encoded.append(encoder.read(msgspec.json.encode(row)))
        except InvalidRows as error:  # the float32 neighbor of a threshold can overflow
            codes = {problem.code for problem in error.problems}
            assert codes == {"too-large"}
    return stack_rows(encoder.plan, encoded)


SUPPRESSED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@pytest.mark.usefixtures("small_models")
@settings(max_examples=60, suppress_health_check=SUPPRESSED)
@given(posed(), st.data())
def test_the_graph_agrees_with_the_model_on_any_row(
    case: tuple[LearningProblem, TrainingOptions], data: st.DataObject
) -> None:
    problem, options = case
    best, setting = search(problem, options, lambda event: None)
    weight = 1 / len(best.trials)
    members = [
        EnsembleMember(each, calibrate.fit(each.raw, problem.training.target, problem.task), weight)
        for each in best.trials
    ]
    choice = Choice(tuple(members), 0.0)
    pipeline = train_choice(problem, choice, setting)
    model, output = export(pipeline, problem.plan, len(problem.classes))
    graph = open_graph(model, output.name)
    rows = client_rows(data, problem, pipeline)
    count = len(next(iter(rows.values())))
    numbers, texts = rows.get(NUMBERS, np.empty((count, 0), np.float32)), rows.get(TEXTS, np.empty((count, 0), object))
    probe = certify.build_probe(pipeline, problem, options.seed)

    decision = Decision(task=problem.task, classes=problem.classes, positive=problem.positive)
    for reference, tensors in (
        (pipeline.predict(numbers, texts), rows),
        (pipeline.predict(probe.numbers, probe.texts), probe.tensors()),
    ):
        answers = graph.run(tensors)
        if problem.task == "binary":
            scores = reference[:, problem.positive].astype(np.float32)
            own = choice.predictions().astype(np.float32)
            threshold = calibrate.choose_threshold(own, problem.training.target, metric="accuracy", avoid=scores)
            decision = msgspec.structs.replace(decision, threshold=threshold)
        spread = float(problem.training.target.std()) if problem.task == "regression" else 1.0
        certify.certify(reference, answers, decision, spread)
    alone = [graph.run({name: tensor[place : place + 1] for name, tensor in rows.items()}) for place in range(count)]
    assert np.concatenate(alone).tobytes() == graph.run(rows).tobytes()
