"""Models with their graphs. A model is loaded, verified on its golden rows and warmed up before it serves requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import BundleError, GraphFailed, NoAnswer, RowcastError
from rowcast.registry import bundle
from rowcast.registry.ports import Graph, OpenGraph, Reference, RegistryReader
from rowcast.schema.column_encoding import ColumnEncoder
from rowcast.schema.encoding import EncodedRow
from rowcast.schema.outputs import output_reader
from rowcast.schema.prediction import Label, Score, compare_scores
from rowcast.schema.range_checks import RangeCheck
from rowcast.schema.scores import score_reader, winning_classes
from rowcast.schema.stacking import stack_rows
from rowcast.serving.interface import ModelInterface

GOLDEN_TOLERANCE = 1e-6
SLOW_SECONDS = 0.001
"""A model that takes longer than this to score one row runs in a separate thread, so it cannot block the event loop."""
WARM_UP_RUNS = 5
SMALLEST_BATCH = 4
"""The number of rows to verify in one batch. If a bundle has fewer golden rows, they are repeated.

The graph runtime pads a single row to two rows, so smaller batches do not reveal scores that depend on the batch.
"""


class LiveModel(ModelInterface):
    """A loaded model version, which scores encoded rows."""

    def __init__(self, reference: Reference, manifest: bundle.Manifest, graph: Graph) -> None:
        super().__init__(reference, manifest)
        self.columns = ColumnEncoder(manifest.schema, manifest.plan)
        self.ranges = RangeCheck(manifest.schema, manifest.plan)
        self._graph = graph
        self._read = output_reader(manifest.output.kind, manifest.output.activation, manifest.decision)
        self._to_scores = score_reader(manifest.decision)

    def score(self, rows: Sequence[EncodedRow]) -> list[Score]:
        """Return one score per row. In Rowcast's own graphs, a row's score never depends on other rows. Hot path."""
        return self._to_scores(self._read(self._run(stack_rows(self.encoder.plan, rows))))

    def output(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return probabilities [N, k], values [N] or class indices [N]."""
        return self._read(self._run(tensors))

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the graph's output, with one row per input row."""
        return self._run(tensors).reshape(len(next(iter(tensors.values()))), -1)

    def tally(self, output: NDArray[np.float32]) -> tuple[dict[Label, int], float]:
        """Return the number of rows per class in a graph's output, and the last row's prediction as a number."""
        if not self.is_classifier:
            return {}, float(output[-1, 0])
        winners = winning_classes(self.decision, output)
        counts = np.bincount(winners, minlength=len(self.decision.classes)).tolist()
        labels = zip(self.decision.classes, counts, strict=True)
        return {label: count for label, count in labels if count}, float(winners[-1])

    def compare(self, left: Score, right: Score) -> str:
        """Compare two scores (`equal`, `borderline` or `different`), allowing for differences between machines."""
        return compare_scores(left, right, tolerance=GOLDEN_TOLERANCE, threshold=self.decision.threshold)

    def _run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Run the graph; raise NoAnswer with the rows that fail, or with all rows if they fail only as a batch."""
        try:
            return self._graph.run(tensors)
        except GraphFailed as failed:
            count = len(next(iter(tensors.values())))
            single = [{name: array[row : row + 1] for name, array in tensors.items()} for row in range(count)]
            broken = [row for row, tensor in enumerate(single) if self._fails_on(tensor)]
            raise NoAnswer(broken or list(range(count))) from failed

    def _fails_on(self, tensors: Mapping[str, NDArray[Any]]) -> bool:
        try:
            self._graph.run(tensors)
        except GraphFailed:
            return True
        return False


def load(reference: Reference, registry: RegistryReader, open_graph: OpenGraph) -> LiveModel:
    """Load, verify and warm up a published version."""
    return load_folder(reference, registry.folder(reference), open_graph)


def load_folder(reference: Reference, folder: Path, open_graph: OpenGraph) -> LiveModel:
    """Open a bundle, verify it on its golden rows and warm it up."""
    opened = bundle.open(folder)
    manifest = opened.manifest
    model = LiveModel(reference, manifest, open_graph(opened.model, manifest.output.name))
    try:
        verify(model, opened.golden)
        model.golden = opened.golden[0]
        warm_up(model, opened.golden)
    except NoAnswer as none:
        reason = none.__cause__ or none
        failed = {row % len(opened.golden) for row in none.rows}  # `verify` repeats the golden rows
        raise BundleError(f"{reference} cannot score {len(failed)} of its golden rows: {reason}") from None
    except RowcastError:
        raise
    except Exception as error:  # the output may not have the declared shape
        raise BundleError(f"{reference} cannot be run: {' '.join(str(error).split())[:300]}") from None
    return model


def check_batch(model: LiveModel, size: int) -> None:
    """Score a batch of this size; raise BundleError if the graph fails, for example for lack of memory."""
    assert model.golden is not None
    try:
        model.score([model.encoder.parse(model.golden.row)] * size)
    except NoAnswer as none:
        reason = none.__cause__ or none
        raise BundleError(f"{model.name}@{model.version} cannot score a batch of {size} rows: {reason}") from None


def warm_up(
    model: LiveModel, golden: Sequence[bundle.GoldenRow], clock: Callable[[], float] = time.perf_counter
) -> None:
    """Score one row repeatedly, and mark the model as slow if scoring takes longer than `SLOW_SECONDS`."""
    row = [model.encoder.parse(golden[0].row)]
    best = float("inf")
    for _ in range(WARM_UP_RUNS):  # use the fastest of several runs, because other processes can slow down a single run
        started = clock()
        model.score(row)
        best = min(best, clock() - started)
        if best < SLOW_SECONDS / 10:
            break
    model.is_slow = best > SLOW_SECONDS


def verify(model: LiveModel, golden: Sequence[bundle.GoldenRow]) -> None:
    """Score the golden rows individually and as one batch.

    Raise BundleError if the scores differ from the certified scores or from each other.
    """
    if not golden:
        raise BundleError(f"{model.name}@{model.version} has no golden rows and cannot be verified")
    rows = [model.encoder.parse(example.row) for example in golden]
    together = model.score((rows * SMALLEST_BATCH)[: max(len(rows), SMALLEST_BATCH)])[: len(rows)]
    for number, (example, row, score) in enumerate(zip(golden, rows, together, strict=True)):
        if model.compare(example.score, score) == "different":
            raise BundleError(
                f"{model.name}@{model.version} predicts {score.prediction!r} for golden row {number}; "
                f"the certified prediction is {example.score.prediction!r}"
            )
        alone = model.score([row])[0]
        # In an imported graph, the last bit of a vectorized result may depend on the row's position in the batch.
        if alone != score and (model.is_own_export or model.compare(alone, score) == "different"):
            raise BundleError(
                f"{model.name}@{model.version}: golden row {number} gets different scores on its own and in a batch"
            )
