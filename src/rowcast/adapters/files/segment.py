"""The format of a journal segment, and its reader.

    segment   header line: JSON {format, writer, first, previous}, then frames, then zeros
    frame     magic 'RJ', u32 head length, u32 row length, u32 length check, head, 16-byte salt, row,
              32-byte link; little-endian

A link is a checksum of its own entry and of all earlier entries.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import msgspec

from rowcast.adapters.files import block_segment
from rowcast.adapters.files.block_segment import ENTRIES_PER_READ, LINK_BYTES, LOOK_AHEAD, BlockSegment
from rowcast.adapters.files.locks import is_unlocked
from rowcast.errors import HistoryError
from rowcast.history.chain import SALT_BYTES, SealedEntry, decode_head, genesis, link, row_hash
from rowcast.history.ports import Position

FORMAT = 1
FRAME = struct.Struct("<2sIII")
MAGIC = b"RJ"
LENGTHS_MARK = 0x5243_4A31
READ_BYTES = 256 * 1024
RESERVED_BYTES = 16 * 1024 * 1024
"""The size of a new segment. Unused space contains zeros."""


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first line of a segment."""

    format: int
    writer: str
    first: int
    previous: str


def open_segment(path: Path) -> Segment | BlockSegment:
    """Return the reader for a segment's format; raise HistoryError if this release cannot read it."""
    with path.open("rb") as file:
        line = file.readline(LOOK_AHEAD)
    try:
        header = msgspec.json.decode(line, type=SegmentHeader)
        previous = bytes.fromhex(header.previous)
    except ValueError:
        raise HistoryError(f"{path} is not a journal segment") from None
    if header.format < FORMAT or path.stem != f"{header.writer}-{header.first:012d}":
        raise HistoryError(f"{path} has a header that does not match its name")
    if header.format not in (FORMAT, block_segment.FORMAT):
        known = f"{FORMAT} and {block_segment.FORMAT}"
        raise UnknownFormat(f"{path} has journal format {header.format}; this release supports formats {known}")
    if header.first == 0 and previous != genesis(header.writer):
        raise HistoryError(f"{path} has an invalid first link")
    if header.format == block_segment.FORMAT:
        return BlockSegment(path, header.writer, len(line))
    return Segment(path, header, len(line))


class UnknownFormat(HistoryError):
    """Raised if a newer release wrote the segment."""


def salvage_segment(path: Path, position: Position | None) -> Segment | None:
    """Return the reader for a segment whose header is damaged, or None if the file contains no entry.

    The file's name contains the writer and the sequence number of the first entry. `position` is the position of the
    writer's last entry in the store. The first entry can be verified only if it is the writer's first entry or directly
    follows `position`; later entries can always be verified.
    """
    writer, _, number = path.stem.rpartition("-")
    content = path.read_bytes()
    start = content.find(MAGIC)
    while start >= 0 and _frame(content, start) is None:
        start = content.find(MAGIC, start + 1)
    if start < 0 or not number.isdecimal():
        return None
    first = int(number)
    if first == 0:
        previous = genesis(writer)
    elif position is not None and position.seq == first - 1:
        previous = position.link
    else:
        previous = bytes(LINK_BYTES)
    return Segment(path, SegmentHeader(FORMAT, writer, first, previous.hex()), start)


class Segment:
    """Reads one segment that has one entry per frame, and keeps track of the read position."""

    def __init__(self, path: Path, header: SegmentHeader, start: int) -> None:
        self.path = path
        self.writer = header.writer
        self._previous = bytes.fromhex(header.previous)
        self._seq = header.first
        self._offset = start
        self._before: tuple[int, int, bytes]

    def read_more(self) -> list[SealedEntry]:
        """Return the next complete, verified entries.

        Raise HistoryError if the next entry is damaged. Entries before the damage are returned first.
        """
        self._before = (self._offset, self._seq, self._previous)
        entries: list[SealedEntry] = []
        with self.path.open("rb", buffering=0) as file:
            ended = is_unlocked(file)
            while self._read_many(file, entries, ENTRIES_PER_READ):
                pass
            while len(entries) < ENTRIES_PER_READ:
                sealed, end = self._read(file)
                if sealed is None and self._something_follows(file, end, ended):
                    # Data is written in order, so if a later byte exists, this frame is now either complete or damaged.
                    sealed, end = self._read(file)
                    if sealed is None and not entries:
                        raise HistoryError(f"{self.path} is damaged at byte {self._offset} (entry {self._seq})")
                if sealed is None:
                    break  # no more data, or an incomplete write, for which no reply was sent
                entries.append(sealed)
                self._previous = sealed.link
                self._seq += 1
                self._offset = end
        return entries

    def find(self, prediction_id: str) -> SealedEntry | None:
        """Return the entry with this prediction id, or None."""
        start = b'{"id":"%s"' % prediction_id.encode()
        return next((sealed for sealed in self.all() if decode_head(sealed.head).reply.startswith(start)), None)

    def recover(self) -> tuple[list[SealedEntry], range] | None:
        """Skip damaged data and move to the next valid frame; return None if no valid frame follows.

        Otherwise, return a list of recovered entries and the range of lost sequence numbers. If only the link of an
        entry is damaged, the list contains the entry; otherwise, it is empty. A frame is verified against the preceding
        link.
        """
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        frame = _frame(data, 0)
        if frame is not None:
            hashed = row_hash(frame.salt, frame.row)
            linked = link(self._previous, self._seq, frame.head, hashed)
            following = _frame(data, frame.end)
            if following is not None and _verifies(following, linked, self._seq + 1):
                sealed = SealedEntry(self._seq, frame.head, frame.salt, frame.row, hashed, linked)
                return self._continue_at(self._seq + 1, self._offset + frame.end, linked, [sealed])
        at = 0
        while (at := data.find(MAGIC, at + len(MAGIC))) != -1:
            frame = _frame(data, at)
            if frame is not None:
                before = data[at - LINK_BYTES : at]
                most = at // (FRAME.size + SALT_BYTES + LINK_BYTES)
                for seq in range(self._seq + 1, self._seq + 1 + most):
                    if _verifies(frame, before, seq):
                        return self._continue_at(seq, self._offset + at, before, [])
        return None

    def _continue_at(
        self, seq: int, offset: int, linked: bytes, recovered: list[SealedEntry]
    ) -> tuple[list[SealedEntry], range]:
        self._before = (self._offset, self._seq, self._previous)
        lost = range(self._seq + len(recovered), seq)
        self._offset, self._seq, self._previous = offset, seq, linked
        return recovered, lost

    def is_truncated(self) -> bool:
        """Return whether the file ends in the middle of an entry. The file must have been read to its end.

        A writer reserves the disk space for the whole file, so an entry that was not written completely is followed by
        zeros.
        """
        if self.path.stat().st_size >= RESERVED_BYTES:
            return False
        with self.path.open("rb") as file:
            file.seek(self._offset)
            return bool(file.read().strip(b"\0"))

    def rewind(self) -> None:
        """Undo the most recent `read_more`; call this if its entries could not be stored."""
        self._offset, self._seq, self._previous = self._before

    def all(self) -> Iterator[SealedEntry]:
        """Yield every entry from the current position on."""
        while entries := self.read_more():
            yield from entries

    def last(self) -> int:
        """Return the `seq` of the last entry, or one less than the segment's first `seq` if there are no entries."""
        return max((sealed.seq for sealed in self.all()), default=self._seq - 1)

    def ended(self) -> bool:
        """Return whether the writer has released the segment or died."""
        return has_ended(self.path)

    def _read_many(self, file: FileIO, entries: list[SealedEntry], limit: int) -> bool:
        """Read one large chunk, append its complete entries to `entries`, and return whether there were any.

        Hot path: two reads per entry would take a fifth of the indexer's time.
        """
        data = os.pread(file.fileno(), READ_BYTES, self._offset)
        at, before, last = 0, len(entries), len(data) - FRAME.size
        previous, seq, unpack = self._previous, self._seq, FRAME.unpack_from
        while len(entries) < limit and at <= last:
            magic, head_length, row_length, mark = unpack(data, at)
            if magic != MAGIC or mark != head_length ^ row_length ^ LENGTHS_MARK:
                break
            start = at + FRAME.size
            salted = start + head_length
            linking = salted + SALT_BYTES + row_length
            hashed = sha256(data[salted:linking]).digest()
            head, linked = data[start:salted], data[linking : linking + LINK_BYTES]
            if link(previous, seq, head, hashed) != linked:
                break
            row_start = salted + SALT_BYTES
            entries.append(SealedEntry(seq, head, data[salted:row_start], data[row_start:linking], hashed, linked))
            previous = linked
            seq += 1
            at = linking + LINK_BYTES
        self._previous, self._seq = previous, seq
        self._offset += at
        return len(entries) > before

    def _read(self, file: FileIO) -> tuple[SealedEntry | None, int]:
        """Return the next entry (None if it is incomplete or invalid) and the offset at which it should end."""
        prefix = os.pread(file.fileno(), FRAME.size, self._offset)
        start = self._offset + FRAME.size
        if len(prefix) < FRAME.size:
            return None, start
        magic, head_length, row_length, mark = FRAME.unpack(prefix)
        if magic != MAGIC or mark != head_length ^ row_length ^ LENGTHS_MARK:
            return None, start
        length = head_length + SALT_BYTES + row_length + LINK_BYTES
        body = os.pread(file.fileno(), length, start)
        if len(body) < length:
            return None, start + length
        head, linked = body[:head_length], body[-LINK_BYTES:]
        salt = body[head_length : head_length + SALT_BYTES]
        row = body[head_length + SALT_BYTES : -LINK_BYTES]
        hashed = row_hash(salt, row)
        if link(self._previous, self._seq, head, hashed) != linked:
            return None, start + length
        return SealedEntry(self._seq, head, salt, row, hashed, linked), start + length

    def _something_follows(self, file: FileIO, end: int, ended: bool) -> bool:
        """Return whether data follows `end`. If the segment is in use, examine only the next `LOOK_AHEAD` bytes."""
        size = os.fstat(file.fileno()).st_size if ended else LOOK_AHEAD
        return bool(os.pread(file.fileno(), size, end).strip(b"\0"))


class _EntryFrame(NamedTuple):
    head: bytes
    salt: bytes
    row: bytes
    link: bytes
    end: int


def _frame(data: bytes, at: int) -> _EntryFrame | None:
    """Parse the bytes at an offset as a frame without verifying its link; return None if they are not a frame."""
    start = at + FRAME.size
    if len(data) < start:
        return None
    magic, head_length, row_length, mark = FRAME.unpack_from(data, at)
    end = start + head_length + SALT_BYTES + row_length + LINK_BYTES
    if magic != MAGIC or mark != head_length ^ row_length ^ LENGTHS_MARK or len(data) < end:
        return None
    salt = start + head_length
    row = salt + SALT_BYTES
    return _EntryFrame(
        data[start:salt], data[salt:row], data[row : end - LINK_BYTES], data[end - LINK_BYTES : end], end
    )


def _verifies(frame: _EntryFrame, previous: bytes, seq: int) -> bool:
    return link(previous, seq, frame.head, row_hash(frame.salt, frame.row)) == frame.link


def has_ended(path: Path) -> bool:
    """Return whether the writer of this file has released the file or died."""
    with path.open("rb") as file:
        return is_unlocked(file)
