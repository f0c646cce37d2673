"""The parity certificate: the exported graph repeats the trained model on the rows most likely to part them.

A graph that does not is refused; nothing is ever published without the certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import ParityError
from rowcast.registry.bundle import Parity
from rowcast.schema.encoding import NUMBERS, TEXTS
from rowcast.schema.prediction import Decision
from rowcast.schema.scores import winning_classes
from rowcast.training.features import Numbers, Texts
from rowcast.training.pipeline import Trained
from rowcast.training.problem import LabelledRows

TOLERANCE: Final = 1e-5
RANDOM_ROWS: Final = 2000
MOST_EDGES: Final = 10_000
"""Thresholds that are probed; of a forest with more, evenly chosen ones of every column."""
AWKWARD: Final = (np.nan, -0.0, 0.0, 1e38, -1e38, 3.4028234663852886e38, 2.0**53 + 1, 1e-40, -1e-40)
STRANGE: Final = ("", "never seen", "Ünïcödé ☃", " ", "x" * 300)


@dataclass(frozen=True)
class Probe:
    """Encoded rows to hold two models against each other."""

    numbers: Numbers
    texts: Texts

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The rows as the graph takes them."""
        named = {NUMBERS: self.numbers, TEXTS: self.texts}
        return {name: array for name, array in named.items() if array.shape[1]}


def build_probe(pipeline: Trained, training: LabelledRows, holdout: LabelledRows, seed: int) -> Probe:
    """The holdout, random rows, awkward cells, and every threshold of the model with its two float32 neighbours."""
    rng = np.random.default_rng([seed, 3])
    pieces = [
        (holdout.numbers, holdout.texts),
        _random(training, rng),
        *_awkward(training, rng),
        *_edges(pipeline, training, rng),
    ]
    return Probe(np.concatenate([numbers for numbers, _ in pieces]), np.concatenate([texts for _, texts in pieces]))


def _random(training: LabelledRows, rng: np.random.Generator) -> tuple[Numbers, Texts]:
    """Rows whose cells come from different training rows, from the whole range, or from nowhere."""
    columns = training.numbers.shape[1] + training.texts.shape[1]
    picks = rng.integers(len(training), size=(RANDOM_ROWS, columns))
    split = training.numbers.shape[1]
    numbers = np.take_along_axis(training.numbers, picks[:, :split], axis=0)
    texts = np.take_along_axis(training.texts, picks[:, split:], axis=0)
    kind = rng.random(numbers.shape)
    between = rng.random(numbers.shape).astype(np.float32)
    other = numbers[rng.permutation(RANDOM_ROWS)]
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = numbers * between + other * (1 - between)
    numbers = np.where((kind < 0.4) & np.isfinite(mixed), mixed, numbers)
    odd = np.array(AWKWARD, np.float32)[rng.integers(len(AWKWARD), size=numbers.shape)]
    numbers = np.where(kind > 0.93, odd, numbers)
    strange = np.array(STRANGE, object)[rng.integers(len(STRANGE), size=texts.shape)]
    return numbers, np.where(rng.random(texts.shape) > 0.9, strange, texts)


def _awkward(training: LabelledRows, rng: np.random.Generator) -> Iterator[tuple[Numbers, Texts]]:
    """A training row with one awkward cell, for every column and awkward value."""
    for column in range(training.numbers.shape[1]):
        yield _with_number(training, rng, column, np.array(AWKWARD, np.float32))
    for column in range(training.texts.shape[1]):
        base = training.take(rng.integers(len(training), size=len(STRANGE)))
        base.texts[:, column] = STRANGE
        yield base.numbers, base.texts


def _edges(pipeline: Trained, training: LabelledRows, rng: np.random.Generator) -> Iterator[tuple[Numbers, Texts]]:
    """A training row on each side of, and at, every threshold on a raw column."""
    numbers = training.numbers.shape[1]  # they come first and unscaled; flags and levels are 0 or 1
    edges = {feature: each for feature, each in pipeline.thresholds().items() if feature < numbers}
    share = min(1.0, MOST_EDGES / max(sum(map(len, edges.values())), 1))
    for feature, every in edges.items():
        found = every[np.unique(np.linspace(0, len(every) - 1, int(np.ceil(len(every) * share))).astype(np.intp))]
        with np.errstate(over="ignore"):
            sides = [np.nextafter(found, np.float32(side)) for side in (-np.inf, np.inf)]
        values = np.concatenate([found, *sides])
        yield _with_number(training, rng, feature, values[np.isfinite(values)])


def _with_number(
    training: LabelledRows, rng: np.random.Generator, column: int, values: NDArray[np.float32]
) -> tuple[Numbers, Texts]:
    base = training.take(rng.integers(len(training), size=len(values)))
    base.numbers[:, column] = values
    return base.numbers, base.texts


def certify(reference: NDArray[Any], output: NDArray[np.float32], decision: Decision, spread: float = 1.0) -> Parity:
    """The certificate of a graph's output against the trained model's; ParityError when they part.

    Probabilities may differ by 1e-5 and no label may; values by 1e-5 of themselves and of the target's `spread`.
    """
    if reference.shape != output.shape:
        raise ParityError(f"the exported graph answers {output.shape}, the trained model {reference.shape}")
    gap = np.abs(reference - output.astype(np.float64))
    gap[np.isnan(gap)] = np.inf
    allowed = TOLERANCE if decision.task != "regression" else TOLERANCE * (spread + np.abs(reference))
    flips = 0
    if decision.task != "regression":
        flips = int(
            np.sum(winning_classes(decision, reference.astype(np.float32)) != winning_classes(decision, output))
        )
    certificate = Parity(len(reference), float(gap.max()), flips)
    if flips or np.any(gap > allowed):
        raise ParityError(
            f"the exported graph does not repeat the trained model: {flips} of {len(reference)} labels flip, "
            f"the largest difference is {certificate.max_abs_diff:.3g}"
        )
    return certificate
