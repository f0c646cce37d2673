"""History: entries wherever they lie, the proof of their chains, and the past scored again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from rowcast.adapters.memory import MemoryJournal, MemoryStore, NoSpool
from rowcast.errors import HistoryError, ModelNotFound, Unavailable
from rowcast.history.chain import Sealed
from rowcast.history.ports import Stored, StoreWriter
from rowcast.history.replay import replay
from rowcast.history.service import History, index
from rowcast.registry.ports import Reference
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import Deployment, LiveModel
from rowcast.serving.rows import Row
from rowcast.serving.waiting import Ask
from support import models
from support.entries import draft, drafts, identifier, sealed

SCHEMA = models.number_columns(3)
PROBABLE = models.classes("no", "yes")


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    return models.live(tmp_path, "m", models.mlp_graph(3, 2), SCHEMA, PROBABLE, "probabilities")


@pytest.fixture
def other(tmp_path: Path) -> LiveModel:
    """A model that answers the same rows otherwise."""
    return models.live(tmp_path / "other", "m", models.mlp_graph(3, 2, seed=9), SCHEMA, PROBABLE, "probabilities")


def predicted(model: LiveModel, count: int) -> MemoryStore:
    """A store with this model's predictions."""
    store = MemoryStore()

    async def ask() -> None:
        predictor = Predictor(Deployment({model.name: model}), MemoryJournal(store, "w"), lambda event: None)
        rows = [msgspec.json.encode(row) for row in models.random_rows(SCHEMA, count)]
        await predictor.predict_all(model, [Row(model.encoder.read(row), row) for row in rows], Ask("test", "r"))

    asyncio.run(ask())
    return store


def loads(found: LiveModel) -> Callable[[Reference, str], LiveModel]:
    return lambda reference, digest: found


def test_the_same_model_gives_the_same_answers_again(model: LiveModel) -> None:
    found = replay(History(predicted(model, 50), NoSpool()), loads(model))

    assert (found.entries, found.equal, found.examples) == (50, 50, [])


def test_another_model_gives_other_answers_and_examples_of_them(model: LiveModel, other: LiveModel) -> None:
    found = replay(History(predicted(model, 50), NoSpool()), loads(other))

    assert (found.entries, found.equal, found.different) == (50, 0, 50)
    assert len(found.examples) == 20
    assert {example["verdict"] for example in found.examples} == {"different"}
    assert {"id", "then", "now"} <= found.examples[0].keys()


def test_more_entries_than_are_scored_at_once_are_all_replayed(model: LiveModel) -> None:
    found = replay(History(predicted(model, 2500), NoSpool()), loads(model))

    assert (found.entries, found.equal) == (2500, 2500)


def test_what_cannot_be_replayed_says_why(model: LiveModel) -> None:
    store = MemoryStore()
    entries = list(predicted(model, 3).chain("w"))
    store.record("w", [entries[0], entries[1]._replace(row=None, salt=None), entries[2]])

    def missing(reference: Reference, digest: str) -> LiveModel:
        raise ModelNotFound(f"{reference} was deleted")

    erased = replay(History(store, NoSpool()), loads(model))
    gone = replay(History(store, NoSpool()), missing)

    assert (erased.equal, erased.not_replayable, erased.examples[0]["reason"]) == (2, 1, "the row was erased")
    assert (gone.equal, gone.not_replayable) == (0, 3)
    assert "m@1 was deleted" in [example["reason"] for example in gone.examples]


def test_a_replay_may_be_of_one_model_alone(model: LiveModel) -> None:
    store = predicted(model, 5)

    assert replay(History(store, NoSpool()), loads(model), "m").entries == 5
    assert replay(History(store, NoSpool()), loads(model), "another").entries == 0


def test_a_chain_without_its_middle_does_not_verify() -> None:
    store = MemoryStore()
    entries = sealed("w", drafts(0, 5))
    store.record("w", entries[:2] + entries[3:])

    (broken,) = History(store, NoSpool()).verify().broken

    assert (broken["writer"], broken["seq"]) == ("w", 2)


def test_one_broken_chain_does_not_hide_another() -> None:
    store = MemoryStore()
    for writer, start in (("a", 0), ("b", 10), ("c", 20)):
        entries = sealed(writer, drafts(start, start + 3))
        store.record(writer, entries if writer == "b" else [entries[0], entries[2]])

    verdict = History(store, NoSpool()).verify()

    assert [broken["writer"] for broken in verdict.broken] == ["a", "c"]
    assert verdict.writers == 3


class MovingSpool(NoSpool):
    """A spool whose first entries move into the store while somebody reads the rest."""

    def __init__(self, store: MemoryStore, entries: list[Sealed], moves: int) -> None:
        self._store = store
        self._waiting = entries
        self._moves = moves

    def writers(self) -> list[str]:
        return ["w"]

    def find(self, prediction_id: str) -> Stored | None:
        self._move(len(self._waiting))
        return None

    def after(self, writer: str, seq: int) -> Iterator[Sealed]:
        self._move(self._moves)
        yield from [entry for entry in self._waiting if entry.seq > seq]

    def _move(self, count: int) -> None:
        moving, self._waiting = self._waiting[:count], self._waiting[count:]
        self._store.record("w", moving)


@pytest.mark.parametrize("stored", [0, 4])
@pytest.mark.parametrize("moves", [0, 1, 3, 20])
def test_entries_that_move_while_they_are_read_are_read_once_and_in_order(stored: int, moves: int) -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 20))
    store.record("w", entries[:stored])
    history = History(store, MovingSpool(store, entries[stored:], moves))

    assert [entry for _, entry in history.entries()] == entries
    assert history.verify().broken == []


def test_an_entry_that_moves_while_it_is_looked_for_is_found() -> None:
    store = MemoryStore()
    history = History(store, MovingSpool(store, sealed("w", drafts(0, 3)), 0))

    assert history.get(identifier(1)) is not None


class FailingSpool(NoSpool):
    """A spool that fails as it is told to, then works."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.drained = 0

    def drain(self, store: StoreWriter) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.drained += 1
        return 0


def test_the_indexer_goes_on_after_every_failure_and_says_each() -> None:
    spool = FailingSpool([Unavailable("the store is away"), HistoryError("a journal is damaged")])
    waits, said = iter([False, False, False, True]), []

    index(spool, MemoryStore(), lambda seconds: next(waits), said.append)

    assert said == ["the store is away", "a journal is damaged"]
    assert spool.drained == 2


def test_the_indexer_drains_once_more_when_it_is_told_to_end() -> None:
    spool = FailingSpool([])

    index(spool, MemoryStore(), lambda seconds: True, [].append)

    assert spool.drained == 1


def test_an_entry_is_shown_with_the_bytes_that_were_sent_and_received() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", [draft(0, row=b'{"x" : 1.50}')]))

    found = History(store, NoSpool()).get(identifier(0))

    assert found is not None
    assert b'"row":{"x" : 1.50}' in msgspec.json.encode(found)
    assert msgspec.json.decode(found.prediction)["id"] == found.id == identifier(0)
