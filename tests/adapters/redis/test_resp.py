"""Commands and replies in the Redis protocol."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.adapters.redis.resp import (
    RedisError,
    ReplyError,
    ReplyParser,
    encode_command,
    parse_entries,
    parse_info,
)

replies = st.recursive(
    st.none() | st.integers() | st.binary(max_size=40), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)


def encode_reply(reply: Any) -> bytes:
    """Encode a reply as Redis does."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(encode_reply, reply))
    return b"$%d\r\n%b\r\n" % (len(reply), reply)


@given(st.lists(replies, max_size=4), st.data())
def test_replies_are_the_same_however_the_bytes_are_split(sent: list[Any], data: st.DataObject) -> None:
    encoded = b"".join(map(encode_reply, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=6)))
    parser = ReplyParser()

    parts = [encoded[start:end] for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    assert [reply for part in parts for reply in parser.feed(part)] == sent


def test_texts_missing_lists_and_errors_are_replies() -> None:
    text, nothing, error, (number, inner) = ReplyParser().feed(
        b"+OK\r\n*-1\r\n-NOSCRIPT No matching script.\r\n*2\r\n:1\r\n-ERR no\r\n"
    )

    assert (text, nothing, number) == (b"OK", None, 1)
    assert (type(error), error.code, str(error)) == (ReplyError, "NOSCRIPT", "NOSCRIPT No matching script.")
    assert (type(inner), inner.code) == (ReplyError, "ERR")


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n", b"%1\r\n"])
def test_another_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(RedisError, match="does not speak the protocol"):
        ReplyParser().feed(data)


def test_a_command_is_a_list_of_its_words() -> None:
    words = ["SET", b"k\r\n", 5, "é"]

    assert ReplyParser().feed(encode_command(words)) == [[b"SET", b"k\r\n", b"5", "é".encode()]]


def test_the_fields_of_info_and_of_stream_entries_are_parsed() -> None:
    assert parse_info(b"# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nx:a:b\r\n\r\n") == {
        "maxmemory": "0",
        "maxmemory_policy": "noeviction",
        "x": "a:b",
    }
    assert parse_entries([[b"1-0", [b"a", b"1", b"b", b"2"]]]) == [(b"1-0", {b"a": b"1", b"b": b"2"})]
    assert parse_entries(None) == []
