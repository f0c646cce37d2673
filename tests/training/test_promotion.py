"""Which alias a new version gets if there is already a champion."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import RegistryError, TrainingError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.training import promotion
from rowcast.training.events import TrainingEvent
from rowcast.training.result import TrainingResult
from support.training import Columns, train_model


def points(seed: int, rows: int = 400) -> Columns:
    """Return a table with three possible targets that depend on the columns `a` and `b`: two classes, a number, and
    three classes."""
    rng = np.random.default_rng(seed)
    a, b, noise = rng.normal(size=(3, rows))
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "y": np.where(a + b + noise * 0.3 > 0, "yes", "no").tolist(),
        "product": (a * b).tolist(),
        "level": np.select([a > 0.5, a > -0.5], ["high", "middle"], "low").tolist(),
    }


def select(table: Columns, target: str) -> Columns:
    """Return a table with only the features and one of the targets."""
    return {name: table[name] for name in ("a", "b", target)}


def train(folder: Path, table: Columns, target: str = "y", **options: Any) -> TrainingResult:
    return train_model(folder, select(table, target), target, **{"trials": 1, "candidates": ("logistic",), **options})


def aliases(folder: Path) -> dict[str, int]:
    return dict(FolderRegistry(folder).aliases("model"))


def test_the_first_version_becomes_the_champion(tmp_path: Path) -> None:
    result = train(tmp_path, points(1))

    assert msgspec.to_builtins(result.promotion) == {
        "alias": "champion",
        "champion": None,
        "reason": "",
        "comparison": None,
    }
    assert aliases(tmp_path) == {"champion": 1}


@pytest.mark.parametrize(("target", "metric"), [("y", "roc_auc"), ("product", "rmse"), ("level", "log_loss")])
def test_a_version_that_is_not_worse_on_new_rows_replaces_the_champion(
    tmp_path: Path, target: str, metric: str
) -> None:
    train(tmp_path, points(1), target, candidates=("boosting",))

    result = train(tmp_path, points(4), target, candidates=("boosting",))

    comparison = result.promotion.comparison
    assert comparison is not None, result.promotion.reason
    assert (result.promotion.alias, result.promotion.champion, comparison.metric) == ("champion", 1, metric)
    assert comparison.rows in (79, 80, 81)
    assert comparison.difference.low <= comparison.difference.value <= comparison.difference.high
    assert comparison.difference.high >= 0
    assert aliases(tmp_path) == {"champion": 2}
    assert FolderRegistry(tmp_path).log("model")[-1].reason == result.promotion.reason


@pytest.mark.parametrize(("champion", "challenger"), [("boosting", "ridge"), ("ridge", "boosting")])
def test_a_worse_version_becomes_the_challenger(tmp_path: Path, champion: str, challenger: str) -> None:
    train(tmp_path, points(1, 1500), "product", candidates=(champion,))

    result = train(tmp_path, points(2, 1500), "product", candidates=(challenger,))

    comparison = result.promotion.comparison
    assert comparison is not None
    if champion == "ridge":  # a linear model cannot represent the product
        assert comparison.difference.low > 0
        assert result.promotion.reason.startswith("it is not worse than version 1 on 300 rows: rmse is better by 0.")
        assert aliases(tmp_path) == {"champion": 2}
    else:
        assert comparison.difference.high < 0
        assert result.promotion.reason.startswith("it is worse than version 1 on 300 rows: rmse is worse by 0.")
        assert aliases(tmp_path) == {"champion": 1, "challenger": 2}


def test_a_repeated_run_is_compared_on_its_holdout(tmp_path: Path) -> None:
    train(tmp_path, points(1))

    result = train(tmp_path, points(1))

    assert result.promotion.comparison is not None
    assert msgspec.to_builtins(result.promotion.comparison) == {
        "metric": "roc_auc",
        "rows": 80,
        "difference": {"value": 0.0, "low": 0.0, "high": 0.0},
    }
    assert aliases(tmp_path) == {"champion": 2}


@pytest.mark.parametrize("first", [{"refit": True}, {"seed": 5}], ids=["refit", "another seed"])
def test_rows_that_the_champion_was_trained_on_are_not_compared(tmp_path: Path, first: dict[str, Any]) -> None:
    train(tmp_path, points(1), **first)

    result = train(tmp_path, points(1), holdout=0.1)

    assert result.promotion.alias == "challenger"
    assert re.match(r"(only \d+ of the 40|no) holdout rows are new to version 1", result.promotion.reason)
    assert aliases(tmp_path) == {"champion": 1, "challenger": 2}


def test_only_the_new_rows_of_a_longer_table_are_compared(tmp_path: Path) -> None:
    old, new = points(1), points(2)
    train(tmp_path, old, refit=True)

    result = train(tmp_path, {name: old[name] + new[name] for name in old})

    assert result.promotion.comparison is not None
    assert 55 <= result.promotion.comparison.rows <= 105


def test_sensitive_columns_do_not_prevent_a_comparison(tmp_path: Path) -> None:
    train(tmp_path, points(1), sensitive=("a",))

    result = train(tmp_path, points(2), sensitive=("a",))

    assert result.promotion.comparison is not None
    assert result.promotion.comparison.rows == 80


def test_a_weighted_holdout_is_compared_by_group(tmp_path: Path) -> None:
    def table(seed: int) -> Columns:
        return select(points(seed), "y") | {
            "w": [1 + index % 3 for index in range(400)],
            "customer": [f"c{seed}-{index // 2}" for index in range(400)],
        }

    options: dict[str, Any] = {"trials": 1, "candidates": ("logistic",), "weight": "w", "group": "customer"}
    train_model(tmp_path, table(1), **options)

    result = train_model(tmp_path, table(2), **options)

    assert result.promotion.comparison is not None
    assert aliases(tmp_path) == {"champion": 2}


def test_at_most_the_maximum_number_of_rows_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, points(1))
    monkeypatch.setattr(promotion, "MOST_ROWS", 30)
    monkeypatch.setattr(promotion, "ROWS_PER_RUN", 7)

    result = train(tmp_path, points(2))

    assert result.promotion.comparison is not None
    assert result.promotion.comparison.rows == 30


def remove_training_rows(folder: Path) -> None:
    """Convert a bundle to the form that an earlier release wrote."""
    (folder / bundle.TRAINING_ROWS).unlink()
    manifest = bundle.read_manifest(folder)
    files = {name: digest for name, digest in manifest.files.items() if name != bundle.TRAINING_ROWS}
    older = msgspec.structs.replace(manifest, files=files)
    (folder / bundle.MANIFEST).write_bytes(msgspec.json.encode(older))


CHANGES: dict[str, Callable[[Path], object]] = {
    "does not record its training rows": remove_training_rows,
    "model.onnx was changed": lambda folder: (folder / "model.onnx").write_bytes(b"damaged"),
    "training_rows.bin was changed": lambda folder: (folder / "training_rows.bin").write_bytes(b"damaged"),
    "bundle.json is damaged": lambda folder: (folder / "bundle.json").write_bytes(b"damaged"),
    "the files of version 1 are missing": shutil.rmtree,
}


@pytest.mark.parametrize("reason", CHANGES)
def test_a_champion_that_cannot_be_compared_stays_champion(tmp_path: Path, reason: str) -> None:
    CHANGES[reason](Path(train(tmp_path, points(1)).path))

    result = train(tmp_path, points(2))

    assert reason in result.promotion.reason
    assert aliases(tmp_path) == {"champion": 1, "challenger": 2}


def test_a_champion_that_is_too_slow_stays_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, points(1))
    monkeypatch.setattr(promotion, "TIME_LIMIT", -1.0)

    result = train(tmp_path, points(2))

    assert "did not score 80 rows" in result.promotion.reason
    assert aliases(tmp_path) == {"champion": 1, "challenger": 2}


def test_a_version_with_another_schema_or_target_becomes_the_challenger(tmp_path: Path) -> None:
    train(tmp_path, points(1))

    column = train_model(tmp_path, select(points(2), "y") | {"c": points(3)["a"]}, trials=1, candidates=("logistic",))
    target = train(tmp_path, points(2), "level")

    assert "the column 'c' is new" in column.promotion.reason
    assert "the target is 'level' instead of 'y'" in target.promotion.reason
    assert aliases(tmp_path) == {"champion": 1, "challenger": 3}


def test_promotion_can_be_forced_or_disabled(tmp_path: Path) -> None:
    first = train(tmp_path, points(1), promote=False)
    assert aliases(tmp_path) == {"challenger": 1}
    assert (first.promotion.alias, first.promotion.champion) == ("challenger", None)

    train(tmp_path, points(1), "level", promote=True)
    assert aliases(tmp_path) == {"challenger": 1, "champion": 2}
    train(tmp_path, points(1), promote=True)
    train(tmp_path, points(1), promote=False)
    assert aliases(tmp_path) == {"challenger": 4, "champion": 3}


def test_another_alias_is_moved_without_a_comparison(tmp_path: Path) -> None:
    train(tmp_path, points(1))
    result = train(tmp_path, points(1), "level", alias="staging")
    train(tmp_path, points(1), alias=None)

    assert (result.promotion.alias, result.promotion.champion, result.promotion.reason) == ("staging", 1, "")
    assert aliases(tmp_path) == {"champion": 1, "staging": 2}


def test_another_alias_cannot_be_combined_with_a_promotion(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        train(tmp_path, points(1), alias="staging", promote=True)

    train(tmp_path, points(1), alias="staging", promote=False)

    assert aliases(tmp_path) == {"staging": 1}


def test_an_invalid_alias_is_rejected_before_the_search(tmp_path: Path) -> None:
    events: list[TrainingEvent] = []

    with pytest.raises(RegistryError):
        train(tmp_path, points(1), alias="No Alias", progress=events.append)

    assert events == []


@pytest.mark.parametrize("promote", [None, True])
@pytest.mark.parametrize("versions", [0, 1])
def test_an_interrupted_run_is_published_but_promoted_only_on_request(
    tmp_path: Path, versions: int, promote: bool | None
) -> None:
    for _ in range(versions):
        train(tmp_path, points(1))

    def interrupt(event: TrainingEvent) -> None:
        if event.trial == 1:
            raise KeyboardInterrupt

    result = train(tmp_path, points(1), trials=5, promote=promote, progress=interrupt)

    assert result.version == versions + 1
    if promote:
        assert aliases(tmp_path) == {"champion": versions + 1}
    else:
        assert result.promotion.reason == "the search was interrupted"
        assert aliases(tmp_path) == {"champion": 1, "challenger": 2} if versions else {"challenger": 1}


def test_a_champion_that_another_process_promotes_meanwhile_stays_champion(tmp_path: Path) -> None:
    train(tmp_path, points(1))
    train(tmp_path, points(1), promote=False)

    def promote_other(event: TrainingEvent) -> None:
        if event.message == "comparing with model@1":
            FolderRegistry(tmp_path).point(Reference("model", 2), "champion")

    result = train(tmp_path, points(1), progress=promote_other)

    assert result.promotion.alias == "challenger"
    assert "changed" in result.promotion.reason
    assert aliases(tmp_path) == {"champion": 2, "challenger": result.version}
    assert Path(result.path).is_dir()
