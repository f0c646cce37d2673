"""How cold routes are declared, and what their endpoints can return."""

from __future__ import annotations

import msgspec
import pytest
from fastapi import Request, Response

from rowcast.http.cold_app import ColdApp, JsonResponse
from support import apps


class Reply(msgspec.Struct):
    text: str


@pytest.fixture
def cold() -> ColdApp:
    cold = ColdApp()

    @cold.route("GET", "/struct", "read", response=Reply)
    async def return_struct(text: str = "none") -> Reply:
        return Reply(text)

    @cold.route("GET", "/blocking", response=Reply)
    def return_struct_from_a_thread(request: Request) -> Reply:
        return Reply(request.method)

    @cold.route("GET", "/response")
    async def return_response() -> Response:
        return JsonResponse(Reply("teapot"), status_code=418)

    return cold


async def test_a_struct_is_encoded_and_a_response_is_sent_unchanged(cold: ColdApp) -> None:
    async with apps.client(cold.api) as client:
        replies = [await client.get(path) for path in ("/struct?text=hello", "/blocking", "/response")]

    assert [(reply.status_code, reply.json()) for reply in replies] == [
        (200, {"text": "hello"}),
        (200, {"text": "GET"}),
        (418, {"text": "teapot"}),
    ]
    assert {reply.headers["content-type"] for reply in replies} == {"application/json"}


def test_only_routes_with_a_response_type_are_documented(cold: ColdApp) -> None:
    assert cold.documented.keys() == {("/struct", "get"), ("/blocking", "get")}
    assert cold.documented["/struct", "get"].route.scope == "read"
    assert cold.api.openapi()["paths"].keys() == {"/struct", "/blocking"}
