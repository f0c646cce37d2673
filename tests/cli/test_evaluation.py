"""The output of `rowcast evaluate`: tables, remarks and next steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rowcast.cli import evaluation
from rowcast.registry.bundle import Measure
from rowcast.training.evaluation_result import ConfusionCounts, Evaluation, HoldoutComparison, KnownRows, ScoreBin


def result(**changes: Any) -> Evaluation:
    whole = Evaluation(
        model="loans",
        version=3,
        digest="rb1-0",
        table="new loans.csv",
        target="status",
        task="binary",
        positive="yes",
        threshold=0.25,
        rows=10,
        unlabeled=0,
        weightless=0,
        rejected=0,
        excluded=0,
        weight=None,
        group=None,
        metrics={"roc_auc": Measure(0.9, 0.8, 0.95), "f1": Measure(0.5, 0.25, 0.75)},
        holdout={"roc_auc": HoldoutComparison(0.95, Measure(-0.05, -0.125, 0.0625), "within the interval")},
        confusion=ConfusionCounts(("no", "yes"), ((4, 1), (2, 3))),
        calibration=(ScoreBin(0.2, 0.3, 10, 0.25, 0.5, 0.25, 0.75),),
        known_rows=None,
        seconds=1.0,
    )
    return msgspec.structs.replace(whole, **changes)


def test_the_output_is_tab_separated_if_it_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.print_result(result())

    assert capsys.readouterr().out.splitlines() == [
        "metric\tvalue\t95% interval\tholdout\tdifference\t95% interval of the difference\tverdict",
        "roc_auc\t0.9000\t0.8000 to 0.9500\t0.9500\t-0.0500\t-0.1250 to 0.0625\twithin the interval",
        "f1\t0.5000\t0.2500 to 0.7500\t\t\t\t",
        "true label\tpredicted no\tpredicted yes",
        "no\t4\t1",
        "yes\t2\t3",
        "probability\trows\tmean probability\tshare of yes",
        "0.2 to 0.3\t10\t0.2500\t0.5000",
        "measured loans@3 on 10 rows of new loans.csv",
    ]


def test_a_model_without_holdout_metrics_has_no_empty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.print_result(result(holdout={}, weight="w", version=None))

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "metric\tvalue\t95% interval"
    assert lines[-1] == "measured loans on 10 rows of new loans.csv, weighted by w"


def test_a_large_confusion_matrix_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    classes = evaluation.MAX_MATRIX_CLASSES + 1
    large = ConfusionCounts(tuple(range(classes)), ((0,) * classes,) * classes)

    evaluation.print_result(result(confusion=large))

    assert "predicted" not in capsys.readouterr().out


def test_the_remarks_account_for_every_row() -> None:
    remarks = result(
        unlabeled=2, weightless=3, rejected=4, excluded=1, known_rows=KnownRows(examined=10, trained_on=8)
    ).remarks()

    assert remarks == [
        "2 of the 19 rows have no value in the column 'status' and were not evaluated",
        "3 of the 19 rows have a weight of 0 and were not evaluated",
        "4 of the 19 rows cannot be scored and were not evaluated",
        "1 line was excluded (second header or no values)",
        (
            "the model was trained on 8 of the 10 measured rows, so the metrics are too optimistic; use rows that are "
            "new to the model"
        ),
    ]


def test_the_next_steps_are_commands_with_real_paths() -> None:
    steps = evaluation.next_steps(result(), "loans@3", Path("new loans.csv"), Path("/srv/home"))

    assert list(steps.values()) == [
        "rowcast evaluate loans@3 'new loans.csv' --report evaluation.html --home /srv/home",
        "rowcast check 'new loans.csv' --target status",
        "rowcast train 'new loans.csv' --target status --name loans --home /srv/home",
    ]
