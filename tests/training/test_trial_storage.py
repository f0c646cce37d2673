"""A search in a journal: each slot is tried once, whoever comes and goes, and unequal problems never meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from rowcast.errors import TrainingError
from rowcast.training import trial_storage as study
from rowcast.training.cost import Cost
from rowcast.training.options import TrainingOptions
from rowcast.training.trial_storage import Study

TOTAL = 6


def opened(journal: Path | None, **options: Any) -> Study:
    storage = None if journal is None else str(journal)
    return study.open_study(TrainingOptions(target="y", name="m", storage=storage, **options), "sha", "roc_auc", TOTAL)


def noted(shared: Study, drawn: list[tuple[int, float]], stop_after: int = 100) -> Callable[[optuna.Trial], float]:
    """Draws a number, notes it with its slot, and stops after so many."""

    def objective(trial: optuna.Trial) -> float:
        slot = shared.claim(trial)
        if slot is None:
            trial.study.stop()
            return float("nan")
        trial.set_user_attr(study.KIND, "kind")
        drawn.append((slot, trial.suggest_float("x", 0, 1)))
        if len(drawn) == stop_after:
            trial.study.stop()
        return drawn[-1][1]

    return objective


def leave(_study: optuna.Study, _trial: FrozenTrial) -> None:
    """Nothing after a trial."""


def run(shared: Study, stop_after: int = 100) -> list[tuple[int, float]]:
    drawn: list[tuple[int, float]] = []
    shared.optimise(noted(shared, drawn, stop_after), leave)
    return drawn


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_the_slots_are_the_budget_with_and_without_a_journal(tmp_path: Path) -> None:
    plain, kept = run(opened(None)), run(opened(tmp_path / "trials.log"))

    assert [slot for slot, _ in plain] == list(range(TOTAL))
    assert plain == kept


@pytest.mark.parametrize("first", [1, 3, TOTAL])
def test_a_search_that_goes_on_draws_what_it_would_have_drawn(tmp_path: Path, first: int) -> None:
    drawn = run(opened(tmp_path / "trials.log"), stop_after=first) + run(opened(tmp_path / "trials.log"))

    assert drawn == run(opened(None))


def test_processes_that_take_turns_never_try_the_same(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "trials.log"), opened(tmp_path / "trials.log")
    asked = [(each, each.optuna.ask()) for each in (one, two, one, two)]

    # The later one says first which slot it takes: the earlier one is still owed the lowest.
    slots = [each.claim(trial) for each, trial in reversed(asked)]

    assert slots == [3, 2, 1, 0]


def test_a_trial_too_many_gets_no_slot(tmp_path: Path) -> None:
    shared = opened(tmp_path / "trials.log")
    run(shared)

    assert shared.is_used_up
    assert shared.claim(shared.optuna.ask()) is None


@pytest.mark.parametrize("claimed", [True, False])
def test_the_slot_of_a_process_that_died_is_free_again(tmp_path: Path, claimed: bool) -> None:
    dead = opened(tmp_path / "trials.log")
    dead.optuna.enqueue_trial({}, user_attrs={study.BY: dead._by})  # what `optimise` does before it asks
    trial = dead.optuna.ask()
    if claimed:
        dead.claim(trial)

    # This process's own number, which it had not asked anything with yet: whoever had it is gone.
    drawn = run(opened(tmp_path / "trials.log"))

    assert [slot for slot, _ in drawn] == list(range(TOTAL))


def test_the_trials_of_a_living_process_are_left_to_it(tmp_path: Path) -> None:
    alive = opened(tmp_path / "trials.log")
    alive._by = f"{alive._by.split(' ')[0]} 1 token"  # process 1 always runs
    alive.claim(alive.optuna.ask())

    other = opened(tmp_path / "trials.log")

    assert [slot for slot, _ in run(other)] == list(range(1, TOTAL))
    assert other.optuna.trials[0].state == TrialState.RUNNING


def test_what_others_found_is_known_by_kind(tmp_path: Path) -> None:
    first = opened(tmp_path / "trials.log")
    drawn = run(first)
    second = opened(tmp_path / "trials.log")

    assert first.elsewhere("kind") == []
    assert [trial.value for trial in second.elsewhere("kind")] == [value for _, value in drawn]
    assert second.elsewhere("another") == []


def test_unequal_problems_have_unequal_names() -> None:
    plain = TrainingOptions(target="y", name="m")
    same = TrainingOptions(target="y", name="other", trials=5, timeout=3, jobs=2, cost=Cost(), storage="x", alias=None)
    others = [
        TrainingOptions(target="z", name="m"),
        TrainingOptions(target="y", name="m", seed=1),
        TrainingOptions(target="y", name="m", folds=4),
        TrainingOptions(target="y", name="m", candidates=("tree",)),
        TrainingOptions(target="y", name="m", exclude=("a",)),
        TrainingOptions(target="y", name="m", map=("a=b",)),
    ]

    names = [study.study_name("sha", "roc_auc", options) for options in (plain, same, *others)]
    names += [study.study_name("another", "roc_auc", plain), study.study_name("sha", "f1", plain)]

    assert names[0] == names[1]
    assert len(set(names)) == len(names) - 1


@pytest.mark.parametrize("content", ["a,b\n1,2\n3,4\n", '{"a": 1}\n{"a": 2}\n', "[1]\n[2]\n"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trials.log"
    path.write_text(content)

    with pytest.raises(TrainingError, match="holds something else than trials"):
        opened(path)
    assert path.read_text() == content
