"""Live models: verification on golden rows, classification as slow or fast, and rows that cannot be scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import BundleError, GraphFailed, NoAnswer
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.schema.encoding import NUMBERS
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel, check_batch, load, verify, warm_up
from support import models

SUM = Reference("sum", 1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> FolderRegistry:
    registry = FolderRegistry(tmp_path_factory.mktemp("registry"))
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return registry


@pytest.fixture
def model(registry: FolderRegistry) -> LiveModel:
    return load(SUM, registry, open_graph)


@pytest.fixture
def golden(registry: FolderRegistry) -> tuple[bundle.GoldenRow, ...]:
    return tuple(bundle.open(registry.folder(SUM)).golden)


def test_a_loaded_model_scores_rows_and_has_a_golden_row(model: LiveModel) -> None:
    assert model.score([model.encoder.read(b'{"x0":1,"x1":2}')]) == [Score(3.0)]
    assert model.golden is not None
    assert not model.is_slow


def test_a_model_without_golden_rows_cannot_be_verified(model: LiveModel) -> None:
    with pytest.raises(BundleError):
        verify(model, [])


def test_a_model_with_a_wrong_golden_score_is_rejected(model: LiveModel, golden: tuple[bundle.GoldenRow, ...]) -> None:
    wrong = msgspec.structs.replace(golden[0], score=Score(1000.0))

    with pytest.raises(BundleError) as refused:
        verify(model, [*golden, wrong])

    assert "golden row 1" in refused.value.message


class BatchDependent:
    """Adds the columns of each row; in a batch, each sum is too large by one float32 step plus `error`."""

    def __init__(self, error: float = 0.0) -> None:
        self._error = np.float32(error)

    def run(self, tensors: Mapping[str, Any]) -> Any:
        total = tensors[NUMBERS].sum(axis=1, keepdims=True)
        return np.nextafter(total, np.float32(np.inf)) + self._error if len(total) > 1 else total


def test_a_trained_model_whose_scores_depend_on_the_batch_size_is_rejected(
    registry: FolderRegistry, golden: tuple[bundle.GoldenRow, ...]
) -> None:
    opened = bundle.open(registry.folder(SUM))

    with pytest.raises(BundleError) as refused:
        verify(LiveModel(SUM, opened.manifest, BatchDependent()), [golden[0], golden[0]])

    assert "on its own" in refused.value.message


@pytest.mark.parametrize("step", [2.0**-22, 0.5])
def test_a_published_bundle_whose_scores_depend_on_the_batch_size_is_not_loaded(tmp_path: Path, step: float) -> None:
    registry, graph = FolderRegistry(tmp_path), models.batch_size_graph(step)
    reference = models.publish(registry, "odd", graph, models.number_columns(1), models.REGRESSION, "values")
    assert len(bundle.open(registry.folder(reference)).golden) == 1

    with pytest.raises(BundleError) as refused:
        load(reference, registry, open_graph)

    assert "golden row 0" in refused.value.message


def test_the_scores_of_an_imported_model_may_differ_between_batch_sizes_only_by_rounding_errors(
    registry: FolderRegistry, golden: tuple[bundle.GoldenRow, ...]
) -> None:
    manifest = bundle.open(registry.folder(SUM)).manifest
    close, different = LiveModel(SUM, manifest, BatchDependent()), LiveModel(SUM, manifest, BatchDependent(0.001))
    close.is_own_export = different.is_own_export = False
    total = close.score([close.encoder.parse(golden[0].row)] * 2)[0]
    certified = msgspec.structs.replace(golden[0], score=different.score([close.encoder.parse(golden[0].row)] * 2)[0])

    verify(close, [msgspec.structs.replace(golden[0], score=total)] * 2)
    with pytest.raises(BundleError) as refused:
        verify(different, [certified, certified])

    assert "on its own" in refused.value.message


@pytest.mark.parametrize(("seconds", "is_slow"), [(0.0009, False), (0.001, False), (0.0011, True)])
def test_a_model_is_classified_as_slow_if_its_fastest_run_takes_more_than_a_millisecond(
    model: LiveModel, golden: tuple[bundle.GoldenRow, ...], seconds: float, *, is_slow: bool
) -> None:
    # The clock is read before and after each run; the first runs take longer.
    readings = iter([reading for factor in (9, 3, 1, 1, 2) for reading in (0.0, seconds * factor)])

    warm_up(model, golden, lambda: next(readings))

    assert model.is_slow is is_slow


def test_the_error_from_a_failing_graph_lists_the_rows_that_cause_it(registry: FolderRegistry) -> None:
    class Refusing:
        """A graph that fails on negative numbers."""

        def run(self, tensors: Mapping[str, Any]) -> Any:
            if (tensors[NUMBERS] < 0).any():
                raise GraphFailed("negative")
            return tensors[NUMBERS].sum(axis=1, keepdims=True)

    model = LiveModel(SUM, bundle.open(registry.folder(SUM)).manifest, Refusing())
    rows = [model.encoder.read(b'{"x0":%d,"x1":2}' % number) for number in (1, -1, 3, -2)]

    with pytest.raises(NoAnswer) as refused:
        model.score(rows)

    assert refused.value.rows == [1, 3]


def test_all_rows_in_a_batch_fail_if_the_graph_fails_on_batches_but_not_on_single_rows(
    registry: FolderRegistry,
) -> None:
    class Lonely:
        """A graph that fails on batches of several rows."""

        def run(self, tensors: Mapping[str, Any]) -> Any:
            if len(tensors[NUMBERS]) > 1:
                raise GraphFailed("too many")
            return tensors[NUMBERS].sum(axis=1, keepdims=True)

    model = LiveModel(SUM, bundle.open(registry.folder(SUM)).manifest, Lonely())

    with pytest.raises(NoAnswer) as refused:
        model.score([model.encoder.read(b'{"x0":1,"x1":2}')] * 3)

    assert refused.value.rows == [0, 1, 2]


def test_the_predicted_classes_in_an_output_array_are_counted(tmp_path: Path) -> None:
    schema, decision = models.number_columns(2), models.classes("a", "b", "c")
    classifier = models.live(tmp_path, "m", models.mlp_graph(2, 3), schema, decision, "probabilities")
    output = np.array([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.2, 0.6, 0.2]], np.float32)

    assert classifier.tally(output) == ({"a": 1, "b": 2}, 1.0)


@pytest.mark.parametrize(("seconds", "runs"), [(0.00005, 1), (0.0001, 5), (0.1, 5)])
def test_a_very_fast_model_is_run_once_and_other_models_five_times(
    model: LiveModel, golden: tuple[bundle.GoldenRow, ...], seconds: float, runs: int
) -> None:
    readings: list[float] = []

    def clock() -> float:
        readings.append(seconds if len(readings) % 2 else 0.0)
        return readings[-1]

    warm_up(model, golden, clock)

    assert len(readings) == 2 * runs


@pytest.mark.parametrize(("count", "sizes"), [(1, [4, 1]), (3, [4, 1, 1, 1]), (5, [5, 1, 1, 1, 1, 1])])
def test_golden_rows_are_verified_in_a_batch_of_at_least_four_rows_and_individually(
    registry: FolderRegistry, golden: tuple[bundle.GoldenRow, ...], count: int, sizes: list[int]
) -> None:
    seen: list[int] = []

    class Noting:
        """A graph that adds the columns and records the batch sizes."""

        def run(self, tensors: Mapping[str, Any]) -> Any:
            seen.append(len(tensors[NUMBERS]))
            return tensors[NUMBERS].sum(axis=1, keepdims=True)

    verify(LiveModel(SUM, bundle.open(registry.folder(SUM)).manifest, Noting()), [golden[0]] * count)

    assert seen == sizes


def test_scores_are_compared_with_a_tolerance_of_one_millionth(model: LiveModel) -> None:
    assert model.compare(Score(1.0), Score(1.0 + 0.9e-6)) == "equal"
    assert model.compare(Score(1.0), Score(1.0 + 1.1e-6)) == "different"


def test_the_last_prediction_of_a_regression_model_is_tallied(model: LiveModel) -> None:
    assert model.tally(np.array([[3.0], [4.5]], np.float32)) == ({}, 4.5)


def test_classes_that_are_not_predicted_are_not_counted(tmp_path: Path) -> None:
    schema, decision = models.number_columns(2), models.classes("a", "b", "c")
    classifier = models.live(tmp_path, "m", models.mlp_graph(2, 3), schema, decision, "probabilities")

    assert classifier.tally(np.array([[0.1, 0.1, 0.8]] * 3, np.float32)) == ({"c": 3}, 2.0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GraphFailed("no memory"), "sum@1 cannot score 1 of its golden rows: no memory"),
        (ValueError("a  bad\nshape"), "sum@1 cannot be run: a bad shape"),
        (ValueError("x" * 400), f"sum@1 cannot be run: {'x' * 300}"),
        (BundleError("it is damaged"), "it is damaged"),
    ],
)
def test_the_error_for_a_model_that_cannot_be_loaded_contains_the_cause(
    registry: FolderRegistry, error: Exception, message: str
) -> None:
    class Failing:
        """A graph that fails on several rows."""

        def run(self, tensors: Mapping[str, Any]) -> Any:
            raise error

    with pytest.raises(BundleError) as refused:
        load(SUM, registry, lambda content, output: Failing())

    assert refused.value.message.startswith(message[:24])
    assert refused.value.message.endswith(message[24:])


def test_the_error_for_a_batch_that_cannot_be_scored_contains_its_size(model: LiveModel) -> None:
    sizes: list[int] = []

    def run(tensors: Mapping[str, Any]) -> Any:
        sizes.append(len(tensors[NUMBERS]))
        raise GraphFailed("no memory")

    check_batch(model, 3)
    model._graph.run = run  # type: ignore[method-assign]
    with pytest.raises(BundleError) as refused:
        check_batch(model, 3)

    assert refused.value.message == "sum@1 cannot score a batch of 3 rows: no memory"
    assert sizes == [3, 1, 1, 1]
