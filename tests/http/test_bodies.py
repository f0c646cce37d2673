"""Compressed bodies, request timeouts and trace contexts in the complete app."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.errors import BodyError, RequestError
from rowcast.http import bodies
from support import access, apps
from support.protected import ROW, predict, wait_for_entries

# The shared client runs on the module's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_decompressed(
    protected_client: httpx.AsyncClient, encoding: str, compress: Any
) -> None:
    reply = await protected_client.post(
        "/predict",
        content=compress(json.dumps(ROW).encode()),
        headers={**access.headers("p"), "content-encoding": encoding},
    )

    assert (reply.status_code, reply.json()["prediction"]) == (200, 3.5)


@pytest.mark.parametrize(
    ("compress", "encoding", "status"),
    [
        pytest.param(lambda: gzip.compress(b" " * 100_000_000), "gzip", 413, id="gzip bomb"),
        pytest.param(lambda: zlib.compress(b" " * 100_000_000), "deflate", 413, id="deflate bomb"),
        pytest.param(lambda: b"no gzip", "gzip", 400, id="not compressed"),
        pytest.param(lambda: gzip.compress(b"{}")[:-4], "gzip", 400, id="truncated"),
        pytest.param(lambda: gzip.compress(b"{}") + b"more", "gzip", 400, id="trailing data"),
        pytest.param(lambda: b"{}", "br", 415, id="unknown encoding"),
    ],
)
async def test_a_damaged_or_oversized_compressed_body_is_rejected(
    protected_client: httpx.AsyncClient, compress: Callable[[], bytes], encoding: str, status: int
) -> None:
    content = compress()
    for path in ("/predict", "/models/none/predict"):
        headers = {**access.headers("p"), "content-encoding": encoding}
        reply = await protected_client.post(path, content=content, headers=headers)
        assert reply.status_code == status, reply.text


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "1e3", "3601", ""])
async def test_an_invalid_timeout_is_rejected(protected_client: httpx.AsyncClient, seconds: str) -> None:
    reply = await predict(protected_client, "p", **{"x-request-timeout": seconds})

    assert (reply.status_code, reply.json()["type"]) == (400, "urn:rowcast:error:bad-option")


async def test_a_request_past_its_deadline_is_rejected_without_being_scored(
    protected_client: httpx.AsyncClient,
) -> None:
    late = await predict(protected_client, "e", **{"x-request-timeout": "0.000000001"})
    in_time = await predict(protected_client, "e", **{"x-request-timeout": "20"})

    assert (late.status_code, late.json()["type"]) == (504, "urn:rowcast:error:too-late")
    assert in_time.status_code == 200
    await wait_for_entries(protected_client, "e", 1)


async def test_a_request_that_waits_too_long_gets_an_overloaded_error(protected_home: Path) -> None:
    async with apps.serving(home=protected_home, default_model="sum", max_wait_seconds=1e-9) as client:
        reply = await predict(client, "p")

    assert (reply.status_code, reply.json()["type"]) == (503, "urn:rowcast:error:overloaded")
    assert "retry-after" in reply.headers


@pytest.mark.parametrize("path", ["/predict", "/models"])
async def test_a_valid_trace_is_continued_and_an_invalid_trace_is_replaced(
    protected_client: httpx.AsyncClient, path: str
) -> None:
    method = "POST" if path == "/predict" else "GET"

    async def send(traceparent: str) -> list[str]:
        headers = {**access.headers("p"), "traceparent": traceparent}
        body = ROW if method == "POST" else None
        reply = await protected_client.request(method, path, json=body, headers=headers)
        return str(reply.headers["traceparent"]).split("-")

    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    version, same_trace, child, flags = await send(f"00-{trace}-{span}-01")
    assert (version, same_trace, flags) == ("00", trace, "01")
    assert child != span
    for invalid in ("00-0-1-01", f"00-{'0' * 32}-{span}-01", f"00-{trace}-{'0' * 16}-01", f"ff-{trace}-{span}-01"):
        version, new_trace, child, flags = await send(invalid)
        assert new_trace not in (trace, "0" * 32)
        assert (len(new_trace), len(child)) == (32, 16)


@pytest.mark.parametrize(
    ("sent", "expected"), [(b"3600", 3610.0), (b"3600.0", 3610.0), (b"0.5", 10.5), (b"0.000000001", 10.000000001)]
)
async def test_a_timeout_of_up_to_an_hour_is_added_to_the_arrival_time(sent: bytes, expected: float) -> None:
    assert bodies.deadline(sent, 10.0) == expected


@pytest.mark.parametrize(
    "sent", [b"0", b"0.000000000", b"-0", b"-1", b"3600.000000001", b"9999999", b"9" * 400, b"nan", b"inf", b" 1"]
)
async def test_any_other_timeout_is_rejected(sent: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        bodies.deadline(sent, 10.0)

    assert refused.value.slug == "bad-option"


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_a_body_is_decompressed_up_to_exactly_the_limit(compress: Callable[[bytes], bytes]) -> None:
    encoding = b"gzip" if compress is gzip.compress else b"deflate"

    assert bodies.decompress(compress(b"x" * 1000), encoding, 1000) == b"x" * 1000
    with pytest.raises(BodyError) as refused:
        bodies.decompress(compress(b"x" * 1001), encoding, 1000)
    assert refused.value.slug == "body-too-large"


async def test_a_request_id_of_up_to_128_characters_is_used() -> None:
    ids = bodies.RequestIds("made")

    assert ids.id_of({b"x-request-id": b"r" * 128}) == "r" * 128
    assert [ids.id_of({b"x-request-id": sent}) for sent in (b"r" * 129, b"", b"a b")] == ["made-0", "made-1", "made-2"]


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip", b" GZIP ", b"X-Gzip"])
async def test_both_names_of_gzip_are_accepted_in_upper_and_lower_case(encoding: bytes) -> None:
    assert bodies.decompress(gzip.compress(b"{}"), encoding, 10) == b"{}"


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity "])
async def test_a_body_without_compression_is_returned_unchanged(encoding: bytes) -> None:
    assert bodies.decompress(b"{}", encoding, 1) == b"{}"


async def test_the_errors_for_compressed_bodies_name_the_encoding() -> None:
    def error(body: bytes, encoding: bytes) -> tuple[str, str]:
        with pytest.raises(RequestError) as refused:
            bodies.decompress(body, encoding, 10)
        return refused.value.slug, refused.value.message

    assert error(b"{}", b"b" * 50) == (
        "unsupported-encoding",
        f"unsupported content encoding {'b' * 40!r}; use gzip or deflate, or send the body uncompressed",
    )
    assert error(b"{}", b"gzip") == ("malformed-body", "the body is not valid gzip data")
    assert error(zlib.compress(b"{}")[:-1], b"deflate") == (
        "malformed-body",
        "the body must be exactly one complete deflate stream",
    )
    assert error(zlib.compress(b"{}") + b"x", b"deflate")[1] == "the body must be exactly one complete deflate stream"


TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"


async def test_a_trace_id_is_read_from_a_valid_header_only() -> None:
    assert bodies.trace_id(b"00-%b-%b-00" % (TRACE, SPAN)) == TRACE.decode()
    assert bodies.trace_id(b"00-%b1-%b1-00" % (b"0" * 31, b"0" * 15)) == "0" * 31 + "1"
    for invalid in (
        b"",
        b"01-%b-%b-00" % (TRACE, SPAN),
        b"00-%b-%b-00" % (b"0" * 32, SPAN),
        b"00-%b-%b-00" % (TRACE, b"0" * 16),
        b"00-%b-%b-00-x" % (TRACE, SPAN),
    ):
        assert bodies.trace_id(invalid) == ""


async def test_a_new_span_has_random_ids_and_keeps_the_flags_of_the_trace() -> None:
    continued = [bodies.child_traceparent(b"00-%b-%b-00" % (TRACE, SPAN)).split(b"-") for _ in range(2)]
    started = [bodies.child_traceparent(b"no trace").split(b"-") for _ in range(2)]

    assert [(version, trace, flags) for version, trace, _, flags in continued] == [(b"00", TRACE, b"00")] * 2
    assert [(version, flags) for version, _, _, flags in started] == [(b"00", b"01")] * 2
    assert {len(trace) for _, trace, _, _ in started} == {32}
    assert {len(span) for _, _, span, _ in continued + started} == {16}
    assert len({span for _, _, span, _ in continued + started}) == 4
    assert len({trace for _, trace, _, _ in started}) == 2


async def test_generated_request_ids_are_numbered_in_hexadecimal() -> None:
    ids = bodies.RequestIds("made")

    assert [ids.id_of({}) for _ in range(17)][-2:] == ["made-f", "made-10"]
