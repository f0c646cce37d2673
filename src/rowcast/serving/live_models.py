"""The models that answer now. A model is loaded beside the others, proven on its golden rows, and only then seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import BundleError, GraphFailed, ModelNotFound, NoAnswer, RowcastError, SettingsError
from rowcast.registry import bundle
from rowcast.registry.ports import Graph, OpenGraph, Reference, RegistryReader
from rowcast.schema.column_encoding import ColumnEncoder
from rowcast.schema.encoding import NUMBERS, TEXTS, EncodedRow, RowEncoder
from rowcast.schema.outputs import output_reader
from rowcast.schema.prediction import Decision, Label, Score, compare_scores, encode_replies, has_probabilities
from rowcast.schema.schema import Schema
from rowcast.schema.scores import score_rows, winning_classes
from rowcast.schema.stacking import stack_rows
from rowcast.wire.codec import WireCodec, compile_template

GOLDEN_TOLERANCE = 1e-6
SLOW_SECONDS = 0.001
"""A model that takes longer for a row is scored on a thread: the event loop must not wait for it."""
WARM_UP_RUNS = 5


class LiveModel:
    """One version, loaded: from bytes to encoded rows, from encoded rows to replies."""

    def __init__(self, reference: Reference, manifest: bundle.Manifest, graph: Graph) -> None:
        self.name, self.version = reference
        self.manifest = manifest
        self.digest = manifest.digest
        self.schema: Schema = manifest.schema
        self.encoder = RowEncoder(manifest.schema, manifest.plan)
        self.is_ours = {spec.name for spec in manifest.plan} <= {NUMBERS, TEXTS}
        """Whether its graph is an export of ours, and not somebody else's."""
        self.is_certain = has_probabilities(manifest.output.kind, manifest.output.activation)
        """Whether it tells probabilities."""
        self.columns = ColumnEncoder(manifest.schema, manifest.plan)
        self.classifies = manifest.decision.task != "regression"
        self.golden: bundle.GoldenRow | None = None
        """One of the rows it was proven on, as an example."""
        self.slow = False
        """Whether it is scored beside the event loop; `warm_up` finds out."""
        self.wire = self._wire()
        """How its requests and replies look, when they are not native."""
        self._decision: Decision = manifest.decision
        self._numbers = {label: number for number, label in enumerate(manifest.decision.classes)}
        self._graph = graph
        self._read = output_reader(manifest.output.kind, manifest.output.activation, manifest.decision)

    def score(self, rows: Sequence[EncodedRow]) -> list[Score]:
        """One outcome a row; each is the same to the last bit whatever rows it is scored with."""
        return score_rows(self._decision, self._read(self._run(stack_rows(self.encoder.plan, rows))))

    def _run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What the graph gives; NoAnswer names the rows that it breaks on, or all where it breaks by their number."""
        try:
            return self._graph.run(tensors)
        except GraphFailed as failed:
            count = len(next(iter(tensors.values())))
            alone = [{name: array[row : row + 1] for name, array in tensors.items()} for row in range(count)]
            broken = [row for row, one in enumerate(alone) if self._breaks(one)]
            raise NoAnswer(broken or list(range(count))) from failed

    def _breaks(self, tensors: Mapping[str, NDArray[Any]]) -> bool:
        try:
            self._graph.run(tensors)
        except GraphFailed:
            return True
        return False

    def _wire(self) -> WireCodec | None:
        manifest = self.manifest
        if manifest.wire is None:
            return None
        try:
            return compile_template(
                manifest.wire,
                model=self.name,
                version=self.version,
                schema=self.schema,
                decision=manifest.decision,
                parse_row=self.encoder.read,
                has_probabilities=self.is_certain,
            )
        except SettingsError as error:
            raise BundleError(f"{self.name}@{self.version} cannot be served: {error.message}") from None

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The graph's output, a row a row."""
        return self._run(tensors).reshape(len(next(iter(tensors.values()))), -1)

    def replies(
        self, ids: Sequence[str], outcomes: Sequence[Score], rows: Sequence[EncodedRow], cached: Iterable[bool]
    ) -> list[bytes]:
        """The predictions as they are sent and kept, all encoded in one call."""
        warnings = [row.warnings for row in rows]
        return encode_replies(self.name, self.version, ids=ids, scores=outcomes, warnings=warnings, cached=cached)

    def tally(self, output: NDArray[np.float32]) -> tuple[dict[Label, int], float]:
        """How many rows each class has in a graph's output, and the last row as one number."""
        if not self.classifies:
            return {}, float(output[-1, 0])
        winners = winning_classes(self._decision, output)
        counts = np.bincount(winners, minlength=len(self._decision.classes)).tolist()
        labels = zip(self._decision.classes, counts, strict=True)
        return {label: count for label, count in labels if count}, float(winners[-1])

    def number(self, outcome: Score) -> float:
        """An outcome as one number: that of its class, or the value."""
        return float(self._numbers[outcome.prediction] if self.classifies else outcome.prediction)

    def example(self) -> dict[str, Any]:
        """A row that the model takes, as a client would send it."""
        return {column.name: column.example for column in self.schema.columns}

    def sample(self) -> Any:
        """A body of `/predict`, in the model's own form."""
        return self.example() if self.wire is None else self.wire.example(self.example())

    def compare(self, left: Score, right: Score) -> str:
        """`equal`, `borderline` or `different`, within what machines may differ by."""
        return compare_scores(left, right, tolerance=GOLDEN_TOLERANCE, threshold=self._decision.threshold)


def load(reference: Reference, registry: RegistryReader, open_graph: OpenGraph) -> LiveModel:
    """A published version, ready to answer."""
    return load_folder(reference, registry.folder(reference), open_graph)


def load_folder(reference: Reference, folder: Path, open_graph: OpenGraph) -> LiveModel:
    """Open a bundle, prove it on its golden rows, and measure one while it warms up."""
    opened = bundle.open(folder)
    manifest = opened.manifest
    model = LiveModel(reference, manifest, open_graph(opened.model, manifest.output.name))
    try:
        prove(model, opened.golden)
        model.golden = opened.golden[0]
        warm_up(model, opened.golden)
    except NoAnswer as none:
        why = none.__cause__ or none
        raise BundleError(f"{reference} cannot answer {len(none.rows)} of its golden rows: {why}: not served") from None
    except RowcastError:
        raise
    except Exception as error:  # what the graph gives may be of another form than the bundle says
        raise BundleError(f"{reference} cannot be run: {' '.join(str(error).split())[:300]}") from None
    return model


def warm_up(
    model: LiveModel, golden: Sequence[bundle.GoldenRow], clock: Callable[[], float] = time.perf_counter
) -> None:
    """Score one row until it is as quick as it gets, and see whether that is too slow for the event loop."""
    row = [model.encoder.parse(golden[0].row)]
    best = float("inf")
    for _ in range(WARM_UP_RUNS):  # the best of some: a busy machine makes single runs slow
        started = clock()
        model.score(row)
        best = min(best, clock() - started)
        if best < SLOW_SECONDS / 10:
            break
    model.slow = best > SLOW_SECONDS


def prove(model: LiveModel, golden: Sequence[bundle.GoldenRow]) -> None:
    """Score the golden rows alone and together; BundleError when one differs from what was certified."""
    if not golden:
        raise BundleError(f"{model.name}@{model.version} has no golden rows: it cannot be proven")
    rows = [model.encoder.parse(example.row) for example in golden]
    together = model.score(rows)
    for number, (example, row, outcome) in enumerate(zip(golden, rows, together, strict=True)):
        if model.compare(example.score, outcome) == "different":
            raise BundleError(
                f"{model.name}@{model.version} answers golden row {number} with {outcome.prediction!r}, "
                f"certified was {example.score.prediction!r}: not served"
            )
        if number < 3 and model.score([row])[0] != outcome:
            raise BundleError(f"{model.name}@{model.version} answers golden row {number} differently when it is alone")


class Deployment:
    """Name to live model, and the one that `/predict` means. Every version that is live answers to NAME@VERSION too."""

    def __init__(self, models: Mapping[str, LiveModel], default: str | None = None, meant: str = "") -> None:
        self._chosen_default = default
        self.swap(models, meant)

    def swap(self, models: Mapping[str, LiveModel], meant: str = "") -> None:
        """Serve these from now on; who has a model of before in hand finishes on it. Call it on the event loop.

        `meant` is the default for now, if it is one of them.
        """
        self.live = dict(models)
        """As it was given: by the name under which each answers."""
        versions = {f"{model.name}@{model.version}": model for model in models.values()}
        self._models = {**versions, **models}
        names = {model.name for model in models.values()}
        self.default = self._chosen_default or (next(iter(models)) if len(names) == 1 else None)
        if meant in models:
            self.default = meant

    def addresses(self) -> list[str]:
        """Every name that `get` knows."""
        return list(self._models)

    def is_default(self, model: LiveModel) -> bool:
        """Whether `/predict` means this one."""
        return self.default is not None and self._models.get(self.default) is model

    def of(self, names: Collection[str]) -> Deployment:
        """The same with the models of these names alone; all of them where none is named."""
        if not names:
            return self
        found = Deployment({address: model for address, model in self.live.items() if model.name in names})
        found.default = self.default if self.default in found.live else None
        return found

    def get(self, name: str | None, seen: Collection[str] = ()) -> LiveModel:
        """The live model of this name, or the default; ModelNotFound says what there is, of what may be seen."""
        chosen = self.default if name is None else name
        model = self._models.get(chosen)  # type: ignore[arg-type]
        if model is not None:
            return model
        served = ", ".join(self.of(seen).live) or "none"
        if chosen is None:
            raise ModelNotFound(f"several models are served and none is the default; name one of {served}")
        raise ModelNotFound(f"there is no model {chosen!r} here; served: {served}")

    def models(self) -> list[LiveModel]:
        """Every live version, in order of name and version."""
        found = {(model.name, model.version): model for model in self.live.values()}
        return [found[key] for key in sorted(found)]
