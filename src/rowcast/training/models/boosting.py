"""Gradient-boosted trees (LightGBM), exported as one TreeEnsembleRegressor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import lightgbm
import numpy as np
import optuna
from numpy.typing import NDArray

from rowcast.errors import TrainingError
from rowcast.schema.prediction import Task
from rowcast.training.features import Numbers, Style
from rowcast.training.models.candidate import Estimator, LabelledMatrix, Params, Raw, Setting
from rowcast.training.onnx_graph import GraphBuilder, Matrix, Tree, Trees
from rowcast.training.presets import Size

LIGHTGBM_ZERO: Final = float(np.float32(1e-35))
"""LightGBM treats every number within this distance of zero as zero."""


@dataclass(frozen=True)
class BoostedTrees:
    """A fitted LightGBM booster."""

    params: Params
    booster: lightgbm.Booster
    width: int
    share: float = 1.0
    """The weight of this booster in an average."""
    losses: tuple[float, ...] = ()
    """The validation loss after each round; empty if there were no validation rows."""

    def raw(self, matrix: Numbers) -> Raw:
        return self.link(self.sums(matrix))

    def sums(self, matrix: Numbers) -> Raw:
        scores = self.booster.predict(matrix, raw_score=True, num_iteration=self.params["rounds"], num_threads=1)
        return np.asarray(scores, np.float64).reshape(len(matrix), self.width) * self.share

    def link(self, sums: Raw) -> Raw:
        return sums

    def emit_link(self, _graph: GraphBuilder, sums: str) -> str:
        return sums

    def after(self, rounds: int) -> BoostedTrees:
        """Return the state of this estimator after `rounds` rounds, or after its last round if it has fewer rounds."""
        return replace(self, params=self.params | {"rounds": min(rounds, self.booster.current_iteration())})

    def reduced(self, _trees: int, _nodes: int) -> BoostedTrees:
        return self  # each tree corrects the errors of all trees before it

    def averaged(self, others: Sequence[BoostedTrees]) -> Sequence[BoostedTrees]:
        estimators = (self, *others)
        return [replace(each, share=1.0 / len(estimators)) for each in estimators]

    def trees(self) -> Trees:
        return self._trees

    @cached_property
    def _trees(self) -> Trees:
        trees = Trees(self.width)
        for index, tree in enumerate(self.booster.dump_model(self.params["rounds"])["tree_info"]):
            trees.add(_flatten(tree["tree_structure"], index % self.width, self.share))
        return trees

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        return self.trees().emit(graph, matrix)

    @property
    def size(self) -> Size:
        trees = int(self.params["rounds"]) * self.width
        return Size(trees, trees * (2 * int(self.params["num_leaves"]) - 1))

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        return self.trees().thresholds()


def _flatten(root: Mapping[str, Any], target: int, share: float) -> Tree:
    """Return a tree of LightGBM's dump as arrays, with leaf weights multiplied by `share`."""
    nodes: list[tuple[int, float, int, int, float]] = [(0, 0.0, -1, -1, 0.0)]
    stack = [(0, root)]
    while stack:
        number, content = stack.pop()
        if "split_feature" not in content:
            nodes[number] = (0, 0.0, -1, -1, content["leaf_value"] * share)
            continue
        if content["decision_type"] != "<=":
            raise TrainingError(
                f"LightGBM returned a split of type {content['decision_type']!r}, which cannot be exported"
            )
        true, false = len(nodes), len(nodes) + 1
        nodes += [nodes[0], nodes[0]]
        nodes[number] = (content["split_feature"], _outside_zero(content["threshold"]), true, false, 0.0)
        stack += [(true, content["left_child"]), (false, content["right_child"])]
    features, thresholds, trues, falses, weights = (np.array(column) for column in zip(*nodes, strict=True))
    return Tree(features, thresholds, trues, falses, weights[:, None], target)


def _outside_zero(threshold: float) -> float:
    """Adjust a threshold that is close to zero, because LightGBM treats numbers within 1e-35 of zero as zero."""
    if 0 <= threshold < LIGHTGBM_ZERO:
        return LIGHTGBM_ZERO
    if -LIGHTGBM_ZERO <= threshold < 0:
        return float(np.nextafter(np.float32(-LIGHTGBM_ZERO), np.float32(-np.inf)))
    return threshold


class Boosting:
    """Gradient-boosted trees (LightGBM).

    Training is deterministic and stops when the validation loss no longer improves. The losses of all folds together
    determine the number of rounds.
    """

    name = "boosting"
    style: Style = "trees"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    stops_in_time = True
    threadsafe = True
    MOST_ROUNDS: Final = 600
    MANY_ROUNDS: Final = 2000
    """The maximum number of rounds with random split points, which require more rounds than optimal split points."""
    PATIENCE: Final = 25
    FEW_ROUNDS: Final = 150
    """If a preset allows fewer rounds than this, the learning rate is increased."""

    def is_bagged(self, setting: Setting) -> bool:
        return setting.bags > 1

    def _limits(self, params: Params, setting: Setting) -> Params:
        """Return the number of rounds that the preset allows, and a suitable learning rate."""
        most = self.MANY_ROUNDS if params.get("extra_trees") else self.MOST_ROUNDS
        rounds = max(1, min(most, setting.preset.trees_within(params["num_leaves"]) // setting.width))
        rate = params["learning_rate"]
        if rounds < self.FEW_ROUNDS:
            rate = max(rate, min(0.3, rate * self.FEW_ROUNDS / rounds))
        return {"rounds": rounds, "learning_rate": rate}

    def starts(self, setting: Setting) -> Sequence[Params]:
        # On five of nine public classification tables with fewer than 10,000 rows, trees with 8 leaves were better than
        # trees with 31 leaves; on the other four, they were worse by smaller margins. They also score a row in half the
        # time. In regression, trees with 31 leaves were clearly better.
        shallow = setting.task != "regression" and setting.rows < 10_000
        first = {
            "learning_rate": 0.06,
            "num_leaves": 8 if shallow else 31,
            "min_data_in_leaf": 10 if setting.rows < 500 else 20,
            "feature_fraction": 0.8,
            "bagging_fraction": 0.8,
            "lambda_l2": 1.0,
        }
        fewer_columns = {"num_leaves": 31 if shallow else 64, "learning_rate": 0.04, "feature_fraction": 0.5}
        random_splits = {"extra_trees": True, "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 5}
        starts = [first, first | random_splits, first | fewer_columns]
        if setting.task == "regression" and setting.rows < 10_000:
            # In regression on eight public tables with fewer than 6,000 rows, trees with 4 leaves were better than
            # trees with 31 leaves on six tables.
            starts.append(first | {"num_leaves": 4})
        return starts

    def suggest(self, trial: optuna.Trial, _setting: Setting) -> Params:
        return {
            "learning_rate": trial.suggest_float("boosting.learning_rate", 0.02, 0.2, log=True),
            "num_leaves": trial.suggest_int("boosting.num_leaves", 4, 64, log=True),
            "min_data_in_leaf": trial.suggest_int("boosting.min_data_in_leaf", 5, 100, log=True),
            "feature_fraction": trial.suggest_float("boosting.feature_fraction", 0.4, 1.0),
            "bagging_fraction": trial.suggest_float("boosting.bagging_fraction", 0.5, 1.0),
            "lambda_l2": trial.suggest_float("boosting.lambda_l2", 1e-3, 30.0, log=True),
            "extra_trees": trial.suggest_categorical("boosting.extra_trees", [False, True]),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Estimator:
        is_fixed = "rounds" in params
        if not is_fixed:
            params = params | self._limits(params, setting)
        settings = _lightgbm_settings(setting) | {key: value for key, value in params.items() if key != "rounds"}
        data = lightgbm.Dataset(rows.matrix, rows.target, weight=rows.weight, params=settings, free_raw_data=False)
        if validation is None or is_fixed:
            booster = lightgbm.train(settings, data, params["rounds"])
            return BoostedTrees(params, booster, setting.width)
        valid = data.create_valid(validation.matrix, validation.target, weight=validation.weight)
        patience = self.PATIENCE * (2 if params.get("extra_trees") else 1)
        history: dict[str, dict[str, list[float]]] = {}
        callbacks: list[Any] = [
            lightgbm.record_evaluation(history),
            _stop_in_time(setting.out_of_time),
            lightgbm.early_stopping(patience, verbose=False),
        ]
        booster = lightgbm.train(
            settings, data, params["rounds"], valid_sets=[valid], callbacks=callbacks, keep_training_booster=True
        )
        # Unless the training booster is kept, LightGBM removes the rounds after the best one, which other folds may
        # need. The copy releases the memory that training needed.
        booster = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=-1))
        (losses,) = history["valid_0"].values()
        rounds = 1 + int(np.argmin(losses))
        return BoostedTrees({**params, "rounds": rounds}, booster, setting.width, losses=tuple(losses))


def _lightgbm_settings(setting: Setting) -> Params:
    objective = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}[setting.task]
    classes = {"num_class": setting.width} if setting.task == "multiclass" else {}
    return {
        "objective": objective,
        **classes,
        "bagging_freq": 1,
        "deterministic": True,
        "force_row_wise": True,
        "use_missing": False,
        "num_threads": setting.threads,
        "seed": setting.seed,
        "verbosity": -1,
    }


def _stop_in_time(out_of_time: Callable[[], bool]) -> Callable[[Any], None]:
    def stop(environment: Any) -> None:
        if out_of_time() and environment.evaluation_result_list:
            raise lightgbm.callback.EarlyStopException(environment.iteration, environment.evaluation_result_list)

    stop.order = 40  # type: ignore[attr-defined]  # runs after the early-stopping callback, which reads the same list
    return stop
