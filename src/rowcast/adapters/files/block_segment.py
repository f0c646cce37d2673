"""The format of a block segment, and its reader. A block contains all predictions of one large request.

    segment   header line: JSON {format: 2, writer, first: 0, previous}, then frames, then zeros
    frame     magic 'RB', u32 payload length, u32 length check, payload, 32-byte link; little-endian

The payload is an encoded block. Each link is H(previous link ‖ payload), a checksum of its own frame and of all earlier
frames; for the first frame, the previous link is the writer's genesis. The reader expands the blocks into entries and
computes their hash chain, which is not stored in the segment (docs/decisions/0049).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from io import FileIO
from pathlib import Path

from rowcast.adapters.files.locks import is_unlocked
from rowcast.errors import HistoryError
from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.history.chain import Chain, SealedEntry, decode_head, genesis

FORMAT = 2
FRAME = struct.Struct("<2sII")
MAGIC = b"RB"
LENGTH_MARK = 0x5243_4232
LINK_BYTES = 32
ENTRIES_PER_READ = 4096
LOOK_AHEAD = 4096


def frame(previous: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """Encode a payload as a frame; return the frame and its link."""
    linked = sha256(previous + payload).digest()
    return b"".join((FRAME.pack(MAGIC, len(payload), len(payload) ^ LENGTH_MARK), payload, linked)), linked


class BlockSegment:
    """Reads one block segment and keeps track of the read position."""

    def __init__(self, path: Path, writer: str, start: int) -> None:
        self.path = path
        self.writer = writer
        self._offset = start
        self._link = genesis(writer)
        self._chain = Chain(writer)
        self._before: tuple[int, bytes, int, bytes]

    def read_more(self) -> list[SealedEntry]:
        """Return the entries of the next complete blocks; raise HistoryError if the next block is damaged."""
        self._before = (self._offset, self._link, self._chain.seq, self._chain.previous)
        entries: list[SealedEntry] = []
        with self.path.open("rb", buffering=0) as file:
            ended = is_unlocked(file)
            while len(entries) < ENTRIES_PER_READ:
                block, end = self._next(file)
                if block is None and self._something_follows(file, end, ended):
                    # Data is written in order, so if a later byte exists, this block is now either complete or damaged.
                    block, end = self._next(file)
                    if block is None and not entries:
                        raise HistoryError(f"{self.path} is damaged at byte {self._offset} (a block of predictions)")
                if block is None:
                    break  # no more data, or an incomplete block, for which no reply was sent
                entries += [self._chain.seal(draft) for draft in blocks.entries(block)]
        return entries

    def find(self, prediction_id: str) -> SealedEntry | None:
        """Return the entry with this prediction id, or None. Expand the blocks only if one of them contains the id."""
        if not any(blocks.contains(block, prediction_id) for block in self._blocks()):
            return None
        start = b'{"id":"%s"' % prediction_id.encode()
        return next((sealed for sealed in self.all() if decode_head(sealed.head).reply.startswith(start)), None)

    def _blocks(self) -> Iterator[Block]:
        """Yield every complete block from the current position on, without changing the position."""
        before = self._offset, self._link
        try:
            with self.path.open("rb", buffering=0) as file:
                while (block := self._next(file)[0]) is not None:
                    yield block
        finally:
            self._offset, self._link = before

    def recover(self) -> None:
        """Return None: each link covers all earlier blocks, so nothing after a damaged block can be verified."""

    def is_truncated(self) -> bool:
        """Return False: a block that is incomplete was never acknowledged."""
        return False

    def rewind(self) -> None:
        """Undo the most recent `read_more`; call this if its entries could not be stored."""
        self._offset, self._link, self._chain.seq, self._chain.previous = self._before

    def all(self) -> Iterator[SealedEntry]:
        """Yield every entry from the current position on."""
        while entries := self.read_more():
            yield from entries

    def last(self) -> int:
        """Return the `seq` of the last entry, or -1 if there are no entries, without expanding any block."""
        return sum(block.rows for block in self._blocks()) - 1

    def ended(self) -> bool:
        """Return whether the writer has released the segment or died."""
        with self.path.open("rb") as file:
            return is_unlocked(file)

    def _next(self, file: FileIO) -> tuple[Block | None, int]:
        """Return the next block (None if it is incomplete or damaged) and the offset at which it should end."""
        prefix = os.pread(file.fileno(), FRAME.size, self._offset)
        start = self._offset + FRAME.size
        if len(prefix) < FRAME.size:
            return None, start
        magic, length, mark = FRAME.unpack(prefix)
        if magic != MAGIC or mark != length ^ LENGTH_MARK:
            return None, start
        body = os.pread(file.fileno(), length + LINK_BYTES, start)
        payload, linked = body[:length], body[length:]
        end = start + length + LINK_BYTES
        if linked != sha256(self._link + payload).digest():
            return None, end
        self._link, self._offset = linked, end
        return blocks.decode(payload), end

    def _something_follows(self, file: FileIO, end: int, ended: bool) -> bool:
        """Return whether data follows `end`. If the segment is in use, examine only the next `LOOK_AHEAD` bytes."""
        size = os.fstat(file.fileno()).st_size if ended else LOOK_AHEAD
        return bool(os.pread(file.fileno(), size, end).strip(b"\0"))
