"""Everything a server needs, kept in memory: for the Python face, for notebooks and as the tests' doubles."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from rowcast.access.keys_and_quotas import Key
from rowcast.access.ports import IN_FLIGHT, OTHER_REQUEST
from rowcast.errors import RepeatConflict
from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.history.chain import Chain, Draft, Erasure, Sealed, decode_erasure, decode_head, row_hash, sealed_erasure
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.ports import ErasureRequest, OpenRequest, Position, Step, Stored, StoreWriter
from rowcast.schema.prediction import Prediction, Score, searchable_label

_reply = msgspec.json.Decoder(Prediction).decode


class MemoryStore:
    """History for the life of one process."""

    def __init__(self) -> None:
        self._chains: dict[str, list[Sealed]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        """Id to writer and place in its chain, in the order in which entries were stored."""
        self._erasures: list[Sealed] = []
        self._requests: list[OpenRequest] = []
        self._asked = 0

    def position(self, writer: str) -> Position | None:
        """The last entry stored of this writer."""
        kept = self._chains.get(writer)
        return Position(kept[-1].seq, kept[-1].link) if kept else None

    def record(self, writer: str, entries: Sequence[Sealed]) -> None:
        """Keep entries; those already kept are left alone."""
        kept = self._chains.setdefault(writer, [])
        last = kept[-1].seq if kept else -1
        for entry in entries:
            if entry.seq > last:
                self._places[_reply(decode_head(entry.head).reply).id] = writer, len(kept)
                kept.append(entry)

    def get(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction."""
        found = self._places.get(prediction_id)
        return Stored(found[0], self._chains[found[0]][found[1]]) if found else None

    def latest(self, limit: int, wanted: Selection = EVERYTHING, before: str | None = None) -> list[Stored]:
        """Newest first; `before` is the id of the last entry of the page before."""
        found = (self.get(key) for key in sorted(self._places, reverse=True) if before is None or key < before)
        return list(islice((stored for stored in found if stored and _takes(wanted, stored)), limit))

    def erasures(self) -> list[Sealed]:
        """The chain of erasures."""
        return list(self._erasures)

    def erase(self, asked: OpenRequest, at: int, most: int, after: str | None = None, *, fresh: bool = False) -> Step:
        """Look at `most` entries, erase their rows and record that."""
        request, mark = asked.request, asked.mark if fresh else 0
        behind = sorted(key for key in list(self._places)[mark:] if after is None or key > after)
        seen = list(islice((key for key in behind if _takes(request.wanted, self._at(key))), most))
        erased = [key for key in seen if self._at(key).sealed.row is not None]
        for key in erased:
            writer, place = self._places[key]
            self._chains[writer][place] = self._chains[writer][place]._replace(row=None, salt=None)
        if erased:
            previous = self._erasures[-1].link if self._erasures else None
            wanted = msgspec.json.encode(request.wanted)
            erasure = Erasure(at, request.by, request.reason, wanted, len(erased), asked.number)
            self._erasures.append(sealed_erasure(len(self._erasures), previous, erasure))
        return Step(len(erased), seen[-1] if len(seen) == most else None)

    def erased(self, number: int) -> int:
        """How many rows a request erased so far."""
        found = [decode_erasure(sealed.head) for sealed in self._erasures]
        return sum(erasure.rows for erasure in found if erasure.request == number)

    def ask(self, request: ErasureRequest) -> OpenRequest:
        """Remember a request until it is settled."""
        self._asked += 1
        self._requests.append(OpenRequest(self._asked, len(self._places), request))
        return self._requests[-1]

    def asked(self) -> list[OpenRequest]:
        """Requests that are open."""
        return list(self._requests)

    def settle(self, numbers: Sequence[int]) -> bool:
        """Forget requests."""
        self._requests = [found for found in self._requests if found.number not in numbers]
        return True

    def _at(self, key: str) -> Stored:
        writer, place = self._places[key]
        return Stored(writer, self._chains[writer][place])

    def writers(self) -> list[str]:
        """Every writer that has entries."""
        return sorted(self._chains)

    def chain(self, writer: str, after: int = -1) -> Iterator[Sealed]:
        """One writer's entries in order of `seq`, those after `after`."""
        yield from (entry for entry in self._chains.get(writer, ()) if entry.seq > after)

    def count(self) -> int:
        """How many entries are stored."""
        return len(self._places)


def _takes(wanted: Selection, stored: Stored) -> bool:
    entry = decode_head(stored.sealed.head)
    reply = _reply(entry.reply)
    label = searchable_label(reply.prediction, reply.probability)
    found = {"id": reply.id, "model": reply.model, "version": reply.version, "label": label}
    return wanted.takes(**found, tenant=entry.tenant, entity=entry.entity)


class MemoryJournal:
    """A journal that is its own store: what is appended can be looked up at once."""

    def __init__(self, store: MemoryStore, writer: str) -> None:
        self._store = store
        self._chain = Chain(writer)

    @property
    def writer(self) -> str:
        """The writer whose chain is being extended."""
        return self._chain.writer

    @property
    def head(self) -> Position | None:
        """The writer's last entry."""
        return self._store.position(self.writer)

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and keep all drafts."""
        self._store.record(self.writer, [self._sealed(draft) for draft in drafts])

    def append_block(self, block: Block) -> None:
        """Open it at once: its entries follow those before it."""
        self.append(list(blocks.entries(block)))

    def _sealed(self, draft: Draft) -> Sealed:
        seq, hashed = self._chain.seq, row_hash(draft.salt, draft.row)
        linked = self._chain.extend(draft.head, draft.salt, draft.row)
        return Sealed(seq, draft.head, draft.salt, draft.row, hashed, linked)

    def close(self) -> None:
        """Nothing to give up: the store lives as long as the process."""


class NoSpool:
    """The spool beside a MemoryStore: nothing ever waits."""

    def find(self, prediction_id: str) -> Stored | None:
        """Nothing waits."""
        return None

    def after(self, writer: str, seq: int) -> Iterator[Sealed]:
        """Nothing waits."""
        return iter(())

    def writers(self) -> list[str]:
        """Nobody waits."""
        return []

    def ends(self) -> dict[str, int]:
        """Nobody waits."""
        return {}

    def drain(self, store: StoreWriter) -> int:
        """Nothing to move."""
        return 0

    def backlog(self) -> int:
        """Nothing waits."""
        return 0

    def journals(self) -> dict[str, str]:
        """Nothing waits."""
        return {}

    def damaged(self) -> list[str]:
        """Nothing is damaged."""
        return []

    def cut(self) -> dict[str, int]:
        """Nothing is damaged."""
        return {}

    def ask_to_roll(self) -> None:
        """Nobody writes journals."""


class MemoryKeys:
    """API keys for the life of one process."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = tuple(keys)

    def all(self) -> Sequence[Key]:
        """Every key."""
        return self._keys

    def mark(self) -> object:
        """The keys themselves."""
        return self._keys

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys."""
        self._keys = tuple(edit(self._keys))


class MemoryRepeats:
    """Replies to repeated requests, for one process."""

    def __init__(self, claim_seconds: float = 120.0) -> None:
        self._claim_seconds = claim_seconds
        self._known: dict[str, tuple[bytes, float, bytes | None]] = {}

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """None to the first, its reply to the others."""
        kept, at, reply = self._known.get(key, (fingerprint, now, None))
        if kept != fingerprint:
            raise RepeatConflict(OTHER_REQUEST, slug="repeat-differs")
        if reply is None and key in self._known and now < at + self._claim_seconds:
            raise RepeatConflict(IN_FLIGHT)
        if reply is None:
            self._known[key] = (fingerprint, now, None)
        return reply

    def keep(self, key: str, reply: bytes, now: float) -> None:
        """The reply that repeats get."""
        self._known[key] = (self._known[key][0], now, reply)

    def release(self, key: str) -> None:
        """Let the next one be the first."""
        self._known.pop(key, None)

    def purge(self, before: float) -> None:
        """Forget the old ones."""
        self._known = {key: found for key, found in self._known.items() if found[1] >= before}


class MemoryCache:
    """Outcomes of one process: the least recently used go when it is full, each goes when it is too old."""

    def __init__(self, entries: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Score]] = OrderedDict()

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """What is known."""
        now, known = self._clock(), self._known
        found: list[Score | None] = []
        for key in keys:
            until, outcome = known.get(key, (now, None))
            if outcome is not None and now < until:
                known.move_to_end(key)
                found.append(outcome)
            else:
                found.append(None)
        return found

    def put(self, found: Mapping[str, Score], seconds: float | None = None) -> None:
        """Remember."""
        until = self._clock() + (self._seconds if seconds is None else seconds)
        for key, outcome in found.items():
            self._known[key] = (until, outcome)
            self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)
