"""Where counters live: cells of float64, found by their labels.

A server of one process counts in lists. Workers count in files that are mapped into memory, one for each worker's
place: whoever is asked for metrics adds them up, and what a killed worker counted is still there for its successor.

A file begins with the number of bytes in use (u64); an entry is u32 length of the labels, u32 number of cells, the
labels as JSON, zeros up to the next multiple of eight, the cells; native byte order, for no other machine reads it. The
room is reserved when the file is made: a page that a full disk has no room for would end the process that touches it.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

ROOM = 1024 * 1024
ENTRY = struct.Struct("=II")
USED = struct.Struct("=Q")
SUFFIX = ".counts"

Labels = tuple[str, ...]


class CounterCells(Protocol):
    """Numbers that are counted up in place: a list, or a view of a file."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, value: float, /) -> None: ...


class Counters(Protocol):
    """CounterCells by family and labels; the first label names the family."""

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """This process's cells of these labels; they begin at 0 and only ever grow."""
        ...

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """Every entry of every worker, dead ones included."""
        ...


def sums(counts: Counters) -> dict[Labels, list[float]]:
    """Every entry, added up over all workers."""
    totals: dict[Labels, list[float]] = {}
    for labels, found in counts.each():
        before = totals.get(labels)
        totals[labels] = [a + b for a, b in zip(before, found, strict=True)] if before else found
    return totals


class LocalCounters:
    """The counters of a single process."""

    def __init__(self) -> None:
        self._cells: dict[Labels, list[float]] = {}

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """A list of its own for each."""
        return self._cells.setdefault(labels, [0.0] * count)

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """What was counted."""
        yield from [(labels, list(cells)) for labels, cells in list(self._cells.items())]


class SharedCounters:
    """The counters of one worker among others, in a folder that all of them read."""

    def __init__(self, folder: Path, worker: int) -> None:
        self._folder = folder
        fd = os.open(folder / f"worker-{worker}{SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if sys.platform == "linux":
                os.posix_fallocate(fd, 0, ROOM)
            elif os.fstat(fd).st_size < ROOM:
                os.pwrite(fd, bytes(ROOM), 0)
            self._map = mmap.mmap(fd, ROOM)
        finally:
            os.close(fd)
        self._doubles = memoryview(self._map).cast("d")
        self._used = USED.unpack_from(self._map)[0] or 8
        self._places = {labels: (at, count) for labels, at, count in _entries(self._map)}

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """A view of the file; a list that nobody else sees once the file is full."""
        if labels not in self._places:
            key = msgspec.json.encode(labels)
            at = self._used + ENTRY.size + -(-len(key) // 8) * 8
            end = at + 8 * count
            if end > ROOM:
                return [0.0] * count
            ENTRY.pack_into(self._map, self._used, len(key), count)
            self._map[self._used + ENTRY.size : self._used + ENTRY.size + len(key)] = key
            USED.pack_into(self._map, 0, end)  # last: a reader sees whole entries
            self._used = end
            self._places[labels] = (at // 8, count)
        start, count = self._places[labels]
        return self._doubles[start : start + count]

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """What all files of the folder hold."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            content = path.read_bytes()
            doubles = memoryview(content).cast("d")
            for labels, at, count in _entries(content):
                yield labels, list(doubles[at : at + count])


def _entries(content: bytes | mmap.mmap) -> Iterator[tuple[Labels, int, int]]:
    """Labels, number of the first cell, number of cells."""
    used = USED.unpack_from(content)[0] if len(content) >= ROOM else 0
    at = 8
    while at < used:
        length, count = ENTRY.unpack_from(content, at)
        start = at + ENTRY.size
        labels = tuple(msgspec.json.decode(content[start : start + length], type=list[str]))
        cells = start + -(-length // 8) * 8
        yield labels, cells // 8, count
        at = cells + 8 * count
