"""What the data check says of a table and its target: leaks, order, codes, stand-ins for missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast import tables
from rowcast.tables import Finding
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem, build_problem

ROWS = 600
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.arange(ROWS) % 4 == 0)
NOISE = RNG.normal(size=ROWS)


def posed(columns: dict[str, Any], target: Any = LABELS, **options: Any) -> LearningProblem:
    cells = {name: list(values) for name, values in {"noise": NOISE, **columns, "y": target}.items()}
    return build_problem(tables.from_memory(cells, "loans"), TrainingOptions(target="y", name="loans", **options))


def found(code: str, columns: dict[str, Any], target: Any = LABELS) -> list[Finding]:
    return [finding for finding in posed(columns, target).findings if finding.code == code]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (np.where(LABELS, 0.0, 1 + RNG.random(ROWS)), "alone predicts"),
        (np.where(LABELS, "yes", "no"), "alone predicts"),
        (
            [None if label else float(value) for label, value in zip(LABELS, NOISE, strict=True)],
            "its gaps alone predict",
        ),
    ],
    ids=["number", "copy of the target", "gaps"],
)
def test_a_column_that_alone_predicts_the_target_is_named_and_kept(column: Any, says: str) -> None:
    problem = posed({"late": column})
    leaks = [finding for finding in problem.findings if finding.code == "leak"]

    assert [(finding.column, str(finding.override)) for finding in leaks] == [("late", "exclude=late")]
    assert says in leaks[0].message
    assert "late" in problem.schema.names()


def test_a_leak_of_a_value_is_named_too() -> None:
    value = RNG.random(ROWS) * 100

    assert [finding.column for finding in found("leak", {"bucket": np.floor(value / 10)}, value)] == ["bucket"]


def test_a_column_that_stands_out_is_named_as_such() -> None:
    strong = LABELS * 2.0 + RNG.normal(size=ROWS)

    assert not found("leak", {"strong": strong})
    assert [finding.column for finding in found("dominant", {"strong": strong})] == ["strong"]


def test_noise_is_no_leak() -> None:
    many = {f"c{index}": RNG.normal(size=ROWS) for index in range(30)}
    many["code"] = RNG.integers(0, 300, ROWS).astype(str)

    codes = {finding.code for finding in posed(many).findings}

    assert codes == {"positive-class"}


def test_a_value_that_decides_alone_is_named() -> None:
    before = np.where(LABELS, False, np.arange(ROWS) % 2 == 0)

    assert "in all of" in found("certain-value", {"before": before})[0].message


def test_a_name_that_tells_of_later_facts_is_named() -> None:
    assert [finding.column for finding in found("later-fact", {"paid_total": NOISE, "unpaid": NOISE})] == ["paid_total"]


def test_rows_in_the_order_of_the_target_are_said() -> None:
    assert found("target-ordered", {}, np.sort(LABELS))
    assert found("ordered-rows", {}, RNG.random(ROWS) < np.linspace(0, 1, ROWS))
    assert found("ordered-rows", {}, NOISE + np.linspace(0, 5, ROWS))


def test_equal_rows_with_unequal_labels_are_counted() -> None:
    cells = {"x": [*range(1, 41), 7, 8], "z": [1, 2] * 21, "y": [*[0, 0, 1, 1] * 10, 0, 0]}

    findings = build_problem(tables.from_memory(cells), TrainingOptions(target="y", name="loans")).findings

    assert "4 rows" in next(finding.message for finding in findings if finding.code == "conflicting-rows")


def test_rare_classes_are_said() -> None:
    assert "True (5)" in found("rare-class", {}, np.arange(ROWS) % 120 == 0)[0].message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (np.where(LABELS, -1, np.arange(ROWS) % 90), "-1"),
        (np.where(LABELS, 999, np.arange(ROWS) % 40), "999"),
        (np.where(LABELS, 365243, np.arange(ROWS) % 9000), "365243"),
        (np.where(LABELS, -100000.0, 1000.0 * (np.arange(ROWS) % 90)), "-100000"),
    ],
)
def test_values_that_stand_for_missing_are_named(column: Any, value: str) -> None:
    said = found("sentinel", {"days": column}, RNG.permutation(LABELS))

    assert [finding.column for finding in said] == ["days"]
    assert said[0].message.startswith(f"{value} in 150 rows")


@pytest.mark.parametrize(
    "column",
    [np.arange(ROWS) % 999 + 1, np.arange(ROWS) % 50 - 9, np.where(LABELS, -1, np.arange(ROWS) % 3), NOISE],
    ids=["all up to 999", "many negatives", "small codes", "decimals"],
)
def test_ordinary_numbers_are_no_sentinels(column: Any) -> None:
    assert not found("sentinel", {"x": column}, RNG.permutation(LABELS))


def test_texts_that_say_unknown_are_named() -> None:
    column = np.where(np.arange(ROWS) % 3 == 0, "Unknown", np.where(np.arange(ROWS) % 2 == 0, "a", "b"))

    assert [finding.message for finding in found("unknown-level", {"job": column})] == ["says 'Unknown' in 200 rows"]


def test_large_sparse_repeated_integers_are_codes_unless_kept() -> None:
    codes = RNG.choice(RNG.integers(4000, 300_000, 60), ROWS)

    taken, kept = posed({"manager": codes}), posed({"manager": codes}, keep=("manager",))

    assert taken.schema.columns[1].kind == "category"
    assert [str(finding.override) for finding in taken.findings if finding.code == "code"] == ["keep=manager"]
    assert kept.schema.columns[1].kind == "integer"


@pytest.mark.parametrize(
    "column",
    [
        RNG.integers(20, 90, ROWS) * 1000,
        1900 + RNG.integers(0, 120, ROWS),
        RNG.integers(300, 850, ROWS),
        np.where(LABELS, RNG.integers(3000, 40_000, ROWS) // 700 * 701, 0),
        RNG.integers(0, 12, ROWS),
    ],
    ids=["round incomes", "years", "scores", "mostly zero", "small"],
)
def test_amounts_stay_numbers(column: Any) -> None:
    assert posed({"x": column}).schema.columns[1].kind == "integer"


# What columns tell together.


def test_two_columns_that_give_the_target_away_together_are_named_once() -> None:
    rate = RNG.uniform(5, 30, ROWS)
    amount = RNG.integers(1, 400, ROWS) * 100

    said = found("joint-leak", {"amount": amount, "instalment": np.round(amount * (1 + rate / 100) / 36, 2)}, rate)

    assert [(finding.column, str(finding.override)) for finding in said] == [("instalment", "exclude=instalment")]
    assert "its ratio to 'amount'" in said[0].message or "its difference" in said[0].message


def test_two_columns_that_give_a_label_away_together_are_named() -> None:
    limit = RNG.integers(1, 500, ROWS) * 10
    spent = np.where(LABELS, limit + RNG.integers(1, 90, ROWS), limit - RNG.integers(1, 90, ROWS))

    assert [finding.column for finding in found("joint-leak", {"limit": limit, "spent": spent})] == ["spent"]


def test_columns_that_are_good_together_are_no_leak() -> None:
    height, weight = RNG.normal(170, 10, ROWS), RNG.normal(70, 12, ROWS)

    assert not found("joint-leak", {"height": height, "weight": weight}, weight / height + RNG.normal(0, 0.1, ROWS))


def test_what_is_left_of_a_later_fact_is_one_too() -> None:
    loan = RNG.integers(10, 400, ROWS) * 100
    paid = np.round(RNG.uniform(0, 500, ROWS), 2)

    said = found("later-fact", {"loan": loan, "paid_so_far": paid, "balance": np.round(loan - paid, 2)})

    assert {finding.column for finding in said} >= {"paid_so_far", "balance"}
    assert any("is 'loan' less 'paid_so_far'" in finding.message for finding in said)


def test_how_a_case_ends_is_a_later_fact() -> None:
    status = RNG.choice(["Current", "Fully Paid", "Charged Off"], ROWS)
    history = RNG.choice(["all credits paid back duly", "none"], ROWS)

    said = found("later-fact", {"status": status, "history": history})

    assert [finding.column for finding in said] == ["status"]


def test_the_same_fact_under_two_names_is_said() -> None:
    level = RNG.integers(0, 7, ROWS)
    names = np.array(["none", "some", "school", "college", "bachelor", "master", "doctor"])[level]

    said = found("same-fact", {"education": names, "years": level * 3, "other": RNG.permutation(level)})

    assert [(finding.column, "'education'" in finding.message) for finding in said] == [("years", True)]


def test_a_counter_that_starts_again_tells_the_place_of_a_row() -> None:
    assert [finding.column for finding in found("row-order", {"number": np.arange(ROWS) % 200 + 1})] == ["number"]
    assert not found("row-order", {"hour": np.arange(ROWS) % 24})


def test_rows_in_the_order_of_a_date_are_said() -> None:
    days = np.datetime_as_string(np.datetime64("2024-01-01") + np.arange(ROWS) // 2)

    in_order, shuffled = found("ordered-rows", {"day": days}), found("ordered-rows", {"day": RNG.permutation(days)})

    assert [str(finding.override) for finding in in_order] == ["time=day"]
    assert not shuffled


def test_a_value_of_one_class_alone_is_said_of_few_classes() -> None:
    kind = RNG.integers(0, 3, ROWS)
    island = np.where((kind == 0) & (NOISE > 0), "north", RNG.choice(["south", "west"], ROWS))

    said = found("certain-value", {"island": island}, np.array(["a", "b", "c"])[kind])

    assert "where it is 'north', the target is 'a'" in said[0].message


def test_a_repeated_identifier_asks_for_groups() -> None:
    customer = RNG.integers(0, 90, ROWS)

    assert [str(finding.override) for finding in found("repeated-id", {"customer_id": customer})] == [
        "group=customer_id"
    ]
    assert not found("repeated-id", {"paid": customer, "valid": customer})


def test_the_gravest_comes_first() -> None:
    columns = {"id": np.arange(ROWS), "late": np.where(LABELS, 1, 0), "days": np.where(NOISE > 1, -1, ROWS // 9)}

    codes = [finding.code for finding in posed(columns).findings]

    assert codes[0] == "leak"
    assert codes[-1] in ("id", "positive-class")


# What a column tells by itself.


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (np.where(np.arange(1200) == 7, 2207, 1950 + RNG.integers(0, 60, 1200)), "goes up to 2,207"),
        (
            np.where(np.arange(1200) == 7, 144, RNG.integers(20, 70, 1200)),
            "holds ages that nobody has, in 1 of 1200 rows (144)",
        ),
    ],
)
def test_values_far_outside_are_said(column: Any, says: str) -> None:
    cells = {"age": column.tolist(), "y": (np.arange(1200) % 2).tolist()}

    findings = build_problem(tables.from_memory(cells), TrainingOptions(target="y", name="x")).findings

    assert any(finding.code == "far-value" and says in finding.message for finding in findings)


@pytest.mark.parametrize(
    "column",
    [RNG.lognormal(10, 1, 4000), RNG.exponential(3, 4000), RNG.integers(0, 120, 4000), np.arange(4000) % 500 == 3],
    ids=["incomes", "waits", "ages of houses", "mostly zero"],
)
def test_a_long_tail_is_not_far_outside(column: Any) -> None:
    cells = {"age": column.astype(float).tolist(), "x": RNG.random(4000).tolist(), "y": (np.arange(4000) % 2).tolist()}

    findings = build_problem(tables.from_memory(cells), TrainingOptions(target="y", name="x")).findings

    assert not [finding for finding in findings if finding.code == "far-value"]


def test_zeros_apart_from_all_others_are_asked_about() -> None:
    size = np.where(np.arange(ROWS) % 60 == 1, 0.0, 3.5 + RNG.random(ROWS))
    assets = [None if place % 50 == 3 else 0 if place % 3 == 0 else 1000 + 10 * place for place in range(ROWS)]

    said = found("sentinel", {"size": size, "assets": assets, "rooms": RNG.integers(0, 5, ROWS)})

    assert {finding.column: finding.message for finding in said} == {
        "size": "0 in 10 rows lies far below all others: does it mean missing?",
        "assets": "is 0 in 196 rows and empty in 12: does 0 mean missing too?",
    }


def test_a_text_among_numbers_is_shown() -> None:
    cells = ["n.a. yet" if place == 3 else str(place % 90) for place in range(ROWS)]

    said = found("almost-number", {"days": cells})

    assert [finding.message for finding in said] == ["holds numbers, and in 1 of 600 rows 'n.a. yet'"]


def test_weights_gaps_and_padded_numbers_are_said() -> None:
    mostly = [float(place) if place % 3 == 0 else None for place in range(ROWS)]
    one = [1 if place % 3 else None for place in range(ROWS)]
    padded = [f"{place % 70:05d}" for place in range(ROWS)]

    findings = posed({"fnlwgt": NOISE * 2, "weight": NOISE * 3, "mostly": mostly, "one": one, "n": padded}).findings

    said = {finding.column: finding.code for finding in findings if finding.column != "y"}
    assert said == {"fnlwgt": "weight-like", "mostly": "mostly-missing", "one": "mostly-missing", "n": "leading-zeros"}
