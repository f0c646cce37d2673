"""Costs: read from what people write, obeyed by the threshold, shown in the report and on the card."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowcast import tables
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import TrainingError
from rowcast.registry import bundle
from rowcast.tables import examples
from rowcast.training import calibration as calibrate
from rowcast.training import cost
from rowcast.training.cost import Cost
from rowcast.training.options import TrainingOptions
from rowcast.training.result import TrainingResult
from rowcast.training.run import train

LOANS = tables.from_memory(examples.loans(1500), "loans")
DEAR = Cost(false_positive=5.0, false_negative=1.0)


@pytest.mark.parametrize(
    "given",
    ["false_positive=5,false_negative=1", " false-positive = 5.0 ", {"false_positive": 5}, DEAR],
)
def test_costs_are_read_from_what_people_write(given: Any) -> None:
    assert cost.parse(given) == DEAR


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("5,1", "takes false_positive=NUMBER,false_negative=NUMBER, not '5,1'"),
        ("false_positives=5", "knows false_positive and false_negative, not 'false_positives'"),
        ("false_positive=much", "false_positive must be a number, not 'much'"),
        ("false_positive=1,false_positive=2", "names 'false_positive' twice"),
        ("false_positive=-1", "at least 0"),
        ("false_positive=0,false_negative=0", "one of them above 0"),
        ("false_positive=inf", "at least 0"),
        ("false_positive=nan", "at least 0"),
        ({"false_negative": None}, "must be a number, not None"),
    ],
)
def test_costs_that_make_no_sense_are_refused(given: Any, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        cost.parse(given)


def scores(count: int = 400) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    score = rng.random(count).astype(np.float32)
    return score, (rng.random(count) < score).astype(np.int64)


NOTHING = np.array([], np.float32)


@pytest.mark.parametrize("metric", ["roc_auc", "f1"])
@pytest.mark.parametrize("prices", [(5, 1), (1, 5), (1, 1), (0, 1), (1, 0), (1, 1000)])
def test_the_threshold_costs_least_on_the_scores_it_is_chosen_by(metric: str, prices: tuple[int, int]) -> None:
    score, target = scores()
    price = Cost(false_positive=prices[0], false_negative=prices[1])

    chosen = calibrate.choose_threshold(score, target, metric, NOTHING, cost=price)

    def whole(cut: float) -> float:
        said = score >= np.float32(cut)
        return prices[0] * float((said & (target == 0)).sum()) + prices[1] * float((~said & (target == 1)).sum())

    assert whole(chosen) == min(whole(cut) for cut in np.concatenate([[0.0], score, [1.0]]))
    assert np.abs(score.astype(np.float64) - chosen).min() > calibrate.SAFE_GAP


def test_dearer_false_positives_raise_the_threshold_and_even_prices_leave_it() -> None:
    score, target = scores()
    none, even, dear, cheap = (
        calibrate.choose_threshold(score, target, "roc_auc", NOTHING, cost=price)
        for price in (None, Cost(false_positive=2, false_negative=2), DEAR, Cost(false_negative=5))
    )

    assert cheap < none == even < dear


def test_mistakes_are_counted_at_every_threshold() -> None:
    score = np.array([0.1, 0.4, 0.4, 0.8], np.float32)
    alarms, missed = cost.mistakes(score, np.array([False, True, False, True]), np.array([0.0, 0.4, 0.5, 0.9]))

    assert alarms.tolist() == [2, 1, 0, 0]
    assert missed.tolist() == [0, 0, 1, 2]


def trained(folder: Path, **options: Any) -> TrainingResult:
    chosen = {"target": "loan_status", "positive": "Approved", "trials": 1, "candidates": ("logistic",), **options}
    return train(
        LOANS if chosen["target"] == "loan_status" else tables.from_memory(examples.iris(), "iris"),
        TrainingOptions(name="model", **chosen),
        open_graph=open_graph,
        registry=FolderRegistry(folder),
        now=datetime(2026, 11, 1, tzinfo=UTC),
        progress=[].append,
    )


def test_a_training_by_cost_says_so_everywhere(tmp_path: Path) -> None:
    plain, dear = trained(tmp_path), trained(tmp_path, cost=DEAR)

    manifests = [bundle.verify(Path(result.path)) for result in (plain, dear)]
    assert manifests[0].decision.threshold < manifests[1].decision.threshold
    assert plain.digest != dear.digest
    assert manifests[1].training.options["cost"] == {"false_positive": 5.0, "false_negative": 1.0}
    card = (Path(dear.path) / bundle.CARD).read_text()
    assert "a false positive costs 5 and a false negative costs 1" in card
    assert "costs least" not in (Path(plain.path) / bundle.CARD).read_text()


def test_a_model_refitted_on_all_rows_keeps_the_figures_of_the_one_that_was_measured(tmp_path: Path) -> None:
    measured, refitted = trained(tmp_path), trained(tmp_path, refit=True)

    assert refitted.holdout == measured.holdout
    assert refitted.digest != measured.digest
    assert refitted.parity.label_flips == 0
    assert "trained on all rows" in (Path(refitted.path) / bundle.CARD).read_text()
    assert "refitted on all rows" in (Path(refitted.path) / bundle.REPORT).read_text()
    assert "trained on all rows" not in (Path(measured.path) / bundle.CARD).read_text()


def test_a_price_for_a_model_without_threshold_is_refused_before_any_trial(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--cost needs a target of two classes; 'species' has 3 classes"):
        trained(tmp_path, target="species", positive=None, cost=DEAR)
    assert not FolderRegistry(tmp_path).models()
