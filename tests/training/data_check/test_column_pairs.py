"""Pairs of columns: joint leaks, columns computed from post-outcome columns, and redundant columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.findings import LABELS, RNG, ROWS, findings_of


def test_two_columns_that_jointly_reveal_a_regression_target_are_reported_once() -> None:
    rate = RNG.uniform(5, 30, ROWS)
    amount = RNG.integers(1, 400, ROWS) * 100
    columns = {"amount": amount, "instalment": np.round(amount * (1 + rate / 100) / 36, 2)}

    findings = findings_of("joint-leak", columns, rate)

    assert [(finding.column, str(finding.override)) for finding in findings] == [("instalment", "exclude=instalment")]
    assert "'amount'" in findings[0].message


def test_two_columns_that_jointly_reveal_a_label_are_reported() -> None:
    limit = RNG.integers(1, 500, ROWS) * 10
    spent = np.where(LABELS, limit + RNG.integers(1, 90, ROWS), limit - RNG.integers(1, 90, ROWS))

    assert [finding.column for finding in findings_of("joint-leak", {"limit": limit, "spent": spent})] == ["spent"]


def test_two_columns_with_a_predictive_ratio_are_not_reported_as_a_leak() -> None:
    height, weight = RNG.normal(170, 10, ROWS), RNG.normal(70, 12, ROWS)
    columns = {"height": height, "weight": weight}

    assert not findings_of("joint-leak", columns, weight / height + RNG.normal(0, 0.1, ROWS))


def test_a_column_computed_from_a_post_outcome_column_is_reported_as_a_post_outcome_column() -> None:
    loan = RNG.integers(10, 400, ROWS) * 100
    paid = np.round(RNG.uniform(0, 500, ROWS), 2)

    findings = findings_of("later-fact", {"loan": loan, "paid_so_far": paid, "balance": np.round(loan - paid, 2)})

    messages = {finding.column: finding.message for finding in findings}
    assert messages.keys() >= {"paid_so_far", "balance"}
    assert any("'loan' minus 'paid_so_far'" in message for message in messages.values())


def test_two_columns_that_contain_the_same_information_are_reported() -> None:
    level = RNG.integers(0, 7, ROWS)
    names: Any = np.array(["none", "some", "school", "college", "bachelor", "master", "doctor"])[level]

    findings = findings_of("same-fact", {"education": names, "years": level * 3, "other": RNG.permutation(level)})

    assert [(finding.column, "'education'" in finding.message) for finding in findings] == [("years", True)]
