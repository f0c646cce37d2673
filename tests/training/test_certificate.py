"""The parity certificate and its probe rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rowcast.errors import ParityError
from rowcast.schema.prediction import Decision
from rowcast.training import certificate
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
    ],
    ids=["a large difference", "not a number", "a different shape"],
)
def test_outputs_outside_the_tolerance_are_rejected(output: Any) -> None:
    with pytest.raises(ParityError) as caught:
        certificate.certify(probabilities(0.2, 0.9), output.astype(np.float32), BINARY)

    assert caught.value.slug == "parity"


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

    def thresholds(self) -> Mapping[int, Any]:
        return {0: np.array([0.25], np.float32)}


def test_the_probe_starts_with_the_holdout_and_contains_thresholds_and_unusual_values() -> None:
    problem = learning_problem(customers(), exclude=("customer",))
    model: Any = OneThreshold()

    probe = certificate.build_probe(model, problem.training, problem.holdout, 0)

    threshold = np.float32(0.25)
    neighbours = {threshold, np.nextafter(threshold, np.float32(-1)), np.nextafter(threshold, np.float32(1))}
    assert probe.numbers[: len(problem.holdout)].tobytes() == problem.holdout.numbers.tobytes()
    assert neighbours <= set(probe.numbers[:, 0])
    assert np.isnan(probe.numbers).any(axis=0).all()
    assert len(probe.numbers) > certificate.RANDOM_ROWS
