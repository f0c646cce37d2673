"""Preprocessing that is fitted once and computes bit-identical results in NumPy and in ONNX.

Derived columns are appended to the numbers first, and are then treated like raw columns.

A missing number is replaced with the column's training median. If a column had missing values in training, a flag marks
its missing numbers. Linear models use scaled and clipped numbers. Trees use raw numbers, because rounding could move a
row to the other side of a split.

A text column with up to 64 levels is one-hot encoded. A missing value is a level of its own; rare and unseen
values do not have a level. In a text column with more levels, each level is replaced with three statistics: its target
mean, its effect after accounting for the other columns of this kind, and its frequency. The target statistics of
training rows are out-of-fold values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge

from rowcast.training.derivation import Derivation
from rowcast.training.onnx_graph import FLOAT, ML, GraphBuilder, Matrix, MatrixFeature

Style = Literal["linear", "trees"]
MOST_LEVELS: Final = 64
RARE: Final = 3
CLIP: Final = np.float32(25.0)
"""Scaled numbers are clipped to this many standard deviations, so that a value such as 1e38 does not overflow in a
linear model."""
NO_DERIVATION: Final = Derivation()
INNER_FOLDS: Final = 5
SMOOTHING: Final = 10.0

Numbers = NDArray[np.float32]
Texts = NDArray[np.object_]


@dataclass(frozen=True)
class Scale:
    """The mean and the inverse standard deviation of each numeric column, for linear models."""

    mean: Numbers
    inverse: Numbers


@dataclass(frozen=True)
class TextBlock:
    """An encoding of a text column: `table` has one row per level and a final row for all other values."""

    column: int
    levels: tuple[str, ...]
    table: Numbers

    @property
    def is_one_hot(self) -> bool:
        return len(self.levels) <= MOST_LEVELS

    def lookup(self, texts: Texts) -> Numbers:
        row = {level: index for index, level in enumerate(self.levels)}
        other = len(self.levels)
        return self.table[[row.get(text, other) for text in texts[:, self.column].tolist()]]

    def expand(self, numbers: Mapping[str, int]) -> Numbers:
        """Return the table, extended to one row for each level in `numbers` and a final row for all other values."""
        row = {level: index for index, level in enumerate(self.levels)}
        other = len(self.levels)
        return self.table[[row.get(level, other) for level in numbers] + [other]]


@dataclass(frozen=True)
class InnerFolds:
    """The folds for target means: a row's target means are computed from the other folds."""

    fold: NDArray[np.intp]
    ordered: bool
    """Whether the folds are ordered by time. If so, target means are computed only from earlier folds."""


@dataclass(frozen=True)
class Features:
    """The fitted transformation of raw columns into an estimator's feature matrix."""

    median: Numbers
    flagged: NDArray[np.int64]
    """The positions of the numeric columns that have a flag for missing values."""
    scale: Scale | None
    blocks: tuple[TextBlock, ...]
    derivation: Derivation

    def transform(self, numbers: Numbers, texts: Texts) -> Numbers:
        """Return the float32 matrix [N, width] of numbers, flags and encoded text columns."""
        return self._transform(self.derivation.append(numbers), texts)

    def _transform(self, numbers: Numbers, texts: Texts) -> Numbers:
        parts = []
        if len(self.median):
            gaps = np.isnan(numbers)
            parts.append(self._scaled(np.where(gaps, self.median, numbers)))
            parts.append(gaps[:, self.flagged].astype(np.float32))
        parts.extend(block.lookup(texts) for block in self.blocks)
        return np.concatenate(parts, axis=1)

    def _scaled(self, filled: Numbers) -> Numbers:
        if self.scale is None:
            return filled
        with np.errstate(over="ignore"):  # an overflow produces infinity, which is then clipped
            scaled = (filled - self.scale.mean) * self.scale.inverse
        return np.asarray(np.clip(scaled, -CLIP, CLIP))

    def emit(self, graph: GraphBuilder, numbers: str, texts: str) -> Matrix:
        """Add the transformation to a graph and return the matrix."""
        numbers = self.derivation.emit(graph, numbers)
        if self.scale is None:
            return self._emit_for_trees(graph, numbers, texts)
        parts = self._emit_numbers(graph, self.scale, numbers) if len(self.median) else []
        parts += _emit_blocks(graph, self.blocks, texts) if self.blocks else []
        return Matrix(_concat(graph, parts))

    def _emit_for_trees(self, graph: GraphBuilder, numbers: str, texts: str) -> Matrix:
        """Leave missing values in the matrix and omit the flags, because trees can read NaN.

        This saves four graph nodes, and merging the lookups saves two nodes per text column. Each node takes 1 µs.
        """
        parts = [numbers] if len(self.median) else []
        features = [MatrixFeature(position, float(median)) for position, median in enumerate(self.median)]
        features += [MatrixFeature(int(position), is_flag=True) for position in self.flagged]
        start, widths = len(self.median), [block.table.shape[1] for block in self.blocks]
        is_merged = len(widths) > 1 and max(widths) * len(widths) <= 2 * sum(widths)
        if is_merged:
            parts.append(_emit_merged_blocks(graph, self.blocks, texts, max(widths)))
        elif widths:
            parts += _emit_blocks(graph, self.blocks, texts)
        for width in widths:
            features += [MatrixFeature(start + place) for place in range(width)]
            start += max(widths) if is_merged else width
        return Matrix(_concat(graph, parts), features)

    def _emit_numbers(self, graph: GraphBuilder, scale: Scale, numbers: str) -> list[str]:
        gaps = graph.node("IsNaN", numbers)
        filled = graph.node("Where", gaps, graph.constant(self.median), numbers)
        centred = graph.node("Sub", filled, graph.constant(scale.mean))
        scaled = graph.node("Mul", centred, graph.constant(scale.inverse))
        filled = graph.node("Clip", scaled, graph.constant(np.array(-CLIP)), graph.constant(np.array(CLIP)))
        if not len(self.flagged):
            return [filled]
        flags = graph.node("Gather", gaps, graph.constant(self.flagged), axis=1)
        return [filled, graph.node("Cast", flags, to=FLOAT)]


def _concat(graph: GraphBuilder, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)


def _emit_levels(graph: GraphBuilder, blocks: Sequence[TextBlock], texts: str) -> tuple[str, dict[str, int]]:
    """Add a tensor of level indices; return its name, and a mapping from each level to its index.

    One LabelEncoder converts the strings in all columns. Separating the columns first would copy every string twice;
    for 32 rows, these copies would take a third of the graph's run time.
    """
    numbers = {level: index for index, level in enumerate(dict.fromkeys(chain(*(block.levels for block in blocks))))}
    levels = graph.node(
        "LabelEncoder",
        texts,
        domain=ML,
        keys_strings=list(numbers),
        values_int64s=list(numbers.values()),
        default_int64=len(numbers),
    )
    return levels, numbers


def _emit_blocks(graph: GraphBuilder, blocks: Sequence[TextBlock], texts: str) -> list[str]:
    """Add one lookup per text column; return the names of the encoded tensors."""
    levels, numbers = _emit_levels(graph, blocks, texts)
    parts = []
    for block in blocks:
        column = graph.node("Gather", levels, graph.constant(np.array(block.column)), axis=1)
        parts.append(graph.node("Gather", graph.constant(block.expand(numbers)), column, axis=0))
    return parts


def _emit_merged_blocks(graph: GraphBuilder, blocks: Sequence[TextBlock], texts: str, width: int) -> str:
    """Add one lookup for all text columns, with each block padded to the same width."""
    levels, numbers = _emit_levels(graph, blocks, texts)
    tables = [block.expand(numbers) for block in blocks]
    table = np.concatenate([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in tables])
    starts = np.arange(len(blocks)) * (len(numbers) + 1)
    rows = graph.node("Add", levels, graph.constant(starts))
    cells = graph.node("Gather", graph.constant(table), rows, axis=0)
    return graph.node("Reshape", cells, graph.constant(np.array([-1, width * len(blocks)])))


def fit(
    numbers: Numbers,
    texts: Texts,
    target: NDArray[np.float64],
    *,
    style: Style,
    inner: InnerFolds | None = None,
    weight: NDArray[np.float64] | None = None,
    common: Features | None = None,
    derivation: Derivation = NO_DERIVATION,
) -> tuple[Features, Numbers]:
    """Fit the preprocessing to the training rows; return it with their feature matrix.

    `target` has the shape [N, k], with one column per raw score: the class as 0 or 1, or the value. A row's target
    means are computed from the other folds of `inner`; if `inner` is None, the folds are random. `weight` applies to
    the target means. `common` is preprocessing that was fitted to more rows. If it is given, only the target means are
    fitted, and the rest is reused.
    """
    inner = inner or InnerFolds(np.random.default_rng(0).permutation(len(target)) % INNER_FOLDS, ordered=False)
    numbers = derivation.append(numbers)
    if common is None:
        median, flagged, scale = _fit_numbers(numbers, style)
    else:
        median, flagged, scale = common.median, common.flagged, common.scale
    blocks: dict[int, TextBlock] = {}
    coded: list[_CodedColumn] = []
    for column in range(texts.shape[1]):
        cells = texts[:, column].tolist()
        counts = Counter(cells)
        if common is not None and common.blocks[column].is_one_hot:
            blocks[column] = common.blocks[column]
        elif common is None and len(counts) <= MOST_LEVELS:
            blocks[column] = _one_hot(column, counts)
        else:
            coded.append(_encode_levels(column, cells, counts))
    lookups = _target_lookups(coded, _TargetRows(target, inner, weight))
    blocks |= {block.column: block for block, _ in lookups}
    features = Features(median, flagged, scale, tuple(blocks[column] for column in sorted(blocks)), derivation)
    matrix = features._transform(numbers, texts)
    out_of_fold = {block.column: values for block, values in lookups}
    start = len(median) + len(flagged)
    for block in features.blocks:
        width = block.table.shape[1]
        if block.column in out_of_fold:
            matrix[:, start : start + width] = out_of_fold[block.column]
        start += width
    return features, matrix


def _fit_numbers(numbers: Numbers, style: Style) -> tuple[Numbers, NDArray[np.int64], Scale | None]:
    gaps = np.isnan(numbers)
    median = np.zeros(numbers.shape[1], np.float32)
    for column in np.flatnonzero(~gaps.all(axis=0)):
        present = np.sort(numbers[~gaps[:, column], column])
        # the lower middle value, because the mean of the two middle values could overflow
        median[column] = present[(len(present) - 1) // 2]
    flagged = np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0)).astype(np.int64)
    if style == "trees":
        return median, flagged, None
    filled = np.where(gaps, median, numbers).astype(np.float64)
    mean, spread = filled.mean(axis=0), filled.std(axis=0)
    inverse = np.where(spread > 0, 1.0 / np.maximum(spread, 1e-30), 1.0)
    return median, flagged, Scale(mean.astype(np.float32), inverse.astype(np.float32))


def _one_hot(column: int, counts: Counter[str]) -> TextBlock:
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    frequent = [text for text in ranked if counts[text] >= RARE] or ranked[:1]  # the matrix needs at least one column
    table = np.concatenate([np.eye(len(frequent)), np.zeros((1, len(frequent)))]).astype(np.float32)
    return TextBlock(column, tuple(frequent), table)


@dataclass(frozen=True)
class _TargetRows:
    """The target of the training rows, with the folds and weights for target means."""

    target: NDArray[np.float64]
    inner: InnerFolds
    weight: NDArray[np.float64] | None

    def scaled(self) -> NDArray[np.float64]:
        """Return the target, scaled to mean 0 and standard deviation 1.

        If there are more than two classes, the final column is dropped, because the other columns determine it.
        """
        target = self.target[:, :-1] if self.target.shape[1] > 2 else self.target
        mean = target.mean(axis=0) if self.weight is None else np.average(target, axis=0, weights=self.weight)
        spread = target.std(axis=0)
        return np.asarray((target - mean) / np.where(spread > 0, spread, 1.0))


@dataclass(frozen=True)
class _CodedColumn:
    """A text column with many levels: the levels, most frequent first, and the level index of each row."""

    column: int
    levels: tuple[str, ...]
    codes: NDArray[np.intp]


def _encode_levels(column: int, cells: list[str], counts: Counter[str]) -> _CodedColumn:
    levels = sorted(counts, key=lambda text: (-counts[text], text))
    number = {level: index for index, level in enumerate(levels)}
    return _CodedColumn(column, tuple(levels), np.array([number[cell] for cell in cells]))


def _target_lookups(coded: Sequence[_CodedColumn], target: _TargetRows) -> list[tuple[TextBlock, Numbers]]:
    """Return the lookup table of each column, with the out-of-fold values of the training rows.

    A lookup table contains each level's frequency and its statistics over all rows.
    """
    if not coded:
        return []
    fold, rows = target.inner.fold, len(target.target)
    lookups = []
    for column, statistics in zip(coded, _level_statistics(coded, target, np.ones(rows, bool)), strict=True):
        counts = np.bincount(column.codes, minlength=len(column.levels) + 1)
        frequency = np.log1p(counts)[:, None] / np.log1p(rows)
        table = np.concatenate([statistics, frequency], axis=1).astype(np.float32)
        lookups.append((TextBlock(column.column, column.levels, table), table[column.codes]))
    for index in range(fold.max() + 1):
        mine, others = fold == index, fold < index if target.inner.ordered else fold != index
        fold_statistics = _level_statistics(coded, target, others)
        for column, (_, values), statistics in zip(coded, lookups, fold_statistics, strict=True):
            values[mine, :-1] = statistics[column.codes[mine]]
    return lookups


def _level_statistics(
    coded: Sequence[_CodedColumn], target: _TargetRows, rows: NDArray[np.bool_]
) -> list[NDArray[np.float64]]:
    """For each column, return a table with the smoothed target mean of each level in the selected rows.

    If there are several columns, each table also contains the effects of the levels, given the other columns (decision
    0028).
    """
    values, weight = target.scaled()[rows], None if target.weight is None else target.weight[rows]
    means = [_smoothed_means(column.codes[rows], values, weight, len(column.levels)) for column in coded]
    if len(coded) == 1 or not rows.any():
        return means if len(coded) == 1 else [np.tile(each, 2) for each in means]
    return [np.hstack(pair) for pair in zip(means, _joint_effects(coded, values, weight, rows), strict=True)]


def _joint_effects(
    coded: Sequence[_CodedColumn],
    target: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    rows: NDArray[np.bool_],
) -> list[NDArray[np.float64]]:
    """Estimate the effects of all levels in one ridge regression, with the same smoothing as the target means."""
    count = len(target)
    widths = [len(column.levels) + 1 for column in coded]
    one_hot = [
        sparse.csr_matrix((np.ones(count), column.codes[rows], np.arange(count + 1)), shape=(count, width))
        for column, width in zip(coded, widths, strict=True)
    ]
    model = Ridge(alpha=SMOOTHING, fit_intercept=False, solver="sparse_cg", tol=1e-4)
    model.fit(sparse.hstack(one_hot, format="csr"), target, sample_weight=weight)
    return np.split(np.atleast_2d(model.coef_).T, np.cumsum(widths)[:-1])


def _smoothed_means(
    codes: NDArray[np.intp], target: NDArray[np.float64], weight: NDArray[np.float64] | None, levels: int
) -> NDArray[np.float64]:
    """Return the mean of the centered target for each level.

    The means of rare levels are shrunk toward 0; the mean of an unseen level is 0.
    """
    counts = np.bincount(codes, weight, minlength=levels + 1)[:, None]
    if weight is not None:
        target = target * weight[:, None]
    sums = np.stack([np.bincount(codes, weights=column, minlength=levels + 1) for column in target.T], axis=1)
    return np.asarray(sums / (counts + SMOOTHING))
