"""One decision tree, and forests of them (random or extra), with scikit-learn; written as one TreeEnsembleRegressor.

A leaf holds shares of the classes; the raw score is the log-odds of the averaged share. Leaf weights are multiples of
one power of two and small enough that float32 adds them without rounding, in any order: see decision 0016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from rowcast.training.models.candidate import Fitted, LabelledMatrix, Params, Raw, Setting
from rowcast.training.onnx_graph import DOUBLE, FLOAT, GraphBuilder, Trees

SHARE: Final = 0.005
"""No class gets less: a forest that never saw a class here does not know that it cannot be."""
EXACT: Final = 2.0**24
"""Whole numbers up to here are exact in float32."""


@dataclass(frozen=True)
class Grove:
    """Fitted trees with one row of leaf weights a node; their sum plus `base` is a share or a value."""

    params: Params
    task: Task
    grown: tuple[Any, ...]
    """scikit-learn's `Tree` of each estimator."""
    weights: tuple[Raw, ...]
    base: float

    def raw(self, matrix: Numbers) -> Raw:
        rows = np.ascontiguousarray(matrix, np.float32)
        total = sum((weights[tree.apply(rows)] for tree, weights in zip(self.grown, self.weights, strict=True)), 0.0)
        summed = np.asarray(total, np.float64)
        if self.task == "regression":
            return summed + self.base
        return np.log(summed) - np.log(1.0 - summed) if self.task == "binary" else np.log(summed)

    def emit(self, graph: GraphBuilder, matrix: str) -> str:
        wide = graph.node("Cast", self.trees().emit(graph, matrix), to=DOUBLE)
        if self.task == "regression":
            found = graph.node("Add", wide, graph.constant(np.array(self.base)))
        else:
            found = graph.node("Log", wide)
            if self.task == "binary":
                rest = graph.node("Sub", graph.constant(np.array(1.0)), wide)
                found = graph.node("Sub", found, graph.node("Log", rest))
        return graph.node("Cast", found, to=FLOAT)

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        return self.trees().thresholds()

    def trees(self) -> Trees:
        """The trees as a flat table."""
        trees = Trees(self.weights[0].shape[1])
        for index, (tree, weights) in enumerate(zip(self.grown, self.weights, strict=True)):
            columns = (tree.children_left, tree.children_right, tree.feature, tree.threshold, weights)
            for node, (left, right, feature, threshold, leaf) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            ):
                if left < 0:
                    trees.leaf(index, node, dict(enumerate(leaf)))
                else:
                    trees.split(index, node, feature, threshold, left, right)
        return trees


class DecisionTree:
    """A single tree: rarely the best, always the easiest to follow."""

    name = "tree"
    style: Style = "trees"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    threadsafe = True

    def starts(self, setting: Setting) -> Sequence[Params]:
        return ({"max_leaf_nodes": 32, "min_samples_leaf": max(5, min(setting.rows // 100, 50))},)

    def suggest(self, trial: optuna.Trial, _setting: Setting) -> Params:
        return {
            "max_leaf_nodes": trial.suggest_int("tree.max_leaf_nodes", 4, 256, log=True),
            "min_samples_leaf": trial.suggest_int("tree.min_samples_leaf", 2, 200, log=True),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, _validation: LabelledMatrix | None = None
    ) -> Fitted:
        kind = DecisionTreeRegressor if setting.task == "regression" else DecisionTreeClassifier
        fitted = kind(**params, random_state=setting.seed).fit(*rows)
        return _grove([fitted], rows, params, setting)


class Forest:
    """The average of many trees, each grown on rows drawn with replacement (a random forest)."""

    name = "forest"
    style: Style = "trees"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    threadsafe = True
    TREES: Final = 100
    STEP: Final = 20
    """Trees grown between two looks at the clock."""
    share: float = 0.3
    """Of the columns that a split chooses from, as a first guess; half as many again for values."""
    estimators: tuple[type, type] = (RandomForestClassifier, RandomForestRegressor)

    def starts(self, setting: Setting) -> Sequence[Params]:
        fewest, share = _fewest(setting), self.share
        if setting.task == "regression":
            share = min(1.0, share * 1.5)
        small, large = max(1 if setting.task == "multiclass" else 2, fewest), fewest + 7
        return {"min_samples_leaf": small, "max_features": share}, {"min_samples_leaf": large, "max_features": share}

    def suggest(self, trial: optuna.Trial, setting: Setting) -> Params:
        fewest = _fewest(setting)
        return {
            "min_samples_leaf": trial.suggest_int(f"{self.name}.min_samples_leaf", fewest, fewest + 30, log=True),
            "max_features": trial.suggest_float(f"{self.name}.max_features", 0.1, 1.0),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Fitted:
        settings, kind = dict(params), self.estimators[setting.task == "regression"]
        most = settings.pop("rounds", self.TREES)
        model = kind(**settings, n_estimators=0, warm_start=True, n_jobs=setting.jobs, random_state=setting.seed)
        while model.n_estimators < most:
            model.set_params(n_estimators=min(model.n_estimators + self.STEP, most))
            model.fit(*rows)
            if validation is not None and setting.out_of_time():
                break  # judged with the trees it has, and grown no larger if it is chosen
        return _grove(model.estimators_, rows, {**params, "rounds": model.n_estimators}, setting)


class ExtraTrees(Forest):
    """The average of many trees whose splits are drawn at random: smoother, and wrong in other places than a forest."""

    name = "extra"
    share = 0.6
    estimators = (ExtraTreesClassifier, ExtraTreesRegressor)


def _fewest(setting: Setting) -> int:
    """The smallest leaf: it bounds the graph, 100 trees over 50,000 rows stay near 300,000 nodes."""
    return max(1, setting.rows // 4000)


def _grove(fitted: Sequence[Any], rows: LabelledMatrix, params: Params, setting: Setting) -> Grove:
    grown = tuple(estimator.tree_ for estimator in fitted)
    if setting.task == "regression":
        base = float(rows.target.mean())
        weights = [(tree.value[:, 0, :] - base) / len(grown) for tree in grown]
    else:
        base, present = 0.0, np.unique(rows.target).astype(np.intp)
        weights = [_shares(tree.value[:, 0, :], present, setting) / len(grown) for tree in grown]
    return Grove(params, setting.task, grown, _exact(weights), base)


def _shares(found: Raw, present: NDArray[np.intp], setting: Setting) -> Raw:
    """Shares of every class (of two: the positive one), also of those that a fold lacks, all a little above zero."""
    classes = max(setting.width, 2)
    full = np.zeros((len(found), classes))
    full[:, present] = found / found.sum(axis=1, keepdims=True)
    smooth = SHARE / classes + (1.0 - SHARE) * full
    return smooth[:, 1:] if setting.task == "binary" else smooth


def _exact(weights: Sequence[Raw]) -> tuple[Raw, ...]:
    """The weights rounded to the multiples of a power of two whose sums stay below 2^24 of them."""
    largest = sum(float(np.abs(each).max()) for each in weights)
    if largest == 0.0:
        return tuple(weights)
    unit = 2.0 ** np.ceil(np.log2(largest)) / (EXACT / 2)
    return tuple(np.round(each / unit) * unit for each in weights)
