"""Reject JSON objects in which a key occurs twice: readers disagree about which of the values counts."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from rowcast.errors import InvalidRows, ValueProblem

DUPLICATE = "duplicate-key"

_decode_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_find_key_ends = re.compile(rb'"[ \t\r\n]*:').findall


def check_unique_keys(body: bytes | msgspec.Raw) -> None:
    """Raise InvalidRows if a key of a valid JSON object, or of an object in it, occurs twice.

    Only if there are more ends of keys than distinct keys, the object is decoded again to find the key.
    """
    content = bytes(body)
    if len(_find_key_ends(content)) != len(_decode_cells(content)):
        json.loads(content, object_pairs_hook=_refuse_duplicates, parse_float=str, parse_int=str)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise InvalidRows([ValueProblem(name[:200], DUPLICATE, "the key occurs more than once in the JSON object")])
    return document
