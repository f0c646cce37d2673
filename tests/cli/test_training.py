"""The output of `rowcast train` and `rowcast check`: findings and the alias of the new version."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from rowcast.cli import training
from rowcast.registry.bundle import Measure, Parity
from rowcast.tables.table import Finding, Override
from rowcast.training.result import Comparison, Promotion, TrainingResult


def test_the_override_flag_of_a_finding_can_be_pasted_into_a_shell() -> None:
    finding = Finding("constant", "Region's name", "is 'x' in every row", "left out", Override("keep", "Region's name"))

    document = training.finding_document(finding)

    assert shlex.split(document["flag"]) == ["--keep", "Region's name"]
    assert "override" not in document


def test_a_finding_without_an_override_has_no_flag() -> None:
    assert "flag" not in training.finding_document(Finding("encoding", "", "not UTF-8", "read as cp1252"))


def result(promotion: Promotion, version: int = 2) -> TrainingResult:
    return TrainingResult(
        model="loans",
        version=version,
        path="/models/loans/2",
        digest="rb1-0",
        task="binary",
        metric="roc_auc",
        score=0.9,
        preset="balanced",
        row_microseconds=12.5,
        holdout={},
        parity=Parity(100, 0.0, 0),
        candidates=(),
        findings=(),
        seconds=1.0,
        promotion=promotion,
    )


@pytest.mark.parametrize(
    ("promotion", "lines"),
    [
        (Promotion("champion", None), ["loans@2 is now the champion"]),
        (Promotion("champion", 1, "it is better"), ["loans@2 is now the champion: it is better"]),
        (
            Promotion("challenger", 1, "it is worse"),
            [
                "loans@1 stays champion, and loans@2 is the challenger: it is worse",
                "to promote it: rowcast models promote loans@2",
            ],
        ),
        (
            Promotion("challenger", None, "the search was interrupted"),
            [
                "loans@2 is the challenger: the search was interrupted",
                "to promote it: rowcast models promote loans@2",
            ],
        ),
        (Promotion("staging", 1), ["the alias staging now points to loans@2"]),
        (Promotion(None, 1), []),
    ],
)
def test_the_output_ends_with_the_alias_of_the_new_version(
    promotion: Promotion, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    training.print_result(result(promotion))

    printed = capsys.readouterr().out.splitlines()
    published = next(index for index, line in enumerate(printed) if line.startswith("published loans@2 "))
    assert printed[published + 1 :] == lines


def test_the_json_document_contains_the_promotion() -> None:
    comparison = Comparison("roc_auc", 80, Measure(-0.125, -0.25, -0.0625))
    promotion = Promotion("challenger", 1, f"it is worse: {comparison.text()}", comparison)

    assert training.result_document(result(promotion))["promotion"] == {
        "alias": "challenger",
        "champion": 1,
        "reason": "it is worse: roc_auc is worse by 0.1250 (95% interval 0.0625 to 0.2500)",
        "comparison": {
            "metric": "roc_auc",
            "rows": 80,
            "difference": {"value": -0.125, "low": -0.25, "high": -0.0625},
        },
    }


def test_versions_with_equal_scores_are_described_without_numbers() -> None:
    assert Comparison("roc_auc", 80, Measure(0.0, 0.0, 0.0)).text() == "roc_auc is the same"
    assert Comparison("rmse", 80, Measure(0.0, -0.5, 0.5)).text() == (
        "rmse is better by 0.0000 (95% interval -0.5000 to 0.5000)"
    )


@pytest.mark.parametrize(("alias", "model"), [("champion", "loans"), ("challenger", "loans@3")])
def test_the_next_steps_are_commands_with_real_paths(alias: str, model: str) -> None:
    result = SimpleNamespace(model="loans", version=3, promotion=SimpleNamespace(alias=alias))

    steps = training._next_steps(result, Path("my rows.csv"), Path("/srv/home"))  # type: ignore[arg-type]

    assert list(steps.values()) == [
        "rowcast report loans@3 --open --home /srv/home",
        f"rowcast predict {model} 'my rows.csv' --out scores.csv --home /srv/home",
        "rowcast serve --home /srv/home",
    ]
    assert not any("--home" in step for step in training._next_steps(result, Path("-"), Path(".rowcast")).values())  # type: ignore[arg-type]
