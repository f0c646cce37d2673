"""History: journals into the store, entries out of both, the chain's proof, and the past scored again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec

from rowcast.domain import chain
from rowcast.domain.chain import Broken, Entry, decode_head
from rowcast.domain.prediction import Outcome, Prediction
from rowcast.errors import HistoryError, RowcastError, Unavailable
from rowcast.ports import Reference, Spool, Stored, StoreReader, StoreWriter
from rowcast.serving.deployment import LiveModel

REPLAY_CHUNK = 1024
LONGEST_PAUSE = 5.0
"""Seconds between tries while the store does not take anything."""

_decode_reply = msgspec.json.Decoder(Prediction).decode


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One history entry as people and machines read it. `row` is absent once erased."""

    id: str
    at: int
    """UTC microseconds."""
    model: str
    version: int
    digest: str
    source: str
    request_id: str
    prediction: msgspec.Raw
    """The reply, as it was sent."""
    writer: str
    seq: int
    row: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """The row, as it was received."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What verifying every chain found."""

    writers: int
    entries: int
    broken: list[dict[str, Any]]


class Replay(msgspec.Struct, frozen=True):
    """What scoring the past again found; `examples` names the first entries that are not equal."""

    entries: int
    equal: int
    borderline: int
    different: int
    not_replayable: int
    examples: list[dict[str, Any]]


class History:
    """What was answered, wherever it lies now."""

    def __init__(self, store: StoreReader, spool: Spool) -> None:
        self.store = store
        self.spool = spool

    def get(self, prediction_id: str) -> Record | None:
        """One entry, from the store or from the journal it has not left yet."""
        # The journal is asked again between: an entry may move while one is looking.
        stored = self.store.get(prediction_id) or self.spool.find(prediction_id) or self.store.get(prediction_id)
        return record(stored) if stored else None

    def latest(self, limit: int, before: str | None = None, model: str | None = None) -> list[Record]:
        """Newest first, of what is stored."""
        return [record(stored) for stored in self.store.latest(limit, before, model)]

    def entries(self, model: str | None = None) -> Iterator[tuple[str, chain.Sealed]]:
        """Every entry of every writer, stored or still in a journal, in each writer's order."""
        for writer in self._writers():
            for sealed in self._chain(writer):
                if model is None or _decode_reply(decode_head(sealed.head).reply).model == model:
                    yield writer, sealed

    def verify(self) -> Verdict:
        """Check every writer's chain from its first entry to its last."""
        writers = self._writers()
        broken: list[Broken] = []
        seen = 0

        def counted(entries: Iterator[chain.Sealed]) -> Iterator[chain.Sealed]:
            nonlocal seen
            for entry in entries:
                seen += 1
                yield entry

        for writer in writers:
            before = seen
            try:
                broken += chain.verify(writer, counted(self._chain(writer)))
            except HistoryError as error:
                broken.append(Broken(writer, seen - before, error.message))
        return Verdict(len(writers), seen, [found._asdict() for found in broken])

    def _writers(self) -> list[str]:
        return sorted({*self.store.writers(), *self.spool.writers()})

    def _chain(self, writer: str) -> Iterator[chain.Sealed]:
        """A writer's entries in order while the indexer may be moving them: the store, then journals, and again until
        a round brings nothing. A gap is one when the store, asked after it was seen, does not fill it."""
        last = -1
        ahead: int | None = -1  # where the journals went on behind a gap, a round ago; None when they had no more
        while True:
            before, seen = last, ahead
            for entry in self.store.chain(writer, last):
                last = entry.seq
                yield entry
            ahead = None
            for entry in self.spool.after(writer, last):
                if entry.seq != last + 1 and (last != before or entry.seq != seen):
                    ahead = entry.seq
                    break
                last = entry.seq
                yield entry
            if last == before and ahead is None and seen is None:
                return


def record(stored: Stored) -> Record:
    """An entry in words; the reply and the row stay the bytes they were."""
    entry: Entry = decode_head(stored.sealed.head)
    reply = _decode_reply(entry.reply)
    row = stored.sealed.row
    return Record(
        id=reply.id,
        at=entry.at,
        model=reply.model,
        version=reply.version,
        digest=entry.digest,
        source=entry.source,
        request_id=entry.request_id,
        prediction=msgspec.Raw(entry.reply),
        writer=stored.writer,
        seq=stored.sealed.seq,
        row=msgspec.UNSET if row is None else msgspec.Raw(row),
        key_id=entry.key_id,
        tenant=entry.tenant,
        entity=entry.entity,
    )


def index(
    spool: Spool, store: StoreWriter, wait: Callable[[float], bool], report: Callable[[str], None], every: float = 0.2
) -> None:
    """Move journals into the store until `wait(seconds)` says that it is time to end; then once more."""
    ending, pause, said = False, every, ""
    while not ending:
        ending = wait(pause)
        try:
            spool.drain(store)
            pause, said = every, ""
        except HistoryError as error:  # one journal is damaged; the others go on as ever
            pause = every
            if error.message != said:
                report(error.message)
            said = error.message
        except Unavailable as error:  # the journals keep everything until the store is back
            report(error.message)
            pause = min(2 * pause, LONGEST_PAUSE)


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
            then = Outcome(reply.prediction, reply.probability, reply.score, reply.probabilities)
            yield model.compare(then, outcome), reply.id, {"then": then, "now": outcome}


def _loaded(load: Callable[[Reference, str], LiveModel], reference: Reference, digest: str) -> LiveModel | str:
    try:
        return load(reference, digest)
    except RowcastError as error:
        return error.message
