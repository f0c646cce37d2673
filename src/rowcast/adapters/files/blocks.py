"""Segments of blocks: many predictions written as one piece, and opened by whoever reads them.

    segment   header line: JSON {format: 2, writer, first: 0, previous}, then frames, then zeros
    frame     magic 'RB', u32 payload length, u32 mark (the length's own check), payload, 32 bytes link; little-endian

The link is H(link before ‖ payload), the one before the first is the writer's genesis: it is the frame's checksum and
covers all frames before it. Opened, the blocks of a segment are the entries of one writer in order, from 0, with the
chain that any writer has: it follows from the blocks alone (docs/decisions/0049).
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
from rowcast.history.chain import Chain, Sealed, decode_head, genesis, row_hash

FORMAT = 2
FRAME = struct.Struct("<2sII")
MAGIC = b"RB"
LENGTH_MARK = 0x5243_4232
LINK_BYTES = 32


def frame(previous: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A payload as it is written, and its link."""
    linked = sha256(previous + payload).digest()
    return b"".join((FRAME.pack(MAGIC, len(payload), len(payload) ^ LENGTH_MARK), payload, linked)), linked


class BlockSegment:
    """The reading end of one segment of blocks: where it is, and how far this reader got."""

    def __init__(self, path: Path, writer: str, start: int) -> None:
        self.path = path
        self.writer = writer
        self._offset = start
        self._link = genesis(writer)
        self._chain = Chain(writer)
        self._before = (start, self._link, 0, self._chain.previous)

    def more(self, limit: int = 4096) -> list[Sealed]:
        """The next entries, of whole blocks; HistoryError where one is damaged."""
        self._before = (self._offset, self._link, self._chain.seq, self._chain.previous)
        found: list[Sealed] = []
        with self.path.open("rb", buffering=0) as file:
            ended = is_unlocked(file)
            while len(found) < limit:
                block = self._next(file, ended, proven=bool(found))
                if block is None:
                    break
                found += self._opened(block)
        return found

    def find(self, prediction_id: str) -> Sealed | None:
        """The entry of this id; nothing is opened when no block has it."""
        if not any(blocks.holds(block, prediction_id) for block in self._unopened()):
            return None
        start = b'{"id":"%s"' % prediction_id.encode()
        return next((sealed for sealed in self.all() if decode_head(sealed.head).reply.startswith(start)), None)

    def _unopened(self) -> Iterator[Block]:
        """Every whole block from here on; where this reader stands does not change."""
        before = self._offset, self._link
        try:
            with self.path.open("rb", buffering=0) as file:
                while (block := self._next(file, ended=False, proven=True)) is not None:
                    yield block
        finally:
            self._offset, self._link = before

    def mend(self) -> None:
        """Behind damage nothing can be proven: the links of blocks cover all before them."""

    def back(self) -> None:
        """Undo the last `more`: what it gave was not kept."""
        self._offset, self._link, self._chain.seq, self._chain.previous = self._before

    def all(self) -> Iterator[Sealed]:
        """Every entry from here on."""
        while found := self.more():
            yield from found

    def last(self) -> int:
        """The number of the last entry, or -1; nothing is opened."""
        return sum(block.rows for block in self._unopened()) - 1

    def ended(self) -> bool:
        """Whether its writer has let go of it."""
        with self.path.open("rb") as file:
            return is_unlocked(file)

    def _opened(self, block: Block) -> list[Sealed]:
        made = []
        for draft in blocks.entries(block):
            seq = self._chain.seq
            linked = self._chain.extend(draft.head, draft.salt, draft.row)
            made.append(Sealed(seq, draft.head, draft.salt, draft.row, row_hash(draft.salt, draft.row), linked))
        return made

    def _next(self, file: FileIO, ended: bool, *, proven: bool) -> Block | None:
        """The block at the offset; None when there is none yet, or one cut by a crash: it was never answered."""
        prefix = os.pread(file.fileno(), FRAME.size, self._offset)
        if len(prefix) == FRAME.size and prefix.strip(b"\0"):
            magic, length, mark = FRAME.unpack(prefix)
            if magic == MAGIC and mark == length ^ LENGTH_MARK:
                body = os.pread(file.fileno(), length + LINK_BYTES, self._offset + FRAME.size)
                payload, linked = body[:length], body[length:]
                if linked == sha256(self._link + payload).digest():
                    self._link = linked
                    self._offset += FRAME.size + length + LINK_BYTES
                    return blocks.decode(payload)
                end = self._offset + FRAME.size + length + LINK_BYTES
            else:
                end = self._offset + FRAME.size
            if not proven and self._something_follows(file, end, ended):
                raise HistoryError(f"{self.path} is damaged at byte {self._offset}: a block of predictions")
        return None

    def _something_follows(self, file: FileIO, end: int, ended: bool) -> bool:
        size = os.fstat(file.fileno()).st_size - end if ended else 4096
        return bool(os.pread(file.fileno(), max(0, size), end).strip(b"\0"))
