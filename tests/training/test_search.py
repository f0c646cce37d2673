"""The search: time limit, interrupts and time splits."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.engines import Shared, Task, ThreadEngine
from rowcast.tables import examples
from rowcast.tables.read import table_from_memory
from rowcast.training import cross_validation, search
from rowcast.training.events import TrainingEvent
from rowcast.training.models.candidate import Estimator, LabelledMatrix, Params, Setting
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.models.linear import Logistic
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import build_problem
from support.training import customers, train_model

pytestmark = pytest.mark.usefixtures("small_models")

LOANS = table_from_memory(examples.loans(1500), "loans")
IRIS = table_from_memory(examples.iris(), "iris")


def test_a_search_with_a_time_split_validates_only_on_later_rows() -> None:
    options = TrainingOptions(target="y", name="x", time="day", trials=3, candidates=("logistic", "ridge"))
    problem = build_problem(table_from_memory(customers()), options)

    result, _ = search.search(problem, options, lambda event: None)

    assert problem.training.split_column is not None
    assert result.validation.split_column is not None
    halfway = np.median(problem.training.split_column.values)
    assert result.validation.split_column.values.min() >= halfway - 1
    assert sorted(np.concatenate(result.folds)) == list(range(len(result.validation)))
    for trial in result.trials:
        assert len(trial.raw) == len(result.validation) < len(problem.training)
        assert np.count_nonzero(trial.raw) == trial.raw.size


def test_every_candidate_gets_a_trial_and_the_best_candidate_comes_first() -> None:
    options = TrainingOptions(target="y", name="x", trials=1, candidates=("logistic", "ridge", "tree"))
    problem = build_problem(table_from_memory(customers()), options)

    result, _ = search.search(problem, options, lambda event: None)

    assert {score.name: score.trials for score in result.scores} == {"logistic": 1, "ridge": 1, "tree": 1}
    assert [score.score for score in result.scores] == sorted((each.score for each in result.trials), reverse=True)
    assert result.best is result.trials[0]


def test_a_process_uses_the_trials_that_another_process_finishes_during_its_last_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainingOptions(
        target="y", name="x", trials=4, candidates=("logistic",), storage=str(tmp_path / "trials.log")
    )
    problem = build_problem(table_from_memory(customers()), options)
    others: list[search.SearchResult] = []

    def run_all_other_trials(event: TrainingEvent) -> None:
        if not others:
            monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
            others.append(search.search(problem, options, lambda event: None)[0])

    result, _ = search.search(problem, options, run_all_other_trials)

    assert [score.trials for score in result.scores] == [4]
    scores = {trial.score for trial in others[0].trials} | {trial.score for trial in result.trials}
    assert result.best.score == max(scores)
    assert len(result.trials) == 3


def test_the_time_limit_stops_the_search(tmp_path: Path) -> None:
    started = time.monotonic()

    result = train_model(tmp_path, LOANS, "loan_status", trials=10_000, timeout=1.0)

    assert time.monotonic() - started < 5
    assert sum(candidate.trials for candidate in result.candidates) < 10_000


def test_a_search_with_a_time_limit_stops_after_thirty_trials_without_an_improvement(tmp_path: Path) -> None:
    result = train_model(tmp_path, IRIS, "species", trials=None, timeout=600, candidates=("logistic",))

    assert result.stale_trials == 30
    assert 30 < result.candidates[0].trials < 200


def test_all_requested_trials_run_even_if_they_do_not_improve_the_score(tmp_path: Path) -> None:
    result = train_model(tmp_path, IRIS, "species", trials=60, timeout=600, candidates=("logistic",))

    assert result.candidates[0].trials == 60
    assert result.stale_trials == 0


def test_twenty_trials_run_if_neither_a_number_of_trials_nor_a_time_limit_is_given(tmp_path: Path) -> None:
    result = train_model(tmp_path, IRIS, "species", trials=None, candidates=("logistic",))

    assert result.candidates[0].trials == 20


class Clock:
    """A clock that advances only while `SlowLogistic` is fitted."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class SlowLogistic(Logistic):
    """Logistic regression that takes 0.3 seconds on the test clock for each fit."""

    name = "slow"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Estimator:
        self._clock.now += 0.3
        return super().fit(rows, params, setting, validation)


@pytest.mark.parametrize(("timeout", "trials"), [(0.1, 1), (6.0, 2)])
def test_the_time_limit_includes_the_final_fit_and_all_later_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float, trials: int
) -> None:
    """Only the first trial can exceed the limit, because the search always finishes it.

    The limits are short, so that the
    steps after the search are expected to take more than half of the time.
    """
    clock = Clock()
    monkeypatch.setitem(CANDIDATES, "slow", SlowLogistic(clock))
    monkeypatch.setattr(search, "time", clock)
    monkeypatch.setattr(cross_validation, "time", clock)
    trial_seconds, final_fit_seconds = 3 * 0.3, 0.3  # three folds

    result = train_model(tmp_path, IRIS, "species", trials=100, timeout=timeout, candidates=("slow",))

    assert clock.now <= max(timeout / 2, trial_seconds + final_fit_seconds + 1e-9)
    assert clock.now > timeout / 2 - trial_seconds - final_fit_seconds
    assert result.candidates[0].trials == trials


def test_the_best_model_so_far_is_kept_after_an_interrupt(tmp_path: Path) -> None:
    def interrupt(event: TrainingEvent) -> None:
        if event.stage == "tune" and event.trial == 3:
            raise KeyboardInterrupt

    result = train_model(tmp_path, IRIS, "species", trials=50, progress=interrupt)

    assert sum(candidate.trials for candidate in result.candidates) == 3


def test_an_interrupt_propagates_if_there_is_no_model_yet(tmp_path: Path) -> None:
    def interrupt(event: TrainingEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(tmp_path, IRIS, "species", progress=interrupt)
    assert not FolderRegistry(tmp_path).models()


class LateTask:
    """A task of a `ReversedEngine`."""

    def __init__(self, run_all: Callable[[], None]) -> None:
        self._run_all = run_all
        self.value: Any = None
        self.is_cancelled = False

    def result(self, seconds: float | None = None) -> Any:
        self._run_all()
        return self.value

    def cancel(self) -> None:
        self.is_cancelled = True


class ReversedEngine:
    """Runs the waiting tasks in reverse order when a result is needed, as if early tasks took longest."""

    slots = 8

    def __init__(self) -> None:
        self._waiting: list[tuple[LateTask, Callable[[], Any]]] = []

    def share(self, value: Any) -> Shared[Any]:
        return Shared(value)

    def submit(self, function: Callable[..., Any], shared: Shared[Any], *arguments: Any) -> Task[Any]:
        task = LateTask(self._run_all)
        self._waiting.append((task, lambda: function(shared.reference, *arguments)))
        return task

    def _run_all(self) -> None:
        while self._waiting:
            task, run = self._waiting.pop()
            if not task.is_cancelled:
                task.value = run()


SMALL: dict[str, Any] = {"trials": 9, "candidates": ("logistic", "tree", "boosting")}


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_with_one_trial_at_a_time_an_engine_produces_the_same_model_as_a_run_without_an_engine(
    tmp_path: Path, preset: str
) -> None:
    expected = train_model(tmp_path / "process", LOANS, "loan_status", preset=preset, **SMALL)
    with closing(ThreadEngine(2)) as engine:
        result = train_model(tmp_path / "engine", LOANS, "loan_status", engine=engine, preset=preset, **SMALL)

    assert (result.digest, result.score) == (expected.digest, expected.score)
    assert [each.trials for each in result.candidates] == [each.trials for each in expected.candidates]


def test_concurrent_trials_produce_the_same_model_regardless_of_the_order_in_which_their_tasks_end(
    tmp_path: Path,
) -> None:
    with closing(ThreadEngine(2)) as engine:
        one = train_model(tmp_path / "one", LOANS, "loan_status", engine=engine, jobs=3, **SMALL)
    two = train_model(tmp_path / "two", LOANS, "loan_status", engine=ReversedEngine(), jobs=3, **SMALL)

    assert (one.digest, one.score) == (two.digest, two.score)
    assert sum(each.trials for each in one.candidates) == SMALL["trials"]


def test_trials_on_an_engine_are_stored_and_resumed(tmp_path: Path) -> None:
    options = {**SMALL, "storage": str(tmp_path / "trials.log"), "jobs": 2}
    with closing(ThreadEngine(2)) as engine:
        first = train_model(tmp_path / "a", LOANS, "loan_status", engine=engine, **options)
        again = train_model(tmp_path / "b", LOANS, "loan_status", engine=engine, **options)

    assert (again.score, again.digest) == (first.score, first.digest)


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_time_limit_stops_a_search_on_an_engine(tmp_path: Path, jobs: int) -> None:
    started = time.monotonic()

    with closing(ThreadEngine(2)) as engine:
        options = {**SMALL, "trials": 10_000, "timeout": 1.0, "jobs": jobs}
        result = train_model(tmp_path, LOANS, "loan_status", engine=engine, **options)

    assert time.monotonic() - started < 60
    assert 0 < sum(each.trials for each in result.candidates) < 10_000


class StuckTask(LateTask):
    """A task that never ends."""

    def result(self, seconds: float | None = None) -> Any:
        assert seconds is not None
        raise TimeoutError


class StuckEngine(ReversedEngine):
    """Never returns a result, as if the cluster were overloaded."""

    def submit(self, function: Callable[..., Any], shared: Shared[Any], *arguments: Any) -> Task[Any]:
        return StuckTask(self._run_all)


def test_a_search_on_an_engine_that_returns_nothing_in_time_still_returns_a_model(tmp_path: Path) -> None:
    result = train_model(tmp_path, LOANS, "loan_status", engine=StuckEngine(), jobs=3, timeout=5.0, **SMALL)

    assert [each.name for each in result.candidates] == ["logistic"]


def test_ctrl_c_on_an_engine_publishes_the_best_model_so_far(tmp_path: Path) -> None:
    events: list[TrainingEvent] = []

    def interrupt(event: TrainingEvent) -> None:
        events.append(event)
        if event.stage == "tune" and event.trial == 4:
            raise KeyboardInterrupt

    with closing(ThreadEngine(2)) as engine:
        result = train_model(tmp_path, LOANS, "loan_status", engine=engine, jobs=3, progress=interrupt, **SMALL)

    assert events[-1].stage == "publish"
    assert 3 <= sum(each.trials for each in result.candidates) < SMALL["trials"]
