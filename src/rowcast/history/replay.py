"""The past scored again: does every kept row still get the answer that was given?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec

from rowcast.errors import RowcastError
from rowcast.history import chain
from rowcast.history.chain import decode_head
from rowcast.history.service import History
from rowcast.registry.ports import Reference
from rowcast.schema.prediction import Prediction, Score
from rowcast.serving.live_models import LiveModel

REPLAY_CHUNK = 1024

_decode_reply = msgspec.json.Decoder(Prediction).decode


class Replay(msgspec.Struct, frozen=True):
    """What scoring the past again found; `examples` names the first entries that are not equal."""

    entries: int
    equal: int
    borderline: int
    different: int
    not_replayable: int
    examples: list[dict[str, Any]]


def replay(history: History, load: Callable[[Reference, str], LiveModel], model: str | None = None) -> Replay:
    """Score every kept row again with its own bundle; `load` takes the reference and the digest it must have."""
    tally: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    models: dict[str, LiveModel | str] = {}
    entries = history.entries(model)
    while chunk := [sealed for _, sealed in islice(entries, REPLAY_CHUNK)]:
        for found, prediction_id, verdict in _replayed(chunk, models, load):
            tally[found] += 1
            if found != "equal" and len(examples) < 20:
                examples.append({"id": prediction_id, "verdict": found, **verdict})
    return Replay(
        sum(tally.values()),
        tally["equal"],
        tally["borderline"],
        tally["different"],
        tally["not replayable"],
        examples,
    )


def _replayed(
    chunk: list[chain.Sealed], models: dict[str, LiveModel | str], load: Callable[[Reference, str], LiveModel]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(verdict, id, details) for each entry, scored a model at a time."""
    groups: dict[str, list[tuple[Prediction, bytes]]] = {}
    for sealed in chunk:
        entry = decode_head(sealed.head)
        reply = _decode_reply(entry.reply)
        if sealed.row is None:
            yield "not replayable", reply.id, {"reason": "the row was erased"}
            continue
        if entry.withheld:
            columns = ", ".join(entry.withheld)
            yield "not replayable", reply.id, {"reason": f"{columns}: hashed or dropped before the row was kept"}
            continue
        if entry.digest not in models:
            models[entry.digest] = _loaded(load, Reference(reply.model, reply.version), entry.digest)
        groups.setdefault(entry.digest, []).append((reply, sealed.row))
    for digest, kept in groups.items():
        model = models[digest]
        if isinstance(model, str):
            yield from (("not replayable", reply.id, {"reason": model}) for reply, _ in kept)
            continue
        outcomes = model.score([model.encoder.read(row) for _, row in kept])
        for (reply, _), outcome in zip(kept, outcomes, strict=True):
            then = Score(reply.prediction, reply.probability, reply.score, reply.probabilities)
            yield model.compare(then, outcome), reply.id, {"then": then, "now": outcome}


def _loaded(load: Callable[[Reference, str], LiveModel], reference: Reference, digest: str) -> LiveModel | str:
    try:
        return load(reference, digest)
    except RowcastError as error:
        return error.message
