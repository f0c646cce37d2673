"""The journal on disk: every worker appends to files of its own, one write a tick, before anyone is answered.

A writer's folder holds segments `WRITER-000000000000.journal`, named by their first sequence number:

    segment   header line: JSON {format, writer, first, previous}, then frames, then zeros
    frame     magic 'RJ', u32 head length, u32 row length, head, 16 bytes salt, row, 32 bytes link   (little-endian)

The link is the frame's checksum too: it covers everything in it and the whole chain before it. A segment's room is
reserved when it is made: a full disk is met before anything is answered, and a write that changes no file size costs a
third (4 µs against 8-20 µs a tick beside a committing indexer). A writer holds a lock on the segment it appends to; the
kernel drops it with the process, and that is how the indexer knows that a segment ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from rowcast.domain.chain import SALT_BYTES, Chain, Draft, Sealed, decode_head, genesis, link, row_hash
from rowcast.errors import HistoryError, Unavailable
from rowcast.ports import Position, Stored, StoreWriter

FORMAT = 1
FRAME = struct.Struct("<2sII")
MAGIC = b"RJ"
LINK_BYTES = 32
SEGMENT_BYTES = 16 * 1024 * 1024
SUFFIX = ".journal"

Durability = Literal["process", "disk"]


class Header(msgspec.Struct, frozen=True):
    """A segment's first line."""

    format: int
    writer: str
    first: int
    previous: str


class FileJournal:
    """One writer's appending end. Seals and writes all drafts of a tick at once, or none."""

    def __init__(self, folder: Path, writer: str, durability: Durability = "process") -> None:
        self.writer = writer
        self._folder = folder
        self._sync = durability == "disk"
        self._chain = Chain(writer)
        self._fd = -1
        self._size = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._start_segment(0, self._chain.previous)
        except OSError as error:
            raise Unavailable(f"the journal {folder} cannot be written: {error.strerror}") from None

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and write all drafts in one call; on failure nothing of them stays and the chain is as before."""
        chain = self._chain
        seq, previous = chain.seq, chain.previous
        frames: list[bytes] = []
        for draft, linked in zip(drafts, chain.extend(drafts), strict=True):
            head, row = draft.head, draft.row
            frames += (FRAME.pack(MAGIC, len(head), len(row)), head, draft.salt, row, linked)
        block = b"".join(frames)
        try:
            if self._size + len(block) > SEGMENT_BYTES:
                self._start_segment(seq, previous, len(block))
            written = os.pwrite(self._fd, block, self._size)
            if written != len(block):
                raise OSError(errno.ENOSPC, "the disk took only a part of it")
            if self._sync:
                os.fdatasync(self._fd)
        except OSError as error:
            chain.rewind(seq, previous)
            self._discard_tail()
            raise Unavailable(f"the journal {self._folder} cannot be written: {error.strerror}") from None
        self._size += written

    def close(self) -> None:
        """Give up the lock; the indexer may finish and delete the segment."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _start_segment(self, first: int, previous: bytes, room: int = 0) -> None:
        header = msgspec.json.encode(Header(FORMAT, self.writer, first, previous.hex())) + b"\n"
        path = self._folder / f"{self.writer}-{first:012d}{SUFFIX}"
        # The lock is taken under another name: a segment can never be seen unlocked while its writer lives.
        hidden = path.with_suffix(".starting")
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _reserve(fd, max(SEGMENT_BYTES, len(header) + room))
            os.pwrite(fd, header, 0)
            hidden.rename(path)
        except OSError:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        self.close()
        self._fd, self._size = fd, len(header)

    def _discard_tail(self) -> None:
        """Make what lies behind the last whole tick zeros again."""
        os.ftruncate(self._fd, self._size)
        with contextlib.suppress(
            OSError
        ):  # without the reserve the next write is slower, or says that the disk is full
            _reserve(self._fd, SEGMENT_BYTES)


def _reserve(fd: int, size: int) -> None:
    """Let the file have `size` bytes, of disk where the system can promise them."""
    if sys.platform == "linux":
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


class Segment:
    """The reading end of one segment: where it is, and how far this reader got."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            line = file.readline(4096)
            self._bytes = os.fstat(file.fileno()).st_size
        try:
            header = msgspec.json.decode(line, type=Header)
        except msgspec.MsgspecError:
            raise HistoryError(f"{path} is not a journal segment") from None
        if header.format != FORMAT:
            raise HistoryError(f"{path} has journal format {header.format}; this version of Rowcast reads {FORMAT}")
        self.writer = header.writer
        self._offset = len(line)
        self._previous = bytes.fromhex(header.previous)
        self._seq = header.first
        if header.first == 0 and self._previous != genesis(header.writer):
            raise HistoryError(f"{path} does not begin where its writer began")

    def more(self, limit: int = 4096) -> list[Sealed]:
        """The next whole, verified entries; HistoryError at a damaged one."""
        found: list[Sealed] = []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while len(found) < limit:
                prefix = file.read(FRAME.size)
                if len(prefix) < FRAME.size or not any(prefix):
                    break
                magic, head_length, row_length = FRAME.unpack(prefix)
                length = head_length + SALT_BYTES + row_length + LINK_BYTES
                body = file.read(length) if magic == MAGIC and length <= self._bytes else b""
                sealed = self._sealed(body, head_length, row_length) if len(body) == length else None
                if sealed is None:
                    self._expect_tail(file, self._offset + FRAME.size + length)
                    break
                found.append(sealed)
                self._previous = sealed.link
                self._seq += 1
                self._offset += FRAME.size + length
        return found

    def _expect_tail(self, file: BinaryIO, end: int) -> None:
        """A frame that does not verify is a write under way, or cut by a crash (then it was never answered), if only
        zeros follow it; else it is damage."""
        file.seek(min(end, self._bytes))
        if any(file.read().strip(b"\0")):
            raise HistoryError(f"{self.path} is damaged at byte {self._offset}: entry {self._seq} does not verify")

    def all(self) -> Iterator[Sealed]:
        """Every entry from here on."""
        while found := self.more():
            yield from found

    def ended(self) -> bool:
        """Whether its writer has let go of it, by moving on or by dying."""
        with self.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _sealed(self, body: bytes, head_length: int, row_length: int) -> Sealed | None:
        head = body[:head_length]
        salt = body[head_length : head_length + SALT_BYTES]
        row = body[head_length + SALT_BYTES : -LINK_BYTES]
        hashed = row_hash(salt, row)
        linked = body[-LINK_BYTES:]
        if link(self._previous, self._seq, head, hashed) != linked:
            return None
        return Sealed(self._seq, head, salt, row, hashed, linked)


class FolderSpool:
    """Every writer's segments in one folder, read by the indexer and by whoever looks for a fresh prediction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reading: dict[Path, Segment] = {}
        self._positions: dict[str, Position | None] = {}

    def find(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction that still lies in a journal."""
        wanted = prediction_id.encode()
        start = b'{"id":"%s"' % wanted
        for path in self._segments():
            try:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                    if memory.find(wanted) < 0:
                        continue
                segment = Segment(path)
                for sealed in segment.all():
                    if decode_head(sealed.head).reply.startswith(start):
                        return Stored(segment.writer, sealed)
            except FileNotFoundError:
                continue  # indexed and deleted since it was listed
        return None

    def after(self, writer: str, seq: int) -> Iterator[Sealed]:
        """One writer's entries that lie in journals, after `seq`."""
        for path in self._segments(writer):
            try:
                yield from (sealed for sealed in Segment(path).all() if sealed.seq > seq)
            except FileNotFoundError:
                continue  # stored and deleted since it was listed

    def writers(self) -> list[str]:
        """Every writer with a journal."""
        return sorted({path.name.rpartition("-")[0] for path in self._segments()})

    def drain(self, store: StoreWriter) -> int:
        """Move whole entries into the store and delete the segments that ended and are stored to their end."""
        moved = 0
        for path in self._segments():
            segment = self._reading.get(path) or Segment(path)
            self._reading[path] = segment
            ended = segment.ended()  # asked before reading: what comes after the last read is then nothing
            while found := segment.more():
                moved += self._store(store, segment.writer, found)
            if ended:
                path.unlink()
                del self._reading[path]
        return moved

    def backlog(self) -> int:
        """Segments that are not yet stored to their end; one for each live writer is normal."""
        return len(self._segments())

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
