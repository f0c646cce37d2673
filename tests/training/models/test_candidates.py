"""Properties and selection of candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from rowcast.errors import TrainingError
from rowcast.training.models.candidate import Candidate, LabelledMatrix
from rowcast.training.models.candidates import CANDIDATES, check, select
from support.training import fit_setting

ROWS = 600
Rng = np.random.Generator


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=lambda candidate: candidate.name)
def test_every_candidate_uses_row_weights(rng: Rng, candidate: Candidate, task: Any, validated: bool) -> None:
    if task not in candidate.tasks:
        return
    matrix = rng.normal(size=(ROWS, 2)).astype(np.float32)
    rule = np.digitize(matrix[:, 0], [-0.5, 0.5]) if task == "multiclass" else (matrix[:, 0] > 0).astype(np.intp)
    heavy = rng.random(ROWS) < 0.5
    target = np.where(heavy, rule, rule.max() - rule)  # rows with a low weight contradict the rule
    rows = LabelledMatrix(matrix, target, np.where(heavy, 1.99, 0.01))
    setting = fit_setting(task, ROWS)

    raw = candidate.fit(rows, candidate.starts(setting)[-1], setting, rows if validated else None).raw(matrix)

    if task == "regression":
        assert np.corrcoef(raw[:, 0], rule)[0, 1] > 0.7
    elif task == "binary":
        assert reference.roc_auc_score(rule, raw[:, 0]) > 0.75  # about 0.5 if weights are ignored
    else:
        assert np.mean(raw.argmax(axis=1) == rule) > 0.6


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("task", "present"), [("binary", [0]), ("binary", [1]), ("multiclass", [0, 2]), ("multiclass", [1])]
)
@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=lambda candidate: candidate.name)
def test_every_candidate_handles_a_fold_that_lacks_a_class(
    rng: Rng, candidate: Candidate, task: Any, present: list[int], weighted: bool, validated: bool
) -> None:
    if task not in candidate.tasks:
        return
    matrix = rng.normal(size=(60, 2)).astype(np.float32)
    weight = rng.random(60) + 0.5 if weighted else None
    rows = LabelledMatrix(matrix, rng.choice(present, 60), weight)
    valid = LabelledMatrix(matrix, rng.integers(0, 3 if task == "multiclass" else 2, 60), weight) if validated else None
    setting = fit_setting(task, 60)

    raw = candidate.fit(rows, candidate.starts(setting)[0], setting, valid).raw(matrix)

    assert raw.shape == (60, 3 if task == "multiclass" else 1)
    assert np.isfinite(raw).all()
    if task == "binary":
        assert np.all((raw[:, 0] > 0) == (present == [1]))
    else:
        assert set(raw.argmax(axis=1)) <= set(present)


def test_unknown_and_unsuitable_candidates_are_rejected_with_a_list_of_valid_candidates() -> None:
    with pytest.raises(TrainingError, match="unknown candidate 'magic'; available candidates: logistic, ridge"):
        select(["logistic", "magic"], "binary")
    with pytest.raises(TrainingError, match="elasticnet cannot be trained for a binary target; available"):
        select(["elasticnet"], "binary")


def test_a_selection_must_contain_a_candidate() -> None:
    with pytest.raises(TrainingError, match="no candidate is set"):
        check([])


def test_ridge_replaces_logistic_for_a_regression_target() -> None:
    assert [candidate.name for candidate in select(["logistic", "boosting"], "regression")] == ["ridge", "boosting"]
