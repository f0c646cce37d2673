"""API keys in the file `HOME/keys.json`.

The file contains hashes instead of keys, and only its owner can read it. Each change replaces the file atomically.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from rowcast.access.keys import Key
from rowcast.adapters.files.replacement import replace_file
from rowcast.errors import SettingsError
from rowcast.private_files import locked, make_private_folder

FORMAT = 1


class KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    """The contents of `keys.json`."""

    format: int
    keys: tuple[Key, ...]


class FileKeys:
    """The API keys of one home folder. The first change creates the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> Sequence[Key]:
        """Return all keys, or an empty tuple if the file does not exist."""
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=KeyFile)
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the keys in {self.path}: {error}") from None
        if content.format > FORMAT:
            raise SettingsError(f"{self.path} was written by a newer version of Rowcast (format {content.format})")
        return content.keys

    def revision(self) -> object:
        """Return the inode, modification time and size of the file."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace the file under a lock, so that changes are serialized."""
        try:
            make_private_folder(self.path.parent)
            with locked(self.path.with_suffix(".lock")):
                content = msgspec.json.encode(KeyFile(FORMAT, tuple(edit(self.all()))))
                replace_file(self.path, msgspec.json.format(content, indent=1) + b"\n", mode=0o600)
        except OSError as error:
            raise SettingsError(f"cannot write the keys to {self.path}: {error.strerror}") from None
