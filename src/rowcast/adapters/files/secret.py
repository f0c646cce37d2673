"""A secret in a file of its own, made when it is first needed; whichever process comes first makes it for all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from rowcast.errors import SettingsError

SECRET_BYTES = 32


def secret(path: Path) -> bytes:
    """The secret of this file; SettingsError when there is none and none can be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        found = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"the secret {path} cannot be read or made: {error}") from None
    if len(found) < SECRET_BYTES:
        raise SettingsError(f"the secret {path} is too short; restore it from a backup")
    return found


def _make(path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(SECRET_BYTES).encode() + b"\n")
        os.fsync(descriptor)
        with suppress(FileExistsError):  # another process was first, and its secret holds
            os.link(part, path)
    finally:
        os.close(descriptor)
        part.unlink()
