"""Parses durations such as `90d` or `60s`."""

from __future__ import annotations

import re

from rowcast.errors import SettingsError

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_match_duration = re.compile(r"([0-9]{1,7})([smhd])").fullmatch


def parse_duration(text: str) -> int:
    """Return the number of seconds in a duration such as `90d`; raise SettingsError if the format is invalid."""
    match = _match_duration(text)
    if not match:
        raise SettingsError(f"invalid duration {text!r}; expected a whole number followed by s, m, h or d, such as 90d")
    return int(match[1]) * UNIT_SECONDS[match[2]]
