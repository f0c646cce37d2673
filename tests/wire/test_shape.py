"""A template's paths determine where the rows and options in a request are found."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rowcast.errors import BodyError, DocumentError
from rowcast.wire.shape import RequestShape, UnwrappedRequest
from support.wire import compiled


def shape(path: str = "", batch: str = "", cache: tuple[str, str] = ("", ""), *, lax: bool = False) -> RequestShape:
    use_cache, cache_ttl = cache
    return RequestShape(path=path, batch=batch, use_cache=use_cache, cache_ttl=cache_ttl, matrix=False, lax=lax)


@pytest.mark.parametrize(
    ("request_template", "place"),
    [
        ({"path": "a..b"}, "request.path"),
        ({"path": "a[0]"}, "request.path"),
        ({"use_cache": "b"}, "request.path"),
        ({"path": "a", "use_cache": "x..y"}, "request.use_cache"),
        ({"path": "a", "use_cache": "a.b"}, "request"),
        ({"path": "a", "use_cache": "a"}, "request"),
        ({"path": "a", "use_cache": "b", "cache_ttl": "b"}, "request"),
        ({"path": "data", "batch": "requests"}, "request.batch"),
        ({"path": "data", "batch": "requests[].rows"}, "request.batch"),
    ],
)
def test_invalid_or_overlapping_paths_are_rejected(request_template: dict[str, Any], place: str) -> None:
    with pytest.raises(DocumentError) as caught:
        compiled({"request": request_template})

    assert caught.value.place == place


def test_the_length_of_a_path_is_limited() -> None:
    shape(".".join("a" * 16))
    with pytest.raises(DocumentError) as caught:
        shape(".".join("a" * 3000))

    assert caught.value.place == "request.path"


def test_rows_and_cache_options_are_read_from_their_paths() -> None:
    nested = shape("in.put", cache=("options.cache", "options.ttl"))

    assert nested.read(b'{"in": {"put": {"a": 1}}, "options": {"cache": false, "ttl": 60}}') == (
        UnwrappedRequest(msgspec.Raw(b'{"a": 1}'), False, 60),
        0,
    )
    assert nested.read(b'{"in": {"put": 1}}') == (UnwrappedRequest(msgspec.Raw(b"1"), True, 0), 0)


def test_unknown_fields_are_rejected_unless_the_shape_is_lax() -> None:
    body = b'{"data": 1, "more": 2}'

    with pytest.raises(BodyError) as caught:
        shape("data").read(body)
    assert caught.value.slug == "wrong-shape"
    assert shape("data", lax=True).read(body) == (UnwrappedRequest(msgspec.Raw(b"1"), True, 0), 1)


def test_the_requests_in_a_batch_are_returned_in_order() -> None:
    requests, ignored = shape("data", "jobs[].data").read_batch(b'{"jobs": [{"data": 1}, {"data": 2}]}')

    assert [bytes(request.rows) for request in requests] == [b"1", b"2"]
    assert ignored == 0


def test_a_lifetime_in_seconds_can_be_a_float_with_an_integral_value() -> None:
    nested = shape("in.put", cache=("cache", "ttl"))

    request, _ = nested.read(b'{"in": {"put": {}}, "ttl": 60.0}')

    assert (request.ttl, type(request.ttl)) == (60, int)
    with pytest.raises(BodyError):
        nested.read(b'{"in": {"put": {}}, "ttl": 60.5}')


def test_an_example_follows_the_paths_of_its_shape() -> None:
    nested = shape("in.put", cache=("cache", "ttl"))

    assert nested.example({"a": 1}) == {"in": {"put": {"a": 1}}, "cache": True, "ttl": 3600}
    assert nested.batch_example({"a": 1}) == {"rows": [nested.example({"a": 1})]}


def test_schemas_require_the_row_but_not_the_options() -> None:
    single, batch = shape("data", cache=("cache", "ttl")).schemas({"type": "object"})

    assert single["required"] == ["data"]
    assert list(single["properties"]) == ["data", "cache", "ttl"]
    assert batch["properties"]["rows"]["items"] == single
