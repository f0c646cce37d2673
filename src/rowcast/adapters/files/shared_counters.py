"""Counters. Each set of labels identifies an array of float64 cells.

A server with one process keeps its counters in lists. If a server has several processes, each process keeps its
counters in its own memory-mapped file, and the process that handles a metrics request adds up the counters in all
files. If a process is killed, its replacement uses the same file and continues counting.

A file starts with the number of bytes in use (u64). An entry consists of the length of the labels (u32), the number of
cells (u32), the labels as JSON, zeros up to the next multiple of eight, and the cells. The byte order is native: only
this machine reads the files. Disk space for a file is reserved when the file is created. Otherwise, on a full disk, the
kernel would kill a process that writes to a new page.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rowcast.serving.fleet import CounterCells, Counters, Labels

ROOM = 1024 * 1024
ENTRY = struct.Struct("=II")
USED = struct.Struct("=Q")
SUFFIX = ".counts"


def sums(counts: Counters) -> dict[Labels, list[float]]:
    """Return the cells for each set of labels, summed over all processes."""
    totals: dict[Labels, list[float]] = {}
    for labels, cells in counts.each():
        before = totals.get(labels)
        totals[labels] = [a + b for a, b in zip(before, cells, strict=True)] if before else cells
    return totals


class LocalCounters:
    """The counters of a single process."""

    def __init__(self) -> None:
        self._cells: dict[Labels, list[float]] = {}

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """Return the list of cells for these labels; create it if it does not exist."""
        return self._cells.setdefault(labels, [0.0] * count)

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """Yield each set of labels with a copy of its cells."""
        yield from [(labels, list(cells)) for labels, cells in list(self._cells.items())]


class SharedCounters:
    """The counters of one server process, in a folder that all processes of the server can read."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        fd = os.open(folder / f"process-{number}{SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        """Return the cells as a view of the file or, if the file is full, as a list that only this process can read."""
        if labels not in self._places:
            key = msgspec.json.encode(labels)
            at = self._used + ENTRY.size + -(-len(key) // 8) * 8
            end = at + 8 * count
            if end > ROOM:
                return [0.0] * count
            ENTRY.pack_into(self._map, self._used, len(key), count)
            self._map[self._used + ENTRY.size : self._used + ENTRY.size + len(key)] = key
            USED.pack_into(self._map, 0, end)  # written last, so that readers see only complete entries
            self._used = end
            self._places[labels] = (at // 8, count)
        start, count = self._places[labels]
        return self._doubles[start : start + count]

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """Yield the entries of all files in the folder."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            content = path.read_bytes()
            doubles = memoryview(content).cast("d")
            for labels, at, count in _entries(content):
                yield labels, list(doubles[at : at + count])


def _entries(content: bytes | mmap.mmap) -> Iterator[tuple[Labels, int, int]]:
    """Yield each entry's labels, the index of its first cell, and its number of cells."""
    used = USED.unpack_from(content)[0] if len(content) >= ROOM else 0
    at = 8
    while at < used:
        length, count = ENTRY.unpack_from(content, at)
        start = at + ENTRY.size
        labels = tuple(msgspec.json.decode(content[start : start + length], type=list[str]))
        cells = start + -(-length // 8) * 8
        yield labels, cells // 8, count
        at = cells + 8 * count
