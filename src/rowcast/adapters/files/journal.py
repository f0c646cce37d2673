"""The journal on disk. Each server process appends every batch to its own files, in a single write, before it replies.

A journal consists of segments. A segment's name, such as `WRITER-000000000000.journal`, contains the sequence number of
its first entry. `segment.py` describes the format of segments, and `journal_reader.py` reads them.

The disk space for a segment is reserved when the segment is created. A full disk is therefore detected before a reply
is sent. Writes are also faster, because they do not change the file size (4 µs instead of 8 to 20 µs per batch while
the indexer is committing). A writer locks its segment. The kernel releases the lock when the process exits. An unlocked
segment therefore receives no more entries.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from rowcast.adapters.files import block_segment
from rowcast.adapters.files.segment import FORMAT, FRAME, LENGTHS_MARK, MAGIC, RESERVED_BYTES, SegmentHeader
from rowcast.errors import Unavailable
from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.history.chain import Chain, Draft, genesis
from rowcast.history.ports import Position
from rowcast.private_files import make_private_folder

SUFFIX = ".journal"
STARTING = ".starting"
ROLL = "roll"
"""The name of a file in the folder. When this file's modification time changes, every writer starts a new segment."""
ROLL_AFTER_SECONDS = 3600.0
"""The maximum age of a segment that contains entries, in seconds. This limit determines how long erased rows can remain
on disk.
"""

Durability = Literal["process", "disk", "store"]


class FileJournal:
    """Appends entries for one writer at a time. Each batch is written completely or not at all."""

    def __init__(self, folder: Path, new_writer: Callable[[], str], durability: Durability = "process") -> None:
        self._folder = folder
        self._new_writer = new_writer
        self._sync = durability == "disk"
        self._fd: int | None = None
        self._closed = False
        self._blocks = BlockJournal(folder, new_writer, sync=self._sync)
        self._begin()

    @property
    def writer(self) -> str:
        """The current writer."""
        return self._chain.writer

    @property
    def head(self) -> Position | None:
        """The position of the writer's most recent entry."""
        count, linked = self._kept
        return Position(count - 1, linked) if count else None

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal all drafts and append them in a single write; raise Unavailable if the write fails.

        A failed write ends the chain, and the next batch starts a new chain. Two different entries can therefore never
        have the same position in a chain.
        """
        fd = self._begin() if self._fd is None else self._fd
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
            if self._size + len(block) > RESERVED_BYTES:
                fd = self._start_segment(first, previous, len(block))
            if os.pwrite(fd, block, self._size) != len(block):
                raise OSError(errno.ENOSPC, "the disk accepted only part of the data")
            if self._sync:
                os.fdatasync(fd)
        except OSError as error:
            self._release()
            raise self._unavailable(error) from None
        self._size += len(block)
        self._kept = chain.seq, chain.previous

    def append_block(self, block: Block) -> None:
        """Write one block to a block segment, which has its own writer."""
        if self._closed:
            raise Unavailable(f"journal {self._folder} is closed")
        try:
            self._blocks.append(blocks.encode(block))
        except OSError as error:
            raise self._unavailable(error) from None

    def roll(self) -> None:
        """Start a new segment if one was requested or if the current segment is old.

        The indexer can then delete the old segment. Call this method about once a second.
        """
        self._blocks.roll()
        count, linked = self._kept
        if self._fd is None or count == self._first:
            return
        if _roll_requested(self._folder) != self._last_roll or time.monotonic() - self._begun > ROLL_AFTER_SECONDS:
            try:
                self._start_segment(count, linked)
            except OSError as error:  # the current segment can still be used
                raise self._unavailable(error) from None

    def close(self) -> None:
        """Release the segment so that the indexer can store the remaining entries and delete the segment."""
        self._closed = True
        self._blocks.release()
        self._release()

    def _begin(self) -> int:
        if self._closed:
            raise Unavailable(f"journal {self._folder} is closed")
        self._chain = Chain(self._new_writer())
        self._kept = 0, b""
        try:
            make_private_folder(self._folder)
            return self._start_segment(0, self._chain.previous)
        except OSError as error:
            raise self._unavailable(error) from None

    def _start_segment(self, first: int, previous: bytes, room: int = 0) -> int:
        last_roll = _roll_requested(self._folder)
        fd, size = _new_segment(self._folder, SegmentHeader(FORMAT, self.writer, first, previous.hex()), room)
        self._release()
        self._fd, self._size, self._first = fd, size, first
        self._last_roll, self._begun = last_roll, time.monotonic()
        return fd

    def _release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"cannot write to the journal {self._folder}: {error.strerror}")


class BlockJournal:
    """Appends blocks. Each segment has its own writer. No segment is created before the first block is written.

    A failed write raises OSError and ends the current segment.
    """

    def __init__(self, folder: Path, new_writer: Callable[[], str], *, sync: bool) -> None:
        self._folder = folder
        self._new_writer = new_writer
        self._sync = sync
        self._fd: int | None = None
        self._size: int
        self._link: bytes

    def append(self, payload: bytes) -> None:
        """Write one block."""
        needed = block_segment.FRAME.size + len(payload) + block_segment.LINK_BYTES
        if self._fd is not None and self._size + needed > RESERVED_BYTES:
            self.release()
        try:
            fd = self._start(needed) if self._fd is None else self._fd
            written, linked = block_segment.frame(self._link, payload)
            if os.pwrite(fd, written, self._size) != len(written):
                raise OSError(errno.ENOSPC, "the disk accepted only part of the data")
            if self._sync:
                os.fdatasync(fd)
        except OSError:
            self.release()
            raise
        self._size += len(written)
        self._link = linked

    def roll(self) -> None:
        """End the segment if it is old or if a new segment was requested; the next block starts the new segment."""
        if self._fd is not None and (
            _roll_requested(self._folder) != self._last_roll or time.monotonic() - self._begun > ROLL_AFTER_SECONDS
        ):
            self.release()

    def release(self) -> None:
        """Release the segment so that the indexer can store the remaining entries and delete the segment."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _start(self, room: int) -> int:
        writer = self._new_writer()
        self._last_roll, self._begun = _roll_requested(self._folder), time.monotonic()
        self._link = genesis(writer)
        header = SegmentHeader(block_segment.FORMAT, writer, 0, self._link.hex())
        fd, self._size = _new_segment(self._folder, header, room)
        self._fd = fd
        return fd


def _new_segment(folder: Path, header: SegmentHeader, room: int) -> tuple[int, int]:
    """Create and lock a segment with reserved disk space; return the descriptor and the offset of the first frame."""
    line = msgspec.json.encode(header) + b"\n"
    path = folder / f"{header.writer}-{header.first:012d}{SUFFIX}"
    # The file is locked before it gets its final name, so readers never see an unlocked segment of a live writer.
    hidden = path.with_suffix(STARTING)
    fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _reserve(fd, max(RESERVED_BYTES, len(line) + room))
        os.pwrite(fd, line, 0)
        hidden.rename(path)
    except OSError:
        os.close(fd)
        hidden.unlink(missing_ok=True)
        raise
    return fd, len(line)


def _roll_requested(folder: Path) -> int:
    """Return the time of the most recent request for new segments, or 0 if there was none."""
    try:
        return (folder / ROLL).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _reserve(fd: int, size: int) -> None:
    """Extend the file to `size` bytes, and reserve the disk space if the operating system supports it."""
    if sys.platform == "linux":
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)
