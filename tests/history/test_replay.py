"""Replaying recorded rows with the same model, a different model and a deleted model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from rowcast.adapters.memory.journal import EmptyJournalReader, MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import ModelNotFound
from rowcast.history.chain import Draft, Entry, encode_head
from rowcast.history.replay import LoadScorer, Replay, ReplayScorer, replay
from rowcast.history.service import History
from rowcast.schema.prediction import Prediction, Score
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from support import models
from support.entries import identifier, sealed
from support.serving import Serving

SCHEMA = models.number_columns(3)
CLASSES = models.classes("no", "yes")


class ModelScorer:
    """Scores the rows of a replay with a live model."""

    def __init__(self, model: LiveModel) -> None:
        self._model = model

    def score(self, rows: Sequence[bytes]) -> Sequence[Score]:
        return self._model.score([self._model.encoder.read(row) for row in rows])

    def compare(self, recorded: Score, current: Score) -> str:
        return self._model.compare(recorded, current)


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    return models.live(tmp_path, "m", models.mlp_graph(3, 2), SCHEMA, CLASSES, "probabilities")


@pytest.fixture
def other_model(tmp_path: Path) -> LiveModel:
    """A model that returns different scores for the same rows."""
    return models.live(tmp_path / "other", "m", models.mlp_graph(3, 2, seed=9), SCHEMA, CLASSES, "probabilities")


def recorded_predictions(model: LiveModel, count: int) -> MemoryStore:
    """Return a store that contains predictions from this model."""
    store = MemoryStore()

    async def predict() -> None:
        serving = Serving(MemoryJournal(store, "w"))
        rows = [msgspec.json.encode(row) for row in models.random_rows(SCHEMA, count)]
        await serving.predict_all(model, [Row(model.encoder.read(row), row) for row in rows])

    asyncio.run(predict())
    return store


def loading(model: LiveModel) -> LoadScorer:
    return lambda name, version, digest: ModelScorer(model)


def replay_store(store: MemoryStore, load: LoadScorer, model: str | None = None) -> Replay:
    return replay(History(store, EmptyJournalReader()), load, model)


def test_replaying_with_the_same_model_produces_the_recorded_scores(model: LiveModel) -> None:
    result = replay_store(recorded_predictions(model, 50), loading(model))

    assert (result.entries, result.equal, result.examples) == (50, 50, [])


def test_replaying_with_a_different_model_reports_differences_with_examples(
    model: LiveModel, other_model: LiveModel
) -> None:
    result = replay_store(recorded_predictions(model, 50), loading(other_model))

    assert (result.entries, result.equal, result.different) == (50, 0, 50)
    assert len(result.examples) == 20
    assert {example["verdict"] for example in result.examples} == {"different"}
    assert {"id", "then", "now"} <= result.examples[0].keys()


def test_the_entries_in_all_chunks_are_replayed(model: LiveModel) -> None:
    result = replay_store(recorded_predictions(model, 2500), loading(model))

    assert (result.entries, result.equal) == (2500, 2500)


def test_an_erased_row_cannot_be_replayed(model: LiveModel) -> None:
    store, entries = MemoryStore(), list(recorded_predictions(model, 3).chain("w"))
    store.record("w", [entries[0], entries[1]._replace(row=None, salt=None), entries[2]])

    result = replay_store(store, loading(model))

    assert (result.equal, result.not_replayable) == (2, 1)
    assert [example["verdict"] for example in result.examples] == ["not replayable"]


def test_entries_of_a_deleted_model_cannot_be_replayed_and_the_reason_is_reported(model: LiveModel) -> None:
    def fail(name: str, version: int, digest: str) -> ReplayScorer:
        raise ModelNotFound(f"{name} {version} {digest}")

    result = replay_store(recorded_predictions(model, 3), fail)

    assert (result.equal, result.not_replayable) == (0, 3)
    assert {example["reason"] for example in result.examples} == {f"m 1 {model.digest}"}


def test_a_replay_can_be_limited_to_one_model(model: LiveModel) -> None:
    store = recorded_predictions(model, 5)

    assert replay_store(store, loading(model), "m").entries == 5
    assert replay_store(store, loading(model), "another").entries == 0


class FixedScorer:
    """Returns the same score for each row and records the sizes of its batches."""

    def __init__(self, verdict: str) -> None:
        self.verdict = verdict
        self.batches: list[int] = []

    def score(self, rows: Sequence[bytes]) -> Sequence[Score]:
        self.batches.append(len(rows))
        return [Score("now", 0.5)] * len(rows)

    def compare(self, recorded: Score, current: Score) -> str:
        return self.verdict


def recorded_entries(*digests: str, withheld: tuple[str, ...] = ()) -> MemoryStore:
    """Return a store with one entry for each digest; columns were withheld from the first entry."""
    drafts = []
    for number, digest in enumerate(digests):
        reply = msgspec.json.encode(Prediction(identifier(number), digest, 2, "then", 0.75, 0.25, {"then": 0.75}))
        entry = Entry(0, digest, "native", "r", reply, withheld=withheld if number == 0 else ())
        drafts.append(Draft(encode_head(entry), bytes(16), b"{}"))
    store = MemoryStore()
    store.record("w", sealed("w", drafts))
    return store


def test_each_bundle_is_loaded_once_and_scores_its_rows_in_batches_of_at_most_1024() -> None:
    scorers: dict[tuple[str, int, str], FixedScorer] = {}

    def load(name: str, version: int, digest: str) -> ReplayScorer:
        assert (name, version, digest) not in scorers
        return scorers.setdefault((name, version, digest), FixedScorer("equal"))

    result = replay_store(recorded_entries(*["a"] * 1024, "b", "a"), load)

    assert {key: scorer.batches for key, scorer in scorers.items()} == {("a", 2, "a"): [1024, 1], ("b", 2, "b"): [1]}
    assert result == Replay(entries=1026, equal=1026, borderline=0, different=0, not_replayable=0, examples=[])


@pytest.mark.parametrize("verdict", ["borderline", "different"])
def test_an_example_contains_the_recorded_and_the_current_score(verdict: str) -> None:
    result = replay_store(recorded_entries("a"), lambda name, version, digest: FixedScorer(verdict))

    then = Score("then", 0.75, 0.25, {"then": 0.75})
    example = {"id": identifier(0), "verdict": verdict, "then": then, "now": Score("now", 0.5)}
    assert result == Replay(
        entries=1,
        equal=0,
        borderline=int(verdict == "borderline"),
        different=int(verdict == "different"),
        not_replayable=0,
        examples=[example],
    )


def test_a_deleted_bundle_and_withheld_columns_do_not_affect_the_other_entries() -> None:
    def load(name: str, version: int, digest: str) -> ReplayScorer:
        if digest == "gone":
            raise ModelNotFound("deleted")
        return FixedScorer("equal")

    result = replay_store(recorded_entries("a", "gone", "a", "b", withheld=("name", "age")), load)

    assert (result.entries, result.equal, result.not_replayable) == (4, 2, 2)
    assert result.examples == [
        {
            "id": identifier(0),
            "verdict": "not replayable",
            "reason": "columns were hashed or dropped: name, age",
        },
        {"id": identifier(1), "verdict": "not replayable", "reason": "deleted"},
    ]


def test_a_scorer_that_skips_a_row_is_an_error() -> None:
    class SkippingScorer(FixedScorer):
        def score(self, rows: Sequence[bytes]) -> Sequence[Score]:
            return super().score(rows)[1:]

    with pytest.raises(ValueError, match="shorter"):
        replay_store(recorded_entries("a", "a"), lambda name, version, digest: SkippingScorer("equal"))
