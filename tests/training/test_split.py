"""Who learns, who judges, who is kept aside: groups stay whole, later rows judge earlier ones, chance is seeded."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowcast import tables
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import TableError, TrainingError
from rowcast.registry import bundle
from rowcast.training import features, split
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem, build_problem
from rowcast.training.run import train
from rowcast.training.search import search
from rowcast.training.split import SplitColumn

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def customers(seed: int = 0, count: int = 120) -> dict[str, list[Any]]:
    """Rows of customers, each with one to eight of them, who mostly keep their label."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, count)
    owner = np.repeat(np.arange(count), sizes)
    label = (rng.random(count) < 0.3)[owner] ^ (rng.random(len(owner)) < 0.1)
    return {
        "customer": [f"c{each}" for each in owner],
        "x": (rng.normal(size=count)[owner] + rng.normal(size=len(owner)) * 0.1).tolist(),
        "day": rng.permutation(len(owner)).tolist(),
        "y": np.where(label, "bad", "good").tolist(),
    }


def posed(columns: dict[str, list[Any]], **options: Any) -> LearningProblem:
    return build_problem(tables.from_memory(columns, "loans"), TrainingOptions(target="y", name="loans", **options))


def owners(columns: dict[str, list[Any]], places: Any) -> set[str]:
    return {columns["customer"][place] for place in places}


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_on_both_sides_and_classes_are_spread(seed: int) -> None:
    columns = customers(seed)

    problem = posed(columns, group="customer", seed=seed)
    rows = problem.training
    folds = split.make_folds(rows.target, "binary", 3, seed, rows.tie)

    assert not owners(columns, rows.places) & owners(columns, problem.holdout.places)
    assert len(problem.holdout) / problem.frame.height == pytest.approx(0.2, abs=0.03)
    assert problem.holdout.target.mean() == pytest.approx(rows.target.mean(), abs=0.05)
    assert sorted(np.concatenate([judge for _, judge in folds])) == list(range(len(rows)))
    for learn, judge in folds:
        assert not owners(columns, rows.places[learn]) & owners(columns, rows.places[judge])
        assert len(judge) / len(rows) == pytest.approx(1 / 3, abs=0.03)
        assert rows.target[judge].mean() == pytest.approx(rows.target.mean(), abs=0.05)


def test_a_split_by_groups_is_seeded() -> None:
    first, again, other = (posed(customers(), group="customer", seed=seed) for seed in (0, 0, 1))

    assert first.holdout.places.tolist() == again.holdout.places.tolist() != other.holdout.places.tolist()


def test_the_group_is_not_learnt_from_unless_it_is_kept() -> None:
    left_out, kept = posed(customers(), group=" customer "), posed(customers(), group="customer", keep=("customer",))

    assert "customer" not in left_out.schema.names()
    assert "customer" in kept.schema.names()
    assert [(f.action, str(f.override)) for f in left_out.findings if f.code == "group"] == [
        ("not used as a feature", "keep=customer")
    ]
    assert [f.action for f in kept.findings if f.code == "group"] == ["also used as a feature"]


def test_values_may_be_split_by_groups_too() -> None:
    columns = customers()
    columns["y"] = [value * 7.3 for value in columns["x"]]

    problem = posed(columns, group="customer")

    assert problem.task == "regression"
    assert not owners(columns, problem.training.places) & owners(columns, problem.holdout.places)


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        (lambda owner: min(int(owner[1:]), 3), "1 group is left to learn from, fewer than the 3 folds"),
        (lambda owner: int(owner[1:]) % 2, "its 2 groups are too few, or too uneven, to keep rows aside"),
        (lambda _: "all", "its 1 group is too few"),
    ],
)
def test_groups_that_cannot_split_are_refused(group: Any, sentence: str) -> None:
    columns = customers()
    columns["customer"] = [group(owner) for owner in columns["customer"]]

    with pytest.raises(TableError, match=sentence):
        posed(columns, group="customer")


def test_a_class_of_one_group_is_refused_because_no_fold_could_learn_it() -> None:
    columns = customers()
    first, second = (owner for owner, _ in Counter(columns["customer"]).most_common(2))
    columns["y"] = ["bad" if owner == first else "good" for owner in columns["customer"]]

    with pytest.raises(TableError, match=r"the kept aside rows do not hold every class: 'bad' is missing"):
        posed(columns, group="customer")

    columns["y"] = ["bad" if owner in (first, second) else "good" for owner in columns["customer"]]
    with pytest.raises(TableError, match=r"--group 'customer', .*'bad'"):
        posed(columns, group="customer", holdout=0.5)


def test_groups_and_time_do_not_decide_together() -> None:
    with pytest.raises(TrainingError, match="--group and --time cannot both decide the split"):
        TrainingOptions(target="y", name="x", group="customer", time="day")


def test_folds_in_order_of_time_learn_from_earlier_rows_alone() -> None:
    moments = np.random.default_rng(1).permutation(100) // 2

    folds = split.make_folds(np.zeros(100), "regression", 3, 0, SplitColumn("time", "day", moments))

    assert [len(learn) for learn, _ in folds] == [50, 68, 84]
    for learn, judge in folds:
        assert moments[learn].max() < moments[judge].min()
    judging = np.concatenate([judge for _, judge in folds])
    assert len(np.unique(judging)) == len(judging) == 50


def test_repeated_moments_leave_fewer_folds_and_one_moment_leaves_none() -> None:
    years = np.array([2020] * 10 + [2021] * 90)

    [(learn, judge)] = split.make_folds(np.zeros(100), "regression", 3, 0, SplitColumn("time", "year", years))

    assert (len(learn), len(judge)) == (10, 90)
    columns = customers()
    columns["day"] = [2020 + (day > 0.85 * len(columns["day"])) for day in columns["day"]]
    with pytest.raises(TableError, match="the earlier rows share one moment"):
        posed(columns, time="day")


def test_only_rows_that_judged_are_calibrated_and_decided_on() -> None:
    options = TrainingOptions(target="y", name="x", time="day", trials=3, candidates=("logistic", "ridge"))
    problem = build_problem(tables.from_memory(customers()), options)

    found, _ = search(problem, options, lambda event: None)

    assert problem.training.tie is not None
    halfway = np.median(problem.training.tie.values)
    assert found.judges.tie is not None
    assert found.judges.tie.values.min() >= halfway - 1
    assert sorted(np.concatenate(found.folds)) == list(range(len(found.judges)))
    for attempt in found.attempts:
        assert len(attempt.raw) == len(found.judges) < len(problem.training)
        assert np.count_nonzero(attempt.raw) == attempt.raw.size


@pytest.mark.parametrize("split_by", [{"time": "day"}, {"group": "customer"}])
def test_a_training_split_so_is_certified_and_the_same_each_time(tmp_path: Path, split_by: dict[str, str]) -> None:
    options = TrainingOptions(target="y", name="x", trials=4, **split_by)  # type: ignore[arg-type]

    first, again = (
        train(
            tables.from_memory(customers(), "loans"),
            options,
            open_graph=open_graph,
            registry=FolderRegistry(tmp_path),
            now=NOW,
            progress=lambda event: None,
        )
        for _ in range(2)
    )

    assert first.parity.label_flips == 0
    assert first.digest == again.digest
    assert ("Split by time" if "time" in split_by else "Split by group") in (Path(first.path) / bundle.CARD).read_text()


def test_what_a_customer_is_known_by_does_not_flatter_when_groups_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(150), 6)
    columns = {"customer": [f"c{each}" for each in owner], "x": rng.normal(size=150)[owner].tolist()}
    columns["y"] = rng.integers(0, 2, 150)[owner].tolist()

    def auc(**options: Any) -> float:
        chosen = TrainingOptions(
            target="y", name="x", trials=1, candidates=("forest",), exclude=("customer",), **options
        )
        table = tables.from_memory(columns)
        registry = FolderRegistry(tmp_path)
        result = train(table, chosen, open_graph=open_graph, registry=registry, now=NOW, progress=lambda event: None)
        return result.score

    assert auc() > 0.9
    assert auc(group="customer") < 0.65


def test_the_time_may_decide_the_split_and_not_be_learnt_from() -> None:
    learnt, left_out = posed(customers(), time="day", keep=("day",)), posed(customers(), time="day", exclude=("day",))

    assert "day" in learnt.schema.names()
    assert "day" not in left_out.schema.names()
    assert learnt.holdout.places.tolist() == left_out.holdout.places.tolist()
    assert [f.action for f in left_out.findings if f.code == "time"] == ["not used as a feature"]
    assert [f.action for f in learnt.findings if f.code == "time"] == ["also used as a feature"]


def texts(levels: Any) -> Any:
    return np.array([f"level {level}" for level in levels], object).reshape(-1, 1)


def target_means(levels: Any, target: Any, tie: SplitColumn | None) -> Any:
    numbers = np.empty((len(levels), 0), np.float32)
    return features.fit(numbers, texts(levels), target[:, None], "trees", split.make_inner_folds(tie))[1][:, 0]


def test_target_means_never_come_from_the_own_group() -> None:
    rng = np.random.default_rng(0)
    levels = np.arange(400) // 4  # one level a group: nobody else can tell its mean
    target = rng.normal(size=400)

    grouped = target_means(levels, target, SplitColumn("group", "customer", levels))

    assert not grouped.any()
    assert target_means(levels, target, None).any()


def test_target_means_in_order_of_time_come_from_earlier_rows() -> None:
    rng = np.random.default_rng(0)
    levels, moments, target = rng.integers(80, size=600), rng.permutation(600), rng.normal(size=600)
    late = np.flatnonzero(moments >= 300)
    other = target.copy()
    other[late] = target[rng.permutation(late)]

    before, after = (target_means(levels, each, SplitColumn("time", "day", moments)) for each in (target, other))

    assert before[moments < 300] == pytest.approx(after[moments < 300], abs=1e-6)
    assert not before[moments < 60].any()
    assert before[moments >= 60].any()
    assert np.abs(before - after).max() > 0.01
