"""The FastAPI application for the cold routes, their documentation and the static files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from rowcast.access.scopes import Scope as KeyScope
from rowcast.errors import MethodNotAllowed, NotFound, RequestError, RowcastError
from rowcast.http import problems
from rowcast.http.routes import Route, any_options
from rowcast.version import VERSION

STATIC = Path(__file__).parent / "static"
JSON_ONLY = ("application/json",)

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class ColdRoute(msgspec.Struct, frozen=True):
    """A cold route with its documentation."""

    route: Route
    response: Any
    """The type of the response body; `str` for a text response."""
    media_types: tuple[str, ...] = JSON_ONLY
    status: int = 200
    """The status of a successful response."""
    other_statuses: Mapping[int, str] = {}
    """Descriptions of other statuses whose response body has the same type."""
    problems: tuple[str, ...] = ()
    """The slugs of problems that this route reports in addition to the common problems."""


class JsonResponse(Response):
    """A JSON response encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode any value that msgspec supports."""
        return msgspec.json.encode(content)


class ColdApp:
    """A FastAPI application in which each route declares its scope and its response once."""

    def __init__(self) -> None:
        # A redirect would repeat the Host header, which clients and caches could mistake for this server's address.
        self.api = FastAPI(
            title="Rowcast", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
        )
        self.routes: list[Route] = []
        """The routes whose rules the edge applies."""
        self.documented: dict[tuple[str, str], ColdRoute] = {}
        """The routes in the OpenAPI document, by path and lower-case method."""
        self.api.mount("/static", StaticFiles(directory=STATIC), name="static")
        self._declare("GET", "/static/{path:path}", None, is_public=True)
        _handle_errors(self.api)

    def route(
        self,
        method: str,
        pattern: str,
        scope: KeyScope | None = None,
        *,
        is_public: bool = False,
        response: Any = None,
        media_types: tuple[str, ...] = JSON_ONLY,
        status: int = 200,
        is_streamed: bool = False,
        other_statuses: Mapping[int, str] | None = None,
        problems: tuple[str, ...] = (),
        **documentation: Any,
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a route. A route without a scope accepts any valid key; a public route requires no key.

        The endpoint returns either a value of the type `response` or a complete response. A route without `response`
        is omitted from the OpenAPI document.
        """
        route = self._declare(method, pattern, scope, is_public=is_public, is_streamed=is_streamed)
        is_documented = response is not None
        if is_documented:
            documented = ColdRoute(route, response, media_types, status, other_statuses or {}, problems)
            self.documented[pattern, method.lower()] = documented

        def add(endpoint: Endpoint) -> Endpoint:
            self.api.add_api_route(
                pattern,
                _encode_result(endpoint),
                methods=[method],
                include_in_schema=is_documented,
                response_model=None,
                **documentation,
            )
            return endpoint

        return add

    def _declare(
        self,
        method: str,
        pattern: str,
        scope: KeyScope | None,
        *,
        is_public: bool,
        is_streamed: bool = False,
    ) -> Route:
        route = Route(
            pattern=pattern,
            method=method,
            handler=None,
            scope=scope,
            is_public=is_public,
            is_streamed=is_streamed,
            read_options=any_options,
        )
        self.routes.append(route)
        return route


def _encode_result(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an endpoint so that it always returns a response, which FastAPI passes on unchanged."""

    def as_response(result: Any) -> Response:
        return result if isinstance(result, Response) else JsonResponse(result)

    if inspect.iscoroutinefunction(endpoint):

        @functools.wraps(endpoint)
        async def wrapper(**parameters: Any) -> Response:
            return as_response(await endpoint(**parameters))
    else:

        @functools.wraps(endpoint)
        def wrapper(**parameters: Any) -> Response:
            return as_response(endpoint(**parameters))

    # Without this signature, FastAPI would resolve the endpoint's annotations in this module's namespace.
    wrapper.__signature__ = inspect.signature(endpoint, eval_str=True)  # type: ignore[attr-defined]
    return wrapper


def _handle_errors(api: FastAPI) -> None:
    def answer(error: Exception, request: Request) -> Response:
        status, body, headers = problems.answer(error, request.scope["state"]["request_id"])
        request.scope["state"]["problem"] = problems.slug(error)
        return Response(body, status, headers={name.decode(): value.decode() for name, value in headers})

    @api.exception_handler(RowcastError)
    async def answer_rowcast_error(request: Request, error: RowcastError) -> Response:
        return answer(error, request)

    @api.exception_handler(HTTPException)
    async def answer_routing_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return answer(MethodNotAllowed((error.headers or {}).get("Allow", "GET")), request)
        return answer(NotFound("unknown path; see /docs"), request)

    @api.exception_handler(RequestValidationError)
    async def answer_invalid_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        parameter = ".".join(str(part) for part in first["loc"][1:])
        return answer(RequestError(f"{parameter}: {first['msg']}", slug="bad-option"), request)
