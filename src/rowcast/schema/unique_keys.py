"""Reject JSON objects in which a key occurs twice, because different parsers use different values of a repeated key."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from rowcast.errors import BodyError, InvalidRows, ValueProblem

DUPLICATE = "duplicate-key"

_find_key_ends = re.compile(rb'"[ \t\r\n]*:').findall


def check_unique_keys(body: bytes | msgspec.Raw, distinct: int) -> None:
    """Raise InvalidRows if a key of a valid JSON object, or of an object in it, occurs twice. Hot path.

    `distinct` is the number of different keys that the caller has found. Every key is followed by a colon, so a body
    that contains exactly `distinct` colons has no duplicate keys. If more than `distinct` colons follow a string, the
    body is decoded again to find the repeated key.
    """
    content = bytes(body)
    if content.count(b":") != distinct and len(_find_key_ends(content)) != distinct:
        try:
            json.loads(content, object_pairs_hook=_refuse_duplicates, parse_float=str, parse_int=str)
        except (ValueError, RecursionError) as error:  # msgspec does not validate the fields that it skips
            raise BodyError(f"the body is not valid JSON: {error}") from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise InvalidRows([ValueProblem(name[:200], DUPLICATE, "the key occurs more than once in the JSON object")])
    return document
