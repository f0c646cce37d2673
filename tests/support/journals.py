"""Journals on disk for tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rowcast.adapters.files.journal import FileJournal
from rowcast.history.chain import Draft


def writer_names(first: str = "w") -> Callable[[], str]:
    """Return a function that returns a new writer name on each call: `w`, `w2`, `w3` and so on."""
    names = itertools.chain([first], (f"{first}{number}" for number in itertools.count(2)))
    return lambda: next(names)


def write_segment(folder: Path, *batches: list[Draft], writer: str = "w") -> Path:
    """Write these batches to a journal, close it and return its only segment."""
    journal = FileJournal(folder, lambda: writer)
    for batch in batches:
        journal.append(batch)
    journal.close()
    (segment,) = folder.glob(f"{writer}-*.journal")
    return segment


def end_of_entries(segment: Path) -> int:
    """Return the offset at which the last entry ends; only zeros follow."""
    return len(segment.read_bytes().rstrip(b"\0"))


def file_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list that receives the name and the inode of every later call to `os.pwrite` and `os.fdatasync`."""
    calls: list[tuple[str, int]] = []
    write, flush = os.pwrite, os.fdatasync

    def note_write(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(("pwrite", os.fstat(descriptor).st_ino))
        return write(descriptor, data, offset)

    def note_flush(descriptor: int) -> None:
        calls.append(("fdatasync", os.fstat(descriptor).st_ino))
        flush(descriptor)

    monkeypatch.setattr(os, "pwrite", note_write)
    monkeypatch.setattr(os, "fdatasync", note_flush)
    return calls
