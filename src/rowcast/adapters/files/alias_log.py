"""The log of a model's aliases as a file of JSON lines.

Only a process that holds the model's lock writes to the file. Other processes can read the file at any time; they
ignore an incomplete last line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from rowcast.adapters.files.replacement import sync
from rowcast.errors import RegistryError
from rowcast.registry.alias_log import LOG_FORMAT, AliasMove

NAME: Final = "aliases.log"


def complete(path: Path, last: AliasMove | None, mode: int) -> None:
    """Append the latest move durably, unless the file already ends with it. Remove any incomplete last line first.

    `mode` sets the permissions of a new file.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    line = b"" if last is None else msgspec.json.encode(last) + b"\n"
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    if not line or (b"\n" + whole).endswith(b"\n" + line):
        return
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if not whole:
        path.chmod(mode)
        sync(path.parent)


def next_number(path: Path, last: AliasMove | None) -> int:
    """Return the number of the next move. If `last` is None, continue after the moves in the file."""
    if last is not None:
        return last.number + 1
    return 1 + (path.read_bytes().count(b"\n") if path.exists() else 0)


def read(path: Path, last: AliasMove | None) -> Sequence[AliasMove]:
    """Return all moves, including the latest one if no writer has appended it yet.

    Raise RegistryError if a line is damaged or has an unknown format.
    """
    content = path.read_bytes() if path.exists() else b""
    moves = [_decode(path, number, line) for number, line in enumerate(content.split(b"\n")[:-1], start=1)]
    if last is not None and (not moves or moves[-1].number < last.number):
        moves.append(last)
    return moves


class _Format(msgspec.Struct):
    """The only field that is read before the format is known."""

    format: int | None = None


def _decode(path: Path, number: int, line: bytes) -> AliasMove:
    try:
        version = msgspec.json.decode(line, type=_Format).format
        if version != LOG_FORMAT:
            raise RegistryError(f"{path}, line {number}: unknown format {version}; this release supports {LOG_FORMAT}")
        return msgspec.json.decode(line, type=AliasMove)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RegistryError(f"{path}, line {number} is damaged: {error}") from None
