"""Linear models: logistic regression, ridge regression and elastic net."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

from rowcast.schema.prediction import Task
from rowcast.training.features import Numbers, Style
from rowcast.training.models.candidate import Estimator, LabelledMatrix, Params, Raw, Setting
from rowcast.training.onnx_graph import DOUBLE, FLOAT, GraphBuilder, Matrix
from rowcast.training.presets import Size


@dataclass(frozen=True)
class Linear:
    """A fitted linear model: raw = matrix · weights + bias, in float64 both here and in the graph."""

    params: Params
    weights: Raw
    bias: Raw

    def raw(self, matrix: Numbers) -> Raw:
        return np.asarray(matrix.astype(np.float64) @ self.weights + self.bias)

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        wide = graph.node(
            "Cast", matrix.name, to=DOUBLE
        )  # large terms cancel out; in float32, sums were off by 3e-5 (decision 0011)
        product = graph.node("MatMul", wide, graph.constant(self.weights))
        return graph.node("Cast", graph.node("Add", product, graph.constant(self.bias)), to=FLOAT)

    @property
    def size(self) -> Size:
        return Size()

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        return {}


class Logistic:
    """Logistic regression on scaled columns."""

    name = "logistic"
    style: Style = "linear"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass"})
    stops_in_time = False
    threadsafe = False  # warning filters apply to the whole process

    def is_bagged(self, _setting: Setting) -> bool:
        return False

    def starts(self, _setting: Setting) -> Sequence[Params]:
        return {"strength": 1.0}, {"strength": 0.03}

    def suggest(self, trial: optuna.Trial, _setting: Setting) -> Params:
        return {"strength": trial.suggest_float(f"{self.name}.strength", 1e-3, 1e3, log=True)}

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, _validation: LabelledMatrix | None = None
    ) -> Estimator:
        return _logistic(rows, params, setting)


class LeastSquares(Logistic):
    """Ridge regression on scaled columns. Classes are encoded as -1 and 1, and scores are rescaled to log-odds."""

    name = "ridge"
    tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, _validation: LabelledMatrix | None = None
    ) -> Estimator:
        if setting.task == "regression":
            return _ridge(rows, rows.target[:, None], params)
        if setting.task == "binary":
            signs = np.where(rows.target == 1, 1.0, -1.0)[:, None]
        else:
            signs = 2 * np.eye(setting.width)[rows.target] - 1
        model = _ridge(rows, signs, params)
        error = float(np.average(((model.raw(rows.matrix) - signs) ** 2).mean(axis=1), weights=rows.weight))
        scale = 2 / max(error, 0.05)  # log-odds for two normal distributions with this variance and means of -1 and 1
        return Linear(params, model.weights * scale, model.bias * scale)


class SparseLinear:
    """Elastic net on scaled columns. Uninformative columns get a weight of zero."""

    name = "elasticnet"
    style: Style = "linear"
    tasks: frozenset[Task] = frozenset({"regression"})
    stops_in_time = False
    threadsafe = False

    def is_bagged(self, _setting: Setting) -> bool:
        return False

    def starts(self, _setting: Setting) -> Sequence[Params]:
        return ({"alpha": 0.01, "l1_ratio": 0.5},)

    def suggest(self, trial: optuna.Trial, _setting: Setting) -> Params:
        return {
            "alpha": trial.suggest_float("elasticnet.alpha", 1e-4, 1.0, log=True),
            "l1_ratio": trial.suggest_float("elasticnet.l1_ratio", 0.05, 1.0),
        }

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, _validation: LabelledMatrix | None = None
    ) -> Estimator:
        centre = float(np.average(rows.target, weights=rows.weight))
        spread = float(rows.target.std()) or 1.0  # scaling the target makes alpha independent of the target's unit
        model = ElasticNet(**params, max_iter=2000, tol=1e-3, random_state=setting.seed)
        with warnings.catch_warnings():
            # A model that has not converged is still usable; validation measures its quality.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows.matrix.astype(np.float64), (rows.target - centre) / spread, rows.weight)
        weights = np.asarray(model.coef_, np.float64).reshape(-1, 1) * spread
        return Linear(params, weights, np.array([model.intercept_ * spread + centre]))


def _logistic(rows: LabelledMatrix, params: Params, setting: Setting) -> Linear:
    if len(np.unique(rows.target)) == 1:
        return _constant(rows, params, setting)
    small = rows.matrix.shape[1] * setting.width <= 400  # each Newton step solves a dense system of this size
    model = LogisticRegression(C=params["strength"], solver="newton-cholesky" if small else "lbfgs", max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # validation measures its quality
        warnings.filterwarnings("ignore", module="scipy")
        model.fit(rows.matrix.astype(np.float64), rows.target, rows.weight)
    weights, bias = np.asarray(model.coef_.T, np.float64), np.asarray(model.intercept_, np.float64)
    if setting.width == 1:
        return Linear(params, weights, bias)
    return _with_all_classes(Linear(params, weights, bias), model.classes_, setting.width)


def _constant(rows: LabelledMatrix, params: Params, setting: Setting) -> Linear:
    """Return a model that always predicts the only class in the rows. Its confidence increases with the number of
    rows."""
    log_odds, label = np.log(len(rows.target) + 1.0), int(rows.target[0])
    bias = np.zeros(setting.width)
    if setting.width == 1:
        bias[0] = log_odds if label else -log_odds
    else:
        bias[label] = log_odds
    return Linear(params, np.zeros((rows.matrix.shape[1], setting.width)), bias)


def _with_all_classes(model: Linear, present: NDArray[np.intp], width: int) -> Linear:
    """Return a model with one score per class, including classes that are absent from a fold."""
    weights, bias = model.weights, model.bias
    if len(present) == 2:  # scikit-learn returns one column of log-odds for two classes
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    full, base = np.zeros((len(weights), width)), np.full(width, bias.min() - 10.0)
    full[:, present], base[present] = weights, bias
    return Linear(model.params, full, base)


def _ridge(rows: LabelledMatrix, target: Raw, params: Params) -> Linear:
    """Fit one ridge regression for each column of the target."""
    model = Ridge(alpha=1.0 / params["strength"]).fit(rows.matrix.astype(np.float64), target, rows.weight)
    weights = np.asarray(model.coef_, np.float64).reshape(target.shape[1], -1).T
    return Linear(params, np.ascontiguousarray(weights), np.atleast_1d(np.asarray(model.intercept_, np.float64)))
