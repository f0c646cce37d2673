"""A small ensemble of neural networks, trained jointly with PyTorch (extra `torch`) and exported as matrix products.

Each number is clipped to the range seen in training and encoded by its position between training quantiles. The members
share their weights, but each member scales the inputs of every layer differently (as in TabM, 2024).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray

from rowcast.errors import TrainingError
from rowcast.schema.prediction import Task
from rowcast.training.features import Numbers, Style
from rowcast.training.models.adamw import AdamW
from rowcast.training.models.candidate import Estimator, LabelledMatrix, Params, Raw, Setting
from rowcast.training.onnx_graph import DOUBLE, FLOAT, GraphBuilder, Matrix
from rowcast.training.presets import Size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MEMBERS: Final = 8
SCALES: Final = 0.5
"""The standard deviation of the initial scales, which are random so that the members differ."""
MOST_ROUNDS: Final = 100
PATIENCE: Final = 8
"""Training stops after this number of rounds without an improvement in the validation loss."""
MOST_STEPS: Final = 64
"""The maximum number of batches per round. One pass over a large table takes several rounds."""
CHUNK: Final = 4096
"""The number of rows to score at once."""


@dataclass(frozen=True)
class Encoding:
    """Encodes a number as its position, from 0 to 1, within each interval of its column.

    A constant column has no intervals.
    """

    columns: NDArray[np.int64]
    low: Raw
    inverse: Raw

    def emit(self, graph: GraphBuilder, matrix: str) -> str:
        """Add the encoding to a graph and return the name of the encoded matrix."""
        values = graph.node("Gather", graph.node("Cast", matrix, to=DOUBLE), graph.constant(self.columns), axis=1)
        moved = graph.node("Sub", values, graph.constant(self.low))
        shares = graph.node("Mul", moved, graph.constant(self.inverse))
        return graph.node("Clip", shares, graph.constant(np.array(0.0)), graph.constant(np.array(1.0)))


@dataclass(frozen=True)
class Layer:
    """A layer that computes (input * scale) · weights + bias.

    The members share the weights [i, o], but each member has its own scale and bias.
    """

    scale: Any
    weights: Any
    bias: Any


@dataclass(frozen=True)
class Network:
    """A fitted ensemble. It computes the mean of its members' scores, in float64 both here and in the graph."""

    params: Params
    encoding: Encoding
    layers: tuple[Layer, ...]
    centre: float
    spread: float

    def raw(self, matrix: Numbers) -> Raw:
        import torch

        with _deterministic(1), torch.inference_mode():
            encode = _encoder(self.encoding, torch.float64)
            layers = [Layer(*(torch.from_numpy(each) for each in _parts(layer))) for layer in self.layers]
            chunks = [
                _forward(encode(torch.from_numpy(matrix[start : start + CHUNK])), layers).mean(dim=1).numpy()
                for start in range(0, len(matrix), CHUNK)
            ]
        return np.asarray(np.concatenate(chunks) * self.spread + self.centre)

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        hidden = self.encoding.emit(graph, matrix.name)
        first, *middle, last = self.layers
        members = len(first.scale)
        # The first layer's weights are scaled for each member and concatenated, so that all members share one product.
        wide = np.concatenate([first.weights * scale[:, None] for scale in first.scale], axis=1)
        hidden = _relu(graph, graph.node("MatMul", hidden, graph.constant(wide)), first.bias.reshape(-1))
        for layer in middle:
            by_member = graph.constant(np.array([-1, members, len(layer.weights)]))
            hidden = graph.node("Mul", graph.node("Reshape", hidden, by_member), graph.constant(layer.scale))
            hidden = _relu(graph, graph.node("MatMul", hidden, graph.constant(layer.weights)), layer.bias)
            hidden = graph.node("Reshape", hidden, graph.constant(np.array([-1, members * layer.weights.shape[1]])))
        heads = np.concatenate([last.weights * scale[:, None] for scale in last.scale]) * (self.spread / members)
        scores = graph.node("MatMul", hidden, graph.constant(heads))
        base = last.bias.mean(axis=0) * self.spread + self.centre
        return graph.node("Cast", graph.node("Add", scores, graph.constant(base)), to=FLOAT)

    @property
    def size(self) -> Size:
        return Size()

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        return {}


def _relu(graph: GraphBuilder, product: str, bias: Raw) -> str:
    return graph.node("Relu", graph.node("Add", product, graph.constant(bias)))


def _parts(layer: Layer) -> tuple[Any, Any, Any]:
    return layer.scale, layer.weights, layer.bias


class NetworkEnsemble:
    """The network candidate, trained with AdamW until the validation loss stops improving.

    Without validation rows, `params` determines the number of rounds.
    """

    name = "mlp"
    style: Style = "linear"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    stops_in_time = True
    threadsafe = False

    def is_bagged(self, _setting: Setting) -> bool:
        return False

    def starts(self, setting: Setting) -> Sequence[Params]:
        first = {
            "width": 96,
            "depth": 2,
            "bins": 4 if setting.rows < 3000 else 12,
            "learning_rate": 0.0015,
            "weight_decay": 0.1,
            "dropout": 0.3,
        }
        return (first,)

    def suggest(self, trial: optuna.Trial, _setting: Setting) -> Params:
        return {
            "width": trial.suggest_categorical("mlp.width", [48, 96, 160]),
            "depth": trial.suggest_int("mlp.depth", 1, 3),
            "bins": trial.suggest_int("mlp.bins", 2, 24, log=True),
            "learning_rate": trial.suggest_float("mlp.learning_rate", 5e-4, 5e-3, log=True),
            "weight_decay": trial.suggest_float("mlp.weight_decay", 1e-4, 0.3, log=True),
            "dropout": trial.suggest_float("mlp.dropout", 0.0, 0.5),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Estimator:
        with _deterministic(setting.jobs):
            return _NetworkFit(rows, params, setting).run(validation)


def require() -> None:
    """Raise TrainingError with installation instructions if PyTorch is missing."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise TrainingError(
            "option 'candidates': mlp requires PyTorch, which is not installed; run `make torch`, or run "
            "`pip install torch==2.13.0` with an index of CPU wheels"
        ) from None


class _TensorRows(NamedTuple):
    """Labeled rows as tensors."""

    matrix: Tensor
    target: Tensor
    weight: Tensor


class _NetworkFit:
    """The state of one fit: the tensors of the network, the optimizer and the random generator."""

    def __init__(self, rows: LabelledMatrix, params: Params, setting: Setting) -> None:
        import torch

        self.params, self.setting = params, setting
        self.generator = torch.Generator().manual_seed(setting.seed)
        self.centre, self.spread = 0.0, 1.0
        if setting.task == "regression":
            self.centre, self.spread = float(rows.target.mean()), float(rows.target.std()) or 1.0
        self.encoding = _intervals(rows.matrix, params["bins"])
        self.encode = _encoder(self.encoding, torch.float32)
        self.rows = self._tensors(rows)
        sizes = [len(self.encoding.columns), *[params["width"]] * params["depth"], setting.width]
        self.layers = [self._layer(*pair) for pair in itertools.pairwise(sizes)]
        self.batch = int(np.clip(2 ** round(np.log2(len(rows.matrix) / 24)), 32, 256))
        self.optimiser = AdamW(
            [layer.weights for layer in self.layers],
            [each for layer in self.layers for each in (layer.scale, layer.bias)],
            rate=params["learning_rate"],
            decay=params["weight_decay"],
        )

    def run(self, validation: LabelledMatrix | None) -> Network:
        """Train round by round; return the final network or, with validation rows, the network with the lowest loss."""
        most = self.params.get("rounds", MOST_ROUNDS)
        if validation is None:
            for _ in range(most):
                self._round()
            return self._network(most)
        valid = self._tensors(validation)
        least, best = np.inf, self._network(1)
        for number in range(1, most + 1):
            self._round()
            loss = self._validation_loss(valid)
            if loss < least:
                least, best = loss, self._network(number)
            if number - best.params["rounds"] >= PATIENCE or self.setting.out_of_time():
                break
        return best

    def _round(self) -> None:
        """Train on the rows in random order: one pass over all rows, or at most `MOST_STEPS` batches."""
        import torch

        order = torch.randperm(len(self.rows.target), generator=self.generator)
        for start in range(0, min(len(order), MOST_STEPS * self.batch), self.batch):
            rows = order[start : start + self.batch]
            batch = _TensorRows(*(each[rows] for each in self.rows))
            losses = self._losses(_forward(self.encode(batch.matrix), self.layers, self._dropout), batch.target)
            loss = (losses.mean(dim=1) * batch.weight).mean()
            loss.backward()
            self.optimiser.step()

    def _validation_loss(self, rows: _TensorRows) -> float:
        """Return the loss of the members' mean score."""
        import torch

        total = 0.0
        with torch.inference_mode():
            for start in range(0, len(rows.target), CHUNK):
                chunk = _TensorRows(*(each[start : start + CHUNK] for each in rows))
                mean = _forward(self.encode(chunk.matrix), self.layers).mean(dim=1, keepdim=True)
                total += float((self._losses(mean, chunk.target)[:, 0] * chunk.weight).sum())
        return total / len(rows.target)

    def _losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the loss [N, k] of each row and member, given the scores [N, k, o]."""
        from torch.nn import functional

        members = scores.shape[1]
        targets = target[:, None].expand(-1, members)
        if self.setting.task == "multiclass":
            return functional.cross_entropy(scores.transpose(1, 2), targets, reduction="none")
        if self.setting.task == "binary":
            return functional.binary_cross_entropy_with_logits(scores[:, :, 0], targets, reduction="none")
        return functional.mse_loss(scores[:, :, 0], targets, reduction="none")

    def _dropout(self, hidden: Tensor) -> Tensor:
        import torch

        keep = 1 - self.params["dropout"]
        return hidden * torch.empty_like(hidden).bernoulli_(keep, generator=self.generator) / keep

    def _layer(self, inputs: int, outputs: int) -> Layer:
        """Return a new layer; the members start with different scales."""
        import torch

        limit = inputs**-0.5
        weights = torch.rand((inputs, outputs), generator=self.generator) * (2 * limit) - limit
        scale = 1 + SCALES * torch.randn((MEMBERS, inputs), generator=self.generator)
        bias = torch.rand((MEMBERS, outputs), generator=self.generator) * (2 * limit) - limit
        return Layer(*(each.requires_grad_() for each in (scale, weights, bias)))

    def _tensors(self, rows: LabelledMatrix) -> _TensorRows:
        import torch

        if self.setting.task == "multiclass":
            target = torch.from_numpy(rows.target.astype(np.int64))
        else:
            target = torch.from_numpy(((rows.target - self.centre) / self.spread).astype(np.float32))
        weight = np.ones(len(rows.target)) if rows.weight is None else rows.weight
        return _TensorRows(torch.from_numpy(rows.matrix), target, torch.from_numpy(weight.astype(np.float32)))

    def _network(self, rounds: int) -> Network:
        layers = (Layer(*(each.detach().numpy().astype(np.float64) for each in _parts(layer))) for layer in self.layers)
        return Network({**self.params, "rounds": rounds}, self.encoding, tuple(layers), self.centre, self.spread)


def _forward(hidden: Tensor, layers: Sequence[Layer], dropout: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return every member's scores [N, k, o] for the encoded rows."""
    hidden = hidden[:, None, :]
    for layer in layers[:-1]:
        hidden = ((hidden * layer.scale) @ layer.weights + layer.bias).relu()
        if dropout is not None:
            hidden = dropout(hidden)
    last = layers[-1]
    return (hidden * last.scale) @ last.weights + last.bias


def _intervals(matrix: Numbers, bins: int) -> Encoding:
    """Return the intervals between training quantiles: one for a two-valued column, none for a constant column."""
    columns, low, high = [0], [0.0], [np.inf]  # a constant 0, so that the input is never empty
    for column, values in enumerate(matrix.astype(np.float64).T):
        edges = np.unique(values)
        if len(edges) > bins + 1:
            edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1), method="nearest"))
        columns += [column] * (len(edges) - 1)
        low += edges[:-1].tolist()
        high += edges[1:].tolist()
    return Encoding(np.array(columns, np.int64), np.array(low), 1 / (np.array(high) - np.array(low)))


def _encoder(encoding: Encoding, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    import torch

    columns, low, inverse = (torch.from_numpy(each) for each in (encoding.columns, encoding.low, encoding.inverse))

    def encode(matrix: Tensor) -> Tensor:
        # The encoding uses float64, because the ends of an interval may be adjacent float32 numbers.
        shares: Tensor = ((matrix[:, columns].double() - low) * inverse).clamp(0, 1)
        return shares.to(dtype)

    return encode


@contextmanager
def _deterministic(jobs: int) -> Iterator[None]:
    """Limit PyTorch to `jobs` threads and to deterministic algorithms; restore its settings on exit."""
    import torch

    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(jobs)
    # `use_deterministic_algorithms` has the same effect, but also imports PyTorch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
