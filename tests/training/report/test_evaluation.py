"""Importance and partial dependence are computed from the holdout."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from rowcast.schema.encoding import own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.training.report import evaluation
from support.reports import SigmoidGraph, evaluated_model


def test_importance_ranks_the_decisive_column_first() -> None:
    result = evaluation.permutation_importance(evaluated_model())
    used, idle = result.columns

    assert (used.encoded.column.name, idle.encoded.column.name) == ("used", "idle")
    assert 0 < used.low <= used.value <= used.high
    assert idle.value == idle.low == idle.high == 0
    assert (result.rows, result.left_out) == (500, 0)


@pytest.mark.parametrize(("holdout", "used"), [(3000, 3000), (6000, 5000)])
def test_importance_is_computed_on_all_holdout_rows_up_to_several_thousand(holdout: int, used: int) -> None:
    model = evaluated_model(holdout, row_cost=65.0)

    assert evaluation.permutation_importance(model).rows == used
    assert cast(SigmoidGraph, model.graph).scored <= evaluation.SCORED_ROWS


def test_importance_is_computed_on_fewer_rows_for_a_large_graph_than_for_a_small_graph() -> None:
    small, large = evaluated_model(row_cost=10.0), evaluated_model(row_cost=1e6)

    small_rows, large_rows = (evaluation.permutation_importance(each).rows for each in (small, large))

    assert (small_rows, cast(SigmoidGraph, small.graph).scored) == (500, 5000)
    assert (large_rows, cast(SigmoidGraph, large.graph).scored) == (241, 482)


def test_only_the_columns_that_change_the_predictions_most_are_measured_if_there_are_too_many() -> None:
    model = evaluated_model(row_cost=1e6)
    width = 40
    numbers = np.random.default_rng(1).normal(size=(500, width)).astype(np.float32)
    numbers[:, 30] = model.rows.numbers[:, 0]
    schema = Schema(tuple(Column(name=f"x{index}", kind="number") for index in range(width)))
    graph = SigmoidGraph(feature=30)
    wide = replace(model, graph=graph, schema=schema, plan=own_plan(schema), rows=replace(model.rows, numbers=numbers))

    result = evaluation.permutation_importance(wide)

    assert result.columns[0].encoded.column.name == "x30"
    assert result.columns[0].value > 0
    assert (len(result.columns), result.left_out) == (4, 36)
    assert graph.scored <= evaluation.scored_rows(width, wide.row_cost)


def test_a_report_scores_fewer_rows_if_little_time_is_left() -> None:
    usual = evaluated_model(6000, row_cost=65.0)
    hurried = replace(usual, graph=SigmoidGraph(), row_limit=evaluation.scored_rows(2, 65.0) / 50)

    counts = []
    for model in (usual, hurried):
        result = evaluation.permutation_importance(model)
        assert evaluation.partial_dependence(model, result.columns[0].encoded) is not None
        counts.append(cast(SigmoidGraph, model.graph).scored)

    assert counts[1] < counts[0] / 20


def test_partial_dependence_matches_the_formula_of_the_graph() -> None:
    model = evaluated_model()
    used, idle = (
        evaluation.partial_dependence(model, encoded)
        for encoded in evaluation.encoded_columns(model.schema, model.plan)
    )

    assert used is not None
    assert idle is not None
    assert used.x is not None
    assert used.means == pytest.approx(1 / (1 + np.exp(-used.x)), abs=1e-6)
    assert np.ptp(idle.means) == pytest.approx(0, abs=1e-6)


def test_a_constant_column_has_no_partial_dependence() -> None:
    model = evaluated_model()
    constant = replace(model, rows=replace(model.rows, numbers=np.ones_like(model.rows.numbers)))

    assert evaluation.partial_dependence(constant, evaluation.encoded_columns(model.schema, model.plan)[0]) is None


def test_slices_are_ordered_by_the_lower_bound_of_their_error() -> None:
    errors = evaluation.error_by_slice(evaluated_model())

    assert {each.column for each in errors.slices} == {"used", "idle"}
    assert [each.low for each in errors.slices] == sorted((each.low for each in errors.slices), reverse=True)
    assert all(each.rows >= evaluation.MIN_SLICE_ROWS for each in errors.slices)
    assert 0 < errors.overall < 1


def test_days_are_counted_from_the_origin_of_the_date_column() -> None:
    column = Column(name="opened", kind="datetime", origin=86_400_000_000)

    assert evaluation.format_day(column, 1.5) == "1970-01-03"
