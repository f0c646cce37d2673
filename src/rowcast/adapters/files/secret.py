"""A random secret, stored in a file. The first process that needs the secret creates the file."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from rowcast.errors import SettingsError
from rowcast.private_files import make_private_folder

SECRET_BYTES = 32


def load_secret(path: Path) -> bytes:
    """Return the secret in this file, and create the file if necessary; raise SettingsError on failure."""
    try:
        make_private_folder(path.parent)
        if not path.exists():
            _create(path)
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read or create the secret in {path}: {error}") from None
    if len(secret) < SECRET_BYTES:
        raise SettingsError(f"the secret in {path} is too short; restore the file from a backup")
    return secret


def _create(path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(SECRET_BYTES).encode() + b"\n")
        os.fsync(descriptor)
        with suppress(FileExistsError):  # another process created the file first; its secret is used
            os.link(part, path)
    finally:
        os.close(descriptor)
        part.unlink()
