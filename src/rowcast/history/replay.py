"""Replay: rescores recorded rows, and compares the new scores with the recorded scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from rowcast.errors import RowcastError
from rowcast.history.chain import NO_ROW, SealedEntry, decode_head
from rowcast.history.records import JOB_SOURCE, decode_reply
from rowcast.history.service import History
from rowcast.schema.prediction import Prediction, Score

REPLAY_CHUNK = 1024
MAX_EXAMPLES = 20


class ReplayScorer(Protocol):
    """Rescores recorded rows with one bundle."""

    def score(self, rows: Sequence[bytes]) -> Sequence[Score]:
        """Return the score of each row. The rows are JSON, as recorded."""
        ...

    def compare(self, recorded: Score, current: Score) -> str:
        """Return `equal`, `borderline` (the score and the threshold differ by at most the tolerance) or `different`."""
        ...


LoadScorer = Callable[[str, int, str], ReplayScorer]
"""Loads a model by name, version and digest; raises RowcastError if that exact bundle cannot be loaded."""


class Replay(msgspec.Struct, frozen=True):
    """The result of a replay; `examples` contains the first entries whose verdict is not `equal`."""

    entries: int
    equal: int
    borderline: int
    different: int
    not_replayable: int
    examples: list[dict[str, Any]]


def replay(history: History, load: LoadScorer, model: str | None = None) -> Replay:
    """Rescore every recorded row of one model, or of all models, with the bundle that originally scored it."""
    counts: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    scorers: dict[str, ReplayScorer | str] = {}
    entries = history.entries(model)
    while chunk := [entry for _, entry in islice(entries, REPLAY_CHUNK)]:
        for verdict, prediction_id, details in _replay_chunk(chunk, scorers, load):
            counts[verdict] += 1
            if verdict != "equal" and len(examples) < MAX_EXAMPLES:
                examples.append({"id": prediction_id, "verdict": verdict, **details})
    return Replay(
        entries=counts.total(),
        equal=counts["equal"],
        borderline=counts["borderline"],
        different=counts["different"],
        not_replayable=counts["not replayable"],
        examples=examples,
    )


def _replay_chunk(
    chunk: Sequence[SealedEntry], scorers: dict[str, ReplayScorer | str], load: LoadScorer
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the verdict, id and details of each entry; rescore the rows of each bundle in one batch."""
    groups: dict[str, list[tuple[Prediction, bytes]]] = {}
    for sealed in chunk:
        entry = decode_head(sealed.head)
        reply = decode_reply(entry.reply)
        if entry.source == JOB_SOURCE and sealed.row_hash == NO_ROW:
            continue  # the entry of a job, which is not a prediction
        if sealed.row is None:
            yield "not replayable", reply.id, {"reason": "the row was erased"}
            continue
        if entry.withheld:
            columns = ", ".join(entry.withheld)
            yield "not replayable", reply.id, {"reason": f"columns were hashed or dropped: {columns}"}
            continue
        if entry.digest not in scorers:
            scorers[entry.digest] = _load(load, reply, entry.digest)
        groups.setdefault(entry.digest, []).append((reply, sealed.row))
    for digest, recorded_rows in groups.items():
        scorer = scorers[digest]
        if isinstance(scorer, str):
            yield from (("not replayable", reply.id, {"reason": scorer}) for reply, _ in recorded_rows)
            continue
        scores = scorer.score([row for _, row in recorded_rows])
        for (reply, _), current in zip(recorded_rows, scores, strict=True):
            recorded = Score(reply.prediction, reply.probability, reply.score, reply.probabilities)
            yield scorer.compare(recorded, current), reply.id, {"then": recorded, "now": current}


def _load(load: LoadScorer, reply: Prediction, digest: str) -> ReplayScorer | str:
    """Return the scorer for a bundle, or the reason why it cannot be loaded."""
    try:
        return load(reply.model, reply.version, digest)
    except RowcastError as error:
        return error.message
