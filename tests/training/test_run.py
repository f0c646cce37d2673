"""Whole trainings: what comes out is complete, certified, the same each time, and keeps what it promised on the way."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rowcast import tables
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import ParityError, TableError, TrainingError
from rowcast.registry import bundle
from rowcast.registry.ports import Graph
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.scores import score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.tables import Table, examples
from rowcast.training import search as tune
from rowcast.training.events import TrainingEvent
from rowcast.training.models.candidate import Fitted, LabelledMatrix, Params, Setting
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.models.linear import Logistic
from rowcast.training.options import TrainingOptions
from rowcast.training.result import TrainingResult
from rowcast.training.run import train

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LOANS = tables.from_memory(examples.loans(1500), "loans")
IRIS = tables.from_memory(examples.iris(), "iris")
EVERY_KIND = tables.from_memory(
    {
        "when": [f"{1 + index % 28:02d}/{1 + index % 12:02d}/2025" for index in range(300)],
        "price": [None if index % 11 == 0 else f"${index * 3:,}.50" for index in range(300)],
        "code": [f"c{index % 90}" for index in range(300)],
        "count": [index % 7 for index in range(300)],
        "own": ["Yes" if index % 3 else "No" for index in range(300)],
        "y": [index * 1.5 + (index % 7) * 20.0 for index in range(300)],
    },
    "every kind",
)


def trained(
    folder: Path, table: Table, target: str, events: list[TrainingEvent] | None = None, **options: Any
) -> TrainingResult:
    chosen = {"trials": 3, **options}
    return train(
        table,
        TrainingOptions(target=target, name="model", **chosen),
        open_graph=open_graph,
        registry=FolderRegistry(folder),
        now=NOW,
        progress=[].append if events is None else events.append,
    )


@pytest.mark.parametrize(
    ("table", "target", "task"),
    [
        (LOANS, "loan_status", "binary"),
        (IRIS, "species", "multiclass"),
        (EVERY_KIND, "y", "regression"),
    ],
    ids=["loans", "iris", "every kind of column"],
)
@pytest.mark.parametrize("candidate", ["logistic", "ridge", "tree", "boosting", "forest", "extra"])
def test_a_training_publishes_a_certified_bundle(
    tmp_path: Path, table: Table, target: str, task: str, candidate: str
) -> None:
    result = trained(tmp_path, table, target, candidates=(candidate,))

    assert (result.model, result.version, result.task) == ("model", 1, task)
    assert result.parity.label_flips == 0
    assert result.parity.rows > 2000
    if task != "regression":
        assert result.parity.max_abs_diff <= 1e-5
    found = bundle.open(Path(result.path))
    assert bundle.verify(Path(result.path)).digest == found.manifest.digest == result.digest
    assert set(found.manifest.files) == {
        "model.onnx",
        "golden.json",
        "reference.parquet",
        "MODEL_CARD.md",
        "report.html",
    }
    assert found.manifest.decision.task == task
    assert msgspec.json.decode(msgspec.json.encode(result), type=TrainingResult).digest == result.digest


@pytest.mark.parametrize(("table", "target"), [(LOANS, "loan_status"), (EVERY_KIND, "y")], ids=["loans", "every kind"])
def test_golden_rows_are_what_a_client_sends_and_the_graph_repeats_them(
    tmp_path: Path, table: Table, target: str
) -> None:
    opened = bundle.open(Path(trained(tmp_path, table, target).path))
    manifest = opened.manifest
    encoder = RowEncoder(manifest.schema, manifest.plan)
    graph = open_graph(opened.model, manifest.output.name)

    rows = [encoder.read(msgspec.json.encode(golden.row)) for golden in opened.golden]

    assert score_rows(manifest.decision, graph.run(stack_rows(encoder.plan, rows))) == [
        golden.score for golden in opened.golden
    ]
    assert len(opened.golden) == 32
    assert any(row.warnings for row in rows)
    assert any(None in golden.row.values() for golden in opened.golden)


def test_columns_keep_their_notation_in_golden_rows(tmp_path: Path) -> None:
    rows = [golden.row for golden in bundle.open(Path(trained(tmp_path, EVERY_KIND, "y").path)).golden]

    assert {type(row["count"]) for row in rows} == {int}
    assert {row["own"] for row in rows} == {"Yes", "No"}
    assert all(re.fullmatch(r"\d\d/\d\d/2025", row["when"]) for row in rows)
    assert {type(row["price"]) for row in rows} <= {float, type(None)}


@pytest.mark.parametrize(("table", "target"), [(LOANS, "loan_status"), (IRIS, "species")], ids=["loans", "iris"])
def test_the_same_training_gives_the_same_digest(tmp_path: Path, table: Table, target: str) -> None:
    first, again, other = (trained(tmp_path, table, target, seed=seed, trials=4) for seed in (3, 3, 4))

    assert first.digest == again.digest != other.digest
    assert (first.version, again.version, other.version) == (1, 2, 3)


@pytest.mark.parametrize(
    ("table", "target"), [(LOANS, "loan_status"), (IRIS, "species"), (EVERY_KIND, "y")], ids=["loans", "iris", "values"]
)
def test_the_model_is_the_same_with_any_number_of_threads(tmp_path: Path, table: Table, target: str) -> None:
    alone, beside = (trained(tmp_path, table, target, trials=10, jobs=jobs) for jobs in (1, 3))

    assert alone.digest == beside.digest
    assert [(each.name, each.score, each.trials) for each in alone.candidates] == [
        (each.name, each.score, each.trials) for each in beside.candidates
    ]


def two_sided() -> Table:
    """Half of the answer is a slope through six columns, which lines find, half a corner of two, which trees find."""
    rng = np.random.default_rng(5)
    slope, corner = rng.normal(size=(6, 900)), rng.integers(0, 2, size=(2, 900))
    signal = slope.sum(axis=0) + 3 * (corner[0] ^ corner[1]) - 1.5 + rng.logistic(size=900) * 0.5
    numbers = {f"n{index}": each.tolist() for index, each in enumerate([*slope, *(corner + 0.5)])}
    return tables.from_memory({**numbers, "y": (signal > 0).tolist()})


def test_an_average_of_kinds_is_published_as_one_graph_when_it_wins(tmp_path: Path) -> None:
    kinds = ("logistic", "forest")
    result, again = (trained(tmp_path, two_sided(), "y", candidates=kinds) for _ in range(2))

    first, *others = result.candidates
    opened = bundle.open(Path(result.path))
    graph = onnx.load_model_from_string(opened.model).graph
    assert first.name == opened.manifest.training.candidate == "ensemble"
    assert set(first.members) == {each.name for each in others} == set(kinds)
    assert sum(first.members.values()) == pytest.approx(1)
    assert result.score == first.score > max(each.score for each in others)
    assert {each["candidate"]: each["weight"] for each in opened.manifest.training.params["members"]} == first.members
    assert [node.op_type for node in graph.node].count("IsNaN") <= 1
    assert result.digest == again.digest


def test_one_model_is_preferred_when_an_average_wins_nothing(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=600)
    columns = {"x": x.tolist(), "y": (x + np.random.default_rng(1).logistic(size=600) > 0).tolist()}

    result = trained(tmp_path, tables.from_memory(columns), "y", candidates=("logistic", "ridge"))

    assert [each.members for each in result.candidates] == [{}, {}]


def test_the_alias_follows_unless_told_otherwise(tmp_path: Path) -> None:
    trained(tmp_path, IRIS, "species", trials=2)
    trained(tmp_path, IRIS, "species", trials=2, alias="challenger")
    trained(tmp_path, IRIS, "species", trials=2, alias=None)

    assert FolderRegistry(tmp_path).aliases("model") == {"champion": 1, "challenger": 2}


def test_the_loan_example_is_learnable_and_not_trivial(tmp_path: Path) -> None:
    table = tables.from_memory(examples.loans(), "loans")

    result = trained(tmp_path, table, "loan_status", trials=4)

    assert 0.86 <= result.holdout["accuracy"].value <= 0.94
    assert result.holdout["calibration_error"].value < 0.06
    assert {finding.code for finding in result.findings} == {"positive-class", "dominant", "sentinel"}


def test_progress_tells_every_stage_and_every_trial(tmp_path: Path) -> None:
    events: list[TrainingEvent] = []

    trained(tmp_path, LOANS, "loan_status", events, trials=4)

    assert list(dict.fromkeys(event.stage for event in events)) == [
        "check",
        "tune",
        "fit",
        "export",
        "certify",
        "publish",
    ]
    assert events[0].findings[-1].code == "positive-class"
    tuned = [event for event in events if event.stage == "tune"]
    assert [(event.trial, event.trials) for event in tuned] == [(n, 4) for n in (1, 2, 3, 4)]
    assert tuned[-1].seconds_left == 0.0
    best = [event.best for event in tuned if event.best is not None]
    assert best == sorted(best)


def test_the_time_limit_ends_the_search(tmp_path: Path) -> None:
    started = time.monotonic()

    result = trained(tmp_path, LOANS, "loan_status", trials=10_000, timeout=1.0)

    assert time.monotonic() - started < 5
    assert sum(candidate.trials for candidate in result.candidates) < 10_000


class Clock:
    """A clock that only fits move on, each by as much as it takes; trainings are timed by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Slow(Logistic):
    """Takes a third of a second of its clock for every fit."""

    name = "slow"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Fitted:
        self._clock.now += 0.3
        return super().fit(rows, params, setting, validation)


@pytest.mark.parametrize(("timeout", "trials"), [(0.1, 1), (3.0, 3)])
def test_the_time_limit_counts_the_last_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float, trials: int
) -> None:
    """All but the first trial, which is always finished."""
    clock = Clock()
    monkeypatch.setitem(CANDIDATES, "slow", Slow(clock))
    monkeypatch.setattr(tune, "time", clock)
    a_trial, last_fit = 3 * 0.3, 0.3  # three folds

    result = trained(tmp_path, IRIS, "species", trials=100, timeout=timeout, candidates=("slow",))

    assert clock.now <= max(timeout, a_trial + last_fit + 1e-9)
    assert clock.now > timeout - a_trial - last_fit
    assert result.candidates[0].trials == trials


def test_an_interrupt_keeps_the_best_so_far(tmp_path: Path) -> None:
    def interrupt(event: TrainingEvent) -> None:
        if event.stage == "tune" and event.trial == 3:
            raise KeyboardInterrupt

    options = TrainingOptions(target="species", name="iris", trials=50)
    result = train(IRIS, options, open_graph=open_graph, registry=FolderRegistry(tmp_path), now=NOW, progress=interrupt)

    assert sum(candidate.trials for candidate in result.candidates) == 3


def test_an_interrupt_before_anything_is_trained_stops(tmp_path: Path) -> None:
    def interrupt(event: TrainingEvent) -> None:
        raise KeyboardInterrupt

    options = TrainingOptions(target="species", name="iris")
    with pytest.raises(KeyboardInterrupt):
        train(IRIS, options, open_graph=open_graph, registry=FolderRegistry(tmp_path), now=NOW, progress=interrupt)
    assert not FolderRegistry(tmp_path).models()


def broken(model: bytes) -> bytes:
    """The graph with one number of its largest constant, or one leaf, a little off."""
    proto = onnx.load_model_from_string(model)
    ensembles = [node for node in proto.graph.node if node.op_type == "TreeEnsembleRegressor"]
    if ensembles:
        weights = next(found for found in ensembles[0].attribute if found.name == "target_weights")
        weights.floats[0] += 0.01
    else:
        doubles = [found for found in proto.graph.initializer if found.data_type == onnx.TensorProto.DOUBLE]
        array = numpy_helper.to_array(doubles[0]).copy()
        array.flat[0] += 0.01
        doubles[0].CopyFrom(numpy_helper.from_array(array, doubles[0].name))
    return proto.SerializeToString()


@pytest.mark.parametrize("candidate", ["logistic", "ridge", "tree", "boosting", "forest"])
def test_a_graph_that_is_a_little_off_is_refused_and_nothing_stays(tmp_path: Path, candidate: str) -> None:
    def opener(model: bytes, output: str) -> Graph:
        return open_graph(broken(model), output)

    options = TrainingOptions(target="loan_status", name="loans", trials=1, candidates=(candidate,))
    with pytest.raises(ParityError, match="does not repeat the trained model"):
        train(LOANS, options, open_graph=opener, registry=FolderRegistry(tmp_path), now=NOW, progress=[].append)
    assert not FolderRegistry(tmp_path).models()


def test_mistakes_are_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="did you mean 'loan_status'"):
        trained(tmp_path, LOANS, "loan_state")
    with pytest.raises(TrainingError, match="unknown candidate magic"):
        trained(tmp_path, LOANS, "loan_status", candidates=("magic",))
    with pytest.raises(TrainingError, match="cannot rank binary models"):
        trained(tmp_path, LOANS, "loan_status", metric="rmse")


def test_rare_classes_survive_every_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = np.array(["a"] * 80 + ["b"] * 60 + ["c"] * 4 + ["d"] * 2)
    columns = {"x": (rng.normal(size=146) + (label == "b")).tolist(), "y": label.tolist()}

    result = trained(tmp_path, tables.from_memory(columns), "y")

    assert result.task == "multiclass"
    assert bundle.open(Path(result.path)).manifest.decision.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize("candidate", ["logistic", "ridge", "tree", "boosting", "forest"])
@pytest.mark.parametrize("positives", [2, 5])
def test_a_handful_of_positives_is_enough_to_train(tmp_path: Path, positives: int, candidate: str) -> None:
    columns = {"x": [index / 7 for index in range(200)], "y": [int(index < positives) for index in range(200)]}

    result = trained(tmp_path, tables.from_memory(columns), "y", candidates=(candidate,), holdout=0.5)

    assert result.parity.label_flips == 0


def test_headers_are_trimmed_for_the_target_too(tmp_path: Path) -> None:
    result = trained(tmp_path, IRIS, " species ", trials=2)

    assert bundle.open(Path(result.path)).manifest.training.target == "species"


@pytest.mark.parametrize("options", [{"holdout": 1.0}, {"folds": 1}, {"trials": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TrainingError):
        TrainingOptions(target="y", name="x", **options)


def test_predictions_of_a_whole_table_are_those_of_its_rows(tmp_path: Path) -> None:
    opened = bundle.open(Path(trained(tmp_path, LOANS, "loan_status").path))
    manifest = opened.manifest
    graph = open_graph(opened.model, manifest.output.name)
    encoder = RowEncoder(manifest.schema, manifest.plan)
    frame = LOANS.frame[:100]

    whole = tables.with_predictions(
        frame, manifest.decision, graph.run(tables.encode(frame, manifest.schema, manifest.plan))
    )

    for row, result in zip(frame.select(manifest.schema.names()).to_dicts(), whole.to_dicts(), strict=True):
        alone = score_rows(manifest.decision, graph.run(stack_rows(encoder.plan, [encoder.parse(row)])))[0]
        assert (alone.prediction, alone.score) == (result["prediction"], result["score"])
