"""The journal monitor: it checks the free disk space and publishes chain heads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import Unavailable
from rowcast.runtime.journal_monitor import MEBIBYTE, JournalMonitor
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
    """The time and the free disk space, both set by the test."""

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


def test_an_indexer_that_makes_no_progress_is_reported(tmp_path: Path) -> None:
    times, store = Times(), MemoryStore()
    monitor, journal = monitoring(tmp_path, lambda reason: None, times, ["w"])
    recorded = sealed("w", drafts(0, 3))
    assert monitor.indexer_problem(store.position) is None

    for number in range(12):
        if number < 3:
            journal.append(drafts(number, number + 1))
        times.now = 10.0 * number
        monitor.check()
        problem = monitor.indexer_problem(store.position)
        assert (problem is not None) == (number >= 6), number

    store.record("w", recorded[:2])
    assert monitor.indexer_problem(store.position) is not None
    store.record("w", recorded[2:])
    assert monitor.indexer_problem(store.position) is None
    journal.close()


async def test_predictions_are_rejected_only_while_disk_space_is_low(tmp_path: Path, model: LiveModel) -> None:
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


def test_the_head_is_published_every_minute_if_it_has_changed(tmp_path: Path) -> None:
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


async def test_the_final_head_of_a_writer_is_published_when_the_writer_fails_and_at_shutdown(
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
