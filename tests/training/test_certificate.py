"""The parity certificate and its probe rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rowcast.errors import ParityError
from rowcast.registry.bundle import Parity
from rowcast.schema.prediction import Decision
from rowcast.training import certificate
from rowcast.training.presets import NO_TREES, Size
from rowcast.training.problem import LearningProblem
from support.training import customers, learning_problem

BINARY = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)


def probabilities(*positive: float) -> Any:
    return np.array([[1 - p, p] for p in positive])


def test_outputs_within_the_tolerance_are_certified() -> None:
    parity = certificate.certify(probabilities(0.2, 0.9), probabilities(0.2, 0.9).astype(np.float32), BINARY)

    assert (parity.rows, parity.label_flips) == (2, 0)
    assert parity.max_abs_diff < 1e-7


@pytest.mark.parametrize(
    "output",
    [
        probabilities(0.2, 0.90002),
        probabilities(0.2, np.nan),
        probabilities(0.2),
        probabilities(0.2, 0.9)[:, 1],
        probabilities(0.2, 0.9)[:, 1:],
    ],
    ids=["a large difference", "not a number", "a different shape", "no columns", "a missing column"],
)
def test_outputs_outside_the_tolerance_are_rejected(output: Any) -> None:
    with pytest.raises(ParityError) as caught:
        certificate.certify(probabilities(0.2, 0.9), output.astype(np.float32), BINARY)

    assert caught.value.slug == "parity"


MULTICLASS = Decision(task="multiclass", classes=("a", "b", "c"))
NUMBERS = Decision(task="regression")


@pytest.mark.parametrize(
    ("decision", "reference", "output"),
    [
        (BINARY, probabilities(0.2), probabilities(np.nan)),
        (BINARY, probabilities(np.nan), probabilities(np.nan)),
        (MULTICLASS, [[0.5, 0.3, 0.2]], [[np.nan, 0.3, 0.2]]),
        (NUMBERS, [1.0, 2.0], [1.0, np.nan]),
        (NUMBERS, [1.0, np.nan], [1.0, np.nan]),
        (NUMBERS, [1.0, np.inf], [1.0, np.inf]),
        (NUMBERS, [1.0, np.inf], [1.0, 5.0]),
        (NUMBERS, [1.0, 2.0], [1.0, -np.inf]),
    ],
)
def test_values_that_are_not_finite_are_rejected_even_if_no_label_differs(
    decision: Decision, reference: Any, output: Any
) -> None:
    with pytest.raises(ParityError, match=r"0 of \d labels differ, and the outputs differ by up to inf"):
        certificate.certify(np.array(reference), np.array(output, np.float32), decision)


def test_a_flipped_label_of_several_classes_is_rejected_even_if_the_difference_is_within_the_tolerance() -> None:
    reference = np.array([[0.400002, 0.4, 0.199998]])

    with pytest.raises(ParityError, match="1 of 1 labels differ"):
        certificate.certify(reference, reference[:, [1, 0, 2]].astype(np.float32), MULTICLASS)


@pytest.mark.parametrize(("difference", "agrees"), [(0.9e-5, True), (1.1e-5, False)])
def test_probabilities_must_agree_to_within_a_hundred_thousandth(difference: float, *, agrees: bool) -> None:
    output = probabilities(0.2, 0.9 - difference).astype(np.float32)

    if agrees:
        assert certificate.certify(probabilities(0.2, 0.9), output, BINARY).max_abs_diff == pytest.approx(
            difference, abs=1e-7
        )
    else:
        with pytest.raises(ParityError, match="0 of 2 labels differ"):
            certificate.certify(probabilities(0.2, 0.9), output, BINARY)


@pytest.mark.parametrize(("value", "difference", "agrees"), [(0, 0.9, True), (0, 1.1, False), (9e5, 9.5, True)])
def test_the_tolerance_for_a_regression_value_depends_on_the_spread_and_the_magnitude(
    value: float, difference: float, *, agrees: bool
) -> None:
    reference, output = np.array([-value]), np.array([-value - difference], np.float32)

    if agrees:
        assert certificate.certify(reference, output, NUMBERS, spread=1e5).rows == 1
    else:
        with pytest.raises(ParityError):
            certificate.certify(reference, output, NUMBERS, spread=1e5)


def test_a_flipped_label_is_rejected_even_if_the_difference_is_within_the_tolerance() -> None:
    with pytest.raises(ParityError, match="1 of 1 labels differ"):
        certificate.certify(probabilities(0.499999), probabilities(0.500001).astype(np.float32), BINARY)


def test_the_tolerance_for_regression_values_grows_with_their_magnitude_and_spread() -> None:
    decision, reference = Decision(task="regression"), np.array([1e6])
    output = np.array([1e6 + 5], np.float32)

    assert certificate.certify(reference, output, decision, spread=1.0).rows == 1
    with pytest.raises(ParityError):
        certificate.certify(np.array([0.0]), np.array([5.0], np.float32), decision, spread=1.0)
    assert certificate.certify(np.array([0.0]), np.array([5.0], np.float32), decision, spread=1e6).rows == 1


class OneThreshold:
    """A model with one threshold on its first numeric column."""

    size = NO_TREES

    def thresholds(self) -> Mapping[int, Any]:
        return {0: np.array([0.25], np.float32)}


def test_the_probe_starts_with_the_holdout_and_contains_thresholds_and_unusual_values() -> None:
    problem = learning_problem(customers(), exclude=("customer",))
    model: Any = OneThreshold()

    probe = certificate.build_probe(model, problem, 0)

    threshold = np.float32(0.25)
    neighbours = {threshold, np.nextafter(threshold, np.float32(-1)), np.nextafter(threshold, np.float32(1))}
    assert probe.numbers[: len(problem.holdout)].tobytes() == problem.holdout.numbers.tobytes()
    assert neighbours <= set(probe.numbers[:, 0])
    assert np.isnan(probe.numbers).any(axis=0).all()
    assert len(probe.numbers) > certificate.RANDOM_ROWS


class ManyThresholds:
    """A model with thresholds on both numeric columns and on a feature that is not a numeric column."""

    def __init__(self, count: int, size: Size = NO_TREES) -> None:
        self.size = size
        largest = np.finfo(np.float32).max
        self.first = np.arange(count, dtype=np.float32)
        self.second = np.array([-largest, 0.5, largest], np.float32)

    def thresholds(self) -> Mapping[int, Any]:
        return {0: self.first, 1: self.second, 2: np.array([7.0], np.float32)}


def mixed_problem() -> LearningProblem:
    """Return a problem with a complete numeric column, a numeric column in which about half of the values are missing,
    and a text column."""
    rng = np.random.default_rng(3)
    x, label = rng.normal(size=(2, 400)), rng.integers(2, size=400)
    gaps = [None if empty else value for value, empty in zip(x[1].tolist(), rng.random(400) < 0.5, strict=True)]
    colors = [("red", "green", "blue")[value] for value in rng.integers(3, size=400)]
    return learning_problem({"a": x[0].tolist(), "b": gaps, "color": colors, "y": label.tolist()})


def test_the_sections_of_a_probe_contain_the_documented_rows() -> None:
    problem, model = mixed_problem(), ManyThresholds(4)
    training = problem.training
    odd = np.array([np.nan, -0.0, 0.0, 1e38, -1e38, 3.4028234663852886e38, 2.0**53 + 1, 1e-40, -1e-40], np.float32)
    texts = ["", "never seen", "Ünïcödé ☃", " ", "x" * 300]
    trained: Any = model

    probe = certificate.build_probe(trained, problem, 0)

    lengths = [len(problem.holdout), 2000, 9, 9, 5, 12, 7]
    places = np.split(np.arange(len(probe.numbers)), np.cumsum(lengths))
    assert [len(part) for part in places] == [*lengths, 0]
    odd_first, odd_second, odd_texts, first, second = places[2:7]
    assert probe.texts[: lengths[0]].tolist() == problem.holdout.texts.tolist()
    assert probe.numbers[odd_first, 0].tobytes() == probe.numbers[odd_second, 1].tobytes() == odd.tobytes()
    assert probe.texts[odd_texts, 0].tolist() == texts
    sides = [np.nextafter(model.first, np.float32(side)) for side in (-np.inf, np.inf)]
    assert set(probe.numbers[first, 0]) == set(np.concatenate([model.first, *sides]))
    assert {float(model.second[0]), 0.5, float(model.second[2])} <= set(probe.numbers[second, 1].tolist())
    assert np.isfinite(probe.numbers[second, 1]).all()
    known = set(training.numbers[:, 0].tolist())
    assert set(probe.numbers[second, 0].tolist()) | set(probe.numbers[odd_texts, 0].tolist()) <= known


def test_the_random_rows_of_a_probe_mix_known_extreme_and_intermediate_values() -> None:
    problem = mixed_problem()
    known = set(problem.training.numbers[:, 0].tolist())
    trained: Any = ManyThresholds(1)

    probe = certificate.build_probe(trained, problem, 0)

    rows = slice(len(problem.holdout), len(problem.holdout) + certificate.RANDOM_ROWS)
    first, second, texts = probe.numbers[rows, 0], probe.numbers[rows, 1], probe.texts[rows, 0]
    extreme = np.isin(first, np.array(certificate.ODD_NUMBERS, np.float32)) | np.isnan(first)
    between = ~extreme & [value not in known for value in first.tolist()]
    assert extreme.mean() == pytest.approx(0.07, abs=0.02)
    assert between.mean() == pytest.approx(0.4, abs=0.05)
    assert np.abs(first[between]).max() <= max(map(abs, known))
    assert np.isnan(second).mean() == pytest.approx(0.5, abs=0.05)  # a missing value is never mixed with a number
    assert np.isin(texts.tolist(), certificate.ODD_TEXTS).mean() == pytest.approx(0.1, abs=0.02)
    assert set(texts) == {*problem.training.texts[:, 0], *certificate.ODD_TEXTS}


def test_a_model_with_many_thresholds_is_tested_on_a_sample() -> None:
    problem, model = mixed_problem(), ManyThresholds(3 * certificate.MOST_THRESHOLDS)
    trained: Any = model

    probe = certificate.build_probe(trained, problem, 0)

    tested = set(probe.numbers[:, 0].tolist()) & set(model.first.tolist())
    assert 9_900 < len(tested) <= 10_010
    assert {0.0, float(model.first[-1])} <= tested


def test_all_thresholds_are_tested_if_there_are_exactly_ten_thousand() -> None:
    problem, model = mixed_problem(), ManyThresholds(10_000 - 3)
    trained: Any = model

    probe = certificate.build_probe(trained, problem, 0)

    assert set(model.first.tolist()) <= set(probe.numbers[-3 * 10_000 :, 0].tolist())


def test_a_random_value_lies_between_two_known_values() -> None:
    problem = learning_problem({"a": [5 + number / 400 for number in range(400)], "y": [0, 1] * 200})
    trained: Any = ManyThresholds(0)

    probe = certificate.build_probe(trained, problem, 0)

    rows = probe.numbers[len(problem.holdout) : len(problem.holdout) + 2000, 0]
    ordinary = rows[~(np.isin(rows, np.array(certificate.ODD_NUMBERS, np.float32)) | np.isnan(rows))]
    assert (ordinary.min() >= 5, ordinary.max() <= 6) == (True, True)


def test_the_random_rows_of_a_seed_are_always_the_same() -> None:
    problem = mixed_problem()
    trained: Any = ManyThresholds(1)
    rows = slice(len(problem.holdout), len(problem.holdout) + 2000)

    first, again, other = (certificate.build_probe(trained, problem, seed) for seed in (0, 0, 1))

    picks = np.random.default_rng([0, 3]).integers(len(problem.training), size=(2000, 3))
    assert (first.texts[rows, 0] == problem.training.texts[picks[:, 2], 0]).mean() > 0.85
    assert first.numbers.tobytes() == again.numbers.tobytes()
    assert first.numbers.tobytes() != other.numbers.tobytes()


def test_a_probe_has_a_tensor_for_each_kind_of_column_in_the_model() -> None:
    numbers, texts = np.zeros((2, 1), np.float32), np.full((2, 1), "a", object)

    assert list(certificate.Probe(numbers, texts).tensors()) == ["rowcast_numbers", "rowcast_texts"]
    assert list(certificate.Probe(numbers, texts[:, :0]).tensors()) == ["rowcast_numbers"]
    assert list(certificate.Probe(numbers[:, :0], texts).tensors()) == ["rowcast_texts"]


def test_a_difference_that_equals_the_tolerance_is_certified() -> None:
    zeros = np.zeros(2)

    assert certificate.certify(zeros, zeros.astype(np.float32), NUMBERS, spread=0.0) == Parity(2, 0.0, 0)
    with pytest.raises(ParityError):
        certificate.certify(zeros, np.array([0, 1e-30], np.float32), NUMBERS, spread=0.0)


def test_the_spread_of_a_regression_target_is_one_by_default() -> None:
    assert certificate.certify(np.zeros(1), np.array([0.9e-5], np.float32), NUMBERS).rows == 1
    with pytest.raises(ParityError):
        certificate.certify(np.zeros(1), np.array([1.1e-5], np.float32), NUMBERS)


@pytest.mark.parametrize(("trees", "tested"), [(100, 10_000), (1_000, 8_000), (1_000_000, 1_000)])
def test_fewer_thresholds_are_tested_if_a_row_takes_longer(trees: int, tested: int) -> None:
    problem, model = mixed_problem(), ManyThresholds(20_000, Size(trees, trees * 61))
    trained: Any = model

    probe = certificate.build_probe(trained, problem, 0)

    found = set(probe.numbers[:, 0].tolist()) & set(model.first.tolist())
    assert len(found) == pytest.approx(tested, rel=0.1)


class DerivedThresholds:
    """A model with thresholds on a raw column (1), two derived columns (2, 3) and a flag (4)."""

    size = NO_TREES

    def thresholds(self) -> Mapping[int, Any]:
        thresholds = {1: (0.25, 0.5), 2: (0.30003, 0.60007, 1e30), 3: (-1.50001,), 4: (9.5,)}
        return {feature: np.array(values, np.float32) for feature, values in thresholds.items()}


def ratios() -> LearningProblem:
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(size=400).round(3).tolist() for name in ("a", "b")}
    columns["y"] = rng.integers(2, size=400).tolist()
    return learning_problem(columns, derive=("ratio = a / b", "size = log(a - b)"))


def test_a_probe_contains_rows_in_which_the_operands_of_derived_columns_are_extreme_or_equal() -> None:
    problem = ratios()
    trained: Any = DerivedThresholds()

    probe = certificate.build_probe(trained, problem, 0)

    start = len(problem.holdout) + certificate.RANDOM_ROWS + 2 * len(certificate.ODD_NUMBERS) + 6
    a, b = probe.numbers[start : start + 4 * certificate.MOST_OPERAND_ROWS].T
    assert ((b == 0) & (a > 0)).any()
    assert ((b == 0) & (a == 0)).any()
    assert (np.isnan(a) & ~np.isnan(b)).any()
    assert (np.isnan(b) & ~np.isnan(a)).any()
    assert (a < b).any()
    assert (a == b).sum() >= 2 * certificate.MOST_OPERAND_ROWS


def test_a_probe_contains_derived_values_just_below_and_just_above_their_thresholds() -> None:
    problem = ratios()
    trained: Any = DerivedThresholds()

    probe = certificate.build_probe(trained, problem, 0)

    derived = problem.derivation.append(probe.numbers)
    for feature, value in ((2, 0.30003), (2, 0.60007), (3, -1.50001)):
        threshold, cells = np.float32(value), derived[:, feature]
        near = cells[np.abs(cells - threshold) < 1e-6]
        assert (near <= threshold).any()
        assert (near > threshold).any()


def test_a_derived_column_is_not_mistaken_for_a_raw_column() -> None:
    problem = ratios()
    trained: Any = DerivedThresholds()

    probe = certificate.build_probe(trained, problem, 0)

    raw, derived = {0.25, 0.5}, {float(np.float32(value)) for value in (0.30003, 0.60007, -1.50001)}
    assert probe.numbers.shape[1] == 2
    assert raw <= set(probe.numbers[:, 1].tolist())
    assert not derived & set(probe.numbers.ravel().tolist())


def test_the_size_of_a_probe_is_bounded_for_any_number_of_derived_columns() -> None:
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(size=200).tolist() for name in "abcde"}
    columns["y"] = rng.integers(2, size=200).tolist()
    derive = tuple(f"x{index} = a / b + c * d - {index} * e" for index in range(60))
    problem = learning_problem(columns, derive=derive)
    trained: Any = SplitOnEveryFeature()

    probe = certificate.build_probe(trained, problem, 0)

    others = 5 * 3
    assert len(probe.numbers) <= certificate.probe_rows(problem, 0) - 3 * certificate.MOST_THRESHOLDS + others


def test_the_expected_size_of_a_probe_includes_the_rows_for_every_column_of_a_wide_table() -> None:
    rng = np.random.default_rng(3)
    columns = {f"x{index}": rng.normal(size=60).tolist() for index in range(1200)}
    problem = learning_problem({**columns, "y": [0, 1] * 30})
    trained: Any = SplitOnEveryFeature()

    probe = certificate.build_probe(trained, problem, 0)

    expected = certificate.probe_rows(problem, 1e6)
    assert len(probe.numbers) <= expected
    assert expected <= len(probe.numbers) + 3 * 1200
    odd = np.array(certificate.ODD_NUMBERS, np.float32)
    start = len(problem.holdout) + certificate.RANDOM_ROWS
    rows = probe.numbers[start : start + 9 * certificate.ODD_COLUMNS]
    assert all(set(odd.view(np.uint32)) <= set(rows[:, column].view(np.uint32)) for column in range(1200))


class SplitOnEveryFeature:
    """A model with one threshold on each of 5 raw and 60 derived columns."""

    size = NO_TREES

    def thresholds(self) -> Mapping[int, Any]:
        return {feature: np.array([0.5], np.float32) for feature in range(65)}
