"""The indexer loop continues after the store or a journal has failed."""

from __future__ import annotations

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import HistoryError, Unavailable
from rowcast.history.indexer import run_indexer
from rowcast.history.ports import StoreWriter


class FailingJournalReader(EmptyJournalReader):
    """Raises each of the given errors once and then succeeds."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.drained = 0

    def drain(self, store: StoreWriter) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.drained += 1
        return 0


def run(journals: FailingJournalReader, rounds: int) -> tuple[list[str], list[float]]:
    """Run the indexer for a number of rounds; return its reports and the pause before each round."""
    reports: list[str] = []
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == rounds

    run_indexer(journals, MemoryStore(), wait=wait, report=reports.append)
    return reports, pauses


def test_the_indexer_reports_each_failure_and_continues() -> None:
    journals = FailingJournalReader([Unavailable("store"), HistoryError("damage")])

    reports, _ = run(journals, 4)

    assert reports == ["store", "damage"]
    assert journals.drained == 2


def test_the_same_damage_is_reported_only_once() -> None:
    reports, _ = run(FailingJournalReader([HistoryError("a"), HistoryError("a"), HistoryError("b")]), 4)

    assert reports == ["a", "b"]


def test_pauses_between_rounds_grow_while_the_store_is_unavailable() -> None:
    _, pauses = run(FailingJournalReader([Unavailable("store")] * 6), 8)

    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.2]


def test_the_indexer_drains_the_journals_once_more_when_it_stops() -> None:
    journals = FailingJournalReader([])

    run(journals, 1)

    assert journals.drained == 1


def test_maintenance_follows_each_round_in_which_the_store_is_available() -> None:
    journals = FailingJournalReader([HistoryError("damage"), Unavailable("store")])
    order: list[str] = []
    rounds = iter([False, False, False, True])

    def wait(seconds: float) -> bool:
        order.append("wait")
        return next(rounds)

    run_indexer(
        journals, MemoryStore(), wait=wait, report=order.append, maintain=lambda: order.append("maintain"), every=0.0
    )

    assert order == ["wait", "damage", "maintain", "wait", "store", "wait", "maintain", "wait", "maintain"]


def test_damage_is_reported_again_if_it_returns() -> None:
    class Journals(FailingJournalReader):
        def drain(self, store: StoreWriter) -> int:
            self.drained += 1
            if self.drained != 2:
                raise HistoryError("a")
            return 0

    assert run(Journals([]), 3)[0] == ["a", "a"]
