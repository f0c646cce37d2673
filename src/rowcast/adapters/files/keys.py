"""API keys in one file, `HOME/keys.json`: hashes only, readable by its owner alone, replaced whole."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from rowcast.access.keys_and_quotas import Key
from rowcast.errors import SettingsError

FORMAT = 1


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """The file."""

    format: int
    keys: tuple[Key, ...]


class FileKeys:
    """The keys of one home; the file is made with the first key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> Sequence[Key]:
        """Every key; none while there is no file."""
        try:
            kept = msgspec.json.decode(self.path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SettingsError(f"the keys in {self.path} cannot be read: {error}") from None
        if kept.format > FORMAT:
            raise SettingsError(f"{self.path} was written by a newer Rowcast (format {kept.format})")
        return kept.keys

    def mark(self) -> object:
        """Which file it is and when it was written."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace the file, under a lock that the next one waits for."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._replace(msgspec.json.encode(Kept(FORMAT, tuple(edit(self.all())))))
        except OSError as error:
            raise SettingsError(f"the keys in {self.path} cannot be written: {error.strerror}") from None

    def _replace(self, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(prefix=".keys-", dir=self.path.parent)  # mode 600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(content, indent=1) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
