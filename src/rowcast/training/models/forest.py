"""Decision trees, random forests and extra trees (scikit-learn), exported as one TreeEnsembleRegressor.

In classification, a leaf contains class proportions, and raw scores are computed from the averages of these proportions
over all trees. Leaf weights are multiples of a power of two, so that float32 sums are exact in any order (decision
0016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from rowcast.schema.prediction import Task
from rowcast.training.features import Numbers, Style
from rowcast.training.models.candidate import Estimator, LabelledMatrix, Params, Raw, Setting
from rowcast.training.onnx_graph import DOUBLE, FLOAT, GraphBuilder, Matrix, Tree, Trees
from rowcast.training.presets import Size

SHARE: Final = 0.005
"""The fraction of each leaf's weight that is divided evenly among all classes.

It keeps the proportion of each class above 0 even if no row in the leaf has that class.
"""
FEWEST_TREES: Final = 5
WEIGHTS_PER_NODE: Final = 6
"""The number of additional weights per leaf that doubles the size of a tree. Half of the nodes are leaves, and three
leaf weights need as much space as a node.
"""
EXACT: Final = 2.0**24
"""Integers up to this limit are exact in float32."""


@dataclass(frozen=True)
class Grove:
    """Fitted trees with a vector of weights for each node.

    For a given row, the leaf weights of all trees and `base` add up to the class proportions or the predicted value.
    """

    params: Params
    task: Task
    members: tuple[Any, ...]
    """The `Tree` object of each scikit-learn estimator."""
    weights: tuple[Raw, ...]
    base: float

    def raw(self, matrix: Numbers) -> Raw:
        return self.link(self.sums(matrix))

    def sums(self, matrix: Numbers) -> Raw:
        rows = np.ascontiguousarray(matrix, np.float32)
        total = sum((weights[tree.apply(rows)] for tree, weights in zip(self.members, self.weights, strict=True)), 0.0)
        return np.asarray(total, np.float64)

    def link(self, sums: Raw) -> Raw:
        if self.task == "regression":
            return sums + self.base
        return np.log(sums) - np.log(1.0 - sums) if self.task == "binary" else np.log(sums)

    def averaged(self, others: Sequence[Grove]) -> Sequence[Grove]:
        groves = (self, *others)
        base = float(np.mean([grove.base for grove in groves]))
        weights = [each / len(groves) for grove in groves for each in grove.weights]
        # The base is added once, so it must be the same in all groves.
        exact = iter(_exact(weights))
        return [replace(grove, base=base, weights=tuple(next(exact) for _ in grove.weights)) for grove in groves]

    def reduced(self, trees: int, nodes: int) -> Grove:
        """Return a grove of the first trees: as many as the limits allow, but at least five."""
        count = max(FEWEST_TREES, min(trees, nodes * len(self.members) // self.size.nodes))
        if count >= len(self.members):
            return self
        scale = len(self.members) / count
        weights = _exact([each * scale for each in self.weights[:count]])
        return replace(self, members=self.members[:count], weights=weights, params=self.params | {"rounds": count})

    @property
    def size(self) -> Size:
        nodes = sum(tree.node_count for tree in self.members)
        return Size(len(self.members), nodes + nodes * (self.weights[0].shape[1] - 1) // WEIGHTS_PER_NODE)

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        return self.emit_link(graph, self.trees().emit(graph, matrix))

    def emit_link(self, graph: GraphBuilder, sums: str) -> str:
        wide = graph.node("Cast", sums, to=DOUBLE)
        if self.task == "regression":
            raw = graph.node("Add", wide, graph.constant(np.array(self.base)))
        else:
            raw = graph.node("Log", wide)
            if self.task == "binary":
                rest = graph.node("Sub", graph.constant(np.array(1.0)), wide)
                raw = graph.node("Sub", raw, graph.node("Log", rest))
        return graph.node("Cast", raw, to=FLOAT)

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        return self.trees().thresholds()

    def trees(self) -> Trees:
        return self._trees

    @cached_property
    def _trees(self) -> Trees:
        table = Trees(self.weights[0].shape[1])
        for tree, weights in zip(self.members, self.weights, strict=True):
            table.add(Tree(tree.feature, tree.threshold, tree.children_left, tree.children_right, weights))
        return table


class DecisionTree:
    """A single decision tree: rarely the best model, but the easiest to interpret."""

    name = "tree"
    style: Style = "trees"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    stops_in_time = False
    threadsafe = True

    def is_bagged(self, _setting: Setting) -> bool:
        return False  # the average of several trees is hard to interpret

    def starts(self, setting: Setting) -> Sequence[Params]:
        return ({"max_leaf_nodes": 32, "min_samples_leaf": max(5, min(setting.rows // 100, 50))},)

    def suggest(self, trial: optuna.Trial, _setting: Setting) -> Params:
        return {
            "max_leaf_nodes": trial.suggest_int("tree.max_leaf_nodes", 4, 256, log=True),
            "min_samples_leaf": trial.suggest_int("tree.min_samples_leaf", 2, 200, log=True),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, _validation: LabelledMatrix | None = None
    ) -> Estimator:
        kind = DecisionTreeRegressor if setting.task == "regression" else DecisionTreeClassifier
        tree = kind(**params, random_state=setting.seed)
        _fit(tree, rows)
        return _make_grove([tree], rows, params, setting)


class Forest:
    """A random forest: the average of many trees, each grown on a bootstrap sample of the rows."""

    name = "forest"
    style: Style = "trees"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    stops_in_time = True
    threadsafe = True
    TREES: Final = 100
    STEP: Final = 5
    """The number of trees to grow between checks of the time limit."""
    share: float = 0.3
    """The default share of columns considered at each split. In regression, the default is 1.5 times this share."""
    larger_leaves: int = 1
    """The default ratio of the minimum leaf size to the smallest allowed size."""
    estimators: tuple[type, type] = (RandomForestClassifier, RandomForestRegressor)

    def is_bagged(self, setting: Setting) -> bool:
        return setting.bags > 1

    def starts(self, setting: Setting) -> Sequence[Params]:
        fewest, share = _min_leaf_size(setting), self.share
        if setting.task == "regression":
            share = min(1.0, share * 1.5)
        return (
            {"min_samples_leaf": fewest + self.larger_leaves, "max_features": share},
            {"min_samples_leaf": fewest + 7, "max_features": share},
        )

    def suggest(self, trial: optuna.Trial, setting: Setting) -> Params:
        fewest = _min_leaf_size(setting)
        return {
            "min_samples_leaf": trial.suggest_int(f"{self.name}.min_samples_leaf", fewest, fewest + 30, log=True),
            "max_features": trial.suggest_float(f"{self.name}.max_features", 0.1, 1.0),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Estimator:
        settings, kind = dict(params), self.estimators[setting.task == "regression"]
        most = settings.pop("rounds", self.TREES)
        model = kind(**settings, n_estimators=0, warm_start=True, n_jobs=setting.jobs, random_state=setting.seed)
        while model.n_estimators < most:
            model.set_params(n_estimators=min(model.n_estimators + self.STEP, most))
            _fit(model, rows)
            if validation is not None and setting.out_of_time():
                break  # the trees grown so far are validated; the final fit grows the same number of trees
        return _make_grove(model.estimators_, rows, {**params, "rounds": model.n_estimators}, setting)


class ExtraTrees(Forest):
    """Extra trees: a forest with random split points, so that its errors differ from a random forest's errors."""

    name = "extra"
    share = 0.6
    larger_leaves = 0  # random split points vary the trees enough, and small leaves are better for near-duplicate rows
    estimators = (ExtraTreesClassifier, ExtraTreesRegressor)


def _min_leaf_size(setting: Setting) -> int:
    """Return the smallest leaf size with which about 100 trees stay within the preset's node limit.

    Fully grown trees usually have less than one node per row. A node needs more space if there are many classes.
    """
    size = 1 + (setting.width - 1) / WEIGHTS_PER_NODE
    return max(1, int(setting.rows * size * 80 / setting.preset.nodes))


def _fit(model: Any, rows: LabelledMatrix) -> None:
    """Fit an estimator. Suppress overflow warnings, because scikit-learn adds up all cells to find NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        model.fit(*rows)


def _make_grove(estimators: Sequence[Any], rows: LabelledMatrix, params: Params, setting: Setting) -> Grove:
    trees = tuple(estimator.tree_ for estimator in estimators)
    if setting.task == "regression":
        base = float(rows.target.mean())
        weights = [(tree.value[:, 0, :] - base) / len(trees) for tree in trees]
    else:
        base, present = 0.0, np.unique(rows.target).astype(np.intp)
        weights = [_class_shares(tree.value[:, 0, :], present, setting) / len(trees) for tree in trees]
    return Grove(params, setting.task, trees, _exact(weights), base)


def _class_shares(values: Raw, present: NDArray[np.intp], setting: Setting) -> Raw:
    """Return the smoothed proportions of all classes, including classes that are absent from a fold.

    For two classes, return only the share of the positive class.
    """
    classes = max(setting.width, 2)
    full = np.zeros((len(values), classes))
    full[:, present] = values / values.sum(axis=1, keepdims=True)
    smooth = SHARE / classes + (1.0 - SHARE) * full
    return smooth[:, 1:] if setting.task == "binary" else smooth


def _exact(weights: Sequence[Raw]) -> tuple[Raw, ...]:
    """Round the weights to multiples of a unit.

    The unit is a power of two, chosen so that every sum stays below 2^24 units.
    """
    largest = sum(float(np.abs(each).max()) for each in weights)
    if largest == 0.0:
        return tuple(weights)
    unit = 2.0 ** np.ceil(np.log2(largest)) / (EXACT / 2)
    return tuple(np.round(each / unit) * unit for each in weights)
