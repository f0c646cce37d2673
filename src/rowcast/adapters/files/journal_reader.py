"""Reads the journals in one folder, both for lookups and for the indexer, which moves entries into the store.

A folder has at most one indexer at a time: the process that holds `indexer_lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.adapters.files.block_segment import LOOK_AHEAD, BlockSegment
from rowcast.adapters.files.journal import ROLL, STARTING, SUFFIX
from rowcast.adapters.files.segment import Segment, UnknownFormat, has_ended, open_segment, salvage_segment
from rowcast.errors import HistoryError, Unavailable
from rowcast.history.chain import SealedEntry
from rowcast.history.ports import Position, StoredEntry, StoreWriter
from rowcast.private_files import make_private_folder

STARTING_SECONDS = 60
PIECE_BYTES = 1024 * 1024
DAMAGED = ".damaged"
FOLDER_ID = "folder.id"


class FolderJournalReader:
    """Reads the segments of every writer in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: dict[Path, Segment | BlockSegment] = {}
        self._positions: dict[str, Position | None] = {}
        self._damage: dict[Path, list[str]] = {}

    @property
    def folder_id(self) -> str:
        """The folder's id, stored in a file that is created on first use."""
        path = self._folder / FOLDER_ID
        try:
            if not path.exists():
                self._create_id(path)
            return path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise Unavailable(f"cannot write to the journal {self._folder}: {error.strerror}") from None

    def _create_id(self, path: Path) -> None:
        make_private_folder(self._folder)
        part = path.with_name(f".{FOLDER_ID}.{uuid.uuid4().hex}")
        part.write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
        with contextlib.suppress(FileExistsError):  # another process created the file first
            os.link(part, path)
        part.unlink()

    def find(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry for this prediction if it is still in a journal; skip segments that cannot be read."""
        pattern = prediction_id.encode()
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError, ValueError, HistoryError):
                segment = open_segment(path)
                if isinstance(segment, Segment) and not _contains(path, pattern):
                    continue
                sealed = segment.find(prediction_id)
                if sealed is not None:
                    return StoredEntry(segment.writer, sealed)
        return None

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries with a `seq` above `after`, in order."""
        for path in self._paths(writer):
            try:
                yield from (sealed for sealed in open_segment(path).all() if sealed.seq > after)
            except FileNotFoundError:
                continue  # the indexer has stored and deleted this segment

    def writers(self) -> list[str]:
        """Return every writer that has a segment."""
        return sorted({_writer_of(path) for path in self._paths()})

    def last_seqs(self) -> dict[str, int]:
        """Return the highest `seq` in each writer's segments; skip segments that cannot be read."""
        newest = {_writer_of(path): path for path in self._paths()}
        seqs: dict[str, int] = {}
        for writer, path in newest.items():
            with contextlib.suppress(OSError, HistoryError):  # verification reports damage
                seqs[writer] = open_segment(path).last()
        return seqs

    def drain(self, store: StoreWriter) -> int:
        """Move complete entries into the store, and delete each completed segment once all its entries are stored."""
        count = 0
        damage: HistoryError | None = None
        for path in self._paths():
            try:
                count += self._drain(path, store)
            except FileNotFoundError:
                self._segments.pop(path, None)
                loss = "entries that were not yet in the store are lost"
                damage = damage or HistoryError(f"{path} was deleted by another program; {loss}")
            except HistoryError as error:
                damage = damage or error
        for path in self._folder.glob(f"*{STARTING}"):  # left by a writer that died while creating a segment
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STARTING_SECONDS and has_ended(path):
                    path.unlink()
        if damage is not None:
            raise damage
        return count

    def _drain(self, path: Path, store: StoreWriter) -> int:
        segment = self._segments.get(path) or self._open(path, store)
        self._segments[path] = segment
        ended = segment.ended()  # checked before reading, so that a completed segment is read to its end
        count = 0
        while (entries := self._read_more(segment, ended)) is not None:
            try:
                count += self._record(store, segment.writer, entries)
            except BaseException:
                segment.rewind()
                raise
        if ended and segment.is_truncated():
            reason = f"{path} ends in the middle of an entry; this entry and all later entries are lost"
            self._damage.setdefault(path, []).append(reason)
        damage = self._damage.get(path)
        if ended:
            if damage:
                path.rename(path.with_suffix(DAMAGED))
                damage.append(f"the file was renamed to {path.stem}{DAMAGED}")
            else:
                path.unlink(missing_ok=True)
            self._damage.pop(path, None)
            del self._segments[path]
        if damage:
            raise HistoryError("; ".join(damage))
        return count

    def _open(self, path: Path, store: StoreWriter) -> Segment | BlockSegment:
        """Open a segment, even if its header is damaged; rename the file if none of its entries can be read."""
        try:
            return open_segment(path)
        except UnknownFormat:
            raise
        except HistoryError as error:
            segment = salvage_segment(path, store.position(_writer_of(path)))
            if segment is not None:
                self._damage.setdefault(path, []).append(f"{error.message}: the header is damaged")
                return segment
            if has_ended(path):
                path.rename(path.with_suffix(DAMAGED))
                aside = path.with_suffix(DAMAGED).name
                raise HistoryError(f"{error.message}: no entry can be read; the file was renamed to {aside}") from None
            raise

    def _read_more(self, segment: Segment | BlockSegment, ended: bool) -> list[SealedEntry] | None:
        """Return the next entries, or None at the end of the data. Skip damaged entries."""
        try:
            return segment.read_more() or None
        except HistoryError as error:
            recovery = segment.recover()
            if recovery is None and not ended:
                raise
            loss = "all later entries are lost" if recovery is None else _describe_loss(recovery[1])
            self._damage.setdefault(segment.path, []).append(f"{error.message}: {loss}")
            return recovery[0] if recovery else None

    def _record(self, store: StoreWriter, writer: str, entries: list[SealedEntry]) -> int:
        if writer not in self._positions:
            self._positions[writer] = store.position(writer)
        position = self._positions[writer]
        new = [sealed for sealed in entries if position is None or sealed.seq > position.seq]
        if new:
            store.record(writer, new)
            self._positions[writer] = Position(new[-1].seq, new[-1].link)
        return len(new)

    def backlog(self) -> int:
        """Return the number of segments that have not been deleted yet."""
        return len(self._paths())

    def open_journals(self) -> frozenset[str]:
        """Return the names of the segments that contain entries and have not been deleted yet."""
        return frozenset(path.name for path in self._paths() if _has_entries(path))

    def damaged(self) -> list[str]:
        """Return the names of damaged segments, which have been renamed."""
        return sorted(path.name for path in self._folder.glob(f"*{DAMAGED}"))

    def unreadable(self) -> dict[str, int]:
        """Return the first unreadable `seq` of each writer that has a damaged segment."""
        seqs: dict[str, int] = {}
        # Iterate in reverse order, so that a writer's first damaged segment takes precedence.
        for name in reversed(self.damaged()):
            writer, _, first = name.removesuffix(DAMAGED).rpartition("-")
            seqs[writer] = int(first) if first.isdigit() else 0
            with contextlib.suppress(HistoryError, FileNotFoundError):
                for sealed in open_segment(self._folder / name).all():
                    seqs[writer] = sealed.seq + 1
        return seqs

    def request_roll(self) -> None:
        """Ask every writer to start a new segment."""
        if self._folder.exists():
            (self._folder / ROLL).touch()

    def _paths(self, writer: str = "*") -> list[Path]:
        return sorted(self._folder.glob(f"{writer}-*{SUFFIX}"))


def _contains(path: Path, pattern: bytes) -> bool:
    """Return whether a file contains these bytes. Never search a memory map: Python 3.11.2 reads past its end."""
    overlap = len(pattern) - 1
    rest = b""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            rest += piece
            if pattern in rest:
                return True
            rest = rest[-overlap:]
    return False


def _writer_of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _has_entries(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.readline(LOOK_AHEAD)
            return bool(file.read(LOOK_AHEAD).strip(b"\0"))
    except FileNotFoundError:
        return False  # the indexer has stored and deleted this segment


def _describe_loss(seqs: range) -> str:
    if not seqs:
        return "only a link is damaged and no entry is lost"
    return f"entry {seqs[0]} is lost" if len(seqs) == 1 else f"entries {seqs[0]} to {seqs[-1]} are lost"


@contextmanager
def indexer_lock(folder: Path) -> Iterator[bool]:
    """Try to become the folder's indexer; yield whether the attempt succeeded."""
    make_private_folder(folder)
    descriptor = os.open(folder / "indexer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
