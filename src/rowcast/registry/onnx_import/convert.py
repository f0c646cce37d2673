"""The story of an import: a graph and its metadata become a manifest with golden rows. Read `adopt` top to bottom.

What the graph gives is taken as it shows itself on rows: a tensor named `probabilities` that holds raw scores is raw
scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import BundleError, InvalidRows, SettingsError
from rowcast.registry.bundle import Fingerprint, GoldenRow, Manifest, Output, Parity
from rowcast.registry.onnx_import.metadata import Metadata, read_metadata
from rowcast.registry.onnx_import.signature import (
    FLOATS,
    LABELS,
    MAPS,
    SeenColumn,
    chosen_output,
    label_output,
    plan_of,
    with_examples,
)
from rowcast.registry.ports import GraphTensor, UnknownGraph
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.outputs import output_reader
from rowcast.schema.prediction import Decision, Label, has_probabilities
from rowcast.schema.schema import Column, Schema, Value
from rowcast.schema.scores import non_finite_rows, score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.wire.codec import compile_template

ROWS: Final = 64
GOLDEN: Final = 32
SUM_TOLERANCE: Final = 1e-3
TEXTS: Final = ("a", "b", "c")
MATRIX: Final = "matrix"
NATIVE: Final = "native"
MATRIX_REQUEST: Final[Mapping[str, Any]] = {
    "form": "matrix",
    "path": "data",
    "batch": "requests[].data",
    "use_cache": "use_cache",
    "cache_ttl": "cache_ttl",
}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be imported."""

    name: str
    metadata: dict[str, Any] = {}
    wire: dict[str, Any] | str | None = None
    """A template, `matrix`, `native`, or what fits the metadata."""
    source: str = ""
    sha256: str = ""
    max_nodes: int = 0
    rows: list[dict[str, Any]] = []
    """Rows of a table, as its cells are read."""
    columns: list[str] = []
    seen: dict[str, SeenColumn] = {}


class Adopted(msgspec.Struct, frozen=True):
    """A model that can be packed, and what should be said of it."""

    manifest: Manifest
    golden: list[GoldenRow]
    notes: list[str]


class Answers(NamedTuple):
    """What the graph says of the rows."""

    read: Any
    labels: list[Any] | None


def adopt(graph: UnknownGraph, ask: Ask) -> Adopted:
    """The manifest and golden rows; BundleError or SettingsError says why there can be none."""
    metadata = read_metadata(ask.metadata)
    schema, plan = plan_of(graph.inputs, metadata, ask.seen, ask.columns)
    encoder = RowEncoder(schema, plan)
    rows = _given_rows(schema, ask.rows) or _made_rows(schema)
    tensors = stack_rows(encoder.plan, [encoder.parse(row) for row in rows])
    chosen = chosen_output(graph.outputs, metadata)
    beside = label_output(graph.outputs, chosen) if not metadata.output else None
    answers = Answers(
        graph.run(chosen.name, tensors),
        None if beside is None else np.asarray(graph.run(beside.name, tensors)).reshape(-1).tolist(),
    )
    output, decision, notes = _read_as(chosen, answers, metadata, len(rows))
    read = output_reader(output.kind, output.activation, decision)(_array(answers.read))
    finite = sorted(set(range(len(rows))) - set(non_finite_rows(read)))
    if not finite:
        raise BundleError(
            "the graph has no finite answer for any row that was tried; give rows that it knows with --data TABLE"
        )
    outcomes = score_rows(decision, read[finite])
    _compare(answers.labels, finite, [one.prediction for one in outcomes], decision, beside)
    golden = [GoldenRow(rows[place], one) for place, one in zip(finite, outcomes, strict=True)][:GOLDEN]
    schema = with_examples(schema, golden[0].row)
    wire = _wire(ask, metadata, decision, sure=has_probabilities(output.kind, output.activation))
    if wire is not None:
        sure = has_probabilities(output.kind, output.activation)
        compile_template(
            wire,
            model=ask.name,
            version=1,
            schema=schema,
            decision=decision,
            parse_row=encoder.read,
            has_probabilities=sure,
        )
    manifest = Manifest(
        name=ask.name,
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
        training=Fingerprint(
            table=ask.source,
            sha256=ask.sha256,
            rows=0,
            target=metadata.target or metadata.model_name or ask.name,
            seed=0,
            candidate="imported",
            params={},
            calibration={"method": "none"},
            options={"metadata": ask.metadata},
        ),
        versions={},
    )
    return Adopted(manifest, golden, notes)


def _given_rows(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Value]]:
    """Rows of a table as a client would send them."""
    found = []
    for number, cells in enumerate(rows[:ROWS]):
        try:
            parsed = schema.parse({name: cells.get(name) for name in schema.names()}, text=True)
        except InvalidRows as invalid:
            problem = invalid.problems[0]
            raise SettingsError(
                f"row {number} of the table does not fit the graph: {problem.column} {problem.message}"
            ) from None
        found.append(dict(zip(schema.names(), parsed, strict=True)))
    return found


def _made_rows(schema: Schema) -> list[dict[str, Value]]:
    """Random rows, in the ranges that were seen."""
    rng = np.random.default_rng(0)
    return [{column.name: _made(column, rng) for column in schema.columns} for _ in range(ROWS)]


def _made(column: Column, rng: np.random.Generator) -> Value:
    if column.kind == "boolean":
        return bool(rng.integers(2))
    if column.kind == "category":
        known = column.levels or TEXTS
        return str(known[rng.integers(len(known))])
    low, high = (column.low, column.high) if column.low is not None and column.high is not None else (0.0, 10.0)
    if column.kind == "integer":
        return int(rng.integers(int(low), int(high) + 1))
    return round(float(rng.uniform(low, high)), 4)


def _array(answer: Any) -> NDArray[Any]:
    """An output as an array: maps in the order of their keys."""
    return (
        np.array([list(row.values()) for row in answer], np.float32) if isinstance(answer, list) else np.asarray(answer)
    )


def _read_as(
    chosen: GraphTensor, answers: Answers, metadata: Metadata, rows: int
) -> tuple[Output, Decision, list[str]]:
    """How the output is read, and what is decided by it."""
    found = _array(answers.read)
    if found.ndim not in (1, 2) or len(found) != rows or not found.size:
        raise BundleError(f"the output {chosen} is {list(found.shape)} for {rows} rows; it must be [N] or [N, k]")
    if chosen.type in LABELS and metadata.task != "regression":
        classes = _classes(metadata, None, found.reshape(-1).tolist())
        return (
            Output(chosen.name, "labels"),
            _decision(classes, metadata),
            _told(chosen, "labels, without probabilities"),
        )
    width = 1 if found.ndim == 1 else int(found.shape[1])
    if _is_regression(chosen, answers, metadata, width):
        if width != 1:
            raise BundleError(f"the output {chosen} has {width} values a row; a regression predicts one")
        return Output(chosen.name, "values"), Decision(task="regression"), _told(chosen, "values")
    keys = list(answers.read[0]) if chosen.type in MAPS else None
    classes = _classes(metadata, keys, answers.labels, max(width, 2))
    if len(classes) != max(width, 2):
        raise SettingsError(
            f"the model's metadata names {len(classes)} classes; the output {chosen} tells of {max(width, 2)}"
        )
    decision = _decision(classes, metadata)
    if metadata.activation != "none":
        return (
            Output(chosen.name, "scores", metadata.activation),
            decision,
            _told(chosen, f"raw scores made probabilities by {metadata.activation}"),
        )
    certain = metadata.output_kind == "probabilities" or (not metadata.output_kind and _are_probabilities(found))
    if certain:
        return Output(chosen.name, "probabilities"), decision, _told(chosen, "probabilities")
    hint = (
        "raw scores, without probabilities; set `activation` to sigmoid or softmax in the metadata if one belongs there"
    )
    return Output(chosen.name, "scores"), decision, _told(chosen, hint)


def _is_regression(chosen: GraphTensor, answers: Answers, metadata: Metadata, width: int) -> bool:
    if metadata.output_kind:
        return metadata.output_kind == "values"
    if metadata.task:
        return metadata.task == "regression"
    told = metadata.class_names is not None or metadata.output_classes is not None or metadata.activation != "none"
    return chosen.type in FLOATS and width == 1 and answers.labels is None and not told


def _are_probabilities(found: NDArray[Any]) -> bool:
    """Whether every row is shares of one; of a single column, whether all lie between 0 and 1."""
    finite = found[np.isfinite(found.reshape(len(found), -1)).all(axis=1)]
    if not len(finite) or np.any(finite < -1e-6) or np.any(finite > 1 + 1e-6):
        return False
    return finite.ndim == 1 or finite.shape[1] == 1 or bool(np.all(np.abs(finite.sum(axis=1) - 1) < SUM_TOLERANCE))


def _classes(
    metadata: Metadata, keys: Sequence[Any] | None, labels: Sequence[Any] | None, width: int | None = None
) -> tuple[Label, ...]:
    """The classes in the order of the output: by its keys, by the metadata, or 0, 1, 2 ..."""
    named = metadata.class_names
    if keys is not None and all(isinstance(key, str) for key in keys):
        if named is not None and {str(name) for name in named} != set(keys):
            raise SettingsError(f"the model's metadata: class_names are not the graph's classes {', '.join(keys)}")
        return tuple(keys)
    if keys is not None and named is not None and not all(0 <= key < len(named) for key in keys):
        shown = ", ".join(map(str, keys[:8]))
        raise SettingsError(f"the model's metadata names {len(named)} classes; the graph numbers them {shown}")
    if keys is not None:
        return tuple(keys) if named is None else tuple(named[key] for key in keys)
    if named is not None:
        return tuple(named)
    count = metadata.output_classes or width
    seen = sorted(set(labels or ()), key=str)
    if any(isinstance(label, str) for label in seen):
        raise SettingsError(
            f"the graph's labels are texts ({', '.join(map(str, seen[:8]))}); name all classes, in the order of its "
            "output, as `class_names` in the metadata"
        )
    if count is None:
        count = max((int(label) for label in seen), default=1) + 1
    if any(not 0 <= label < count for label in seen):
        raise SettingsError(
            f"the graph's labels are {', '.join(map(str, seen[:8]))}; name them as `class_names` in the metadata"
        )
    return tuple(range(max(count, 2)))


def _decision(classes: tuple[Label, ...], metadata: Metadata) -> Decision:
    if len(classes) < 2:
        raise SettingsError("the model's metadata: a classifier has two classes at least")
    if len(classes) > 2:
        return Decision(task="multiclass", classes=classes)
    if metadata.positive is None:
        return Decision(task="binary", classes=classes)
    if metadata.positive not in classes:
        raise SettingsError(f"the model's metadata: positive is {metadata.positive!r}; the classes are {classes}")
    return Decision(task="binary", classes=classes, positive=classes.index(metadata.positive))


def _compare(
    labels: Sequence[Any] | None,
    finite: Sequence[int],
    ours: Sequence[Label],
    decision: Decision,
    beside: GraphTensor | None,
) -> None:
    """The graph's own labels must be ours; BundleError when it decides by another rule."""
    if labels is None or decision.task == "regression":
        return
    read = output_reader("labels", "none", decision)
    places = read(np.array([labels[row] for row in finite], object)).tolist()
    theirs = [None if place != place else decision.classes[int(place)] for place in places]
    wrong = [row for row, (one, other) in enumerate(zip(theirs, ours, strict=True)) if one is not None and one != other]
    if wrong or any(one is None for one in theirs):
        row = wrong[0] if wrong else theirs.index(None)
        raise BundleError(
            f"the graph's own label {beside} is {labels[finite[row]]!r} where its scores say {ours[row]!r}: are the "
            "class names in the order of its output? To go by the scores all the same, name them as `output` in the "
            "metadata"
        )


def _wire(ask: Ask, metadata: Metadata, decision: Decision, *, sure: bool) -> dict[str, Any] | None:
    if isinstance(ask.wire, dict):
        return ask.wire
    if ask.wire == NATIVE or (ask.wire is None and not metadata.is_matrix):
        return None
    return matrix_template(decision, sure=sure)


def card(adopted: Adopted) -> str:
    """The model card of an import: what is known of it."""
    manifest = adopted.manifest
    source = f"Imported from {manifest.training.table}, sha256 `{manifest.training.sha256}`."
    lines = [
        f"# {manifest.name}",
        "",
        f"{source} Rowcast did not train it and has measured nothing.",
        "",
        *[f"- {note}" for note in adopted.notes],
        f"- Task: {manifest.decision.task}",
        f"- Columns: {', '.join(manifest.schema.names())}",
    ]
    return "\n".join(lines) + "\n"


def matrix_template(decision: Decision, *, sure: bool) -> dict[str, Any]:
    """The dialect of servers that take `{"data": [[...]]}`, for any model."""
    word = "$prediction" if decision.task == "regression" else "$class_index"
    reply: dict[str, Any] = {"predictions": {"$rows": word}}
    if sure:
        reply["probabilities"] = {"$rows": "$probabilities"}
    reply["model_info"] = {
        "model_name": "$model",
        "prediction_time": "$latency_seconds",
        "input_shape": "$input_shape",
        "cached": "$cached",
    }
    root = {"status": "healthy", "model_loaded": "$model_loaded", "model_name": "$model"}
    return {
        "request": dict(MATRIX_REQUEST),
        "reply": reply,
        "batch_reply": {"predictions": {"$requests": "$reply"}},
        "root": root,
    }


def _told(chosen: GraphTensor, what: str) -> list[str]:
    return [f"the output {chosen} is read as {what}"]
