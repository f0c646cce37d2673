"""Stored trials: every slot is used once across restarts and processes, and each problem has its own study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from rowcast.errors import TrainingError
from rowcast.training import trial_storage
from rowcast.training.cost import Cost
from rowcast.training.options import TrainingOptions
from rowcast.training.trial_storage import Study

TOTAL = 6


def open_study(journal: Path | None, **options: Any) -> Study:
    storage = None if journal is None else str(journal)
    return trial_storage.open_study(
        TrainingOptions(target="y", name="m", storage=storage, **options), "sha", "roc_auc", TOTAL
    )


def drawing(study: Study, drawn: list[tuple[int, float]], stop_after: int = 100) -> Callable[[optuna.Trial], float]:
    """Return an objective that records its slot and a random number, and stops the search after a number of trials."""

    def objective(trial: optuna.Trial) -> float:
        slot = study.claim(trial)
        if slot is None:
            trial.study.stop()
            return float("nan")
        trial.set_user_attr(trial_storage.KIND, "kind")
        drawn.append((slot, trial.suggest_float("x", 0, 1)))
        if len(drawn) == stop_after:
            trial.study.stop()
        return drawn[-1][1]

    return objective


def ignore(_study: optuna.Study, _trial: FrozenTrial) -> None:
    """Do nothing after a trial."""


def run(study: Study, stop_after: int = 100) -> list[tuple[int, float]]:
    drawn: list[tuple[int, float]] = []
    study.optimise(drawing(study, drawn, stop_after), ignore)
    return drawn


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_the_number_of_slots_equals_the_budget_with_and_without_a_journal(tmp_path: Path) -> None:
    in_memory, stored = run(open_study(None)), run(open_study(tmp_path / "trials.log"))

    assert [slot for slot, _ in in_memory] == list(range(TOTAL))
    assert in_memory == stored


def test_a_search_with_an_unlimited_number_of_trials_learns_from_its_trials() -> None:
    study = trial_storage.open_study(TrainingOptions(target="y", name="m"), "sha", "roc_auc", 100_000)

    drawn = run(study, stop_after=60)

    early, late = ([number for _, number in part] for part in (drawn[:20], drawn[40:]))
    assert sum(late) / len(late) > 0.8 > sum(early) / len(early)


def test_ctrl_c_while_a_result_is_recorded_interrupts_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    study, drawn = open_study(None), list[tuple[int, float]]()
    record = study.optuna._storage.set_trial_state_values

    def interrupt(trial_id: int, state: TrialState, values: Any = None) -> bool:
        if state.is_finished():
            raise KeyboardInterrupt
        return record(trial_id, state, values)

    monkeypatch.setattr(study.optuna._storage, "set_trial_state_values", interrupt)

    with pytest.raises(KeyboardInterrupt):
        study.optimise(drawing(study, drawn), ignore)
    assert len(drawn) == 1


@pytest.mark.parametrize("first", [1, 3, TOTAL])
def test_a_resumed_search_draws_the_same_numbers_as_an_uninterrupted_search(tmp_path: Path, first: int) -> None:
    drawn = run(open_study(tmp_path / "trials.log"), stop_after=first) + run(open_study(tmp_path / "trials.log"))

    assert drawn == run(open_study(None))


def test_interleaved_processes_claim_different_slots(tmp_path: Path) -> None:
    first, second = open_study(tmp_path / "trials.log"), open_study(tmp_path / "trials.log")
    trials = [(study, study.optuna.ask()) for study in (first, second, first, second)]

    # Later trials claim slots first, but the lowest slots stay reserved for earlier trials.
    slots = [study.claim(trial) for study, trial in reversed(trials)]

    assert slots == [3, 2, 1, 0]


def test_a_trial_beyond_the_budget_gets_no_slot(tmp_path: Path) -> None:
    study = open_study(tmp_path / "trials.log")
    run(study)

    assert study.is_used_up
    assert study.claim(study.optuna.ask()) is None


@pytest.mark.parametrize("claimed", [True, False])
def test_the_slot_of_a_dead_process_becomes_available_again(tmp_path: Path, claimed: bool) -> None:
    dead = open_study(tmp_path / "trials.log")
    # `optimise` enqueues every trial in this way before it starts the trial.
    dead.optuna.enqueue_trial({}, user_attrs={trial_storage.OWNER: dead._owner})
    trial = dead.optuna.ask()
    if claimed:
        dead.claim(trial)

    # The trial's owner has the same process ID as this process, which has not started a trial: the owner must be dead.
    drawn = run(open_study(tmp_path / "trials.log"))

    assert [slot for slot, _ in drawn] == list(range(TOTAL))


def test_running_trials_of_a_live_process_keep_their_slots(tmp_path: Path) -> None:
    alive = open_study(tmp_path / "trials.log")
    alive._owner = f"{alive._owner.split(' ')[0]} 1 token"  # process 1 is always running
    alive.claim(alive.optuna.ask())

    other = open_study(tmp_path / "trials.log")

    assert [slot for slot, _ in run(other)] == list(range(1, TOTAL))
    assert other.optuna.trials[0].state == TrialState.RUNNING


def test_trials_from_other_processes_are_listed_separately_for_each_candidate(tmp_path: Path) -> None:
    first = open_study(tmp_path / "trials.log")
    drawn = run(first)
    second = open_study(tmp_path / "trials.log")

    assert first.remote_trials("kind") == []
    assert [trial.value for trial in second.remote_trials("kind")] == [value for _, value in drawn]
    assert second.remote_trials("another") == []


def test_different_problems_have_different_study_names() -> None:
    base = TrainingOptions(target="y", name="m")
    same = TrainingOptions(target="y", name="other", trials=5, timeout=3, jobs=2, cost=Cost(), storage="x", alias=None)
    others = [
        TrainingOptions(target="z", name="m"),
        TrainingOptions(target="y", name="m", seed=1),
        TrainingOptions(target="y", name="m", folds=4),
        TrainingOptions(target="y", name="m", candidates=("tree",)),
        TrainingOptions(target="y", name="m", exclude=("a",)),
        TrainingOptions(target="y", name="m", map=("a=b",)),
        TrainingOptions(target="y", name="m", derive=("x = a / b",)),
    ]

    names = [trial_storage.study_name("sha", "roc_auc", options) for options in (base, same, *others)]
    names += [trial_storage.study_name("another", "roc_auc", base), trial_storage.study_name("sha", "f1", base)]

    assert names[0] == names[1]
    assert len(set(names)) == len(names) - 1


@pytest.mark.parametrize("content", ["a,b\n1,2\n3,4\n", '{"a": 1}\n{"a": 2}\n', "[1]\n[2]\n"])
def test_a_file_without_trials_is_rejected_and_left_unchanged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trials.log"
    path.write_text(content)

    with pytest.raises(TrainingError, match="does not contain trials"):
        open_study(path)
    assert path.read_text() == content
