"""Filters for history entries, and cursors for filtered pages. Ids are UUIDv7 values, so they are ordered by time."""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from rowcast.access.durations import parse_duration
from rowcast.errors import RequestError, SettingsError

CURSOR_BYTES = 20
_LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """A filter for entries: an entry must match every field that is set. By default, all entries match."""

    tenant: str | None = None
    model: str | None = None
    version: int | None = None
    label: str | None = None
    entity: str | None = None
    first: str | None = None
    """The lower bound for ids, inclusive."""
    end: str | None = None
    """The upper bound for ids, exclusive."""
    ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """The models that the caller may see; an empty tuple allows every model."""

    def matches(self, **fields: Any) -> bool:
        """Return whether an entry with this id, model, version, label, tenant and entity is selected."""
        exact = ("tenant", "model", "version", "label", "entity")
        return (
            all(getattr(self, name) in (None, fields[name]) for name in exact)
            and (self.first is None or fields["id"] >= self.first)
            and (self.end is None or fields["id"] < self.end)
            and (not self.ids or fields["id"] in self.ids)
            and (not self.models or fields["model"] in self.models)
        )


EVERYTHING = Selection()


def visible_to(*, tenant: str | None, models: Iterable[str]) -> Selection:
    """Return the selection of entries that a caller may read.

    `tenant` is the caller's tenant, or None if the caller sees all tenants; an empty `models` means all models.
    """
    return Selection(tenant=tenant, models=tuple(sorted(models)))


def parse_selection(
    *,
    tenant: str | None = None,
    model: str | None = None,
    version: int | None = None,
    label: str | None = None,
    entity: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Selection:
    """Build a selection from user input; raise RequestError if a time is invalid.

    `since` is inclusive; `until` is exclusive.
    """
    first = None if since is None else first_id(_parse_bound("since", since))
    end = None if until is None else first_id(_parse_bound("until", until))
    if first is not None and end is not None and first > end:
        raise RequestError(f"since: {since!r} is later than until {until!r}", slug="bad-option")
    return Selection(tenant=tenant, model=model, version=version, label=label, entity=entity, first=first, end=end)


def _parse_bound(name: str, text: str) -> int:
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise RequestError(
            f"{name}: {text[:40]!r} is not a valid date or timestamp; "
            "expected a value such as 2026-01-31, 2026-01-31T09:30:00Z or 7d",
            slug="bad-option",
        ) from None


def parse_time(text: str) -> int:
    """Parse an RFC 3339 timestamp, a UTC date or an age such as `7d` into Unix milliseconds.

    Raise ValueError if the string is invalid.
    """
    try:
        milliseconds = int((time.time() - parse_duration(text.strip())) * 1000)
    except SettingsError:
        # A `+` in a query string is decoded as a space.
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"+\1", text.strip()))
        milliseconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if milliseconds < 0:
        raise ValueError("the time is out of range")
    return milliseconds


def first_id(milliseconds: int) -> str:
    """Return the lowest possible id for a prediction in this millisecond."""
    stamp = f"{milliseconds:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-000000000000"


def milliseconds_of(prediction_id: str) -> int:
    """Return the time that an id contains, in Unix milliseconds."""
    return int(prediction_id[:8] + prediction_id[9:13], 16)


def encode_cursor(last_id: str, selection: Selection) -> str:
    """Return the cursor for the page that starts after the entry `last_id`."""
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes + _fingerprint(selection)).decode().rstrip("=")


def decode_cursor(cursor: str, selection: Selection) -> str:
    """Return the id in a cursor; raise RequestError if the cursor is malformed or belongs to a different selection."""
    try:
        content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:  # includes binascii.Error
        content = b""
    if len(content) != CURSOR_BYTES:
        raise RequestError(
            "cursor: not a valid cursor; pass the value of `next` from the previous page", slug="bad-option"
        )
    if content[16:] != _fingerprint(selection):
        raise RequestError(
            "cursor: belongs to a page with different filters; omit the cursor after changing filters",
            slug="bad-option",
        )
    return str(uuid.UUID(bytes=content[:16]))


def _fingerprint(selection: Selection) -> bytes:
    """Return a digest of the filters without the time range, because a relative bound such as `7d` changes between
    requests."""
    lasting = msgspec.structs.replace(selection, first=None, end=None)
    return sha256(msgspec.json.encode(lasting)).digest()[: CURSOR_BYTES - 16]
