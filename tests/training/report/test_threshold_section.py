"""The threshold section compares the errors and the cost at the chosen threshold with those at other thresholds."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from rowcast.training.cost import Cost
from rowcast.training.report.threshold_section import ThresholdSection, describe_cost, threshold_section
from support.reports import evaluated_model

COST = Cost(false_positive=5.0, false_negative=1.0)


def section(threshold: float = 0.7, cost: Cost | None = None) -> ThresholdSection:
    content = threshold_section(evaluated_model(threshold=threshold, cost=cost))
    assert content is not None
    return content


def test_each_row_shows_the_cost_of_a_threshold() -> None:
    content = section(cost=COST)

    chosen, half, best = content.rows
    assert [row.name for row in content.rows] == ["chosen", "one half", "best in hindsight"]
    assert [chosen.threshold, half.threshold] == pytest.approx([0.7, 0.5])
    for row in content.rows:
        assert row.total == 5 * row.false_positives + row.false_negatives
    assert best.total <= chosen.total < half.total


def test_each_row_shows_the_number_of_errors_if_no_cost_is_set() -> None:
    model = evaluated_model(threshold=0.7)
    score, positive = model.output[:, 1], model.rows.target == 1
    predicted = score >= np.float32(0.7)

    chosen = section().rows[0]

    assert chosen.false_positives == int((predicted & ~positive).sum())
    assert chosen.false_negatives == int((~predicted & positive).sum())
    assert chosen.total == chosen.false_positives + chosen.false_negatives


def test_a_chart_of_costs_is_added_if_a_cost_is_set() -> None:
    assert [chart.title for chart in section().charts] == ["Errors"]
    assert [chart.title for chart in section(cost=COST).charts] == ["Errors", "Cost"]
    assert [entry.name for entry in section().charts[0].legend] == [
        "false positives",
        "false negatives",
        "all errors",
    ]


def test_a_multiclass_model_has_no_threshold_section() -> None:
    model = evaluated_model()
    decision = msgspec.structs.replace(model.decision, task="multiclass", classes=("a", "b", "c"))

    assert threshold_section(replace(model, decision=decision)) is None


def test_a_cost_is_described_in_words() -> None:
    assert describe_cost(COST) == "a false positive costs 5 and a false negative costs 1"
