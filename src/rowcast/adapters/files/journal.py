"""The journal on disk: every worker appends to files of its own, one write a tick, before anyone is answered.

A writer's folder holds segments `WRITER-000000000000.journal`, named by their first sequence number: `segment.py`.

A segment's room is reserved when it is made: a full disk is met before anything is answered, and a write that changes
no file size costs a third (4 µs against 8-20 µs a tick beside a committing indexer). A writer holds a lock on the
segment it appends to; the kernel drops it with the process, and that is how the indexer knows that a segment ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from rowcast.adapters.files import blocks as block_segment
from rowcast.adapters.files.blocks import BlockSegment
from rowcast.adapters.files.segment import (
    FORMAT,
    FRAME,
    LENGTHS_MARK,
    LOOK_AHEAD,
    MAGIC,
    Header,
    Segment,
    is_let_go,
    open_segment,
)
from rowcast.errors import HistoryError, Unavailable
from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.history.chain import Chain, Draft, Sealed, genesis
from rowcast.history.ports import Position, Stored, StoreWriter

SEGMENT_BYTES = 16 * 1024 * 1024
SUFFIX = ".journal"
STARTING = ".starting"
STARTING_SECONDS = 60
DAMAGED = ".damaged"
ROLL = "roll"
"""Touched to ask every writer for a new segment."""
ROLL_AFTER_SECONDS = 3600.0
"""A segment with entries is not kept open for longer: what retention erases from the store is not to lie here on."""

Durability = Literal["process", "disk", "store"]


class FileJournal:
    """One writer's appending end. Seals and writes all drafts of a tick at once, or none."""

    def __init__(self, folder: Path, new_writer: Callable[[], str], durability: Durability = "process") -> None:
        self._folder = folder
        self._new_writer = new_writer
        self._sync = durability == "disk"
        self._fd = -1
        self._size = 0
        self._closed = False
        self._kept = 0, b""
        self._blocks = BlockJournal(folder, new_writer, sync=self._sync)
        self._begin()

    @property
    def writer(self) -> str:
        """The writer whose chain is being extended."""
        return self._chain.writer

    @property
    def head(self) -> Position | None:
        """The writer's last entry that was written."""
        count, linked = self._kept
        return Position(count - 1, linked) if count else None

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and write all drafts in one call. When that fails the chain is given up and the next tick begins
        another: no entry that was answered can ever share its place with one that was not."""
        if self._fd < 0:
            self._begin()
        chain = self._chain
        first, previous = chain.seq, chain.previous
        pack_frame = FRAME.pack
        frames: list[bytes] = []
        for draft in drafts:
            head, salt, row = draft.head, draft.salt, draft.row
            lengths = len(head), len(row)
            frames += (pack_frame(MAGIC, *lengths, lengths[0] ^ lengths[1] ^ LENGTHS_MARK), head, salt, row)
            frames.append(chain.extend(head, salt, row))
        block = b"".join(frames)
        try:
            if self._size + len(block) > SEGMENT_BYTES:
                self._start_segment(first, previous, len(block))
            if os.pwrite(self._fd, block, self._size) != len(block):
                raise OSError(errno.ENOSPC, "the disk took only a part of it")
            if self._sync:
                os.fdatasync(self._fd)
        except OSError as error:
            self._let_go()
            raise self._unavailable(error) from None
        self._size += len(block)
        self._kept = chain.seq, chain.previous

    def append_block(self, block: Block) -> None:
        """Write one block, in a segment of blocks; its writer is another one."""
        if self._closed:
            raise Unavailable(f"the journal {self._folder} is closed")
        try:
            self._blocks.append(blocks.encode(block))
        except OSError as error:
            raise self._unavailable(error) from None

    def roll(self) -> None:
        """Go on in a new segment when that is asked for, or this one is old; to be called every second or so. Only
        then can the indexer delete what it stored."""
        self._blocks.roll()
        count, linked = self._kept
        if self._fd < 0 or count == self._first:
            return
        if _roll_asked(self._folder) != self._roll_seen or time.monotonic() - self._begun > ROLL_AFTER_SECONDS:
            try:
                self._start_segment(count, linked)
            except OSError as error:  # this segment is as good as ever
                raise self._unavailable(error) from None

    def close(self) -> None:
        """Give up the lock; the indexer may finish and delete the segment."""
        self._closed = True
        self._blocks.let_go()
        self._let_go()

    def _begin(self) -> None:
        if self._closed:
            raise Unavailable(f"the journal {self._folder} is closed")
        self._chain = Chain(self._new_writer())
        self._kept = 0, b""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._start_segment(0, self._chain.previous)
        except OSError as error:
            raise self._unavailable(error) from None

    def _start_segment(self, first: int, previous: bytes, room: int = 0) -> None:
        roll_seen = _roll_asked(self._folder)
        fd, size = _new_segment(self._folder, Header(FORMAT, self.writer, first, previous.hex()), room)
        self._let_go()
        self._fd, self._size, self._first = fd, size, first
        self._roll_seen, self._begun = roll_seen, time.monotonic()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"the journal {self._folder} cannot be written: {error.strerror}")


class BlockJournal:
    """The appending end of segments of blocks. Each segment has a writer of its own, and there is none before the
    first block. Every method may raise OSError; the segment is given up then."""

    def __init__(self, folder: Path, new_writer: Callable[[], str], *, sync: bool) -> None:
        self._folder = folder
        self._new_writer = new_writer
        self._sync = sync
        self._fd = -1
        self._size = 0
        self._link = b""

    def append(self, payload: bytes) -> None:
        """Write one block."""
        needed = block_segment.FRAME.size + len(payload) + block_segment.LINK_BYTES
        if self._fd >= 0 and self._size + needed > SEGMENT_BYTES:
            self.let_go()
        try:
            if self._fd < 0:
                self._start(needed)
            written, linked = block_segment.frame(self._link, payload)
            if os.pwrite(self._fd, written, self._size) != len(written):
                raise OSError(errno.ENOSPC, "the disk took only a part of it")
            if self._sync:
                os.fdatasync(self._fd)
        except OSError:
            self.let_go()
            raise
        self._size += len(written)
        self._link = linked

    def roll(self) -> None:
        """Give up the segment when that is asked for, or it is old; the next block begins another."""
        if self._fd >= 0 and (
            _roll_asked(self._folder) != self._roll_seen or time.monotonic() - self._begun > ROLL_AFTER_SECONDS
        ):
            self.let_go()

    def let_go(self) -> None:
        """Give up the lock; the indexer may finish and delete the segment."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _start(self, room: int) -> None:
        writer = self._new_writer()
        self._roll_seen, self._begun = _roll_asked(self._folder), time.monotonic()
        self._link = genesis(writer)
        header = Header(block_segment.FORMAT, writer, 0, self._link.hex())
        self._fd, self._size = _new_segment(self._folder, header, room)


def _new_segment(folder: Path, header: Header, room: int) -> tuple[int, int]:
    """A new segment, locked, with its header and room for more: the file, and where its frames begin."""
    line = msgspec.json.encode(header) + b"\n"
    path = folder / f"{header.writer}-{header.first:012d}{SUFFIX}"
    # The lock is taken under another name: a segment can never be seen unlocked while its writer lives.
    hidden = path.with_suffix(STARTING)
    fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _reserve(fd, max(SEGMENT_BYTES, len(line) + room))
        os.pwrite(fd, line, 0)
        hidden.rename(path)
    except OSError:
        os.close(fd)
        hidden.unlink(missing_ok=True)
        raise
    return fd, len(line)


def _roll_asked(folder: Path) -> int:
    """When new segments were asked for last."""
    try:
        return (folder / ROLL).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _reserve(fd: int, size: int) -> None:
    """Let the file have `size` bytes, of disk where the system can promise them."""
    if sys.platform == "linux":
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


class FolderSpool:
    """Every writer's segments in one folder, read by the indexer and by whoever looks for a fresh prediction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reading: dict[Path, Segment | BlockSegment] = {}
        self._positions: dict[str, Position | None] = {}
        self._damages: dict[Path, list[str]] = {}

    def find(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction that still lies in a journal; passes by what cannot be read."""
        wanted = prediction_id.encode()
        for path in self._segments():
            with contextlib.suppress(FileNotFoundError, ValueError, HistoryError):
                segment = open_segment(path)
                if isinstance(segment, Segment):
                    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                        if memory.find(wanted) < 0:
                            continue
                sealed = segment.find(prediction_id)
                if sealed is not None:
                    return Stored(segment.writer, sealed)
        return None

    def after(self, writer: str, seq: int) -> Iterator[Sealed]:
        """One writer's entries that lie in journals, after `seq`."""
        for path in self._segments(writer):
            try:
                yield from (sealed for sealed in open_segment(path).all() if sealed.seq > seq)
            except FileNotFoundError:
                continue  # stored and deleted since it was listed

    def writers(self) -> list[str]:
        """Every writer with a journal."""
        return sorted({_writer_of(path) for path in self._segments()})

    def ends(self) -> dict[str, int]:
        """The last entry of every writer that lies in a segment; nothing of those that cannot be read."""
        newest = {_writer_of(path): path for path in self._segments()}
        found: dict[str, int] = {}
        for writer, path in newest.items():
            with contextlib.suppress(OSError, HistoryError):  # whoever verifies is told
                found[writer] = open_segment(path).last()
        return found

    def drain(self, store: StoreWriter) -> int:
        """Move whole entries into the store and delete the segments that ended and are stored to their end. Damage is
        passed over and reported when all else is done; such a segment is kept under another name."""
        moved = 0
        damaged: HistoryError | None = None
        for path in self._segments():
            try:
                moved += self._drain(path, store)
            except HistoryError as error:
                damaged = damaged or error
        for path in self._folder.glob(f"*{STARTING}"):  # a writer died between making a segment and showing it
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STARTING_SECONDS and is_let_go(path):
                    path.unlink()
        if damaged is not None:
            raise damaged
        return moved

    def _drain(self, path: Path, store: StoreWriter) -> int:
        segment = self._reading.get(path) or open_segment(path)
        self._reading[path] = segment
        ended = segment.ended()  # asked before reading: what comes after the last read is then nothing
        moved = 0
        while (found := self._more(segment, ended)) is not None:
            try:
                moved += self._store(store, segment.writer, found)
            except BaseException:
                segment.back()
                raise
        damage = self._damages.get(path)
        if ended:
            if damage:
                path.rename(path.with_suffix(DAMAGED))
                damage.append(f"it is kept as {path.stem}{DAMAGED}")
            else:
                path.unlink()
            self._damages.pop(path, None)
            del self._reading[path]
        if damage:
            raise HistoryError("; ".join(damage))
        return moved

    def _more(self, segment: Segment | BlockSegment, ended: bool) -> list[Sealed] | None:
        """The next entries; behind damage those that can still be proven. None at the end."""
        try:
            return segment.more() or None
        except HistoryError as error:
            mended = segment.mend()
            if mended is None and not ended:
                raise
            what = "what follows is lost" if mended is None else _lost(mended[1])
            self._damages.setdefault(segment.path, []).append(f"{error.message}: {what}")
            return mended[0] if mended else None

    def backlog(self) -> int:
        """Segments that are not yet stored to their end; one for each live writer is normal."""
        return len(self._segments())

    def journals(self) -> dict[str, str]:
        """Every segment that has or had entries, with its writer."""
        return {path.name: _writer_of(path) for path in self._segments() if _has_entries(path)}

    def damaged(self) -> list[str]:
        """Segments that were put aside."""
        return sorted(path.name for path in self._folder.glob(f"*{DAMAGED}"))

    def cut(self) -> dict[str, int]:
        """Writers of segments that were put aside, each with its first entry that cannot be read from there."""
        found: dict[str, int] = {}
        for name in reversed(self.damaged()):  # of a writer's segments, the first one is told last
            writer, _, first = name.removesuffix(DAMAGED).rpartition("-")
            found[writer] = int(first) if first.isdigit() else 0
            with contextlib.suppress(HistoryError, FileNotFoundError):
                for sealed in open_segment(self._folder / name).all():
                    found[writer] = sealed.seq + 1
        return found

    def ask_to_roll(self) -> None:
        """Ask every writer for a new segment."""
        if self._folder.exists():
            (self._folder / ROLL).touch()

    def _store(self, store: StoreWriter, writer: str, found: list[Sealed]) -> int:
        if writer not in self._positions:
            self._positions[writer] = store.position(writer)
        position = self._positions[writer]
        fresh = [sealed for sealed in found if position is None or sealed.seq > position.seq]
        if fresh:
            store.record(writer, fresh)
            self._positions[writer] = Position(fresh[-1].seq, fresh[-1].link)
        return len(fresh)

    def _segments(self, writer: str = "*") -> list[Path]:
        return sorted(self._folder.glob(f"{writer}-*{SUFFIX}"))


def _writer_of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _has_entries(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.readline(LOOK_AHEAD)
            return bool(file.read(LOOK_AHEAD).strip(b"\0"))
    except FileNotFoundError:
        return False  # stored and deleted since it was listed


def _lost(entries: range) -> str:
    if not entries:
        return "only a link; nothing is lost"
    return f"entry {entries[0]} is lost" if len(entries) == 1 else f"entries {entries[0]} to {entries[-1]} are lost"


@contextmanager
def indexer_lock(folder: Path) -> Iterator[bool]:
    """Whether this process may be the folder's indexer; it is until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "indexer.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
