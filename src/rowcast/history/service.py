"""History: journals into the store, entries out of both, and the chain's proof."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from rowcast.errors import HistoryError, RequestError, Unavailable
from rowcast.history import chain
from rowcast.history import entry_filter as selecting
from rowcast.history.chain import ERASURES, Broken, Entry, decode_erasure, decode_head
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.ports import Spool, Stored, StoreReader, StoreWriter
from rowcast.schema.prediction import Prediction

EXPORT_CHUNK = 1000
LOOK_EVERY_SECONDS = 0.02
"""Another process stores: its progress can be looked at, not awaited."""
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
    withheld: tuple[str, ...] = ()
    """Sensitive columns that were hashed or dropped before the row was kept."""


class Head(msgspec.Struct, frozen=True):
    """The last entry of a chain. Whoever keeps it elsewhere can tell later that the chain was not cut off."""

    writer: str
    seq: int
    link: str
    """Hex."""


class Page(msgspec.Struct, frozen=True):
    """Entries, newest first, and the cursor of the next page if there may be one."""

    predictions: list[Record]
    next: str | None


class Verdict(msgspec.Struct, frozen=True):
    """What verifying every chain found."""

    writers: int
    entries: int
    erased: int
    """Entries whose row was erased."""
    unrecorded: int
    """Of these, such as no erasure accounts for: somebody took them out by hand."""
    heads: int
    """Published heads that were found in their place."""
    broken: list[dict[str, Any]]


class History:
    """What was answered, wherever it lies now."""

    def __init__(self, store: StoreReader, spool: Spool) -> None:
        self.store = store
        self.spool = spool

    def get(self, prediction_id: str, seen: Selection = EVERYTHING) -> Record | None:
        """One entry, from the store or from the journal it has not left yet; one outside of `seen` is none."""
        # The journal is asked again between: an entry may move while one is looking.
        stored = self.store.get(prediction_id) or self.spool.find(prediction_id) or self.store.get(prediction_id)
        found = record(stored) if stored else None
        return found if found is not None and _is_seen(found, seen) else None

    def page(self, limit: int, wanted: Selection = EVERYTHING, cursor: str | None = None) -> Page:
        """What is stored, newest first. Pages neither skip nor repeat, whatever is stored meanwhile."""
        found = [record(stored) for stored in self.store.latest(limit, wanted, _before(cursor, wanted))]
        return Page(found, selecting.cursor(found[-1].id, wanted) if len(found) == limit else None)

    def select(self, wanted: Selection = EVERYTHING) -> Iterator[Record]:
        """Every stored entry of a selection, newest first, in constant memory."""
        before = None
        while found := self.store.latest(EXPORT_CHUNK, wanted, before):
            for stored in found:
                yield (entry := record(stored))
                before = entry.id

    def catch_up(self, patience: float) -> int:
        """Wait until what lies in journals now is stored, or for so many seconds; how many entries still are not."""

        def missing(writer: str, seq: int) -> int:
            found = self.store.position(writer)
            return max(0, seq - (-1 if found is None else found.seq))

        wanted = self.spool.ends()
        until = time.monotonic() + patience
        while waiting := sum(missing(writer, seq) for writer, seq in wanted.items()):
            if time.monotonic() > until:
                break
            time.sleep(LOOK_EVERY_SECONDS)
        return waiting

    def entries(self, model: str | None = None) -> Iterator[tuple[str, chain.Sealed]]:
        """Every entry of every writer, stored or still in a journal, in each writer's order."""
        for writer in self._writers():
            for sealed in self._chain(writer):
                if model is None or _decode_reply(decode_head(sealed.head).reply).model == model:
                    yield writer, sealed

    def heads(self) -> list[Head]:
        """The last entry of every chain, that of erasures included."""
        found = []
        for writer in [*self._writers(), ERASURES]:
            entries = self.store.erasures() if writer == ERASURES else self._chain(writer)
            last = deque(entries, maxlen=1)
            found += [Head(writer, entry.seq, entry.link.hex()) for entry in last]
        return found

    def verify(self, published: Iterable[Head] = ()) -> Verdict:
        """Check every chain from its first entry to its last, and that published heads stand in their places."""
        tally = _Tally(published)
        writers = self._writers()
        for writer in writers:
            tally.check(writer, self._chain(writer))
        for writer, seq in self.spool.cut().items():
            tally.lose(writer, seq)
        erased = tally.erased
        recorded = sum(decode_erasure(entry.head).rows for entry in tally.check(ERASURES, self.store.erasures()))
        tally.miss(writers)
        broken = [one._asdict() for one in tally.broken]
        return Verdict(len(writers), tally.entries, erased, max(0, erased - recorded), tally.found, broken)

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


def selection(
    *,
    tenant: str | None = None,
    model: str | None = None,
    version: int | None = None,
    label: str | None = None,
    entity: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Selection:
    """A selection from what a person wrote; RequestError says what is wrong with it."""
    bounds: dict[str, str] = {}
    for name, field, text in (("since", "first", since), ("until", "end", until)):
        if text is not None:
            try:
                bounds[field] = selecting.first_id(selecting.moment(text))
            except (ValueError, OverflowError):
                raise RequestError(
                    f"{name}: {text[:40]!r} is no time; write 2026-01-31 or 2026-01-31T09:30:00Z", slug="bad-option"
                ) from None
    if bounds.get("first", "") > bounds.get("end", "g"):
        raise RequestError(f"since: {since!r} lies behind until {until!r}", slug="bad-option")
    return Selection(
        tenant=tenant,
        model=model,
        version=version,
        label=label,
        entity=entity,
        first=bounds.get("first"),
        end=bounds.get("end"),
    )


class _Tally:
    """What is counted and found while chains are walked."""

    def __init__(self, published: Iterable[Head]) -> None:
        self.entries = 0
        self.erased = 0
        self.found = 0
        self.broken: list[Broken] = []
        self._ends: dict[str, int] = {}
        self._published: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for head in published:
            self._published[head.writer][head.seq] = head.link

    def check(self, writer: str, entries: Iterable[chain.Sealed]) -> list[chain.Sealed]:
        """Walk one chain; the entries of that of erasures, which are few."""
        seen = 0
        self._ends[writer] = 0
        kept: list[chain.Sealed] = []
        heads = self._published[writer]

        def counted() -> Iterator[chain.Sealed]:
            nonlocal seen
            for entry in entries:
                seen += 1
                self._ends[writer] = entry.seq + 1
                self.erased += entry.row is None and writer != ERASURES
                if writer == ERASURES:
                    kept.append(entry)
                if entry.seq in heads and self._stands(writer, entry, heads.pop(entry.seq)):
                    self.found += 1
                yield entry

        walking = counted()
        try:
            breaks = list(chain.verify(writer, walking))
            self.broken += breaks
            deque(walking, maxlen=0)  # behind a break: counted, and looked at for heads
        except HistoryError as error:
            self.broken.append(Broken(writer, seen, error.message))
        self.entries += seen if writer != ERASURES else 0
        self._cut(writer, heads)
        return kept

    def lose(self, writer: str, seq: int) -> None:
        """A journal that was damaged from this entry on, if nothing of the chain is left from there on."""
        if self._ends.get(writer, 0) <= seq and all(one.writer != writer for one in self.broken):
            reason = f"entry {seq} and what followed it lay in a damaged journal and is lost"
            self.broken.append(Broken(writer, seq, reason))

    def miss(self, writers: Sequence[str]) -> None:
        """Heads of chains of which nothing is left."""
        for writer in self._published.keys() - {*writers, ERASURES}:
            self._cut(writer, self._published[writer])

    def _stands(self, writer: str, entry: chain.Sealed, link: str) -> bool:
        if entry.link.hex() != link:
            self.broken.append(
                Broken(writer, entry.seq, "the published head has another link: the chain was rewritten")
            )
            return False
        return True

    def _cut(self, writer: str, heads: Mapping[int, str]) -> None:
        if heads:
            reason = f"entry {max(heads)} was published as the head, but is gone: the chain was cut off"
            self.broken.append(Broken(writer, max(heads), reason))


def read_heads(text: str) -> list[Head]:
    """Published heads: what `history heads --json` printed, or a server's JSON log; HistoryError when it has none."""
    try:
        return msgspec.json.decode(text, type=_Heads).heads
    except msgspec.MsgspecError:
        pass  # a log, line by line
    found = []
    for line in text.splitlines():
        with suppress(msgspec.MsgspecError):
            found.append(msgspec.json.decode(line, type=Head))
    if not found:
        raise HistoryError(
            "there are no heads in the file; it must be what `rowcast history heads --json` printed, or a server's log "
            "in JSON"
        )
    return found


class _Heads(msgspec.Struct):
    heads: list[Head]


def _is_seen(found: Record, seen: Selection) -> bool:
    return seen.tenant in (None, found.tenant) and (not seen.models or found.model in seen.models)


def _before(cursor: str | None, wanted: Selection) -> str | None:
    try:
        return None if cursor is None else selecting.after_cursor(cursor, wanted)
    except ValueError as error:
        raise RequestError(f"cursor: {error}", slug="bad-option") from None


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
        withheld=entry.withheld,
    )


def index(
    spool: Spool,
    store: StoreWriter,
    wait: Callable[[float], bool],
    report: Callable[[str], None],
    tidy: Callable[[], None] = lambda: None,
    every: float = 0.2,
) -> None:
    """Move journals into the store until `wait(seconds)` says that it is time to end; then once more. `tidy` is called
    after each round: what else is to be done by the one process that writes."""
    ending, pause, said = False, every, ""
    while not ending:
        ending = wait(pause)
        try:
            said = _drained(spool, store, report, said)
            tidy()
            pause = every
        except Unavailable as error:  # the journals keep everything until the store is back
            report(error.message)
            pause = min(2 * pause, LONGEST_PAUSE)


def _drained(spool: Spool, store: StoreWriter, report: Callable[[str], None], said: str) -> str:
    """One round; damage is reported when it is another than last time."""
    try:
        spool.drain(store)
    except HistoryError as error:  # one journal is damaged; the others go on as ever
        if error.message != said:
            report(error.message)
        return error.message
    return ""
