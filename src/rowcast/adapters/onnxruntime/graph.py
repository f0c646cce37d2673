"""Graphs on ONNX Runtime: one thread, no spinning, the same bits for a row whatever its companions are.

Many rows are scored by trees in another order than they stand in (docs/decisions/0024).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rowcast.errors import BundleError, GraphFailed
from rowcast.registry.ports import GraphTensor

# A row alone takes another matrix kernel than in a batch (a third of linear answers differ in the last bit), so one row
# is padded to two. Larger pieces than this gain nothing (200 trees: 5.2 µs a row at 64, 4.4 at 256), and one request's
# memory must not grow with its rows.
CHUNK = 256

SORTED_FROM = 16 * CHUNK
"""With fewer rows, neighbours are not enough alike to pay for the sorting."""
SORTED_BY, PARTS = 4, 8


class OnnxGraph:
    """A loaded ONNX model with one output that is read."""

    def __init__(self, session: ort.InferenceSession, output: str, *, trees: bool) -> None:
        self._session = session
        self._outputs = [output]
        self._trees = trees
        self._row_shape: tuple[int, ...] | None = None
        """What a row's answer is like, since the first."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What the output holds, a row an entry; rows are scored in chunks, never alone. GraphFailed when it breaks."""
        count = len(next(iter(tensors.values())))
        if 1 < count <= CHUNK:
            return self._score(dict(tensors))
        if count == 1:
            return self._score({name: np.repeat(array, 2, axis=0) for name, array in tensors.items()})[:1]
        numbers = next((array for array in tensors.values() if array.dtype.kind == "f" and array.ndim == 2), None)
        if not self._trees or numbers is None or count < SORTED_FROM:
            return self._chunks(tensors, count)
        first = self._score({name: array[:CHUNK] for name, array in tensors.items()})
        if first.dtype.kind != "f":  # labels
            return self._chunks(tensors, count)
        order = _neighbours(numbers, first)
        answers = self._chunks({name: array[order] for name, array in tensors.items()}, count)
        restored = np.empty_like(answers)
        restored[order] = answers
        return restored

    def _chunks(self, tensors: Mapping[str, NDArray[Any]], count: int) -> NDArray[Any]:
        starts = list(range(0, count, CHUNK))
        if count - starts[-1] == 1:
            starts[-1] -= 1  # the last row would be alone: let it overlap with its neighbour
        pieces = [
            self._score({name: array[start : start + CHUNK] for name, array in tensors.items()}) for start in starts
        ]
        if len(starts) > 1 and starts[-1] % CHUNK:
            pieces[-1] = pieces[-1][1:]
        return np.concatenate(pieces)

    def _score(self, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            output: Any = self._session.run(self._outputs, feed)[0]
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise GraphFailed(f"the graph cannot be run: {_said(error)}") from None
        if isinstance(output, list):  # a map a row, label to probability, its keys in the same order in every row
            output = np.array([list(row.values()) for row in output], np.float32)
        found: NDArray[Any] = output
        count = len(next(iter(feed.values())))
        if self._row_shape is None:
            self._row_shape = found.shape[1:]
        if found.shape != (count, *self._row_shape):  # taken as it is, callers would get the answers of others
            raise GraphFailed(f"the graph's output is {list(found.shape)} for {count} rows")
        return found


def _neighbours(numbers: NDArray[Any], answers: NDArray[np.float32]) -> NDArray[np.intp]:
    """An order of the rows in which neighbours are alike in the columns that tell most about the first answers.

    A row that takes the ways of the row before it is guessed right by the processor (`make bench-batch`: 3.6 µs a row
    become 2.7; a forest's 5.6 become 3.8).
    """
    first = numbers[:CHUNK]
    ranked = np.argsort(first, axis=0)
    means = answers.reshape(CHUNK, -1)[ranked].reshape(PARTS, CHUNK // PARTS, first.shape[1], -1).mean(axis=1)
    told = means.var(axis=0).sum(axis=-1)
    place = np.zeros(len(numbers), np.uint16)  # numpy sorts 16 bits by counting: 0.02 µs a row
    for column in np.argsort(told)[: -SORTED_BY - 1 : -1]:
        edges = first[ranked[CHUNK // PARTS :: CHUNK // PARTS, column], column]
        place = place * np.uint16(PARTS) + np.searchsorted(edges, numbers[:, column]).astype(np.uint16)
    return np.argsort(place, kind="stable")


class ForeignOnnxGraph:
    """A graph of which nothing is known yet."""

    def __init__(self, model: bytes) -> None:
        self._session = _session(model)

    @property
    def inputs(self) -> list[GraphTensor]:
        """What it takes."""
        return [_tensor(found) for found in self._session.get_inputs()]

    @property
    def outputs(self) -> list[GraphTensor]:
        """What it gives."""
        return [_tensor(found) for found in self._session.get_outputs()]

    def run(self, output: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """One output as it comes; BundleError when the graph cannot be run on these rows."""
        try:
            return self._session.run([output], dict(tensors))[0]
        except Exception as error:
            raise BundleError(f"the graph cannot be run: {_said(error)}") from None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _tensor(found: Any) -> GraphTensor:
    shape = found.shape or []
    return GraphTensor(found.name, found.type, [s if isinstance(s, int) and s > 0 else None for s in shape])


def open_graph(model: bytes, output: str) -> OnnxGraph:
    """Load a model; BundleError when ONNX Runtime cannot take it or it has no such output."""
    session = _session(model)
    names = [found.name for found in session.get_outputs()]
    if output not in names:
        raise BundleError(f"the model graph has no output {output!r}; it has {', '.join(names)}")
    return OnnxGraph(session, output, trees=b"TreeEnsemble" in model)


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Weights outside the file would be read from wherever the server runs, and no digest covers them.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise BundleError(f"the model graph cannot be loaded: {str(error).splitlines()[0][:300]}") from None
