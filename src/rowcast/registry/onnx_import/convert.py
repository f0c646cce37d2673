"""Convert an imported graph and its metadata into a manifest with golden rows.

How the output is read depends on its values for trial rows, not on its name: a tensor named `probabilities` that
contains raw scores is read as raw scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import BundleError, InvalidRows, SettingsError
from rowcast.registry.bundle import Fingerprint, GoldenRow, Manifest, Output, Parity
from rowcast.registry.onnx_import.classes import build_decision, class_labels
from rowcast.registry.onnx_import.metadata import Metadata, metadata_error, read_metadata
from rowcast.registry.onnx_import.request import MATRIX, NATIVE, ConvertedModel, ImportRequest
from rowcast.registry.onnx_import.signature import (
    FLOATS,
    LABELS,
    MAPS,
    build_plan,
    label_output,
    select_output,
    with_examples,
)
from rowcast.registry.ports import ForeignGraph, GraphTensor
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.outputs import output_reader
from rowcast.schema.prediction import Decision, Label, has_probabilities
from rowcast.schema.schema import Column, Schema, Value
from rowcast.schema.scores import non_finite_rows, score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.wire.codec import compile_template

TRIAL_ROWS: Final = 64
GOLDEN_ROWS: Final = 32
SUM_TOLERANCE: Final = 1e-3
TEXTS: Final = ("a", "b", "c")
MATRIX_REQUEST: Final[Mapping[str, Any]] = {
    "form": "matrix",
    "path": "data",
    "batch": "requests[].data",
    "use_cache": "use_cache",
    "cache_ttl": "cache_ttl",
}


class GraphAnswers(NamedTuple):
    """The selected output for the trial rows, and the graph's own labels if it returns any."""

    output: Any
    labels: list[Any] | None


class Interpretation(NamedTuple):
    """The rules for converting the selected output into predictions, with a note for the user."""

    output: Output
    decision: Decision
    note: str


def convert(graph: ForeignGraph, request: ImportRequest) -> ConvertedModel:
    """Score trial rows and convert the graph; raise BundleError or SettingsError if the conversion fails."""
    metadata = read_metadata(request.metadata)
    schema, plan = build_plan(graph.inputs, metadata, observed=request.observed, table_columns=request.columns)
    encoder = RowEncoder(schema, plan)
    rows = _table_rows(schema, request.rows) or _random_rows(schema)
    tensors = stack_rows(encoder.plan, [encoder.parse(row) for row in rows])
    selected = select_output(graph.outputs, metadata)
    label_tensor = label_output(graph.outputs, selected) if not metadata.output else None
    labels = [] if label_tensor is None else np.asarray(graph.run(label_tensor.name, tensors)).ravel().tolist()
    answers = GraphAnswers(graph.run(selected.name, tensors), None if label_tensor is None else labels)
    output, decision, note = _interpret(selected, answers, metadata, row_count=len(rows))
    scores = output_reader(output.kind, output.activation, decision)(_as_array(answers.output))
    finite = sorted(set(range(len(rows))) - set(non_finite_rows(scores)))
    if not finite:
        message = (
            "the graph returned no finite output for any trial row; supply a table of rows that the graph can score"
        )
        raise BundleError(message, slug="no-finite-answer")
    results = score_rows(decision, scores[finite])
    if label_tensor is not None:
        finite_labels = [labels[row] for row in finite]
        _compare_labels(label_tensor, finite_labels, [result.prediction for result in results], decision)
    golden = [GoldenRow(rows[row], result) for row, result in zip(finite, results, strict=True)][:GOLDEN_ROWS]
    schema = with_examples(schema, golden[0].row)
    is_certain = has_probabilities(output.kind, output.activation)
    wire = _wire_template(request, metadata, decision, is_certain=is_certain)
    if wire is not None:
        compile_template(
            wire,
            model=request.name,
            version=1,
            schema=schema,
            decision=decision,
            parse_row=encoder.read,
            has_probabilities=is_certain,
        )
    manifest = Manifest(
        name=request.name,
        created="",
        schema=schema,
        plan=plan,
        output=output,
        decision=decision,
        wire=wire,
        metric="",
        score=0.0,
        holdout={},
        parity=Parity(len(golden), 0.0, 0),
        training=_fingerprint(request, metadata),
        versions={},
    )
    return ConvertedModel(manifest, golden, [note])


def _fingerprint(request: ImportRequest, metadata: Metadata) -> Fingerprint:
    """Return a fingerprint of the imported file, which takes the place of a training table's fingerprint."""
    return Fingerprint(
        table=request.source,
        sha256=request.sha256,
        rows=0,
        target=metadata.target or metadata.model_name or request.name,
        seed=0,
        candidate="imported",
        params={},
        calibration={"method": "none"},
        options={"metadata": request.metadata},
    )


def _table_rows(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Value]]:
    """Return rows of the user's table as a client would send them."""
    parsed_rows = []
    for number, cells in enumerate(rows[:TRIAL_ROWS]):
        try:
            values = schema.parse({name: cells.get(name) for name in schema.names()}, text=True)
        except InvalidRows as invalid:
            message = f"the table does not match the graph's inputs: row {number}: {invalid.problems[0].reason}"
            raise SettingsError(message, slug="table-mismatch") from None
        parsed_rows.append(dict(zip(schema.names(), values, strict=True)))
    return parsed_rows


def _random_rows(schema: Schema) -> list[dict[str, Value]]:
    """Return random rows within the observed ranges."""
    rng = np.random.default_rng(0)
    return [{column.name: _random_value(column, rng) for column in schema.columns} for _ in range(TRIAL_ROWS)]


def _random_value(column: Column, rng: np.random.Generator) -> Value:
    if column.kind == "boolean":
        return bool(rng.integers(2))
    if column.kind == "category":
        levels = column.levels or TEXTS
        return str(levels[rng.integers(len(levels))])
    low, high = (column.low, column.high) if column.low is not None and column.high is not None else (0.0, 10.0)
    if column.kind == "integer":
        return int(rng.integers(int(low), int(high) + 1))
    return round(float(rng.uniform(low, high)), 4)


def _as_array(output: Any) -> NDArray[Any]:
    """Return an output as an array. Each map becomes one row, with the map's values in their original order."""
    if isinstance(output, list):
        return np.array([list(row.values()) for row in output], np.float32)
    return np.asarray(output)


def _interpret(selected: GraphTensor, answers: GraphAnswers, metadata: Metadata, *, row_count: int) -> Interpretation:
    array = _as_array(answers.output)
    if array.ndim not in (1, 2) or len(array) != row_count or not array.size:
        message = (
            f"the output {selected} has the shape {list(array.shape)} for {row_count} rows; expected [N] or [N, k]"
        )
        raise BundleError(message, slug="unsupported-output")
    if selected.type in LABELS and metadata.task != "regression":
        classes = class_labels(metadata, labels=array.ravel().tolist())
        note = _note(selected, "labels, without probabilities")
        return Interpretation(Output(selected.name, "labels"), build_decision(classes, metadata), note)
    width = 1 if array.ndim == 1 else int(array.shape[1])
    if _is_regression(selected, answers, metadata, width=width):
        if width != 1:
            message = (
                f"the output {selected} has {width} values per row; a regression model must return one value per row"
            )
            raise BundleError(message, slug="unsupported-output")
        return Interpretation(Output(selected.name, "values"), Decision(task="regression"), _note(selected, "values"))
    keys = list(answers.output[0]) if selected.type in MAPS else None
    classes = class_labels(metadata, keys=keys, labels=answers.labels, width=max(width, 2))
    if len(classes) != max(width, 2):
        message = f"specifies {len(classes)} classes, but the output {selected} has {max(width, 2)}"
        raise metadata_error("output_classes" if metadata.class_names is None else "class_names", message)
    decision = build_decision(classes, metadata)
    if metadata.activation != "none":
        note = _note(selected, f"raw scores, converted into probabilities by {metadata.activation}")
        return Interpretation(Output(selected.name, "scores", metadata.activation), decision, note)
    if metadata.output_kind == "probabilities" or (not metadata.output_kind and _are_probabilities(array)):
        return Interpretation(Output(selected.name, "probabilities"), decision, _note(selected, "probabilities"))
    note = _note(
        selected,
        "raw scores, without probabilities; to convert them with sigmoid or softmax, set `activation` in the metadata",
    )
    return Interpretation(Output(selected.name, "scores"), decision, note)


def _is_regression(selected: GraphTensor, answers: GraphAnswers, metadata: Metadata, *, width: int) -> bool:
    if metadata.output_kind:
        return metadata.output_kind == "values"
    if metadata.task:
        return metadata.task == "regression"
    names_classes = metadata.class_names is not None or metadata.output_classes is not None
    is_classifier = names_classes or metadata.activation != "none"
    return selected.type in FLOATS and width == 1 and answers.labels is None and not is_classifier


def _are_probabilities(array: NDArray[Any]) -> bool:
    """Return whether all finite values lie between 0 and 1 and, if there are several columns, each row sums to 1."""
    finite = array[np.isfinite(array) if array.ndim == 1 else np.isfinite(array).all(axis=1)]
    if not len(finite) or np.any(finite < -1e-6) or np.any(finite > 1 + 1e-6):
        return False
    return finite.ndim == 1 or finite.shape[1] == 1 or bool(np.all(np.abs(finite.sum(axis=1) - 1) < SUM_TOLERANCE))


def _compare_labels(
    tensor: GraphTensor, labels: Sequence[Any], predictions: Sequence[Label], decision: Decision
) -> None:
    """Raise BundleError unless the graph's own labels match the predictions derived from its scores."""
    if decision.task == "regression":
        return
    indices = output_reader("labels", "none", decision)(np.array(labels, object)).tolist()
    # An unknown label is read as NaN, the only value that differs from itself.
    own = [None if index != index else decision.classes[int(index)] for index in indices]
    different = [row for row, label in enumerate(own) if label is not None and label != predictions[row]]
    if different or None in own:
        row = different[0] if different else own.index(None)
        raise BundleError(
            f"the graph's label output {tensor} is {labels[row]!r}, but the scores predict {predictions[row]!r}; "
            "check that the class names are in the same order as the scores, or, to ignore the labels, set `output` in "
            "the metadata to the name of the score output",
            slug="label-mismatch",
        )


def _wire_template(
    request: ImportRequest, metadata: Metadata, decision: Decision, *, is_certain: bool
) -> dict[str, Any] | None:
    if isinstance(request.wire, dict):
        return request.wire
    if request.wire == MATRIX or (request.wire != NATIVE and metadata.is_matrix):
        return matrix_template(decision, is_certain=is_certain)
    return None


def matrix_template(decision: Decision, *, is_certain: bool) -> dict[str, Any]:
    """Return a wire template for `{"data": [[...]]}` requests; the reply fields depend on the decision."""
    prediction = "$prediction" if decision.task == "regression" else "$class_index"
    reply: dict[str, Any] = {"predictions": {"$rows": prediction}}
    if is_certain:
        reply["probabilities"] = {"$rows": "$probabilities"}
    reply["model_info"] = {
        "model_name": "$model",
        "prediction_time": "$latency_seconds",
        "input_shape": "$input_shape",
        "cached": "$cached",
    }
    return {
        "request": dict(MATRIX_REQUEST),
        "reply": reply,
        "batch_reply": {"predictions": {"$requests": "$reply"}},
        "root": {"status": "healthy", "model_loaded": "$model_loaded", "model_name": "$model"},
    }


def _note(selected: GraphTensor, reading: str) -> str:
    return f"the output {selected} is read as {reading}"
