"""Which history entries are meant: what was answered, for whom and when. Ids are UUIDv7: a time is a bound of ids."""

from __future__ import annotations

import base64
import re
import uuid
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

LATEST_MS = (1 << 48) - 1
CURSOR_BYTES = 20
_LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Entries for which all of this holds; nothing said means every entry."""

    tenant: str | None = None
    model: str | None = None
    version: int | None = None
    label: str | None = None
    entity: str | None = None
    first: str | None = None
    """The lowest id, itself included."""
    end: str | None = None
    """Ids below this one."""
    ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """None but these: what whoever asks may see."""

    def takes(self, **known: Any) -> bool:
        """Whether an entry with this id, model, version, label, tenant and entity is meant."""
        wanted = ("tenant", "model", "version", "label", "entity")
        return (
            all(getattr(self, name) in (None, known[name]) for name in wanted)
            and (self.first is None or known["id"] >= self.first)
            and (self.end is None or known["id"] < self.end)
            and (not self.ids or known["id"] in self.ids)
            and (not self.models or known["model"] in self.models)
        )


EVERYTHING = Selection()


def moment(text: str) -> int:
    """Milliseconds of an RFC 3339 time or a date, which is its first moment in UTC; ValueError when it is neither."""
    found = datetime.fromisoformat(_LOST_PLUS.sub(r"+\1", text.strip()))  # a `+` in a query string arrives as a blank
    milliseconds = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= milliseconds <= LATEST_MS:
        raise ValueError("the time lies before 1970")
    return milliseconds


def first_id(milliseconds: int) -> str:
    """The lowest id that a prediction of this moment can have."""
    stamp = f"{milliseconds:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-000000000000"


def cursor(last: str, selection: Selection) -> str:
    """Where the next page of a selection begins: behind the id `last`."""
    return base64.urlsafe_b64encode(uuid.UUID(last).bytes + _mark(selection)).decode().rstrip("=")


def after_cursor(text: str, selection: Selection) -> str:
    """The id that a cursor stands for; ValueError when it is none, or was given for another selection."""
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:  # binascii.Error is one
        raise ValueError("it is not a cursor; pass on `next` of the page before") from None
    if len(found) != CURSOR_BYTES:
        raise ValueError("it is not a cursor; pass on `next` of the page before")
    if found[16:] != _mark(selection):
        raise ValueError("it belongs to other filters; begin without a cursor when the filters change")
    return str(uuid.UUID(bytes=found[:16]))


def _mark(selection: Selection) -> bytes:
    return sha256(msgspec.json.encode(selection)).digest()[: CURSOR_BYTES - 16]
