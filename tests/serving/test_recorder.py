"""The recorder: what it records about each prediction before the reply is sent."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rowcast.access.callers import Caller
from rowcast.access.context import RequestContext
from rowcast.adapters.memory.journal import EmptyJournalReader, MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.events import Event, RowsScored
from rowcast.history.blocks import Block, BlockColumn
from rowcast.history.chain import SALT_BYTES, decode_head
from rowcast.history.replay import replay
from rowcast.history.service import History
from rowcast.schema.prediction import Score
from rowcast.schema.schema import Column, Schema
from rowcast.schema.sensitive import Redactor
from rowcast.serving.live_models import LiveModel
from rowcast.serving.recorder import Recorder
from rowcast.serving.rows import Row
from support import models
from support.serving import Serving

BODY = b'{"x0":1,"x1":2}'


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    schema = models.number_columns(2)
    return models.live(tmp_path / "models", "m", models.sum_graph(2), schema, models.REGRESSION, "values")


def test_an_entry_contains_the_reply_the_row_and_the_context(model: LiveModel) -> None:
    store, events = MemoryStore(), list[Event]()
    recorder = Recorder(MemoryJournal(store, "w"), events.append, now=lambda: 1_700_000_000_123_456_789)
    context = RequestContext("v2", "r1", Caller("k1", "acme"), "order 7")
    rows = [Row(model.encoder.read(BODY), BODY)] * 2

    replies = recorder.record(model, rows, [context, RequestContext("native", "r2")], [Score(3.0), Score(4.0)])

    sealed = list(store.chain("w"))
    first, second = (decode_head(entry.head) for entry in sealed)
    assert [entry.row for entry in sealed] == [BODY, BODY]
    assert [first.reply, second.reply] == replies
    assert (first.at, first.digest, first.source, first.request_id) == (
        1_700_000_000_123_456,
        model.digest,
        "v2",
        "r1",
    )
    assert (first.key_id, first.tenant, first.entity, first.withheld) == ("k1", "acme", "order 7", ())
    assert (second.source, second.request_id, second.key_id) == ("native", "r2", "")
    ids = [msgspec.json.decode(reply)["id"] for reply in replies]
    assert ids[0] != ids[1]
    assert [int(uuid.replace("-", "")[:12], 16) for uuid in ids] == [1_700_000_000_123] * 2
    assert [len(entry.salt) for entry in sealed] == [SALT_BYTES] * 2
    assert sealed[0].salt != sealed[1].salt
    assert events == []


def test_recorded_rows_are_announced(model: LiveModel) -> None:
    events: list[Event] = []
    recorder = Recorder(MemoryJournal(MemoryStore(), "w"), events.append)
    rows = [Row(model.encoder.read(BODY), BODY)] * 2

    recorder.announce(model, rows, [Score(3.0), Score(4.0)])

    assert events == [RowsScored("m", 1, 2, [], 4.0)]


def test_cache_hits_and_misses_are_counted_if_there_is_a_cache(model: LiveModel) -> None:
    events: list[Event] = []
    recorder = Recorder(MemoryJournal(MemoryStore(), "w"), events.append, counts_cache_hits=True)
    row = Row(model.encoder.read(BODY), BODY)
    rows = [
        row,
        msgspec.structs.replace(row, cache_key="a"),
        msgspec.structs.replace(row, cache_key="b", cached_score=Score(3.0)),
    ]

    replies = recorder.record(model, rows, [RequestContext("native", "r")] * 3, [Score(3.0)] * 3)
    recorder.announce(model, rows, [Score(3.0)] * 3)

    assert [msgspec.json.decode(reply)["cached"] for reply in replies] == [False, False, True]
    (event,) = events
    assert isinstance(event, RowsScored)
    assert (event.hits, event.misses) == (1, 1)


def test_rows_are_not_recorded_as_blocks_if_replies_wait_for_commits(model: LiveModel) -> None:
    journal = MemoryJournal(MemoryStore(), "w")

    assert Recorder(journal, lambda event: None).can_record_blocks(model)
    assert Recorder(journal, lambda event: None, redactor=Redactor("drop", b"")).can_record_blocks(model)
    waiting = Recorder(journal, lambda event: None, commits=object())  # type: ignore[arg-type]
    assert not waiting.can_record_blocks(model)


async def test_no_entry_is_lost_if_the_clock_is_set_back(model: LiveModel) -> None:
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


async def test_sensitive_columns_are_hashed_or_dropped_before_a_row_is_recorded(tmp_path: Path) -> None:
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
        assert "x0, x1" in replayed.examples[0]["reason"]

    first, same, other = rows["hash", b"k" * 32]
    assert rows["drop", b""] == [b'{"x2":3.50}'] * 3
    assert first == same != other
    assert re.fullmatch(rb'{"x2":3\.50,"x0":"rs1-[0-9a-f]{64}","x1":"rs1-[0-9a-f]{64}"}', first)
    assert rows["hash", b"other" * 8][0] != first


def test_rows_with_sensitive_columns_are_not_recorded_as_blocks(tmp_path: Path) -> None:
    model = models.live(tmp_path, "m", models.sum_graph(3), SENSITIVE, models.REGRESSION, "values")
    recorder = Recorder(MemoryJournal(MemoryStore(), "w"), lambda event: None, redactor=Redactor("drop", b""))

    assert not recorder.can_record_blocks(model)


class BlockJournal(MemoryJournal):
    """A journal that collects the blocks in a list."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "w")
        self.blocks: list[Block] = []

    def append_block(self, block: Block) -> None:
        self.blocks.append(block)


def test_a_block_contains_the_output_the_columns_and_the_context(model: LiveModel) -> None:
    journal, events = BlockJournal(), list[Event]()
    recorder = Recorder(journal, events.append, now=lambda: 1_700_000_000_123_456_789)
    context = RequestContext("v2", "r1", Caller("k1", "acme"), "order 7")
    columns = [BlockColumn("x0", "FP64", 16), BlockColumn("x1", "FP64", 16)]

    block = recorder.record_block(model, np.array([[3.0], [4.5]], np.float64), columns, b"cells", context)
    recorder.record_block(model, np.array([[3.0], [4.5]], np.float32), columns, b"cells", context)

    assert [msgspec.structs.replace(kept, seed=block.seed) for kept in journal.blocks] == [block, block]
    assert len({kept.seed for kept in journal.blocks}) == 2
    assert {len(kept.seed) for kept in journal.blocks} == {32}
    assert block == Block(
        at=1_700_000_000_123_456_789,
        digest=model.digest,
        source="v2",
        request_id="r1",
        key_id="k1",
        tenant="acme",
        entity="order 7",
        model="m",
        version=1,
        decision=model.decision,
        rows=2,
        columns=tuple(columns),
        body=b"cells",
        output=np.array([3.0, 4.5], "<f4").tobytes(),
        seed=block.seed,
    )
    assert events == [RowsScored("m", 1, 2, {}, 4.5)] * 2


def test_cached_rows_are_not_reported_as_cached_if_hits_are_not_counted(model: LiveModel) -> None:
    events: list[Event] = []
    recorder = Recorder(MemoryJournal(MemoryStore(), "w"), events.append)
    row = Row(model.encoder.read(BODY), BODY, cache_key="a", cached_score=Score(3.0))

    (reply,) = recorder.record(model, [row], [RequestContext("native", "r")], [Score(3.0)])
    recorder.announce(model, [row], [Score(3.0)])

    assert msgspec.json.decode(reply)["cached"] is False
    assert events == [RowsScored("m", 1, 1, [], 3.0, 0, 0)]


def test_the_predicted_classes_are_announced(tmp_path: Path) -> None:
    labels = models.classes("a", "b", "c")
    schema, graph = models.number_columns(2), models.mlp_graph(2, 3)
    classifier = models.live(tmp_path, "c", graph, schema, labels, "probabilities")
    events: list[Event] = []
    recorder = Recorder(MemoryJournal(MemoryStore(), "w"), events.append)
    rows = [Row(classifier.encoder.read(BODY), BODY)] * 2

    recorder.announce(classifier, rows, [Score("b"), Score("c")])

    assert events == [RowsScored("c", 1, 2, ["b", "c"], 2.0)]
