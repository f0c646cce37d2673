"""The behavior sections show the most important columns, their partial dependence and the worst slices."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from rowcast.training.report import behaviour_sections
from rowcast.training.report.evaluation import (
    PartialDependence,
    Slice,
    SliceErrors,
    error_by_slice,
    permutation_importance,
)
from support.reports import evaluated_model


def test_the_importance_chart_is_limited_to_the_most_important_columns() -> None:
    model = evaluated_model()
    result = permutation_importance(model)
    many = replace(result, columns=result.columns[:1] * (behaviour_sections.MAX_BARS + 3), left_out=4)

    assert behaviour_sections.importance_section(model, result).omitted == 0
    assert behaviour_sections.importance_section(model, many).omitted == 3 + 4
    assert behaviour_sections.importance_section(model, replace(result, columns=())).charts == ()


def test_partial_dependence_is_shown_only_for_columns_that_influence_predictions() -> None:
    model = evaluated_model()
    importances = permutation_importance(model).columns

    section = behaviour_sections.dependence_section(model, importances)

    assert section is not None
    assert [chart.title for chart in section.charts] == ["used"]
    assert behaviour_sections.dependence_section(model, importances[1:]) is None


def test_an_unordered_column_gets_a_table_of_class_probabilities() -> None:
    model = evaluated_model()
    decision = msgspec.structs.replace(model.decision, task="multiclass", classes=("a", "b", "c"))
    model = replace(model, decision=decision)
    dependence = PartialDependence(model.schema.columns[0], ("car", "home"), None, np.array([[0.5, 0.3, 0.2]] * 2))

    table = behaviour_sections._class_table(model, dependence)

    assert table.classes == ("a", "b", "c")
    assert table.rows == (("car", (0.5, 0.3, 0.2)), ("home", (0.5, 0.3, 0.2)))


def test_slices_with_a_higher_error_than_the_whole_holdout_are_counted() -> None:
    model = evaluated_model()
    slices = (Slice("x", "= a", 40, 0.5, 0.35, 0.65), Slice("x", "= b", 60, 0.2, 0.1, 0.3))

    section = behaviour_sections.slices_section(model, SliceErrors(slices, 0.3))

    assert (section.slice_count, section.worse_count) == (2, 1)
    assert section.error_name == "share of wrong labels"
    assert len(behaviour_sections.slices_section(model, error_by_slice(model)).worst) <= behaviour_sections.MAX_SLICES
