"""Golden rows and the reference sample come from the training rows and are reproducible."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.schema.prediction import Decision
from rowcast.tables.read import table_from_memory
from rowcast.training import bundle_files
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem, build_problem

ROWS = 120
DECISION = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)


class ConstantGraph:
    """A graph that returns the same probability for every row."""

    def run(self, tensors: Any) -> NDArray[np.float32]:
        count = len(next(iter(tensors.values())))
        return np.tile(np.array([0.25, 0.75], np.float32), (count, 1))


def learning_problem() -> LearningProblem:
    columns = {
        "income": [None if row % 7 == 0 else 1000 + row * 13 % 97 for row in range(ROWS)],
        "purpose": [("car", "home", "study")[row % 3] for row in range(ROWS)],
        "approved": ["yes" if row % 5 else "no" for row in range(ROWS)],
    }
    return build_problem(table_from_memory(columns, "loans"), TrainingOptions(target="approved", name="loans"))


def test_golden_rows_include_a_row_with_missing_values_and_a_row_with_an_unseen_level() -> None:
    golden = bundle_files.golden_rows(learning_problem(), ConstantGraph(), DECISION, seed=0)

    *sample, gaps, unseen = [each.row for each in golden]
    assert len(golden) == bundle_files.GOLDEN_ROWS
    assert gaps == {**sample[0], "income": None}
    assert unseen == {**sample[0], "purpose": bundle_files.UNSEEN_TEXT}


def test_golden_rows_contain_the_scores_from_the_graph() -> None:
    golden = bundle_files.golden_rows(learning_problem(), ConstantGraph(), DECISION, seed=0)

    assert {each.score.prediction for each in golden} == {"yes"}
    assert {each.score.score for each in golden} == {0.75}


def test_golden_rows_depend_only_on_the_seed() -> None:
    problem = learning_problem()
    first, second, other = (
        bundle_files.golden_rows(problem, ConstantGraph(), DECISION, seed=seed) for seed in (1, 1, 2)
    )

    assert first == second
    assert first != other


def test_the_reference_sample_contains_training_rows_with_the_target() -> None:
    problem = learning_problem()

    sample = pl.read_parquet(io.BytesIO(bundle_files.reference_sample(problem, seed=0)))

    assert sample.columns == ["income", "purpose", "approved"]
    assert sample.equals(problem.frame.select(sample.columns)[problem.training.places.tolist()])
