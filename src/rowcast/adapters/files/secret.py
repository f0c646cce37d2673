"""A random secret, stored in a file. The first process that needs the secret creates the file."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from rowcast.errors import SettingsError
from rowcast.history.secret import SECRET_BYTES
from rowcast.private_files import make_private_folder


class FileSecret:
    """A secret in hexadecimal, in a file that only its owner can read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    def find(self) -> bytes | None:
        """Return the secret, or None if the file does not exist."""
        try:
            secret = bytes.fromhex(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read the secret in {self._path}: {error}") from None
        if len(secret) < SECRET_BYTES:
            raise SettingsError(f"the secret in {self._path} is too short; restore the file from a backup")
        return secret

    def keep(self, secret: bytes) -> bytes:
        """Create the file unless it exists, and return the secret that it contains."""
        try:
            make_private_folder(self._path.parent)
            self._create(secret)
        except OSError as error:
            raise SettingsError(f"cannot create the secret in {self._path}: {error}") from None
        return self.find() or secret

    def _create(self, secret: bytes) -> None:
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secret.hex().encode() + b"\n")
            os.fsync(descriptor)
            with suppress(FileExistsError):  # another process created the file first; its secret is used
                os.link(part, self._path)
        finally:
            os.close(descriptor)
            part.unlink()
