"""Chain heads: the last entry of each chain. A published head can later prove that its chain has not been truncated."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from rowcast.errors import HistoryError


class ChainHead(msgspec.Struct, frozen=True):
    """The last entry of one chain; `link` and `signature` are hexadecimal."""

    writer: str
    seq: int
    link: str
    signature: str = ""
    """The signature (see `signing.py`); empty if an earlier release published the head."""


class _HeadList(msgspec.Struct):
    heads: list[ChainHead]


def parse_heads(text: str) -> list[ChainHead]:
    """Parse published heads from the JSON output of `rowcast history heads` or from a server's JSON log.

    Raise HistoryError if there are no heads.
    """
    try:
        return msgspec.json.decode(text, type=_HeadList).heads
    except msgspec.MsgspecError:
        pass  # parse the text as a log instead
    heads = []
    for line in text.splitlines():
        with suppress(msgspec.MsgspecError):
            heads.append(msgspec.json.decode(line, type=ChainHead))
    if not heads:
        raise HistoryError(
            "no chain heads found; expected the JSON output of `rowcast history heads` or a server's JSON log"
        )
    return heads
