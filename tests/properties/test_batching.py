"""Batching: a row gets the same reply in a batch as on its own, regardless of other callers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import Overloaded, TooLate, Unavailable
from rowcast.events import Event, RowsScored
from rowcast.history import chain
from rowcast.history.chain import Draft, decode_head
from rowcast.registry.ports import Reference
from rowcast.schema.prediction import Prediction, Score
from rowcast.serving.live_models import LiveModel, load
from rowcast.serving.rows import Row
from support import models
from support.serving import Serving
from support.waiting import eventually_async

SCHEMA = models.number_columns(5)
ROWS = 40


class UnreliableJournal:
    """A journal that can be made to fail, as if the disk were full."""

    def __init__(self, store: MemoryStore) -> None:
        self._inner = MemoryJournal(store, "w")
        self.writer = self._inner.writer
        self.failing = False
        self.appends = 0

    def append(self, drafts: Sequence[Draft]) -> None:
        self.appends += 1
        if self.failing:
            raise Unavailable("the journal cannot be written")
        self._inner.append(drafts)

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class Rig:
    """Two models, rows for each model, and the score of each row when it is scored on its own."""

    live: tuple[LiveModel, LiveModel]
    rows: list[list[Row]]
    alone: list[list[Score]]


@pytest.fixture(scope="module", params=["", "linear", "linear and mlp"], ids=["quick", "one slow", "both slow"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("rig")
    linear = models.live(folder, "linear", models.regressor_graph(5, 1), SCHEMA, models.REGRESSION, "values")
    mlp = models.live(folder, "mlp", models.mlp_graph(5, 3), SCHEMA, models.classes("a", "b", "c"), "probabilities")
    for model in (linear, mlp):
        model.is_slow = model.name in request.param
    bodies = [msgspec.json.encode(row) for row in models.random_rows(SCHEMA, ROWS)]
    rows = [[Row(model.encoder.read(body), body) for body in bodies] for model in (linear, mlp)]
    alone = [[model.score([row.encoded])[0] for row in each] for model, each in zip((linear, mlp), rows, strict=True)]
    return Rig((linear, mlp), rows, alone)


@dataclass
class Call:
    model: int
    rows: list[int]
    single: bool
    future: asyncio.Future[Any]
    request_id: str


@dataclass
class World:
    """A predictor with an unreliable journal, and all calls to the predictor."""

    rig: Rig
    store: MemoryStore = field(default_factory=MemoryStore)
    events: list[Event] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal = UnreliableJournal(self.store)
        self.serving = Serving(self.journal, self.events.append)

    def ask(self, model: int, rows: list[int], *, single: bool) -> None:
        request_id = f"r{len(self.calls)}"
        live = self.rig.live[model]
        rows_of_model = [self.rig.rows[model][row] for row in rows]
        future = (
            self.serving.predict(live, rows_of_model[0], request_id)
            if single
            else self.serving.predict_all(live, rows_of_model, request_id)
        )
        self.calls.append(Call(model, rows, single, future, request_id))

    def recorded(self) -> dict[str, tuple[str, bytes, bytes | None]]:
        """Return the request ID, the reply and the row for each prediction ID in the journal."""
        entries = {}
        for sealed in self.store.chain("w"):
            entry = decode_head(sealed.head)
            entries[msgspec.json.decode(entry.reply)["id"]] = (entry.request_id, entry.reply, sealed.row)
        return entries


async def play(world: World, script: list[tuple[Any, ...]]) -> None:
    """Run the script, then wait until all calls have finished."""
    for step in script:
        match step:
            case ("one", model, row):
                world.ask(model, [row], single=True)
            case ("many", model, rows):
                world.ask(model, rows, single=False)
            case ("cancel", which) if world.calls:
                world.calls[which % len(world.calls)].future.cancel()
            case ("turn", turns):
                for _ in range(turns):
                    await asyncio.sleep(0)
            case ("rest",):
                await asyncio.wait([call.future for call in world.calls], timeout=3)
            case ("journal", failing):
                world.journal.failing = failing
    await asyncio.wait_for(asyncio.gather(*[call.future for call in world.calls], return_exceptions=True), 3)


STEPS = st.one_of(
    st.tuples(st.just("one"), st.integers(0, 1), st.integers(0, ROWS - 1)),
    st.tuples(st.just("many"), st.integers(0, 1), st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=70)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("journal"), st.booleans()),
)


def score_of(reply: bytes) -> Score:
    prediction = msgspec.json.decode(reply, type=Prediction)
    return Score(prediction.prediction, prediction.probability, prediction.score, prediction.probabilities)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_gets_the_same_score_on_its_own_and_in_any_batch(rig: Rig, script: list[tuple[Any, ...]]) -> None:
    world = World(rig)

    asyncio.run(play(world, script))

    recorded = world.recorded()
    answered: set[str] = set()
    for call in world.calls:
        assert call.future.done()
        if call.future.cancelled():
            continue
        if (error := call.future.exception()) is not None:
            assert isinstance(error, Unavailable)
            continue
        replies = [call.future.result()] if call.single else call.future.result()
        assert [score_of(reply) for reply in replies] == [rig.alone[call.model][row] for row in call.rows]
        for reply, row in zip(replies, call.rows, strict=True):
            prediction_id = msgspec.json.decode(reply)["id"]
            assert prediction_id not in answered
            answered.add(prediction_id)
            assert recorded[prediction_id] == (call.request_id, reply, rig.rows[call.model][row].received)
    cancelled = {call.request_id for call in world.calls if call.future.cancelled()}
    assert {recorded[unanswered][0] for unanswered in recorded.keys() - answered} <= cancelled
    assert list(chain.verify("w", world.store.chain("w"))) == []
    assert sum(event.rows for event in world.events if isinstance(event, RowsScored)) == len(recorded)


def test_rows_of_one_batch_are_recorded_in_one_write(rig: Rig) -> None:
    world = World(rig)

    asyncio.run(play(world, [("one", 0, row) for row in range(20)] + [("many", 0, [1, 2, 3])]))

    assert world.journal.appends == 1
    assert len(world.recorded()) == 23


class Gated(LiveModel):
    """A slow model whose thread waits until the test opens a gate."""

    def __init__(self, like: LiveModel) -> None:
        super().__init__(Reference("gated", 1), like.manifest, open_graph(models.regressor_graph(5, 1), "out"))
        self.is_slow = True
        self.gate = threading.Event()
        self.batches: list[int] = []

    async def is_scoring(self) -> bool:
        return bool(self.batches)

    def score(self, rows: Any) -> Any:
        self.batches.append(len(rows))
        assert self.gate.wait(10)
        return super().score(rows)


def test_a_slow_model_does_not_delay_other_models_and_scores_all_waiting_rows_in_one_batch(rig: Rig) -> None:
    world, slow, quick = World(rig), Gated(rig.live[0]), rig.live[1]

    async def ask() -> list[bytes]:
        futures = [world.serving.predict(slow, rig.rows[0][0], "first")]
        await eventually_async(slow.is_scoring)
        futures += [world.serving.predict(slow, rig.rows[0][row], f"r{row}") for row in range(1, 6)]
        futures[2].cancel()
        other = await asyncio.wait_for(world.serving.predict(quick, rig.rows[1][3], "quick"), 3)
        assert score_of(other) == rig.alone[1][3]
        assert not any(future.done() for future in futures if not future.cancelled())
        slow.gate.set()
        return list(await asyncio.gather(*[future for future in futures if not future.cancelled()]))

    replies = asyncio.run(ask())

    assert [score_of(reply) for reply in replies] == [rig.alone[0][row] for row in (0, 1, 3, 4, 5)]
    assert slow.batches == [1, 4]
    assert [entry[0] for entry in world.recorded().values()] == ["quick", "first", "r1", "r3", "r4", "r5"]


def test_the_queue_reports_waiting_rows_and_the_longest_wait(rig: Rig) -> None:
    world, slow, quick = World(rig), Gated(rig.live[0]), rig.live[1]
    queue = world.serving.queue

    async def ask() -> list[tuple[int, bool]]:
        seen = [(queue().rows, queue().seconds > 0)]
        first = world.serving.predict_all(slow, rig.rows[0][:3], "first")
        seen.append((queue().rows, queue().seconds > 0))
        await eventually_async(slow.is_scoring)
        at_work = queue().seconds
        later = world.serving.predict(slow, rig.rows[0][3], "later")
        gone = world.serving.predict(slow, rig.rows[0][4], "gone")
        gone.cancel()
        await world.serving.predict(quick, rig.rows[1][3], "quick")
        seen.append((queue().rows, queue().seconds > at_work))
        slow.gate.set()
        await asyncio.gather(first, later)
        seen.append((queue().rows, queue().seconds > 0))
        return seen

    assert asyncio.run(ask()) == [(0, False), (3, True), (4, True), (0, False)]


def test_a_call_canceled_during_scoring_is_not_recorded_and_leaves_the_queue(rig: Rig) -> None:
    world, slow = World(rig), Gated(rig.live[0])
    serving = Serving(world.journal, world.events.append, max_waiting=3)

    async def ask() -> bytes:
        gone = serving.predict_all(slow, rig.rows[0][:2], "gone")
        stays = serving.predict(slow, rig.rows[0][2], "stays")
        await eventually_async(slow.is_scoring)
        with pytest.raises(Overloaded):
            serving.predict(slow, rig.rows[0][3], "refused")
        gone.cancel()
        slow.gate.set()
        assert score_of(await stays) == rig.alone[0][2]
        return await serving.predict(slow, rig.rows[0][3], "later")

    assert score_of(asyncio.run(ask())) == rig.alone[0][3]
    assert [entry[0] for entry in world.recorded().values()] == ["stays", "later"]


def test_a_call_that_expires_in_the_queue_fails_immediately_and_leaves_the_queue(rig: Rig) -> None:
    world, slow = World(rig), Gated(rig.live[0])
    serving = Serving(world.journal, world.events.append, max_waiting=4)

    async def ask() -> list[bytes]:
        deadline = time.perf_counter() + 0.05
        first = serving.predict(slow, rig.rows[0][0], "scored", deadline=deadline)
        await eventually_async(slow.is_scoring)
        hasty = serving.predict_all(slow, rig.rows[0][1:3], "hasty", deadline=deadline)
        patient = serving.predict(slow, rig.rows[0][3], "patient", deadline=deadline + 60)
        with pytest.raises(TooLate):  # even though the gate is still closed
            await asyncio.wait_for(hasty, 3)
        assert not first.done()
        last = serving.predict_all(slow, rig.rows[0][4:6], "last")
        slow.gate.set()
        return [await first, await patient, *await last]

    replies = asyncio.run(ask())

    assert [score_of(reply) for reply in replies] == [rig.alone[0][row] for row in (0, 3, 4, 5)]
    assert slow.batches == [1, 3]
    assert [entry[0] for entry in world.recorded().values()] == ["scored", "patient", "last", "last"]


def test_a_call_canceled_before_scoring_is_not_scored(rig: Rig) -> None:
    world = World(rig)

    asyncio.run(play(world, [("one", 0, 1), ("one", 0, 2), ("cancel", 0), ("turn", 3)]))

    assert [request_id for request_id, _, _ in world.recorded().values()] == ["r1"]


def test_a_failed_write_affects_only_the_calls_in_its_batch(rig: Rig) -> None:
    world = World(rig)
    script = [("journal", True), ("one", 0, 1), ("many", 0, [2, 3]), ("rest",), ("journal", False), ("one", 0, 4)]

    asyncio.run(play(world, script))

    first, second, third = (call.future for call in world.calls)
    assert isinstance(first.exception(), Unavailable)
    assert isinstance(second.exception(), Unavailable)
    assert score_of(third.result()) == rig.alone[0][4]
    assert [entry[0] for entry in world.recorded().values()] == ["r2"]


def test_a_failing_model_affects_only_its_own_calls(rig: Rig) -> None:
    class Broken(LiveModel):
        def score(self, rows: Any) -> Any:
            raise RuntimeError("the graph has no such node")

    world = World(rig)
    sound = rig.live[0]
    broken = Broken(Reference("broken", 1), sound.manifest, open_graph(models.linear_graph(5, 1), "out"))

    async def ask() -> list[Any]:
        futures = [world.serving.predict(model, rig.rows[0][row]) for row in range(4) for model in (sound, broken)]
        return await asyncio.gather(*futures, return_exceptions=True)

    answers = asyncio.run(ask())

    assert [score_of(reply) for reply in answers[::2]] == rig.alone[0][:4]
    assert all(isinstance(error, RuntimeError) for error in answers[1::2])


def test_rows_beyond_the_queue_limit_are_rejected_and_waiting_rows_are_answered(rig: Rig) -> None:
    world = World(rig)
    serving = Serving(world.journal, world.events.append, max_waiting=10)

    async def ask() -> bytes:
        first = serving.predict_all(rig.live[0], rig.rows[0][:9], "r")
        second = serving.predict(rig.live[0], rig.rows[0][9], "r")
        with pytest.raises(Overloaded):
            serving.predict(rig.live[0], rig.rows[0][10], "r")
        await first
        await second
        return await serving.predict(rig.live[0], rig.rows[0][10], "r")

    assert score_of(asyncio.run(ask())) == rig.alone[0][10]


def test_concurrent_callers_get_their_own_replies_even_if_other_callers_are_canceled(rig: Rig) -> None:
    """A web server cancels a waiting task when the client disconnects."""
    world = World(rig)

    async def caller(number: int) -> Score | None:
        model, row = number % 2, number % ROWS
        for _ in range(number % 3):
            await asyncio.sleep(0)
        reply = await world.serving.predict(rig.live[model], rig.rows[model][row], str(number))
        return score_of(reply)

    async def all_callers() -> list[Any]:
        tasks = [asyncio.create_task(caller(number)) for number in range(200)]
        for turn in range(6):
            await asyncio.sleep(0)
            for task in tasks[turn::7]:
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(all_callers())

    served = [(number, answer) for number, answer in enumerate(answers) if isinstance(answer, Score)]
    assert len(served) >= 200 // 7
    assert all(answer == rig.alone[number % 2][number % ROWS] for number, answer in served)
    assert all(isinstance(answer, Score | asyncio.CancelledError) for answer in answers)


def every_model(folder: Path, loans: Path) -> Iterator[tuple[LiveModel, list[dict[str, Any]]]]:
    wide = models.number_columns(11)
    graphs = [
        ("regressor", models.regressor_graph(11, 1), models.REGRESSION, "values"),
        ("linear", models.linear_graph(11, 1), models.REGRESSION, "values"),
        ("linear2", models.linear_graph(11, 3), models.classes(1, 2, 3), "probabilities"),
        ("mlp", models.mlp_graph(11, 3), models.classes("a", "b", "c"), "probabilities"),
        ("mlp2", models.mlp_graph(11, 2, seed=3, width=128), models.classes(False, True), "probabilities"),
    ]
    for name, graph, decision, kind in graphs:
        yield models.live(folder, name, graph, wide, decision, kind), models.random_rows(wide, 130)
    yield load(Reference("loans", 1), FolderRegistry(loans), open_graph), models.loan_rows(130)


def test_scores_do_not_depend_on_the_batch_size(tmp_path: Path, loan_registry: Path) -> None:
    for model, rows in every_model(tmp_path, loan_registry):
        encoded = [model.encoder.parse(row) for row in rows]
        alone = [model.score([row])[0] for row in encoded]

        for size in range(1, 131):
            assert model.score(encoded[:size]) == alone[:size], f"{model.name}, {size} rows"
            assert model.score(encoded[-size:]) == alone[-size:], f"{model.name}, the last {size} rows"
