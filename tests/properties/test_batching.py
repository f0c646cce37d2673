"""Batching: whoever else asks in the same tick, gives up or fails, an answer is the one that the row gets alone."""

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
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import Deployment, LiveModel, load
from rowcast.serving.rows import Row
from rowcast.serving.waiting import Ask
from support import models
from support.waiting import eventually_async

SCHEMA = models.number_columns(5)
ROWS = 40


class MoodyJournal:
    """A journal that keeps nothing when it is told so, as a full disk would."""

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
    """Two models, the rows they can be asked about, and what each row gets alone."""

    live: tuple[LiveModel, LiveModel]
    rows: list[list[Row]]
    alone: list[list[Score]]


@pytest.fixture(scope="module", params=["", "linear", "linear and mlp"], ids=["quick", "one slow", "both slow"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("rig")
    linear = models.live(folder, "linear", models.regressor_graph(5, 1), SCHEMA, models.REGRESSION, "values")
    mlp = models.live(folder, "mlp", models.mlp_graph(5, 3), SCHEMA, models.classes("a", "b", "c"), "probabilities")
    for model in (linear, mlp):
        model.slow = model.name in request.param
    bodies = [msgspec.json.encode(row) for row in models.random_rows(SCHEMA, ROWS)]
    rows = [[Row(model.encoder.read(body), body) for body in bodies] for model in (linear, mlp)]
    alone = [[model.score([row.encoded])[0] for row in asked] for model, asked in zip((linear, mlp), rows, strict=True)]
    return Rig((linear, mlp), rows, alone)


@dataclass
class Asked:
    """One call of the predictor and what it stands for."""

    model: int
    rows: list[int]
    single: bool
    future: asyncio.Future[Any]
    request_id: str


@dataclass
class World:
    """A predictor with a moody journal, and everything that was asked of it."""

    rig: Rig
    store: MemoryStore = field(default_factory=MemoryStore)
    events: list[Event] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal = MoodyJournal(self.store)
        deployment = Deployment({model.name: model for model in self.rig.live})
        self.predictor = Predictor(deployment, self.journal, self.events.append)

    def ask(self, model: int, rows: list[int], *, single: bool) -> None:
        request_id = f"r{len(self.asked)}"
        ask, live = Ask("test", request_id), self.rig.live[model]
        given = [self.rig.rows[model][row] for row in rows]
        future = self.predictor.predict(live, given[0], ask) if single else self.predictor.predict_all(live, given, ask)
        self.asked.append(Asked(model, rows, single, future, request_id))

    def kept(self) -> dict[str, tuple[str, bytes, bytes | None]]:
        """Prediction id to request id, reply and row, out of the journal."""
        found = {}
        for sealed in self.store.chain("w"):
            entry = decode_head(sealed.head)
            found[msgspec.json.decode(entry.reply)["id"]] = (entry.request_id, entry.reply, sealed.row)
        return found


async def play(world: World, script: list[tuple[Any, ...]]) -> None:
    """Do what the script says, then wait until nobody waits."""
    for step in script:
        match step:
            case ("one", model, row):
                world.ask(model, [row], single=True)
            case ("many", model, rows):
                world.ask(model, rows, single=False)
            case ("cancel", which) if world.asked:
                world.asked[which % len(world.asked)].future.cancel()
            case ("turn", turns):
                for _ in range(turns):
                    await asyncio.sleep(0)
            case ("rest",):
                await asyncio.wait([asked.future for asked in world.asked], timeout=3)
            case ("mood", failing):
                world.journal.failing = failing
    await asyncio.wait_for(asyncio.gather(*[asked.future for asked in world.asked], return_exceptions=True), 3)


STEPS = st.one_of(
    st.tuples(st.just("one"), st.integers(0, 1), st.integers(0, ROWS - 1)),
    st.tuples(st.just("many"), st.integers(0, 1), st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=70)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("mood"), st.booleans()),
)


def outcome(reply: bytes) -> Score:
    found = msgspec.json.decode(reply, type=Prediction)
    return Score(found.prediction, found.probability, found.score, found.probabilities)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_asks_beside_it_a_row_gets_the_answer_it_gets_alone(rig: Rig, script: list[tuple[Any, ...]]) -> None:
    world = World(rig)

    asyncio.run(play(world, script))

    kept = world.kept()
    answered: set[str] = set()
    for asked in world.asked:
        assert asked.future.done()
        if asked.future.cancelled():
            continue
        if (error := asked.future.exception()) is not None:
            assert isinstance(error, Unavailable)
            continue
        replies = [asked.future.result()] if asked.single else asked.future.result()
        assert [outcome(reply) for reply in replies] == [rig.alone[asked.model][row] for row in asked.rows]
        for reply, row in zip(replies, asked.rows, strict=True):
            prediction_id = msgspec.json.decode(reply)["id"]
            assert prediction_id not in answered
            answered.add(prediction_id)
            assert kept[prediction_id] == (asked.request_id, reply, rig.rows[asked.model][row].received)
    given_up = {asked.request_id for asked in world.asked if asked.future.cancelled()}
    assert {kept[unanswered][0] for unanswered in kept.keys() - answered} <= given_up
    assert list(chain.verify("w", world.store.chain("w"))) == []
    assert sum(event.rows for event in world.events if isinstance(event, RowsScored)) == len(kept)


def test_rows_that_wait_together_are_kept_in_one_write(rig: Rig) -> None:
    world = World(rig)

    asyncio.run(play(world, [("one", 0, row) for row in range(20)] + [("many", 0, [1, 2, 3])]))

    assert world.journal.appends == 1
    assert len(world.kept()) == 23


class Gated(LiveModel):
    """A slow model whose thread waits at a gate."""

    def __init__(self, like: LiveModel) -> None:
        super().__init__(Reference("gated", 1), like.manifest, open_graph(models.regressor_graph(5, 1), "out"))
        self.slow = True
        self.gate = threading.Event()
        self.batches: list[int] = []

    async def is_scoring(self) -> bool:
        return bool(self.batches)

    def score(self, rows: Any) -> Any:
        self.batches.append(len(rows))
        assert self.gate.wait(10)
        return super().score(rows)


def test_a_slow_model_holds_up_nobody_and_takes_what_came_meanwhile_at_once(rig: Rig) -> None:
    world, slow, quick = World(rig), Gated(rig.live[0]), rig.live[1]

    async def ask() -> list[bytes]:
        asked = [world.predictor.predict(slow, rig.rows[0][0], Ask("test", "first"))]
        await eventually_async(slow.is_scoring)
        asked += [world.predictor.predict(slow, rig.rows[0][row], Ask("test", f"r{row}")) for row in range(1, 6)]
        asked[2].cancel()
        other = await asyncio.wait_for(world.predictor.predict(quick, rig.rows[1][3], Ask("test", "quick")), 3)
        assert outcome(other) == rig.alone[1][3]
        assert not any(one.done() for one in asked if not one.cancelled())
        slow.gate.set()
        return list(await asyncio.gather(*[one for one in asked if not one.cancelled()]))

    replies = asyncio.run(ask())

    assert [outcome(reply) for reply in replies] == [rig.alone[0][row] for row in (0, 1, 3, 4, 5)]
    assert slow.batches == [1, 4]
    assert [kept[0] for kept in world.kept().values()] == ["quick", "first", "r1", "r3", "r4", "r5"]


def test_the_queue_shows_what_waits_and_how_long_the_oldest_has(rig: Rig) -> None:
    world, slow, quick = World(rig), Gated(rig.live[0]), rig.live[1]
    queue = world.predictor.queue

    async def ask() -> list[tuple[int, bool]]:
        seen = [(queue().rows, queue().seconds > 0)]
        first = world.predictor.predict_all(slow, rig.rows[0][:3], Ask("test", "first"))
        seen.append((queue().rows, queue().seconds > 0))
        await eventually_async(slow.is_scoring)
        at_work = queue().seconds
        later = world.predictor.predict(slow, rig.rows[0][3], Ask("test", "later"))
        gone = world.predictor.predict(slow, rig.rows[0][4], Ask("test", "gone"))
        gone.cancel()
        await world.predictor.predict(quick, rig.rows[1][3], Ask("test", "quick"))
        seen.append((queue().rows, queue().seconds > at_work))
        slow.gate.set()
        await asyncio.gather(first, later)
        seen.append((queue().rows, queue().seconds > 0))
        return seen

    assert asyncio.run(ask()) == [(0, False), (3, True), (4, True), (0, False)]


def test_who_gives_up_while_a_thread_scores_is_not_kept_and_frees_the_place(rig: Rig) -> None:
    world, slow = World(rig), Gated(rig.live[0])
    predictor = Predictor(world.predictor.deployment, world.journal, world.events.append, max_waiting=3)

    async def ask() -> bytes:
        gone = predictor.predict_all(slow, rig.rows[0][:2], Ask("test", "gone"))
        stays = predictor.predict(slow, rig.rows[0][2], Ask("test", "stays"))
        await eventually_async(slow.is_scoring)
        with pytest.raises(Overloaded):
            predictor.predict(slow, rig.rows[0][3], Ask("test", "refused"))
        gone.cancel()
        slow.gate.set()
        assert outcome(await stays) == rig.alone[0][2]
        return await predictor.predict(slow, rig.rows[0][3], Ask("test", "later"))

    assert outcome(asyncio.run(ask())) == rig.alone[0][3]
    assert [kept[0] for kept in world.kept().values()] == ["stays", "later"]


def test_whose_time_passes_in_a_slow_models_line_is_told_at_once_and_frees_the_place(rig: Rig) -> None:
    world, slow = World(rig), Gated(rig.live[0])
    predictor = Predictor(world.predictor.deployment, world.journal, world.events.append, max_waiting=4)

    async def ask() -> list[bytes]:
        deadline = time.perf_counter() + 0.05
        first = predictor.predict(slow, rig.rows[0][0], Ask("test", "scored", deadline=deadline))
        await eventually_async(slow.is_scoring)
        hasty = predictor.predict_all(slow, rig.rows[0][1:3], Ask("test", "hasty", deadline=deadline))
        patient = predictor.predict(slow, rig.rows[0][3], Ask("test", "patient", deadline=deadline + 60))
        with pytest.raises(TooLate):  # while the thread still waits at its gate
            await asyncio.wait_for(hasty, 3)
        assert not first.done()
        last = predictor.predict_all(slow, rig.rows[0][4:6], Ask("test", "last"))
        slow.gate.set()
        return [await first, await patient, *await last]

    replies = asyncio.run(ask())

    assert [outcome(reply) for reply in replies] == [rig.alone[0][row] for row in (0, 3, 4, 5)]
    assert slow.batches == [1, 3]
    assert [kept[0] for kept in world.kept().values()] == ["scored", "patient", "last", "last"]


def test_nobody_is_scored_who_gave_up_before_the_tick(rig: Rig) -> None:
    world = World(rig)

    asyncio.run(play(world, [("one", 0, 1), ("one", 0, 2), ("cancel", 0), ("turn", 3)]))

    assert [request_id for request_id, _, _ in world.kept().values()] == ["r1"]


def test_a_failed_write_is_told_to_all_of_its_tick_and_to_nobody_else(rig: Rig) -> None:
    world = World(rig)
    script = [("mood", True), ("one", 0, 1), ("many", 0, [2, 3]), ("rest",), ("mood", False), ("one", 0, 4)]

    asyncio.run(play(world, script))

    first, second, third = (asked.future for asked in world.asked)
    assert isinstance(first.exception(), Unavailable)
    assert isinstance(second.exception(), Unavailable)
    assert outcome(third.result()) == rig.alone[0][4]
    assert [entry[0] for entry in world.kept().values()] == ["r2"]


def test_a_model_that_fails_harms_its_own_callers_alone(rig: Rig) -> None:
    class Broken(LiveModel):
        def score(self, rows: Any) -> Any:
            raise RuntimeError("the graph has no such node")

    world = World(rig)
    sound = rig.live[0]
    broken = Broken(Reference("broken", 1), sound.manifest, open_graph(models.linear_graph(5, 1), "out"))

    async def ask() -> list[Any]:
        ask = Ask("test", "r")
        futures = [
            world.predictor.predict(model, rig.rows[0][row], ask) for row in range(4) for model in (sound, broken)
        ]
        return await asyncio.gather(*futures, return_exceptions=True)

    answers = asyncio.run(ask())

    assert [outcome(reply) for reply in answers[::2]] == rig.alone[0][:4]
    assert all(isinstance(error, RuntimeError) for error in answers[1::2])


def test_more_rows_than_may_wait_are_refused_and_those_waiting_are_answered(rig: Rig) -> None:
    world = World(rig)
    predictor = Predictor(world.predictor.deployment, world.journal, world.events.append, max_waiting=10)

    async def ask() -> bytes:
        first = predictor.predict_all(rig.live[0], rig.rows[0][:9], Ask("test", "r"))
        second = predictor.predict(rig.live[0], rig.rows[0][9], Ask("test", "r"))
        with pytest.raises(Overloaded):
            predictor.predict(rig.live[0], rig.rows[0][10], Ask("test", "r"))
        await first
        await second
        return await predictor.predict(rig.live[0], rig.rows[0][10], Ask("test", "r"))

    assert outcome(asyncio.run(ask())) == rig.alone[0][10]


def test_concurrent_callers_with_timeouts_get_their_own_answers(rig: Rig) -> None:
    """Tasks that are cancelled while they await, as a web server does when a client hangs up."""
    world = World(rig)

    async def caller(number: int) -> Score | None:
        model, row = number % 2, number % ROWS
        for _ in range(number % 3):
            await asyncio.sleep(0)
        reply = await world.predictor.predict(rig.live[model], rig.rows[model][row], Ask("test", str(number)))
        return outcome(reply)

    async def everybody() -> list[Any]:
        tasks = [asyncio.create_task(caller(number)) for number in range(200)]
        for turn in range(6):
            await asyncio.sleep(0)
            for task in tasks[turn::7]:
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(everybody())

    served = [(number, answer) for number, answer in enumerate(answers) if isinstance(answer, Score)]
    assert len(served) >= 200 // 7
    assert all(answer == rig.alone[number % 2][number % ROWS] for number, answer in served)
    assert all(isinstance(answer, Score | asyncio.CancelledError) for answer in answers)


def every_model(folder: Path, loans: Path) -> Iterator[tuple[LiveModel, list[dict[str, Any]]]]:
    wide = models.number_columns(11)
    made = [
        ("regressor", models.regressor_graph(11, 1), models.REGRESSION, "values"),
        ("linear", models.linear_graph(11, 1), models.REGRESSION, "values"),
        ("linear2", models.linear_graph(11, 3), models.classes(1, 2, 3), "probabilities"),
        ("mlp", models.mlp_graph(11, 3), models.classes("a", "b", "c"), "probabilities"),
        ("mlp2", models.mlp_graph(11, 2, seed=3, width=128), models.classes(False, True), "probabilities"),
    ]
    for name, graph, decision, kind in made:
        yield models.live(folder, name, graph, wide, decision, kind), models.random_rows(wide, 130)
    yield load(Reference("loans", 1), FolderRegistry(loans), open_graph), models.loan_rows(130)


def test_batches_of_every_size_answer_as_rows_alone_do_to_the_last_bit(tmp_path: Path, loan_registry: Path) -> None:
    for model, rows in every_model(tmp_path, loan_registry):
        encoded = [model.encoder.parse(row) for row in rows]
        alone = [model.score([row])[0] for row in encoded]

        for size in range(1, 131):
            assert model.score(encoded[:size]) == alone[:size], f"{model.name}, {size} rows"
            assert model.score(encoded[-size:]) == alone[-size:], f"{model.name}, the last {size} rows"
