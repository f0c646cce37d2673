"""What a server process looks at every second: disk, journal, head."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.memory.journal import EmptyJournalReader, MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import Unavailable
from rowcast.history.commit_waiter import CommitWaiter
from rowcast.history.ports import Position
from rowcast.history.replay import replay
from rowcast.history.service import History
from rowcast.runtime.journal_monitor import MEBIBYTE, JournalMonitor
from rowcast.schema.schema import Column, Schema
from rowcast.schema.sensitive import Redactor
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from support import models
from support.entries import drafts, sealed
from support.serving import Serving

SCHEMA = models.number_columns(2)
BODY = b'{"x0":1,"x1":2}'


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    return models.live(tmp_path / "models", "m", models.sum_graph(2), SCHEMA, models.REGRESSION, "values")


class Times:
    """A clock that is set, and a disk that is filled, by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.free = 500 * MEBIBYTE


def monitoring(
    tmp_path: Path, hold: Callable[[str | None], None], times: Times, names: list[str]
) -> tuple[JournalMonitor, FileJournal]:
    journal = FileJournal(tmp_path / "journal", lambda: names.pop(0))
    return JournalMonitor(journal, hold, lambda: times.free, 200 * MEBIBYTE, lambda: times.now), journal


def heads(logs: list[structlog.typing.EventDict]) -> list[tuple[str, int]]:
    return [(line["writer"], line["seq"]) for line in logs if line["event"] == "head"]


async def test_a_server_refuses_while_the_disk_is_low_and_recovers_by_itself(tmp_path: Path, model: LiveModel) -> None:
    store, times = MemoryStore(), Times()
    serving = Serving(MemoryJournal(store, "w"))
    monitor, _ = monitoring(tmp_path, serving.batcher.refuse, times, ["w"])
    row = Row(model.encoder.read(BODY), BODY)
    monitor.check()
    await serving.predict(model, row)

    times.free = 199 * MEBIBYTE
    with structlog.testing.capture_logs() as logs:
        monitor.check()
        monitor.check()
    with pytest.raises(Unavailable, match=r"199 MiB left, less than min_free_mb=200") as refused:
        serving.predict(model, row)

    assert refused.value.slug == "disk-low"
    assert [line["event"] for line in logs] == ["predictions are refused"]
    assert monitor.disk_problem() is not None
    times.free = 200 * MEBIBYTE
    monitor.check()
    await serving.predict(model, row)
    assert store.count() == 2


def test_the_head_is_published_every_minute_when_it_moved(tmp_path: Path) -> None:
    times = Times()
    monitor, journal = monitoring(tmp_path, lambda reason: None, times, ["w"])
    with structlog.testing.capture_logs() as logs:
        for minute in range(4):
            if minute < 2:
                journal.append(drafts(minute * 3, minute * 3 + 3))
            for _ in range(60):
                times.now += 1
                monitor.check()

    assert heads(logs) == [("w", 2), ("w", 5)]
    assert logs[0]["link"] == sealed("w", drafts(0, 3))[-1].link.hex()
    journal.close()


async def test_the_last_head_is_published_at_the_end_and_when_a_writer_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times()
    monitor, journal = monitoring(tmp_path, lambda reason: None, times, ["first", "second"])
    with structlog.testing.capture_logs() as logs:
        journal.append(drafts(0, 2))
        await monitor.start()
        monkeypatch.setattr(os, "pwrite", lambda *_: 0)
        with pytest.raises(Unavailable):
            journal.append(drafts(2, 3))
        monkeypatch.undo()
        journal.append(drafts(3, 4))
        monitor.check()
        assert heads(logs) == [("first", 1)]
        await monitor.stop()

    assert heads(logs) == [("first", 1), ("second", 0)]
    journal.close()


async def test_with_durability_store_an_answer_waits_for_the_store(model: LiveModel) -> None:
    kept, stored = MemoryStore(), {"seq": -1}
    until = CommitWaiter(lambda writer: Position(stored["seq"], b""))
    serving = Serving(MemoryJournal(kept, "w"), commits=until)
    row = Row(model.encoder.read(BODY), BODY)

    first = serving.predict(model, row)
    await asyncio.sleep(0.05)
    assert (first.done(), kept.count()) == (False, 1)
    second = serving.predict_all(model, [row, row])
    stored["seq"] = 0
    await asyncio.wait_for(first, 5)
    assert not second.done()
    stored["seq"] = 2

    assert len(await asyncio.wait_for(second, 5)) == 2


async def test_a_store_that_does_not_come_is_an_error_that_says_what_is_kept(model: LiveModel) -> None:
    kept = MemoryStore()

    def away(writer: str) -> Position | None:
        raise Unavailable("the store is away")

    until = CommitWaiter(away, timeout=0.05)
    serving = Serving(MemoryJournal(kept, "w"), commits=until)
    gone = serving.predict(model, Row(model.encoder.read(BODY), BODY), "gone")
    gone.cancel()
    asked = serving.predict(model, Row(model.encoder.read(BODY), BODY))

    with pytest.raises(Unavailable) as refused:
        await asyncio.wait_for(asked, 5)

    assert refused.value.slug == "not-stored"
    assert kept.count() == 1


async def test_a_clock_that_jumps_back_costs_no_entry(model: LiveModel) -> None:
    store, hours = MemoryStore(), [10, 11, 5, 5, 12, 0]
    clock = iter([1_700_000_000_000_000_000 + hour * 3_600_000_000_000 for hour in hours])
    serving = Serving(MemoryJournal(store, "w"), now=lambda: next(clock))
    for _ in hours:
        await serving.predict(model, Row(model.encoder.read(BODY), BODY))
    history = History(store, EmptyJournalReader())

    paged = []
    cursor = None
    while True:
        page = history.page(2, cursor=cursor)
        paged += [entry.at for entry in page.predictions]
        if (cursor := page.next) is None:
            break

    assert history.verify().broken == []
    assert len(paged) == 6
    assert paged == sorted(paged, reverse=True)


SENSITIVE = Schema(
    (
        Column(name="x0", kind="number", example=1.0, sensitive=True),
        Column(name="x1", kind="number", example=1.0, missing=True, sensitive=True),
        Column(name="x2", kind="number", example=1.0),
    )
)
PRIVATE = b'{"x2": 3.50, "x0" : 41, "x1":7}'


async def test_sensitive_columns_are_hashed_or_dropped_before_a_row_is_kept(tmp_path: Path) -> None:
    model = models.live(tmp_path, "m", models.sum_graph(3), SENSITIVE, models.REGRESSION, "values")
    rows = {}
    for how, key in (("hash", b"k" * 32), ("drop", b""), ("hash", b"other" * 8)):
        store = MemoryStore()
        redactor = Redactor(how, key)  # type: ignore[arg-type]
        serving = Serving(MemoryJournal(store, "w"), redactor=redactor)
        for body in (PRIVATE, PRIVATE.replace(b"41", b"41.0"), PRIVATE.replace(b"41", b"42")):
            await serving.predict(model, Row(model.encoder.read(body), body))
        history = History(store, EmptyJournalReader())
        entries = sorted(history.select(), key=lambda entry: entry.seq)
        rows[how, key] = [bytes(entry.row) for entry in entries]  # type: ignore[arg-type]
        replayed = replay(history, lambda *bundle: pytest.fail("no entry can be replayed"))

        assert {entry.withheld for entry in entries} == {("x0", "x1")}
        assert not any(b"41" in row or b"42" in row for row in rows[how, key] if how == "drop")
        assert (replayed.not_replayable, history.verify().broken) == (3, [])
        assert "x0, x1: hashed or dropped" in replayed.examples[0]["reason"]

    first, same, other = rows["hash", b"k" * 32]
    assert rows["drop", b""] == [b'{"x2":3.50}'] * 3
    assert first == same != other
    assert re.fullmatch(rb'{"x2":3\.50,"x0":"rs1-[0-9a-f]{64}","x1":"rs1-[0-9a-f]{64}"}', first)
    assert rows["hash", b"other" * 8][0] != first
