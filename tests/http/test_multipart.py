"""Parsing forms: the parts do not depend on how the body is split into chunks."""

from __future__ import annotations

from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.errors import BodyError, RequestError
from rowcast.http.multipart import MultipartParser, PartData, PartEnd, PartStart

HEAD = b"multipart/form-data; boundary=b"


def parts(content_type: bytes, pieces: list[bytes]) -> list[tuple[str, bytes]]:
    parser = MultipartParser(content_type)
    listed: list[tuple[str, bytes]] = []
    is_open = False
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartStart):
                assert not is_open
                is_open = True
                listed.append((event.name, b""))
            elif isinstance(event, PartData):
                assert is_open
                listed[-1] = listed[-1][0], listed[-1][1] + event.content
            else:
                assert isinstance(event, PartEnd)
                is_open = False
    assert parser.is_complete
    assert not is_open
    return listed


def split(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


CONTENT = st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\n--", b"\r\n--b", b"--b--", b"\r\n\r\n", b"\r"]))


@given(
    fields=st.lists(st.tuples(st.text("abc", min_size=1, max_size=5), CONTENT), min_size=1, max_size=5),
    places=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_every_part_that_a_typical_client_sends_is_read(fields: list[tuple[str, bytes]], places: list[int]) -> None:
    request = httpx.Request("POST", "http://x", files=[(name, ("f", content)) for name, content in fields])
    body = request.read()

    assert parts(request.headers["content-type"].encode(), split(body, places)) == fields


def test_a_body_can_arrive_byte_by_byte() -> None:
    body = b'preamble\r\n--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\nepilogue'

    assert parts(HEAD, [body[at : at + 1] for at in range(len(body))]) == [("x", b"1")]


def test_names_can_be_unquoted_and_boundaries_can_be_quoted() -> None:
    body = b"--b\r\nContent-Disposition: form-data; filename=f; name=x\r\n\r\n1\r\n--b--"

    assert parts(b'multipart/form-data; boundary="b"', [body]) == [("x", b"1")]


def test_a_body_that_ends_too_early_is_incomplete() -> None:
    parser = MultipartParser(HEAD)
    list(parser.feed(b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b'))

    assert not parser.is_complete


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n\r\n1\r\n--b--",
        b"--b\r\nContent-Type: text/csv\r\n\r\n1\r\n--b--",
        b"--bc\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n--b--",
        b"--b\r\nX: " + b"x" * 10_000,
        b"--b" + b" " * 10_000,
        b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n" * 21,
    ],
    ids=["no head", "no name", "wrong delimiter", "long head", "long delimiter", "many parts"],
)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError):
        list(MultipartParser(HEAD).feed(body))


def test_a_content_type_without_a_boundary_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        MultipartParser(b"multipart/form-data")
    assert refused.value.slug == "unsupported-media-type"
