"""The preprocessing: fitted once, written twice, as numpy and as ONNX operators, equal to the last bit.

numbers  NaN becomes the training median, with a flag for columns that had gaps; scaled and clipped for linear models
         only (never before trees: rounding would move rows across a split)
texts    up to 64 levels: one-hot, where rare and unseen values share "no level at all"; missing is a level of its own
         more: the target's mean, what the level adds to other such columns, and its frequency, learnt out of fold,
         looked up
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge

from rowcast.training.onnx_graph import FLOAT, ML, GraphBuilder

Style = Literal["linear", "trees"]
MOST_LEVELS: Final = 64
RARE: Final = 3
CLIP: Final = np.float32(25.0)
"""Standard deviations beyond which a linear model sees no difference: 1e38 stays a number."""
INNER_FOLDS: Final = 5
SMOOTHING: Final = 10.0

Numbers = NDArray[np.float32]
Texts = NDArray[np.object_]


@dataclass(frozen=True)
class Scale:
    """Centre and inverse spread of the numbers, for linear models."""

    mean: Numbers
    inverse: Numbers


@dataclass(frozen=True)
class TextBlock:
    """One text column as a lookup: the level's row of `table`, its last row for everything else."""

    column: int
    levels: tuple[str, ...]
    table: Numbers

    def lookup(self, texts: Texts) -> Numbers:
        place = {level: index for index, level in enumerate(self.levels)}
        other = len(self.levels)
        return self.table[[place.get(text, other) for text in texts[:, self.column].tolist()]]


@dataclass(frozen=True)
class InnerFolds:
    """Which rows a row's target means may come from: those of other folds or, of folds in order, of earlier ones."""

    fold: NDArray[np.intp]
    ordered: bool


@dataclass(frozen=True)
class Features:
    """Raw columns to the matrix an estimator takes."""

    median: Numbers
    flagged: NDArray[np.int64]
    scale: Scale | None
    blocks: tuple[TextBlock, ...]

    def transform(self, numbers: Numbers, texts: Texts) -> Numbers:
        """The matrix [N, width] in float32: numbers, flags, levels."""
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
        with np.errstate(over="ignore"):  # infinite for a moment: the clip follows
            scaled = (filled - self.scale.mean) * self.scale.inverse
        return np.asarray(np.clip(scaled, -CLIP, CLIP))

    def emit(self, graph: GraphBuilder, numbers: str, texts: str) -> str:
        """The same matrix, as the name of a tensor in a graph."""
        parts = self._emit_numbers(graph, numbers) if len(self.median) else []
        parts += _emit_blocks(graph, self.blocks, texts) if self.blocks else []
        return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)

    def _emit_numbers(self, graph: GraphBuilder, numbers: str) -> list[str]:
        gaps = graph.node("IsNaN", numbers)
        filled = graph.node("Where", gaps, graph.constant(self.median), numbers)
        if self.scale is not None:
            centred = graph.node("Sub", filled, graph.constant(self.scale.mean))
            scaled = graph.node("Mul", centred, graph.constant(self.scale.inverse))
            filled = graph.node("Clip", scaled, graph.constant(np.array(-CLIP)), graph.constant(np.array(CLIP)))
        if not len(self.flagged):
            return [filled]
        chosen = graph.node("Gather", gaps, graph.constant(self.flagged), axis=1)
        return [filled, graph.node("Cast", chosen, to=FLOAT)]


def _emit_blocks(graph: GraphBuilder, blocks: Sequence[TextBlock], texts: str) -> list[str]:
    """Each block's rows of its table. Texts become numbers at once: taking columns apart would copy every string twice
    (a third of the graph's time at 32 rows)."""
    union = {level: index for index, level in enumerate(dict.fromkeys(chain(*(block.levels for block in blocks))))}
    places = graph.node(
        "LabelEncoder",
        texts,
        domain=ML,
        keys_strings=list(union),
        values_int64s=list(union.values()),
        default_int64=len(union),
    )
    parts = []
    for block in blocks:
        own = {level: index for index, level in enumerate(block.levels)}
        rows = [own.get(level, len(own)) for level in union] + [len(own)]
        column = graph.node("Gather", places, graph.constant(np.array(block.column)), axis=1)
        parts.append(graph.node("Gather", graph.constant(block.table[rows]), column, axis=0))
    return parts


def fit(
    numbers: Numbers,
    texts: Texts,
    target: NDArray[np.float64],
    style: Style,
    inner: InnerFolds | None = None,
    weight: NDArray[np.float64] | None = None,
) -> tuple[Features, Numbers]:
    """Features learnt from training rows, and those rows' own matrix, where target means come from other rows only.

    `target` is [N, k]: one column a raw score (the class as 0 or 1, or the value). Without `inner`, chance decides
    which rows are the others; target means are weighted.
    """
    inner = inner or InnerFolds(np.random.default_rng(0).permutation(len(target)) % INNER_FOLDS, ordered=False)
    median, flagged, scale = _fit_numbers(numbers, style)
    blocks: dict[int, TextBlock] = {}
    coded: list[_Coded] = []
    for column in range(texts.shape[1]):
        cells = texts[:, column].tolist()
        counts = Counter(cells)
        if len(counts) <= MOST_LEVELS:
            blocks[column] = _one_hot(column, counts)
        else:
            coded.append(_coded(column, cells, counts))
    learnt = _target_means(coded, _Wanted(target, inner, weight))
    blocks |= {block.column: block for block, _ in learnt}
    features = Features(median, flagged, scale, tuple(blocks[column] for column in sorted(blocks)))
    matrix = features.transform(numbers, texts)
    replaced = {block.column: own for block, own in learnt}
    start = len(median) + len(flagged)
    for block in features.blocks:
        width = block.table.shape[1]
        if block.column in replaced:
            matrix[:, start : start + width] = replaced[block.column]
        start += width
    return features, matrix


def _fit_numbers(numbers: Numbers, style: Style) -> tuple[Numbers, NDArray[np.int64], Scale | None]:
    gaps = np.isnan(numbers)
    median = np.zeros(numbers.shape[1], np.float32)
    for column in np.flatnonzero(~gaps.all(axis=0)):
        present = np.sort(numbers[~gaps[:, column], column])
        median[column] = present[(len(present) - 1) // 2]  # a value that was seen: no mean of two that may overflow
    flagged = np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0)).astype(np.int64)
    if style == "trees":
        return median, flagged, None
    filled = np.where(gaps, median, numbers).astype(np.float64)
    mean, spread = filled.mean(axis=0), filled.std(axis=0)
    inverse = np.where(spread > 0, 1.0 / np.maximum(spread, 1e-30), 1.0)
    return median, flagged, Scale(mean.astype(np.float32), inverse.astype(np.float32))


def _one_hot(column: int, counts: Counter[str]) -> TextBlock:
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    frequent = [text for text in ranked if counts[text] >= RARE] or ranked[:1]  # a matrix is never empty
    table = np.concatenate([np.eye(len(frequent)), np.zeros((1, len(frequent)))]).astype(np.float32)
    return TextBlock(column, tuple(frequent), table)


@dataclass(frozen=True)
class _Wanted:
    """What target means are made of."""

    target: NDArray[np.float64]
    inner: InnerFolds
    weight: NDArray[np.float64] | None

    def scaled(self) -> NDArray[np.float64]:
        """Centred, with a spread of one; of more than two classes without the last, which follows from the others."""
        target = self.target[:, :-1] if self.target.shape[1] > 2 else self.target
        middle = target.mean(axis=0) if self.weight is None else np.average(target, axis=0, weights=self.weight)
        spread = target.std(axis=0)
        return np.asarray((target - middle) / np.where(spread > 0, spread, 1.0))


@dataclass(frozen=True)
class _Coded:
    """A text column of many levels, the most frequent first, and the level of each row."""

    column: int
    levels: tuple[str, ...]
    codes: NDArray[np.intp]


def _coded(column: int, cells: list[str], counts: Counter[str]) -> _Coded:
    levels = sorted(counts, key=lambda text: (-counts[text], text))
    place = {level: index for index, level in enumerate(levels)}
    return _Coded(column, tuple(levels), np.array([place[cell] for cell in cells]))


def _target_means(coded: Sequence[_Coded], wanted: _Wanted) -> list[tuple[TextBlock, Numbers]]:
    """Lookups of what each level says of the target and how frequent it is, and the training rows' own values, where
    the target is that of other rows."""
    if not coded:
        return []
    fold, rows = wanted.inner.fold, len(wanted.target)
    everywhere = _learnt(coded, wanted, np.ones(rows, bool))
    found = []
    for each, learnt in zip(coded, everywhere, strict=True):
        often = np.log1p(np.bincount(each.codes, minlength=len(each.levels) + 1))[:, None] / np.log1p(rows)
        table = np.concatenate([learnt, often], axis=1).astype(np.float32)
        found.append((TextBlock(each.column, each.levels, table), table[each.codes]))
    for index in range(fold.max() + 1):
        mine, others = fold == index, fold < index if wanted.inner.ordered else fold != index
        for each, (_, own), learnt in zip(coded, found, _learnt(coded, wanted, others), strict=True):
            own[mine, :-1] = learnt[each.codes[mine]]
    return found


def _learnt(coded: Sequence[_Coded], wanted: _Wanted, rows: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """A table for each column, learnt from these rows: the target's smoothed mean in each level, and, beside other such
    columns, what the level adds to theirs (decision 0028)."""
    target, weight = wanted.scaled()[rows], None if wanted.weight is None else wanted.weight[rows]
    means = [_means(each.codes[rows], target, weight, len(each.levels)) for each in coded]
    if len(coded) == 1 or not rows.any():
        return means if len(coded) == 1 else [np.tile(each, 2) for each in means]
    return [np.hstack(pair) for pair in zip(means, _effects(coded, target, weight, rows), strict=True)]


def _effects(
    coded: Sequence[_Coded], target: NDArray[np.float64], weight: NDArray[np.float64] | None, rows: NDArray[np.bool_]
) -> list[NDArray[np.float64]]:
    """Least squares over the levels of all columns at once, held as small as the means are smoothed."""
    count = len(target)
    widths = [len(each.levels) + 1 for each in coded]
    hot = [
        sparse.csr_matrix((np.ones(count), each.codes[rows], np.arange(count + 1)), shape=(count, width))
        for each, width in zip(coded, widths, strict=True)
    ]
    model = Ridge(alpha=SMOOTHING, fit_intercept=False, solver="sparse_cg", tol=1e-4)
    model.fit(sparse.hstack(hot, format="csr"), target, sample_weight=weight)
    return np.split(np.atleast_2d(model.coef_).T, np.cumsum(widths)[:-1])


def _means(
    codes: NDArray[np.intp], target: NDArray[np.float64], weight: NDArray[np.float64] | None, levels: int
) -> NDArray[np.float64]:
    """Each level's mean of a centred target, drawn to 0 the rarer it is; 0 for a level that was not seen."""
    counts = np.bincount(codes, weight, minlength=levels + 1)[:, None]
    if weight is not None:
        target = target * weight[:, None]
    sums = np.stack([np.bincount(codes, weights=column, minlength=levels + 1) for column in target.T], axis=1)
    return np.asarray(sums / (counts + SMOOTHING))
