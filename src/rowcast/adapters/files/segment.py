"""A journal's segment: its format, and its reading end.

    segment   header line: JSON {format, writer, first, previous}, then frames, then zeros
    frame     magic 'RJ', u32 head length, u32 row length, u32 mark (the lengths' own check), head, 16 bytes salt, row,
              32 bytes link; little-endian

The link is the frame's checksum too: it covers everything in it and the whole chain before it.
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

from rowcast.adapters.files import blocks
from rowcast.adapters.files.blocks import BlockSegment
from rowcast.adapters.files.locks import is_unlocked
from rowcast.errors import HistoryError
from rowcast.history.chain import SALT_BYTES, Sealed, decode_head, genesis, link, row_hash

FORMAT = 1
FRAME = struct.Struct("<2sIII")
MAGIC = b"RJ"
LENGTHS_MARK = 0x5243_4A31
LINK_BYTES = 32
LOOK_AHEAD = 4096
READ_BYTES = 256 * 1024


class Header(msgspec.Struct, frozen=True):
    """A segment's first line."""

    format: int
    writer: str
    first: int
    previous: str


def open_segment(path: Path) -> Segment | BlockSegment:
    """A reader of whatever this segment holds; HistoryError when this version cannot read it."""
    with path.open("rb") as file:
        line = file.readline(4096)
    try:
        header = msgspec.json.decode(line, type=Header)
        previous = bytes.fromhex(header.previous)
    except ValueError:
        raise HistoryError(f"{path} is not a journal segment") from None
    if header.format not in (FORMAT, blocks.FORMAT):
        known = f"{FORMAT} and {blocks.FORMAT}"
        raise HistoryError(f"{path} has journal format {header.format}; this version of Rowcast reads {known}")
    if header.first == 0 and previous != genesis(header.writer):
        raise HistoryError(f"{path} does not begin where its writer began")
    if header.format == blocks.FORMAT:
        return BlockSegment(path, header.writer, len(line))
    return Segment(path, header, len(line))


class Segment:
    """The reading end of one segment: where it is, and how far this reader got."""

    def __init__(self, path: Path, header: Header, start: int) -> None:
        self.path = path
        self.writer = header.writer
        self._previous = bytes.fromhex(header.previous)
        self._seq = header.first
        self._offset = start
        self._before = (self._offset, self._seq, self._previous)

    def more(self, limit: int = 4096) -> list[Sealed]:
        """The next whole, verified entries. Those before a damaged one come first; then HistoryError names it."""
        self._before = (self._offset, self._seq, self._previous)
        found: list[Sealed] = []
        with self.path.open("rb", buffering=0) as file:
            ended = is_unlocked(file)
            while self._take(file, found, limit):
                pass
            while len(found) < limit:
                sealed, end = self._read(file)
                if sealed is None and self._something_follows(file, end, ended):
                    # Pages are written in order: what comes before a written byte is written too, or it is damaged.
                    sealed, end = self._read(file)
                    if sealed is None and not found:
                        raise HistoryError(f"{self.path} is damaged at byte {self._offset}: entry {self._seq}")
                if sealed is None:
                    break  # nothing yet, or a write under way, or one cut by a crash: it was never answered
                found.append(sealed)
                self._previous = sealed.link
                self._seq += 1
                self._offset = end
        return found

    def find(self, prediction_id: str) -> Sealed | None:
        """The entry of this id."""
        start = b'{"id":"%s"' % prediction_id.encode()
        return next((sealed for sealed in self.all() if decode_head(sealed.head).reply.startswith(start)), None)

    def mend(self) -> tuple[list[Sealed], range] | None:
        """Go on behind damage: entries whose link alone was damaged, and which are lost; None when nothing behind
        proves itself. A frame is proven by the link that stands before it."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        frame = _frame(data, 0)
        if frame is not None:
            hashed = row_hash(frame.salt, frame.row)
            linked = link(self._previous, self._seq, frame.head, hashed)
            following = _frame(data, frame.end)
            if following is not None and _proves(following, linked, self._seq + 1):
                sealed = Sealed(self._seq, frame.head, frame.salt, frame.row, hashed, linked)
                return self._go_on(self._seq + 1, self._offset + frame.end, linked, [sealed])
        at = data.find(MAGIC, 1)
        while at > 0:
            frame = _frame(data, at)
            before = data[max(0, at - LINK_BYTES) : at]
            most = at // (FRAME.size + SALT_BYTES + LINK_BYTES)
            for seq in range(self._seq + 1, self._seq + 1 + most) if frame is not None else ():
                if frame is not None and _proves(frame, before, seq):
                    return self._go_on(seq, self._offset + at, before, [])
            at = data.find(MAGIC, at + 1)
        return None

    def _go_on(self, seq: int, offset: int, linked: bytes, mended: list[Sealed]) -> tuple[list[Sealed], range]:
        self._before = (self._offset, self._seq, self._previous)
        lost = range(self._seq + len(mended), seq)
        self._offset, self._seq, self._previous = offset, seq, linked
        return mended, lost

    def back(self) -> None:
        """Undo the last `more`: what it gave was not kept."""
        self._offset, self._seq, self._previous = self._before

    def all(self) -> Iterator[Sealed]:
        """Every entry from here on."""
        while found := self.more():
            yield from found

    def last(self) -> int:
        """The number of the last entry, or of the one before this segment."""
        return max((sealed.seq for sealed in self.all()), default=self._seq - 1)

    def ended(self) -> bool:
        """Whether its writer has let go of it, by moving on or by dying."""
        return is_let_go(self.path)

    def _take(self, file: FileIO, found: list[Sealed], limit: int) -> bool:
        """Add the whole entries of one large read, and say whether there were any. HOT: two reads an entry cost the
        indexer a fifth of its time."""
        data = os.pread(file.fileno(), READ_BYTES, self._offset)
        at, before, last = 0, len(found), len(data) - FRAME.size
        previous, seq, unpack = self._previous, self._seq, FRAME.unpack_from
        while len(found) < limit and at <= last:
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
            kept = salted + SALT_BYTES
            found.append(Sealed(seq, head, data[salted:kept], data[kept:linking], hashed, linked))
            previous = linked
            seq += 1
            at = linking + LINK_BYTES
        self._previous, self._seq = previous, seq
        self._offset += at
        return len(found) > before

    def _read(self, file: FileIO) -> tuple[Sealed | None, int]:
        """The entry at the offset if it is whole and verifies, and where it ends as far as can be told."""
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
        return Sealed(self._seq, head, salt, row, hashed, linked), start + length

    def _something_follows(self, file: FileIO, end: int, ended: bool) -> bool:
        """Whether anything is written behind `end`; of a segment still written, only the next bytes are looked at."""
        size = os.fstat(file.fileno()).st_size - end if ended else LOOK_AHEAD
        return bool(os.pread(file.fileno(), max(0, size), end).strip(b"\0"))


class _Frame(NamedTuple):
    head: bytes
    salt: bytes
    row: bytes
    link: bytes
    end: int


def _frame(data: bytes, at: int) -> _Frame | None:
    """What stands at a place if it looks like a frame, not proven yet."""
    start = at + FRAME.size
    if len(data) < start:
        return None
    magic, head_length, row_length, mark = FRAME.unpack_from(data, at)
    end = start + head_length + SALT_BYTES + row_length + LINK_BYTES
    if magic != MAGIC or mark != head_length ^ row_length ^ LENGTHS_MARK or len(data) < end:
        return None
    salt = start + head_length
    row = salt + SALT_BYTES
    return _Frame(data[start:salt], data[salt:row], data[row : end - LINK_BYTES], data[end - LINK_BYTES : end], end)


def _proves(frame: _Frame, previous: bytes, seq: int) -> bool:
    return link(previous, seq, frame.head, row_hash(frame.salt, frame.row)) == frame.link


def is_let_go(path: Path) -> bool:
    """Whether no writer holds this file any more."""
    with path.open("rb") as file:
        return is_unlocked(file)
