"""Certify that the exported graph agrees with the trained model, even for extreme values.

No bundle is published without this parity certificate.
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
from rowcast.training.derivation import Derivation
from rowcast.training.features import Numbers, Texts
from rowcast.training.pipeline import Trained
from rowcast.training.problem import LabelledRows, LearningProblem

TOLERANCE: Final = 1e-5
RANDOM_ROWS: Final = 2000
MOST_THRESHOLDS: Final = 10_000
"""The maximum number of tree thresholds to test. If a model has more thresholds, an evenly spaced subset is tested."""
FEWEST_THRESHOLDS: Final = 1000
THRESHOLD_SECONDS: Final = 1.5
"""The time budget for scoring the rows near thresholds once, which limits the number of thresholds to test."""
ODD_NUMBERS: Final = (np.nan, -0.0, 0.0, 1e38, -1e38, 3.4028234663852886e38, 2.0**53 + 1, 1e-40, -1e-40)
ODD_COLUMNS: Final = 300
"""The maximum number of numeric columns with separate rows for extreme values. In wider tables, columns share rows."""
ODD_OPERANDS: Final = (np.nan, 0.0, -0.0, 1.0, -1.0, 1e-40, 3.4028234663852886e38, -3.4028234663852886e38)
OPERAND_ROWS: Final = 1000
"""The maximum number of rows with extreme operands, and of rows with equal operands, for all derived columns
together."""
MOST_OPERAND_ROWS: Final = 200
"""The maximum number of rows with extreme operands, and of rows with equal operands, for one derived column."""
DERIVED_SHARE: Final = 4
"""The ratio of the maximum number of thresholds to the maximum number of row pairs for all derived columns together."""
BISECTIONS: Final = 40
ODD_TEXTS: Final = ("", "never seen", "Ünïcödé ☃", " ", "x" * 300)


@dataclass(frozen=True)
class Probe:
    """Encoded rows on which the graph and the trained model are compared."""

    numbers: Numbers
    texts: Texts

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the graph's input tensors."""
        named = {NUMBERS: self.numbers, TEXTS: self.texts}
        return {name: array for name, array in named.items() if array.shape[1]}


def build_probe(pipeline: Trained, problem: LearningProblem, seed: int) -> Probe:
    """Return the holdout rows, followed by random rows, rows with extreme values and rows near tree thresholds. If
    there are derived columns, rows with extreme operands and rows with derived values near tree thresholds are added.
    """
    rng = np.random.default_rng([seed, 3])
    training, holdout, most = problem.training, problem.holdout, most_thresholds(pipeline.size.microseconds)
    parts = [
        (holdout.numbers, holdout.texts),
        _random_rows(training, rng),
        *_odd_values(training, rng),
        *_thresholds(pipeline, training, rng, most),
        *_odd_operands(problem.derivation, training, rng),
        *_derived_thresholds(pipeline, problem.derivation, training, rng, most // DERIVED_SHARE),
    ]
    return Probe(np.concatenate([numbers for numbers, _ in parts]), np.concatenate([texts for _, texts in parts]))


def _random_rows(training: LabelledRows, rng: np.random.Generator) -> tuple[Numbers, Texts]:
    """Return rows in which each value is drawn from the training rows, lies between two drawn values, or is extreme."""
    columns = training.numbers.shape[1] + training.texts.shape[1]
    picks = rng.integers(len(training), size=(RANDOM_ROWS, columns))
    split = training.numbers.shape[1]
    numbers = np.take_along_axis(training.numbers, picks[:, :split], axis=0)
    texts = np.take_along_axis(training.texts, picks[:, split:], axis=0)
    zone = np.digitize(rng.random(numbers.shape), (0.4, 0.93))
    between = rng.random(numbers.shape).astype(np.float32)
    other = numbers[rng.permutation(RANDOM_ROWS)]
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = numbers * between + other * (1 - between)
    numbers = np.where((zone == 0) & np.isfinite(mixed), mixed, numbers)
    odd_numbers = np.array(ODD_NUMBERS, np.float32)[rng.integers(len(ODD_NUMBERS), size=numbers.shape)]
    numbers = np.where(zone == 2, odd_numbers, numbers)
    odd_texts = np.array(ODD_TEXTS, object)[rng.integers(len(ODD_TEXTS), size=texts.shape)]
    is_odd = np.digitize(rng.random(texts.shape), (0.9,)) == 1
    return numbers, np.where(is_odd, odd_texts, texts)


def _odd_values(training: LabelledRows, rng: np.random.Generator) -> Iterator[tuple[Numbers, Texts]]:
    """For each column, yield training rows in which the column's values are replaced with extreme values.

    In a wide table, several columns share these rows.
    """
    width = training.numbers.shape[1]
    for first in range(min(width, ODD_COLUMNS)):
        base = training.take(rng.integers(len(training), size=len(ODD_NUMBERS)))
        for turn, column in enumerate(range(first, width, ODD_COLUMNS)):
            base.numbers[:, column] = np.roll(np.array(ODD_NUMBERS, np.float32), turn)
        yield base.numbers, base.texts
    for column in range(training.texts.shape[1]):
        base = training.take(rng.integers(len(training), size=len(ODD_TEXTS)))
        base.texts[:, column] = ODD_TEXTS
        yield base.numbers, base.texts


def most_thresholds(row_microseconds: float) -> int:
    """Return the maximum number of thresholds to test. The number is lower for slow models."""
    return int(np.clip(THRESHOLD_SECONDS * 1e6 / 3 / max(row_microseconds, 1.0), FEWEST_THRESHOLDS, MOST_THRESHOLDS))


def probe_rows(problem: LearningProblem, row_microseconds: float) -> int:
    """Return the approximate number of rows in the probe."""
    rows = problem.training
    numbers, texts = int(rows.numbers.shape[1]), int(rows.texts.shape[1])
    odd = len(ODD_NUMBERS) * min(numbers, ODD_COLUMNS) + len(ODD_TEXTS) * texts
    most = max(numbers, most_thresholds(row_microseconds))
    derived = 2 * (OPERAND_ROWS + most // DERIVED_SHARE) if problem.schema.derived else 0
    return len(problem.holdout) + RANDOM_ROWS + odd + 3 * most + derived


def _thresholds(
    pipeline: Trained, training: LabelledRows, rng: np.random.Generator, most: int
) -> Iterator[tuple[Numbers, Texts]]:
    """Yield training rows in which one number is exactly at, just below or just above a tree threshold."""
    numbers = training.numbers.shape[1]  # in tree models, the first features are the unscaled raw numbers
    thresholds = {feature: each for feature, each in pipeline.thresholds().items() if feature < numbers}
    share = most / max(most, sum(map(len, thresholds.values())))
    for feature, every in thresholds.items():
        sample = every[np.unique(np.linspace(0, len(every) - 1, int(np.ceil(len(every) * share))).astype(np.intp))]
        with np.errstate(over="ignore"):
            neighbours = [np.nextafter(sample, np.float32(side)) for side in (-np.inf, np.inf)]
        values = np.concatenate([sample, *neighbours])
        yield _with_number(training, rng, feature, values[np.isfinite(values)])


def _odd_operands(
    derivation: Derivation, training: LabelledRows, rng: np.random.Generator
) -> Iterator[tuple[Numbers, Texts]]:
    """For each derived column, yield training rows with extreme operands and training rows with equal operands. Extreme
    operands are, for example, missing values, zero divisors and nonpositive arguments of a logarithm. The difference of
    equal operands is zero.
    """
    rows = min(MOST_OPERAND_ROWS, OPERAND_ROWS // max(len(derivation.columns), 1))
    for column in derivation.columns:
        positions = derivation.only(column).operands
        base = training.take(rng.integers(len(training), size=2 * rows))
        shape = (rows, len(positions))
        odd = np.array(ODD_OPERANDS, np.float32)[rng.integers(len(ODD_OPERANDS), size=shape)]
        extreme, equal = base.numbers[:rows], base.numbers[rows:]
        extreme[:, positions] = np.where(rng.random(shape) < 0.7, odd, extreme[:, positions])
        equal[:, positions] = equal[:, positions[:1]]
        yield base.numbers, base.texts


def _derived_thresholds(
    pipeline: Trained, derivation: Derivation, training: LabelledRows, rng: np.random.Generator, most: int
) -> Iterator[tuple[Numbers, Texts]]:
    """Yield pairs of rows that differ in one operand, with derived values on both sides of a tree threshold.

    The total is limited to about `most` pairs. If both values drawn for an operand put the derived value on the same
    side of the threshold, the pair stays on that side.
    """
    every = pipeline.thresholds()
    first = training.numbers.shape[1]  # in tree models, the derived columns follow the raw numbers
    split = [(each, every[first + index]) for index, each in enumerate(derivation.columns) if first + index in every]
    operands = sum(len(derivation.only(column).operands) for column, _ in split)
    for column, thresholds in split:
        single, rows = derivation.only(column), max(1, most // operands)
        sample = thresholds[np.linspace(0, len(thresholds) - 1, rows).astype(np.intp)]
        for position in single.operands:
            base, *sides = (training.take(rng.integers(len(training), size=rows)) for _ in range(3))
            low, high = (side.numbers[:, position] for side in sides)
            for cells in _enclose(single, base.numbers, position, thresholds=sample, low=low, high=high):
                numbers = base.numbers.copy()
                numbers[:, position] = cells
                yield numbers, base.texts


def _enclose(
    derivation: Derivation, numbers: Numbers, position: int, *, thresholds: Numbers, low: Numbers, high: Numbers
) -> tuple[Numbers, Numbers]:
    """Narrow the interval between two values of an operand around the point where the last derived column crosses the
    threshold.
    """

    def is_below(cells: Numbers) -> NDArray[np.bool_]:
        rows = numbers.copy()
        rows[:, position] = cells
        return np.asarray(derivation.append(rows)[:, -1] <= thresholds)

    start = is_below(low)
    for _ in range(BISECTIONS):
        middle = (low.astype(np.float64) / 2 + high.astype(np.float64) / 2).astype(np.float32)
        is_like_low = is_below(middle) == start
        low, high = np.where(is_like_low, middle, low), np.where(is_like_low, high, middle)
    return low, high


def _with_number(
    training: LabelledRows, rng: np.random.Generator, column: int, values: NDArray[np.float32]
) -> tuple[Numbers, Texts]:
    base = training.take(rng.integers(len(training), size=len(values)))
    base.numbers[:, column] = values
    return base.numbers, base.texts


def certify(reference: NDArray[Any], output: NDArray[np.float32], decision: Decision, spread: float = 1.0) -> Parity:
    """Return a certificate if the graph's output agrees with the trained model's output; otherwise, raise ParityError.

    All values must be finite, labels must match, and probabilities must agree to within 1e-5. Regression values must
    agree to within 1e-5 * (`spread` + |value|), where `spread` is the standard deviation of the target.
    """
    if reference.shape != output.shape:
        raise ParityError(f"the exported graph returned an output of shape {output.shape}; expected {reference.shape}")
    with np.errstate(invalid="ignore"):
        gap = np.abs(reference - output.astype(np.float64))
    gap[~np.isfinite(gap)] = np.inf
    allowed = TOLERANCE if decision.task != "regression" else TOLERANCE * (spread + np.abs(reference))
    flips = 0
    if decision.task != "regression":
        flips = int(
            np.sum(winning_classes(decision, reference.astype(np.float32)) != winning_classes(decision, output))
        )
    certificate = Parity(len(reference), float(gap.max()), flips)
    if flips or not np.all(np.isfinite(gap) & (gap <= allowed)):
        raise ParityError(
            f"the exported graph differs from the trained model: {flips} of {len(reference)} labels differ, "
            f"and the outputs differ by up to {certificate.max_abs_diff:.3g}"
        )
    return certificate
