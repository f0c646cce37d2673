"""Runs graphs with ONNX Runtime in a single thread, without busy-waiting.

A row's scores are bit-identical in every batch. Large batches are sorted before a tree model scores them
(docs/decisions/0024).
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

MATRIX_OPERATORS = (b"MatMul", b"Gemm", b"Linear", b"SVM", b"Conv", b"Einsum", b"Reduce", b"LSTM", b"GRU", b"RNN")
"""Substrings that occur in the names of matrix operators.

ONNX Runtime uses different matrix kernels for a single row and for a batch (a third of the scores of linear models
differ in the last bit), so a single row is padded to two rows. A tree model without these operators needs no padding,
so scoring a single row costs half as much as with padding.
"""

SLOWER_OPTIMIZERS = ["GatherSliceToSplitFusion"]
"""The ONNX Runtime optimizers that make graphs slower. The listed one adds two nodes per text column and 2 µs per
request.
"""

# The number of rows per chunk. Chunks limit the memory that a request needs. Smaller chunks are slower (200 trees: 5.2
# µs per row in chunks of 64, 4.4 µs in chunks of 256); larger chunks are not faster.
CHUNK = 256

SORTED_FROM = 16 * CHUNK
"""The minimum number of rows for a batch to be sorted.

In smaller batches, sorting does not make neighboring rows similar enough to save time.
"""
SORTED_BY, PARTS = 4, 8


class OnnxGraph:
    """A loaded ONNX model and the output to read from it."""

    def __init__(self, session: ort.InferenceSession, output: str, *, trees: bool, pads: bool) -> None:
        # The compiled session without its Python wrapper, whose checks of the arguments take 2 µs per request.
        self._run = session._sess.run
        self._outputs = [output]
        self._trees = trees
        self._smallest = 2 if pads else 1
        """The minimum number of rows in one run of the graph."""
        self._row_shape: tuple[int, ...] | None = None
        """The shape of one row's output, known after the first batch."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the output, one item per row; raise GraphFailed if the graph fails. Hot path."""
        count = len(next(iter(tensors.values())))
        if self._smallest <= count <= CHUNK:
            return self._score(tensors, count)
        if count == 1:
            return self._score({name: np.repeat(array, 2, axis=0) for name, array in tensors.items()}, 2)[:1]
        numbers = next((array for array in tensors.values() if array.dtype.kind == "f" and array.ndim == 2), None)
        if not self._trees or numbers is None or count < SORTED_FROM:
            return self._chunks(tensors, count)
        first = self._score({name: array[:CHUNK] for name, array in tensors.items()}, CHUNK)
        if first.dtype.kind != "f":  # labels
            return self._chunks(tensors, count)
        order = _neighbours(numbers, first)
        sorted_output = self._chunks({name: array[order] for name, array in tensors.items()}, count)
        output = np.empty_like(sorted_output)
        output[order] = sorted_output
        return output

    def _chunks(self, tensors: Mapping[str, NDArray[Any]], count: int) -> NDArray[Any]:
        starts = list(range(0, count, CHUNK))
        if count - starts[-1] == 1:
            starts[-1] -= 1  # the final chunk would have a single row, so it overlaps the previous chunk
        pieces = [
            self._score(
                {name: array[start : start + CHUNK] for name, array in tensors.items()}, min(CHUNK, count - start)
            )
            for start in starts
        ]
        if len(starts) > 1 and starts[-1] % CHUNK:
            pieces[-1] = pieces[-1][1:]
        return np.concatenate(pieces)

    def _score(self, feed: Mapping[str, NDArray[Any]], count: int) -> NDArray[Any]:
        try:
            output: Any = self._run(self._outputs, feed, None)[0]
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise GraphFailed(f"cannot run the graph: {_first_words(error)}") from None
        if isinstance(output, list):  # for each row, a map from labels to probabilities, in a fixed order
            output = np.array([list(row.values()) for row in output], np.float32)
        scores: NDArray[Any] = output
        if self._row_shape is None:
            self._row_shape = scores.shape[1:]
        if scores.shape != (count, *self._row_shape):  # otherwise, rows would get other rows' scores
            raise GraphFailed(f"the graph returned an output of shape {list(scores.shape)} for {count} rows")
        return scores


def _neighbours(numbers: NDArray[Any], outputs: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return an order in which neighboring rows are similar in the columns that best explain the outputs.

    The first `CHUNK` rows determine these columns. The processor predicts branches better if consecutive rows take the
    same paths through the trees (`make bench-batch`: 2.7 instead of 3.6 µs per row; 3.8 instead of 5.6 µs for a
    forest).
    """
    first = numbers[:CHUNK]
    ranked = np.argsort(first, axis=0)
    means = outputs.reshape(CHUNK, -1)[ranked].reshape(PARTS, CHUNK // PARTS, first.shape[1], -1).mean(axis=1)
    explained = means.var(axis=0).sum(axis=-1)
    keys = np.zeros(len(numbers), np.uint16)  # NumPy uses radix sort for 16-bit integers: 0.02 µs per row
    for column in np.argsort(explained)[: -SORTED_BY - 1 : -1]:
        edges = first[ranked[CHUNK // PARTS :: CHUNK // PARTS, column], column]
        keys = keys * np.uint16(PARTS) + np.searchsorted(edges, numbers[:, column]).astype(np.uint16)
    return np.argsort(keys, kind="stable")


class ForeignOnnxGraph:
    """An imported graph, whose inputs and outputs are not known yet."""

    def __init__(self, model: bytes) -> None:
        self._session = _session(model)

    @property
    def inputs(self) -> list[GraphTensor]:
        """The input tensors."""
        return [_describe(tensor) for tensor in self._session.get_inputs()]

    @property
    def outputs(self) -> list[GraphTensor]:
        """The output tensors."""
        return [_describe(tensor) for tensor in self._session.get_outputs()]

    def run(self, output: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """Return one output unchanged; raise BundleError if the graph fails on these rows."""
        try:
            return self._session.run([output], dict(tensors))[0]
        except Exception as error:
            raise BundleError(f"cannot run the graph: {_first_words(error)}") from None


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _describe(tensor: Any) -> GraphTensor:
    shape = tensor.shape or []
    return GraphTensor(tensor.name, tensor.type, [s if isinstance(s, int) and s > 0 else None for s in shape])


def open_graph(model: bytes, output: str) -> OnnxGraph:
    """Load a model; raise BundleError if ONNX Runtime rejects the model or if the model lacks this output."""
    session = _session(model)
    names = [tensor.name for tensor in session.get_outputs()]
    if output not in names:
        raise BundleError(f"the model graph has no output {output!r}; available outputs: {', '.join(names)}")
    trees = b"TreeEnsemble" in model
    pads = not trees or any(operator in model for operator in MATRIX_OPERATORS)
    return OnnxGraph(session, output, trees=trees, pads=pads)


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Otherwise, ONNX Runtime would also load its own format, which the inspection of ONNX files does not check.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Block external weights: no digest covers them, and ONNX Runtime would read them from the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_OPTIMIZERS
        )
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise BundleError(f"cannot load the model graph: {str(error).splitlines()[0][:300]}") from None
